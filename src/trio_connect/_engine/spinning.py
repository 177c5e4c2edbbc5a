"""Whether to give the loop a pass before waiting for a handshake: the choice of every lock that spins before it sleeps.

To wait costs about as much as all the rest of a connect: a scope for the deadline, a registration with epoll. A pass
of the loop costs a fraction of that, and nothing where the call owes one anyway. It is enough when the peer is near, or
when other tasks make the pass a long one; to a far peer, with nothing else to do, it is wasted. Which of these it is
changes seldom in a program, so what helped lately decides, and now and then a connect tries the other way.
"""

from __future__ import annotations

from typing import Final, final

CREDIT: Final = 4
"""So many passes in vain, one after the other, end the spinning: with a third of them enough, it rarely ends."""
PROBE: Final = 16
"""One connect in so many spins all the same: that costs a far peer less than a hundredth."""


@final
class Spinning:
    """What lately helped. All threads may share one: two that write at a time cost a wrong guess, and nothing else."""

    __slots__ = ("credit", "untried")

    def __init__(self) -> None:
        self.credit = 0
        """Spin while there is some."""
        self.untried = 0
        """Connects since the last one that spun without credit."""

    def is_worthwhile(self) -> bool:
        """Say whether the next handshake gets a pass before it is looked at."""
        if self.credit:
            return True
        self.untried = (self.untried + 1) % PROBE
        return not self.untried

    def learn(self, *, enough: bool) -> None:
        """Take in whether a pass was enough."""
        if enough:
            self.credit = CREDIT
        elif self.credit:
            self.credit -= 1
