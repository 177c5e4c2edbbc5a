"""Connect to three real listeners on loopback: one that answers, one that refuses, one whose backlog is full.

Run it with ``python -m trio_connect.cli.demo``. Nothing leaves this machine.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import Final

import trio

from trio_connect import DeadlineExceeded, Endpoint, TcpListener, TcpStream, now, tcp_connect, tcp_listen

PATIENCE_MS: Final = 400
BAR_WIDTH: Final = 40


async def _greet(stream: TcpStream) -> None:
    await stream.send_all(b"hello\n")


async def _refusing(stack: AsyncExitStack) -> Endpoint:
    """Return an endpoint that nobody listens on: bound, so that no other program can take it meanwhile."""
    sock = trio.socket.socket()
    stack.callback(sock.close)
    await sock.bind(("127.0.0.1", 0))
    host, port = sock.getsockname()
    return Endpoint(host, port)


async def _full(stack: AsyncExitStack) -> TcpListener:
    """Return a listener that never accepts and has no room left: the kernel drops every further SYN."""
    listener = await stack.enter_async_context(await tcp_listen(("127.0.0.1", 0), backlog=0))
    while True:
        try:
            await stack.enter_async_context(await tcp_connect(listener.endpoint, now() + 50))
        except DeadlineExceeded:
            return listener


async def _try(name: str, endpoint: Endpoint) -> None:
    started = trio.current_time()
    try:
        async with await tcp_connect(endpoint, now() + PATIENCE_MS) as stream:
            greeting = await stream.receive_until(b"\n", 100, now() + PATIENCE_MS)
            outcome = f"connected from {stream.local}, heard {greeting.decode()!r}"
            mark = "*"
    except DeadlineExceeded as exc:
        outcome, mark = str(exc), "?"
    except OSError as exc:
        outcome, mark = f"{type(exc).__name__}: {exc}", "x"
    elapsed = (trio.current_time() - started) * 1000
    bar = "=" * min(BAR_WIDTH, round(elapsed / PATIENCE_MS * BAR_WIDTH)) + mark
    print(f"{name:<9} {endpoint!s:<16} {elapsed:6.1f} ms  {bar:<{BAR_WIDTH + 1}}  {outcome}")


async def main() -> None:
    """Show what one connect does against each kind of peer."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        good = await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, _greet, [good])
        refusing = await _refusing(stack)
        full = await _full(stack)
        print(f"tcp_connect(endpoint, now() + {PATIENCE_MS}), one endpoint after the other:")
        await _try("good", good.endpoint)
        await _try("refusing", refusing)
        await _try("full", full.endpoint)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
    sys.exit(0)
