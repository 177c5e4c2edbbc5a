"""`connectx`: what goes in, what comes out, when it ends and what it leaves, over both kinds of socket."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.net.racing import Recorder, Stopwatch, at, causes, dead, good, ms, outcomes, rows, starts, virtual, winner
from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import in_time
from tests.support.sweep import Step, sweep
from trio_connect import (
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    EstablishFailed,
    Nat64,
    RacePolicy,
    Source,
    TcpStream,
    connectx,
    now,
)
from trio_connect._deadline import to_seconds

SOON = RacePolicy(attempt_delay=0.010)
# The clock of a sweep jumps wherever everybody waits; nothing but the cancel is to end an attempt there.
PATIENT = RacePolicy(attempt_delay=0.010, attempt_timeout=math.inf)
SEQUENTIAL = RacePolicy(attempt_delay=math.inf)


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoints", [[], (), iter(()), {}, set()], ids=lambda value: type(value).__name__)
async def test_line_85_an_empty_list_is_a_value_error_at_once(endpoints):
    recorder = Recorder()
    with pytest.raises(ValueError, match="at least one endpoint"):
        await connectx(endpoints, observer=recorder)
    assert recorder.events == []


@pytest.mark.parametrize(
    ("endpoints", "error", "text"),
    [
        ("192.0.2.1:443", TypeError, "iterable of Endpoint"),
        (b"x", TypeError, "iterable of Endpoint"),
        (Endpoint("192.0.2.1", 443), TypeError, "iterable of Endpoint"),
        (443, TypeError, "443"),
        (None, TypeError, "None"),
        (["192.0.2.1:443"], TypeError, "tuple"),
        ([("192.0.2.1",)], TypeError, "tuple"),
        ([("example.org", 443)], ValueError, "connect"),
        ([("192.0.2.1", 0)], ValueError, "port 0"),
        ([("192.0.2.1", 65536)], ValueError, "65535"),
        ([("192.0.2.1", True)], TypeError, "True"),
        ([("192.0.2.1", 443), None], TypeError, "None"),
    ],
    ids=repr,
)
async def test_endpoints_that_are_none_are_refused_before_anything_is_opened(endpoints, error, text, sockets: Sockets):
    recorder = Recorder()
    with pytest.raises(error, match=text):
        await connectx(endpoints, observer=recorder)
    assert recorder.events == []
    assert sockets.factory is None or not sockets.factory.created


async def unawaited(event: object) -> None:
    raise AssertionError("an observer is called, and not awaited")


class AsyncObserver:
    async def __call__(self, event: object) -> None:
        raise AssertionError("an observer is called, and not awaited")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"policy": 0.25}, TypeError),
        ({"policy": None}, TypeError),
        ({"sources": Source()}, TypeError),
        ({"sources": ["192.0.2.1"]}, TypeError),
        ({"sources": 3}, TypeError),
        ({"observer": 3}, TypeError),
        ({"establish": 3}, TypeError),
        ({"options": {}}, TypeError),
        ({"history": {}}, TypeError),
        ({"timeout": 3}, TypeError),
        ({"deadline": 1.0}, TypeError),
        ({"deadline": True}, TypeError),
        ({"deadline": None}, TypeError),
        ({"deadline": -2}, ValueError),
    ],
    ids=repr,
)
async def test_options_that_are_none_are_refused(options, error):
    with pytest.raises(error):
        await connectx([("127.0.0.1", 9)], **options)


@pytest.mark.parametrize("observer", [unawaited, AsyncObserver()], ids=["a function", "an object"])
async def test_an_observer_that_is_async_would_never_run_and_is_refused(observer):
    with pytest.raises(TypeError, match=r"^observer must not be async, got "):
        await connectx([("127.0.0.1", 9)], observer=observer)


@pytest.mark.parametrize("delay", [0, 0.009, -1, math.nan, True, None, "1"])
def test_line_82_a_delay_of_zero_is_refused_here_too(delay):
    with pytest.raises((ValueError, TypeError)):
        RacePolicy(attempt_delay=delay)


# --- the race in virtual time -----------------------------------------------------------------------------------------


@virtual
async def test_line_44_the_order_given_is_tried_250_ms_apart(net):
    hosts = ["192.0.2.3", "2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"]
    dead(net, *hosts[:-1])
    good(net, hosts[-1])
    stream = await connectx(at(*hosts))
    assert starts(stream.report) == dict(zip(hosts, (0, 250, 500, 750, 1000), strict=True))
    assert net.trace.starts == {host: start / 1000 for host, start in starts(stream.report).items()}
    stream.abort()


@virtual
async def test_line_42_starts_keep_to_an_absolute_schedule(net):
    hosts = [f"192.0.2.{n}" for n in range(1, 10)]
    dead(net, *hosts[:-1])
    good(net, hosts[-1])
    stream = await connectx(at(*hosts))
    assert list(starts(stream.report).values()) == [250.0 * n for n in range(9)]
    assert rows(stream.report)[-1] == ("192.0.2.9", "delay", 2000, 2020, "won")
    stream.abort()


@virtual
async def test_line_43_and_75_a_slow_attempt_wins_though_others_were_started(net):
    good(net, "192.0.2.1", rtt=0.7)
    dead(net, "192.0.2.2", "192.0.2.3")
    stream = await connectx(at("192.0.2.1", "192.0.2.2", "192.0.2.3"))
    assert rows(stream.report) == [
        ("192.0.2.1", "first", 0, 700, "won"),
        ("192.0.2.2", "delay", 250, 700, "lost"),
        ("192.0.2.3", "delay", 500, 700, "lost"),
    ]
    assert {a.beaten_by for a in stream.report.attempts[1:]} == {Endpoint("192.0.2.1", 443)}
    stream.abort()


@virtual
async def test_line_45_ten_milliseconds_between_refusals(net):
    hosts = [f"192.0.2.{n}" for n in range(1, 6)]
    for host in hosts:
        net.host(host).refuse(0.001)
    with pytest.raises(ConnectFailed):
        await connectx(at(*hosts))
    assert sorted(net.trace.starts.values()) == [0, 0.010, 0.020, 0.030, 0.040]


@virtual
async def test_line_45_the_failure_of_any_attempt_opens_one_gate(net):
    dead(net, "192.0.2.1")
    net.host("192.0.2.2").refuse(0.05)
    net.host("192.0.2.3").refuse(0.05)
    net.host("192.0.2.4").refuse(0.1)
    dead(net, "192.0.2.5", "192.0.2.6")
    with pytest.raises(DeadlineExceeded) as caught:
        await connectx(at(*(f"192.0.2.{n}" for n in range(1, 7))), now() + 700)
    assert caught.value.report is not None
    assert list(starts(caught.value.report).values()) == [0, 250, 300, 350, 450, None]


@virtual
async def test_line_50_the_end_of_the_list_starts_nothing(net):
    dead(net, "192.0.2.1", "192.0.2.2")
    watch = Stopwatch()
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at("192.0.2.1", "192.0.2.2"))
    assert watch.ms == 10250  # the second one's attempt_timeout
    assert outcomes(caught.value.report) == ["timed out", "timed out"]
    assert caught.value.errno == errno.ETIMEDOUT


@virtual
async def test_line_51_and_52_a_success_closes_the_others_and_starts_no_more(net):
    dead(net, "192.0.2.1", "192.0.2.2")
    good(net, "192.0.2.3", "192.0.2.4")
    stream = await connectx(at("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"))
    assert outcomes(stream.report) == ["lost", "lost", "won", "not tried"]
    assert len(net.open_sockets) == 1
    await trio.sleep(30)
    assert "192.0.2.4" not in net.trace.starts
    assert [c.outcome for c in net.trace.connections] == ["abandoned", "abandoned", "connected"]
    stream.abort()


@virtual
async def test_line_54_what_comes_first_in_the_list_is_started_first(net):
    groups = [["192.0.2.1", "192.0.2.2"], ["192.0.2.3", "192.0.2.4"]]
    dead(net, *groups[0])
    good(net, *groups[1])
    stream = await connectx(at(*groups[0], *groups[1]))
    assert starts(stream.report) == {"192.0.2.1": 0, "192.0.2.2": 250, "192.0.2.3": 500, "192.0.2.4": None}
    stream.abort()


@virtual
async def test_line_80_at_the_limit_a_start_waits_and_nobody_is_given_up(net):
    hosts = [f"192.0.2.{n}" for n in range(1, 5)]
    dead(net, *hosts[:2])
    net.host(hosts[2]).refuse(0.3)
    good(net, hosts[3])
    stream = await connectx(at(*hosts), policy=RacePolicy(max_in_flight=2, attempt_timeout=2))
    assert rows(stream.report) == [
        ("192.0.2.1", "first", 0, 2000, "timed out"),
        ("192.0.2.2", "delay", 250, 2250, "timed out"),
        ("192.0.2.3", "slot", 2000, 2270, "lost"),
        ("192.0.2.4", "slot", 2250, 2270, "won"),
    ]
    assert net.trace.live_max == 2
    stream.abort()


@virtual
async def test_line_82_an_infinite_delay_is_one_at_a_time(net):
    dead(net, "192.0.2.1")
    net.host("192.0.2.2").refuse(0.5)
    good(net, "192.0.2.3")
    policy = RacePolicy(attempt_delay=math.inf, attempt_timeout=3)
    stream = await connectx(at("192.0.2.1", "192.0.2.2", "192.0.2.3"), policy=policy)
    assert rows(stream.report) == [
        ("192.0.2.1", "first", 0, 3000, "timed out"),
        ("192.0.2.2", "failure", 3000, 3500, "failed"),
        ("192.0.2.3", "failure", 3500, 3520, "won"),
    ]
    assert net.trace.live_max == 1
    stream.abort()


@virtual
async def test_an_infinite_attempt_timeout_leaves_it_to_the_kernel(net):
    dead(net, "192.0.2.1")
    with pytest.raises(ConnectFailed, match="timed out in the kernel: 1") as caught:
        await connectx(at("192.0.2.1"), policy=RacePolicy(attempt_timeout=math.inf))
    assert outcomes(caught.value.report) == ["failed"]
    assert caught.value.errno == errno.ETIMEDOUT
    assert caught.value.report.elapsed == 127


# --- establish --------------------------------------------------------------------------------------------------------


@virtual
async def test_line_55_others_live_until_establish_is_through(net):
    good(net, "192.0.2.1", "192.0.2.2")
    still_open = []

    async def establish(stream: TcpStream) -> str:
        await trio.sleep(1 if stream.peer.host == "192.0.2.1" else 5)
        still_open.append(len(net.open_sockets))
        return stream.peer.host

    assert await connectx(at("192.0.2.1", "192.0.2.2"), establish=establish) == "192.0.2.1"
    assert still_open == [2]
    (winner,) = net.open_sockets
    winner.close()


@virtual
async def test_line_57_a_handshake_that_is_over_puts_the_next_start_off_by_its_own_length(net):
    good(net, "192.0.2.1", rtt=0.1)
    good(net, "192.0.2.2")

    async def establish(stream: TcpStream) -> TcpStream:
        await trio.sleep(0.3 if stream.peer.host == "192.0.2.1" else 0)
        return stream

    stream = await connectx(at("192.0.2.1", "192.0.2.2"), establish=establish)
    # Due at 250, put off by 100; by then the first one had not been through for 50 more.
    assert starts(stream.report) == {"192.0.2.1": 0, "192.0.2.2": 350}
    assert stream.peer.host == "192.0.2.2"
    stream.abort()


@virtual
async def test_the_attempt_timeout_covers_establish_and_names_it(net):
    good(net, "192.0.2.1")

    async def establish(_stream: TcpStream) -> None:
        await trio.sleep_forever()

    watch = Stopwatch()
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at("192.0.2.1"), establish=establish, policy=RacePolicy(attempt_timeout=0.5))
    assert watch.ms == 500
    (attempt,) = caught.value.attempts
    assert (attempt.outcome, attempt.phase, attempt.errno) == ("timed out", "establish", errno.ETIMEDOUT)
    (error,) = causes(caught.value)
    assert str(error) == (
        "[Errno 110] establish with 192.0.2.1:443 from 192.0.2.254 took longer than attempt_timeout, 500.0 ms"
    )


@virtual
async def test_establish_gets_a_stream_that_works_and_its_result_comes_back(net):
    good(net, "192.0.2.1")

    async def establish(stream: TcpStream) -> tuple[bytes, TcpStream]:
        await stream.send_all(b"hello")
        return await stream.receive_exactly(5), stream

    greeting, stream = await connectx(at("192.0.2.1"), establish=establish)
    assert greeting == b"hello"
    assert stream.report.elapsed == pytest.approx(0.040)
    assert winner(stream.report).phase == "establish"
    stream.abort()


@virtual
async def test_establish_may_return_anything(net):
    good(net, "192.0.2.1")
    values: list[object] = [0, [], (), False]
    for value in values:

        async def establish(stream: TcpStream, value: object = value) -> object:
            stream.abort()
            return value

        assert await connectx(at("192.0.2.1"), establish=establish) is value


@pytest.fixture(scope="module")
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server, client = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("service.test").configure_cert(server)
    authority.configure_trust(client)
    return server, client


@contextlib.asynccontextmanager
async def serving_tls(context: ssl.SSLContext) -> AsyncIterator[tuple[str, int]]:
    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError, OSError):
            async with trio.SSLStream(stream, context, server_side=True) as secure:
                async for chunk in secure:
                    await secure.send_all(chunk)

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()
        nursery.cancel_scope.cancel()


def handshake(context: ssl.SSLContext):
    async def establish(stream: TcpStream) -> trio.SSLStream[TcpStream]:
        secure = trio.SSLStream(stream, context, server_hostname="service.test")
        await secure.do_handshake()
        return secure

    return establish


@contextlib.asynccontextmanager
async def swallowing() -> AsyncIterator[tuple[str, int]]:
    """A middlebox: it completes TCP, takes everything, and never answers."""

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for _ in stream:
                pass

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.socket.getsockname()
        nursery.cancel_scope.cancel()


async def test_line_55_and_56_the_path_behind_a_middlebox_that_never_answers_tls_loses(tls, sockets: Sockets):
    server, client = tls
    async with no_leaks(counters=sockets.counters), swallowing() as middlebox, serving_tls(server) as service:
        secure = await connectx([middlebox, service], establish=handshake(client), policy=SOON)
        report = secure.transport_stream.report
        assert outcomes(report) == ["lost", "won"]
        assert report.attempts[0].phase == "establish"
        await secure.send_all(b"over TLS")
        assert await secure.receive_some() == b"over TLS"
        secure.transport_stream.abort()


async def test_line_56_a_port_that_does_not_speak_tls_is_passed_over(tls, sockets: Sockets):
    server, client = tls
    async with (
        no_leaks(counters=sockets.counters),
        faults.resetting(b"220 mail\r\n") as plain,
        serving_tls(server) as service,
    ):
        secure = await connectx([plain.address.pair, service], establish=handshake(client), policy=SEQUENTIAL)
        failed, won = secure.transport_stream.report.attempts
        assert (failed.outcome, failed.phase, failed.errno) == ("failed", "establish", None)
        assert won.outcome == "won"
        secure.transport_stream.abort()


async def test_a_certificate_that_does_not_match_says_so(tls, sockets: Sockets):
    server, _ = tls
    async with no_leaks(counters=sockets.counters), serving_tls(server) as service:
        with pytest.raises(ConnectFailed) as caught:
            await connectx([service], establish=handshake(ssl.create_default_context()))
        assert caught.value.errno is None
        (error,) = causes(caught.value)
        assert isinstance(error, trio.BrokenResourceError)
        assert "certificate verify failed" in str(error.__cause__)
        del caught, error


@virtual
async def test_line_56_in_virtual_time_with_the_default_policy(net):
    net.host("2001:db8::1").silent(443, rtt=0.010)
    good(net, "192.0.2.1")

    async def establish(stream: TcpStream) -> TcpStream:
        await stream.send_all(b"hello?")
        await stream.receive_exactly(6)
        return stream

    watch = Stopwatch()
    stream = await connectx(at("2001:db8::1", "192.0.2.1"), establish=establish)
    assert (stream.peer.host, watch.ms) == ("192.0.2.1", 250 + 10 + 20 + 20)
    stream.abort()


# --- endings ----------------------------------------------------------------------------------------------------------


@virtual
async def test_line_74_a_deadline_ends_a_race_at_its_instant_in_every_state(net):
    dead(net, "192.0.2.1", "192.0.2.2")
    net.host("192.0.2.3").silent(443)

    async def establish(stream: TcpStream) -> None:
        await stream.receive_some()

    calls: list[tuple[Any, dict[str, Any], list[str]]] = [
        (at("192.0.2.1", "192.0.2.2"), {}, ["cancelled", "not tried"]),  # racing, more to come
        (at("192.0.2.1"), {}, ["cancelled"]),  # the list is exhausted
        (at("192.0.2.3"), {"establish": establish}, ["cancelled"]),  # establishing
        (Silence(), {}, []),  # waiting for the first endpoint
    ]
    for endpoints, options, wanted in calls:
        for patience in (1, 100, 249):
            recorder = Recorder()
            watch = Stopwatch()
            with pytest.raises(DeadlineExceeded, match="no result by its deadline") as caught:
                await connectx(endpoints, now() + patience, observer=recorder, **options)
            assert watch.ms == patience
            assert caught.value.report is not None
            assert outcomes(caught.value.report) == wanted
            assert caught.value.report is recorder.report
            assert caught.value.errno == errno.ETIMEDOUT
            assert net.open_sockets == ()


class Silence:
    def __aiter__(self) -> Silence:
        return self

    async def __anext__(self) -> tuple[str, int]:
        await trio.sleep_forever()
        raise AssertionError


@virtual
async def test_line_74_a_scope_around_the_call_raises_what_trio_raises(net):
    dead(net, "192.0.2.1", "192.0.2.2")
    recorder = Recorder()
    with pytest.raises(trio.TooSlowError) as caught:
        with trio.fail_after(0.3):
            await connectx(at("192.0.2.1", "192.0.2.2"), observer=recorder)
    assert type(caught.value) is trio.TooSlowError
    assert rows(recorder.report) == [
        ("192.0.2.1", "first", 0, 300, "cancelled"),
        ("192.0.2.2", "delay", 250, 300, "cancelled"),
    ]


@pytest.mark.parametrize("hosts", [1, 2])
@virtual
async def test_at_the_same_instant_the_scope_around_the_call_wins(net, hosts):
    dead(net, "192.0.2.1", "192.0.2.2")

    async def establish(stream: TcpStream) -> TcpStream:
        return stream

    each: list[dict[str, Any]] = [{}, {"establish": establish}]
    for options in each:
        deadline = now() + 500
        with trio.CancelScope(deadline=to_seconds(deadline)) as scope:
            await connectx(at("192.0.2.1", "192.0.2.2")[:hosts], deadline, **options)
        assert scope.cancelled_caught


@pytest.mark.parametrize("cancelled_before", [True, False])
async def test_a_call_that_was_cancelled_before_it_began_opens_nothing(cancelled_before, sockets: Sockets):
    async with faults.echoing() as peer, no_leaks(counters=sockets.counters):
        each: list[dict[str, Any]] = [{}, {"observer": Recorder()}, {"establish": trio.abc.AsyncResource.aclose}]
        for options in each:
            with trio.CancelScope() as scope:
                scope.cancel()
                await connectx([peer.address.pair], **options)
            assert scope.cancelled_caught
            if "observer" in options:
                assert options["observer"].names == ["RaceFinished"]
                assert outcomes(options["observer"].report) == ["not tried"]
        assert peer.accepted == 0
    assert sockets.factory is None or not sockets.factory.created


async def test_every_call_is_a_checkpoint(sockets: Sockets):
    async with faults.echoing() as peer:
        with faults.refusing() as refused:
            with trio.testing.assert_checkpoints():
                stream = await connectx([peer.address.pair])
            stream.abort()
            with trio.testing.assert_checkpoints(), pytest.raises(ConnectFailed):
                await connectx([refused.pair])
            with trio.testing.assert_checkpoints(), pytest.raises(ConnectFailed):
                await connectx([("192.0.2.1", 443)], sources=[Source(ipv6="::1")])


# --- deadline 0 -------------------------------------------------------------------------------------------------------


class Patience(trio.abc.Instrument):
    """The longest time that Trio's loop was ready to wait for anything."""

    longest = 0.0

    def before_io_wait(self, timeout: float) -> None:
        self.longest = max(self.longest, timeout)


async def test_now_or_never(sockets: Sockets):
    async with faults.echoing() as peer, no_leaks(counters=sockets.counters):
        with faults.refusing() as refused, faults.black_hole() as hole:
            stream = await in_time(lambda: connectx([peer.address.pair], 0))
            stream.abort()
            with pytest.raises(ConnectFailed, match="refused: 1"):
                await in_time(lambda: connectx([refused.pair], 0))
            # After an immediate failure the next; loopback keeps no floor.
            pairs = [refused.pair, (refused.host, refused.port), peer.address.pair]
            stream = await in_time(lambda: connectx(pairs, 0, policy=SEQUENTIAL))
            assert outcomes(stream.report) == ["failed", "won"]
            stream.abort()
            patience = Patience()
            trio.lowlevel.add_instrument(patience)
            with pytest.raises(DeadlineExceeded) as caught:
                await connectx([hole.pair, peer.address.pair], 0, policy=SEQUENTIAL)
            trio.lowlevel.remove_instrument(patience)
            assert patience.longest == 0
            assert caught.value.report is not None
            assert outcomes(caught.value.report) == ["cancelled", "not tried"]
            del caught


async def test_now_or_never_with_establish(sockets: Sockets):
    async def at_once(stream: TcpStream) -> TcpStream:
        await trio.lowlevel.checkpoint()
        return stream

    async def never(_stream: TcpStream) -> None:
        await trio.sleep_forever()

    async with faults.echoing() as peer, no_leaks(counters=sockets.counters):
        stream = await connectx([peer.address.pair], 0, establish=at_once)
        stream.abort()
        with pytest.raises(DeadlineExceeded) as caught:
            await connectx([peer.address.pair], 0, establish=never)
        assert caught.value.report is not None
        assert [(a.outcome, a.phase) for a in caught.value.report.attempts] == [("cancelled", "establish")]
        del caught


@virtual
async def test_now_or_never_takes_no_time_and_obeys_the_floor(net):
    net.host("192.0.2.1").refuse(0)
    good(net, "192.0.2.2", rtt=0)
    watch = Stopwatch()
    with pytest.raises(DeadlineExceeded) as caught:
        await connectx(at("192.0.2.1", "192.0.2.2"), 0)
    assert watch.ms == 0
    # 10 ms have to pass after a refusal from the network, and there is no time left.
    assert caught.value.report is not None
    assert outcomes(caught.value.report) == ["failed", "not tried"]


async def test_a_duration_taken_for_a_deadline_is_explained():
    with pytest.raises(ValueError, match=r"a deadline is a point in time: now\(\) \+ 5000, got 5000"):
        await connectx([("192.0.2.1", 443)], 5000)


# --- candidates -------------------------------------------------------------------------------------------------------


@virtual
async def test_duplicates_are_tried_once(net):
    net.host("192.0.2.1").refuse()
    net.host("2001:db8::1").refuse()
    with pytest.raises(ConnectFailed) as caught:
        await connectx(
            [
                ("192.0.2.1", 443),
                Endpoint("192.0.2.1", 443),
                ("2001:db8::1", 443),
                ("2001:0db8:0::1", 443, 0, 0),
                ("192.0.2.1", 443),
            ]
        )
    assert [a.endpoint.host for a in caught.value.attempts] == ["192.0.2.1", "2001:db8::1"]


@virtual
async def test_no_more_than_64_are_tried_and_the_rest_is_reported(net):
    hosts = [f"192.0.2.{n}" for n in range(1, 71)]
    for host in hosts:
        net.host(host).unreachable()
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(*hosts))
    assert outcomes(caught.value.report) == ["failed"] * 64 + ["not tried"] * 6
    assert len(net.trace.connections) == 64
    assert "all 64 attempts" in str(caught.value)
    assert "not tried: 6" in str(caught.value)


@virtual
async def test_line_81_endpoints_without_a_usable_source_are_skipped(net):
    good(net, "192.0.2.1")
    sources = [Source(ipv4="192.0.2.254")]
    stream = await connectx(at("2001:db8::1", "192.0.2.1", "2001:db8::2"), sources=sources)
    assert [(a.endpoint.host, a.outcome, a.started) for a in stream.report.attempts] == [
        ("192.0.2.1", "won", 0.0),
        ("2001:db8::1", "skipped", None),
        ("2001:db8::2", "skipped", None),
    ]
    stream.abort()
    recorder = Recorder()
    skipped = r"no attempt could be made .*\(skipped, no source of its family: 1\)"
    with pytest.raises(ConnectFailed, match=skipped) as caught:
        await connectx(at("2001:db8::1"), sources=sources, observer=recorder)
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert caught.value.report is recorder.report
    assert outcomes(recorder.report) == ["skipped"]


@virtual
async def test_several_sources_are_raced_endpoint_by_endpoint(net):
    net.host("192.0.2.254", "192.0.2.253")
    dead(net, "192.0.2.1", "2001:db8::1")
    good(net, "192.0.2.2")
    sources = [Source(ipv4="192.0.2.254", ipv6="2001:db8::fe"), Source(ipv4="192.0.2.253")]
    stream = await connectx(at("192.0.2.1", "2001:db8::1", "192.0.2.2"), sources=sources)
    assert [(a.source, a.endpoint.host, ms(a.started)) for a in stream.report.attempts] == [
        (sources[0], "192.0.2.1", 0),
        (sources[1], "192.0.2.1", 250),
        (sources[0], "2001:db8::1", 500),
        (sources[0], "192.0.2.2", 750),
        (sources[1], "192.0.2.2", None),
    ]
    assert stream.local.host == "192.0.2.254"
    stream.abort()


async def test_sources_on_loopback(sockets: Sockets):
    async with faults.echoing() as peer, no_leaks(counters=sockets.counters):
        stream = await connectx([peer.address.pair], sources=[Source(ipv4="127.0.0.5")])
        assert stream.local.host == "127.0.0.5"
        assert winner(stream.report).source == Source(ipv4="127.0.0.5")
        stream.abort()
        # A source that this machine does not have fails locally, and the next one is tried.
        stream = await connectx(
            [peer.address.pair], sources=[Source(ipv4="192.0.2.77"), Source(ipv4="127.0.0.6")], policy=SEQUENTIAL
        )
        failed, won = stream.report.attempts
        assert (failed.outcome, failed.phase, failed.errno) == ("failed", "bind", errno.EADDRNOTAVAIL)
        assert (won.outcome, won.cause, stream.local.host) == ("won", "failure", "127.0.0.6")
        stream.abort()


# --- endpoints as they come -------------------------------------------------------------------------------------------


@virtual
async def test_line_63_endpoints_of_an_async_iterable_join_in_order_of_arrival(net):
    dead(net, "192.0.2.1", "192.0.2.2")
    good(net, "192.0.2.3")

    async def come() -> AsyncIterator[tuple[str, int]]:
        await trio.sleep(0.1)
        yield "192.0.2.1", 443
        yield "192.0.2.2", 443
        await trio.sleep(0.7)
        yield "192.0.2.3", 443

    stream = await connectx(come())
    assert rows(stream.report) == [
        ("192.0.2.1", "first", 100, 820, "lost"),
        ("192.0.2.2", "delay", 350, 820, "lost"),
        ("192.0.2.3", "arrival", 800, 820, "won"),
    ]
    stream.abort()


@virtual
async def test_an_endpoint_that_comes_when_all_have_failed_starts_at_once(net):
    net.host("192.0.2.1").refuse(0.05)
    good(net, "192.0.2.2")

    async def come() -> AsyncIterator[Endpoint]:
        yield Endpoint("192.0.2.1", 443)
        await trio.sleep(5)
        yield Endpoint("192.0.2.2", 443)
        await trio.sleep_forever()

    stream = await connectx(come())
    assert rows(stream.report) == [
        ("192.0.2.1", "first", 0, 50, "failed"),
        ("192.0.2.2", "arrival", 5000, 5020, "won"),
    ]
    stream.abort()


@virtual
async def test_the_generator_is_closed_before_connectx_returns(net):
    good(net, "192.0.2.1")
    net.host("192.0.2.9").refuse()
    closed = []

    async def come(address: str) -> AsyncIterator[tuple[str, int]]:
        try:
            yield address, 443
            await trio.sleep_forever()
        finally:
            closed.append(address)

    stream = await connectx(come("192.0.2.1"))
    assert closed == ["192.0.2.1"]
    stream.abort()
    with pytest.raises(DeadlineExceeded):
        await connectx(come("192.0.2.9"), now() + 100)
    assert closed == ["192.0.2.1", "192.0.2.9"]
    with trio.move_on_after(0.1):
        await connectx(come("192.0.2.9"))
    assert closed == ["192.0.2.1", "192.0.2.9", "192.0.2.9"]


@pytest.mark.parametrize("nat64", [None, Nat64(["64:ff9b::/96"])], ids=["plain", "nat64"])
@virtual
async def test_a_generator_that_was_begun_is_closed_by_a_call_that_reads_nothing_of_it(net, nat64):
    closed = []

    async def come() -> AsyncIterator[tuple[str, int]]:
        try:
            while True:
                yield "192.0.2.1", 443
        finally:
            closed.append(1)

    late, cancelled = come(), come()
    await anext(late)
    await anext(cancelled)
    await trio.sleep(1)
    with pytest.raises(DeadlineExceeded):
        await connectx(late, now() - 100, nat64=nat64)
    assert closed == [1]
    with trio.CancelScope() as scope:
        scope.cancel()
        await connectx(cancelled, nat64=nat64)
    assert scope.cancelled_caught
    assert closed == [1, 1]


@virtual
async def test_an_object_whose_iterator_is_a_generator_has_that_closed(net):
    good(net, "192.0.2.1")
    closed = []

    class Registry:
        async def __aiter__(self) -> AsyncIterator[tuple[str, int]]:
            try:
                yield "192.0.2.1", 443
                await trio.sleep_forever()
            finally:
                closed.append(self)

    registry = Registry()
    (await connectx(registry)).abort()
    assert closed == [registry]


@virtual
async def test_a_channel_stays_open_and_keeps_what_was_not_read(net):
    good(net, "192.0.2.1")
    net.host("192.0.2.9").unreachable()
    send, receive = trio.open_memory_channel[tuple[str, int]](100)
    send.send_nowait(("192.0.2.1", 443))
    (await connectx(receive)).abort()
    for _ in range(70):
        send.send_nowait(("192.0.2.9", 443))
    with pytest.raises(DeadlineExceeded):
        await connectx(receive, now() + 100)
    send.send_nowait(("192.0.2.1", 443))
    (await connectx(receive)).abort()
    assert receive.statistics().open_receive_channels == 1


@virtual
async def test_a_generator_that_yields_without_end_is_stopped_at_64(net):
    for n in range(1, 71):
        net.host(f"192.0.2.{n}").unreachable()
    asked = 0

    async def come() -> AsyncIterator[tuple[str, int]]:
        nonlocal asked
        while True:
            asked += 1
            yield f"192.0.2.{asked}", 443

    with pytest.raises(ConnectFailed) as caught:
        await connectx(come())
    assert asked == 64
    assert outcomes(caught.value.report) == ["failed"] * 64


class Bug(Exception):
    pass


@pytest.mark.parametrize("first", [[], ["192.0.2.1"]], ids=repr)
@pytest.mark.parametrize("error", [Bug(), OSError(5, "x"), KeyboardInterrupt(), ExceptionGroup("x", [Bug()])], ids=repr)
@virtual
async def test_a_generator_that_raises_is_heard_as_itself(net, first, error):
    dead(net, "192.0.2.1")

    async def come() -> AsyncIterator[tuple[str, int]]:
        for address in first:
            yield address, 443
        await trio.sleep(1)
        raise error

    recorder = Recorder()
    with pytest.raises(type(error)) as caught:
        await connectx(come(), observer=recorder)
    assert caught.value is error
    assert outcomes(recorder.report) == ["cancelled"] * len(first)


@pytest.mark.parametrize(
    ("item", "error"), [(("example.org", 1), ValueError), (("192.0.2.1", 0), ValueError), (3, TypeError)]
)
@virtual
async def test_what_is_no_endpoint_in_an_async_iterable_is_heard_too(net, item, error):
    dead(net, "192.0.2.9")

    async def come() -> AsyncIterator[Any]:
        yield "192.0.2.9", 443
        await trio.sleep(0.1)
        yield item

    with pytest.raises(error):
        await connectx(come())


@virtual
async def test_line_85_an_async_iterable_without_endpoints_is_a_value_error(net):
    async def come() -> AsyncIterator[tuple[str, int]]:
        await trio.sleep(1)
        return
        yield

    recorder = Recorder()
    with pytest.raises(ValueError, match="the iterable had none"):
        await connectx(come(), observer=recorder)
    assert recorder.names == ["RaceFinished"]


@virtual
async def test_an_async_iterator_that_is_no_generator(net):
    good(net, "192.0.2.1")

    class Two:
        left = 2

        def __aiter__(self) -> Two:
            return self

        async def __anext__(self) -> tuple[str, int]:
            self.left -= 1
            if self.left < 0:
                raise StopAsyncIteration
            return "192.0.2.1", 443

    stream = await connectx(Two())
    assert outcomes(stream.report) == ["won"]
    stream.abort()


@virtual
async def test_skipped_endpoints_of_an_async_iterable(net):
    async def come() -> AsyncIterator[tuple[str, int]]:
        yield "2001:db8::1", 443

    with pytest.raises(ConnectFailed, match="skipped, no source of its family: 1"):
        await connectx(come(), sources=[Source(ipv4="192.0.2.254")])


# --- what a failure says ----------------------------------------------------------------------------------------------


async def failure(net, *hosts: str, **options) -> ConnectFailed:
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(*hosts), **options)
    return caught.value


@virtual
async def test_line_79_the_cause_is_a_group_with_one_member_per_attempt_that_names_its_address(net):
    net.host("192.0.2.1").refuse(0.1)
    net.host("2001:db8::1").unreachable(errno.EHOSTUNREACH, after=0.3)
    dead(net, "192.0.2.3")
    error = await failure(net, "192.0.2.1", "2001:db8::1", "192.0.2.3", policy=RacePolicy(attempt_timeout=1))
    members = causes(error)
    assert isinstance(error.__cause__, ExceptionGroup)
    assert [type(member) for member in members] == [ConnectionRefusedError, OSError, TimeoutError]
    assert [str(member) for member in members] == [
        "[Errno 111] connect to 192.0.2.1:443 from 192.0.2.254 refused after 100.0 ms",
        "[Errno 113] connect to [2001:db8::1]:443 from 2001:db8::fe failed (no route to host) after 300.0 ms",
        "[Errno 110] connect to 192.0.2.3:443 from 192.0.2.254 took longer than attempt_timeout, 1000.0 ms",
    ]
    assert str(error) == (
        "[Errno 111] all 3 attempts to 192.0.2.1:443, [2001:db8::1]:443, 192.0.2.3:443 failed in 1.35 s "
        "(refused: 1, no route to host: 1, timed out: 1)"
    )
    for attempt, member in zip(error.attempts, members, strict=True):
        assert str(attempt.endpoint) in str(member)
        assert attempt.errno == member.errno


@pytest.mark.parametrize(
    ("verbs", "code"),
    [
        # what the attempts agree on
        ([("refuse", 0.1), ("refuse", 0.2)], errno.ECONNREFUSED),
        # trouble of this machine counts only if there was nothing else
        ([("unreachable", errno.EADDRNOTAVAIL), ("unreachable", errno.EADDRNOTAVAIL)], errno.EADDRNOTAVAIL),
        (
            [("unreachable", errno.EADDRNOTAVAIL), ("refuse", 0.1), ("unreachable", errno.EADDRNOTAVAIL)],
            errno.ECONNREFUSED,
        ),
        # the most frequent, then the first
        ([("unreachable", errno.EHOSTUNREACH), ("refuse", 0.1), ("refuse", 0.1)], errno.ECONNREFUSED),
        ([("unreachable", errno.EHOSTUNREACH), ("refuse", 0.1)], errno.EHOSTUNREACH),
        ([("refuse", 0.1), ("unreachable", errno.EHOSTUNREACH)], errno.ECONNREFUSED),
    ],
)
@virtual
async def test_the_errno_of_the_whole(net, verbs, code):
    hosts = [f"192.0.2.{n}" for n in range(1, len(verbs) + 1)]
    for host, (verb, argument) in zip(hosts, verbs, strict=True):
        getattr(net.host(host), verb)(argument)
    error = await failure(net, *hosts)
    assert error.errno == code


@virtual
async def test_the_failure_that_came_furthest_gives_the_errno(net):
    net.host("192.0.2.1").refuse(0.01)
    net.host("192.0.2.2").refuse(0.01)
    good(net, "192.0.2.3")

    async def establish(_stream: TcpStream) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "no")

    error = await failure(net, "192.0.2.1", "192.0.2.2", "192.0.2.3", establish=establish)
    assert error.errno == errno.ECONNRESET
    assert "refused: 2, reset: 1" in str(error)


@virtual
async def test_establish_that_refuses_without_an_errno_is_counted(net):
    good(net, "192.0.2.1", "192.0.2.2")
    net.host("192.0.2.3").refuse()

    async def establish(_stream: TcpStream) -> None:
        raise EstablishFailed("not the primary")

    error = await failure(net, "192.0.2.1", "192.0.2.2", establish=establish)
    assert error.errno is None
    assert str(error) == (
        'all 2 attempts to 192.0.2.1:443, 192.0.2.2:443 failed in 40.0 ms (not established: 2: "not the primary")'
    )
    error = await failure(net, "192.0.2.1", "192.0.2.3", establish=establish)
    assert error.errno is None  # the greeting came further than the refusal, and has no errno
    assert '(not established: 1: "not the primary", refused: 1)' in str(error)


@virtual
async def test_a_deadline_in_establish_is_not_said_to_be_the_kernels(net):
    good(net, "192.0.2.1")

    async def establish(stream: TcpStream) -> None:
        await stream.receive_until(b"\n", 100, now() + 300)

    error = await failure(net, "192.0.2.1", establish=establish)
    assert error.errno == errno.ETIMEDOUT
    assert '(timed out in establish: 1: "receive from 192.0.2.1:443 had no result by its deadline' in str(error)
    assert "kernel" not in str(error)


@virtual
async def test_a_long_list_is_not_spelled_out(net):
    hosts = [f"192.0.2.{n}" for n in range(1, 8)]
    for host in hosts:
        net.host(host).refuse(0)
    error = await failure(net, *hosts)
    text = "192.0.2.1:443, 192.0.2.2:443, 192.0.2.3:443, 192.0.2.4:443 and 3 more"
    assert str(error) == f"[Errno 111] all 7 attempts to {text} failed in 60.0 ms (refused: 7)"


async def test_local_trouble_is_never_the_peers_fault(sockets: Sockets):
    async with faults.echoing() as peer:
        with pytest.raises(ConnectFailed) as caught:
            await connectx([peer.address.pair], sources=[Source(ipv4="192.0.2.77")])
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert re.search(r"\(local: cannot assign requested address: 1\)", str(caught.value))
    (error,) = causes(caught.value)
    assert re.match(rf"\[Errno 99\] local: bind for {peer.address.host}:\d+: ", str(error))
    assert not re.search("refused|reset|unreachable", str(caught.value) + str(error))


async def test_running_out_of_descriptors_is_local(sockets: Sockets):
    with faults.refusing() as one, faults.refusing() as other:
        caught = None
        with faults.descriptors_exhausted():
            try:
                await connectx([one.pair, other.pair])
            except ConnectFailed as exc:
                caught = exc
    assert caught is not None
    assert caught.errno == errno.EMFILE
    assert "local: too many open files: 2" in str(caught)


# --- reports ----------------------------------------------------------------------------------------------------------


@virtual
async def test_line_78_the_report_is_data_that_json_takes_with_a_version_and_units(net):
    dead(net, "192.0.2.1")
    net.host("2001:db8::2").refuse(0.1)
    good(net, "192.0.2.3", "192.0.2.4")
    await trio.sleep(2)
    stream = await connectx(
        at("192.0.2.1", "2001:db8::2", "192.0.2.3", "192.0.2.4"), sources=[Source(), Source(ipv6="2001:db8::fe")][:1]
    )
    stream.abort()
    common: dict[str, object] = {
        "source": "any", "phase": "connect", "reason": None, "plain": False, "host": None, "nat64": None,
        "delay_us": None, "delay_reason": None, "history": None,
    }  # fmt: skip
    assert json.loads(json.dumps(stream.report.to_dict(), allow_nan=False)) == {
        "version": 1,
        "started_at_us": 2_000_000,
        "elapsed_us": 370_000,
        "lookups": [],
        "attempts": [
            {
                "endpoint": "192.0.2.1:443", "cause": "first", "started_us": 0, "ended_us": 370_000, "outcome": "lost",
                "errno": None, "error": None, "beaten_by": "192.0.2.3:443", **common,
            },
            {
                "endpoint": "[2001:db8::2]:443", "cause": "delay", "started_us": 250_000, "ended_us": 350_000,
                "outcome": "failed", "errno": errno.ECONNREFUSED, "error": "ECONNREFUSED", "beaten_by": None, **common,
                "reason": "connection refused",
            },
            {
                "endpoint": "192.0.2.3:443", "cause": "failure", "started_us": 350_000, "ended_us": 370_000,
                "outcome": "won", "errno": None, "error": None, "beaten_by": None, **common,
            },
            {
                "endpoint": "192.0.2.4:443", "cause": None, "started_us": None, "ended_us": None,
                "outcome": "not tried", "errno": None, "error": None, "beaten_by": None, **common,
            },
        ],
        "multipath": None,
        "winner": 2,
    }  # fmt: skip


async def test_a_stream_that_won_inline_has_a_report_too(sockets: Sockets):
    async with faults.echoing() as peer:
        stream = await connectx([peer.address.pair, peer.address.pair, ("127.0.0.1", 9)], policy=SEQUENTIAL)
        report = stream.report
        assert outcomes(report) == ["won", "not tried"]
        assert winner(report).endpoint == stream.peer
        assert winner(report).cause == "first"
        assert 0 <= winner(report).started <= winner(report).ended <= report.elapsed
        stream.abort()
        assert stream.report is report


# --- cancel at every step ---------------------------------------------------------------------------------------------


# Trio shuffles its tasks, so one round is a sample.

Kind = str
MIXES: dict[str, list[Kind]] = {
    "1 good": ["good"],
    "1 refused": ["refused"],
    "1 black hole": ["hole"],
    "3 good": ["good"] * 3,
    "3 refused": ["refused"] * 3,
    "3 black holes": ["hole"] * 3,
    "3 with the last good": ["refused", "hole", "good"],
    "3 with the first good": ["good", "hole", "refused"],
    "3 in the middle": ["hole", "good", "hole"],
    "8 good": ["good"] * 8,
    "8 refused": ["refused"] * 8,
    "8 of all kinds": ["hole", "refused", "hole", "refused", "hole", "good", "hole", "good"],
}


@contextlib.asynccontextmanager
async def surroundings(kinds: list[Kind]) -> AsyncIterator[list[tuple[str, int]]]:
    async with contextlib.AsyncExitStack() as stack:
        endpoints = []
        for kind in kinds:
            if kind == "good":
                endpoints.append((await stack.enter_async_context(faults.echoing())).address.pair)
            elif kind == "refused":
                endpoints.append(stack.enter_context(faults.refusing()).pair)
            else:
                endpoints.append(stack.enter_context(faults.black_hole()).pair)
        yield endpoints


async def ask(stream: TcpStream) -> TcpStream:
    await stream.send_all(b"?")
    await stream.receive_exactly(1)
    return stream


@pytest.mark.parametrize("establish", [None, ask], ids=["tcp", "establish"])
@pytest.mark.parametrize(
    # What all eight are alike in, three are as well.
    "mix",
    [pytest.param(mix, marks=[pytest.mark.slow] if mix in ("8 good", "8 refused") else []) for mix in MIXES],
)
async def test_line_77_a_cancel_at_any_step_leaves_nothing_and_loses_no_winner(
    mix, establish, sockets: Sockets, modes, autojump_clock
):
    recorders: list[Recorder] = []

    async def operation(endpoints: list[tuple[str, int]]) -> TcpStream:
        recorder = Recorder()
        recorders.append(recorder)
        stream: TcpStream = await connectx(endpoints, policy=PATIENT, establish=establish, observer=recorder)
        return stream

    async def check(_endpoints: object, step: Step) -> None:
        # Exactly one RaceFinished, and it tells the same story as the caller heard.
        report = recorders.pop().report
        assert (report.winner is not None) == (step.ending == "returned"), f"{step}\n{report}"
        if step.ending == "cancelled":
            assert set(outcomes(report)) <= {"cancelled", "failed", "not tried"}

    await sweep(
        operation,
        environment=lambda: surroundings(MIXES[mix]),
        modes=modes,
        raises=ConnectFailed,
        counters=sockets.counters,
        check=check,
        quiet=0.015,
    )


@pytest.mark.parametrize("kinds", ["good", "hole good", "refused hole", "refused refused"])
async def test_line_77_a_cancel_at_any_step_closes_an_async_iterable_too(
    kinds, sockets: Sockets, modes, autojump_clock
):
    running: list[str] = []
    recorders: list[Recorder] = []

    async def come(endpoints: list[tuple[str, int]]) -> AsyncIterator[tuple[str, int]]:
        running.append("generator")
        try:
            for endpoint in endpoints:
                yield endpoint
                await trio.sleep(0.005)
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()
            running.pop()

    async def operation(endpoints: list[tuple[str, int]]) -> TcpStream:
        recorder = Recorder()
        recorders.append(recorder)
        return await connectx(come(endpoints), policy=PATIENT, observer=recorder)

    async def check(_endpoints: object, step: Step) -> None:
        assert running == [], step
        report = recorders.pop().report
        assert (report.winner is not None) == (step.ending == "returned"), f"{step}\n{report}"

    await sweep(
        operation,
        environment=lambda: surroundings(kinds.split()),
        modes=modes,
        raises=ConnectFailed,
        counters=sockets.counters,
        check=check,
        quiet=0.015,
    )


@pytest.mark.parametrize("establish", [None, ask], ids=["tcp", "establish"])
@pytest.mark.parametrize("mix", ["1 good", "1 black hole", "3 black holes", "3 with the last good", "3 in the middle"])
async def test_line_74_and_77_a_deadline_in_any_pass_leaves_nothing_and_loses_no_winner(
    mix, establish, sockets: Sockets, mock_clock
):
    recorders: list[Recorder] = []

    async def operation(endpoints: list[tuple[str, int]]) -> TcpStream:
        recorder = Recorder()
        recorders.append(recorder)
        stream: TcpStream = await connectx(
            endpoints, now() + 1000, policy=PATIENT, establish=establish, observer=recorder
        )
        return stream

    async def check(_endpoints: object, step: Step) -> None:
        report = recorders.pop().report
        assert (report.winner is not None) == (step.ending == "returned"), f"{step}\n{report}"

    summary = await sweep(
        operation,
        environment=lambda: surroundings(["hole", *MIXES[mix]]),
        modes=["clock"],
        raises=DeadlineExceeded,
        counters=sockets.counters,
        check=check,
        clock=mock_clock,
        jump=2.0,
        quiet=0.015,
    )
    assert any(run.ending == "raised" for run in summary.runs)
