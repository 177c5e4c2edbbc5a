"""The race: which endpoint is tried when, which attempt has won, and which attempts are to be closed.

Theory of operation
===================

A race is two coupled machines. Both are driven from outside: facts go in together with the time, commands come out,
and `deadline` says when the race needs the next `tick`. It reads no clock, no socket and no random numbers, so the
same facts always give the same commands.

**The race** is *open* while more candidates may come and *closed* once the driver said that none will. It ends as
*won*, *exhausted* (every attempt failed, nothing is left to try) or *cancelled*. Each end is final.

**A candidate** waits until it is started; from then on it is an *attempt* with an id: *connecting*, then perhaps
*establishing* (TCP is up, the caller's own test runs), then over: *won*, *failed*, *timed out* (``attempt_timeout``
passed), *lost* (another won) or *cancelled*. An attempt that found this machine out of descriptors
or memory is *starved* while another is alive. Its endpoint has not failed, so it does not bring the next start forward.
The next start, after the end of an attempt or the delay, starts it again, before all waiting candidates. Its row in the
report is that of its last try.

Facts come from four places:

- The candidate source calls `add`, `skip` (no source reaches the candidate, or the caller's filter refuses it),
  `replace_order` and `no_more`. These only change the list, so that a source can add and sort in one step. Their
  commands come out of the next `tick`. Of one instant, they are to be told before the facts of attempts: a failure
  starts the first candidate that is known by then.
- The task of an attempt reports `progressed` at most once, then `failed` or `succeeded` exactly once.
- The timer calls `tick`, at `deadline` or at any other time.
- The driver calls `cancel`.

Every pair of state and fact is in `race_table`. An illegal pair raises `IllegalFact` and changes nothing.

**Late facts** are those about something that the race has ended itself. They are not bugs, and are ignored by name:

- about an attempt that was abandoned: its task had finished before the command to end it, and reports after it. Two
  connections that succeed in one pass of the event loop are the common case: one wins, and the success of the other is
  late. The answer to a late success is ``Abandon(id, "late")``, because its connection has to be closed. Late progress
  and a late failure have no answer.
- about the race when it is over: a lookup answers before it is stopped, a timer had fired, a cancel comes after the
  win. A late `cancel` does not undo the win.

**When** the next candidate is started is `race_schedule`'s decision: by the attempt delay, or sooner when an attempt
fails. The race asks it whenever a candidate waits, a slot is free and time has passed or a fact has come.

**A memory of earlier connects** (`race_memory`), where there is one, says which candidate is next, how long the delay
after its start is, and whether a start that only the timer has caused may be made.

**MPTCP.** When the attempts ask for it, the best endpoint gets one more attempt, over plain TCP, at the end of the
list: a middlebox may drop a SYN that has the option, and an MPTCP socket may refuse another option that was asked for.
The plain attempt starts when a start is due and no candidate waits, also while more may come. It goes to the endpoint
of the first attempt that got no answer. A refusal by the peer is an answer: a race in which every peer refused ends
without a plain attempt.

An attempt that may still succeed is never ended because another is to start. At the limit on attempts in flight the
next one waits. ``attempt_timeout`` keeps black holes from taking every slot for ever.
"""

from __future__ import annotations

from errno import ETIMEDOUT
from math import inf
from typing import TYPE_CHECKING, Final, Literal

from .._policy import Adaptive
from .._report import Attempt
from .facts import ILLEGAL, LATE, IllegalFact
from .race_candidates import CandidateList
from .race_schedule import Schedule
from .race_table import (
    ATTEMPT_FACTS,
    RACE_FACTS,
    Abandon,
    Candidate,
    Command,
    Exhausted,
    Start,
    Won,
)
from .race_tries import Try, records
from .shortage import SHORTAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .._policy import RacePolicy
    from .._report import Phase
    from .race_memory import RaceMemory
    from .race_table import AttemptFact, AttemptState, RaceFact, RaceState

__all__ = ["MAX_RACED", "Race"]

MAX_RACED: Final = 64
"""How many candidates one race starts. The owner of the DNS zone chooses how many addresses there are, and RFC 9623
section 4 asks to limit the number of children. 64 starts at the default delay take 16 seconds."""


TIMED_OUT: Final = "took longer than attempt_timeout"
"""The reason of an attempt that `attempt_timeout` has ended."""


class Race:
    """One race, from the first candidate to its end.

    The first attempt may be run before there is a race at all: create it with the time of that start, and the first
    `tick` at the same time gives the `Start` that has been executed already.

    Args:
      policy: the delays and limits.
      now: when the race began, in seconds on any clock; the origin of the times in `records`.
      candidates: those known from the start, in the order to try them in. Of duplicates the first counts.
      more: whether others may come; if so, `no_more` has to be called in the end.
      multipath: whether the attempts ask for MPTCP, so that one over plain TCP is to follow.
      memory: of earlier connects, for this race; with an `Adaptive` delay there is one.
    """

    __slots__ = (
        "_candidates", "_latest", "_limit", "_live", "_memory", "_origin", "_plain_is_due", "_schedule", "_starved",
        "_timeout", "_tries", "state",
    )  # fmt: skip

    def __init__(
        self,
        policy: RacePolicy,
        now: float,
        candidates: Iterable[Candidate] = (),
        *,
        more: bool,
        multipath: bool = False,
        memory: RaceMemory | None = None,
    ) -> None:
        delay = policy.attempt_delay
        self._schedule = Schedule(delay.initial if isinstance(delay, Adaptive) else delay, now)
        self._memory = memory
        self._timeout = policy.attempt_timeout
        self._limit = policy.max_in_flight
        self._origin = now
        self.state: RaceState = "open" if more else "closed"
        self._candidates = CandidateList(candidates)
        self._tries: list[Try] = []
        # In order of start, so the first one is the next to time out.
        self._live: dict[int, Try] = {}
        self._starved: dict[int, Try] = {}
        self._latest = -1
        self._plain_is_due = multipath

    @property
    def deadline(self) -> float:
        """When `tick` has to be called at the latest: `math.inf` for never, `-math.inf` for at once."""
        if RACE_FACTS[self.state]["tick"] == LATE:
            return inf
        if self._is_exhausted():
            return -inf
        return min(self._schedule.next_start if self._can_start() else inf, self._expiry())

    @property
    def full(self) -> bool:
        """Whether as many candidates are known as one race will start: more would only lengthen the report."""
        return len(self._tries) + len(self._candidates.waiting) >= MAX_RACED

    # Facts about candidates: they change the list, and the next tick acts on it.

    def add(self, candidates: Iterable[Candidate], now: float) -> None:
        """Take more candidates, at the end of the list. One that waits keeps its place; one that was skipped waits."""
        if not self._takes("add"):
            return
        nobody_waited = not self._candidates.waiting and not self._starved and self._plain() is None
        self._candidates.add(candidates)
        if nobody_waited and self._candidates.waiting:
            # Idle means that every attempt ended before `now`: facts of one instant have no order.
            idle = not self._live and all(row.ended != now for row in self._tries)
            self._schedule.arrived(now, idle=idle)
        if self._memory is not None:
            self._memory.look_again()

    def skip(self, candidates: Mapping[Candidate, str]) -> None:
        """Report candidates that are not to be tried. One that waits does not any more; attempts stay as they are.

        Args:
          candidates: why not, in one line for each.
        """
        if self._takes("skip"):
            self._candidates.skip(candidates)

    def replace_order(self, candidates: Iterable[Candidate]) -> None:
        """Put the waiting candidates into this order.

        Args:
          candidates: every candidate that waits. Those that do not wait any more may be among them, so that the
            complete list can be sorted, as RFC 8305 section 3 asks for when answers come late.

        Raises:
          IllegalFact: one that waits is missing, or one is unknown.
        """
        if self._takes("replace_order"):
            self._candidates.replace_order(candidates)

    def no_more(self) -> None:
        """Learn that no more candidates will come."""
        if self._takes("no_more"):
            self.state = "closed"

    def no_multipath(self) -> None:
        """Learn that this system has no MPTCP: all attempts are plain TCP, so no plain attempt follows. Idempotent."""
        if self._takes("no_multipath"):
            self._plain_is_due = False

    # Facts about time and attempts: they return commands. A command that ends the race is the last of them.

    def tick(self, now: float) -> list[Command]:
        """Learn that time has passed. At most one attempt is started.

        Only this ends attempts that took too long. So a result that the driver reports in the same pass, before this
        call, still counts at its time limit.
        """
        commands: list[Command] = []
        if not self._takes("tick"):
            return commands
        while now >= self._expiry():
            attempt, row = next(iter(self._live.items()))
            row.state = "timed out"
            row.errno = ETIMEDOUT
            row.reason = TIMED_OUT
            self._end(attempt, row, now)
            commands.append(Abandon(attempt, "attempt_timeout"))
        if self._memory is not None and self._can_start():
            self._ask(self._memory, now)
        return self._go_on(now, commands)

    def progressed(self, attempt: int, now: float) -> list[Command]:
        """Learn that an attempt's TCP is up and establish runs on it."""
        row = self._heard(attempt, "progressed")
        if row is None:
            return []
        row.phase = "establish"
        if self._memory is not None:
            self._memory.connected(attempt, now)
        self._schedule.progressed(row.started, now)
        return self._go_on(now, [])

    def failed(
        self,
        attempt: int,
        now: float,
        *,
        phase: Phase,
        errno: int | None,
        emitted: bool = True,
        reason: str | None = None,
    ) -> list[Command]:
        """Learn that an attempt has failed, and closed what it had open.

        Args:
          attempt: its id.
          now: the time.
          phase: the phase in which it failed.
          errno: the kernel's; None when establish refused without one. A shortage of this machine (see
            `SHORTAGE`) is no failure while another attempt is alive.
          emitted: whether it may have sent a packet.
          reason: why, in one line, for the report.
        """
        ran_out = errno in SHORTAGE and phase != "establish" and not self._live.keys() <= {attempt}
        row = self._heard(attempt, "ran_out" if ran_out else "failed")
        if row is None:
            return []
        row.phase = phase
        row.errno = errno
        row.reason = reason
        if not emitted and attempt == self._latest:
            self._schedule.nothing_was_sent()
        if ran_out:
            row.ended = now
            self._starved[attempt] = self._live.pop(attempt)
            self._schedule.ran_out()
            if self._memory is not None:
                self._memory.end(attempt, now, "local")
        else:
            self._end(attempt, row, now, is_local=not emitted or phase in ("socket", "bind"))
        return self._go_on(now, [])

    def succeeded(self, attempt: int, now: float) -> list[Command]:
        """Learn that an attempt has connected, and that establish, if there is one, has returned."""
        row = self._heard(attempt, "succeeded")
        if row is None:
            return [Abandon(attempt, "late")]
        row.ended = now
        del self._live[attempt]
        self.state = "won"
        if self._memory is not None:
            self._memory.end(attempt, now, "won")
        commands = self._abandon_all(now, "lost")
        commands.append(Won(attempt))
        return commands

    def ended_in(self, attempt: int, phase: Phase) -> None:
        """Learn in which phase an attempt was that the race has told to be abandoned, for its row in the report.

        An attempt through a proxy is in "bind" until the proxy has been asked, and reports nothing by then.
        """
        self._tries[attempt].phase = phase

    def cancel(self, now: float) -> list[Command]:
        """Learn that the caller does not want the result any more."""
        if not self._takes("cancel"):
            return []
        self.state = "cancelled"
        return self._abandon_all(now, "cancelled")

    def records(self) -> tuple[Attempt, ...]:
        """Return every candidate once: the attempts in order of their ids, then those that were never started.

        Raises:
          IllegalFact: the race is not over, so some rows have no outcome yet.
        """
        if RACE_FACTS[self.state]["tick"] != LATE:
            raise IllegalFact(f"records: the race is still {self.state}")
        notes = None if self._memory is None else self._memory.notes
        return records(self._tries, self._candidates.waiting, self._candidates.skipped, self._origin, notes or {})

    def _takes(self, fact: RaceFact) -> bool:
        """Say whether a fact about the race counts: False when it is late."""
        becomes = RACE_FACTS[self.state][fact]
        if becomes == ILLEGAL:
            raise IllegalFact(f"{fact}: not while the race is {self.state}")
        return becomes != LATE

    def _heard(self, attempt: int, fact: AttemptFact) -> Try | None:
        """Move an attempt on by what was reported of it, and return it; None when the report is late."""
        row = self._tries[attempt] if 0 <= attempt < len(self._tries) else None
        state: AttemptState = "waiting" if row is None else row.state
        becomes = ATTEMPT_FACTS[state][fact]
        if row is None or becomes == ILLEGAL:
            raise IllegalFact(f"{fact}: not while attempt {attempt} is {state}")
        if becomes == LATE:
            return None
        row.state = becomes
        return row

    def _can_start(self) -> bool:
        if len(self._live) >= self._limit:
            return False
        return bool(self._starved) or self._has_waiting() or self._plain() is not None

    def _has_waiting(self) -> bool:
        return bool(self._candidates.waiting) and len(self._tries) < MAX_RACED

    def _plain(self) -> Candidate | None:
        """Return the candidate of the plain attempt, None when it is not to be made."""
        if not self._plain_is_due:
            return None
        return next((row.candidate for row in self._tries if row.is_unanswered), None)

    def _is_exhausted(self) -> bool:
        if self._live or self._starved or self._plain() is not None:
            return False
        return len(self._tries) >= MAX_RACED or (self.state == "closed" and not self._candidates.waiting)

    def _expiry(self) -> float:
        """Return when the next attempt times out."""
        for row in self._live.values():
            return row.started + self._timeout
        return inf

    def _end(self, attempt: int, row: Try, now: float, *, is_local: bool = False) -> None:
        """Record a failure, a time-out included."""
        if self._memory is not None:
            self._memory.end(attempt, now, "local" if is_local else "failed", row.why())
        self._schedule.ended(row.started, now, was_full=len(self._live) >= self._limit)
        row.ended = now
        del self._live[attempt]

    def _go_on(self, now: float, commands: list[Command]) -> list[Command]:
        """Make the start that is due, or end the race."""
        if self._can_start() and now >= self._schedule.next_start:
            if self._may_start(now):
                commands.append(self._start(now))
            else:
                self._schedule.held_back(now)
        elif self._is_exhausted():
            self.state = "exhausted"
            if self._memory is not None:
                self._memory.over()
            commands.append(Exhausted())
        return commands

    def _ask(self, memory: RaceMemory, now: float) -> None:
        """Ask the memory whether the next start is due at another time than the schedule says."""
        if not self._tries:
            begins = memory.begins(self._candidates.waiting, now, more=self.state == "open")
            if begins is not None:
                self._schedule.begins(begins)
        elif memory.has_learned(now):
            self._schedule.learned(now)

    def _may_start(self, now: float) -> bool:
        """Ask the memory about a start that only the timer has caused: no attempt has ended at its instant."""
        if self._memory is None or self._schedule.cause != "delay" or not self._live:
            return True
        ended = (row.ended for attempt, row in enumerate(self._tries) if attempt not in self._live)
        return now in ended or self._memory.may_hedge()

    def _start(self, now: float) -> Start:
        if self._starved:
            attempt, row = next(iter(self._starved.items()))
            del self._starved[attempt]
            row.begin(self._schedule.cause, now)
        else:
            plain = None if self._has_waiting() else self._plain()
            if plain is not None:
                self._plain_is_due = False
                row = Try(plain, self._schedule.cause, now, plain=True)
            else:
                waiting = self._candidates.waiting
                candidate = next(iter(waiting)) if self._memory is None else self._memory.choose(waiting, now)
                self._candidates.race(candidate)
                row = Try(candidate, self._schedule.cause, now)
            attempt = len(self._tries)
            self._tries.append(row)
        self._latest = attempt
        self._live[attempt] = row
        note: str | None = None
        if self._memory is not None:
            row.delay, row.delay_reason = self._memory.begin(attempt, row.candidate, now)
            note = self._memory.notes.get(row.candidate)
        self._schedule.started(now, sets_floor=not row.is_loopback, delay=row.delay)
        return Start(attempt, row.candidate, row.cause, row.plain, (row.delay, row.delay_reason, note))

    def _abandon_all(self, now: float, reason: Literal["lost", "cancelled"]) -> list[Command]:
        commands: list[Command] = []
        for attempt, row in self._live.items():
            row.state = reason
            row.ended = now
            commands.append(Abandon(attempt, reason))
            if self._memory is not None:
                self._memory.end(attempt, now, "given up")
        self._live.clear()
        if self._memory is not None:
            self._memory.over()
        return commands
