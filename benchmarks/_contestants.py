"""The ways to make one TCP connection that are compared: ``_contestants.py NAME PORT N`` runs one of them.

Each gets numeric addresses, connects to one after the other and closes it with RST (SO_LINGER 0), so that no
TIME_WAIT is left. Every call of ours has a deadline of ten seconds, computed for it as a program would; "with deadline"
means the same.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from importlib import import_module
from typing import Any

import attrs
import trio

from _harness import LINGER_ABORT, Sample, missing, spread
from _native import FLOOR, NO_COMPILER, floor, program
from trio_connect import Endpoint, connect, connectx, now, tcp_connect

Address = tuple[str, int]
Body = Callable[[Sequence[Any]], Awaitable[None]]

SOL_SOCKET, SO_LINGER = int(socket.SOL_SOCKET), int(socket.SO_LINGER)
LG = LINGER_ABORT
WARM_UP = 20

OURS = "tcp_connect(Endpoint)"
OURS_TUPLE, OURS_CONNECTX, OURS_LITERAL = "tcp_connect(tuple)", "connectx([Endpoint])", "connect(literal)"
MINIMUM = "bare Trio connect, not asking for a socket factory"
BARE = "bare Trio connect, with deadline"
BLOCKING = "blocking Python"
TRIO = "trio.open_tcp_stream"
TRIO_BY_HAND = "trio.socket by hand"
TRIO_BY_HAND_DEADLINE = "trio.socket by hand, with move_on_at"
ASYNCIO = "asyncio.open_connection"
ASYNCIO_SOCK = "asyncio sock_connect"
ASYNCIO_PROTOCOL = "asyncio create_connection"
UVLOOP = "uvloop create_connection"
ANYIO_TRIO = "anyio.connect_tcp on trio"
ANYIO_ASYNCIO = "anyio.connect_tcp on asyncio"


@attrs.frozen
class Contestant:
    """One way to connect."""

    body: Any
    run: Callable[[Any, Sequence[Any]], Sample]
    needs: tuple[str, ...] = ()
    target: Callable[[Address], Any] = tuple

    def measure(self, addresses: Sequence[Address]) -> Sample:
        targets = [self.target(address) for address in addresses]
        gc.collect()
        return self.run(self.body, targets)


def _blocking(body: Any, targets: Sequence[Any]) -> Sample:
    body(targets[:WARM_UP])
    wall, cpu = time.perf_counter(), time.process_time()
    body(targets)
    return Sample((time.perf_counter() - wall) / len(targets), (time.process_time() - cpu) / len(targets))


async def _measured(body: Body, targets: Sequence[Any]) -> Sample:
    await body(targets[:WARM_UP])
    wall, cpu = time.perf_counter(), time.process_time()
    await body(targets)
    return Sample((time.perf_counter() - wall) / len(targets), (time.process_time() - cpu) / len(targets))


def _trio(body: Body, targets: Sequence[Any]) -> Sample:
    return trio.run(_measured, body, targets)


def _asyncio(body: Body, targets: Sequence[Any]) -> Sample:
    return asyncio.run(_measured(body, targets))


def run_uvloop(main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=import_module("uvloop").new_event_loop) as runner:
        return runner.run(main)


def _in_c(at_once: int, targets: Sequence[Any]) -> Sample:
    return floor("turns", targets, at_once)


def _uvloop(body: Body, targets: Sequence[Any]) -> Sample:
    result: Sample = run_uvloop(_measured(body, targets))
    return result


# ---------------------------------------------------------------------- ours, and what nothing on Trio can beat


async def ours(endpoints: Sequence[Endpoint]) -> None:
    for endpoint in endpoints:
        stream = await tcp_connect(endpoint, now() + 10_000)
        stream.abort()


async def ours_tuple(addresses: Sequence[Address]) -> None:
    for address in addresses:
        stream = await tcp_connect(address, now() + 10_000)
        stream.abort()


async def ours_connectx(endpoints: Sequence[Endpoint]) -> None:
    for endpoint in endpoints:
        stream = await connectx([endpoint], now() + 10_000)
        stream.abort()


async def ours_literal(addresses: Sequence[Address]) -> None:
    for host, port in addresses:
        stream = await connect(host, port, now() + 10_000)
        stream.abort()


class Bare:
    """The least that a stream can be."""

    __slots__ = ("_sock",)

    def __init__(self, sock: socket.SocketType) -> None:
        self._sock = sock

    def abort(self) -> None:
        self._sock.setsockopt(SOL_SOCKET, SO_LINGER, LG)
        self._sock.close()


STREAM = int(socket.SOCK_STREAM) | getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0)
IPPROTO_TCP, TCP_NODELAY = int(socket.IPPROTO_TCP), int(socket.TCP_NODELAY)


async def bare_connect(address: Address, until: float) -> Bare:
    """Connect on Trio with a legal checkpoint and TCP_NODELAY, and with nothing else.

    No hook for a socket factory, no check of arguments, no report, no self-connect check, no useful errors: it is
    here to say what Trio itself costs, not to be used.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    sock = socket.SocketType(socket.AF_INET, STREAM)
    try:
        sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            code = sock.connect_ex(address)
        if code == errno.EALREADY:
            with trio.CancelScope(deadline=until):
                while code == errno.EALREADY:
                    await trio.lowlevel.wait_writable(sock.fileno())
                    code = sock.connect_ex(address)
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
        if code:
            raise OSError(code, "connect")
        return Bare(sock)
    except BaseException:
        sock.close()
        raise


async def bare(addresses: Sequence[Address]) -> None:
    for address in addresses:
        stream = await bare_connect(address, trio.current_time() + 10)
        stream.abort()


async def asking(addresses: Sequence[Address]) -> None:
    """The bare minimum of a connect that honours the run's socket factory: Trio has no cheaper way to ask."""
    for address in addresses:
        factory = trio.socket.set_custom_socket_factory(None)
        assert factory is None
        stream = await bare_connect(address, trio.current_time() + 10)
        stream.abort()


# ---------------------------------------------------------------------- peers


def blocking(addresses: Sequence[Address]) -> None:
    for address in addresses:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(SOL_SOCKET, SO_LINGER, LG)
        sock.connect(address)
        sock.close()


async def trio_stream(addresses: Sequence[Address]) -> None:
    for host, port in addresses:
        stream = await trio.open_tcp_stream(host, port)
        stream.setsockopt(SOL_SOCKET, SO_LINGER, LG)
        stream.socket.close()


async def trio_by_hand(addresses: Sequence[Address]) -> None:
    for address in addresses:
        sock = trio.socket.socket()
        await sock.connect(address)
        sock.setsockopt(SOL_SOCKET, SO_LINGER, LG)
        sock.close()


async def trio_by_hand_deadline(addresses: Sequence[Address]) -> None:
    for address in addresses:
        sock = trio.socket.socket()
        with trio.move_on_at(trio.current_time() + 10):
            await sock.connect(address)
        sock.setsockopt(SOL_SOCKET, SO_LINGER, LG)
        sock.close()


async def asyncio_streams(addresses: Sequence[Address]) -> None:
    for host, port in addresses:
        _, writer = await asyncio.open_connection(host, port)
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, LG)
        writer.transport.abort()
    await asyncio.sleep(0)


async def asyncio_protocol(addresses: Sequence[Address]) -> None:
    loop = asyncio.get_running_loop()
    for host, port in addresses:
        transport, _ = await loop.create_connection(asyncio.Protocol, host, port)
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, LG)
        transport.abort()
    await asyncio.sleep(0)


async def asyncio_sock(addresses: Sequence[Address]) -> None:
    loop = asyncio.get_running_loop()
    for address in addresses:
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        sock.setsockopt(SOL_SOCKET, SO_LINGER, LG)
        sock.close()


async def anyio_stream(addresses: Sequence[Address]) -> None:
    anyio = import_module("anyio")
    raw = anyio.abc.SocketAttribute.raw_socket
    for host, port in addresses:
        stream = await anyio.connect_tcp(host, port)
        stream.extra(raw).setsockopt(SOL_SOCKET, SO_LINGER, LG)
        await stream.aclose()


ALL: dict[str, Contestant] = {
    BLOCKING: Contestant(blocking, _blocking),
    FLOOR: Contestant(1, _in_c),
    MINIMUM: Contestant(bare, _trio),
    BARE: Contestant(asking, _trio),
    OURS: Contestant(ours, _trio, target=lambda address: Endpoint(*address)),
    OURS_TUPLE: Contestant(ours_tuple, _trio),
    OURS_CONNECTX: Contestant(ours_connectx, _trio, target=lambda address: Endpoint(*address)),
    OURS_LITERAL: Contestant(ours_literal, _trio),
    TRIO: Contestant(trio_stream, _trio),
    TRIO_BY_HAND: Contestant(trio_by_hand, _trio),
    TRIO_BY_HAND_DEADLINE: Contestant(trio_by_hand_deadline, _trio),
    ANYIO_TRIO: Contestant(anyio_stream, _trio, needs=("anyio",)),
    ASYNCIO: Contestant(asyncio_streams, _asyncio),
    ASYNCIO_SOCK: Contestant(asyncio_sock, _asyncio),
    ANYIO_ASYNCIO: Contestant(anyio_stream, _asyncio, needs=("anyio",)),
    UVLOOP: Contestant(asyncio_protocol, _uvloop, needs=("uvloop",)),
}


def present(only: str = "") -> tuple[dict[str, Contestant], list[str]]:
    """Return the contestants that can run here, and a line for each that cannot."""
    able, absent = {}, []
    for name, contestant in ALL.items():
        if not re.search(only, name):
            continue
        lacking = missing(*contestant.needs)
        if name == FLOOR and program("_floor") is None:
            absent.append(NO_COMPILER)
        elif lacking:
            absent.append(f"MISSING: {name}: not installed: {', '.join(lacking)}")
        else:
            able[name] = contestant
    return able, absent


if __name__ == "__main__":
    ALL[sys.argv[1]].measure(spread(int(sys.argv[2]), int(sys.argv[3])))
