"""Peers that misbehave, on loopback and without privileges.

They use the kernel's sockets whatever socket factory the run has.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import resource
import select
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import trio

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

# linux/in.h, since Linux 6.3; not in every Python's socket module.
_IP_LOCAL_PORT_RANGE = 51

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@attrs.frozen
class Address:
    """Where a peer is to be reached."""

    host: str
    port: int
    family: socket.AddressFamily

    def __iter__(self) -> Iterator[str | int]:
        """So that ``host, port = address`` works."""
        return iter((self.host, self.port))

    @property
    def pair(self) -> tuple[str, int]:
        return self.host, self.port


_numbers = itertools.count()


def own_host() -> str:
    """Return a loopback address that nobody else on this machine uses: no other process, no other fixture of this one.

    A port of 127.0.0.1 that is free again is anybody's: a stranger who still tries it is then answered by us, or takes
    the last place of a backlog. All of 127.0.0.0/8 is this machine's, so each fixture has an address of its own.
    """
    # 127.64.0.0/10: a process takes 64 addresses of the 4 million by its id, and begins again after them.
    number = (os.getpid() << 6 | next(_numbers) & 63) & 0x3FFFFF
    return socket.inet_ntoa(struct.pack("!I", 0x7F400000 | number))


def _bound(family: socket.AddressFamily) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # IPv6 has one loopback address.
        sock.bind((own_host() if family == socket.AF_INET else LOOPBACK[family], 0))
    except BaseException:
        sock.close()
        raise
    return sock


def _address(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return Address(host, port, sock.family)


def _fill_accept_queue(listener: socket.socket, stack: contextlib.ExitStack) -> None:
    """Take the one place that ``listen(0)`` leaves, and return once the kernel has counted it.

    Our connect() is over when the SYN-ACK has come. The place is taken when our ACK has been handled, which may be
    later: until then the listener still has room for another connection. It is readable from then on.
    """
    filler = stack.enter_context(socket.socket(listener.family, socket.SOCK_STREAM))
    filler.settimeout(20)
    filler.connect(listener.getsockname())
    counted = select.poll()
    counted.register(listener, select.POLLIN)
    if not counted.poll(20_000):
        raise RuntimeError("the accept queue does not fill")
    # On a listener, tcp_info.tcpi_unacked and tcpi_sacked are the accept queue and its limit.
    waiting, limit = struct.unpack_from("II", listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32), 24)
    if waiting <= limit:
        raise RuntimeError(f"the accept queue has room: {waiting} of {limit} and one")


@contextlib.contextmanager
def black_hole(family: socket.AddressFamily = socket.AF_INET) -> Iterator[Address]:
    """A listener whose accept queue is full: a connect stays in SYN_SENT, unanswered."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(_bound(family))
        listener.listen(0)
        _fill_accept_queue(listener, stack)
        yield _address(listener)


@contextlib.contextmanager
def reserved_port(host: str) -> Iterator[int]:
    """A port that a socket with SO_REUSEADDR can bind, and that the kernel gives to nobody who asks for any port."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, 0))
        port = sock.getsockname()[1]
        assert isinstance(port, int)
        yield port


def more_than_fits() -> int:
    """Return how many bytes no connection holds on their way, sent and not received.

    tcp(7): the buffers of the two ends grow to the last numbers of tcp_wmem and tcp_rmem, if nobody has set their size.
    """
    return sum(int(Path("/proc/sys/net/ipv4", name).read_text().split()[2]) for name in ("tcp_wmem", "tcp_rmem")) + 1


@contextlib.contextmanager
def refusing(family: socket.AddressFamily = socket.AF_INET) -> Iterator[Address]:
    """A port that is taken but not listened on: it refuses, and nobody else can get it."""
    with _bound(family) as sock:
        yield _address(sock)


@contextlib.contextmanager
def full_unix_backlog() -> Iterator[Path]:
    """A unix-domain listener whose backlog is full: connect is EAGAIN."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        path = Path(directory, "full")
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(os.fspath(path))
        listener.listen(0)
        while True:
            filler = stack.enter_context(socket.socket(socket.AF_UNIX))
            filler.setblocking(False)
            try:
                filler.connect(os.fspath(path))
            except BlockingIOError:
                break
        yield path


@attrs.define
class Peer:
    """A peer that is served by a task of the same run."""

    address: Address
    accepted: int = 0
    ended: int = 0
    """Connections whose end this peer has seen, by EOF or by error."""
    sent: int = 0


@contextlib.asynccontextmanager
async def _serving(
    family: socket.AddressFamily, serve: Callable[[Peer, trio.socket.SocketType], Any]
) -> AsyncIterator[Peer]:
    raw = _bound(family)
    raw.listen()
    peer = Peer(_address(raw))

    async def one(sock: trio.socket.SocketType) -> None:
        with sock:
            try:
                await serve(peer, sock)
            except OSError:
                pass  # the other end went away
            peer.ended += 1

    async def accept() -> None:
        while True:
            sock, _ = await listener.accept()
            peer.accepted += 1
            nursery.start_soon(one, sock)

    with trio.socket.from_stdlib_socket(raw) as listener:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            try:
                yield peer
            finally:
                nursery.cancel_scope.cancel()


def echoing(
    family: socket.AddressFamily = socket.AF_INET,
) -> contextlib.AbstractAsyncContextManager[Peer]:
    """A peer that behaves: it echoes until EOF."""

    async def serve(peer: Peer, sock: trio.socket.SocketType) -> None:
        while data := await sock.recv(65536):
            while data:
                count = await sock.send(data)
                peer.sent += count
                data = data[count:]

    return _serving(family, serve)


def flooding(
    chunk: bytes = bytes(65536), family: socket.AddressFamily = socket.AF_INET
) -> contextlib.AbstractAsyncContextManager[Peer]:
    """A peer that sends without end and reads nothing, so that a socket of ours stays readable."""

    async def serve(peer: Peer, sock: trio.socket.SocketType) -> None:
        while True:
            peer.sent += await sock.send(chunk)

    return _serving(family, serve)


def resetting(
    greeting: bytes = b"", after: int = 0, family: socket.AddressFamily = socket.AF_INET
) -> contextlib.AbstractAsyncContextManager[Peer]:
    """A peer that sends ``greeting``, takes ``after`` bytes, and then resets the connection."""

    async def serve(peer: Peer, sock: trio.socket.SocketType) -> None:
        left = greeting
        while left:
            left = left[await sock.send(left) :]
        wanted = after
        while wanted and (data := await sock.recv(wanted)):
            wanted -= len(data)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    return _serving(family, serve)


@contextlib.contextmanager
def self_connecting(family: socket.AddressFamily = socket.AF_INET) -> Iterator[Address]:
    """A port of the ephemeral range where a connect of this process meets only itself.

    Inside, the standard library's ``connect`` and ``connect_ex`` to that address take it as
    their source too, which by chance the kernel does now and then.
    """
    with _bound(family) as sock:
        address = _address(sock)
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def claim(sock: socket.socket, target: Any) -> None:
        if sock.family == family and tuple(target[:2]) == address.pair:
            with contextlib.suppress(OSError):  # it has an address already, or asks a second time
                take_as_source(sock, address)

    def patched(sock: socket.socket, target: Any) -> None:
        claim(sock, target)
        return connect(sock, target)

    def patched_ex(sock: socket.socket, target: Any) -> int:
        claim(sock, target)
        return connect_ex(sock, target)

    socket.socket.connect = patched  # type: ignore[method-assign, assignment]
    socket.socket.connect_ex = patched_ex  # type: ignore[method-assign, assignment]
    try:
        yield address
    finally:
        # The methods were inherited: what is in the class itself is ours.
        del socket.socket.connect, socket.socket.connect_ex


def take_as_source(sock: socket.socket, address: Address) -> None:
    """Make the kernel choose ``address`` as the source of a socket that is not bound yet."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(address.pair)


def narrow_ports(sock: socket.socket, port: int) -> None:
    """Leave the kernel one ephemeral port for this socket (Linux 6.3); OSError where it cannot."""
    both_ends = struct.pack("I", port | port << 16)  # as an int it would not fit
    sock.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, both_ends)


@contextlib.contextmanager
def descriptors_exhausted(spare: int = 0) -> Iterator[None]:
    """Leave this process ``spare`` descriptors; the next one is EMFILE.

    Nothing that needs a descriptor works inside, a census for one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    limit = 0
    # The listing's own descriptor is still in the list, but free again by now.
    used = {number for number in used if _is_open(number)}
    left = spare
    while limit < (soft if soft != resource.RLIM_INFINITY else math.inf):
        if limit not in used:
            if left == 0:
                break
            left -= 1
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
