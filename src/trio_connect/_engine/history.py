"""What is remembered of earlier connects: round-trip times and outcomes, and what follows from them.

One entry belongs to a **key**: a network, a partition, a source and an endpoint. Networks keep provisioning domains
apart (RFC 8305 section 4: history "SHOULD NOT be used across networks"), partitions keep apart what must not learn from
each other.

**Round-trip times** are smoothed as RFC 6298 section 2 says. A sample is the time of a TCP handshake. One of a second
or more is not taken: by then the SYN was sent again, and nobody knows which one was answered (section 3, Karn's
algorithm).

**A failure** puts an address behind all others for a time, which doubles with each further failure. So does an attempt
that was given up after its delay had passed, because another address had won: that address is *slow*. Attempts that
were under way at the same time count once. When the time is over, the address is on **trial**: one race at a time tries
it, in its own place. If that connects, the address is as good as any. A failure less than a minute after a connect
goes on counting, because such a connect proves little: a TLS handshake may fail over it.

**The order** that follows is that of RFC 8305 section 4: a lower round-trip time first, then what was used before, both
only among endpoints that the rules 1 to 8 of RFC 6724 do not tell apart. Addresses that failed or are slow come after
all others, as unusable destinations do (rule 1: "known to be unreachable").

**Exploration.** An order that only repeats itself never learns that another address has become better. So among
endpoints that the rules do not tell apart, the one that was not tried for the longest time is tried first when
``explore_after`` has passed without such a trial. Clients with different histories converge by this.

What is not heard of for a ``lifetime`` is forgotten, and of more entries than ``size`` the one that was not used for
the longest time.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import attrs

from .._durations import duration, short_duration
from .._endpoint import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._endpoint import Source
    from .._policy import Adaptive

__all__ = ["FAILED", "FINE", "SLOW", "Entry", "Key", "Limits", "Memory", "SourceKey", "Wait", "source_key"]

SRTT_FACTOR: Final = 2
"""No RFC: RFC 6298 takes the smoothed round-trip time once, and waits a second at least. On a steady path the variation
goes to zero, and each answer that takes longer than the mean would come after the delay. A second round-trip time is
the room that the second is in RFC 6298."""

AMBIGUOUS: Final = 1.0
"""RFC 6298 section 2.1: the first SYN is sent again after a second."""

SETTLED: Final = 60.0
"""No RFC: a handshake over a new connection that fails has failed within this time."""

TOKENS_OF_A_SUCCESS: Final = 0.05
"""No RFC: with a budget, about one connect in twenty may hedge."""

FINE: Final = 0
SLOW: Final = 1
FAILED: Final = 2
"""How far back an address goes: in its place, behind all that are fine, behind the slow ones too."""

SourceKey: TypeAlias = "tuple[str, str, str] | None"
"""The local address, the interface and the proxy, without its password; "" for what there is not; None for nothing."""

Key: TypeAlias = "tuple[str, str, SourceKey, Endpoint]"
"""Network, partition, source, endpoint."""


def source_key(source: Source | None, endpoint: Endpoint) -> SourceKey:
    """Return what of a source decides over which way packets go: not its port, name or weight."""
    if source is None:
        return None
    # To a proxy connections of both families may go.
    proxied = source.proxy is not None
    address = f"{source.ipv4 or ''} {source.ipv6 or ''}".strip() if proxied else source.address(endpoint.family) or ""
    key = address, source.interface or "", str(source.proxy) if proxied else ""
    return key if any(key) else None


@attrs.frozen(kw_only=True)
class Limits:
    """The numbers of a memory, in seconds.

    Args:
      size: how many entries there are at most.
      retry_after: how long an address is put behind others after its first failure.
      retry_at_most: likewise, after any number of failures.
      explore_after: how long a better-known address is preferred before another one is tried first.
      lifetime: how long something is remembered that is not heard of again.
      hedge_budget: how many starts a timer alone may cause before successes have to pay for more; None for any number.
    """

    size: int
    retry_after: float
    retry_at_most: float
    explore_after: float
    lifetime: float
    hedge_budget: float | None


@attrs.define(eq=False)
class Entry:
    """What is remembered under one key. Times are on the clock of the memory."""

    since: float
    """When it was first heard of."""
    heard: float
    """When it was last heard of."""
    tried: float = -inf
    """When an attempt last began."""
    used: float = -inf
    """When a connection was last established."""
    srtt: float = 0.0
    rttvar: float = 0.0
    measured: float = -inf
    """When a round trip was last measured."""
    failures: int = 0
    """How many failures have counted so far, one after the other."""
    failed: float = -inf
    until: float = -inf
    """When the address is on trial."""
    doubtful: bool = False
    """Whether it has failed, or was slow, and has not connected since."""
    slow: bool = False
    """Whether the last failure was that it did not answer in time."""
    reason: str = ""

    def measure(self, rtt: float, now: float, *, fresh: bool) -> None:
        """Take a sample of the round-trip time, RFC 6298 sections 2.2 and 2.3."""
        if fresh:
            self.rttvar += (abs(self.srtt - rtt) - self.rttvar) / 4
            self.srtt += (rtt - self.srtt) / 8
        else:
            self.srtt, self.rttvar = rtt, rtt / 2
        self.measured = now

    def succeed(self, now: float) -> None:
        """Learn that a connection was established."""
        self.used = now
        self.doubtful = self.slow = False
        self.until = -inf


class Wait(Protocol):
    """An attempt that is under way."""

    began: float
    overdue: float
    """When it will have been pending for longer than its delay."""

    def learn(self) -> None:
        """Hear that the address it waits for has failed, or was slow, in another race."""
        ...


class Memory:
    """All entries, the attempts that are under way, and the budget of hedges.

    Args:
      limits: its numbers.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.waits: dict[Key, dict[Wait, None]] = {}
        """The attempts that are under way, by their keys, in the order of their starts."""
        self.hedges: dict[Key, int] = {}
        """How many races have hedged because they waited for a key, and are not over."""
        self.latest = -inf
        """When anything was last heard of."""
        # In the order in which they were last heard of.
        self._entries: dict[Key, Entry] = {}
        self._tokens = inf if limits.hedge_budget is None else limits.hedge_budget

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self._entries)

    def entry(self, key: Key, now: float) -> Entry | None:
        """Return an entry that is not too old."""
        entry = self._entries.get(key)
        return None if entry is None or now - entry.heard >= self.limits.lifetime else entry

    def entries(self, now: float) -> Iterator[tuple[Key, Entry]]:
        """Return those that are not too old, the least recently heard of first."""
        return ((key, entry) for key, entry in self._entries.items() if now - entry.heard < self.limits.lifetime)

    def restore(self, key: Key, entry: Entry) -> None:
        """Put an entry in as the one that was last heard of."""
        self._entries.pop(key, None)
        self._entries[key] = entry
        if len(self._entries) > self.limits.size:
            del self._entries[next(iter(self._entries))]

    def clear(self, network: str) -> None:
        """Forget what belongs to one network."""
        self._entries = {key: entry for key, entry in self._entries.items() if key[0] != network}

    # Facts.

    def tried(self, key: Key, now: float) -> None:
        """Learn that an attempt begins."""
        self._hear(key, now).tried = now

    def answered(self, key: Key, rtt: float, now: float) -> None:
        """Learn how long a TCP handshake took."""
        entry = self._hear(key, now)
        if rtt < AMBIGUOUS:
            entry.measure(rtt, now, fresh=self.is_measured(entry, now))

    def succeeded(self, key: Key, now: float) -> None:
        """Learn that a connection was established."""
        self._hear(key, now).succeed(now)
        budget = self.limits.hedge_budget
        if budget is not None:
            self._tokens = min(budget, self._tokens + TOKENS_OF_A_SUCCESS)

    def failed(self, key: Key, now: float, reason: str, *, began: float | None = None, slow: bool = False) -> None:
        """Learn that an attempt has failed, or was given up after its delay.

        One that began before the last failure was known does not count while that failure's time lasts.

        Args:
          key: whose.
          now: when.
          reason: why, in one line.
          began: when the attempt had begun; None for what failed over the last connection that was established.
          slow: whether it was given up.
        """
        entry = self._hear(key, now)
        if began is None:
            began = entry.used
        if began <= entry.failed and now < entry.until:
            return
        goes_on = entry.doubtful or now - entry.used < SETTLED
        entry.failures = entry.failures + 1 if goes_on else 1
        entry.failed, entry.reason, entry.slow, entry.doubtful = now, reason, slow, True
        limits = self.limits
        # The exponent is bounded, so that the power is a number.
        entry.until = now + min(limits.retry_after * 2.0 ** min(entry.failures - 1, 64), limits.retry_at_most)
        for wait in self.waits.get(key, ()):
            wait.learn()

    # What follows.

    def level(self, key: Key, now: float) -> int:
        """Return how far back an address goes."""
        waits = self.waits.get(key)
        entry = self.entry(key, now)
        if entry is not None and entry.doubtful:
            if now < entry.until:
                return SLOW if entry.slow else FAILED
            # On trial: the others wait for what the one race finds.
            return SLOW if waits else FINE
        # The one that began first is asked alone, for there may be thousands.
        return SLOW if waits and next(iter(waits)).overdue <= now else FINE

    def why(self, key: Key, now: float) -> str | None:
        """Return why an address is not in its place, or that it is on trial; None when there is nothing to say."""
        waits = self.waits.get(key)
        entry = self.entry(key, now)
        if entry is not None and entry.doubtful:
            what = f"{entry.reason} {duration(now - entry.failed)} before"
            if now < entry.until:
                return f"put behind: {what}"
            return f"put behind: on trial in another race, {what}" if waits else f"tried again: {what}"
        if waits:
            oldest = next(iter(waits))
            if oldest.overdue <= now:
                return f"put behind: pending in another race for {duration(now - oldest.began)}"
        return None

    def is_avoided(self, key: Key, now: float) -> bool:
        """Say whether the address has failed, or was slow, and its time is not over."""
        entry = self.entry(key, now)
        return entry is not None and now < entry.until

    def is_measured(self, entry: Entry, now: float) -> bool:
        """Say whether the round-trip time of an entry is known well enough."""
        return now - entry.measured < self.limits.lifetime

    def delay(self, key: Key, adaptive: Adaptive, now: float) -> tuple[float, str]:
        """Return the delay after the start of an attempt, and why it is that long.

        It is about when the attempt would send its first packet again (happy-eyeballs v3; RFC 6298 section 2.3).
        """
        entry = self.entry(key, now)
        if entry is None or not self.is_measured(entry, now):
            return adaptive.initial, "initial: no round trip is known"
        seconds = SRTT_FACTOR * entry.srtt + 4 * entry.rttvar
        why = f"round trip {short_duration(entry.srtt)} +- {short_duration(entry.rttvar)}"
        if seconds < adaptive.minimum:
            return adaptive.minimum, f"minimum: {why}"
        if seconds > adaptive.maximum:
            return adaptive.maximum, f"maximum: {why}"
        return seconds, why

    def take_token(self) -> bool:
        """Pay for a start that a timer alone has caused; False when there is nothing left to pay with."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _hear(self, key: Key, now: float) -> Entry:
        entry = self.entry(key, now) or Entry(since=now, heard=now)
        entry.heard = self.latest = now
        self.restore(key, entry)
        return entry
