"""Scan the ports of a machine with queue tokens, and show progress while the results come in.

Every connect is submitted at once, bounded by the set, and one place reaps them in the order of completion. Failures
are data here: a closed port is a result like an open one.

Prints:
  scanning 200 ports of 127.0.0.1
  ... of 200 ports
  200 of 200 ports
  open: ...
  closed: 196, filtered: 1
"""

import contextlib
import errno
from collections import Counter

import trio

from trio_connect import DeadlineExceeded, Endpoint, TcpListener, now, tcp_connect, tcp_listen
from trio_connect.queues import QueueSet, open_queue_set

PATIENCE_MS = 300
AT_ONCE = 64


async def submit(qs: QueueSet, endpoints: list[Endpoint]) -> None:
    """Submit a connect for each endpoint as soon as there is room for it."""
    for endpoint in endpoints:
        await qs.room()
        qs.stream().connect(endpoint, now() + PATIENCE_MS)


async def scan(endpoints: list[Endpoint]) -> dict[Endpoint, str]:
    """Find out what each endpoint does with a SYN."""
    verdicts: dict[Endpoint, str] = {}
    async with open_queue_set(max_in_flight=AT_ONCE) as qs, trio.open_nursery() as nursery:
        nursery.start_soon(submit, qs, endpoints)
        while len(verdicts) < len(endpoints):
            for result in await qs.wait_next(AT_ONCE, now() + 50):
                endpoint = endpoints[result.token.id - 1]  # tokens count up from 1
                if result.ok:
                    verdicts[endpoint] = "open"
                    await result.queue.aclose()
                elif result.errno == errno.ECONNREFUSED:
                    verdicts[endpoint] = "closed"
                else:
                    verdicts[endpoint] = "filtered"
            print(f"{len(verdicts)} of {len(endpoints)} ports")
    return verdicts


async def fill(listener: TcpListener, stack: contextlib.AsyncExitStack) -> None:
    """Connect until the listener's backlog is full and the kernel drops what comes."""
    with contextlib.suppress(DeadlineExceeded):
        while True:
            await stack.enter_async_context(await tcp_connect(listener.endpoint, now() + 50))


async def main() -> None:
    """Make ports of each kind and scan them."""
    async with contextlib.AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(await tcp_listen(("127.0.0.1", 0))) for _ in range(3)]
        silent = await stack.enter_async_context(await tcp_listen(("127.0.0.1", 0), backlog=0))
        await fill(silent, stack)
        # Bound and not listening: these refuse, and no other program can take them meanwhile.
        own = await stack.enter_async_context(open_queue_set())
        closed: list[Endpoint] = []
        for _ in range(196):
            address = await own.stream().bind(("127.0.0.1", 0))
            assert isinstance(address, Endpoint)
            closed.append(address)

        endpoints = [*closed, *(listener.endpoint for listener in listeners), silent.endpoint]
        print(f"scanning {len(endpoints)} ports of 127.0.0.1")
        verdicts = await scan(endpoints)
        print("open:", *(endpoint.port for endpoint, verdict in verdicts.items() if verdict == "open"))
        counts = Counter(verdicts.values())
        print(f"closed: {counts['closed']}, filtered: {counts['filtered']}")


trio.run(main)
