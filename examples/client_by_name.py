"""Connect to a name, give up after half a second, and see what was tried.

Here a resolver of our own knows the name, so that the example stays on this machine; leave `resolver` out to ask the
system. The first address is one where nobody listens.

Prints:
  hello, localhost
  127.0.0.2:... at ... ms: connection refused after ... ms
  127.0.0.1:... at ... ms: won after ... ms
  connected to 127.0.0.1:... in ... ms, 1 other attempt
  nobody.test: (AAAA: no such name, A: no such name)
"""

import trio

from trio_connect import ResolveFailed, StaticResolver, TcpStream, connect, now, tcp_listen

RESOLVER = StaticResolver({"service.test": ["127.0.0.2", "127.0.0.1"]})


async def greet(stream: TcpStream) -> None:
    """Answer a name with a greeting, and hang up."""
    async with stream:
        name = await stream.receive_until(b"\n", 100)
        await stream.send_all(b"hello, " + name + b"\n")


async def main() -> None:
    """Serve, connect by name, and fail to."""
    async with trio.open_nursery() as nursery:
        listener = await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, greet, [listener])

        deadline = now() + 500  # for the lookups, the race and the answer together
        async with await connect("service.test", listener.endpoint.port, deadline, resolver=RESOLVER) as stream:
            await stream.send_all(b"localhost\n", deadline)
            answer = await stream.receive_until(b"\n", 100, deadline)
            print(answer.decode())
            for line in str(stream.report).splitlines():
                if "127." in line:
                    print(" ".join(line.replace("=", " ").replace("*", " ").replace(" x ", " ").split()))

        try:
            await connect("nobody.test", 80, now() + 500, resolver=RESOLVER)
        except ResolveFailed as exc:
            print("nobody.test:", str(exc)[str(exc).index("(") :])
        nursery.cancel_scope.cancel()


trio.run(main)
