"""A client written for anyio, over connections that have won a race, TLS included.

The client knows nothing of this package: it is given a connectable, as anyio has them, and asks it for a stream. The
service has two addresses. The first accepts TCP and never says a word of TLS.

It needs `pip install anyio trustme`.

Prints:
  'time?' was answered with 'noon' over TLSv1.3
    127.0.0.2: lost
    127.0.0.1: won
  nobody there: [Errno 111] the only attempt to 127.0.0.1:... failed in ... (refused: 1)
"""

import ssl
from functools import partial

import anyio
import trio
import trustme
from anyio.abc import ByteStreamConnectable
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSAttribute

from trio_connect import StaticResolver, TcpStream, now, tcp_listen
from trio_connect.adapters.anyio import Connectable, Stream

NAMES = StaticResolver({"clock.test": ["127.0.0.2", "127.0.0.1"]})


async def ask(service: ByteStreamConnectable, question: str) -> None:
    """Ask one question, with what anyio has alone."""
    with anyio.fail_after(5):
        async with await service.connect() as stream:
            await stream.send(question.encode() + b"\n")
            answer = await BufferedByteReceiveStream(stream).receive_until(b"\n", 100)
            version = stream.extra(TLSAttribute.tls_version)  # noqa: S610 - not Django's
            print(f"{question!r} was answered with {answer.decode()!r} over {version}")
            if isinstance(stream, Stream):
                for attempt in stream.stream.report.attempts:
                    print(f"  {attempt.endpoint.host}: {attempt.outcome}")


# --- the service ------------------------------------------------------------------------------------------------------


async def answer(context: ssl.SSLContext, stream: TcpStream) -> None:
    """Answer each line, over TLS."""
    async with await stream.start_tls(context, now() + 5_000, server_side=True) as secured:
        await secured.receive_until(b"\n", 100)
        await secured.send_all(b"noon\n")


async def say_nothing(stream: TcpStream) -> None:
    """Read, and never answer."""
    async with stream:
        while await stream.receive_some():
            pass


async def main() -> None:
    """Start the service, and ask it; then ask where nobody is."""
    authority = trustme.CA()
    for_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with authority.issue_cert("clock.test").private_key_and_cert_chain_pem.tempfile() as path:
        for_server.load_cert_chain(path)
    for_clients = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    async with trio.open_nursery() as nursery:
        good = await tcp_listen(("127.0.0.1", 0))
        port = good.endpoint.port
        silent = await tcp_listen(("127.0.0.2", port))
        nursery.start_soon(trio.serve_listeners, partial(answer, for_server), [good])
        nursery.start_soon(trio.serve_listeners, say_nothing, [silent])
        await ask(Connectable("clock.test", port, resolver=NAMES, tls=for_clients), "time?")
        nursery.cancel_scope.cancel()
    try:
        await ask(Connectable("127.0.0.1", port), "time?")
    except anyio.ConnectionFailed as error:
        print(f"nobody there: {error}")


trio.run(main)
