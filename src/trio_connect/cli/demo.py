"""A race on loopback: four addresses of one service, of which only the last answers at once.

One has a full backlog and drops every SYN, one refuses, one accepts but greets after two seconds, one greets at once.
`connectx` is given all four and an establish that reads the greeting. Run it with ``trio-connect demo``, or with
``python -m trio_connect.cli.demo [FILE.svg]``, which draws the race into the file as well. Nothing leaves this machine.
"""

from __future__ import annotations

import os
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import trio

from trio_connect import (
    AttemptConnected,
    AttemptFinished,
    AttemptStarted,
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    TcpListener,
    TcpStream,
    TraceEvent,
    connectx,
    now,
    tcp_connect,
    tcp_listen,
)

PATIENCE_MS: Final = 5000
LATE_SECONDS: Final = 2.0
GREETING: Final = b"220 ready\r\n"


def _say(text: str) -> None:
    """Print a line. After the reader has closed the pipe, as in ``make demo | head -1``, further lines are dropped."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


async def _greet(delay: float, stream: TcpStream) -> None:
    await trio.sleep(delay)
    try:
        await stream.send_all(GREETING)
        await stream.close_gracefully(now() + PATIENCE_MS)
    except (trio.BrokenResourceError, DeadlineExceeded):
        pass  # the client chose another address


async def read_greeting(stream: TcpStream) -> tuple[TcpStream, str]:
    """Return the connection and the server's greeting."""
    line = await stream.receive_until(b"\r\n", max_bytes=1000)
    return stream, line.decode()


async def _refusing(stack: AsyncExitStack) -> Endpoint:
    """Return an endpoint on which no socket listens. It is bound, so no other program can take the port meanwhile."""
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


class _Narrator:
    """Prints the race as it happens."""

    def __init__(self, names: dict[Endpoint, str]) -> None:
        self._names = names
        self._origin = trio.current_time()

    def __call__(self, event: TraceEvent) -> None:
        if isinstance(event, AttemptStarted):
            why = {"first": "first in the list", "delay": "250 ms have passed", "failure": "one has failed"}
            text = f"trying {event.endpoint} ({self._names[event.endpoint]}): {why.get(event.cause, event.cause)}"
        elif isinstance(event, AttemptConnected):
            text = f"connected to {event.endpoint}, waiting for its greeting"
        elif isinstance(event, AttemptFinished):
            text = f"{event.endpoint} {event.outcome}" + (f": {event.reason}" if event.reason else "")
        else:
            return
        _say(f"{(event.at - self._origin) * 1000:7.1f} ms  {text}")


async def main(pictures: list[str] | None = None) -> int:
    """Set the service up, connect to it, show what happened.

    Args:
      pictures: the race is drawn as SVG at the end of this list, if there is one.
    """
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        good, late = [await tcp_listen(("127.0.0.1", 0)) for _ in range(2)]
        nursery.start_soon(trio.serve_listeners, partial(_greet, 0.0), [good])
        nursery.start_soon(trio.serve_listeners, partial(_greet, LATE_SECONDS), [late])
        full, refusing = await _full(stack), await _refusing(stack)
        names = {
            full.endpoint: "its backlog is full",
            refusing: "it refuses",
            late.endpoint: f"it greets after {LATE_SECONDS:g} s",
            good.endpoint: "it is good",
        }
        _say(f"connectx({len(names)} endpoints, now() + {PATIENCE_MS}, establish=read_greeting)\n")
        try:
            stream, greeting = await connectx(
                names, now() + PATIENCE_MS, establish=read_greeting, observer=_Narrator(names)
            )
        except (ConnectFailed, DeadlineExceeded) as exc:
            print(f"\n{exc.report}\n{exc}", file=sys.stderr)
            nursery.cancel_scope.cancel()
            return 1
        async with stream:
            if pictures is not None:
                pictures.append(stream.report.draw_svg(title="four addresses of one service, the last one good"))
            _say(f"\n{stream.report.draw(legend=True)}\nthe server said: {greeting}")
        nursery.cancel_scope.cancel()
    return 0


if __name__ == "__main__":
    drawn: list[str] = []
    status = trio.run(main, drawn)
    for name, picture in zip(sys.argv[1:], drawn, strict=False):
        with open(name, "w", encoding="utf-8") as file:
            file.write(f"{picture}\n")
    sys.exit(status)
