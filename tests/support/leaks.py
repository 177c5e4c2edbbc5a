"""A census of everything an operation could leave behind, and what changed between two of them.

::

    async with no_leaks():
        ...

or, by hand::

    before = Census.take()
    ...
    leaks = await leaks_since(before)

Two comparisons are made: before and after ``gc.collect()``. What only the collector frees is
reported as "until GC", and is a failure too: it means that nothing closed it.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import re
import socket
import stat
import struct
import sys
import threading
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

import attrs
import trio

Kind: TypeAlias = Literal["descriptor", "task", "thread", "waiter", "connecting", "unraisable", "counter"]
Counters: TypeAlias = Mapping[str, Callable[[], int]]

SYN_SENT = 2

# A worker of Trio's thread cache bears this name while it has nothing to do, and the name of its
# job while it works. The name is put back before the result is delivered, so a job that somebody
# awaited is never seen as running. Idle workers belong to the process and do not count. A worker
# that has got a job but no time yet still looks idle: the slot that the job takes up tells.
_SLOTS = "worker slots"
_IDLE_WORKER = re.compile(r"Trio thread \d+")


@attrs.frozen
class Leak:
    """One thing that was not there before."""

    kind: Kind
    what: str
    until_gc: bool = False

    def __str__(self) -> str:
        return f"{'leaked until GC' if self.until_gc else 'leaked'}: {self.kind} {self.what}"


class LeakError(AssertionError):
    """Something was left behind."""

    def __init__(self, leaks: Iterable[Leak], during: str = "") -> None:
        self.leaks = tuple(leaks)
        lines = [f"left behind{during and ' ' + during}:", *(f"  {leak}" for leak in self.leaks)]
        super().__init__("\n".join(lines))


@attrs.frozen
class Census:
    """What this process and this Trio run hold at one moment."""

    descriptors: Counter[str]
    tasks: Mapping[trio.lowlevel.Task, str]
    threads: Counter[tuple[threading.Thread, str]]
    slots: int
    """Jobs for worker threads, under the run's default limiter; another limiter is a counter."""
    waiters: Mapping[str, int]
    connecting: Counter[str]
    unraisable: Counter[str]
    counters: Mapping[str, int]

    @classmethod
    def take(cls, *, ports: Iterable[int] = (), counters: Counters | None = None) -> Census:
        """Count everything, inside a Trio run.

        ``ports`` also looks for connections to those remote ports in SYN_SENT that no descriptor
        of ours holds. ``counters`` are sizes of tables that must not have grown.
        """
        targets = descriptors()
        return cls(
            descriptors=Counter(targets.values()),
            tasks={task: task.name for task in live_tasks()},
            threads=threads_at_work(),
            slots=trio.to_thread.current_default_thread_limiter().borrowed_tokens,
            waiters=_waiters(),
            connecting=Counter(_connecting(targets, frozenset(ports))),
            unraisable=Counter(_recorders[-1]) if _recorders else Counter(),
            counters={name: count() for name, count in (counters or {}).items()},
        )

    def leaked_since(self, before: Census) -> tuple[Leak, ...]:
        """What this census has that ``before`` had not."""
        threads = [Leak("thread", name) for _, name in (self.threads - before.threads)]
        if not threads and self.slots > before.slots:
            threads.append(Leak("thread", f"{_SLOTS}: {before.slots} became {self.slots}"))
        return (
            *(Leak("descriptor", what) for what in (self.descriptors - before.descriptors)),
            *(Leak("task", name) for task, name in self.tasks.items() if task not in before.tasks),
            *threads,
            *(
                Leak("waiter", f"{name}: {before.waiters.get(name, 0)} became {count}")
                for name, count in self.waiters.items()
                if count > before.waiters.get(name, 0)
            ),
            *(Leak("connecting", what) for what in (self.connecting - before.connecting)),
            *(Leak("unraisable", what) for what in (self.unraisable - before.unraisable)),
            *(
                Leak("counter", f"{name}: {before.counters.get(name, 0)} became {count}")
                for name, count in self.counters.items()
                if count > before.counters.get(name, 0)
            ),
        )


async def leaks_since(
    before: Census,
    *,
    ports: Iterable[int] = (),
    counters: Counters | None = None,
    ignore_threads: str | None = None,
) -> tuple[Leak, ...]:
    """Let the run settle, then say what is there that was not there ``before``.

    Settling is a bounded number of passes of the loop and takes no time on any clock.
    ``ignore_threads`` is a regular expression for names of threads that may stay (a worker's is
    ``"<function> from <task>"``); with it, slots in the default limiter may stay too.
    """
    ports = frozenset(ports)

    def compare() -> dict[Leak, None]:
        found = Census.take(ports=ports, counters=counters).leaked_since(before)
        return {
            leak: None
            for leak in found
            if leak.kind != "thread"
            or ignore_threads is None
            or not (leak.what.startswith(_SLOTS) or re.search(ignore_threads, leak.what))
        }

    passes = 1
    while (first := compare()) and passes <= 512:
        # A peer in the same run needs some passes to see our end of a connection go.
        for _ in range(passes):
            await trio.lowlevel.cancel_shielded_checkpoint()
        passes *= 2
    # Where the collector has found nothing to free, nothing has changed.
    second = compare() if gc.collect() else first
    return (
        *(leak for leak in first if leak in second),
        *(attrs.evolve(leak, until_gc=True) for leak in first if leak not in second),
        *(attrs.evolve(leak, until_gc=True) for leak in second if leak not in first),
    )


@contextlib.asynccontextmanager
async def no_leaks(
    *,
    ports: Iterable[int] = (),
    counters: Counters | None = None,
    ignore_threads: str | None = None,
) -> AsyncIterator[None]:
    """Fail with `LeakError` if the body, having ended without an exception, left anything behind."""
    ports = frozenset(ports)
    with watching():
        before = await settled_census(ports=ports, counters=counters)
        yield
        leaks = await leaks_since(before, ports=ports, counters=counters, ignore_threads=ignore_threads)
    if leaks:
        raise LeakError(leaks)


async def settled_census(*, ports: Iterable[int] = (), counters: Counters | None = None) -> Census:
    """A census that some passes of the loop do not change, if there is one to be had."""
    ports = frozenset(ports)
    census = Census.take(ports=ports, counters=counters)
    for _ in range(16):
        for _ in range(4):
            await trio.lowlevel.cancel_shielded_checkpoint()
        previous, census = census, Census.take(ports=ports, counters=counters)
        if census == previous:
            break
    return census


_recorders: list[list[str]] = []


@contextlib.contextmanager
def watching() -> Iterator[list[str]]:
    """Record what finalisers raise, make ResourceWarning one of those things, and hold the GC.

    The collector stays off inside, so that it cannot by chance hide what only it would free;
    what was alive before is frozen, and stays so, or every census would go through all that pytest holds.
    """
    if _recorders:
        # Nested: the outer one has set everything up, and both see what comes.
        yield _recorders[-1]
        return
    seen: list[str] = []

    def record(unraisable: sys.UnraisableHookArgs, /) -> None:
        # Text only: keeping the object would resurrect it.
        error = unraisable.exc_value
        text = f"{unraisable.exc_type.__name__}: {error}"
        # A warning already says what it is about, and the repr of a half-finalised object lies.
        if not isinstance(error, Warning) and unraisable.object is not None:
            text += f" in {unraisable.object!r}"
        seen.append(text)

    hook, collecting = sys.unraisablehook, gc.isenabled()
    gc.collect()
    gc.disable()
    gc.freeze()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        warnings.filterwarnings("error", ".* was never awaited", RuntimeWarning)
        sys.unraisablehook = record
        _recorders.append(seen)
        try:
            yield seen
        finally:
            _recorders.pop()
            sys.unraisablehook = hook
            if collecting:
                gc.enable()


def descriptors() -> dict[int, str]:
    """Every open descriptor and what it refers to; a number alone would hide a swap."""
    targets: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            status = os.fstat(number)
        except OSError:  # the descriptor of the listing itself
            continue
        kind = stat.S_IFMT(status.st_mode)
        # What the link says of sockets and pipes, for a fraction of the price.
        if kind == stat.S_IFSOCK:
            targets[number] = f"socket:[{status.st_ino}]"
        elif kind == stat.S_IFIFO:
            targets[number] = f"pipe:[{status.st_ino}]"
        elif kind:
            targets[number] = _path_of(number, status.st_dev, status.st_ino)
        else:
            # Anonymous inodes (epoll, timerfd, ...) share one name and one inode: tell them apart by number.
            targets[number] = f"{os.readlink(f'/proc/self/fd/{name}')} ({name})"
    return targets


@functools.cache
def _path_of(number: int, _device: int, _inode: int) -> str:
    """Return what the link says of a file, read once for each: what is open in a census is open in most of them."""
    return os.readlink(f"/proc/self/fd/{number}")


def threads_at_work() -> Counter[tuple[threading.Thread, str]]:
    """Every thread of this process but idle workers of Trio's, with what it is called now."""
    return Counter((thread, thread.name) for thread in threading.enumerate() if not _IDLE_WORKER.fullmatch(thread.name))


def live_tasks() -> Iterator[trio.lowlevel.Task]:
    """Every task of this run, system tasks too."""
    root = trio.lowlevel.current_root_task()
    stack = [] if root is None else [root]
    while stack:
        task = stack.pop()
        yield task
        for nursery in task.child_nurseries:
            stack.extend(nursery.child_tasks)


def _waiters() -> dict[str, int]:
    io = trio.lowlevel.current_statistics().io_statistics
    return {name: getattr(io, name) for name in ("tasks_waiting_read", "tasks_waiting_write") if hasattr(io, name)}


def _connecting(targets: Mapping[int, str], ports: frozenset[int]) -> Iterator[str]:
    ours = set()
    for number, target in targets.items():
        if target.startswith("socket:") and _tcp_state(number) == SYN_SENT:
            ours.add(target)
            yield f"{target} in SYN_SENT"
    if ports:
        for inode, port in (*_in_syn_sent(socket.AF_INET), *_in_syn_sent(socket.AF_INET6)):
            if port in ports and (target := f"socket:[{inode}]") not in ours:
                yield f"{target} in SYN_SENT to port {port}, held by none of our descriptors"


# linux/sock_diag.h, linux/netlink.h and linux/inet_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBxxI48x")
# In struct inet_diag_msg, behind the struct nlmsghdr of 16 bytes: 4 bytes, and the local port; 4 bytes, the struct
# inet_diag_sockid of 48, and four numbers.
_REMOTE_PORT = struct.Struct("!16x4x2xH")
_INODE = struct.Struct("=16x4x48x16xI")


def _in_syn_sent(family: int) -> Iterator[tuple[int, int]]:
    """Yield inode and remote port of every connect that is under way in this network namespace, see sock_diag(7).

    Not from /proc/net/tcp: that has a line for each of the thousands of connections in TIME_WAIT that the other
    workers have left, and half of the time of a sweep went into reading it.
    """
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << SYN_SENT)
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diag:
        diag.settimeout(5)
        diag.send(header + request)
        while True:
            answer = memoryview(diag.recv(1 << 16))
            while answer:
                length, kind, *_ = _HEADER.unpack_from(answer)
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    raise RuntimeError("the kernel does not list its sockets: is inet_diag missing?")
                yield _INODE.unpack_from(answer)[0], _REMOTE_PORT.unpack_from(answer)[0]
                answer = answer[(length + 3) & ~3 :]


def _tcp_state(number: int) -> int | None:
    """Return the state of a TCP connection, None for any other descriptor.

    The plain type, told what a TCP socket is: `socket.socket` would ask the kernel for it, in three more system calls
    for each socket of each census, and whatever is no TCP socket says so when it is asked for the state.
    """
    try:
        sock = socket.SocketType(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, number)
    except OSError:
        return None
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return None
    finally:
        sock.detach()  # only looked at: it is somebody else's descriptor
