"""The memory of a DNS resolver: which answers it keeps, for how long, and when an old one is better than no answer.

Each key has at most one answer and one failure:

- An answer is *fresh* for its ttl, within the bounds of `CacheRules`. A negative one (RFC 2308) has a bound of its own.
- Then it is *stale* for `CacheRules.max_stale` seconds more. It is used where no fresh one can be had (RFC 8767).
- A failure is remembered for a second, as RFC 9520 section 3.2 demands, so that a broken server is not asked by every
  call. Beside an answer that is stale it is remembered for half a minute: RFC 8767 section 5 asks for no refresh more
  often than that.

An answer of a ttl of 0 is not kept: it was for the calls that asked together.

The cache is bounded. A new key pushes out the one that has been used least recently.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar, final

import attrs

__all__ = ["FAILURE_KEPT", "RECHECK_AFTER", "STALE_TTL", "CacheRules", "DnsCache", "Found"]

FAILURE_KEPT: Final = 1.0
"""RFC 9520 section 3.2: "Resolvers MUST cache resolution failures for at least 1 second"."""
RECHECK_AFTER: Final = 30.0
"""RFC 8767 section 5: attempts to refresh from failing servers "no more frequently than every 30 seconds"."""
STALE_TTL: Final = 30.0
"""RFC 8767 section 4: a stale answer is given a ttl, with "a value of 30 seconds RECOMMENDED"."""

V = TypeVar("V")


@attrs.frozen(kw_only=True)
class CacheRules:
    """How long answers are kept, in seconds, and how many."""

    min_ttl: float
    max_ttl: float
    max_negative_ttl: float
    """Of answers without records."""
    max_stale: float
    """How long an expired answer may still be used."""
    size: int


@attrs.frozen
class Found(Generic[V]):
    """What is known under a key."""

    value: V | None
    """The answer, None when it is not known, not even a stale one."""
    ttl: float
    """Seconds that it may be kept: what is left of its ttl, or `STALE_TTL`."""
    is_fresh: bool
    failure: str | None
    """Why the last question failed, while it is too early to ask again."""


class _Entry(Generic[V]):
    __slots__ = ("expires", "failure", "failure_until", "value")

    def __init__(self) -> None:
        self.value: V | None = None
        self.expires = 0.0
        self.failure: str | None = None
        self.failure_until = 0.0


@final
class DnsCache(Generic[V]):
    """Answers and failures, by key.

    Args:
      rules: how long they are kept.
    """

    __slots__ = ("_entries", "_rules")

    def __init__(self, rules: CacheRules) -> None:
        self._rules = rules
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def clamped(self, ttl: float, *, negative: bool) -> float:
        """Return how long an answer is fresh."""
        rules = self._rules
        ttl = min(max(ttl, rules.min_ttl), rules.max_ttl)
        return min(ttl, rules.max_negative_ttl) if negative else ttl

    def keep(self, key: Hashable, value: V, ttl: float, now: float, *, negative: bool) -> None:
        """Take an answer, in place of what was known."""
        self._entries.pop(key, None)
        seconds = self.clamped(ttl, negative=negative)
        if seconds <= 0:
            return
        entry = self._entry(key)
        entry.value = value
        entry.expires = now + seconds

    def fail(self, key: Hashable, failure: str, now: float, *, kept: float = FAILURE_KEPT) -> None:
        """Remember that a question could not be answered. An answer that is known stays.

        Args:
          key: the question.
          failure: why, in words.
          now: the time.
          kept: seconds until the question is asked again; longer beside a stale answer.
        """
        entry = self._entry(key)
        entry.failure = failure
        entry.failure_until = now + (max(RECHECK_AFTER, kept) if self._is_usable(entry, now) else kept)

    def find(self, key: Hashable, now: float) -> Found[V] | None:
        """Return what is known under a key; None when nothing is, and somebody has to be asked."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        if entry.value is not None and now < entry.expires:
            return Found(entry.value, entry.expires - now, True, None)
        failure = entry.failure if now < entry.failure_until else None
        if self._is_usable(entry, now):
            return Found(entry.value, STALE_TTL, False, failure)
        if failure is None:
            del self._entries[key]
            return None
        return Found(None, 0.0, False, failure)

    def _is_usable(self, entry: _Entry[V], now: float) -> bool:
        return entry.value is not None and now < entry.expires + self._rules.max_stale

    def _entry(self, key: Hashable) -> _Entry[V]:
        """Return the entry of a key, a new one if need be, as the one that was used last."""
        entry = self._entries.setdefault(key, _Entry())
        self._entries.move_to_end(key)
        if len(self._entries) > self._rules.size:
            self._entries.popitem(last=False)
        return entry
