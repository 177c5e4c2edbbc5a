"""A client of a replicated service: one connect over all of its replicas, of which some are gone and one is slow.

`connectx` starts with the first replica, goes on to the next as soon as one refuses or takes longer than the attempt
delay, and keeps the first connection on which the service answers. The others are closed before it returns.

Prints:
  replica 1: failed
  replica 2: lost
  replica 3: won
  the answer came from replica 3
  with every replica gone: all 2 attempts to 127.0.0.1:..., 127.0.0.1:... failed in ... ms (refused: 2)
"""

import trio

from trio_connect import ConnectFailed, Endpoint, RacePolicy, TcpStream, connectx, now, tcp_listen

POLICY = RacePolicy(attempt_delay=0.050)


async def ready(stream: TcpStream) -> tuple[TcpStream, bytes]:
    """Wait for the greeting: a replica that accepts and does not serve is not one to use."""
    return stream, await stream.receive_until(b"\n", 100)


async def serve(stream: TcpStream) -> None:
    """Greet, and wait until the client is gone."""
    async with stream:
        await stream.send_all(b"ready\n")
        await stream.receive_some()


async def refusing(sock: trio.socket.SocketType) -> Endpoint:
    """Return an address where nobody listens: bound, so that nobody else can take it meanwhile."""
    await sock.bind(("127.0.0.1", 0))
    host, port = sock.getsockname()
    return Endpoint(host, port)


async def main() -> None:
    """Make the replicas and use them."""
    with trio.socket.socket() as one, trio.socket.socket() as other:
        await use(await refusing(one), await refusing(other))


async def use(gone: Endpoint, gone_too: Endpoint) -> None:
    """Connect to replicas of which some are gone."""
    async with await tcp_listen(("127.0.0.1", 0)) as hung, trio.open_nursery() as nursery:
        good = await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, serve, [good])

        replicas = [gone, hung.endpoint, good.endpoint]  # a hung one accepts in the kernel and never answers
        stream, _greeting = await connectx(replicas, now() + 2000, policy=POLICY, establish=ready)
        async with stream:
            for attempt in stream.report.attempts:
                print(f"replica {replicas.index(attempt.endpoint) + 1}: {attempt.outcome}")
            print(f"the answer came from replica {replicas.index(stream.peer) + 1}")
        try:
            await connectx([gone, gone_too], now() + 2000, policy=POLICY)
        except ConnectFailed as exc:
            print(f"with every replica gone: {exc.strerror}")
        nursery.cancel_scope.cancel()


trio.run(main)
