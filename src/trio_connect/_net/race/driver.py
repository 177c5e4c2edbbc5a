"""The driver of a race: tells `_engine.race` what happened, executes its commands, keeps the time.

While a single attempt of plain TCP is pending, the race has one cancel scope and no task. From the second pending
attempt on it has a nursery with a task for each. The driver's own task collects everything that happened at one
instant, passes it to the engine and executes its commands. Only this task closes sockets, so each is closed exactly
once.
"""

from __future__ import annotations

import errno
from collections import deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, ParamSpec, final

import attrs
import trio
from trio import current_time
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
    wait_writable,
)

from ..._engine.race import TIMED_OUT, Race
from ..._engine.race_table import Abandon, Command, Start, Won
from ..._messages import is_refused, race_exceeded, race_failed, race_late, resolve_failed
from ..._report import ConnectReport, Outcome, Phase
from ..._trace import AttemptConnected, AttemptFinished, AttemptStarted, RaceFinished
from ..attempt import PENDING, Attempt
from ..host_of import with_hosts
from ..sockets.multipath import read_multipath
from ..sockets.stream_socket import close_on_error
from ..sockets.waiting import PASSES, park
from .attempts import RunningAttempt, RunningAttempts, failure, took_too_long
from .errors import out_of_the_group, without_cancellation
from .mailbox import Connected, Established, Fact, Failed, Mailbox
from .telling import Teller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..._answer import Lookup
    from ..._endpoint import Endpoint, Source
    from ..._trace import TraceEvent
    from ..attempt import AnyAttempt
    from ..reports import Pair
    from .candidates import Candidates
    from .first import First
    from .plan import RacePlan

P = ParamSpec("P")


@enable_ki_protection
async def run_race(
    plan: RacePlan,
    pairs: Sequence[Pair] = (),
    skipped: Mapping[Pair, str] | None = None,
    *,
    first: First | None = None,
    candidates: Candidates | None = None,
    lookups: Sequence[Lookup] = (),
) -> Any:
    """Run a race to its end.

    Args:
      plan: what was asked for.
      pairs: the candidates that are known from the start.
      skipped: candidates that are not tried, with the reasons, for the report.
      first: the attempt on the first of `pairs` where it has begun already.
      candidates: brings others while the race runs, or None.
      lookups: those that the call has made before the race, for the report.

    Returns:
      The winner's stream, or what establish returned for it. The stream has its report.

    Raises:
      ConnectFailed: there is no winner.
      ResolveFailed: the lookups of `candidates` found nothing to try.
      DeadlineExceeded: the deadline came first.
      BaseException: what establish or candidates raised, other than the failure of an attempt, as it is.
    """
    return await _Driver(plan, pairs, skipped or {}, first, candidates, lookups).run()


@final
class _Driver:
    """One race from its first attempt to its end; `Offers` for its candidates."""

    def __init__(
        self,
        plan: RacePlan,
        pairs: Sequence[Pair],
        skipped: Mapping[Pair, str],
        first: First | None,
        candidates: Candidates | None,
        lookups: Sequence[Lookup],
    ) -> None:
        self._mailbox = Mailbox()
        memory = plan.memory(self._mailbox.wake)
        self._began = first.attempt.started if first is not None else current_time() if lookups else plan.started
        known = () if self._began > plan.started else pairs
        self._race = Race(plan.policy, plan.started, known, more=True, multipath=plan.options.multipath, memory=memory)
        if pairs is not known:
            self._race.add(pairs, self._began)
        self._race.skip(skipped)
        if candidates is None:
            self._race.no_more()  # last, because a closed list takes none
        self._plan, self._first = plan, first
        self._waited = first is not None and first.code == PENDING
        self._candidates, self._lookups = candidates, lookups
        self._teller = Teller(plan.observer, plan.target)
        self._attempts = RunningAttempts(self._mailbox, plan.establish)
        self._winner: RunningAttempt | None = None
        self._value: Any = None
        self._multipath_info: bytes | None = None
        self._exhausted = self._expired = self._parked = False

    # ------------------------------------------------------------------ the call

    async def run(self) -> Any:
        plan = self._plan
        try:
            if self._first is None:
                await checkpoint_if_cancelled()
            if plan.is_late:
                await checkpoint()
                self._cancel_all()
            else:
                await self._run()
            if self._mailbox.crash is not None:
                raise self._mailbox.crash
        except BaseException:
            self._cancel_all()
            self._finish()
            raise
        finally:
            self._mailbox.discard()
        # The report that the stream will make holds this, so this must not hold the stream.
        winner, self._winner = self._winner, None
        value, self._value = self._value, None
        if winner is None:
            raise self._failure(self._finish())
        self._multipath_info = winner.attempt.multipath_info(plan.options)
        stream = winner.open_stream()
        winner.stream = None
        if plan.establish is None:
            value = stream
        if plan.observer is None:
            stream._set_report(partial(self._make_report, current_time()))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        else:
            try:
                stream._set_report(self._finish())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            except BaseException:  # the observer raised: the caller will not get the winner
                winner.stream = stream
                self._attempts.close(winner)
                raise
        return value

    async def _run(self) -> None:
        self._execute(self._race.tick(self._began), self._began)
        self._teller.tell()
        if self._candidates is None and self._can_poll:
            await self._watch_one()
        if self._candidates is not None or not self._is_over():
            await self._watch_all()
        else:
            if not self._parked:
                await cancel_shielded_checkpoint()
            self._cancel_all(keep=self._winner)

    def _failure(self, report: ConnectReport) -> Exception:
        plan = self._plan
        if plan.is_late:
            return race_late(plan.target, report, plan.started - plan.until)
        if self._expired:
            return race_exceeded(plan.target, report)
        if report.lookups and not report.tried and not any(map(is_refused, report.attempts)):
            names = dict.fromkeys(lookup.host for lookup in report.lookups)
            return resolve_failed(", ".join(names), report)
        return race_failed(plan.target, report, self._attempts.in_order())

    def _is_over(self) -> bool:
        return self._winner is not None or self._exhausted or self._expired or self._mailbox.crash is not None

    def _cancel_all(self, keep: RunningAttempt | None = None) -> None:
        """Close what is open. After the end of a race this does nothing."""
        now = current_time()
        self._execute(self._race.cancel(now), now)
        self._attempts.stop_all()  # whatever the engine thinks, if it was interrupted
        if self._winner is not None and self._winner is not keep:
            self._attempts.close(self._winner)

    def _finish(self) -> ConnectReport:
        """Make the report, and tell the remaining events, the end last."""
        now = current_time()
        report = self._make_report(now)
        self._teller.note(RaceFinished, report, now)
        self._teller.tell()
        return report

    def _make_report(self, ended: float) -> ConnectReport:
        started = self._plan.started
        return ConnectReport(
            lookups=tuple(self._lookups) if self._candidates is None else self._candidates.lookups,
            attempts=with_hosts(self._race.records(), self._plan.host_of),
            started_at=started,
            elapsed=ended - started,
            multipath=read_multipath(self._multipath_info),
        )

    # ------------------------------------------------------------------ candidates

    def offer(self, pairs: Sequence[Pair], skipped: Mapping[Pair, str], *, order: Sequence[Pair] | None = None) -> bool:
        race = self._race
        race.add(pairs, current_time())
        if skipped:
            race.skip(skipped)
        if order is not None:
            race.replace_order(order)
        self._mailbox.wake()
        return not race.full

    def notify(self, kind: Callable[P, TraceEvent], *args: P.args, **kwargs: P.kwargs) -> None:
        self._teller.note(kind, *args, **kwargs)
        self._teller.tell()

    async def _run_candidates(self, candidates: Candidates, nursery: trio.Nursery) -> None:
        try:
            await candidates.run(self, nursery)
            self._race.no_more()
        except BaseException as exc:  # noqa: BLE001 - raised by the driver's task, outside of the nursery
            self._mailbox.crash_with(without_cancellation(exc))
        else:
            self._mailbox.wake()  # no more will come: the engine decides whether that ends the race

    # ------------------------------------------------------------------ waiting

    async def _watch_one(self) -> None:
        """Wait without a task, as long as no more than one attempt is pending."""
        live = self._attempts.live
        while len(live) <= 1 and not self._is_over():
            self._parked = True
            deadline = min(self._race.deadline, self._plan.until)
            if self._waited:
                self._waited = False
            elif live:
                (running,) = live.values()
                assert running.attempt.sock is not None
                wait = park if self._plan.history is None else self._mailbox.park
                await wait(wait_writable, running.attempt.sock.fileno(), deadline)
            else:  # the floor between two starts has to pass
                await trio.sleep_until(deadline)
            self._attempts.poll()
            self._process()

    async def _watch_all(self) -> None:
        """Wait with a task for each pending attempt."""
        error: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    self._attempts.spawn_in(nursery)
                    if self._candidates is not None:
                        nursery.start_soon(self._run_candidates, self._candidates, nursery)
                    await self._loop()
                finally:
                    # Sockets are closed first, so that a loser which shields itself from cancellation ends too.
                    self._cancel_all(keep=self._winner)
                    nursery.cancel_scope.cancel()
        except BaseException as exc:  # noqa: BLE001 - raised below, out of the nursery's group
            error = out_of_the_group(exc)
        # A cancel from outside in the pass of the win still reaches the tasks of the losers. The winner is returned all
        # the same, and the cancel takes effect at the caller's next checkpoint.
        if error is not None and not (self._winner is not None and isinstance(error, trio.Cancelled)):
            try:
                raise error
            finally:
                del error

    async def _loop(self) -> None:
        plan = self._plan
        # Of a factory, an establish, a source of candidates or a proxy, what is ready already takes several passes.
        stages = (self._candidates is not None) + plan.factory + (plan.establish is not None)
        stages += plan.through_proxy is not None
        passes = PASSES * stages if stages else 1
        while not self._is_over():
            if current_time() < plan.until:
                if not self._mailbox.facts:
                    await self._mailbox.wait(min(self._race.deadline, plan.until))
                if min(self._race.deadline, plan.until) <= current_time():
                    await self._drain_ready()
            elif passes and not self._mailbox.facts:
                passes -= 1
                await checkpoint()
                if self._can_poll:
                    self._attempts.poll()
            self._process(last=not passes)

    async def _drain_ready(self) -> None:
        """Let every task report what became ready at this instant, before time ends or starts an attempt.

        A result that is ready counts at its deadline. Trio runs the tasks of a pass in random order.
        """
        if self._can_poll:
            self._attempts.poll()
            return
        for _ in range(PASSES):
            if any(map(self._is_success, self._mailbox.facts)):
                return
            await checkpoint()

    def _is_success(self, fact: Fact) -> bool:
        return isinstance(fact, Established if self._plan.establish is not None else Connected)

    @property
    def _can_poll(self) -> bool:
        """Whether polling the sockets gives every fact that their tasks could report."""
        return self._plan.establish is None and not self._plan.factory and self._plan.through_proxy is None

    # ------------------------------------------------------------------ facts in

    def _process(self, *, last: bool = True) -> None:
        """Pass every fact of this instant to the engine, and execute its commands."""
        now = current_time()
        for fact in self._mailbox.take():
            running = self._attempts.live.get(fact.id)
            if running is None or self._is_over():
                continue  # the engine has ended the attempt; its task reported before it was cancelled
            if isinstance(fact, Failed):
                commands = self._fail(running, fact, now)
            elif isinstance(fact, Established) or self._plan.establish is None:
                self._value = fact.value if isinstance(fact, Established) else None
                commands = self._race.succeeded(fact.id, now)
            else:
                commands = self._progress(running, now)
            self._execute(commands, now)
        if not self._is_over():
            until = self._plan.until
            if now < until or (until == -inf and not last):
                self._execute(self._race.tick(now), now)
            elif last:
                self._expired = True
        self._teller.tell()

    def _fail(self, running: RunningAttempt, fact: Failed, now: float) -> list[Command]:
        self._end(running, fact.phase, "failed", fact.code, fact.error, fact.reason, now)
        return self._race.failed(
            fact.id, now, phase=fact.phase, errno=fact.code, emitted=fact.emitted, reason=fact.reason
        )

    def _progress(self, running: RunningAttempt, now: float) -> list[Command]:
        running.attempt.phase = "establish"
        self._teller.note(AttemptConnected, running.id, running.endpoint, now)
        return self._race.progressed(running.id, now)

    # ------------------------------------------------------------------ commands out

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
                winner = self._winner = self._attempts.take(command.id)
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
        self._teller.note(AttemptStarted, start.id, endpoint, source, start.cause, began, *start.memory)
        self._attempts.errors.pop(start.id, None)  # of a try for which this machine had no descriptor
        if first is None:
            attempt = self._new_attempt(endpoint, source, began)
            with close_on_error(attempt):
                options = attrs.evolve(plan.options, multipath=False) if start.plain else plan.options
                code = attempt.begin_and_poll(options, factory=plan.factory)
                if code not in (0, PENDING):
                    attempt.close()
        else:
            attempt, code = first.attempt, first.code
        now = current_time()
        if attempt.sock is not None and not start.plain and not attempt.asks_for_multipath(plan.options):
            self._race.no_multipath()
        if code not in (0, PENDING):
            # The text is made on demand: a race that is won does not need it.
            self._attempts.errors[start.id] = partial(attempt.error, code, now - began)
            phase, reason = attempt.phase, attempt.reason(code)
            self._teller.note(AttemptFinished, start.id, endpoint, "failed", phase, code, now, reason)
            emitted = attempt.may_have_sent(code)
            return self._race.failed(start.id, now, phase=phase, errno=code, emitted=emitted, reason=reason)
        running = self._attempts.start(start.id, attempt, connected=not code)
        if code:
            return []
        if plan.establish is None:
            return self._race.succeeded(start.id, now)
        if first is None:
            return self._progress(running, now)
        self._attempts.go_on_with(running, first)
        commands = self._progress(running, first.connected)
        return commands if first.error is None else commands + self._fail(running, failure(running, first.error), now)

    def _new_attempt(self, endpoint: Endpoint, source: Source | None, began: float) -> AnyAttempt:
        through_proxy = self._plan.through_proxy
        if through_proxy is None or source is None or source.proxy is None:
            return Attempt(endpoint, source, began)
        return through_proxy(endpoint, source, began)

    def _abandon(self, abandon: Abandon, now: float) -> None:
        running = self._attempts.live.get(abandon.id)
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
        self._attempts.stop(running.id, error)
        self._teller.note(AttemptFinished, running.id, running.endpoint, outcome, phase, code, now, reason)
