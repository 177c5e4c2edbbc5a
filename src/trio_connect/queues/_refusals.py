"""Why a wait is refused, in words."""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# Only queue sets read who owns a token.

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._operations import AnyToken
    from ._table import Rejection

OTHER_THREAD: Final = (
    "queues and tokens belong to the thread of their queue set; from another one go through "
    "trio.from_thread.run or trio.from_thread.run_sync"
)


def refusal_of(tokens: Sequence[AnyToken], rejection: Rejection | None, owner: object) -> Exception:
    """Return the exception for a wait for tokens that the table of this owner has rejected."""
    if rejection == "reserved":
        return trio.BusyResourceError("another task waits for one of these tokens")
    if rejection == "empty":
        return OSError(errno.EINVAL, "there is no token to wait for")
    if rejection == "duplicate":
        return OSError(errno.EINVAL, "a token is named twice")
    token = next(token for token in tokens if token._owner is not owner or token._number < 0)
    if token._owner is owner:
        return OSError(errno.EINVAL, f"{token} was claimed already: its result has been handed out")
    return OSError(errno.EINVAL, f"{token} is not ours: it belongs to another queue set")


def the_wait_for(tokens: Sequence[AnyToken]) -> str:
    """Return what somebody waited for."""
    return f"the wait for {tokens[0]}" if len(tokens) == 1 else f"the wait for any of {len(tokens)} tokens"
