"""What tasks wait for of a queue set beside single tokens: results of any, and room."""

from __future__ import annotations

import attrs

from .._net.waiter import Waiter


@attrs.define(eq=False)
class Reaper(Waiter):
    """Waits for results of tokens that nobody names.

    `promised` keeps a second reaper from being woken for a result that the first one is about to take.
    """

    want: int = 1
    ends: bool = False
    """Whether to wake it also when nothing is left to come."""
    promised: int = 0


@attrs.define(eq=False)
class RoomWaiter(Waiter):
    """Waits for room."""

    count: int = 1
