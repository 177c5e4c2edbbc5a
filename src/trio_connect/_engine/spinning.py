"""Whether to yield to the event loop once before waiting for a handshake, as a lock spins before it sleeps.

Waiting costs about as much as all the rest of a connect: a cancel scope for the deadline, a registration with epoll. A
pass of the loop costs a fraction of that, and nothing where the call must yield anyway. It is enough when the peer is
near, or when other tasks make the pass a long one. To a far peer, with no other tasks, it is wasted. A program seldom
changes between the two, so recent connects decide, and every sixteenth connect tries spinning again.
"""

from __future__ import annotations

from typing import Final, final

CREDIT: Final = 4
"""Stop spinning after so many passes in a row that did not help. If one in three helps, it rarely stops."""
PROBE: Final = 16
"""While spinning is off, one connect in so many tries it. That adds less than 1 % to connects to a far peer."""


@final
class Spinning:
    """Whether spinning has helped lately. Threads share one: a race between two writers costs one wrong guess."""

    __slots__ = ("credit", "untried")

    def __init__(self) -> None:
        self.credit = 0
        """Spin while this is positive."""
        self.untried = 0
        """Connects since the last one that spun without credit."""

    def is_worthwhile(self) -> bool:
        """Say whether the next connect yields before its first poll."""
        if self.credit:
            return True
        self.untried = (self.untried + 1) % PROBE
        return not self.untried

    def learn(self, *, enough: bool) -> None:
        """Record whether a pass was enough."""
        if enough:
            self.credit = CREDIT
        elif self.credit:
            self.credit -= 1
