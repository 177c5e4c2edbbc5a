"""The cooldowns of addresses and the suspensions of sources, which all destinations share.

An address that failed is in **cooldown**: every plan tries it last. No plan leaves it out, because only the circuit of
a destination refuses calls. The key is an endpoint, or a pair of source and endpoint for a failure that only concerns
this source.

A source that cannot be used now is **suspended** until a time: its own address cannot be bound, its proxy has failed
several times, a peer said "not now" to it, or the caller has suspended it.

Destinations share both, because one address may serve hundreds of domains.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from math import inf
from typing import TYPE_CHECKING, Final

from .moments import has_come

if TYPE_CHECKING:
    from random import Random

    from .._outbound_values import Backoff

__all__ = ["PROXY_FAILURES", "PROXY_WINDOW", "Cooldowns", "Strikes", "Suspensions"]

PROXY_FAILURES: Final = 3
"""So many failures of a proxy within `PROXY_WINDOW` suspend its source, where one failed bind(2) is enough: an address
is on this machine or is not, and a proxy may be busy. KumoMTA's `suspend_when_proxy_unhealthy` takes such a rule."""
PROXY_WINDOW: Final = 300.0
"""Seconds."""


class _Cooldown:
    __slots__ = ("failures", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = -inf


class Cooldowns:
    """The failures of addresses and paths.

    Args:
      law: how long a cooldown is.
      expiry: how many seconds after its end a cooldown is forgotten, unless the address has failed again.
      random: where the jitter comes from.
    """

    __slots__ = ("_entries", "_expiry", "_law", "_random")

    def __init__(self, law: Backoff, expiry: float, random: Random) -> None:
        self._law = law
        self._expiry = expiry
        self._random = random
        # In the order of the last failure.
        self._entries: dict[Hashable, _Cooldown] = {}

    def __len__(self) -> int:
        """Return how many addresses and paths are remembered."""
        return len(self._entries)

    def failed(self, key: Hashable, at: float) -> None:
        """Learn that an attempt failed at a time. This never shortens a cooldown."""
        self._forget(at)
        entry = self._entries.pop(key, None) or _Cooldown()
        entry.failures += 1
        entry.until = max(entry.until, at + self._law.delay(entry.failures, self._random.uniform(-1.0, 1.0)))
        self._entries[key] = entry

    def succeeded(self, key: Hashable) -> None:
        """Learn that a connection was established."""
        self._entries.pop(key, None)

    def until(self, key: Hashable) -> float:
        """Return when the cooldown ends; minus infinity when there is not one."""
        entry = self._entries.get(key)
        return -inf if entry is None else entry.until

    def failures(self, key: Hashable) -> int:
        """Return how many attempts in a row have failed."""
        entry = self._entries.get(key)
        return 0 if entry is None else entry.failures

    def _forget(self, now: float) -> None:
        """Drop expired entries from the old end. Each failure drops a few, so memory is bounded."""
        while self._entries:
            key = next(iter(self._entries))
            if self._entries[key].until + self._expiry > now:
                return
            del self._entries[key]


class Strikes:
    """The latest failures of each proxy."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: dict[Hashable, deque[float]] = {}

    def failed(self, key: Hashable, at: float) -> bool:
        """Learn that a proxy failed at a time. Return whether it is one too many; then the count begins anew."""
        times = self._times.setdefault(key, deque(maxlen=PROXY_FAILURES))
        times.append(at)
        if len(times) < PROXY_FAILURES or at - times[0] > PROXY_WINDOW:
            return False
        del self._times[key]
        return True


class Suspensions:
    """Until when, and why, sources are suspended."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[float, str]] = {}

    def __len__(self) -> int:
        """Return how many suspensions are remembered."""
        return len(self._entries)

    def suspend(self, key: Hashable, until: float, reason: str) -> None:
        """Suspend a key until a time. Of two suspensions the one that ends later counts, with its reason."""
        if until > self.until(key):
            self._entries[key] = (until, reason)

    def until(self, key: Hashable) -> float:
        """Return until when a key is suspended; minus infinity when it is not."""
        return self._entries.get(key, (-inf, ""))[0]

    def is_on(self, key: Hashable, now: float) -> bool:
        """Say whether a key is suspended now."""
        return not has_come(self.until(key), now)

    def reason(self, key: Hashable) -> str:
        """Return the reason of a suspension."""
        return self._entries.get(key, (-inf, ""))[1]

    def lift(self, keys: Iterable[Hashable]) -> None:
        """End the suspensions of these keys."""
        for key in keys:
            self._entries.pop(key, None)

    def forget(self, now: float) -> None:
        """Drop the suspensions that have ended."""
        self._entries = {key: entry for key, entry in self._entries.items() if entry[0] > now}
