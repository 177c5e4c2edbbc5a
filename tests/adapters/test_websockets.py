"""The WebSocket clients that take a stream: websockets' and trio-websocket's, over connections of ours. No adapter."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from tests.net.racing import Stopwatch, dead, virtual
from tests.support import tls
from trio_connect import ConnectFailed, NetworkFilter, TcpStream, TlsStream, connect, tcp_listen
from trio_connect.testing import VirtualNetwork

websockets = pytest.importorskip("websockets.trio.client", reason="NOT RUN: websockets is not installed, or too old")
trio_websocket = pytest.importorskip("trio_websocket", reason="NOT RUN: trio-websocket is not installed")

V6, V4 = "2001:db8::1", "192.0.2.1"


async def accept_and_echo(stream: Any) -> None:
    """A server of trio-websocket's, which both clients speak with."""
    async with trio.open_nursery() as nursery:
        request = await trio_websocket.wrap_server_stream(nursery, stream)
        async with await request.accept() as connection:
            try:
                while True:
                    await connection.send_message(await connection.get_message())
            except trio_websocket.ConnectionClosed:
                pass


async def over_tls(stream: Any) -> None:
    await accept_and_echo(trio.SSLStream(stream, tls.contexts().server, server_side=True))


async def by_websockets(stream: Any, uri: str, **options: Any) -> str:
    async with websockets.connect(uri, stream=stream, **options) as connection:
        await connection.send("hello")
        answer: str = await connection.recv()
        return answer


async def by_trio_websocket(stream: Any, uri: str) -> str:
    async with trio.open_nursery() as nursery:
        host, resource = uri.split("/")[2], "/" + uri.split("/", 3)[3]
        connection = await trio_websocket.wrap_client_stream(nursery, stream, host, resource)
        async with connection:
            await connection.send_message("hello")
            answer: str = await connection.get_message()
        return answer


clients = pytest.mark.parametrize("client", [by_websockets, by_trio_websocket])


@clients
@virtual
async def test_over_a_connection_that_has_won_a_race(net: VirtualNetwork, client: Any) -> None:
    dead(net, V6)
    net.host(V4).listen(80, accept_and_echo, rtt=0.020)
    net.dns("chat.test", aaaa=[V6], a=[V4])
    time = Stopwatch()
    stream = await connect("chat.test", 80)
    assert isinstance(stream, TcpStream)
    assert await client(stream, "ws://chat.test/room") == "hello"
    assert time.ms >= 310


@clients
@virtual
async def test_over_tls_that_was_raced(net: VirtualNetwork, client: Any) -> None:
    """The stream is over TLS already, so the client is told of a ws: URI at the port of HTTPS."""
    net.host(V6).silent(443)
    net.host(V4).listen(443, over_tls)
    net.dns(tls.NAME, aaaa=[V6], a=[V4])
    stream = await connect(tls.NAME, 443, tls=tls.contexts().client)
    assert isinstance(stream, TlsStream)
    assert await client(stream, f"ws://{tls.NAME}:443/room") == "hello"


@virtual
async def test_websockets_does_its_own_tls_over_a_plain_connection(net: VirtualNetwork) -> None:
    net.host(V4).listen(443, over_tls)
    net.dns(tls.NAME, a=[V4])
    stream = await connect(tls.NAME, 443)
    assert await by_websockets(stream, f"wss://{tls.NAME}/room", ssl=tls.contexts().client) == "hello"


@pytest.mark.parametrize("client", [by_websockets, by_trio_websocket])
async def test_over_loopback(client: Any) -> None:
    async with await tcp_listen(("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, accept_and_echo, [listener])
        port = listener.endpoint.port
        assert await client(await connect("localhost", port), f"ws://localhost:{port}/room") == "hello"
        with pytest.raises(ConnectFailed, match="not allowed by the address filter"):
            await connect("localhost", port, address_filter=NetworkFilter.public_only())
        nursery.cancel_scope.cancel()
