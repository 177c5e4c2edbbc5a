"""Programs that know nothing of the virtual network run on it unmodified, and take exactly the time that it says.

The round trip to every server here is 40 ms, so each number below is a count of round trips.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpcore
import pytest
import trio
import trustme
import websockets.exceptions
from websockets.trio.client import connect as websocket_connect
from websockets.trio.server import ServerConnection, serve

from trio_connect.testing import UnknownHost, VirtualNetwork, echo, run

V6, V4 = "2001:db8::1", "192.0.2.1"
RTT = 0.040


def elapsed() -> int:
    return round(trio.current_time() * 1e6)  # whole microseconds: what the sums of floats leave over does not show


def ms(value: float) -> int:
    return round(value * 1000)


# --- trio -------------------------------------------------------------------------------------------------------------


def test_trio_with_its_own_listeners():
    """Server and client are both programs: trio.serve_tcp on a host of its own."""

    async def main(net: VirtualNetwork) -> None:
        server = net.host(V4, rtt=RTT)
        async with trio.open_nursery() as nursery:
            with server.here():
                await nursery.start(trio.serve_tcp, echo, 7000)
            async with await trio.open_tcp_stream(V4, 7000) as stream:
                assert elapsed() == ms(40)
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
                assert elapsed() == ms(80)
            nursery.cancel_scope.cancel()

    run(main)


def test_trio_ssl_over_tcp_stream():
    async def main(net: VirtualNetwork, authority: trustme.CA) -> None:
        net.dns("api.test", [V4])
        net.host(V4).listen(443, over_tls(authority, echo), rtt=RTT)
        stream = await trio.open_ssl_over_tcp_stream("api.test", 443, ssl_context=trusting(authority))
        await stream.do_handshake()
        assert elapsed() == ms(80)
        await stream.send_all(b"secret")
        assert await stream.receive_some() == b"secret"
        assert elapsed() == ms(120)
        await stream.aclose()

    run(main, trustme.CA())


# --- anyio ------------------------------------------------------------------------------------------------------------


def test_anyio_falls_back():
    async def main(net: VirtualNetwork) -> None:
        net.dns("api.test", [V6, V4])
        net.host(V6).blackhole()
        net.host(V4).listen(80, echo, rtt=RTT)
        async with await anyio.connect_tcp("api.test", 80) as stream:
            assert elapsed() == ms(250 + 40)
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"
            assert elapsed() == ms(250 + 80)
            assert stream.extra(anyio.abc.SocketAttribute.remote_address) == (V4, 80)
            await stream.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
            assert elapsed() == ms(250 + 120)
        assert net.trace.starts == {V6: 0.0, V4: 0.25}

    run(main)


def test_anyio_tls():
    async def main(net: VirtualNetwork, authority: trustme.CA) -> None:
        net.dns("api.test", [V4])
        net.host(V4).listen(443, over_tls(authority, echo), rtt=RTT)
        async with await anyio.connect_tcp("api.test", 443, ssl_context=trusting(authority)) as stream:
            assert elapsed() == ms(80)
            await stream.send(b"secret")
            assert await stream.receive() == b"secret"
            assert elapsed() == ms(120)

    run(main, trustme.CA())


def test_anyio_refused():
    async def main(net: VirtualNetwork) -> None:
        net.host(V4, rtt=RTT)
        with pytest.raises(OSError, match="All connection attempts failed"):
            await anyio.connect_tcp(V4, 80)
        assert elapsed() == ms(40)

    run(main)


# --- httpcore ---------------------------------------------------------------------------------------------------------


async def http(stream: trio.abc.Stream) -> None:
    """Answer requests without a body, until the peer goes away."""
    received = b""
    while chunk := await stream.receive_some():
        received += chunk
        while b"\r\n\r\n" in received:
            head, _, received = received.partition(b"\r\n\r\n")
            body = b"you asked for " + head.split(b" ")[1]
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def test_httpcore():
    async def main(net: VirtualNetwork) -> None:
        net.dns("api.test", [V4])
        net.host(V4).listen(80, http, rtt=RTT)
        async with httpcore.AsyncConnectionPool() as pool:
            response = await pool.request("GET", "http://api.test/one")
            assert (response.status, response.content) == (200, b"you asked for /one")
            assert elapsed() == ms(80)
            # The pool keeps the connection, which it can only tell by looking at the socket's readiness.
            response = await pool.request("GET", "http://api.test/two")
            assert response.content == b"you asked for /two"
            assert elapsed() == ms(120)
        assert len(net.trace.connections) == 1

    run(main)


def test_httpcore_over_tls_with_many_requests_at_once():
    async def main(net: VirtualNetwork, authority: trustme.CA) -> None:
        net.dns("api.test", [V4])
        net.host(V4).listen(443, over_tls(authority, http), rtt=RTT)
        answers: list[bytes] = []
        async with httpcore.AsyncConnectionPool(ssl_context=trusting(authority), max_connections=4) as pool:

            async def ask(number: int) -> None:
                answers.append((await pool.request("GET", f"https://api.test/{number}")).content)

            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(ask, number)
        assert sorted(answers) == [b"you asked for /%d" % number for number in range(8)]
        # Four connections take three round trips to their first answer and one to their second.
        assert elapsed() == ms(160)
        assert len(net.trace.connections) == 4

    run(main, trustme.CA())


def test_httpcore_sees_faults():
    async def main(net: VirtualNetwork) -> None:
        net.host(V4).blackhole()
        net.host(V6, rtt=RTT)
        async with httpcore.AsyncConnectionPool() as pool:
            with pytest.raises(httpcore.ConnectTimeout):
                await pool.request("GET", f"http://{V4}/", extensions={"timeout": {"connect": 5.0}})
            assert elapsed() == ms(5000)
            with pytest.raises(httpcore.ConnectError):
                await pool.request("GET", f"http://[{V6}]/")
            assert elapsed() == ms(5040)

    run(main)


def test_httpcore_notices_a_connection_that_the_server_closed():
    async def once(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await trio.sleep(1)

    async def main(net: VirtualNetwork) -> None:
        net.host(V4).listen(80, once, rtt=RTT)
        async with httpcore.AsyncConnectionPool() as pool:
            for _ in range(2):
                assert (await pool.request("GET", f"http://{V4}/")).status == 200
                await trio.sleep(2)
        assert [ms(connection.started) for connection in net.trace.connections] == [0, 2080]

    run(main)


# --- websockets -------------------------------------------------------------------------------------------------------


async def shout(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(str(message).upper())


def test_websockets():
    """Client and server are websockets' own."""

    async def main(net: VirtualNetwork) -> None:
        net.dns("chat.test", [V6, V4])
        net.host(V6).unreachable()
        server = net.host(V4, rtt=RTT)
        async with trio.open_nursery() as nursery:
            with server.here():
                await nursery.start(serve, shout, 8765)
            async with websocket_connect("ws://chat.test:8765") as connection:
                assert elapsed() == ms(80)
                await connection.send("hello")
                assert await connection.recv() == "HELLO"
                assert elapsed() == ms(120)
                await (await connection.ping()).wait()
                assert elapsed() == ms(160)
            # The closing handshake, and then the server closes TCP first, as it should.
            assert elapsed() == ms(200)
            nursery.cancel_scope.cancel()

    run(main)


def test_websockets_notices_a_partition():
    """Twenty seconds until the keepalive's ping, twenty more until it gives up, in no time at all."""

    async def main(net: VirtualNetwork) -> None:
        server = net.host(V4, rtt=RTT)
        async with trio.open_nursery() as nursery:
            with server.here():
                await nursery.start(serve, shout, 8765)
            with pytest.raises(websockets.exceptions.ConnectionClosedError, match="keepalive ping timeout"):
                async with websocket_connect(f"ws://{V4}:8765") as connection:
                    net.partition(net.local, server)
                    await connection.recv()
            # Two round trips, the two waits, and ten seconds for a closing handshake that nobody answers.
            assert elapsed() == ms(80 + 50_000)
            nursery.cancel_scope.cancel()

    run(main)


# --- all of them ------------------------------------------------------------------------------------------------------


async def by_trio() -> None:
    await trio.open_tcp_stream("nowhere.test", 80)


async def by_anyio() -> None:
    await anyio.connect_tcp("nowhere.test", 80)


async def by_httpcore() -> None:
    async with httpcore.AsyncConnectionPool(retries=3) as pool:
        await pool.request("GET", "http://nowhere.test/")


async def by_websockets() -> None:
    async with websocket_connect("ws://nowhere.test"):
        pass


@pytest.mark.parametrize("connect", [by_trio, by_anyio, by_httpcore, by_websockets])
def test_a_name_that_the_test_does_not_mention(connect):
    """Even a program that survives whatever its library raises does not get away with it."""

    async def main(net: VirtualNetwork) -> None:
        try:
            await connect()
        except Exception:  # noqa: BLE001 - that is the program's mistake
            return
        pytest.fail("it must not connect")

    with pytest.raises(UnknownHost, match=r"unknown host nowhere\.test"):
        run(main)


# --- TLS --------------------------------------------------------------------------------------------------------------


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def over_tls(
    authority: trustme.CA, handler: Callable[[Any], Awaitable[object]]
) -> Callable[[trio.SocketStream], Awaitable[None]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.test").configure_cert(context)

    async def serve_tls(stream: trio.SocketStream) -> None:
        async with trio.SSLStream(stream, context, server_side=True) as tls:
            await handler(tls)

    return serve_tls
