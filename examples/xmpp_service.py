"""Connect to a service of a domain by its SRV records, with a spare host.

Here a resolver of our own knows the records, so that the example stays on this machine; leave `resolver` out to ask the
name servers (extra ``dns``). Nobody listens on the host of the better priority.

Prints:
  _xmpp-client._tcp.example.test: 2 hosts
  xmpp1.example.test. at 127.0.0.2:...: failed, connection refused
  xmpp2.example.test. at 127.0.0.1:...: won
  <stream to='example.test'>
"""

import trio

from trio_connect import SrvRecord, StaticResolver, TcpStream, connect_srv, now, tcp_listen

SERVICE, DOMAIN = "_xmpp-client._tcp", "example.test"


async def serve(stream: TcpStream) -> None:
    """Send the opening of a stream back."""
    async with stream:
        await stream.send_all(await stream.receive_until(b"\n", 100) + b"\n")


async def main() -> None:
    """Serve on the spare host only, and connect."""
    async with await tcp_listen(("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.endpoint.port
        resolver = StaticResolver(
            {"xmpp1.example.test": "127.0.0.2", "xmpp2.example.test": "127.0.0.1"},
            srv={
                f"{SERVICE}.{DOMAIN}": [
                    SrvRecord("xmpp2.example.test", port, priority=20),
                    SrvRecord("xmpp1.example.test", port, priority=10),
                ]
            },
        )
        deadline = now() + 5_000
        async with await connect_srv(SERVICE, DOMAIN, deadline, resolver=resolver) as stream:
            lookup = stream.report.lookups[0]
            print(f"{lookup.host}: {len(lookup.records or ())} hosts")
            for attempt in stream.report.attempts:
                reason = f", {attempt.reason}" if attempt.reason else ""
                print(f"{attempt.host} at {attempt.endpoint}: {attempt.outcome}{reason}")
            await stream.send_all(f"<stream to='{DOMAIN}'>\n".encode(), deadline)
            print((await stream.receive_until(b"\n", 100, deadline)).decode())
        nursery.cancel_scope.cancel()


trio.run(main)
