"""The executor of a race: passes facts to `_engine.race`, and executes the commands that come out.

Nothing here waits. What happened at one instant is processed in one step, between two waits of the driver, so no cancel
comes between a fact and what follows from it.
"""

from __future__ import annotations

import errno
from collections import deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, final

import attrs
from trio import current_time

from ..._engine.race import TIMED_OUT
from ..._engine.race_table import Abandon, Command, Start, Won
from ..._trace import AttemptConnected, AttemptFinished, AttemptStarted
from ..attempt import PENDING, Attempt
from .attempts import RunningAttempt, RunningAttempts, failure, took_too_long
from .mailbox import Established, Failed

if TYPE_CHECKING:
    from ..._engine.race import Race
    from ..._report import Outcome, Phase
    from .first import First
    from .mailbox import Mailbox
    from .plan import RacePlan
    from .telling import Teller


@final
class Executor:
    """Carries one race from instant to instant, and knows what came of it.

    Args:
      plan: what was asked for.
      race: the engine.
      first: the attempt that has begun already, which the first `Start` stands for; None without one.
      began: when the first attempt began, in Trio time.
      mailbox: has the facts that tasks have reported.
      teller: is told of what happens.
    """

    def __init__(
        self, plan: RacePlan, race: Race, first: First | None, began: float, mailbox: Mailbox, teller: Teller
    ) -> None:
        self.attempts = RunningAttempts(mailbox, plan.establish, plan.host_of)
        self.winner: RunningAttempt | None = None
        self.value: Any = None
        """What establish has returned for the winner."""
        self.expired = False
        """Whether the caller's deadline came first."""
        self._plan, self._race = plan, race
        self._first, self._began = first, began
        self._mailbox, self._teller = mailbox, teller
        self._exhausted = False

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.winner is not None or self._exhausted or self.expired or self._mailbox.crash is not None

    def begin(self) -> None:
        """Make the first start, or take over the attempt that stands for it."""
        self._execute(self._race.tick(self._began), self._began)
        self._teller.tell()

    def process(self, *, last: bool = True) -> None:
        """Pass every fact of this instant to the engine, and execute its commands.

        Args:
          last: whether a deadline that has come ends the race; False while passes of the event loop are left.
        """
        now = current_time()
        for fact in self._mailbox.take():
            running = self.attempts.live.get(fact.id)
            if running is None or self.is_over:
                continue  # the engine has ended the attempt; its task reported before it was cancelled
            if isinstance(fact, Failed):
                commands = self._fail(running, fact, now)
            elif isinstance(fact, Established) or self._plan.establish is None:
                self.value = fact.value if isinstance(fact, Established) else None
                commands = self._race.succeeded(fact.id, now)
            else:
                commands = self._progress(running, now)
            self._execute(commands, now)
        if not self.is_over:
            until = self._plan.until
            if now < until or (until == -inf and not last):
                self._execute(self._race.tick(now), now)
            elif last:
                self.expired = True
        self._teller.tell()

    def cancel_all(self, keep: RunningAttempt | None = None) -> None:
        """Close what is open. After the end of a race this does nothing.

        Args:
          keep: the winner, if the caller is to have it.
        """
        now = current_time()
        self._execute(self._race.cancel(now), now)
        self.attempts.stop_all()  # whatever the engine thinks, if it was interrupted
        if self.winner is not None and self.winner is not keep:
            self.attempts.close(self.winner)

    # ------------------------------------------------------------------ facts

    def _fail(self, running: RunningAttempt, fact: Failed, now: float) -> list[Command]:
        self._end(running, fact.phase, "failed", fact.code, fact.error, fact.reason, now)
        return self._race.failed(
            fact.id, now, phase=fact.phase, errno=fact.code, emitted=fact.emitted, reason=fact.reason
        )

    def _progress(self, running: RunningAttempt, now: float) -> list[Command]:
        running.attempt.phase = "establish"
        self._teller.note(AttemptConnected, running.id, running.endpoint, now)
        return self._race.progressed(running.id, now)

    # ------------------------------------------------------------------ commands

    def _execute(self, commands: list[Command], now: float) -> None:
        if not commands:
            return
        queue = deque(commands)
        while queue:
            command = queue.popleft()
            if isinstance(command, Start):
                queue.extend(self._start(command))
            elif isinstance(command, Abandon):
                self._abandon(command, now)
            elif isinstance(command, Won):
                winner = self.winner = self.attempts.take(command.id)
                phase: Phase = "connect" if self._plan.establish is None else "establish"
                self._teller.note(AttemptFinished, winner.id, winner.endpoint, "won", phase, None, now)
            else:
                self._exhausted = True

    def _start(self, start: Start) -> list[Command]:
        plan = self._plan
        source, endpoint = start.candidate
        if plan.host_of is not None:
            plan.host_of.begin(endpoint)
        first, self._first = self._first, None
        # The attempt that has begun already began before the pass of the loop that it was given.
        began = current_time() if first is None else self._began
        tells = plan.observer is not None
        if tells:
            self._teller.note(AttemptStarted, start.id, endpoint, source, start.cause, began, *start.memory)
        if first is None:
            proxied = plan.through_proxy if source is not None and source.proxy is not None else None
            attempt = (proxied or Attempt)(endpoint, source, began)
            options = attrs.evolve(plan.options, multipath=False) if start.plain else plan.options
            try:
                code = attempt.begin_and_poll(options, factory=plan.factory)
            except BaseException:  # written out, as in `tcp_connect`
                attempt.close()
                raise
            if code not in (0, PENDING):
                attempt.close()
        else:
            attempt, code = first.attempt, first.code
        now = current_time()
        asked = plan.options
        if asked.multipath and not (start.plain or attempt.sock is None or attempt.asks_for_multipath(asked)):
            self._race.no_multipath()
        if code not in (0, PENDING):
            # The text is made on demand: a race that is won does not need it.
            self.attempts.errors[start.id] = partial(attempt.error, code, now - began)
            phase, reason = attempt.phase, attempt.reason(code)
            if tells:
                self._teller.note(AttemptFinished, start.id, endpoint, "failed", phase, code, now, reason)
            emitted = attempt.may_have_sent(code)
            return self._race.failed(start.id, now, phase=phase, errno=code, emitted=emitted, reason=reason)
        running = self.attempts.start(start.id, attempt, connected=not code)
        if code:
            return []
        if plan.establish is None:
            return self._race.succeeded(start.id, now)
        if first is None:
            return self._progress(running, now)
        self.attempts.go_on_with(running, first)
        commands = self._progress(running, first.connected)
        error, first.error = first.error, None  # its traceback holds `first`, and a cycle would be left
        return commands if error is None else commands + self._fail(running, failure(running, error), now)

    def _abandon(self, abandon: Abandon, now: float) -> None:
        running = self.attempts.live.get(abandon.id)
        if running is None:
            return  # the attempt has ended already, and its socket is closed
        attempt = running.attempt
        phase = attempt.phase
        self._race.ended_in(abandon.id, phase)
        if abandon.reason == "attempt_timeout":
            self._end(running, phase, "timed out", errno.ETIMEDOUT, took_too_long(attempt, now), TIMED_OUT, now)
        else:
            outcome: Outcome = "cancelled" if abandon.reason == "cancelled" else "lost"
            self._end(running, phase, outcome, None, None, None, now)

    def _end(
        self,
        running: RunningAttempt,
        phase: Phase,
        outcome: Outcome,
        code: int | None,
        error: Exception | None,
        reason: str | None,
        now: float,
    ) -> None:
        self.attempts.stop(running.id, error)
        self._teller.note(AttemptFinished, running.id, running.endpoint, outcome, phase, code, now, reason)
