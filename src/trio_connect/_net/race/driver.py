"""The driver of a race: waits until something happens or is due, has it processed, and returns or raises the outcome.

While a single attempt of plain TCP is pending, the race has one cancel scope and no task. From the second pending
attempt on it has a nursery with a task for each. The driver's own task collects everything that happened at one
instant, and the executor (`executor.py`) processes it in one step. Only this task closes sockets, so each is closed
exactly once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, final

import trio
from trio import current_time
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
    wait_writable,
)

from ..._engine.race import Race
from ..._race_messages import is_refused, race_exceeded, race_failed, race_late, resolve_failed
from ..._report import ConnectReport
from ..._trace import RaceFinished
from ..attempt import PENDING
from ..host_of import with_hosts
from ..sockets.multipath import read_multipath
from ..sockets.waiting import PASSES, park
from .errors import out_of_the_group, without_cancellation
from .executor import Executor
from .mailbox import Connected, Established, Fact, Mailbox
from .telling import Teller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..._answer import Lookup
    from ..._engine.race_table import Candidate
    from ..._trace import TraceEvent
    from ..host_of import HostOfEndpoint
    from .candidates import Candidates
    from .first import First
    from .plan import RacePlan

P = ParamSpec("P")


@enable_ki_protection
async def run_race(
    plan: RacePlan,
    pairs: Sequence[Candidate] = (),
    skipped: Mapping[Candidate, str] | None = None,
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
    driver = _Driver(plan, pairs, skipped or {}, first, candidates, lookups)
    try:
        return await driver.run()
    finally:
        driver.forget()


def _make_report(
    race: Race,
    lookups: tuple[Lookup, ...],
    host_of: HostOfEndpoint | None,
    started: float,
    ended: float,
    multipath_info: bytes | None,
) -> ConnectReport:
    return ConnectReport(
        lookups=lookups,
        attempts=with_hosts(race.records(), host_of),
        started_at=started,
        elapsed=ended - started,
        multipath=read_multipath(multipath_info),
    )


@final
class _Driver:
    """One race from its first attempt to its end; `Offers` for its candidates."""

    def __init__(
        self,
        plan: RacePlan,
        pairs: Sequence[Candidate],
        skipped: Mapping[Candidate, str],
        first: First | None,
        candidates: Candidates | None,
        lookups: Sequence[Lookup],
    ) -> None:
        self._mailbox = Mailbox()
        memory = plan.memory(self._mailbox.wake)
        began = first.attempt.started if first is not None else current_time() if lookups else plan.started
        known = () if began > plan.started else pairs
        self._race = Race(plan.policy, plan.started, known, more=True, multipath=plan.options.multipath, memory=memory)
        if pairs is not known:
            self._race.add(pairs, began)
        self._race.skip(skipped)
        if candidates is None:
            self._race.no_more()  # last, because a closed list takes none
        self._plan, self._first = plan, first
        self._waited = first is not None and first.code == PENDING
        self._candidates, self._lookups = candidates, lookups
        self._teller = Teller(plan.observer, plan.target)
        self._executor = Executor(plan, self._race, first, began, self._mailbox, self._teller)
        self._attempts = self._executor.attempts
        self._yielded = first is not None and first.attempt.yielded
        """Whether Trio's loop has run since the call began to connect."""

    def forget(self) -> None:
        """Let go of what came of it. Its candidates hold this to tell by, and the winner would be in a cycle."""
        self._candidates = None
        self._executor.winner = self._executor.value = None

    # ------------------------------------------------------------------ the call

    async def run(self) -> Any:
        plan = self._plan
        try:
            if self._first is None:
                await checkpoint_if_cancelled()
            if plan.is_late:
                await checkpoint()
                self._executor.cancel_all()
            else:
                await self._run()
            if self._mailbox.crash is not None:
                raise self._mailbox.crash
        except BaseException:
            self._executor.cancel_all()
            self._finish()
            raise
        finally:
            self._mailbox.discard()
        winner = self._executor.winner
        if winner is None:
            raise self._failure(self._finish())
        info = winner.attempt.multipath_info(plan.options)
        stream = winner.open_stream()
        if plan.observer is None:
            stream._set_report(self._report(current_time(), info))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        else:
            try:
                stream._set_report(self._finish(info))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            except BaseException:  # the observer raised: the caller will not get the winner
                self._attempts.close(winner)
                raise
        return stream if plan.establish is None else self._executor.value

    async def _run(self) -> None:
        self._executor.begin()
        if self._candidates is None and self._can_poll:
            await self._watch_one()
        if self._candidates is not None or not self._executor.is_over:
            await self._watch_all()
        else:
            if not self._yielded:
                await cancel_shielded_checkpoint()
            self._executor.cancel_all(keep=self._executor.winner)

    def _failure(self, report: ConnectReport) -> Exception:
        plan = self._plan
        if plan.is_late:
            return race_late(plan.target, report, plan.started - plan.until)
        if self._executor.expired:
            return race_exceeded(plan.target, report)
        if report.lookups and not report.tried and not any(map(is_refused, report.attempts)):
            from ..._answer import IPV4_ONLY_NAME  # there are lookups, so nothing has to be read for this

            # That of a NAT64 was not asked for by the caller, and a literal has no other.
            if names := dict.fromkeys(each.host for each in report.lookups if each.host != IPV4_ONLY_NAME):
                return resolve_failed(", ".join(names), report)
        return race_failed(plan.target, report, self._attempts.in_order())

    def _finish(self, multipath_info: bytes | None = None) -> ConnectReport:
        """Make the report, and tell the remaining events, the end last."""
        now = current_time()
        report = self._report(now, multipath_info)()
        self._teller.note(RaceFinished, report, now)
        self._teller.tell()
        return report

    def _report(self, ended: float, multipath_info: bytes | None) -> Callable[[], ConnectReport]:
        """Return what makes the report. A stream keeps that, so it holds nothing else of the race, nor the stream."""
        plan = self._plan
        lookups = tuple(self._lookups) if self._candidates is None else self._candidates.lookups
        return partial(_make_report, self._race, lookups, plan.host_of, plan.started, ended, multipath_info)

    # ------------------------------------------------------------------ candidates

    def offer(
        self, pairs: Sequence[Candidate], skipped: Mapping[Candidate, str], *, order: Sequence[Candidate] | None = None
    ) -> bool:
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
        while len(live) <= 1 and not self._executor.is_over:
            self._yielded = True
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
            self._executor.process()

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
                    self._executor.cancel_all(keep=self._executor.winner)
                    nursery.cancel_scope.cancel()
        except BaseException as exc:  # noqa: BLE001 - raised below, out of the nursery's group
            error = out_of_the_group(exc)
        # A cancel from outside in the pass of the win still reaches the tasks of the losers. The winner is returned all
        # the same, and the cancel takes effect at the caller's next checkpoint.
        if error is not None and not (self._executor.winner is not None and isinstance(error, trio.Cancelled)):
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
        while not self._executor.is_over:
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
            self._executor.process(last=not passes)

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
