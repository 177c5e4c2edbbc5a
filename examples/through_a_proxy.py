"""Reach a mail server that refuses this machine, by way of a proxy.

The direct way is tried first. It is refused, and the same call goes on through the proxy. The greeting of the server
comes glued to the answer of the proxy, and none of it is lost.

Prints:
  127.0.0.1:... from any: connection refused
  127.0.0.1:... from proxy http://***@127.0.0.1:...: won
  220 mail.test ESMTP
"""

import trio

from trio_connect import Endpoint, Source, TcpStream, connectx, now, tcp_listen


async def proxy(stream: TcpStream) -> None:
    """Answer a CONNECT, together with what the server behind it says first."""
    async with stream:
        request = await stream.receive_until(b"\r\n\r\n", 10_000)
        assert b"Proxy-Authorization: Basic dXNlcjp3b3Jk" in request
        await stream.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n220 mail.test ESMTP\r\n")
        await stream.receive_some()


async def closed_port() -> Endpoint:
    """Return where nobody listens."""
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        return listener.endpoint


async def main() -> None:
    """Connect to a server that only the proxy can reach."""
    server = await closed_port()
    async with await tcp_listen(("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy, [listener])
        sources = [Source(), Source(proxy=f"http://user:word@{listener.endpoint}")]
        deadline = now() + 5_000
        async with await connectx([server], deadline, sources=sources) as stream:
            for attempt in stream.report.attempts:
                print(f"{attempt.endpoint} from {attempt.source}: {attempt.reason or attempt.outcome}")
            print((await stream.receive_until(b"\r\n", 500, deadline)).decode())
        nursery.cancel_scope.cancel()


trio.run(main)
