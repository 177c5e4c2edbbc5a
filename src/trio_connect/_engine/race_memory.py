"""One race, as the memory of earlier connects knows it: what it waits for, and what it may start.

**Who is next.** A start goes to the first waiting candidate that is in its place (`Memory.level`), else to the best of
those that are put behind. So an address that another race has had pending for longer than its delay is not tried by a
race that has another one.

**The first start.** While more candidates may come and all that are known are put behind, the first start waits, at
most the resolution delay. So an IPv6 address that is known to be dead does not begin a race because its answer came a
millisecond before the IPv4 one. A candidate that comes when all that is pending has failed lately starts at once.

**Hedges.** A start that only the timer has caused is a hedge. Of the races that wait for one address no more than
``max_in_flight`` at a time hedge. Any other is held back for one delay, in which it mostly learns more. With a budget
each hedge takes a token, and without one it is held back until there is one. A start that a failure has caused, or that
follows from what another race has learned, is never held back.

**Learning from each other.** When an address fails in one race, or is slow, every race that waits for it hears of it. A
race that waits for nothing else starts its next candidate at once: its own delay would only confirm what is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, final

from .._durations import short_duration
from .._policy import Adaptive
from .history import FINE, source_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._policy import RacePolicy
    from .history import Key, Memory
    from .race_table import Candidate

__all__ = ["RaceMemory"]

Ending: TypeAlias = Literal["won", "failed", "given up", "local"]
"""How an attempt has ended: "given up" because another has won or nobody wants it any more, "local" for a reason that
says nothing of the address."""


@final
class _Wait:
    """One attempt under way."""

    __slots__ = ("_race", "began", "connected", "delay", "key", "overdue")

    def __init__(self, race: RaceMemory, key: Key, began: float, delay: float) -> None:
        self._race = race
        self.key = key
        self.began = began
        self.delay = delay
        self.overdue = began + delay
        self.connected = False

    def learn(self) -> None:
        self._race.learn()


@final
class RaceMemory:
    """What one race reads of a memory, and writes into it.

    Args:
      memory: shared with other races.
      network: under which to remember.
      partition: likewise.
      policy: of the race.
      offset: what to add to the race's times for those of the memory.
      wake: called when the race has learned something from another one and should tick.
      measures: whether the time of a TCP handshake is a round trip: not with TCP Fast Open.
    """

    __slots__ = (
        "_has_news",
        "_hedged_for",
        "_limit",
        "_live",
        "_measures",
        "_memory",
        "_network",
        "_offset",
        "_partition",
        "_patience",
        "_patient_since",
        "_policy_delay",
        "_wake",
        "_was_held",
        "notes",
    )

    def __init__(
        self,
        memory: Memory,
        network: str,
        partition: str,
        policy: RacePolicy,
        *,
        offset: float = 0.0,
        wake: Callable[[], object],
        measures: bool = True,
    ) -> None:
        self._memory = memory
        self._network = network
        self._partition = partition
        self._policy_delay = policy.attempt_delay
        self._patience = policy.resolution_delay
        self._limit = policy.max_in_flight
        self._offset = offset
        self._wake = wake
        self._measures = measures
        # In order of start.
        self._live: dict[int, _Wait] = {}
        self._hedged_for: list[Key] = []
        self._has_news = self._was_held = False
        self._patient_since: float | None = None
        self.notes: dict[Candidate, str] = {}
        """Why candidates were put behind others, or tried again, for the report."""

    def begins(self, waiting: Iterable[Candidate], now: float, *, more: bool) -> float | None:
        """Return when the first start is due; None for when it is anyway.

        Args:
          waiting: the candidates.
          now: the time.
          more: whether others may come.
        """
        at = now + self._offset
        if not more or any(self._memory.level(self._key(candidate), at) == FINE for candidate in waiting):
            return None if self._patient_since is None else now
        if self._patient_since is None:
            self._patient_since = now
        return self._patient_since + self._patience

    def choose(self, waiting: Iterable[Candidate], now: float) -> Candidate:
        """Return which of the waiting candidates to start: the first that is in its place, else the least bad."""
        at = now + self._offset
        best: Candidate | None = None
        least = FINE
        for candidate in waiting:
            key = self._key(candidate)
            level = self._memory.level(key, at)
            why = self._memory.why(key, at)
            if why is not None:
                self.notes[candidate] = why
            if level == FINE:
                return candidate
            if best is None or level < least:
                best, least = candidate, level
        assert best is not None, "something waits when there is a start"
        return best

    def begin(self, attempt: int, candidate: Candidate, now: float) -> tuple[float | None, str | None]:
        """Learn that an attempt begins; return the delay after it, None for the policy's, and why it is that long."""
        at = now + self._offset
        key = self._key(candidate)
        delay: float | None = None
        why: str | None = None
        if isinstance(self._policy_delay, Adaptive):
            delay, why = self._memory.delay(key, self._policy_delay, at)
            wait = _Wait(self, key, at, delay)
        else:
            wait = _Wait(self, key, at, self._policy_delay)
        self._memory.tried(key, at)
        self._live[attempt] = wait
        self._memory.waits.setdefault(key, {})[wait] = None
        self._was_held = False
        return delay, why

    def connected(self, attempt: int, now: float) -> None:
        """Learn that an attempt's TCP is up, and establish runs on it."""
        wait = self._live[attempt]
        wait.connected = True
        took = self._measure(wait, now)
        # The schedule postpones the next start by as much.
        wait.overdue += min(took, wait.delay)

    def end(self, attempt: int, now: float, how: Ending, reason: str = "") -> None:
        """Learn that an attempt is over.

        Args:
          attempt: its id.
          now: the time.
          how: see `Ending`.
          reason: of a failure, in one line.
        """
        at = now + self._offset
        wait = self._live.pop(attempt)
        self._forget(wait)
        if how == "won":
            if not wait.connected:
                self._measure(wait, now)
            self._memory.succeeded(wait.key, at)
        elif how == "failed":
            self._memory.failed(wait.key, at, reason, began=wait.began)
        elif how == "given up" and at >= wait.overdue:
            reason = f"slow, no result within {short_duration(at - wait.began)},"
            self._memory.failed(wait.key, at, reason, began=wait.began, slow=True)

    def over(self) -> None:
        """Learn that the race is over."""
        for key in self._hedged_for:
            left = self._memory.hedges[key] - 1
            if left:
                self._memory.hedges[key] = left
            else:
                del self._memory.hedges[key]
        self._hedged_for.clear()

    def may_hedge(self) -> bool:
        """Say whether a start that only the timer has caused may be made now, and count it if so."""
        key = next(iter(self._live.values())).key
        hedges = self._memory.hedges
        if hedges.get(key, 0) >= self._limit and not self._was_held:
            self._was_held = True
            return False
        if not self._memory.take_token():
            return False
        hedges[key] = hedges.get(key, 0) + 1
        self._hedged_for.append(key)
        return True

    def look_again(self) -> None:
        """Hear that there are other candidates."""
        self._has_news = True

    def learn(self) -> None:
        """Hear that an address which this race waits for has failed, or was slow, in another race."""
        self.look_again()
        self._wake()

    def has_learned(self, now: float) -> bool:
        """Say, once for each news, whether this race waits in vain for all that it waits for."""
        if not self._has_news or not self._live:
            return False
        self._has_news = False
        at = now + self._offset
        return all(not wait.connected and self._memory.is_avoided(wait.key, at) for wait in self._live.values())

    def _key(self, candidate: Candidate) -> Key:
        source, endpoint = candidate
        return self._network, self._partition, source_key(source, endpoint), endpoint

    def _measure(self, wait: _Wait, now: float) -> float:
        at = now + self._offset
        took = at - wait.began
        if self._measures:
            self._memory.answered(wait.key, took, at)
        return took

    def _forget(self, wait: _Wait) -> None:
        waits = self._memory.waits[wait.key]
        del waits[wait]
        if not waits:
            del self._memory.waits[wait.key]
