"""The table of handles: small ints for what is open in one run of Trio."""

from __future__ import annotations

import errno
from collections import deque
from typing import Any, Final, TypeVar, final, overload

from trio.lowlevel import RunVar, checkpoint, enable_ki_protection

from .._check import check_int
from .._text import shown
from ._failures import failure, refuse
from ._kinds import NAMES, Handle

H = TypeVar("H", bound=Handle)
K = TypeVar("K", bound=Handle)

# libdill begins with a table of this size and doubles it; with numbers reused in the order in which they became free,
# a stale one is EBADF for a long time before it means something else.
_FIRST_SIZE: Final = 256


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
    """Give an object a handle, and return the handle."""
    table = _table()
    if not table.free:
        table.free.extend(range(table.size, 2 * table.size))
        table.size *= 2
    number = table.free.popleft()
    table.used[number] = thing
    return number


def remove(number: int) -> None:
    """Free a handle."""
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


@enable_ki_protection  # Ctrl-C cannot come between the end of a handle and that of its socket
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


@enable_ki_protection  # nor between two handles of one socket
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
