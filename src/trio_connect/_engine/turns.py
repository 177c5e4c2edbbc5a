"""Which waiting call may try next to get a place.

The calls that wait for one destination form a line, first in, first out, and only its head may try. Heads of different
lines wait for different things: the cap of a route group, the share of the whole program, a time. When a place becomes
free under a cap, it is offered to the lines that wait for this cap, in turn. A line that got a place goes to the end of
the turns. So a backlog at one destination cannot block another. No wake-up is lost: the offer goes on until this cap
refuses a line, or no line waits for it.

The engine names the call whose turn it is (`next`). The driver tries for it, and reports `granted` or `refused`. A try
may take time, as with limits in a store on another machine. A line is not offered again before its try has ended. When
something changes meanwhile, its refusal is out of date, and it tries once more.

A member of a `Share` with fewer places than its reserve goes before the others. The others are refused while places are
reserved, and an offer that ended with their refusal would not reach the member for which the places are reserved.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from .facts import IllegalFact

if TYPE_CHECKING:
    from .limits import Cap

__all__ = ["Turns"]


class _Line:
    __slots__ = ("again", "asked", "blockers", "offer", "ready", "waiters")

    def __init__(self) -> None:
        self.waiters: deque[Hashable] = deque()
        self.blockers: tuple[Cap, ...] = ()
        """The caps that refused the head. A free place under any of them is a reason to try again."""
        self.ready = False
        """Whether the line is due to try for another reason than a free place."""
        self.asked = False
        """Whether the head is trying now."""
        self.offer: Cap | None = None
        """The cap whose free place it tries for; None when it was due for another reason."""
        self.again = False
        """Whether something has changed since the head began to try."""


class Turns:
    """The lines of all destinations."""

    __slots__ = ("_asked", "_blocked", "_lines", "_offers", "_ready")

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line] = {}
        self._ready: deque[Hashable] = deque()
        self._offers: dict[Cap, None] = {}
        self._asked: dict[Hashable, _Line] = {}
        # For each cap those it favours, then the others, each in turn.
        self._blocked: dict[Cap, tuple[OrderedDict[Hashable, None], OrderedDict[Hashable, None]]] = {}

    def waiting(self, member: Hashable) -> int:
        """Return how long the line of a member is."""
        line = self._lines.get(member)
        return 0 if line is None else len(line.waiters)

    def line(self, member: Hashable) -> tuple[Hashable, ...]:
        """Return those who wait in the line of a member, the head first."""
        line = self._lines.get(member)
        return () if line is None else tuple(line.waiters)

    def join(self, member: Hashable, waiter: Hashable) -> None:
        """Join the end of a line."""
        line = self._lines.get(member)
        if line is None:
            line = self._lines[member] = _Line()
        line.waiters.append(waiter)
        if len(line.waiters) == 1:
            self._make_ready(member, line)

    def leave(self, member: Hashable, waiter: Hashable) -> None:
        """Leave a line. The turn of a head passes to the next in its line."""
        line = self._lines.get(member)
        if line is None or waiter not in line.waiters:
            raise IllegalFact(f"leave: {waiter!r} does not wait")
        was_head = line.waiters[0] == waiter
        line.waiters.remove(waiter)
        if was_head:
            self._head_is_gone(member, line)

    def wake(self, member: Hashable) -> None:
        """Have the head of a line try again, because of the time, or of something that is not a cap."""
        line = self._lines.get(member)
        if line is None:
            return
        if line.asked:
            line.again = True
        else:
            self._unblock(member, line)
            self._make_ready(member, line)

    def freed(self, cap: Cap, member: Hashable) -> None:
        """Offer a place that this member has given back, or that is not reserved for it any more."""
        for line in self._asked.values():
            line.again = True
        groups = self._blocked.get(cap)
        if groups is None:
            return
        favoured, others = groups
        if member in others and cap.favours(member):
            del others[member]
            favoured[member] = None
        self._offers[cap] = None

    def next(self) -> tuple[Hashable, Hashable] | None:
        """Return the member and the waiter that may try, or None. The driver then reports `granted` or `refused`."""
        while self._offers:
            cap = next(iter(self._offers))
            groups = self._blocked.get(cap)
            if groups is None:
                del self._offers[cap]
                continue
            member = next(iter(groups[0] or groups[1]))
            return self._ask(member, cap)
        while self._ready:
            member = self._ready.popleft()
            line = self._lines.get(member)
            if line is not None and line.ready:
                return self._ask(member, None)
        return None

    def granted(self, member: Hashable) -> None:
        """Learn that the head got a place, and waits no more."""
        line = self._answer(member, "granted")
        line.waiters.popleft()
        self._head_is_gone(member, line)

    def refused(self, member: Hashable, blockers: Iterable[Cap]) -> None:
        """Learn that these caps refused the head. Without any cap it waits for `wake`."""
        line = self._answer(member, "refused")
        offer = line.offer
        self._has_answered(member, line)
        if line.again:
            self._make_ready(member, line)
            return
        line.blockers = tuple(blockers)
        for cap in line.blockers:
            group = self._blocked.setdefault(cap, (OrderedDict(), OrderedDict()))[0 if cap.favours(member) else 1]
            group[member] = None
            if cap is offer:
                # There was no free place: the line keeps its turn, and no other line needs to try.
                group.move_to_end(member, last=False)
                self._offers.pop(cap, None)

    def _answer(self, member: Hashable, fact: str) -> _Line:
        line = self._lines.get(member)
        if line is None or not line.asked:
            raise IllegalFact(f"{fact}: {member!r} was not asked")
        return line

    def _ask(self, member: Hashable, offer: Cap | None) -> tuple[Hashable, Hashable]:
        line = self._lines[member]
        self._unblock(member, line)
        line.ready = line.again = False
        line.asked, line.offer = True, offer
        self._asked[member] = line
        return member, line.waiters[0]

    def _has_answered(self, member: Hashable, line: _Line) -> None:
        line.asked = False
        self._asked.pop(member, None)

    def _head_is_gone(self, member: Hashable, line: _Line) -> None:
        self._has_answered(member, line)
        self._unblock(member, line)
        if line.waiters:
            self._make_ready(member, line)
        else:
            del self._lines[member]

    def _make_ready(self, member: Hashable, line: _Line) -> None:
        if not line.ready:
            line.ready = True
            self._ready.append(member)

    def _unblock(self, member: Hashable, line: _Line) -> None:
        for cap in line.blockers:
            favoured, others = self._blocked[cap]
            favoured.pop(member, None)
            others.pop(member, None)
            if not favoured and not others:
                del self._blocked[cap]
        line.blockers = ()
