"""Numbers 39 and 40 of the field reports: fixtures that are ready when they say so, and faults that went unnoticed."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import socket
import weakref
from itertools import pairwise
from math import inf
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.net.racing import outcomes
from tests.support import faults
from tests.support.leaks import descriptors, no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import KINDS, Kind, narrow_pair
from trio_connect import (
    Answer,
    DeadlineExceeded,
    Endpoint,
    RacePolicy,
    Source,
    TcpStream,
    connect,
    connectx,
    now,
    tcp_connect,
    tcp_listen,
    unix_connect,
)
from trio_connect import libdill as dill
from trio_connect._net.sockets.kernel_socket import FAIR_SHARE, KernelSocket
from trio_connect._net.sockets.local_ports import local_ports
from trio_connect.queues import open_queue_set
from trio_connect.queues._stream_transports import _source_of
from trio_connect.testing import VirtualNetwork, echo

# --- 39: fixtures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", faults.LOOPBACK)
def test_field_39_a_black_hole_is_full_from_the_first_moment(family: socket.AddressFamily) -> None:
    """A black hole answers nobody, however soon it is asked."""
    for _ in range(20):
        with faults.black_hole(family) as hole, socket.socket(family) as sock:
            sock.setblocking(False)
            assert sock.connect_ex(hole.pair) == errno.EINPROGRESS
            assert sock.connect_ex(hole.pair) == errno.EALREADY


def test_field_39_a_fixture_has_an_address_of_its_own() -> None:
    """No two fixtures share an address, so a stranger who is late meets nobody."""
    with faults.refusing() as one, faults.refusing() as other, faults.black_hole() as hole:
        assert len({one.host, other.host, hole.host, "127.0.0.1"}) == 4
        for address in (one, other):
            with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
                sock.connect(address.pair)


def test_field_39_a_reserved_port_is_given_to_nobody() -> None:
    """A port that is reserved can be bound with SO_REUSEADDR, and only so."""
    with faults.reserved_port("127.0.0.1") as port, socket.socket() as sock:
        with pytest.raises(OSError, match="in use") as caught:
            sock.bind(("127.0.0.1", port))
        assert caught.value.errno == errno.EADDRINUSE
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))


@pytest.mark.parametrize("kind", KINDS)
async def test_field_39_more_than_fits_does_not_fit(sockets: Sockets, kind: Kind) -> None:
    """What a test sends to block is more than this kernel holds, whatever its buffers may grow to."""
    async with narrow_pair(kind) as (near, far, too_much):
        for _ in range(3):
            with pytest.raises(DeadlineExceeded) as caught:
                await near.send_all(bytes(too_much), 0)
            assert 0 < caught.value.transferred < too_much
            await far.receive_exactly(caught.value.transferred)
            del caught


# --- 40: faults that went unnoticed -----------------------------------------------------------------------------------


@attrs.define
class EndlessSocket:
    """Always has as much to read as is asked for, in pieces of a segment."""

    read: int = 0

    def recv_into(self, view: memoryview) -> int:
        count = min(len(view), 65536)
        self.read += count
        return count


async def test_field_40_receive_into_takes_a_fair_share_of_a_pass() -> None:
    """One `receive_into` of much that is there lets the other tasks have their turn."""
    sock: Any = EndlessSocket()
    count = await KernelSocket(sock).receive_into(memoryview(bytearray(8 * FAIR_SHARE)), inf)
    assert count == sock.read
    assert count < FAIR_SHARE + 65536


@attrs.define
class BrokenSocket:
    """Has nothing but an error, at once."""

    def recv(self, _size: int) -> bytes:
        raise OSError(errno.ECONNRESET, "reset")


async def test_field_40_an_error_at_once_is_a_checkpoint() -> None:
    """A loop that tries again after each error lets the other tasks have their turn."""
    sock: Any = BrokenSocket()
    with trio.testing.assert_checkpoints(), pytest.raises(ConnectionResetError):
        await KernelSocket(sock).receive(1, inf)


async def test_field_40_a_connection_of_a_fixed_source_port_with_itself_is_refused(sockets: Sockets) -> None:
    """Also where the kernel would never choose that port by itself."""
    host, port = faults.own_host(), local_ports().start - 1
    async with no_leaks(counters=sockets.counters):
        with pytest.raises(ConnectionRefusedError, match="refused after"):
            await tcp_connect((host, port), source=Source(ipv4=host, port=port))
        with pytest.raises(OSError, match="refused: 1"):
            await connectx([(host, port)], sources=[Source(ipv4=host, port=port)])


class CrashError(Exception):
    pass


@attrs.define(eq=False)
class Witness:
    """Something in a frame of the caller's."""


async def test_field_40_the_same_port_of_another_address_is_somebody_else(sockets: Sockets) -> None:
    """A source port that is the destination's, on another address, is no connection with itself."""
    async with await tcp_listen((faults.own_host(), 0)) as listener:
        source = Source(ipv4=faults.own_host(), port=listener.endpoint.port)
        async with await tcp_connect(listener.endpoint, source=source) as stream:
            assert stream.local.port == stream.peer.port
            await (await listener.accept()).aclose()


class TriosOwnFactory(trio.abc.SocketFactory):
    """Makes what Trio would make."""

    def socket(self, *kind: Any) -> trio.socket.SocketType:
        return trio.socket.from_stdlib_socket(socket.socket(*kind))


async def test_field_40_a_full_unix_backlog_through_trios_own_sockets(autojump_clock: trio.testing.MockClock) -> None:
    """Trio's socket takes EAGAIN for EINPROGRESS and reports success; that is noticed."""
    previous = trio.socket.set_custom_socket_factory(TriosOwnFactory())
    try:
        with faults.full_unix_backlog() as path, pytest.raises(DeadlineExceeded, match="whose backlog is full"):
            await unix_connect(path, now() + 20)
    finally:
        trio.socket.set_custom_socket_factory(previous)


@pytest.mark.parametrize("late", [False, True])
async def test_field_40_what_ended_a_race_holds_nothing_afterwards(late: bool) -> None:
    """The frames of an establish that raised go with its exception, without the garbage collector."""
    gone: list[weakref.ref[Witness]] = []

    async def establish(stream: TcpStream) -> None:
        witness = Witness()
        gone.append(weakref.ref(witness))
        if late:
            await trio.lowlevel.checkpoint()
        raise CrashError

    async with faults.echoing() as peer:
        gc.collect()
        gc.disable()
        try:
            try:
                await connectx([peer.address.pair], establish=establish)
            except CrashError:
                pass
            assert [ref() for ref in gone] == [None]
        finally:
            gc.enable()


async def test_field_40_who_waits_on_a_descriptor_that_libdill_takes_over_is_woken() -> None:
    """`tcp_fromfd` closes the number that it was given, so whoever waits on it must hear of that."""
    with socket.create_server((faults.own_host(), 0)) as server:
        fd = socket.create_connection(server.getsockname()).detach()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def waiting() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await trio.lowlevel.wait_readable(fd)

                nursery.start_soon(waiting)
                await trio.testing.wait_all_tasks_blocked()
                handle = dill.tcp_fromfd(fd)
        dill.hclose(handle)


async def test_field_40_a_full_unix_backlog_is_tried_every_50_ms(
    monkeypatch: pytest.MonkeyPatch, autojump_clock
) -> None:
    """However long a unix-domain listener was too busy: once it has room, a connect notices within 50 ms."""
    asked: list[float] = []
    begin = KernelSocket.begin

    def noted(self: KernelSocket, address: Any) -> int:
        asked.append(trio.current_time())
        return begin(self, address)

    monkeypatch.setattr(KernelSocket, "begin", noted)
    with faults.full_unix_backlog() as path, pytest.raises(DeadlineExceeded):
        await unix_connect(path, now() + 2000)
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert len(asked) > 40
    assert max(pauses) == pytest.approx(0.050)


async def test_field_40_who_waits_on_a_socket_that_a_race_closes_is_woken() -> None:
    """Whoever found the descriptor of an attempt and waits on it gets ClosedResourceError when the race ends."""
    policy = RacePolicy(attempt_delay=0.010)
    with faults.black_hole() as one, faults.black_hole() as other, trio.fail_after(10):
        before = descriptors()
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()
            woken = 0

            async def racing() -> None:
                with scope:
                    await connectx([one.pair, other.pair], policy=policy)

            async def waiting(fd: int) -> None:
                nonlocal woken
                with pytest.raises(trio.ClosedResourceError):
                    await trio.lowlevel.wait_readable(fd)
                woken += 1

            nursery.start_soon(racing)
            while len(ours := descriptors().keys() - before.keys()) < 2:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            for fd in ours:
                nursery.start_soon(waiting, fd)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
        assert woken == 2


@attrs.define
class CarelessResolver:
    """Answers every question with addresses of both families."""

    asked: list[socket.AddressFamily] = attrs.Factory(list)

    async def addresses(self, host: str, family: socket.AddressFamily, /) -> Answer:
        await trio.lowlevel.checkpoint()
        self.asked.append(family)
        return Answer(("2001:db8::1", "192.0.2.1"))


async def test_field_40_nothing_of_a_family_without_a_source_comes_into_a_race_by_name(
    vnet: VirtualNetwork, autojump_clock
) -> None:
    """So there is nothing to skip when answers are put in order."""
    vnet.host("192.0.2.1").listen(443, echo)
    resolver = CarelessResolver()
    stream = await connect("api.test", 443, resolver=resolver, sources=[Source(ipv4="192.0.2.254")])
    assert resolver.asked == [socket.AF_INET]
    assert outcomes(stream.report) == ["won"]
    await stream.aclose()


# The virtual network.

HOST, LOCAL = "192.0.2.1", "192.0.2.254"


async def test_field_40_data_for_a_host_that_is_gone_times_out_as_on_linux(
    vnet: VirtualNetwork, autojump_clock
) -> None:
    """After 15 retransmissions, which is 924.6 s by the documentation of tcp_retries2."""
    vnet.host(HOST).listen(80, echo)
    stream = await tcp_connect((HOST, 80))
    vnet.partition(LOCAL, HOST)
    await stream.send_all(b"lost")
    started = trio.current_time()
    with pytest.raises(trio.BrokenResourceError, match="timed out"):
        await stream.receive_some()
    assert trio.current_time() - started == pytest.approx(924.6)
    await stream.aclose()


async def test_field_40_retransmissions_begin_anew_after_one_arrived(vnet: VirtualNetwork, autojump_clock) -> None:
    """The pauses of one cut do not make those of the next one longer."""
    vnet.host(HOST).listen(80, echo)
    stream = await tcp_connect((HOST, 80))
    healed = 0.0
    for cut in (50.0, 0.1):
        vnet.partition(LOCAL, HOST)
        await stream.send_all(b"x")
        await trio.sleep(cut)
        vnet.heal(LOCAL, HOST)
        healed = trio.current_time()
        assert await stream.receive_some() == b"x"
    assert trio.current_time() - healed == pytest.approx(0.1)
    await stream.aclose()


async def test_field_40_a_retransmission_is_no_faster_than_the_path(vnet: VirtualNetwork, autojump_clock) -> None:
    """What was lost is sent again, and what was sent behind it still needs the time of its bytes."""
    size = 4 * 16384
    arrived: list[float] = []

    async def take_all(stream: trio.abc.Stream) -> None:
        left = size
        while left:
            left -= len(await stream.receive_some())
        arrived.append(trio.current_time())

    vnet.host(HOST).listen(80, take_all, bandwidth=16384)
    stream = await tcp_connect((HOST, 80))
    started = trio.current_time()
    vnet.partition(LOCAL, HOST)
    await stream.send_all(bytes(size))
    await trio.sleep(1.1)
    vnet.heal(LOCAL, HOST)
    await trio.sleep(100)
    assert [at - started for at in arrived] == [pytest.approx(4)]
    await stream.aclose()


async def test_field_40_a_receive_buffer_that_shrinks_takes_no_window_back(
    vnet: VirtualNetwork, autojump_clock
) -> None:
    """What was offered may come; reading opens nothing until the smaller buffer has room (RFC 9293 3.8.6)."""

    async def flood(stream: trio.abc.Stream) -> None:
        while True:
            await stream.send_all(bytes(16384))

    vnet.host(HOST).listen(80, flood)
    stream = await tcp_connect((HOST, 80))
    await trio.sleep(1)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    # 64 KiB were offered at first, and have come.
    assert len(await stream.socket.recv(61_440)) == 61_440
    await trio.sleep(1)
    assert len(await stream.socket.recv(1 << 20)) == 4096
    await trio.sleep(1)
    assert len(await stream.socket.recv(1 << 20)) == 4096
    stream.abort()


# The libdill layer.


async def test_field_40_a_negative_backlog_is_as_much_as_the_system_allows() -> None:
    """listen(2) takes a negative backlog for the largest one, and so does `tcp_listen` of libdill."""
    address = dill.ipaddr()
    assert dill.ipaddr_local(address, faults.own_host(), 0, 0) == 0
    listener = await dill.tcp_listen(address, -1)
    clients = [await dill.tcp_connect(address, dill.now() + 2000) for _ in range(8)]
    for handle in (*clients, listener):
        dill.hclose(handle)


def test_field_40_a_descriptor_that_is_refused_still_blocks() -> None:
    """`tcp_fromfd` of a socket that is not connected leaves it as it was."""
    with socket.socket() as sock:
        with pytest.raises(OSError, match="not connected") as caught:
            dill.tcp_fromfd(sock.fileno())
        assert caught.value.errno == errno.ENOTCONN
        assert sock.getblocking()
        sock.settimeout(None)
        assert fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK == 0


# The queues.


async def test_field_40_a_result_holds_no_frames() -> None:
    """An error that is data has no history."""
    with faults.refusing() as closed:
        async with open_queue_set() as qs:
            result = await qs.wait(qs.stream().connect(closed.pair))
    assert result.error is not None
    assert result.error.__traceback__ is None
    assert result.error.__context__ is None


async def test_field_40_a_token_whose_waiter_was_cancelled_is_for_who_takes_whatever_comes() -> None:
    """Also when it completed in the very pass of the cancel."""
    async with open_queue_set() as qs, trio.open_nursery() as nursery:
        queue = qs.stream()
        await queue.bind((faults.own_host(), 0))
        await queue.listen(1)
        queue.accept()
        behind = queue.accept()
        scope = trio.CancelScope()

        async def by_name() -> None:
            with scope:
                await qs.wait(behind)

        async def whatever_comes() -> None:
            with trio.fail_after(5):
                (result,) = await qs.wait_next(1)
            assert result.token is behind

        nursery.start_soon(by_name)
        nursery.start_soon(whatever_comes)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        behind.cancel()


async def test_field_40_a_datagram_queue_knows_after_its_end_where_it_sent_from() -> None:
    """The kernel chose the address with the first push, and nobody asked for it before the close."""
    async with open_queue_set() as qs:
        with faults.refusing() as closed:
            queue = qs.datagram()
            assert (await qs.wait(queue.push_to(b"x", closed.pair))).ok
            await queue.aclose()
            assert isinstance(queue.local, Endpoint)
            assert queue.local.port


def test_field_40_a_queue_that_is_bound_to_a_link_local_address_connects_from_its_zone() -> None:
    """Without the zone the kernel could not tell which link is meant."""
    assert _source_of(Endpoint("fe80::1", 80, 3)) == Source(ipv6="fe80::1%3", port=80)
