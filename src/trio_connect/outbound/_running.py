"""One call that was admitted: it tries its plan, from one source after the other, and charges the failures.

The addresses of a plan go through `connectx`. A failure of the source (its address cannot be bound, it has no route)
leaves the rest of the plan to the next source, in the same call. At the end the whole call counts once for its
destination, or not at all; `_engine.charge` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import ETIMEDOUT
from functools import partial
from math import ceil
from typing import Any, Final, NoReturn, final

import attrs
import trio
from trio import current_time
from trio.lowlevel import enable_ki_protection

from .. import Attempt, ConnectFailed, ConnectReport, DeadlineExceeded, Endpoint, TcpStream, TlsStream, now
from .._deadline import IMMEDIATE, NO_DEADLINE, to_seconds
from .._engine.charge import Charge, Trial, charge
from .._engine.limits import Lease
from .._outbound_values import Candidate
from .._race_messages import race_failed
from ._decisions import (
    DestinationDelayed,
    DestinationFailed,
    NotAdmitted,
    Overloaded,
    RequeueOne,
    RetryAt,
)
from ._hold import Hold
from ._race import Establish, NotNow, Tls, race_candidates, with_names
from ._refusal import Refusal
from ._state import Admission, DestinationState
from ._waiting import Waiting

__all__ = ["Run"]

_LOCAL_CAUSES: Final[dict[Charge, str]] = {
    "process": "this process is out of descriptors or memory",
    "path": "no local port is left towards it",
    "route": "no usable source has a route to it",
    "source": "the source cannot be used",
}
_NOTHING_TRIED: Final = "nothing could be tried"
_MOST_REASONS: Final = 2
"""How many reasons a decision names; the report has them all."""


@final
class Run:
    """The attempts of one call.

    Args:
      waiting: takes places back.
      state: the destination.
      admission: what the call holds. `close` gives back what is left of it.
      deadline: the caller's, in milliseconds.
      establish: the caller's own test.
      tls: how to connect over TLS; None for plain TCP.
      only_this_source: whether no other source may try the rest of the plan.
    """

    def __init__(
        self,
        waiting: Waiting,
        state: DestinationState,
        admission: Admission,
        deadline: int,
        establish: Establish | None,
        tls: Tls | None,
        *,
        only_this_source: bool = False,
    ) -> None:
        self._waiting = waiting
        self._state = state
        self._shared = state.shared
        self.admission = admission
        self._deadline = deadline
        self._establish = establish
        self._tls = tls
        policy = state.policy
        self._plan_deadline = now() + ceil(policy.connect_timeout * 1000)
        self._names = state.found.names
        self._without_address = state.found.without_address
        self._by_endpoint = {candidate.endpoint: candidate for candidate in reversed(admission.plan)}
        self._trial = Trial([candidate.endpoint for candidate in admission.plan])
        self._last_charges: set[Charge] = set()
        self._reasons: dict[str, None] = {}
        """Why addresses failed, each reason once."""
        self._reports: list[ConnectReport] = []
        self._errors: list[Exception] = []
        # Sources that may not try are taken for full. They may have had a route, so a missing one from here proves
        # nothing against the destination.
        self._tried = list(state.shared.sources) if only_this_source else [admission.source]
        self._full = only_this_source
        self.leases: dict[Endpoint, Lease] = {}
        """The places under candidates' own limits, by address."""
        if admission.first_lease is not None:
            self.leases[admission.plan[0].endpoint] = admission.first_lease
        shared = state.shared
        self._hold = Hold(shared, state.name, self._all_leases) if shared.may_lose else None

    async def connect(self) -> tuple[TcpStream | TlsStream, Any, Candidate]:
        """Return the stream, what establish returned, and the candidate.

        Raises:
          LeaseLost: a strict store has no lease for it any more.
          DestinationFailed: everything has failed.
          NotAdmitted: every failure was this side's, or the peer said "not now".
          DeadlineExceeded: the caller's deadline came first; nothing is counted.
        """
        if self._hold is None:
            return await self._connect()
        with self._hold.cancelling():
            outcome = await self._connect()
        self._hold.end_by(outcome[0].abort)
        return outcome

    def _all_leases(self) -> list[Lease]:
        return [self.admission.lease, *self.leases.values()]

    async def _connect(self) -> tuple[TcpStream | TlsStream, Any, Candidate]:
        candidates = self.admission.plan
        while True:
            timed_out = False
            try:
                stream, result = await self._race(candidates)
                return stream, result, self._won(stream, alone=len(candidates) == 1)
            except ConnectFailed as exc:
                self._note(exc.report)
                self._errors += exc.errors
            except DeadlineExceeded as exc:
                if self._deadline != NO_DEADLINE and self._deadline <= self._plan_deadline:
                    if exc.report is not None:
                        exc.report = with_names(exc.report, self._names)
                    raise
                timed_out = True
                self._note(exc.report or ConnectReport(), timed_out=True)
                self._errors.append(exc)
            except NotNow as exc:
                self._note(exc.report)
                self._errors.append(exc.overloaded)
                self.overloaded(exc.overloaded.seconds, exc.overloaded.reason)
            self._give_back_candidates()
            left = () if timed_out else self._trial.remaining()
            candidates = await self._next_source([each for each in self.admission.plan if each.endpoint in left])
            if not candidates:
                self._fail()

    @enable_ki_protection
    def tell_overloaded(self, seconds: float, reason: str) -> None:
        """Take the caller's word that the peer said "not now" to this source."""
        self.overloaded(Overloaded(seconds, reason).seconds, reason)
        self._shared.raise_interrupt()

    def overloaded(self, seconds: float, reason: str) -> None:
        """Take note that the peer said "not now" to this source."""
        state, source = self._state, self.admission.source
        key = (source, state.group)
        state.suspend(key, current_time() + seconds, reason, source)

    def close(self) -> None:
        """Give back every place."""
        if self._hold is not None:
            self._hold.leave()
        self._give_back_candidates()
        self._waiting.release(self.admission.lease)

    # One race

    async def _race(self, candidates: Sequence[Candidate]) -> tuple[TcpStream | TlsStream, Any]:
        state, source = self._state, self.admission.source.source
        sources = () if source is None else (source,)
        deadline = self._plan_deadline
        if self._deadline != NO_DEADLINE:
            deadline = min(deadline, self._deadline)
        if deadline == IMMEDIATE:
            # One pass is too short for turns, and no address may be tried that has no place.
            candidates = [each for each in candidates if await self.acquire(each)]
        has_limits = deadline != IMMEDIATE and any(state.own_layers(each) is not None for each in candidates)
        return await race_candidates(
            candidates, deadline, policy=state.race_policy, stagger=state.policy.stagger, sources=sources,
            establish=self._establish, tls=self._tls, acquire=self.acquire if has_limits else None,
            names=self._names,
        )  # fmt: skip

    def _won(self, stream: TcpStream | TlsStream, *, alone: bool) -> Candidate:
        """Count a success, and return the candidate that won."""
        state, admission = self._state, self.admission
        if not alone:
            # Only the report has the losers, and making it costs time.
            self._note(stream.report)
        cooldowns, peer = self._shared.cooldowns, stream.peer
        if len(cooldowns):
            cooldowns.succeeded(peer)
            cooldowns.succeeded((admission.source, peer))
        if self.leases:
            winner = self.leases.pop(peer, None)
            self._give_back_candidates()
            if winner is not None:
                self.leases[peer] = winner
        before = state.health()
        counted = state.circuit.succeeded(admission.ticket, current_time())
        state.tell("succeeded" if counted else "late", before, source=admission.source)
        assert admission.connecting is not None
        self._waiting.release(admission.lease, admission.connecting)
        self._waiting.wake(state)
        return self._by_endpoint[peer]

    @enable_ki_protection  # a task of the race calls it
    async def acquire(self, candidate: Candidate) -> bool:
        """Take the place of a candidate with limits of its own; True also when it has none."""
        take = partial(self._acquire, candidate)
        return await self._waiting.answered(take, to_seconds(self._deadline)) is None

    def _acquire(self, candidate: Candidate, now: float) -> Refusal | None:
        layers = self._state.own_layers(candidate)
        if layers is None or candidate.endpoint in self.leases:
            return None
        lease = self._state.take(layers, now)
        if isinstance(lease, Refusal):
            return lease
        self.leases[candidate.endpoint] = lease
        return None

    def _give_back_candidates(self) -> None:
        for lease in self.leases.values():
            self._waiting.release(lease)
        self.leases.clear()

    # What is learned from it

    def _note(self, report: ConnectReport, *, timed_out: bool = False) -> None:
        """Charge each attempt at the time when it ended."""
        if timed_out:
            # connect_timeout has ended the attempts that were still under way.
            report = attrs.evolve(report, attempts=tuple(map(_timed_out, report.attempts)))
        self._reports.append(with_names(report, self._names))
        for attempt in report.attempts:
            if attempt.ended is not None:
                charged = charge(attempt.phase, attempt.outcome, attempt.errno)
                self._charge(attempt, charged, report.started_at + attempt.ended)

    def _charge(self, attempt: Attempt, charged: Charge, at: float) -> None:
        state, source, endpoint = self._state, self.admission.source, attempt.endpoint
        if charged == "nobody":
            return
        self._last_charges.add(charged)
        self._trial.add(source.source, endpoint, charged)
        if charged == "source":
            has_proxy = source.source is not None and source.source.proxy is not None
            if has_proxy and not self._shared.strikes.failed(source, at):
                return
            reason = attempt.reason or "cannot be bound"
            until = at + self._state.policy.source_suspension
            # A proxy is one for both families.
            for family in source.families if has_proxy else (endpoint.family,):
                state.suspend((source, family), until, reason, source)
        elif charged in ("path", "route"):
            self._shared.cooldowns.failed((source, endpoint), at)
        elif charged == "address":
            if attempt.reason is not None:
                self._reasons[attempt.reason] = None
            self._shared.cooldowns.failed(endpoint, at)

    async def _next_source(self, candidates: list[Candidate]) -> list[Candidate]:
        """Change to another source. Return the candidates left for it; an empty list without another source."""
        moment = current_time()
        for source in self._shared.in_drawn_order():
            if source in self._tried or not candidates:
                continue
            families, refusal = self._state.usable_families(source, moment)
            left = [each for each in candidates if each.endpoint.family in families]
            if refusal is not None or not left:
                continue
            # Another call may have taken the places that were given back.
            first = None
            for index, each in enumerate(left):
                if await self.acquire(each):
                    first = index
                    break
            if first is None:
                self._full = True
                continue
            left = left[first:] + left[:first]
            old = self.admission.lease
            starts_anew = any(isinstance(error, Overloaded) for error in self._errors)
            before = self.admission.source
            lease = await self._waiting.answered(
                partial(self._state.change_source, old, before, source, starts_anew=starts_anew),
                to_seconds(self._deadline),
            )
            if isinstance(lease, Refusal):
                self._give_back_candidates()
                self._full = True
                continue
            self._tried.append(source)
            self.admission.lease = lease
            self.admission.source = source
            self._waiting.release(old)
            return left
        return []

    def _fail(self) -> NoReturn:
        """Count the call once, and raise the decision."""
        state, admission = self._state, self.admission
        moment = current_time()
        deadline = min(trio.current_effective_deadline(), to_seconds(self._deadline))
        report = self._report()
        failure = race_failed(state.name, report, self._errors, beside=self._without_address)
        before = state.health()
        decision: NotAdmitted
        verdict = self._trial.verdict(every_source=not self._full)
        overloaded = next((error for error in reversed(self._errors) if isinstance(error, Overloaded)), None)
        # A peer that says "not now" to one source is not down.
        if verdict == "exhausted" and overloaded is None:
            beyond = len(self._reasons) - _MOST_REASONS
            state.why = ", ".join(list(self._reasons)[:_MOST_REASONS]) + (f" and {beyond} more" if beyond > 0 else "")
            counted = state.circuit.failed(admission.ticket, moment)
            state.tell("failed" if counted else "late", before, str(failure), admission.source)
            if state.circuit.state == "open":
                refusal = Refusal(DestinationDelayed, state.too_often(), state.circuit.until, known=True)
            else:
                cause = f"every address failed{state.shown_why()}"
                refusal = Refusal(RequeueOne, cause, self._soonest(moment), known=True)
            state.errors.append(str(failure))
            self._waiting.wake(state)
            raise self._with(failure, state.decision(refusal, deadline))
        state.circuit.released(admission.ticket, moment)
        # To the race the attempt was cancelled: its text does not know why.
        text = str(failure) if overloaded is None else f"{failure}; the peer said: {overloaded}"
        state.tell("released", before, text, admission.source)
        state.errors.append(text)
        self._waiting.wake(state)
        none_usable = self._first_suspended(moment, though_others_work=overloaded is not None)
        if none_usable is not None:
            decision = state.decision(none_usable, deadline)
        else:
            cause = next((cause for each, cause in _LOCAL_CAUSES.items() if each in self._last_charges), _NOTHING_TRIED)
            if "process" in self._last_charges:
                refusal = Refusal(RetryAt, cause, moment + state.policy.delay.initial, known=True)
            else:
                refusal = Refusal(RequeueOne, cause, self._soonest(moment), known=True)
            decision = state.decision(refusal, deadline)
        if isinstance(decision, RequeueOne):
            raise self._with(failure, decision)
        raise decision from failure

    def _first_suspended(self, moment: float, *, though_others_work: bool) -> Refusal | None:
        """Return the first source that will be usable again; by default only when no source is usable now."""
        refusals: list[Refusal] = []
        for source in self._shared.sources:
            families, refusal = self._state.usable_families(source, moment)
            if families and not though_others_work:
                return None
            if refusal is not None and refusal.kind is not RequeueOne:
                refusals.append(refusal)
        return min(refusals, key=lambda each: each.timer) if refusals else None

    def _soonest(self, moment: float) -> float:
        """Return when the first address is worth another try."""
        cooldowns, source = self._shared.cooldowns, self.admission.source
        ends = [
            max(cooldowns.until(each.endpoint), cooldowns.until((source, each.endpoint)))
            for each in self.admission.plan
        ]
        return max(min(ends, default=moment), moment + 0.001)

    def _with(self, failure: ConnectFailed, decision: NotAdmitted) -> DestinationFailed:
        text = failure.strerror if failure.errno is not None else str(failure)
        error = DestinationFailed(
            failure.errno,
            f"{text}; {decision.instruction()}",
            decision=decision,
            report=failure.report,
            errors=failure.errors,
        )
        error.__cause__ = failure.__cause__
        return error

    def _report(self) -> ConnectReport:
        """Return one report of all races of this call."""
        first = self._reports[0]
        if len(self._reports) == 1:
            return first
        attempts: list[Attempt] = []
        for report in self._reports:
            shift = report.started_at - first.started_at
            for attempt in report.attempts:
                if attempt.started is not None and attempt.ended is not None:
                    row = attrs.evolve(attempt, started=attempt.started + shift, ended=attempt.ended + shift)
                    attempts.append(row)
        return ConnectReport(
            attempts=tuple(attempts), started_at=first.started_at, elapsed=current_time() - first.started_at
        )


def _timed_out(attempt: Attempt) -> Attempt:
    if attempt.outcome != "cancelled":
        return attempt
    return attrs.evolve(attempt, outcome="timed out", errno=ETIMEDOUT, reason="took longer than connect_timeout")
