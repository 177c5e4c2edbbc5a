"""Warm up a connection pool: connect to every replica, take the first three that answer, leave the rest.

Prints:
  a replica is down: ...
  the pool has 3 connections
  the pool works: pong pong pong
"""

import contextlib
from collections.abc import Iterable
from functools import partial

import trio

from trio_connect import Endpoint, TcpStream, connect_each, now, tcp_listen

WANTED = 3


async def warm_up(replicas: Iterable[Endpoint]) -> list[TcpStream]:
    """Return the first connections that come up; the others are closed."""
    pool: list[TcpStream] = []
    async with connect_each(replicas, now() + 5000) as each:
        async for _, outcome in each:
            if isinstance(outcome, TcpStream):
                pool.append(outcome)
            else:
                print(f"a replica is down: {outcome}")
            if len(pool) == WANTED:
                break
    return pool


async def pong(stream: TcpStream) -> None:
    """Answer each ping."""
    async for _ in stream:
        await stream.send_all(b"pong")


async def main() -> None:
    """Make five replicas, of which one is down."""
    async with contextlib.AsyncExitStack() as stack:
        down = await tcp_listen(("127.0.0.1", 0))
        await down.aclose()
        listeners = [await stack.enter_async_context(await tcp_listen(("127.0.0.1", 0))) for _ in range(4)]
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(partial(trio.serve_listeners, pong, listeners))

        pool = await warm_up([down.endpoint, *(listener.endpoint for listener in listeners)])
        print(f"the pool has {len(pool)} connections")
        answers = [(await stream.exchange(b"ping", 4)).decode() for stream in pool]
        print("the pool works:", *answers)
        for stream in pool:
            await stream.aclose()
        nursery.cancel_scope.cancel()


trio.run(main)
