"""Check many ports at once, each with the same absolute deadline, and say open, closed or filtered.

One deadline for all: however many ports there are, the answer is there in time.

Prints:
  127.0.0.1:... open (... ms)
  127.0.0.1:... closed
  127.0.0.1:... filtered
  checked 3 ports, deadline kept: True
"""

import contextlib

import trio

from trio_connect import DeadlineExceeded, Endpoint, now, tcp_connect, tcp_listen

PATIENCE_MS = 300


async def check(endpoint: Endpoint, deadline: int, verdicts: dict[Endpoint, str]) -> None:
    """Find out what a port does with a SYN."""
    started = now()
    try:
        stream = await tcp_connect(endpoint, deadline)
    except DeadlineExceeded:
        verdicts[endpoint] = "filtered"
    except ConnectionRefusedError:
        verdicts[endpoint] = "closed"
    except OSError as exc:
        verdicts[endpoint] = f"failed: {exc}"
    else:
        stream.abort()
        verdicts[endpoint] = f"open ({now() - started} ms)"


async def main() -> None:
    """Make a port of each kind and check them."""
    async with contextlib.AsyncExitStack() as stack:
        listening = await stack.enter_async_context(await tcp_listen(("127.0.0.1", 0)))
        bound = stack.enter_context(trio.socket.socket())
        await bound.bind(("127.0.0.1", 0))  # and not listening: it refuses, and no other program can take it meanwhile
        closed = Endpoint(*bound.getsockname())
        silent = await stack.enter_async_context(await tcp_listen(("127.0.0.1", 0), backlog=0))
        with contextlib.suppress(DeadlineExceeded):
            while True:  # until its backlog is full and the kernel drops what comes
                await stack.enter_async_context(await tcp_connect(silent.endpoint, now() + 50))

        endpoints = [listening.endpoint, closed, silent.endpoint]
        verdicts: dict[Endpoint, str] = {}
        deadline = now() + PATIENCE_MS
        async with trio.open_nursery() as nursery:
            for endpoint in endpoints:
                nursery.start_soon(check, endpoint, deadline, verdicts)
        late = now() - deadline
        for endpoint in endpoints:
            print(endpoint, verdicts[endpoint])
        print(f"checked {len(verdicts)} ports, deadline kept: {late < PATIENCE_MS}")


trio.run(main)
