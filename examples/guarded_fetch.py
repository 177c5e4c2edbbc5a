"""Fetch what strangers name, and never from the internal network.

A stranger controls the name and its addresses. Here they are those of this machine, of a private network, and of the
metadata service of a cloud. For the last call the networks of a test bed are allowed, so that it succeeds.

Prints:
  evil.test: not allowed by the address filter
    127.0.0.1: in 127.0.0.0/8 (loopback, RFC 1122 section 3.2.1.3)
    169.254.169.254: in 169.254.0.0/16 (link-local, RFC 3927)
    64:ff9b::a00:7: carries 10.0.0.7, which is in 10.0.0.0/8 (private use, RFC 1918)
  2130706433: not allowed by the address filter
    127.0.0.1: in 127.0.0.0/8 (loopback, RFC 1122 section 3.2.1.3)
  mixed.test: hello from 127.0.0.1, skipped ['169.254.169.254']
"""

import errno

import trio

from trio_connect import (
    ConnectFailed,
    NetworkFilter,
    StaticResolver,
    SystemResolver,
    TcpStream,
    connect,
    now,
    tcp_listen,
)

PUBLIC_ONLY = NetworkFilter.public_only()
TEST_BED = NetworkFilter(allow=["127.0.0.0/8"])

NAMES = StaticResolver(
    {
        "evil.test": ["127.0.0.1", "169.254.169.254", "64:ff9b::10.0.0.7"],
        "mixed.test": ["169.254.169.254", "127.0.0.1"],
    }
)


async def greet(stream: TcpStream) -> None:
    """Say hello, and hang up."""
    async with stream:
        await stream.send_all(b"hello\n")


async def fetch(host: str, port: int, allowed: NetworkFilter) -> None:
    """Connect to a host that somebody else has named, and read a line."""
    deadline = now() + 2_000
    # Numbers such as 2130706433 are names to us and addresses to the system.
    resolver = NAMES if host.endswith(".test") else SystemResolver()
    try:
        stream = await connect(host, port, deadline, resolver=resolver, address_filter=allowed)
    except ConnectFailed as failed:
        if failed.errno != errno.EACCES:
            raise
        print(f"{host}: not allowed by the address filter")
        for attempt in sorted(failed.report.attempts, key=lambda attempt: attempt.endpoint.host):
            print(f"  {attempt.endpoint.host}: {(attempt.reason or '').split(': ', 1)[-1]}")
        return
    async with stream:
        line = await stream.receive_until(b"\n", 100, deadline)
        skipped = [attempt.endpoint.host for attempt in stream.report.attempts if attempt.outcome == "skipped"]
        print(f"{host}: {line.decode()} from {stream.peer.host}, skipped {skipped}")


async def main() -> None:
    """Serve on this machine, and be asked to fetch from it."""
    async with trio.open_nursery() as nursery:
        listener = await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, greet, [listener])
        port = listener.endpoint.port
        await fetch("evil.test", port, PUBLIC_ONLY)
        await fetch("2130706433", port, PUBLIC_ONLY)
        await fetch("mixed.test", port, TEST_BED)
        nursery.cancel_scope.cancel()


trio.run(main)
