"""Two WebSocket clients over connections that have won a race, TLS included.

The service has two addresses. The first accepts TCP and never says a word of TLS, as a broken middlebox does. A client
that connects by itself takes it, and hangs. Here the race is won when the handshake is done, and either client gets the
stream that won.

It needs `pip install websockets trio-websocket trustme`.

Prints:
  websockets: 'hello, answered' from 127.0.0.1 over TLSv1.3
    127.0.0.2: lost
    127.0.0.1: won
  trio-websocket: 'hello, answered' from 127.0.0.1 over TLSv1.3
    127.0.0.2: lost
    127.0.0.1: won
"""

import ssl
from functools import partial

import trio
import trustme
from trio_websocket import ConnectionClosed, wrap_client_stream, wrap_server_stream
from websockets.trio.client import connect as websocket

from trio_connect import StaticResolver, TcpStream, TlsStream, connect, now, tcp_listen

NAMES = StaticResolver({"chat.test": ["127.0.0.2", "127.0.0.1"]})


async def by_websockets(stream: TlsStream, port: int) -> str:
    """Say hello with websockets. The stream is over TLS already, hence ws: and the port."""
    async with websocket(f"ws://chat.test:{port}/room", stream=stream) as connection:
        await connection.send("hello")
        return str(await connection.recv())


async def by_trio_websocket(stream: TlsStream, port: int) -> str:
    """Say hello with trio-websocket."""
    async with (
        trio.open_nursery() as nursery,
        # It says that it wants a stream of Trio's, and uses what any trio.abc.Stream has.
        await wrap_client_stream(nursery, stream, f"chat.test:{port}", "/room") as connection,  # type: ignore[arg-type]
    ):
        await connection.send_message("hello")
        return str(await connection.get_message())


# --- the service ------------------------------------------------------------------------------------------------------


async def answer(context: ssl.SSLContext, stream: TcpStream) -> None:
    """Answer each message, over TLS."""
    secured = await stream.start_tls(context, now() + 5_000, server_side=True)
    async with trio.open_nursery() as nursery:
        request = await wrap_server_stream(nursery, secured)
        async with await request.accept() as connection:
            try:
                while True:
                    await connection.send_message(str(await connection.get_message()) + ", answered")
            except ConnectionClosed:
                pass


async def say_nothing(stream: TcpStream) -> None:
    """Read, and never answer."""
    async with stream:
        while await stream.receive_some():
            pass


async def main() -> None:
    """Start the service, and talk to it with both clients."""
    authority = trustme.CA()
    for_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with authority.issue_cert("chat.test").private_key_and_cert_chain_pem.tempfile() as path:
        for_server.load_cert_chain(path)
    for_clients = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    async with trio.open_nursery() as nursery:
        good = await tcp_listen(("127.0.0.1", 0))
        port = good.endpoint.port
        silent = await tcp_listen(("127.0.0.2", port))
        nursery.start_soon(trio.serve_listeners, partial(answer, for_server), [good])
        nursery.start_soon(trio.serve_listeners, say_nothing, [silent])
        for name, client in {"websockets": by_websockets, "trio-websocket": by_trio_websocket}.items():
            stream = await connect("chat.test", port, now() + 5_000, resolver=NAMES, tls=for_clients)
            version, report = stream.version, stream.report
            print(f"{name}: {await client(stream, port)!r} from {stream.peer.host} over {version}")
            for attempt in report.attempts:
                print(f"  {attempt.endpoint.host}: {attempt.outcome}")
        nursery.cancel_scope.cancel()


trio.run(main)
