"""Field reports about what a failed connection says: why, whose trouble it was, and how a report is drawn."""

from __future__ import annotations

import datetime as dt
import errno
import inspect
import json
import shlex
import socket
import ssl
import subprocess
import sys
from typing import Any

import pytest
import trio
import trustme

from trio_connect import (
    Answer,
    Attempt,
    AttemptFinished,
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    EstablishFailed,
    RacePolicy,
    SocketOptions,
    Source,
    TcpStream,
    TraceEvent,
    _messages,
    connect,
    connectx,
    now,
    tcp_connect,
    tcp_listen,
)
from trio_connect._messages import connect_error
from trio_connect._net.sockets import options
from trio_connect._race_messages import agreed_errno
from trio_connect.testing import VirtualNetwork, echo, run

BAD, GOOD = Endpoint("192.0.2.1", 25), Endpoint("192.0.2.2", 25)


async def say(text: bytes, stream: trio.abc.Stream) -> None:
    await stream.send_all(text)


def two_relays(net: VirtualNetwork, words: bytes = b"421 too busy\r\n") -> None:
    async def bad(stream: trio.abc.Stream) -> None:
        await say(words, stream)

    async def good(stream: trio.abc.Stream) -> None:
        await say(b"220 ready\r\n", stream)

    net.host(BAD.host).listen(25, bad, rtt=0.010)
    net.host(GOOD.host).listen(25, good, rtt=0.010)


async def greeted(stream: TcpStream) -> tuple[TcpStream, bytes]:
    line = await stream.receive_until(b"\r\n", 1000)
    if not line.startswith(b"220"):
        raise EstablishFailed(line.decode())
    return stream, line


# --- 22 ---------------------------------------------------------------------------------------------------------------


async def in_a_nursery(stream: TcpStream) -> tuple[TcpStream, bytes]:
    results = []

    async def child() -> None:
        results.append(await greeted(stream))

    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        inner.start_soon(child)
        outer.start_soon(trio.sleep, 0)
    return results[0]


def test_field_22_a_nursery_inside_establish_keeps_the_failover():
    """A nursery in an establish wraps its failure in groups; the race goes on to the next address all the same."""

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        stream, line = await connectx([BAD, GOOD], now() + 2000, establish=in_a_nursery)
        async with stream:
            assert (stream.peer, line) == (GOOD, b"220 ready")
        assert [attempt.reason for attempt in stream.report.attempts] == ["421 too busy", None]

    run(main)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ([EstablishFailed("no"), ConnectionResetError(errno.ECONNRESET, "x")], None),
        ([ExceptionGroup("", [ConnectionResetError(errno.ECONNRESET, "x")]), EstablishFailed("no")], errno.ECONNRESET),
        ([trio.BrokenResourceError("gone"), trio.TooSlowError()], None),
    ],
    ids=["first-leaf-without", "nested-first-leaf-with", "trio's"],
)
def test_field_22_a_group_of_attempt_errors_counts_by_its_first_leaf(members, code):
    """A group that an establish raised stands in `errors` as it was raised; its first exception gives the errno."""
    group = ExceptionGroup("several", members)

    async def fail(stream: TcpStream) -> None:
        raise group

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        with pytest.raises(ConnectFailed) as caught:
            await connectx([BAD], establish=fail)
        assert caught.value.errors == (group,)
        assert caught.value.errno == code
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        assert caught.value.__cause__.exceptions == (group,)

    run(main)


def test_field_22_a_group_with_anything_else_in_it_ends_the_race():
    """A group with a bug of the establish in it comes out of the call as it was raised."""
    group = ExceptionGroup("several", [EstablishFailed("no"), ZeroDivisionError()])

    async def fail(stream: TcpStream) -> None:
        raise group

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        with pytest.raises(ExceptionGroup) as caught:
            await connectx([BAD, GOOD], establish=fail)
        assert caught.value is group

    run(main)


def test_field_22_a_nursery_inside_a_resolver_fails_its_lookup_alone():
    """A resolver that asks in a nursery raises a group of errors: that lookup failed, and the other family is tried."""

    class Parallel:
        async def addresses(self, host: str, family: int, /) -> Answer:
            if family == socket.AF_INET:
                return Answer(("192.0.2.2",))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.fail)
            raise AssertionError

        async def fail(self) -> None:
            raise OSError(errno.EIO, "no server answered")

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        async with await connect("mx.test", 25, now() + 2000, resolver=Parallel()) as stream:
            assert stream.peer == GOOD
            failed, _ = stream.report.lookups
            assert failed.error is not None
            assert failed.error.strerror == "no server answered"

    run(main)


# --- 23 ---------------------------------------------------------------------------------------------------------------


def test_field_23_what_the_server_said_is_told_everywhere():
    """A greeting that was refused stands in the error's text, the report, its data, the events and the drawing."""

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        net.host("192.0.2.3").refuse(after=0.005)
        events: list[TraceEvent] = []
        with pytest.raises(ConnectFailed) as caught:
            await connectx([BAD, ("192.0.2.3", 25)], establish=greeted, observer=events.append)
        error = caught.value
        assert 'not established: 1: "421 too busy", refused: 1)' in str(error)
        assert [attempt.reason for attempt in error.attempts] == ["421 too busy", "connection refused"]
        data = json.loads(json.dumps(error.report.to_dict()))
        assert [attempt["reason"] for attempt in data["attempts"]] == ["421 too busy", "connection refused"]
        told = {event.endpoint.host: event.reason for event in events if isinstance(event, AttemptFinished)}
        assert told == {BAD.host: "421 too busy", "192.0.2.3": "connection refused"}
        assert "421 too busy" in str(error.report)
        assert [type(member) for member in error.errors] == [EstablishFailed, ConnectionRefusedError]

    run(main)


def test_field_23_a_certificate_that_has_expired_is_named():
    """Behind Trio's empty BrokenResourceError stands the ssl.SSLError, and that is the reason."""
    authority = trustme.CA()
    expired = authority.issue_cert("127.0.0.1", not_after=dt.datetime.now(dt.UTC) - dt.timedelta(1))
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    expired.configure_cert(served)
    authority.configure_trust(trusting)

    async def handshake(stream: TcpStream) -> trio.SSLStream[TcpStream]:
        tls = trio.SSLStream(stream, trusting, server_hostname="127.0.0.1")
        await tls.do_handshake()
        return tls

    async def serve(stream: TcpStream) -> None:
        tls = trio.SSLStream(stream, served, server_side=True)
        with pytest.raises(trio.BrokenResourceError):
            await tls.do_handshake()

    async def main() -> None:
        async with await tcp_listen(("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            with pytest.raises(ConnectFailed) as caught:
                await connectx([listener.endpoint], now() + 5000, establish=handshake)
            nursery.cancel_scope.cancel()
        assert caught.value.attempts[0].reason == "certificate has expired"
        assert 'not established: 1: "certificate has expired"' in str(caught.value)
        assert caught.value.errno is None

    trio.run(main)


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (EstablishFailed("554 go\r\n away\x00\x1b[2J"), "554 go away\\x00\\x1b[2J"),
        (EstablishFailed("x" * 10_000_000), "x" * 197 + "..."),
        (EstablishFailed(), "EstablishFailed"),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), "connection reset by peer"),
        (OSError(errno.EPROTO, "half a greeting"), "half a greeting"),
        (OSError("no number"), "no number"),
        (trio.TooSlowError(), "TooSlowError"),
    ],
    ids=["control", "huge", "empty", "kernel", "own-words", "no-errno", "slow"],
)
def test_field_23_a_reason_is_one_line(raised, reason):
    """A reason is one line that prints, of bounded length, whatever the peer said."""

    async def fail(stream: TcpStream) -> None:
        raise raised

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        with pytest.raises(ConnectFailed) as caught:
            await connectx([BAD], establish=fail)
        assert caught.value.attempts[0].reason == reason
        assert len(str(caught.value)) < 400

    run(main)


def test_field_23_many_reasons_are_told_once_each_and_not_all():
    """Equal reasons are told once, and no more than four different ones."""

    async def fail(stream: TcpStream) -> None:
        raise EstablishFailed(f"reason {int(stream.peer.host.rpartition('.')[2]) // 2}")

    async def main(net: VirtualNetwork) -> None:
        endpoints = [Endpoint(f"192.0.2.{i}", 25) for i in range(2, 14)]
        for endpoint in endpoints:
            net.host(endpoint.host).listen(25, echo, rtt=0.010)
        with pytest.raises(ConnectFailed) as caught:
            await connectx(endpoints, establish=fail)
        assert str(caught.value).endswith(
            '(not established: 12: "reason 1", "reason 2", "reason 3", "reason 4" and 2 more)'
        )

    run(main)


def test_field_23_an_attempt_that_failed_before_the_deadline_says_why():
    """The text of DeadlineExceeded has the reasons of those that had failed by then."""

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        net.host("192.0.2.9").blackhole()
        with pytest.raises(DeadlineExceeded) as caught:
            await connectx([BAD, ("192.0.2.9", 25)], now() + 1000, establish=greeted)
        assert 'not established: 1: "421 too busy", cancelled: 1' in str(caught.value)

    run(main)


# --- 24 ---------------------------------------------------------------------------------------------------------------


def test_field_24_an_establish_that_returns_none_says_good():
    """An establish that returns None means "good": the result is the stream."""

    async def check(stream: TcpStream) -> None:
        await stream.receive_until(b"220 ready\r\n", 1000)

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        async with await connectx([GOOD], establish=check) as stream:
            assert stream.peer == GOOD
            assert stream.report.winner is not None

    run(main)


def test_field_24_an_establish_that_is_not_async_is_named():
    """An establish that is not async is a TypeError that names it, and its socket is closed."""

    def not_async(stream: TcpStream) -> bool:
        seen.append(stream)
        return True

    seen: list[TcpStream] = []

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        with pytest.raises(TypeError, match=r"establish must be an async function, got .*not_async.* returned True"):
            await connectx([GOOD], establish=not_async)  # type: ignore[arg-type]
        assert [stream.fileno() for stream in seen] == [-1]

    run(main)


# --- 25 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([EstablishFailed("a"), EstablishFailed("b"), OSError(errno.EPROTO, "c")], None),
        ([OSError(errno.EPROTO, "a"), EstablishFailed("b"), OSError(errno.EPROTO, "c")], errno.EPROTO),
        ([EstablishFailed("a"), OSError(errno.EPROTO, "b")], None),
        ([OSError(errno.EPROTO, "a"), EstablishFailed("b")], errno.EPROTO),
        ([None, EstablishFailed("b")], None),
        ([None, ssl.SSLError(1, "[SSL: X] x")], None),
        ([None, None], errno.ECONNREFUSED),
    ],
    ids=["most-none", "most-errno", "tie-none", "tie-errno", "furthest-none", "ssl-number", "agreed"],
)
def test_field_25_no_errno_is_a_value_in_the_furthest_phase(outcomes, code):
    """In the furthest phase "no errno" counts as a value: the most frequent wins, then the first. None is a refusal."""

    async def fail(stream: TcpStream) -> None:
        error = outcomes[int(stream.peer.host.rpartition(".")[2]) - 1]
        assert error is not None
        raise error

    async def main(net: VirtualNetwork) -> None:
        endpoints = [Endpoint(f"192.0.2.{i}", 25) for i in range(1, len(outcomes) + 1)]
        for endpoint, outcome in zip(endpoints, outcomes, strict=True):
            if outcome is None:
                net.host(endpoint.host).refuse(after=0.010)
            else:
                net.host(endpoint.host).listen(25, echo, rtt=0.010)
        with pytest.raises(ConnectFailed) as caught:
            await connectx(endpoints, establish=fail)
        assert caught.value.errno == code
        assert len(caught.value.errors) == len(outcomes)

    run(main)


# --- 30 ---------------------------------------------------------------------------------------------------------------


def advice(error: OSError) -> str:
    """The text and what to do about it."""
    return "; ".join([str(error), *getattr(error, "__notes__", ())])


@pytest.mark.parametrize(
    "how",
    [
        lambda: tcp_connect(("fe80::1", 80), now() + 1000),
        lambda: tcp_connect(("2001:db8::1", 80), now() + 1000, source=Source(ipv6="fe80::1")),
        lambda: tcp_listen(("fe80::1", 0)),
        lambda: connectx([("fe80::1", 80)], now() + 1000),
    ],
    ids=["connect", "bind", "listen", "race"],
)
async def test_field_30_a_link_local_address_without_a_zone_names_the_zone(how):
    """connect, bind and listen say that a link-local address needs its zone, and how it is written."""
    with pytest.raises(OSError, match="local") as caught:
        await how()
    assert caught.value.errno == errno.EINVAL
    assert "a link-local address needs its zone, the name of an interface: fe80::1%eth0" in advice(caught.value)


def test_field_30_a_source_that_cannot_reach_there_is_local():
    """EINVAL from connect(2) is this machine's: 127.0.0.1 cannot reach another host, and the peer is not blamed."""
    target = Endpoint("192.0.2.1", 443)
    error = connect_error(errno.EINVAL, "connect", target, "127.0.0.1", 0.0)
    assert str(error).startswith(f"[Errno {errno.EINVAL}] local: connect for 192.0.2.1:443: invalid argument (from 127")
    assert "no route of this machine leads from 127.0.0.1 to 192.0.2.1" in advice(error)
    local = Attempt(endpoint=target, outcome="failed", errno=errno.EINVAL)
    refused = Attempt(endpoint=target, outcome="failed", errno=errno.ECONNREFUSED)
    assert agreed_errno([local, local, refused]) == errno.ECONNREFUSED


def test_field_30_ipv6_that_is_switched_off_is_not_blamed_on_ports(monkeypatch):
    """Without any IPv6 address EADDRNOTAVAIL means that IPv6 is off; local ports have nothing to do with it."""
    six, four = Endpoint("2001:db8::1", 443), Endpoint("192.0.2.1", 443)
    for is_off in (True, False):
        monkeypatch.setattr(_messages, "_is_ipv6_off", lambda is_off=is_off: is_off)
        for phase in ("connect", "bind"):
            said = advice(connect_error(errno.EADDRNOTAVAIL, phase, six, "any address", 0.0))
            assert ("IPv6 is switched off" in said) == is_off
            assert ("ip_local_port_range" in said) == (not is_off and phase == "connect")
            assert "IPv6" not in advice(connect_error(errno.EADDRNOTAVAIL, phase, four, "any address", 0.0))
    assert "no IPv6" in advice(connect_error(errno.EAFNOSUPPORT, "socket", six, "any address", 0.0))


@pytest.mark.parametrize("factory", [False, True], ids=["kernel", "factory"])
async def test_field_30_a_socket_option_that_is_refused_is_named(factory, monkeypatch):
    """A socket option that the platform lacks or the system refuses is named: in a connect, a race, a listen."""
    if factory:
        trio.socket.set_custom_socket_factory(_PlainFactory())
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        asked = SocketOptions(user_timeout=3)
        monkeypatch.delattr("socket.TCP_USER_TIMEOUT")
        options._cached_connecting.cache_clear()
        for call in (
            lambda: tcp_connect(listener.endpoint, options=asked),
            lambda: connectx([listener.endpoint], options=asked),
            lambda: tcp_listen(("127.0.0.1", 0), options=asked),
        ):
            with pytest.raises(OSError, match="this platform has no TCP_USER_TIMEOUT") as caught:
                await call()
            assert caught.value.errno == errno.ENOPROTOOPT
        monkeypatch.undo()
        options._cached_connecting.cache_clear()
        monkeypatch.setattr(options, "_constant", lambda name: 9999)
        with pytest.raises(OSError, match="the system refuses option 9999 of level 6"):
            await tcp_connect(listener.endpoint, options=asked)
        options._cached_connecting.cache_clear()
    error = options.refused(OSError(errno.ENOPROTOOPT, "x"), socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert error.strerror == "the system refuses TCP_NODELAY"


class _PlainFactory(trio.abc.SocketFactory):
    def socket(self, *arguments: Any) -> trio.socket.SocketType:
        sock = socket.socket(*arguments)
        return trio.socket.from_stdlib_socket(sock)


# --- 33 ---------------------------------------------------------------------------------------------------------------

LONG = "a-service-with-a-long-name.department.example-company.test"
SIX = Endpoint("2001:db8:1234:5678:9abc:def0:1234:5678", 25)


@pytest.mark.parametrize("width", [80, 60, 120])
def test_field_33_no_row_is_longer_than_the_width(width):
    """A drawing fits into 80 columns whatever the names, addresses and reasons are: labels are cut in the middle."""

    async def main(net: VirtualNetwork) -> None:
        two_relays(net, b"554 " + b"a long explanation " * 8 + b"\r\n")
        net.host(SIX.host).refuse(after=0.010)
        net.dns(LONG, [SIX.host, BAD.host])
        with pytest.raises(ConnectFailed) as caught:
            await connect(LONG, 25, establish=greeted, sources=[Source(interface="eth0")])
        lines = caught.value.report.draw(width).splitlines()
        assert max(map(len, lines)) <= width
        assert all("..." in line for line in lines if "2001:db8" in line)
        assert max(map(len, net.trace.waterfall(width).splitlines())) <= width

    run(main)


def test_field_33_each_row_says_when_it_began():
    """Each row has its start time, in a report as in the picture of the virtual network, and the signs are the same."""

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        net.host("192.0.2.3").refuse(after=0.300)
        net.host("192.0.2.4").blackhole()
        async with await connectx([("192.0.2.3", 25), ("192.0.2.4", 25), GOOD]) as stream:
            pass
        report, picture = stream.report.draw(legend=True), net.trace.waterfall()
        for drawn in (report, picture):
            rows = {line.split()[0]: line for line in drawn.splitlines() if line.startswith("192.")}
            assert "x  " in rows["192.0.2.3:25"]
            assert "at   0 ms: connection refused" in rows["192.0.2.3:25"]
            assert "~  " in rows["192.0.2.4:25"]
            assert "at 250 ms: " in rows["192.0.2.4:25"]
            assert "*  " in rows["192.0.2.2:25"]
            assert "at 300 ms: " in rows["192.0.2.2:25"]
        assert "* connected  x failed  ~ given up" in report

    run(main)


def test_field_33_tried_and_failed_tell_failover_from_a_long_list():
    """`report.tried` has the attempts that were started, `report.failed` those that failed, neither has the others."""

    async def main(net: VirtualNetwork) -> None:
        two_relays(net)
        async with await connectx([GOOD, BAD]) as stream:
            report = stream.report
        assert (len(report.attempts), len(report.tried), report.failed) == (2, 1, ())
        stream, _ = await connectx([BAD, GOOD], establish=greeted)
        async with stream:
            report = stream.report
        assert [attempt.endpoint for attempt in report.tried] == [BAD, GOOD]
        assert [attempt.endpoint for attempt in report.failed] == [BAD]

    run(main)


# --- 37 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="a shell with pipes is needed")
def test_field_37_the_demo_may_be_cut_short():
    """`make demo | head -1` prints one line and no traceback."""
    command = f"{shlex.quote(sys.executable)} -m trio_connect.cli.demo | head -1"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.startswith("connectx(4 endpoints")
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_field_37_the_demo_explains_its_signs():
    """The demo ends with a picture, a legend of its signs and the result."""
    command = [sys.executable, "-m", "trio_connect.cli.demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert "* connected  x failed  ~ given up\nconnected to 127.0.0.1:" in done.stdout


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (RacePolicy(), "RacePolicy()"),
        (RacePolicy(attempt_delay=0.1, max_in_flight=4), "RacePolicy(attempt_delay=0.1, max_in_flight=4)"),
        (SocketOptions(), "SocketOptions()"),
        (SocketOptions(nodelay=False, user_timeout=3), "SocketOptions(nodelay=False, user_timeout=3)"),
        (Source(), "Source()"),
        (Source(ipv4="192.0.2.1", port=25), "Source(ipv4='192.0.2.1', port=25)"),
        (Answer(("192.0.2.1",)), "Answer(addresses=('192.0.2.1',))"),
    ],
    ids=str,
)
def test_field_37_a_repr_shows_what_differs_from_the_defaults(value, text):
    """The repr of a value shows what differs from the defaults, and makes the value again."""
    assert repr(value) == text
    assert eval(text) == value


def test_field_37_signatures_can_be_read():
    """`help(connect)` says policy=RacePolicy() and options=SocketOptions(), not every field of both."""
    # Each is a capability of its own, and came after the signatures had been made short.
    since = {"tls", "server_hostname", "history"}
    for function in (connect, connectx, tcp_connect, tcp_listen):
        signature = inspect.signature(function)
        assert all(len(str(parameter)) <= 65 for parameter in signature.parameters.values())
        parameters = [parameter for name, parameter in signature.parameters.items() if name not in since]
        assert len(str(signature.replace(parameters=parameters))) <= 420
    assert "= RacePolicy()" in str(inspect.signature(connect))
    assert "= SocketOptions()" in str(inspect.signature(connect))
