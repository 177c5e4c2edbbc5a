"""Limits: how many connections at once, and how many in how long.

A call to connect passes several limits: those of its source, its route group, and the whole program. It takes a
place under all of them or under none: `acquire` checks each limit before it takes the first place, so nothing has to be
given back.

- A `Cap` counts the places that are taken. Caps are checked in the order of size, the smallest first: a refusal then
  names the tightest limit, and a store that asks over a network asks the most likely refusal first.
- A `Pace` is a rate by the generic cell rate algorithm (ITU-T I.371 annex A, the virtual scheduling form): one number,
  the time when the next start would be due if all came evenly. A start may be early by what the burst allows.
  Times are whole microseconds, so nothing drifts: 500 a day are 172.8 seconds, exactly.
- A `Share` is a cap over many destinations, its members. It reserves places for each member that has fewer than
  `reserve`, so that one member with a backlog cannot take every place. At most half of the places are reserved, so that
  many idle members do not block the others.

A limit is one object for each key: two calls share a limit if and only if their destinations named the same key.
When two destinations name one key with different numbers, the smaller cap and the slower rate apply to both.

A limit may be known beyond this program, by a text: then a store asks the other processes too, see `outbound`'s stores.

A `Lease` lists the caps under which a call has places. It is given back cap by cap: the place under `max_connecting`
when the connect is over, the place under `max_connections` when the connection is closed.

Nothing here waits: `turns` decides which call is next when a place is free.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Protocol, final
from weakref import WeakValueDictionary

import attrs

from .._outbound_values import MICROSECONDS
from .facts import IllegalFact

if TYPE_CHECKING:
    from .._outbound_values import Rate

__all__ = ["Blocked", "Cap", "Layers", "Lease", "Limits", "Pace", "Place", "Share"]


@attrs.define(eq=False)
class Cap:
    """A limit on how many at once."""

    name: str
    """What people call it."""
    limit: int
    shared: str = attrs.field(default="", kw_only=True)
    """What other processes know it by; "" when they do not."""
    held: int = attrs.field(default=0, init=False)

    def has_room(self, member: Hashable) -> bool:
        """Say whether this member may take one more place."""
        del member
        return self.held < self.limit

    def favours(self, member: Hashable) -> bool:
        """Say whether a waiting member goes before the others."""
        del member
        return False

    def take(self, member: Hashable) -> None:
        """Take a place, which must be there."""
        del member
        self.held += 1

    def give(self, member: Hashable) -> None:
        """Give a place back."""
        del member
        self.held -= 1


@final
@attrs.define(eq=False)
class Share(Cap):
    """A cap that reserves a few places for each member.

    Members join, and leave when they hold nothing.
    """

    reserve: int = attrs.field(kw_only=True)
    _members: dict[Hashable, int] = attrs.field(factory=dict[Hashable, int], init=False)
    _wanting: int = attrs.field(default=0, init=False)
    """How many places all members together are short of their reserve."""

    def join(self, member: Hashable) -> None:
        """Have places kept back for a member."""
        if member in self._members:
            raise IllegalFact(f"join: {member!r} is a member")
        self._members[member] = 0
        self._wanting += self.reserve

    def leave(self, member: Hashable) -> None:
        """Keep no places back for a member any more."""
        if self._members.get(member) != 0:
            raise IllegalFact(f"leave: {member!r} is not a member, or holds places")
        del self._members[member]
        self._wanting -= self.reserve

    def has_room(self, member: Hashable) -> bool:
        """Say whether this member may take one more place."""
        kept_back = 0 if self.favours(member) else min(self._wanting, self.limit // 2)
        return self.limit - self.held > kept_back

    def favours(self, member: Hashable) -> bool:
        """Say whether a member holds fewer places than are kept back for it."""
        return self._members[member] < self.reserve

    def take(self, member: Hashable) -> None:
        """Take a place, which must be there."""
        self._wanting -= self.favours(member)
        self._members[member] += 1
        self.held += 1

    def give(self, member: Hashable) -> None:
        """Give a place back."""
        self._members[member] -= 1
        self._wanting += self.favours(member)
        self.held -= 1


@final
@attrs.define(eq=False)
class Pace:
    """A limit on how many in how long."""

    name: str
    """What people call it."""
    interval: int
    """Microseconds between two starts."""
    burst: int
    shared: str = attrs.field(default="", kw_only=True)
    """What other processes know it by; "" when they do not."""
    _even: int = attrs.field(default=0, init=False)
    """When the next start would be due if all came evenly, in microseconds (TAT in I.371)."""

    @property
    def next_start(self) -> int:
        """When the next start may be made, in microseconds."""
        return self._even - (self.burst - 1) * self.interval

    def start(self, now: int) -> None:
        """Count a start, which must be allowed."""
        self._even = max(self._even, now) + self.interval


@attrs.frozen(eq=False)
class Layers:
    """The limits of one call: caps with the smallest first, rates with the slowest first."""

    caps: tuple[Cap, ...]
    paces: tuple[Pace, ...]

    @classmethod
    def of(cls, caps: Iterable[Cap], paces: Iterable[Pace]) -> Layers:
        """Put the layers in order."""
        return cls(
            tuple(sorted(caps, key=lambda cap: cap.limit)),
            tuple(sorted(paces, key=lambda pace: pace.interval, reverse=True)),
        )

    @property
    def shared_caps(self) -> list[Cap]:
        """Those that other processes count too."""
        return [cap for cap in self.caps if cap.shared]

    @property
    def shared_paces(self) -> list[Pace]:
        """Those that other processes count too."""
        return [pace for pace in self.paces if pace.shared]

    def __or__(self, other: Layers) -> Layers:
        """Return the limits of a call that passes both."""
        return Layers.of((*self.caps, *other.caps), (*self.paces, *other.paces))


class Place(Protocol):
    """A place under a limit that several processes share."""

    @property
    def is_lost(self) -> bool:
        """Whether the store has taken it away: it counts for others by now, or soon."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...


@attrs.define(eq=False)
class Lease:
    """The places of one call. It has given back all of them when it is over."""

    member: Hashable
    caps: list[Cap]
    places: dict[Cap, Place] = attrs.field(factory=dict[Cap, Place])
    """Those that other processes count too, by their caps."""

    def move(self, caps: Iterable[Cap], to: Lease) -> None:
        """Let another lease of the member hold the places under some caps, as far as this one has them."""
        for cap in caps:
            if cap in self.caps:
                self.caps.remove(cap)
                to.caps.append(cap)
                if cap in self.places:
                    to.places[cap] = self.places.pop(cap)


@attrs.frozen
class Blocked:
    """Why no place was taken.

    Exactly one of the two is set: while a cap refuses a call, nobody knows when its rate will admit it.
    """

    cap: Cap | None = None
    """The first cap that refuses. When it will have a free place is unknown."""
    until: float | None = None
    """When every rate admits, in seconds."""


class Limits:
    """The limits of one program, each of them once for its key. Times are seconds on any clock."""

    __slots__ = ("_caps", "_paces")

    def __init__(self) -> None:
        # A limit exists as long as an object refers to it.
        self._caps: WeakValueDictionary[Hashable, Cap] = WeakValueDictionary()
        self._paces: WeakValueDictionary[Hashable, Pace] = WeakValueDictionary()

    def cap(self, key: Hashable, name: str, limit: int, *, shared: str = "") -> Cap:
        """Return the cap of a key. Of two numbers for one key the smaller applies."""
        cap = self._caps.get(key)
        if cap is None:
            cap = self._caps[key] = Cap(name, limit, shared=shared)
        cap.limit = min(cap.limit, limit)
        return cap

    def pace(self, key: Hashable, name: str, rate: Rate, *, shared: str = "") -> Pace:
        """Return the rate of a key. Of two for one key the longer interval and the smaller burst apply."""
        pace = self._paces.get(key)
        if pace is None:
            pace = self._paces[key] = Pace(name, rate.interval, rate.burst, shared=shared)
        pace.interval = max(pace.interval, rate.interval)
        pace.burst = min(pace.burst, rate.burst)
        return pace

    @staticmethod
    def blocked(layers: Layers, member: Hashable, now: float) -> Blocked | None:
        """Return what would refuse a call now; None when it would be admitted."""
        for cap in layers.caps:
            if not cap.has_room(member):
                return Blocked(cap=cap)
        if layers.paces:
            ready = max(pace.next_start for pace in layers.paces)
            if ready > round(now * MICROSECONDS):
                return Blocked(until=ready / MICROSECONDS)
        return None

    @staticmethod
    def acquire(layers: Layers, member: Hashable, now: float) -> Lease | Blocked:
        """Take a place under every cap and a start of every rate, or nothing."""
        blocked = Limits.blocked(layers, member, now)
        if blocked is not None:
            return blocked
        for pace in layers.paces:
            pace.start(round(now * MICROSECONDS))
        for cap in layers.caps:
            cap.take(member)
        return Lease(member, list(layers.caps))

    @staticmethod
    def release(lease: Lease, cap: Cap | None = None) -> tuple[Cap, ...]:
        """Give back the place under one cap, or under all that are left.

        Returns:
          the caps that have a free place more.

        Raises:
          IllegalFact: the lease does not have this cap any more.
        """
        freed = tuple(lease.caps)
        if cap is None:
            lease.caps.clear()
        elif cap in freed:
            lease.caps.remove(cap)
            freed = (cap,)
        else:
            raise IllegalFact(f"release: the lease holds no place under {cap.name}")
        for each in freed:
            each.give(lease.member)
            place = lease.places.pop(each, None)
            if place is not None:
                place.release()
        return freed
