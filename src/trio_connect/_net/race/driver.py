"""Does what `_engine.race` decides: opens sockets, waits for them, closes them, keeps the time.

While a single attempt is pending and TCP is all that is wanted, nothing but one scope exists. From the second pending
attempt on there is a nursery with a task for each (`race_tasks`), and one who steers: it tells the engine all facts of
one instant together and carries out its commands. It alone closes sockets, so that none is closed twice and none by
nobody.
"""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, ParamSpec, final

import trio
from trio import current_time
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    disable_ki_protection,
    enable_ki_protection,
    wait_writable,
)

from ..._durations import milliseconds
from ..._engine.race import TIMED_OUT, Race
from ..._engine.race_table import Abandon, Command, Start, Won
from ..._messages import race_exceeded, race_late
from ..._report import ConnectReport, Outcome, Phase
from ..._trace import AttemptConnected, AttemptFinished, AttemptStarted, Observer, RaceFinished, TraceEvent
from ..attempt import PENDING, describe_source, poll
from ..sockets.waiting import PASSES, park
from ..streams.tcp_stream import TcpStream
from .errors import out_of_the_group
from .opening import NOT_EMITTED, Failure, Opening, open_attempt
from .tasks import (
    Connected,
    Establish,
    Established,
    Fact,
    Failed,
    Feed,
    LiveAttempt,
    Mailbox,
    follow,
    result_of,
    run_feed,
)

if TYPE_CHECKING:
    from ..._answer import Lookup
    from ..._endpoint import Endpoint, Source
    from ..._options import SocketOptions
    from ..._policy import RacePolicy

P = ParamSpec("P")

# Seconds: longer than a factory's object takes to fail by itself, and shorter than most networks take to answer.
_AT_ONCE: Final = 0.001

_log: Final = logging.getLogger("trio_connect")


@disable_ki_protection  # Ctrl-C must reach an observer that does not return
def _call(observer: Observer, event: TraceEvent) -> None:
    observer(event)


@final
class RaceDriver:
    """One race from its first attempt to its end.

    Args:
      policy: for the engine.
      candidates: those that are known from the start.
      until: the caller's deadline, in Trio time.
      started: when the call began, in Trio time.
      more: whether `feed` will bring others.
      options: set on each socket.
      factory: whether sockets come from the run's factory.
      establish: the caller's own test of a connection, or None.
      observer: told what happens, or None.
      target: a name and port for messages, or "" when the endpoints are all there is to name.
      skipped: candidates that cannot be tried, for the report.
      lookups: returns the lookups for the report.
    """

    def __init__(
        self,
        policy: RacePolicy,
        candidates: list[tuple[Source | None, Endpoint]],
        *,
        until: float,
        started: float,
        more: bool,
        options: SocketOptions,
        factory: bool,
        establish: Establish | None,
        observer: Observer | None,
        target: str,
        skipped: Iterable[tuple[Source | None, Endpoint]] = (),
        lookups: Callable[[], tuple[Lookup, ...]] = tuple,
    ) -> None:
        # Opened first, because a closed list takes no more, not even those that are only to be reported.
        self.race = Race(policy, started, candidates, more=True)
        self.race.skip(skipped)
        if not more:
            self.race.no_more()
        self._adopted: Opening | None = None
        self._waited = False
        self._until = until
        self._started = started
        self._now_or_never = until == -inf
        self._late = -inf < until <= started
        self._options = options
        self._factory = factory
        self._establish = establish
        self._observer = observer
        self._target = target
        self._lookups = lookups
        self._untold: deque[TraceEvent] = deque()
        self._errors: dict[int, Exception | Failure] = {}
        self._live: dict[int, LiveAttempt] = {}
        self._mailbox = Mailbox()
        self._nursery: trio.Nursery | None = None
        self._winner: LiveAttempt | None = None
        self._value: Any = None
        self._exhausted = self._expired = self._parked = False

    def adopt(self, opening: Opening | None, *, waited: bool) -> None:
        """Take over the first attempt's opening, made before there was a driver.

        Args:
          opening: None when there is none.
          waited: whether it was pending, was waited for until the race's first deadline, and is pending still.
        """
        self._adopted = opening
        self._waited = waited

    # ------------------------------------------------------------------ the call

    @enable_ki_protection
    async def run(self, feed: Feed | None = None) -> tuple[Any, ConnectReport | None]:
        """Run the race.

        Args:
          feed: run beside the race to add candidates; it says `Race.no_more` in the end. It gets the race's nursery.

        Returns:
          The winner's stream, or what establish returned for it, and None; or None and the report, when there is no
          winner. The stream has its report.

        Raises:
          DeadlineExceeded: the deadline came first.
          BaseException: what establish or feed raised, other than the failure of an attempt, as it is.
        """
        try:
            if self._adopted is None:
                await checkpoint_if_cancelled()
            if self._late:
                await checkpoint()
            else:
                await self._race(feed)
            self._give_up(keep=self._winner)
            if self._mailbox.crash is not None:
                raise self._mailbox.crash
        except BaseException:
            self._give_up()
            self._finish()
            raise
        finally:
            self._mailbox.discard()
        # The report that the stream will make holds this, so this must not hold the stream.
        winner, self._winner = self._winner, None
        value, self._value = self._value, None
        if winner is None:
            report = self._finish()
            if self._late:
                raise race_late(self._target, report, self._started - self._until)
            if self._expired:
                raise race_exceeded(self._target, report)
            return None, report
        stream = winner.stream
        if stream is None:
            stream = value = TcpStream(winner.sock, winner.endpoint)
        if self._observer is None:
            stream._set_report(partial(self._make_report, current_time()))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        else:
            try:
                stream._set_report(self._finish())  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            except BaseException:  # the observer's: nobody will get the winner
                self._close(winner)
                raise
        return value, None

    async def _race(self, feed: Feed | None) -> None:
        self._carry_out(self.race.tick(self._started), self._started)
        self._tell()
        if feed is None and self._establish is None and not self._factory:
            await self._watch_one()
        if feed is not None or not self._is_over():
            await self._watch_all(feed)
        elif not self._parked:
            await cancel_shielded_checkpoint()

    @property
    def errors(self) -> list[Exception]:
        """The errors of the attempts, in the order of their starts."""
        in_order = (self._errors[attempt] for attempt in sorted(self._errors))
        return [error.to_error() if isinstance(error, Failure) else error for error in in_order]

    def wake(self) -> None:
        """Have the race look at its list again: candidates have come, or no more will."""
        self._mailbox.wake()

    def notify(self, kind: Callable[P, TraceEvent], *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell the observer, if there is one that has not raised yet."""
        self._note(kind, *args, **kwargs)
        self._tell()

    def _note(self, kind: Callable[P, TraceEvent], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have the observer told once everything is closed that is to be: an observer may raise what it likes."""
        if self._observer is not None:
            self._untold.append(kind(*args, **kwargs))

    def _tell(self) -> None:
        while self._observer is not None and self._untold:
            try:
                _call(self._observer, self._untold.popleft())
            except Exception:  # noqa: BLE001 - whatever it is, it must not break a connect
                _log.exception(
                    "an observer raised and is told no more of the connect to %s", self._target or "many endpoints"
                )
                self._observer = None

    def _is_over(self) -> bool:
        return self._winner is not None or self._exhausted or self._expired or self._mailbox.crash is not None

    def _give_up(self, keep: LiveAttempt | None = None) -> None:
        """Close what is open; nothing after the end of a race."""
        now = current_time()
        self._carry_out(self.race.cancel(now), now)
        for attempt in tuple(self._live.values()):  # whatever the engine thinks, if it was interrupted
            self._close(self._retire(attempt.id))
        if self._winner is not None and self._winner is not keep:
            self._close(self._winner)

    def _finish(self) -> ConnectReport:
        """Make the report, and tell what has not been told yet, the end last."""
        now = current_time()
        report = self._make_report(now)
        self._note(RaceFinished, report, now)
        self._tell()
        return report

    def _make_report(self, ended: float) -> ConnectReport:
        return ConnectReport(
            lookups=self._lookups(),
            attempts=self.race.records(),
            started_at=self._started,
            elapsed=ended - self._started,
        )

    # ------------------------------------------------------------------ waiting

    async def _watch_one(self) -> None:
        """Wait without a task, as long as no more than one attempt is pending."""
        while len(self._live) <= 1 and not self._is_over():
            self._parked = True
            deadline = min(self.race.deadline, self._until)
            if self._waited:
                self._waited = False
            elif self._live:
                (attempt,) = self._live.values()
                await park(wait_writable, attempt.sock.fileno(), deadline)
            else:  # the floor between two starts has to pass
                await trio.sleep_until(deadline)
            self._look()
            self._digest()

    async def _watch_all(self, feed: Feed | None) -> None:
        """Wait with a task for each pending attempt."""
        error: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    for attempt in self._live.values():
                        self._spawn(nursery, attempt)
                    if feed is not None:
                        nursery.start_soon(run_feed, feed, nursery, self._mailbox)
                    await self._steer(fed=feed is not None)
                finally:
                    # Sockets first: a loser that shields itself from cancellation finds its connection gone.
                    self._nursery = None
                    self._give_up(keep=self._winner)
                    nursery.cancel_scope.cancel()
        except BaseException as exc:  # noqa: BLE001 - raised below, out of the nursery's group
            error = out_of_the_group(exc)
        # A cancel from outside that comes in the pass of the win still reaches the tasks of the losers. It is too late
        # to take the winner away: whoever cancelled finds out at the next checkpoint.
        if error is not None and not (self._winner is not None and isinstance(error, trio.Cancelled)):
            try:
                raise error
            finally:
                del error

    async def _steer(self, *, fed: bool) -> None:
        # Through a factory, with an establish or a resolver, a task needs several passes for what is ready already.
        stages = fed + self._factory + (self._establish is not None)
        passes = PASSES * stages if stages else 1
        while not self._is_over():
            if current_time() < self._until:
                if not self._mailbox.facts:
                    await self._mailbox.wait(min(self.race.deadline, self._until))
                if min(self.race.deadline, self._until) <= current_time():
                    await self._hear_everybody()
            elif passes and not self._mailbox.facts:
                passes -= 1
                await checkpoint()
                self._look()
            self._digest(last=not passes)

    async def _hear_everybody(self) -> None:
        """Let every task tell what became ready at this instant, before time itself ends or starts anything.

        Ready beats expired, and which task the loop happened to run first in this pass must not decide.
        """
        if self._can_look():
            self._look()
            return
        for _ in range(PASSES):
            if any(map(self._is_success, self._mailbox.facts)):
                return
            await checkpoint()

    def _is_success(self, fact: Fact) -> bool:
        return isinstance(fact, Established if self._establish is not None else Connected)

    def _can_look(self) -> bool:
        """Say whether a look at the sockets tells everything that their tasks could tell."""
        return self._establish is None and not self._factory

    # ------------------------------------------------------------------ facts in

    def _look(self) -> None:
        if not self._can_look():
            return
        for attempt in self._live.values():
            code = poll(attempt.sock, attempt.endpoint, attempt.source)
            if code != PENDING:
                self._mailbox.tell(result_of(attempt, code))

    def _digest(self, *, last: bool = True) -> None:
        """Tell the engine everything that became known at this instant, and do what it says."""
        now = current_time()
        for fact in self._mailbox.take():
            attempt = self._live.get(fact.id)
            if attempt is None or self._is_over():
                continue  # the engine has ended it, and its socket is closed; the task did not know yet
            if isinstance(fact, Failed):
                self._bury(attempt, fact.phase, "failed", fact.code, fact.error, fact.reason, now)
                emitted = not self._failed_unsent(fact, now - attempt.started)
                commands = self.race.failed(
                    fact.id, now, phase=fact.phase, errno=fact.code, emitted=emitted, reason=fact.reason
                )
            elif isinstance(fact, Established) or self._establish is None:
                self._value = fact.value if isinstance(fact, Established) else None
                commands = self.race.succeeded(fact.id, now)
            else:
                commands = self._progress(attempt, now)
            self._carry_out(commands, now)
        if not self._is_over():
            if now < self._until or (self._now_or_never and not last):
                self._carry_out(self.race.tick(now), now)
            elif last:
                self._expired = True
        self._tell()

    def _failed_unsent(self, fact: Failed, elapsed: float) -> bool:
        """Say whether an attempt that had been pending failed before it sent anything."""
        if fact.phase in ("socket", "bind"):
            return True
        # Through a factory every attempt is pending at first. What fails at once there failed inside connect(2).
        return self._factory and fact.phase == "connect" and fact.code in NOT_EMITTED and elapsed < _AT_ONCE

    # ------------------------------------------------------------------ commands out

    def _carry_out(self, commands: list[Command], now: float) -> None:
        queue = deque(commands)
        while queue:
            command = queue.popleft()
            if isinstance(command, Start):
                queue.extend(self._start(command))
            elif isinstance(command, Abandon):
                self._abandon(command, now)
            elif isinstance(command, Won):
                winner = self._winner = self._retire(command.id)
                phase: Phase = "connect" if self._establish is None else "establish"
                self._note(AttemptFinished, winner.id, winner.endpoint, "won", phase, None, now)
            else:
                self._exhausted = True

    def _start(self, start: Start) -> list[Command]:
        source, endpoint = start.candidate
        # An adopted attempt began before the pass of the loop that connectx gave it.
        began = current_time() if self._adopted is None else self._started
        self._note(AttemptStarted, start.id, endpoint, source, start.cause, began)
        opening, self._adopted = self._adopted, None
        self._errors.pop(start.id, None)  # of a try for which this machine had no descriptor
        if opening is None:
            opening = open_attempt(endpoint, source, self._options, began, factory=self._factory)
        now = current_time()
        if opening[0] is None:
            failed = opening[1]
            self._errors[start.id] = failed
            self._note(AttemptFinished, start.id, endpoint, "failed", failed.phase, failed.code, now, failed.reason)
            return self.race.failed(
                start.id, now, phase=failed.phase, errno=failed.code, emitted=failed.emitted, reason=failed.reason
            )
        sock, code = opening
        attempt = LiveAttempt(start.id, source, endpoint, sock, began)
        self._live[start.id] = attempt
        commands: list[Command] = []
        if not code:
            if self._establish is None:
                return self.race.succeeded(start.id, now)
            attempt.connected = True
            commands = self._progress(attempt, now)
        if self._nursery is not None:
            self._spawn(self._nursery, attempt)
        return commands

    def _progress(self, attempt: LiveAttempt, now: float) -> list[Command]:
        attempt.phase = "establish"
        self._note(AttemptConnected, attempt.id, attempt.endpoint, now)
        return self.race.progressed(attempt.id, now)

    def _abandon(self, abandon: Abandon, now: float) -> None:
        attempt = self._live.get(abandon.id)
        if attempt is None:
            return  # it had already ended; what a late success had open was closed with its attempt
        phase = attempt.phase
        if abandon.reason == "attempt_timeout":
            source = describe_source(attempt.sock, attempt.endpoint, attempt.source)
            elapsed = milliseconds(now - attempt.started)
            doing = "connect to" if phase == "connect" else "establish with"
            text = f"{doing} {attempt.endpoint} from {source} took longer than attempt_timeout, {elapsed}"
            error = TimeoutError(errno.ETIMEDOUT, text)
            self._bury(attempt, phase, "timed out", errno.ETIMEDOUT, error, TIMED_OUT, now)
        else:
            outcome: Outcome = "cancelled" if abandon.reason == "cancelled" else "lost"
            self._bury(attempt, phase, outcome, None, None, None, now)

    def _bury(
        self,
        attempt: LiveAttempt,
        phase: Phase,
        outcome: Outcome,
        code: int | None,
        error: Exception | None,
        reason: str | None,
        now: float,
    ) -> None:
        self._close(self._retire(attempt.id))
        if error is not None:
            self._errors[attempt.id] = error
        self._note(AttemptFinished, attempt.id, attempt.endpoint, outcome, phase, code, now, reason)

    def _retire(self, attempt_id: int) -> LiveAttempt:
        attempt = self._live.pop(attempt_id)
        attempt.over = True
        return attempt

    def _close(self, attempt: LiveAttempt) -> None:
        # Every other socket is to be closed as well, whatever the object of a factory does.
        try:
            if attempt.stream is not None:
                attempt.stream._close_now()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            else:
                if attempt.scope is not None:
                    attempt.sock.wake()
                attempt.sock.close()
        except Exception:  # noqa: BLE001 - whatever it is, it is no news of the race
            _log.exception("a socket of the connect to %s could not be closed", attempt.endpoint)
        except BaseException as exc:  # noqa: BLE001 - raised when everything is closed
            self._mailbox.crash_with(exc)
        finally:
            if attempt.scope is not None:
                attempt.scope.cancel()

    def _spawn(self, nursery: trio.Nursery, attempt: LiveAttempt) -> None:
        attempt.scope = scope = trio.CancelScope()
        name = f"connect to {attempt.endpoint}"
        nursery.start_soon(follow, attempt, scope, self._mailbox, self._establish, name=name)
