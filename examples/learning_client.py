"""A client that learns which addresses work, and still knows it when it runs again.

A mail service has two servers. The first accepts connections and says that it is too busy, so each connect to it is a
connect for nothing. Two runs of a client share a file.

Prints:
  first run, message 1: 2 servers tried
  first run, message 2: 1 server tried
    the other one was put behind: 421 too busy ... before
  second run, message 1: 1 server tried
    the other one was put behind: 421 too busy ... before
"""

import contextlib
import tempfile
from functools import partial
from pathlib import Path

import trio

from trio_connect import Endpoint, EstablishFailed, History, TcpStream, connectx, now, tcp_listen


async def greet(greeting: bytes, stream: TcpStream) -> None:
    """Serve one connection."""
    async with stream:
        await stream.send_all(greeting)
        await stream.send_eof()


async def check_greeting(stream: TcpStream) -> None:
    """Refuse a server that does not want to talk, so that the race goes on to the next."""
    line = (await stream.receive_until(b"\r\n", 500, now() + 2000)).decode()
    if not line.startswith("220"):
        raise EstablishFailed(line)


async def run_client(name: str, path: Path, servers: list[Endpoint], messages: int) -> None:
    """Send messages, each over a connection of its own."""
    history = History.load(path)
    for number in range(1, messages + 1):
        stream = await connectx(servers, now() + 5000, establish=check_greeting, history=history)
        async with stream:
            tried = len(stream.report.tried)
            print(f"{name}, message {number}: {tried} server{'' if tried == 1 else 's'} tried")
        for attempt in stream.report.attempts:
            if attempt.outcome == "not tried" and attempt.history is not None:
                print(f"  the other one was {attempt.history}")
    history.save(path)


async def main() -> None:
    """Have two servers, and run the client twice."""
    async with contextlib.AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(await tcp_listen(("127.0.0.1", 0))) for _ in range(2)]
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        nursery = await stack.enter_async_context(trio.open_nursery())
        for listener, greeting in zip(listeners, (b"421 too busy\r\n", b"220 ready\r\n"), strict=True):
            nursery.start_soon(trio.serve_listeners, partial(greet, greeting), [listener])
        servers = [listener.endpoint for listener in listeners]
        await run_client("first run", Path(folder) / "history.json", servers, messages=2)
        await run_client("second run", Path(folder) / "history.json", servers, messages=1)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
