"""Fetch with httpx2 what strangers name, and never from the internal network.

A stranger controls the URL, the name in it, the addresses of that name, and where a server redirects to. Here they lead
to this machine, to a private network, and to the metadata service of a cloud. Every connect of the client goes through
one filter, so redirects are no way round it. For the last two calls the network of a test bed is allowed: one succeeds,
and one is redirected out of it.

It needs `pip install httpx2`.

Prints:
  http://evil.test/: not allowed by the address filter
    127.0.0.1: in 127.0.0.0/8 (loopback, RFC 1122 section 3.2.1.3)
    169.254.169.254: in 169.254.0.0/16 (link-local, RFC 3927)
    64:ff9b::a00:7: carries 10.0.0.7, which is in 10.0.0.0/8 (private use, RFC 1918)
  http://2130706433/: not allowed by the address filter
    127.0.0.1: in 127.0.0.0/8 (loopback, RFC 1122 section 3.2.1.3)
  http://mixed.test/: hello from 127.0.0.1, skipped ['169.254.169.254']
  http://mixed.test/away: not allowed by the address filter
    169.254.169.254: in no network that is allowed
"""

from socket import AddressFamily

import httpx2
import trio

from trio_connect import Answer, NetworkFilter, StaticResolver, SystemResolver, TcpStream, tcp_listen
from trio_connect.adapters import failure_of
from trio_connect.adapters.httpx2 import transport

PUBLIC_ONLY = NetworkFilter.public_only()
TEST_BED = NetworkFilter(allow=["127.0.0.0/8"])


class Names:
    """The names of the stranger. Numbers such as 2130706433 are names to us and addresses to the system."""

    static = StaticResolver(
        {
            "evil.test": ["127.0.0.1", "169.254.169.254", "64:ff9b::10.0.0.7"],
            "mixed.test": ["169.254.169.254", "127.0.0.1"],
        }
    )
    system = SystemResolver()

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        """Look up the addresses of one family."""
        return await (self.static if host.endswith(".test") else self.system).addresses(host, family)


async def serve(stream: TcpStream) -> None:
    """Answer one request, or redirect it to the metadata service."""
    async with stream:
        head = await stream.receive_until(b"\r\n\r\n", 10_000)
        if b"/away" in head:
            answer = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data\r\n"
        else:
            answer = b"HTTP/1.1 200 OK\r\n"
        await stream.send_all(answer + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello")


async def fetch(url: str, port: int, allowed: NetworkFilter) -> None:
    """Get what somebody else has named."""
    guarded = transport(address_filter=allowed, resolver=Names())
    async with httpx2.AsyncClient(transport=guarded, follow_redirects=True, timeout=2) as client:
        try:
            response = await client.get(httpx2.URL(url).copy_with(port=port))
        except httpx2.ConnectError as error:
            failure = failure_of(error)
            if failure is None or "not allowed" not in str(error):
                raise
            print(f"{url}: not allowed by the address filter")
        else:
            # It says how the connection was made.
            report = response.extensions["network_stream"].get_extra_info("report")
            skipped = [attempt.endpoint.host for attempt in report.attempts if attempt.outcome == "skipped"]
            print(f"{url}: {response.text} from {report.winner.endpoint.host}, skipped {skipped}")
            return
    assert failure.report is not None
    for attempt in sorted(failure.report.attempts, key=lambda attempt: attempt.endpoint.host):
        print(f"  {attempt.endpoint.host}: {(attempt.reason or '').split(': ', 1)[-1]}")


async def main() -> None:
    """Serve on this machine, and be asked to fetch from it."""
    async with trio.open_nursery() as nursery:
        listener = await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.endpoint.port
        await fetch("http://evil.test/", port, PUBLIC_ONLY)
        await fetch("http://2130706433/", port, PUBLIC_ONLY)
        await fetch("http://mixed.test/", port, TEST_BED)
        await fetch("http://mixed.test/away", port, TEST_BED)
        nursery.cancel_scope.cancel()


trio.run(main)
