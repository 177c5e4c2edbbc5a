"""How libdill's calls fail: an `OSError` with the errno where C returns -1, and the rules for null and deadlines."""

from __future__ import annotations

import errno
import os
from typing import NoReturn

from trio import current_time
from trio.lowlevel import checkpoint

from .._deadline import IMMEDIATE, LEAST_DEADLINE, to_seconds
from .._deadline import check_deadline as check_any_deadline

__all__ = ["check_deadline", "check_not_null", "failure", "refuse"]


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
      OSError: EINVAL, it is negative and not -1. libdill takes any negative number for "none", which hides a
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
