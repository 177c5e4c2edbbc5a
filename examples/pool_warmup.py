"""Warm up a connection pool: connect to every replica, take the first three that answer, leave the rest.

Each replica has several addresses, so connecting to one is a race; here a race is one token.

Prints:
  replica ... answered: 1 in the pool
  replica ... answered: 2 in the pool
  replica ... answered: 3 in the pool
  the pool works: pong pong pong
"""

import contextlib
from functools import partial

import trio

from trio_connect import Endpoint, TcpStream, now, tcp_listen
from trio_connect.queues import Completion, IOQueue, QToken, open_queue_set

WANTED = 3


async def pong(stream: TcpStream) -> None:
    """Answer each ping."""
    async for _ in stream:
        await stream.send_all(b"pong")


async def warm_up(replicas: list[list[Endpoint]]) -> None:
    """Fill a pool with the first connections that come up, and use it."""
    async with open_queue_set() as qs:
        waiting: list[QToken[Completion]] = [qs.connectx(endpoints, now() + 5000) for endpoints in replicas]
        pool: list[IOQueue] = []
        while waiting and len(pool) < WANTED:
            index, result = await qs.wait_any(waiting)
            waiting.pop(index)
            if result.error is None:
                pool.append(result.queue)
                print(f"replica {result.queue.peer!s} answered: {len(pool)} in the pool")
            else:
                print(f"a replica is down: {result.error}")
        for token in waiting:  # those that are too late: nobody claims them, and the set closes what they have
            token.cancel()

        answers: list[str] = []
        for queue in pool:
            queue.push(b"ping")
            answers.append((await qs.wait(queue.pop())).unwrap().data.decode())
        print("the pool works:", *answers)


async def main() -> None:
    """Make five replicas, of which one is down."""
    async with contextlib.AsyncExitStack() as stack:
        down = await tcp_listen(("127.0.0.1", 0))
        await down.aclose()
        listeners = [await stack.enter_async_context(await tcp_listen(("127.0.0.1", 0))) for _ in range(4)]
        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(partial(trio.serve_listeners, pong, listeners))
        # The first address of each working replica is dead; its race goes on with the second at once.
        replicas = [[down.endpoint], *([down.endpoint, listener.endpoint] for listener in listeners)]
        await warm_up(replicas)
        nursery.cancel_scope.cancel()


trio.run(main)
