"""TLS over whichever address of a service proves that it is the service.

The race is won when the handshake is done: an address whose certificate is not good loses, and the next is tried. The
first server here has a certificate of another name; the second is good. trustme makes the certificates.

Prints:
  127.0.0.1:...: failed: Hostname mismatch, certificate is not valid for 'api.test'...
  127.0.0.1:...: won
  TLSv1.3 with api.test: b'hello over TLS'
"""

import ssl
from functools import partial

import trio
import trustme

from trio_connect import Endpoint, TcpStream, connectx, now, tcp_listen


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """Return what a server of this name needs."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with authority.issue_cert(name).private_key_and_cert_chain_pem.tempfile() as path:
        context.load_cert_chain(path)
    return context


async def serve(context: ssl.SSLContext, stream: TcpStream) -> None:
    """Send back what comes, over TLS."""
    try:
        async with await stream.start_tls(context, now() + 5_000, server_side=True) as tls:
            async for chunk in tls:
                await tls.send_all(chunk)
    except trio.BrokenResourceError:
        pass  # a client that does not believe us


async def main() -> None:
    """Make two servers, and connect to the one that is the service."""
    authority = trustme.CA()
    context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
    async with trio.open_nursery() as nursery:
        endpoints: list[Endpoint] = []
        for name in ("other.test", "api.test"):
            listener = await tcp_listen(("127.0.0.1", 0))
            endpoints.append(listener.endpoint)
            nursery.start_soon(trio.serve_listeners, partial(serve, server_context(authority, name)), [listener])
        deadline = now() + 5_000
        async with await connectx(endpoints, deadline, tls=context, server_hostname="api.test") as stream:
            for attempt in stream.report.attempts:
                print(f"{attempt.endpoint}: {attempt.outcome}{f': {attempt.reason}' if attempt.reason else ''}")
            await stream.send_all(b"hello over TLS")
            print(f"{stream.version} with api.test: {await stream.receive_some()!r}")
        nursery.cancel_scope.cancel()


trio.run(main)
