"""Handles: small ints for what is open, and what libdill knows about each."""

from __future__ import annotations

import errno
import os
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeAlias, TypeVar, final, overload

import attrs
import trio
from trio import current_time
from trio.lowlevel import RunVar, checkpoint

from .._check import check_int
from .._deadline import IMMEDIATE, LEAST_DEADLINE, to_seconds
from .._deadline import check_deadline as check_any_deadline
from .._errors import IncompleteRead
from .._net.listeners.tcp_listener import TcpListener
from .._net.listeners.unix_listener import UnixListener
from .._net.streams.tcp_stream import TcpStream
from .._net.streams.unix_stream import UnixStream
from .._text import shown

if TYPE_CHECKING:
    from types import TracebackType

S = TypeVar("S", TcpStream, UnixStream)
L = TypeVar("L", TcpListener, UnixListener)
H = TypeVar("H", bound="Handle")
K = TypeVar("K", bound="Handle")

# libdill begins with a table of this size and doubles it; with numbers reused in the order in which they became free,
# a stale one is EBADF for a long time before it means something else.
_FIRST_SIZE: Final = 256


def failure(code: int, text: str) -> OSError:
    """Return the `OSError` subclass for an errno, with the system's words for it and ours."""
    return OSError(code, f"{os.strerror(code)}: {text}")


async def refuse(code: int, text: str) -> NoReturn:
    """Raise an error that no system call was made for, after a checkpoint: a loop that retries must not spin."""
    await checkpoint()
    raise failure(code, text)


def check_not_null(value: object, what: str) -> None:
    """Refuse None where C would have a null pointer.

    Raises:
      OSError: EINVAL, which libdill's manual promises and its code answers with a crash.
    """
    if value is None:
        raise failure(errno.EINVAL, f"{what} is None")


def check_deadline(deadline: object) -> int:
    """Return the deadline for our own calls, or say what is wrong with it.

    libdill tries an operation before it looks at its deadline, so one that has passed asks for a single try, and so
    does any small positive number. Ours asks for that with 0.

    Raises:
      OSError: EINVAL, it is negative and not -1. libdill takes any negative number for "none", and so hides the
        subtraction that went wrong.
      TypeError: it is not an int.
    """
    try:
        if isinstance(deadline, int) and IMMEDIATE < deadline < LEAST_DEADLINE and not isinstance(deadline, bool):
            return IMMEDIATE
        checked = check_any_deadline(deadline)
    except ValueError as exc:
        raise failure(errno.EINVAL, str(exc)) from None
    return IMMEDIATE if to_seconds(checked) <= current_time() else checked


@final
class Direction:
    """One direction of a connection, or the accepting of a listener: who is in it and how it ended.

    As a context manager it is in use, and turns what Trio's streams raise into libdill's errno. A timeout or a
    cancellation changes nothing here: the direction stays usable.
    """

    __slots__ = ("broken", "busy", "done")

    def __init__(self) -> None:
        self.busy = self.done = self.broken = False

    def refusal(self) -> int:
        """Return the errno that an operation gets without being tried, 0 for none. The order is libdill's."""
        if self.busy:
            return errno.EBUSY
        if self.done:
            return errno.EPIPE
        return errno.ECONNRESET if self.broken else 0

    def __enter__(self) -> None:
        self.busy = True

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.busy = False
        if isinstance(exc, IncompleteRead):
            self.done = True
            raise failure(errno.EPIPE, str(exc)) from exc
        if isinstance(exc, trio.BrokenResourceError):
            self.broken = True
            raise failure(errno_of_break(exc), str(exc)) from exc
        if isinstance(exc, trio.ClosedResourceError):
            raise failure(errno.EBADF, "this handle was closed by another task") from None


def errno_of_break(exc: trio.BrokenResourceError) -> int:
    """Return what broke a connection. EPIPE is never among it: that is kept for an end that somebody asked for."""
    cause = exc.__cause__
    code = cause.errno if isinstance(cause, OSError) else None
    return errno.ECONNRESET if code in (None, errno.EPIPE, errno.ENOTCONN) else code


@attrs.define(eq=False)
class Connection(Generic[S]):
    """What a handle of a connection means."""

    stream: S
    incoming: Direction = attrs.field(factory=Direction, init=False)
    outgoing: Direction = attrs.field(factory=Direction, init=False)

    def close(self) -> None:
        """Close at once, with RST where there is one."""
        self.stream.abort()


@attrs.define(eq=False)
class Listening(Generic[L]):
    """What a handle of a listener means."""

    listener: L
    accepting: Direction = attrs.field(factory=Direction, init=False)

    def close(self) -> None:
        """Close at once."""
        self.listener.close()


class TcpConnection(Connection[TcpStream]):
    """Made by `tcp_connect`, `tcp_accept` and `tcp_fromfd`."""


class IpcConnection(Connection[UnixStream]):
    """Made by `ipc_connect`, `ipc_accept`, `ipc_pair` and `ipc_fromfd`."""


class TcpListening(Listening[TcpListener]):
    """Made by `tcp_listen` and `tcp_listener_fromfd`."""


class IpcListening(Listening[UnixListener]):
    """Made by `ipc_listen` and `ipc_listener_fromfd`."""


Handle: TypeAlias = Connection[Any] | Listening[Any]

NAMES: Final[dict[type[Any], str]] = {
    TcpConnection: "TCP connection",
    IpcConnection: "unix-domain connection",
    TcpListening: "TCP listener",
    IpcListening: "unix-domain listener",
}


@final
class _Table:
    """The handles of one run of Trio: they mean nothing in another."""

    __slots__ = ("free", "size", "used")

    def __init__(self) -> None:
        self.size = _FIRST_SIZE
        self.free = deque(range(self.size))
        self.used: dict[int, Handle] = {}


_run_table: Final[RunVar[_Table]] = RunVar("handles of trio_connect.libdill")


def _table() -> _Table:
    try:
        return _run_table.get()
    except LookupError:
        table = _Table()
        _run_table.set(table)
        return table


def add(thing: Handle) -> int:
    """Give something a handle."""
    table = _table()
    if not table.free:
        table.free.extend(range(table.size, 2 * table.size))
        table.size *= 2
    number = table.free.popleft()
    table.used[number] = thing
    return number


def remove(number: int) -> None:
    """Take a handle back."""
    table = _table()
    del table.used[number]
    table.free.append(number)


def count() -> int:
    """Return how many handles are open."""
    return len(_table().used)


def look_up(number: object) -> Handle:
    """Return what a handle means.

    Raises:
      OSError: EBADF, nothing has this handle.
      TypeError: not an int.
    """
    thing = _table().used.get(check_int(number, "a handle"))
    if thing is None:
        raise failure(errno.EBADF, f"no handle {shown(number)}")
    return thing


@overload
async def find(number: object, kind: type[H], /) -> H: ...
@overload
async def find(number: object, kind: type[H], other: type[K], /) -> H | K: ...
async def find(number: object, /, *kinds: type[Any]) -> Any:
    """Return what a handle means, if it is one of these kinds. A checkpoint when it raises.

    Raises:
      OSError: EBADF, nothing has this handle; ENOTSUP, it is of another kind.
      TypeError: not an int.
    """
    try:
        thing = look_up(number)
    except OSError:
        await checkpoint()
        raise
    if not isinstance(thing, kinds):
        wanted = " or ".join(NAMES[kind] for kind in kinds)
        await refuse(errno.ENOTSUP, f"handle {number} is a {NAMES[type(thing)]}, not a {wanted}")
    return thing


def hclose(h: int) -> int:
    """Close whatever a handle means, at once and without a checkpoint.

    A TCP connection is reset: what was not delivered yet is dropped, and the peer gets ECONNRESET; `tcp_close` ends
    it well. Tasks that wait on the handle get EBADF.

    Args:
      h: a handle of any kind.

    Returns:
      0.

    Raises:
      OSError: EBADF, `h` is not an open handle.
      TypeError: `h` is not an int.

    libdill: hclose(3).
    """
    thing = look_up(h)
    remove(h)
    thing.close()
    return 0


def hown(h: int) -> int:
    """Take a handle over: the same object gets a new number, and the old one is EBADF from now on.

    Args:
      h: a handle of any kind.

    Returns:
      The new number.

    Raises:
      OSError: EBADF, `h` is not an open handle.
      TypeError: `h` is not an int.

    libdill: hown(3).
    """
    thing = look_up(h)
    number = add(thing)
    remove(h)
    return number
