"""Scan the ports of a machine, and show progress while the results come in.

The scan itself is the five lines of `scan`. With rich installed there is a progress bar, else it goes on in silence.

Prints:
  scanning 200 ports of 127.0.0.1
  open: ...
  closed: 196, filtered: 1
"""

import contextlib
from collections import Counter
from collections.abc import Iterable

import trio

from trio_connect import DeadlineExceeded, Endpoint, TcpListener, TcpStream, connect_each, now, tcp_connect, tcp_listen
from trio_connect.queues import open_queue_set

try:
    from rich.progress import track  # type: ignore[import-not-found, unused-ignore]
except ImportError:

    def track(sequence: Iterable[int], description: str) -> Iterable[int]:  # type: ignore[misc, unused-ignore]  # noqa: ARG001
        """Show nothing."""
        return sequence


async def scan(endpoints: list[Endpoint]) -> dict[Endpoint, str]:
    """Find out what each endpoint does with a SYN."""
    verdicts: dict[Endpoint, str] = {}
    async with connect_each(endpoints, limit=64, attempt_timeout=0.3) as each:
        for _ in track(range(len(endpoints)), description="scanning"):
            endpoint, outcome = await anext(each)
            verdicts[endpoint] = verdict(outcome)
    return verdicts


def verdict(outcome: TcpStream | OSError) -> str:
    """Say what an outcome means."""
    if isinstance(outcome, TcpStream):
        outcome.abort()
        return "open"
    return "closed" if isinstance(outcome, ConnectionRefusedError) else "filtered"


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
