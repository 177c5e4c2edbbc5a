"""`address_filter=`: every address is judged after resolution and before any packet; all that pass are raced."""

from __future__ import annotations

import errno
import functools
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from ipaddress import IPv4Address, ip_address, ip_network
from socket import AF_INET, AF_INET6, AddressFamily
from typing import Any

import pytest
import trio
import trio.testing

from tests.net.racing import Recorder, Stopwatch, at, close, dead, good, outcomes, rows, virtual
from tests.support.sweep import sweep
from trio_connect import (
    Answer,
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    NetworkFilter,
    ResolveFailed,
    SocketOptions,
    Source,
    StaticResolver,
    TcpListener,
    TcpStream,
    connect,
    connect_srv,
    connectx,
    now,
    resolve,
    tcp_connect,
    tcp_listen,
)
from trio_connect._special_purpose import METADATA_SERVICES, NOT_UNICAST, SPECIAL_PURPOSE
from trio_connect.queues import open_queue_set

PUBLIC = NetworkFilter.public_only()
# What the virtual network has are documentation addresses, so what is allowed there is named.
INNER = NetworkFilter(deny=["192.0.2.128/25", "2001:db8:bad::/48"])
V6, V4, OTHER = "2001:db8::1", "192.0.2.1", "192.0.2.2"
BAD6, BAD4 = "2001:db8:bad::1", "192.0.2.200"
WHY4 = "not allowed by the address filter: in 192.0.2.128/25 (denied)"
WHY6 = "not allowed by the address filter: in 2001:db8:bad::/48 (denied)"


def reasons(report: Any) -> dict[str, str | None]:
    return {attempt.endpoint.host: attempt.reason for attempt in report.attempts if attempt.outcome == "skipped"}


# --- what is refused is in the report, what passes is raced -----------------------------------------------------------


@virtual
async def test_refused_endpoints_are_skipped_with_the_reason_and_no_packet_goes_there(net):
    good(net, V4, BAD4)
    stream = await connectx(at(BAD4, V4), address_filter=INNER)
    close(stream)
    assert rows(stream.report) == [(V4, "first", 0, 20, "won"), (BAD4, None, None, None, "skipped")]
    assert reasons(stream.report) == {BAD4: WHY4}
    assert stream.report.attempts[1].to_dict()["reason"] == WHY4
    assert f"{BAD4}:443" in str(stream.report)
    assert "skipped: not allowed by the address" in str(stream.report)
    assert list(net.trace.starts) == [V4]


@virtual
async def test_all_that_pass_are_raced_with_one_of_three_dead(net):
    dead(net, V6)
    good(net, V4, OTHER, BAD4, BAD6)
    net.dns("api.test", aaaa=[V6, BAD6], a=[BAD4, V4, OTHER])
    stream = await connect("api.test", 443, address_filter=INNER)
    close(stream)
    assert (stream.peer.host, outcomes(stream.report)) == (V4, ["lost", "won", "not tried", "skipped", "skipped"])
    assert reasons(stream.report) == {BAD4: WHY4, BAD6: WHY6}
    assert set(net.trace.starts) == {V6, V4}


@virtual
async def test_late_answers_are_judged_before_they_join(net):
    dead(net, V6)
    good(net, BAD4, V4)
    net.dns("api.test", aaaa=[V6], a=[BAD4, V4], a_delay=1)
    stream = await connect("api.test", 443, address_filter=INNER)
    close(stream)
    assert rows(stream.report) == [
        (V6, "first", 0, 1020, "lost"),
        (V4, "arrival", 1000, 1020, "won"),
        (BAD4, None, None, None, "skipped"),
    ]
    assert BAD4 not in net.trace.starts


@virtual
async def test_a_refused_answer_does_not_end_the_wait_for_the_other(net):
    good(net, V4)
    net.dns("api.test", aaaa=[BAD6], a=[V4], a_delay=0.3)
    watch = Stopwatch()
    stream = await connect("api.test", 443, address_filter=INNER)
    close(stream)
    assert (stream.peer.host, watch.ms) == (V4, 320)


@virtual
async def test_each_endpoint_is_asked_for_once(net):
    good(net, V4)
    net.dns("api.test", aaaa=[V6], a=[V4, OTHER, V4], a_delay=0.1)
    net.host(V6).refuse(0)
    asked: list[Endpoint] = []

    def allow(endpoint: Endpoint) -> bool:
        asked.append(endpoint)
        assert not trio.lowlevel.currently_ki_protected()
        return endpoint.host != OTHER

    close(await connect("api.test", 443, address_filter=allow))
    assert asked == [Endpoint(host, 443) for host in (V6, V4, OTHER)]
    asked.clear()
    close(await connectx(iter(at(V4, OTHER, V4)), address_filter=allow))
    assert asked == [Endpoint(host, 443) for host in (V4, OTHER)]
    asked.clear()
    close(await connect(V4, 443, address_filter=allow))
    assert asked == [Endpoint(V4, 443)]


@virtual
async def test_endpoints_of_an_async_iterable_are_judged_as_they_come(net):
    good(net, V4, BAD4)

    async def come() -> AsyncIterator[tuple[str, int]]:
        yield BAD4, 443
        await trio.sleep(0.1)
        yield V4, 443

    stream = await connectx(come(), address_filter=INNER)
    close(stream)
    assert rows(stream.report) == [(V4, "first", 100, 120, "won"), (BAD4, None, None, None, "skipped")]


@virtual
async def test_refused_items_of_an_iterator_do_not_count_as_tried(net):
    good(net, V4)

    def endless() -> Iterator[tuple[str, int]]:
        for port in range(1, 1001):
            yield BAD4, port
        yield V4, 443
        while True:
            yield OTHER, 443

    stream = await connectx(endless(), address_filter=INNER)
    close(stream)
    assert stream.peer.host == V4


@virtual
async def test_a_filter_beside_sources(net):
    good(net, V4)
    sources = [Source(ipv4="192.0.2.254", name="one"), Source(ipv4="192.0.2.254", name="two")]
    stream = await connectx(at(BAD4, V6, V4, BAD6), sources=sources, address_filter=INNER)
    close(stream)
    assert outcomes(stream.report) == ["won", "not tried", "skipped", "skipped", "skipped"]
    assert reasons(stream.report) == {BAD4: WHY4, BAD6: WHY6, V6: "no source of its family"}


@virtual
async def test_a_mapped_address_is_the_ipv4_address(net):
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(f"::ffff:{BAD4}"), address_filter=INNER)
    assert str(caught.value) == (
        f"[Errno 13] no attempt could be made: not allowed by the address filter: "
        f"[::ffff:{BAD4}]:443: in 192.0.2.128/25 (denied)"
    )
    assert net.trace.starts == {}


# --- nothing left -----------------------------------------------------------------------------------------------------


@virtual
async def test_nothing_left_is_an_error_that_names_each_address_and_why(net):
    good(net, BAD4, BAD6)
    net.dns("api.test", aaaa=[BAD6], a=[BAD4, "192.0.2.201"])
    recorder = Recorder()
    with pytest.raises(ConnectFailed) as caught:
        await connect("api.test", 443, address_filter=INNER, observer=recorder)
    assert not isinstance(caught.value, ResolveFailed)
    assert isinstance(caught.value, OSError)
    assert str(caught.value) == (
        "[Errno 13] no attempt could be made to api.test:443: not allowed by the address filter: "
        "[2001:db8:bad::1]:443: in 2001:db8:bad::/48 (denied), "
        "192.0.2.200:443: in 192.0.2.128/25 (denied), 192.0.2.201:443: in 192.0.2.128/25 (denied)"
    )
    assert (caught.value.errno, caught.value.errors, caught.value.__cause__) == (errno.EACCES, (), None)
    assert caught.value.report is recorder.report
    assert [lookup.kind for lookup in recorder.report.lookups] == ["AAAA", "A"]
    assert outcomes(recorder.report) == ["skipped"] * 3
    assert net.trace.starts == {}


@virtual
async def test_nothing_left_of_many_names_them_all(net):
    hosts = [f"192.0.2.{n}" for n in range(128, 168)]
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(*hosts), address_filter=INNER)
    assert all(f"{host}:443: in 192.0.2.128/25" in str(caught.value) for host in hosts)
    with pytest.raises(ConnectFailed, match=r" \(denied\) and 36 more$") as caught:
        await connectx([(BAD4, port) for port in range(1, 101)], address_filter=INNER)
    assert str(caught.value).count(BAD4) == 64
    assert len(caught.value.report.attempts) == 100
    assert net.trace.starts == {}


@virtual
async def test_nothing_left_beside_a_failed_lookup_and_a_missing_source(net):
    net.dns("api.test", a=[BAD4], aaaa_error=socket.EAI_AGAIN)
    with pytest.raises(ConnectFailed) as caught:
        await connect("api.test", 443, address_filter=INNER)
    assert caught.value.errno == errno.EACCES
    assert f"{BAD4}:443: in 192.0.2.128/25 (denied); the AAAA lookup of api.test failed: " in str(caught.value)
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(BAD4, V6), sources=[Source(ipv4="192.0.2.254")], address_filter=INNER)
    assert caught.value.errno == errno.EACCES
    assert str(caught.value).endswith("in 192.0.2.128/25 (denied); skipped, no source of its family: 1")


@virtual
async def test_a_callable_without_words_of_its_own(net):
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(V4, V6), address_filter=lambda _endpoint: False)
    assert str(caught.value) == (
        f"[Errno 13] no attempt could be made: not allowed by the address filter: {V4}:443, [{V6}]:443"
    )
    assert reasons(caught.value.report) == dict.fromkeys([V4, V6], "not allowed by the address filter")


@virtual
async def test_when_the_rest_fails_the_text_counts_the_refused(net):
    net.host(V4).refuse(0)
    with pytest.raises(ConnectFailed) as caught:
        await connectx(at(BAD4, V4), address_filter=INNER)
    assert caught.value.errno == errno.ECONNREFUSED
    assert "(refused: 1, not allowed by the address filter: 1)" in str(caught.value)


@virtual
async def test_a_name_without_addresses_is_still_unresolved(net):
    net.dns("api.test")
    with pytest.raises(ResolveFailed):
        await connect("api.test", 443, address_filter=INNER)


@virtual
async def test_nothing_left_is_a_checkpoint(net):
    with trio.testing.assert_checkpoints(), pytest.raises(ConnectFailed):
        await connectx(at(BAD4), address_filter=INNER)
    with trio.CancelScope() as scope:
        scope.cancel()
        await connectx(at(BAD4), address_filter=INNER)
    assert scope.cancelled_caught


@virtual
async def test_a_call_that_is_late_says_so(net):
    with pytest.raises(DeadlineExceeded):
        await connectx(at(BAD4), now() - 1, address_filter=INNER)


@virtual
async def test_a_deadline_that_comes_first_tells_what_was_refused(net):
    dead(net, V4)
    net.dns("api.test", aaaa=[V6], a=[BAD4], aaaa_delay=5)
    with pytest.raises(DeadlineExceeded, match=r"whose lookup did not end .*not allowed by the address filter: 1"):
        await connect("api.test", 443, now() + 1000, address_filter=INNER)
    with pytest.raises(DeadlineExceeded, match=r"\(cancelled: 1, not allowed by the address filter: 1\)") as caught:
        await connectx(at(BAD4, V4), now() + 1000, address_filter=INNER)
    assert caught.value.report is not None
    assert outcomes(caught.value.report) == ["cancelled", "skipped"]


# --- filters that are wrong -------------------------------------------------------------------------------------------


class Broken(Exception):
    pass


def broken(endpoint: Endpoint) -> bool:
    if endpoint.host == BAD4:
        raise Broken
    return True


@virtual
async def test_a_filter_that_raises_ends_the_call_with_its_error(net):
    dead(net, V6)

    async def come() -> AsyncIterator[tuple[str, int]]:
        yield V6, 443
        await trio.sleep(0.1)
        yield BAD4, 443

    net.dns("api.test", aaaa=[V6], a=[BAD4], a_delay=0.3)
    for call in (
        lambda: connectx(at(V6, BAD4), address_filter=broken),
        lambda: connectx(come(), address_filter=broken),
        lambda: connect("api.test", 443, address_filter=broken),
        lambda: connect(BAD4, 443, address_filter=broken),
    ):
        with pytest.raises(Broken) as caught:
            await call()
        assert caught.value.__cause__ is None
        assert net.open_sockets == ()
    assert BAD4 not in net.trace.starts


async def asynchronous(_endpoint: Endpoint) -> bool:
    return False


class Asynchronous:
    async def __call__(self, _endpoint: Endpoint) -> bool:
        return False


WRONG = {
    "async def": asynchronous,
    "partial of async def": functools.partial(asynchronous),
    "async __call__": Asynchronous(),
    "bound async": Asynchronous().__call__,
    "network": "10.0.0.0/8",
    "networks": ["10.0.0.0/8"],
    "False": False,
}


@pytest.mark.parametrize("wrong", WRONG)
@virtual
async def test_what_cannot_be_a_filter_is_a_type_error_before_any_lookup(net, wrong):
    net.dns("api.test", a=[V4])
    options: Any = {"address_filter": WRONG[wrong]}
    with pytest.raises(TypeError, match="address_filter must "):
        await connectx(at(V4), **options)
    with pytest.raises(TypeError, match="address_filter must "):
        await connect("api.test", 443, **options)
    async with open_queue_set() as queues:
        with pytest.raises(TypeError, match="address_filter must "):
            queues.connectx(at(V4), **options)
    assert net.trace.lookups == ()
    assert net.trace.starts == {}


@virtual
async def test_multipath_is_refused_before_any_lookup_for_its_peer_names_addresses_that_nobody_judges(net):
    net.dns("api.test", a=[V4])
    options: Any = {"address_filter": NetworkFilter.public_only(), "options": SocketOptions(multipath=True)}
    resolver = StaticResolver({}, srv={})
    async with open_queue_set() as queues:
        calls: list[Any] = [
            lambda: connectx(at(V4), **options),
            lambda: connect("api.test", 443, **options),
            lambda: connect(V4, 443, **options),
            lambda: connect_srv("_a._tcp", "api.test", resolver=resolver, **options),
            lambda: queues.connectx(at(V4), **options),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="address_filter cannot be combined with multipath"):
                await call()
    assert net.trace.lookups == ()
    assert net.trace.starts == {}


@pytest.mark.parametrize("awaitable", ["coroutine", "other"])
@virtual
async def test_an_answer_that_has_to_be_awaited_is_a_type_error(net, awaitable):
    class Later:
        def __await__(self) -> Any:
            yield

    def later(endpoint: Endpoint) -> Any:
        return asynchronous(endpoint) if awaitable == "coroutine" else Later()

    with pytest.raises(TypeError, match=r"^address_filter must not be async, but <function .* returned an awaitable$"):
        await connectx(at(V4), address_filter=later)
    assert net.trace.starts == {}


@virtual
async def test_any_true_value_allows(net):
    good(net, V4)
    answers: dict[str, Any] = {V4: [1], OTHER: None}
    stream = await connectx(at(OTHER, V4), address_filter=lambda endpoint: answers[endpoint.host])
    close(stream)
    assert outcomes(stream.report) == ["won", "skipped"]


# --- queues -----------------------------------------------------------------------------------------------------------


@virtual
async def test_a_race_of_a_queue_set_takes_a_filter(net):
    good(net, V4, BAD4)
    async with open_queue_set() as queues:
        result = await queues.wait(queues.connectx(at(BAD4, V4), address_filter=INNER))
        connected = result.unwrap()
        assert connected.peer == Endpoint(V4, 443)
        assert reasons(connected.report) == {BAD4: WHY4}
        result = await queues.wait(queues.connectx(at(BAD4), address_filter=INNER))
        assert (result.errno, type(result.error)) == (errno.EACCES, ConnectFailed)
    assert BAD4 not in net.trace.starts


# --- rebinding and spellings, on real sockets -------------------------------------------------------------------------


class Counted:
    """A listener on loopback and how many connections have come to it."""

    def __init__(self, listener: TcpListener) -> None:
        self._listener = listener
        self.port = listener.endpoint.port

    async def count(self) -> int:
        """Count what has come, after a connection of its own, which comes last."""
        last = await tcp_connect(("127.0.0.1", self.port))
        found = 0
        while True:
            came = await self._listener.accept()
            peer = came.peer
            came.abort()
            if peer == last.local:
                last.abort()
                return found
            found += 1


@pytest.fixture
async def counted() -> AsyncIterator[Counted]:
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        yield Counted(listener)


class Rebinding:
    """Answers with a public address at first, and with loopback the next time, or a moment later."""

    def __init__(self, *, late: bool) -> None:
        self.late = late
        self.asked = 0

    async def addresses(self, _host: str, family: AddressFamily, /) -> Answer:
        if family == AF_INET6:
            await trio.sleep(0.02 if self.late else 0)
            return Answer(("::ffff:127.0.0.1", "64:ff9b::7f00:1", "::1") if self.late or self.asked else ())
        self.asked += 1
        return Answer(("192.0.2.1",) if self.asked == 1 else ("127.0.0.1",))


@pytest.mark.parametrize("late", [False, True], ids=["next lookup", "late answer"])
async def test_rebinding_gets_no_packet_to_loopback(late: bool, counted: Counted) -> None:
    # The address that is public in this test leads nowhere: there is no route, or a name server's black hole.
    internal = NetworkFilter(deny=["127.0.0.0/8", "::1"])
    resolver = Rebinding(late=late)
    for _ in range(3):
        with pytest.raises((ConnectFailed, DeadlineExceeded)):
            await connect("rebind.test", counted.port, now() + 200, resolver=resolver, address_filter=internal)
    assert await counted.count() == 0
    # The same without a filter does get there: the listener is one that can be reached.
    stream = await connect("rebind.test", counted.port, resolver=resolver)
    assert stream.peer.host.endswith("127.0.0.1")
    assert await counted.count() == 1
    stream.abort()


SPELLINGS = [
    "127.0.0.1", "127.1", "127.0.1", "0x7f.1", "0x7f000001", "2130706433", "0177.0.0.1", "017700000001", "127.0.0.01",
    "\uff11\uff12\uff17.\uff10.\uff10.\uff11", "127\u30020\u30020\u30021", "\u2460\u2461\u2466.0.0.1", "localhost",
    "LOCALHOST.", "x.localhost", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1", "0:0:0:0:0:0:0:1",
    "64:ff9b::127.0.0.1", "0", "0.0.0.0", "::", "::%lo",
]  # fmt: skip


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_gets_a_packet_to_loopback(host: str, counted: Counted) -> None:
    with pytest.raises((ConnectFailed, ValueError)) as caught:
        await connect(host, counted.port, now() + 5000, address_filter=PUBLIC)
    if not isinstance(caught.value, ConnectFailed) or isinstance(caught.value, ResolveFailed):
        # It is no address to this system either.
        with pytest.raises((ConnectFailed, ValueError)):
            await connect(host, counted.port, now() + 5000)
    else:
        assert caught.value.errno == errno.EACCES
        assert "not allowed by the address filter" in str(caught.value)
    assert await counted.count() == 0


def _full_width(text: str) -> str:
    return "".join(chr(ord(digit) + 0xFEE0) if digit.isdigit() else digit for digit in text)


FORMS: dict[str, Callable[[list[int], int], str]] = {
    "dotted": lambda parts, _: "{}.{}.{}.{}".format(*parts),
    "dotted hexadecimal": lambda parts, _: ".".join(map(hex, parts)),
    "dotted octal": lambda parts, _: ".".join(f"{part:#05o}".replace("o", "") for part in parts),
    "mixed": lambda parts, _: f"0{parts[0]:o}.{parts[1]}.{parts[2]:#X}.{parts[3]}",
    "three parts": lambda parts, number: f"{parts[0]}.{parts[1]}.{number & 0xFFFF}",
    "two parts": lambda parts, number: f"{parts[0]}.{number & 0xFFFFFF:#x}",
    "decimal": lambda _, number: str(number),
    "hexadecimal": lambda _, number: hex(number),
    "octal": lambda _, number: f"0{number:o}",
    "full width": lambda parts, _: _full_width("{}.{}.{}.{}".format(*parts)),
    "ideographic full stops": lambda parts, _: "{}\u3002{}\u3002{}\u3002{}".format(*parts),
    "mapped": lambda parts, _: "::ffff:{}.{}.{}.{}".format(*parts),
    "mapped hexadecimal": lambda _, number: f"0:0:0:0:0:FFFF:{number >> 16:X}:{number & 0xFFFF:X}",
}
INTERNAL = sorted(
    {
        address
        for block in (*SPECIAL_PURPOSE, *NOT_UNICAST, *METADATA_SERVICES)
        for network in [ip_network(block.network)]
        for address in (network[0], network[network.num_addresses // 2], network[-1])
        if isinstance(address, IPv4Address) and not block.is_public
    }
)


@pytest.mark.parametrize("form", FORMS)
async def test_no_block_is_reached_by_any_spelling(form: str) -> None:
    """Inside each block that is not public, and at its ends: what the system makes of a text is what is judged."""
    assert len(INTERNAL) > 40
    for address in INTERNAL:
        host = FORMS[form](list(address.packed), int(address))
        (endpoint,) = await resolve(host, 9)
        assert ip_address(endpoint.host.removeprefix("::ffff:")) == address, host
        with pytest.raises(ConnectFailed, match="not allowed by the address filter") as caught:
            await connect(host, 9, now() + 5000, address_filter=PUBLIC)
        assert (caught.value.errno, caught.value.report.tried) == (errno.EACCES, ()), host


def test_most_spellings_are_addresses_here():
    """Of those above the C library reads these; others may be names to it."""
    found = {host for host in SPELLINGS if host.isascii() and _is_loopback(host)}
    assert {"127.1", "0x7f.1", "2130706433", "0177.0.0.1"} <= found


def _is_loopback(host: str) -> bool:
    try:
        return socket.getaddrinfo(host, 1, AF_INET)[0][4][0] == "127.0.0.1"
    except OSError:
        return False


# --- cancellation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["some", "nothing"])
async def test_a_cancel_at_every_step_leaves_nothing(left: str) -> None:
    allowed = NetworkFilter(allow=["127.0.0.0/8"] if left == "some" else [])
    resolver = StaticResolver({"api.test": ["::1", "127.0.0.1"]})
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        port = listener.endpoint.port

        async def operation() -> TcpStream:
            return await connect("api.test", port, resolver=resolver, address_filter=allowed)

        await sweep(operation, raises=ConnectFailed, ports=[port])
