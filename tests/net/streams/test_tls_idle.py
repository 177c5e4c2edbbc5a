"""`TlsStream.is_dead`: whether an idle connection is of any more use. TLS itself may have something to say on it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.net.racing import virtual
from tests.support import examples, tls
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import arrival, make_clogged_tls_pair, make_tls_pair
from tests.support.tls_records import RecordPeer
from trio_connect import DeadlineExceeded, SocketOptions, TlsStream, connect, now, tcp_connect, tcp_listen
from trio_connect.testing import VirtualNetwork

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])


@attrs.define(eq=False)
class Server:
    """The server's end, by OpenSSL alone: it sends its session tickets with the handshake, as most servers do."""

    stream: Any
    session: ssl.SSLObject
    outgoing: ssl.MemoryBIO

    @classmethod
    async def accept(cls, stream: Any, *, tickets: int = 2) -> Server:
        context = tls.server_context(tls.NAME)
        context.num_tickets = tickets
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(incoming, outgoing, server_side=True)
        server = cls(stream, session, outgoing)
        while True:
            try:
                session.do_handshake()
            except ssl.SSLWantReadError:
                await server.flush()
                incoming.write(await stream.receive_some())
            else:
                await server.flush()
                return server

    async def flush(self) -> None:
        if self.outgoing.pending:
            await self.stream.send_all(self.outgoing.read())

    async def send(self, data: bytes) -> None:
        self.session.write(data)
        await self.flush()

    async def say_goodbye(self) -> None:
        """Send close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.session.unwrap()
        await self.flush()


@contextlib.asynccontextmanager
async def connected(
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, tickets: int = 2
) -> AsyncIterator[tuple[TlsStream, Server]]:
    """A stream of ours and such a server. Whatever it has sent with its handshake or after it has come."""
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        near = await tcp_connect(listener.endpoint)
        far = await listener.accept()
    servers: list[Server] = []

    async def accept() -> None:
        servers.append(await Server.accept(far, tickets=tickets))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        stream = await near.start_tls(tls.client_context(version), server_hostname=tls.NAME)
    if version == ssl.TLSVersion.TLSv1_3 and tickets:
        await arrival(stream.tcp.socket)
    try:
        yield stream, servers[0]
    finally:
        stream.abort()
        far.abort()


async def until_dead(stream: TlsStream) -> None:
    with trio.fail_after(5):
        while not stream.is_dead():
            await trio.lowlevel.checkpoint()


# --- what TLS itself has to say ---------------------------------------------------------------------------------------


@versions
@pytest.mark.parametrize("tickets", [0, 2, 20])
async def test_session_tickets_do_not_count(version: ssl.TLSVersion, tickets: int) -> None:
    async with no_leaks(), connected(version, tickets=tickets) as (stream, server):
        for _ in range(3):
            assert not stream.is_dead()
        assert stream.buffered == 0
        assert not stream.tcp.socket.is_readable()
        await stream.send_all(b"question")
        await server.send(b"answer")
        await until_dead(stream)
        assert stream.buffered == 6
        assert await stream.receive_exactly(6) == b"answer"
        assert not stream.is_dead()


@pytest.mark.parametrize("request_one", [False, True], ids=["update", "request"])
async def test_new_keys_do_not_count(request_one: bool) -> None:
    async with no_leaks(), record_pair() as (stream, peer):
        for number in range(3):
            update = peer.key_update(request=request_one)
            for part in (update[:9], update[9:]):
                await peer.stream.send_all(part)
                await arrival(stream.tcp.socket)
                assert not stream.is_dead()
            await peer.send(b"data %d" % number)
            assert await stream.receive_exactly(6) == b"data %d" % number
        # What was asked for is answered before the next data.
        await stream.send_all(b"next")
        assert await peer.receive() == b"next"
        assert peer.key_updates == [0] * 3 * request_one


@contextlib.asynccontextmanager
async def record_pair() -> AsyncIterator[tuple[TlsStream, RecordPeer]]:
    """A stream of ours, and a peer whose every record a test decides."""
    options = SocketOptions(send_buffer=1 << 20, receive_buffer=1 << 20)
    async with await tcp_listen(("127.0.0.1", 0), options=options) as listener:
        near = await tcp_connect(listener.endpoint, options=options)
        far = await listener.accept()
    peers: list[RecordPeer] = []

    async def accept() -> None:
        peers.append(await RecordPeer.accept(far))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        stream = await near.start_tls(tls.client_context(), server_hostname=tls.NAME)
    try:
        yield stream, peers[0]
    finally:
        stream.abort()
        far.abort()


async def test_a_peer_that_has_nothing_but_new_keys_to_say_is_of_no_use() -> None:
    """So much of them that a look which took them all would hold up the program."""
    async with no_leaks(), record_pair() as (stream, peer):
        await peer.stream.send_all(b"".join(peer.key_update(request=False) for _ in range(8_000)))
        await until_dead(stream)


async def test_nor_is_one_that_asks_on_and_on_and_is_only_looked_at() -> None:
    """Answers would grow without bound."""
    async with no_leaks(), record_pair() as (stream, peer):
        looks = 0
        while looks < 10:
            looks += 1
            requests = b"".join(peer.key_update(request=True) for _ in range(2_000))
            await peer.stream.send_all(requests)
            await arrival(stream.tcp.socket)
            if stream.is_dead():
                break
        assert 1 < looks < 10
        assert stream.is_dead()
        with pytest.raises(trio.BrokenResourceError, match="asks for new keys, and does not read the answers"):
            await stream.receive_some()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["data", "update", "request", "part", "all", "look", "receive", "send"]),
        st.sampled_from([1, 20, 300, 16_000]),
    ),
    min_size=3,
    max_size=30,
)


@settings(max_examples=examples(60, 1_000))
@given(STEPS)
async def test_a_look_says_whether_a_record_of_data_has_come_and_neither_side_loses_a_byte(
    steps: list[tuple[str, int]],
) -> None:
    """Whatever the peer sends, in whatever pieces, and whatever this side does in between."""
    async with record_pair() as (stream, peer):
        unsent = b""
        sent, received, told = bytearray(), bytearray(), bytearray()
        ends: list[tuple[int, int]] = []
        """How much has to be on its way for so much data to have come."""
        gone = came = 0
        for number, (step, size) in enumerate(steps):
            piece = bytes([number]) * size
            if step == "data":
                sent += piece
                unsent += peer.record(piece)
            elif step in ("update", "request"):
                unsent += peer.key_update(request=step == "request")
            elif step == "look":
                if came > len(received):
                    await until_dead(stream)  # on a busy machine the kernel takes its time
                else:
                    assert not stream.is_dead()
            elif step == "receive":
                with contextlib.suppress(DeadlineExceeded):
                    received += await stream.receive_some(size, 0)
            elif step == "send":
                await stream.send_all(piece)
                told += piece
            if step == "data":
                ends.append((gone + len(unsent), len(sent)))
            if step in ("part", "all") and unsent:
                part = unsent[: size if step == "part" else None]
                unsent = unsent[len(part) :]
                gone += len(part)
                await peer.stream.send_all(part)
                came = max((data for end, data in ends if end <= gone), default=0)
        await peer.stream.send_all(unsent)
        received += await stream.receive_exactly(len(sent) - len(received), now() + 5_000)
        assert received == sent
        await stream.send_all(b"the end")
        told += b"the end"
        heard = bytearray()
        while len(heard) < len(told):
            heard += await peer.receive()
        assert heard == told


@virtual
async def test_on_the_virtual_network_likewise(net: VirtualNetwork) -> None:
    servers: list[Server] = []

    async def serve(stream: Any) -> None:
        servers.append(await Server.accept(stream))
        await trio.sleep_forever()

    net.host("192.0.2.1").listen(443, serve, rtt=0.020)
    stream = await connect("192.0.2.1", 443, tls=tls.contexts().client, server_hostname=tls.NAME)
    await trio.sleep(1)
    (server,) = servers
    assert stream.tcp.socket.is_readable()
    assert not stream.is_dead()
    assert not stream.is_dead()
    await server.send(b"421 bye")
    await trio.sleep(1)
    assert stream.is_dead()
    assert stream.take(7) == b"421 bye"
    assert not stream.is_dead()
    await server.say_goodbye()
    await trio.sleep(1)
    assert stream.is_dead()
    assert await stream.receive_some() == b""
    stream.tcp.socket.close()
    assert stream.is_dead()
    await stream.aclose()


async def test_over_a_fake_that_nobody_can_look_into_whatever_has_come_counts() -> None:
    with Sockets.to("factory").installed():
        async with connected() as (stream, server):
            assert stream.is_dead()
            assert stream.buffered == 0
            await server.send(b"answer")
            assert await stream.receive_exactly(6) == b"answer"
            assert not stream.is_dead()


# --- what makes it dead -----------------------------------------------------------------------------------------------

End = Callable[[Server], Awaitable[object]]


async def _fin(server: Server) -> None:
    await server.stream.aclose()


async def _reset(server: Server) -> None:
    server.stream.abort()


async def _goodbye(server: Server) -> None:
    await server.say_goodbye()


async def _goodbye_and_fin(server: Server) -> None:
    await server.say_goodbye()
    await server.stream.aclose()


async def _data_and_goodbye(server: Server) -> None:
    server.session.write(b"421 bye")
    await server.say_goodbye()
    await server.stream.aclose()


async def _much_data_and_fin(server: Server) -> None:
    await server.send(bytes(100_000))
    await server.stream.aclose()


async def _nonsense(server: Server) -> None:
    await server.stream.send_all(b"\x17\x03\x03\x00\x15" + bytes(21))


async def _plain_text(server: Server) -> None:
    await server.stream.send_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")


async def _cut_off(server: Server) -> None:
    server.session.write(b"421 bye")
    await server.stream.send_all(server.outgoing.read()[:-1])
    await server.stream.aclose()


ENDS: dict[str, End] = {
    end.__name__.strip("_"): end
    for end in (
        _fin, _reset, _goodbye, _goodbye_and_fin, _data_and_goodbye, _much_data_and_fin, _nonsense, _plain_text,
        _cut_off,
    )
}  # fmt: skip


async def all_that_comes(stream: TlsStream) -> list[str]:
    """What receives give, one after the other, until the end or until it breaks."""
    received = bytearray()
    end = "the end"
    try:
        while data := await stream.receive_some(None, now() + 5_000):
            received += data
    except trio.BrokenResourceError as exc:
        end = str(exc).replace(str(stream.peer), "PEER")
    return [received.hex(), end]


@versions
@pytest.mark.parametrize("tickets", [0, 2])
@pytest.mark.parametrize("end", ENDS)
async def test_an_ended_or_broken_connection_is_dead_and_looking_takes_nothing(
    sockets: Sockets, version: ssl.TLSVersion, end: str, tickets: int
) -> None:
    """What comes afterwards is what comes to a stream that nobody has looked at."""
    heard: list[list[str]] = []
    async with no_leaks(counters=sockets.counters):
        for looks in (True, False):
            async with connected(version, tickets=tickets) as (stream, server):
                await ENDS[end](server)
                if looks:
                    await until_dead(stream)
                    assert stream.is_dead()
                heard.append(await all_that_comes(stream))
                assert stream.is_dead()
                await stream.aclose()
                assert stream.is_dead()
    assert heard[0] == heard[1]


async def test_a_servers_end_likewise() -> None:
    async with no_leaks():
        near, far = await make_tls_pair()
        assert not far.is_dead()
        await near.send_all(b"x")
        await until_dead(far)
        assert await far.receive_some() == b"x"
        assert not far.is_dead()
        await near.aclose()
        await until_dead(far)
        assert await far.receive_some() == b""
        await far.aclose()


# --- whose it is ------------------------------------------------------------------------------------------------------


async def test_a_connection_that_is_received_from_is_not_idle(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), connected() as (stream, server), trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_exactly, 1)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            stream.is_dead()
        await server.send(b"x")


async def test_nor_one_whose_stream_of_trios_is_received_from(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_tls_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.ssl.receive_some)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                near.is_dead()
            await far.send_all(b"x")
        near.abort()
        far.abort()


@attrs.define(eq=False)
class LooksAfterEachStep(trio.abc.Instrument):
    """Looks whenever a task has run, until that one is done."""

    stream: TlsStream
    task: trio.lowlevel.Task
    skipped: int = 0
    """After how many steps this does not look."""
    looks: list[bool] = attrs.field(factory=list)
    refused: int = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is not self.task:
            return
        self.skipped -= 1
        if self.skipped < 0:
            try:
                self.looks.append(self.stream.is_dead())
            except trio.BusyResourceError:
                self.refused += 1


@pytest.mark.parametrize("end", ["data", "goodbye"])
async def test_a_look_takes_nothing_from_a_task_that_is_about_to_receive(sockets: Sockets, end: str) -> None:
    """That one has asked OpenSSL already, and would wait for more than has come."""
    async with no_leaks(counters=sockets.counters), connected(tickets=0) as (stream, server):
        await (server.send(b"data") if end == "data" else server.say_goodbye())
        await arrival(stream.tcp.socket)
        instrument = LooksAfterEachStep(stream, trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(instrument)
        with trio.fail_after(5):
            assert await stream.ssl.receive_some() == (b"data" if end == "data" else b"")
        trio.lowlevel.remove_instrument(instrument)
        assert instrument.refused
        assert stream.buffered == 0
        assert stream.is_dead() == (end == "goodbye")


@pytest.mark.parametrize("skipped", range(5))
async def test_nor_from_one_that_is_about_to_wait_for_close_notify(sockets: Sockets, skipped: int) -> None:
    async with no_leaks(counters=sockets.counters), connected(tickets=0) as (stream, server):
        await server.say_goodbye()
        await arrival(stream.tcp.socket)
        instrument = LooksAfterEachStep(stream, trio.lowlevel.current_task(), skipped)
        trio.lowlevel.add_instrument(instrument)
        with trio.fail_after(5):
            _, rest = await stream.ssl.unwrap()
        trio.lowlevel.remove_instrument(instrument)
        assert rest == b""
        assert stream.is_dead()


@pytest.mark.parametrize("begun", [False, True])
async def test_one_whose_stream_of_trios_was_closed_is_dead(sockets: Sockets, begun: bool) -> None:
    async with no_leaks(counters=sockets.counters), connected(tickets=0) as (stream, _):
        if begun:
            with trio.move_on_after(0.01):
                await stream.ssl.unwrap()
        await stream.ssl.aclose()
        assert stream.is_dead()


@pytest.mark.parametrize("close", ["aclose", "tcp", "socket", "abort"])
async def test_a_closed_one_is_dead(sockets: Sockets, close: str) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_tls_pair()
        if close == "abort":
            near.abort()
        elif close == "socket":
            near.tcp.socket.close()
        else:
            await (near if close == "aclose" else near.tcp).aclose()
        assert near.is_dead()
        with pytest.raises(trio.ClosedResourceError):
            await near.receive_some()
        await near.aclose()
        await far.aclose()


async def test_while_another_task_sends_it_can_be_asked() -> None:
    async with no_leaks():
        near, far = await make_clogged_tls_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, b"more")
            await trio.testing.wait_all_tasks_blocked()
            assert near.is_dead(), "there are bytes"
            nursery.cancel_scope.cancel()
        near.abort()
        far.abort()


async def test_one_that_half_a_record_has_broken_is_dead(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_tls_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, bytes(50_000_000))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not near.is_dead()
            nursery.cancel_scope.cancel()
        assert near.is_dead()
        near.abort()
        far.abort()
