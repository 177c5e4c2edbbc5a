"""New keys in the middle of a connection over TLS: KeyUpdate of TLS 1.3, renegotiation of TLS 1.2.

RFC 8446 section 4.6.3: whoever is asked for a KeyUpdate sends one before its next data, and need not hurry.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.support import tls
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import RECEIVES, Receive, arrival, random_bytes
from tests.support.sweep import repeated, sweep
from tests.support.tls_records import RecordPeer
from trio_connect import (
    DeadlineExceeded,
    SocketOptions,
    TcpStream,
    TlsStream,
    connectx,
    now,
    tcp_connect,
    tcp_listen,
)
from trio_connect._net.sockets.waiting import Expired
from trio_connect._net.streams.tls_transport import TlsTransport

# Small buffers, so that a peer which reads nothing is soon noticed.
NARROW = SocketOptions(send_buffer=65536, receive_buffer=65536)
WIDE = SocketOptions()


@contextlib.asynccontextmanager
async def record_pair(options: SocketOptions = WIDE) -> AsyncIterator[tuple[TlsStream, RecordPeer]]:
    """A stream of ours, and a peer whose every record a test decides."""
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


async def answers(stream: TlsStream, peer: RecordPeer) -> list[int]:
    """The KeyUpdates that come before the next data, which is whole."""
    await stream.send_all(b"next")
    assert await peer.receive() == b"next"
    return peer.key_updates


# --- a peer changes its keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_one", [False, True], ids=["update", "request"])
async def test_new_keys_between_records(sockets: Sockets, request_one: bool) -> None:
    async with no_leaks(counters=sockets.counters), record_pair() as (stream, peer):
        for number in range(5):
            await peer.stream.send_all(peer.key_update(request=request_one) + peer.record(b"data %d" % number))
        assert await stream.receive_exactly(30) == b"data 0data 1data 2data 3data 4"
        assert await answers(stream, peer) == [0] * 5 * request_one
        await peer.send(b"more")
        assert await stream.receive_some() == b"more"


@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
async def test_a_receive_that_was_interrupted_by_new_keys_loses_nothing(sockets: Sockets, receive: Receive) -> None:
    """At its deadline: before, between and after the two halves of a KeyUpdate."""
    async with no_leaks(counters=sockets.counters), record_pair() as (stream, peer):
        update = peer.key_update(request=True)
        for part in (b"", update[:9], update[9:], b""):
            await peer.stream.send_all(part)
            with pytest.raises(DeadlineExceeded):
                await receive(stream, now() + 5)
        assert stream.buffered == 0
        await peer.send(b"old and new")
        assert await stream.receive_exactly(11) == b"old and new"
        assert await answers(stream, peer) == [0]


async def test_cancel_at_every_step_of_a_receive() -> None:
    pieces = [b"%04d" % number for number in range(2)]

    @contextlib.asynccontextmanager
    async def sent() -> AsyncIterator[tuple[TlsStream, RecordPeer]]:
        async with record_pair() as (stream, peer):
            await peer.stream.send_all(b"".join(peer.key_update(request=True) + peer.record(piece) for piece in pieces))
            yield stream, peer

    async def receive(pair: tuple[TlsStream, RecordPeer]) -> None:
        await pair[0].receive_into(bytearray(1_000))

    async def all_is_there(pair: tuple[TlsStream, RecordPeer], _: object) -> None:
        stream, peer = pair
        with trio.fail_after(5):
            assert await stream.receive_exactly(8) == b"".join(pieces)
            assert await answers(stream, peer) == [0] * 2

    summary = await sweep(receive, environment=sent, check=all_is_there, inside=False)
    assert summary.endings("before")[1]["cancelled"] == repeated(1)


async def test_requests_while_this_side_only_sends(sockets: Sockets) -> None:
    """Nobody reads them, so none is answered; once somebody does, all are, before the next data."""
    data = random_bytes(3_000_000)
    async with no_leaks(counters=sockets.counters), record_pair() as (stream, peer):
        received, requests = bytearray(), 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            while len(received) < len(data):
                received += await peer.receive()
                await peer.stream.send_all(peer.key_update(request=True))
                requests += 1
        assert received == data
        assert peer.key_updates == []
        await peer.send(b"read this")
        assert await stream.receive_exactly(9) == b"read this"
        assert await answers(stream, peer) == [0] * requests


@pytest.mark.parametrize("requests", [1, 2, 50])
async def test_requests_while_a_send_waits_hold_up_no_receive(sockets: Sockets, requests: int) -> None:
    """The peer reads nothing, so no answer can go yet; its deadlines hold, and every answer comes in its order."""
    data = random_bytes(3_000_000)
    async with no_leaks(counters=sockets.counters), record_pair(NARROW) as (stream, peer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, data)
            await trio.testing.wait_all_tasks_blocked(0.01)
            for _ in range(2):
                await peer.stream.send_all(b"".join(peer.key_update(request=True) for _ in range(requests)))
                with trio.fail_after(5), pytest.raises(DeadlineExceeded):
                    await stream.receive_exactly(4, now() + 10)
                with trio.move_on_after(0.01):
                    await stream.receive_exactly(4)
            await peer.send(b"data")
            assert await stream.receive_exactly(4, now() + 5_000) == b"data"
            received = bytearray()
            while len(received) < len(data):
                received += await peer.receive()
        assert received == data
        assert await answers(stream, peer) == [0] * 2 * requests


async def test_an_answer_overtakes_no_record() -> None:
    """Whatever passes of the loop lie between what is encrypted and what is sent."""
    async with no_leaks(), record_pair() as (stream, peer):
        for number in range(200):  # Trio takes the tasks of a pass in any order

            async def send(passes: int) -> None:
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                await stream.send_all(b"data")

            await peer.stream.send_all(peer.key_update(request=True) + peer.key_update(request=True))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_exactly, 4)
                nursery.start_soon(send, number % 6)
                assert await peer.receive() == b"data"
                await peer.send(b"data")


async def test_an_interrupted_send_of_an_answer_breaks_the_stream(sockets: Sockets) -> None:
    """As any other send: half a record may have gone."""
    async with no_leaks(counters=sockets.counters), record_pair(NARROW) as (stream, peer):
        await peer.stream.send_all(peer.key_update(request=True) + peer.record(b"data"))
        assert await stream.receive_exactly(4) == b"data"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(50_000_000))
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        with pytest.raises(trio.BrokenResourceError, match="a send was cut short"):
            await stream.receive_some()
        assert await peer.receive() != b""
        assert peer.key_updates == [0]


async def test_a_send_waits_for_an_answer_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a record may have gone, as in a renegotiation whose answer has no room: nothing may come between."""
    is_under_way, room = trio.Event(), trio.Event()
    send_some = TlsTransport.send_some

    async def without_room(transport: TlsTransport, data: Any, until: float) -> int:
        is_under_way.set()
        await room.wait()
        return await send_some(transport, data, until)

    monkeypatch.setattr(TlsTransport, "send_some", without_room)
    async with (
        no_leaks(),
        await tcp_listen(("127.0.0.1", 0)) as listener,
        await tcp_connect(listener.endpoint) as near,
        await listener.accept() as far,
    ):
        transport = TlsTransport(near)
        transport.answers = b"answer, "
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.receive_some)
            await is_under_way.wait()
            nursery.start_soon(transport.send_all, b"data")
            await trio.testing.wait_all_tasks_blocked()
            room.set()
            await far.send_all(b"something")
        await near.send_all(b".")
        assert await far.receive_exactly(13) == b"answer, data."


async def test_requests_are_answered_while_nobody_sends(sockets: Sockets) -> None:
    """The last one by the next call, as OpenSSL does it."""
    async with no_leaks(counters=sockets.counters), record_pair() as (stream, peer):
        requests = b"".join(peer.key_update(request=True) for _ in range(1_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_exactly, 4)
            await peer.stream.send_all(requests)
            while peer.stream.buffered < 27 * 999:
                await peer.stream.fill(now() + 5_000)
            await peer.send(b"data")
        assert await answers(stream, peer) == [0] * 1_000


@pytest.mark.parametrize("sends", [False, True])
async def test_a_flood_of_requests_of_a_peer_that_reads_nothing(sends: bool) -> None:
    """Answers would grow without bound."""
    async with no_leaks(), record_pair(NARROW) as (stream, peer):

        async def flood() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await peer.stream.send_all(b"".join(peer.key_update(request=True) for _ in range(1_000)))

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.send_all(bytes(50_000_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            if sends:
                nursery.start_soon(send)
                await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(trio.BrokenResourceError, match="asks for new keys, and does not read the answers"):
                await stream.receive_exactly(4)
            stream.abort()


async def test_an_answer_that_cannot_be_sent_any_more_loses_nothing_of_what_has_come(sockets: Sockets) -> None:
    """The peer asks for new keys, sends the rest, and is gone."""
    async with no_leaks(counters=sockets.counters), record_pair() as (stream, peer):
        await peer.stream.send_all(
            peer.record(b"first") + peer.key_update(request=True) + peer.key_update(request=True)
        )
        assert await stream.receive_some() == b"first"
        await peer.stream.send_all(peer.record(b"the rest") + peer.record(b"\1\0", 21))  # close_notify
        await arrival(stream.tcp.socket)
        peer.stream.abort()
        assert await stream.receive_some(None, now() + 5_000) == b"the rest"
        assert await stream.receive_some(None, now() + 5_000) == b""
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


async def test_nor_does_it_hide_that_the_connection_broke(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), record_pair() as (stream, peer):
        await peer.stream.send_all(
            peer.record(b"first") + peer.key_update(request=True) + peer.key_update(request=True)
        )
        assert await stream.receive_some() == b"first"
        await peer.send(b"the rest")
        await arrival(stream.tcp.socket)
        peer.stream.abort()
        assert await stream.receive_some(None, now() + 5_000) == b"the rest"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="connection reset by peer"):
                await stream.receive_some(None, now() + 5_000)


# --- OpenSSL's own programs -------------------------------------------------------------------------------------------

programs = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: its TLS is not tried")


@contextlib.asynccontextmanager
async def openssl(*arguments: str) -> AsyncIterator[tuple[trio.Process, Callable[[bytes], Awaitable[bytes]]]]:
    """A program of OpenSSL's, and what waits until it has said this, and returns what came before."""
    process = await trio.lowlevel.open_process(
        ["openssl", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = bytearray()

    async def until(words: bytes) -> bytes:
        assert process.stdout is not None
        with trio.fail_after(20):
            while words not in said:
                piece = await process.stdout.receive_some()
                assert piece, said.decode(errors="replace")
                said.extend(piece)
        before, _, after = bytes(said).partition(words)
        said[:] = after
        return before

    try:
        yield process, until
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                await pipe.aclose()


async def type_in(process: trio.Process, line: bytes) -> None:
    assert process.stdin is not None
    await process.stdin.send_all(line)


@contextlib.contextmanager
def certificate() -> Any:
    with tempfile.NamedTemporaryFile() as file:
        file.write(tls.authority().issue_cert(tls.NAME).private_key_and_cert_chain_pem.bytes())
        file.flush()
        yield file.name


@contextlib.asynccontextmanager
async def openssls_server(version: str) -> AsyncIterator[tuple[TlsStream, trio.Process, Any]]:
    """A stream of ours to `openssl s_server`, which reads commands: K, k and r give new keys."""
    with certificate() as file:
        arguments = ("s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-cert", file, version)
        async with openssl(*arguments) as (process, until):
            await until(b"ACCEPT 127.0.0.1:")
            port = int(await until(b"\n"))
            stream = await connectx(
                [("127.0.0.1", port)], now() + 20_000, tls=tls.contexts().client, server_hostname=tls.NAME
            )
            yield stream, process, until
            stream.abort()


async def talk(stream: TlsStream, heard: trio.Event) -> None:
    """Have the program print: its words stay in a buffer of its own until there is something else to print."""
    while not heard.is_set():
        await stream.send_all(b"and\n")
        with trio.move_on_after(0.02):
            await heard.wait()


@programs
@pytest.mark.parametrize(("version", "command"), [("-tls1_3", b"K\n"), ("-tls1_3", b"k\n"), ("-tls1_2", b"r\n")])
async def test_new_keys_of_openssls_server(version: str, command: bytes) -> None:
    async with no_leaks(), openssls_server(version) as (stream, process, until):
        for number in range(2):
            await type_in(process, b"before\n")
            assert await stream.receive_until(b"\n", 20, now() + 20_000) == b"before"
            await type_in(process, command)
            async with trio.open_nursery() as nursery:
                # Two sides are needed for a renegotiation, so this is receiving meanwhile.
                heard = trio.Event()
                nursery.start_soon(stream.fill, now() + 20_000)
                if version == "-tls1_3":
                    nursery.start_soon(talk, stream, heard)
                await until(b"SSL_do_handshake -> 1")  # a command and a line in one read are one command
                heard.set()
                await type_in(process, b"after\n")
            assert await stream.receive_until(b"\n", 20, now() + 20_000) == b"after"
            await stream.send_all(b"answer %d\n" % number)
            await until(b"answer %d\n" % number)


@programs
async def test_a_renegotiation_in_receives_that_end_at_once() -> None:
    """Each step of it comes in a call of its own."""
    async with no_leaks(), openssls_server("-tls1_2") as (stream, process, until):
        await type_in(process, b"r\n")
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with trio.fail_after(20):
                    while not stream.buffered:
                        with contextlib.suppress(DeadlineExceeded):
                            await stream.fill(0)

            nursery.start_soon(receive)
            await until(b"SSL_do_handshake -> 1")
            await type_in(process, b"after\n")
        assert await stream.receive_until(b"\n", 20) == b"after"


@programs
@pytest.mark.parametrize(("version", "command"), [("-tls1_3", b"K\n"), ("-tls1_3", b"k\n"), ("-tls1_2", b"r\n")])
async def test_new_keys_of_openssls_server_do_not_make_an_idle_connection_dead(version: str, command: bytes) -> None:
    """Looking takes them, and sends nothing; then the connection is lent out."""
    async with no_leaks(), openssls_server(version) as (stream, process, until):
        await type_in(process, b"before\n")
        assert await stream.receive_until(b"\n", 20, now() + 20_000) == b"before"
        await type_in(process, command)
        await arrival(stream.tcp.socket)
        for _ in range(3):
            assert not stream.is_dead()
        assert not stream.tcp.socket.is_readable()
        await type_in(process, b"after\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"question\n", now() + 20_000)
            nursery.start_soon(stream.receive_until, b"\n", 20, now() + 20_000)
            await until(b"question\n")


@programs
async def test_a_renegotiation_waits_until_its_answer_can_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes nothing without waiting."""
    send_some = TlsTransport.send_some

    async def blocked(transport: TlsTransport, data: Any, until: float) -> int:
        if until == -math.inf:
            raise Expired
        return await send_some(transport, data, until)

    async with no_leaks(), openssls_server("-tls1_2") as (stream, process, until):
        monkeypatch.setattr(TlsTransport, "send_some", blocked)
        await type_in(process, b"r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.fill, now() + 20_000)
            await until(b"SSL_do_handshake -> 1")
            await type_in(process, b"after\n")
        assert await stream.receive_until(b"\n", 20) == b"after"
        stream.abort()


@programs
@pytest.mark.parametrize("command", [b"K\n", b"k\n"])
async def test_new_keys_of_openssls_client(command: bytes) -> None:
    async with no_leaks(), await tcp_listen(("127.0.0.1", 0)) as listener:
        arguments = ("s_client", "-connect", str(listener.endpoint), "-tls1_3")
        async with openssl(*arguments) as (process, until):
            stream = await (await accepted(listener.accept)).start_tls(
                tls.contexts().server, now() + 20_000, server_side=True
            )
            for number in range(2):
                await type_in(process, b"before\n")
                assert await stream.receive_until(b"\n", 20, now() + 20_000) == b"before"
                await type_in(process, command)
                await until(b"KEYUPDATE\n")
                await type_in(process, b"after\n")
                assert await stream.receive_until(b"\n", 20, now() + 20_000) == b"after"
                await stream.send_all(b"answer %d\n" % number)
                await until(b"answer %d\n" % number)
            stream.abort()


@programs
async def test_an_answer_does_not_come_before_the_session_tickets_of_a_server_that_has_sent_nothing() -> None:
    """They were encrypted first, and Trio keeps them until there is data to send."""
    async with (
        no_leaks(),
        await tcp_listen(("127.0.0.1", 0)) as listener,
        openssl("s_client", "-connect", str(listener.endpoint), "-tls1_3") as (process, until),
    ):
        stream = await (await accepted(listener.accept)).start_tls(
            tls.contexts().server, now() + 20_000, server_side=True
        )
        for _ in range(2):
            await type_in(process, b"K\n")
            await until(b"KEYUPDATE\n")
            await arrival(stream.tcp.socket)
            for _ in range(3):
                with pytest.raises(DeadlineExceeded):
                    await stream.fill(0)
        await type_in(process, b"an upload\n")
        assert await stream.receive_until(b"\n", 20, now() + 20_000) == b"an upload"
        await stream.send_all(b"done\n")
        await until(b"done\n")
        stream.abort()


async def accepted(accept: Callable[[int], Awaitable[TcpStream]]) -> TcpStream:
    return await accept(now() + 20_000)
