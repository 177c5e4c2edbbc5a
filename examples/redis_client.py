"""A client of a real protocol: Redis, over whichever of its nodes is ready.

The first node is gone. The second accepts and is still loading its data, as it says to the first command, so that the
race goes on. The third is good: a real `redis-server` where there is one, else a few of its commands below.

Prints:
  127.0.0.1:...: refused
  127.0.0.1:...: LOADING Redis is loading the dataset in memory
  127.0.0.1:...: won
  SET greeting -> OK
  GET greeting -> b'hello'
  INCR visits -> 1
  INCR visits -> 2
  GET nothing -> None
  INCR greeting -> ERR value is not an integer or out of range
"""

import shutil
import subprocess
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import trio

from trio_connect import Endpoint, EstablishFailed, IncompleteRead, TcpStream, connectx, now, tcp_listen

LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
Reply = bytes | str | int | None
Command = list[bytes]


class RedisError(Exception):
    """The server refused a command; the connection is as good as before."""


class Redis:
    """One connection. A reply that is late breaks no later one: nothing that was read is lost."""

    def __init__(self, stream: TcpStream) -> None:
        self.stream = stream

    async def call(self, *words: str, deadline: int) -> Reply:
        """Send a command and return its reply, as RESP2 has it."""
        encoded = [word.encode() for word in words]
        command = [b"*%d\r\n" % len(encoded), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)]
        await self.stream.send_all(b"".join(command), deadline)
        line = await self.stream.receive_until(b"\r\n", 64 * 1024, deadline)
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"-":
            raise RedisError(rest.decode())
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else (await self.stream.receive_exactly(size + 2, deadline))[:-2]
        raise RedisError(f"a reply of an unknown kind: {line!r}")


async def ready(stream: TcpStream) -> Redis:
    """Take a node only when it answers a PING; the race bounds how long that may take."""
    redis = Redis(stream)
    try:
        await redis.call("PING", deadline=now() + 1_000)
    except RedisError as error:
        raise EstablishFailed(str(error)) from error
    return redis


async def loading(stream: TcpStream) -> None:
    """Answer as a node does that has just been started with much data."""
    async with stream:
        while await stream.receive_some():
            await stream.send_all(LOADING)


async def scripted(stream: TcpStream) -> None:
    """Answer these commands as redis-server does, from a memory of its own."""
    memory: dict[bytes, bytes] = {}
    async with stream:
        try:
            while True:
                command: Command = []
                for _ in range(int((await stream.receive_until(b"\r\n", 100))[1:])):
                    size = int((await stream.receive_until(b"\r\n", 100))[1:])
                    command.append((await stream.receive_exactly(size + 2))[:-2])
                await stream.send_all(answer(command, memory))
        except IncompleteRead:
            pass  # the client has gone


def answer(command: Command, memory: dict[bytes, bytes]) -> bytes:
    """Return the reply to one command."""
    match command:
        case [b"PING"]:
            return b"+PONG\r\n"
        case [b"SET", key, value]:
            memory[key] = value
            return b"+OK\r\n"
        case [b"GET", key]:
            return b"$%d\r\n%s\r\n" % (len(memory[key]), memory[key]) if key in memory else b"$-1\r\n"
        case [b"INCR", key] if memory.get(key, b"0").isdigit():
            memory[key] = b"%d" % (int(memory.get(key, b"0")) + 1)
            return b":%s\r\n" % memory[key]
        case [b"INCR", _]:
            return b"-ERR value is not an integer or out of range\r\n"
        case _:
            return b"-ERR unknown command\r\n"


@asynccontextmanager
async def real_server(program: str) -> AsyncGenerator[Endpoint, None]:
    """Run redis-server, with nothing on disk, and wait until it says that it is ready."""
    with trio.socket.socket() as reserved, tempfile.TemporaryDirectory() as folder:
        # A server may use the address again, and can listen there. The kernel gives the port to nobody else.
        reserved.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await reserved.bind(("127.0.0.1", 0))
        endpoint = Endpoint(*reserved.getsockname())
        words = [program, "--bind", endpoint.host, "--port", str(endpoint.port), "--save", "", "--dir", folder]
        run = partial(trio.run_process, words, stdout=subprocess.PIPE, check=False)
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(run)
            assert process.stdout is not None
            said = b""
            while b"Ready to accept connections" not in said:
                chunk = await process.stdout.receive_some()
                assert chunk, "redis-server ended before it was ready"
                said += chunk
            yield endpoint
            nursery.cancel_scope.cancel()  # ends the process as well


@asynccontextmanager
async def scripted_server() -> AsyncGenerator[Endpoint, None]:
    """Stand in for it."""
    async with trio.open_nursery() as nursery:
        listener = await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, scripted, [listener])
        yield listener.endpoint
        nursery.cancel_scope.cancel()


async def use(nodes: list[Endpoint]) -> None:
    """Connect to whichever node is ready, and talk to it."""
    deadline = now() + 5_000  # for all of it
    redis = await connectx(nodes, deadline, establish=ready)
    async with redis.stream as stream:
        for attempt in stream.report.attempts:
            refused = attempt.outcome == "failed" and attempt.phase == "connect"
            print(f"{attempt.endpoint}: {'refused' if refused else attempt.reason or attempt.outcome}")
        for words in ("SET greeting hello", "GET greeting", "INCR visits", "INCR visits", "GET nothing"):
            reply = await redis.call(*words.split(), deadline=deadline)
            print(f"{' '.join(words.split()[:2])} -> {reply if isinstance(reply, str) else repr(reply)}")
        try:
            await redis.call("INCR", "greeting", deadline=deadline)
        except RedisError as error:
            print(f"INCR greeting -> {error}")


async def main() -> None:
    """Make the three nodes and use them."""
    program = shutil.which("redis-server")
    if program is not None:
        server = real_server(program)
    else:
        server = scripted_server()
    with trio.socket.socket() as gone:
        await gone.bind(("127.0.0.1", 0))  # and not listening
        async with server as good, trio.open_nursery() as nursery:
            starting = await tcp_listen(("127.0.0.1", 0))
            nursery.start_soon(trio.serve_listeners, loading, [starting])
            await use([Endpoint(*gone.getsockname()), starting.endpoint, good])
            nursery.cancel_scope.cancel()


trio.run(main)
