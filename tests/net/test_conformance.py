"""Our streams in the hands of Trio: its own checks, its TLS, its server loop, its helpers."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing
import trustme

from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import KINDS, Kind, Stream, connect_to, listening, make_clogged_pair, make_pair, pair
from trio_connect import TcpStream, tcp_connect, tcp_listen

kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
async def test_trios_own_check_of_half_closeable_streams(sockets: Sockets, kind: Kind) -> None:
    async def maker() -> tuple[Stream, Stream]:
        return await make_pair(kind)

    clogged: list[tuple[Stream, Stream]] = []

    async def clogged_maker() -> tuple[Stream, Stream]:
        return clogged.pop() if clogged else await make_clogged_pair(kind)

    async def make_one() -> None:
        clogged.append(await make_clogged_pair(kind))

    async with no_leaks(counters=sockets.counters):
        # Side by side: to be sure that a pair is clogged takes half a second.
        async with trio.open_nursery() as nursery:
            for _ in range(12):
                nursery.start_soon(make_one)
        await trio.testing.check_half_closeable_stream(maker, clogged_maker)
        for streams in clogged:
            for stream in streams:
                stream.abort()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@kinds
async def test_tls_over_ours(sockets: Sockets, kind: Kind, authority: trustme.CA) -> None:
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("example.org").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    data = bytes(1_000_000)

    async with no_leaks(counters=sockets.counters), listening(kind) as listener:
        client = trio.SSLStream(await connect_to(listener), client_context, server_hostname="example.org")
        server = trio.SSLStream(await listener.accept(), server_context, server_side=True)
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:

                async def echo() -> None:
                    received = 0
                    while received < len(data):
                        part = await server.receive_some()
                        await server.send_all(part)
                        received += len(part)
                    await server.aclose()

                nursery.start_soon(echo)
                nursery.start_soon(client.send_all, data)
                received = 0
                while received < len(data):
                    received += len(await client.receive_some())
                await client.aclose()
        assert client.transport_stream.report is not None
        assert client.transport_stream.fileno() == -1


@kinds
async def test_served_by_trio(sockets: Sockets, kind: Kind) -> None:
    async def echo(stream: Stream) -> None:
        async for part in stream:
            await stream.send_all(part)

    async with no_leaks(counters=sockets.counters), listening(kind) as listener, trio.open_nursery() as nursery:
        await nursery.start(trio.serve_listeners, echo, [listener])
        with trio.fail_after(10):
            for _ in range(20):
                async with await connect_to(listener) as near:
                    await near.send_all(b"abc")
                    assert await near.receive_exactly(3) == b"abc"
                    await near.send_eof()
                    assert await near.receive_some() == b""
        nursery.cancel_scope.cancel()


async def test_in_trios_stapled_stream(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), pair("tcp") as (near, far):
        stapled = trio.StapledStream(near, near)
        await stapled.send_all(b"x")
        await stapled.send_eof()
        assert await far.receive_some() == b"x"
        assert await far.receive_some() == b""
        await stapled.aclose()


async def test_many_at_a_time(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0)) as listener:
        done = 0

        async def serve(stream: TcpStream) -> None:
            await stream.send_all(await stream.receive_exactly(4))

        async def visit(number: int) -> None:
            nonlocal done
            word = number.to_bytes(4, "big")
            async with await tcp_connect(listener.endpoint) as stream:
                await stream.send_all(word)
                assert await stream.receive_exactly(4) == word
                done += 1

        async with trio.open_nursery() as servers:
            servers.start_soon(trio.serve_listeners, serve, [listener])
            async with trio.open_nursery() as visitors:
                for number in range(200):
                    visitors.start_soon(visit, number)
            servers.cancel_scope.cancel()
        assert done == 200
