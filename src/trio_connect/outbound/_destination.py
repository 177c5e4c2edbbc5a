"""A destination as users see it: connect, permit, and what is known of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import Any, Generic, TypeVar, final, overload

import attrs
import trio
from trio import current_time
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from .. import Source, TcpStream
from .._deadline import IMMEDIATE, to_seconds
from .._engine.limits import Cap, Limits, Pace
from .._engine.plan import Host
from .._messages import call_exceeded
from .._net.race.errors import fails_an_attempt
from .._outbound_values import MICROSECONDS, Candidate
from .._text import shown
from ._decisions import DestinationDelayed, DestinationRejected, Overloaded, RetryAt, milliseconds
from ._events import AddressState, LimitState, RateState, Snapshot, Suspension
from ._lookups import Finder, Found, Rejected
from ._running import Establish, Run
from ._shared import SourceState
from ._state import Admission, DestinationState, Refusal, shown_until
from ._waiting import Waiting

__all__ = ["Connection", "Destination", "Permit"]

T = TypeVar("T")
R = TypeVar("R")


@final
class Connection(Generic[R]):
    """A connection to a destination, which holds its place under every limit until its block is left."""

    stream: TcpStream
    """The stream; its `report` says how it came about."""
    result: R
    """What `establish` returned."""
    source: Source | None
    """Where it starts; None when the kernel chose."""
    candidate: Candidate
    """Which address it is."""

    def __init__(self, stream: TcpStream, result: R, candidate: Candidate, run: Run) -> None:
        self.stream = stream
        self.result = result
        self.candidate = candidate
        self.source = run.admission.source.source
        self._run = run

    def overloaded(self, seconds: float, reason: str = "the peer asked to come back later") -> None:
        """Take note that the peer said "not now" later on: 421 in a session, 429, Retry-After.

        Suspends this source towards the route group, and is nobody's failure. This connection goes on.

        Args:
          seconds: for how long, above 0.
          reason: what the peer said.

        Raises:
          ValueError: the seconds are not above 0, or not finite.
        """
        self._run.overloaded(Overloaded(seconds, reason).seconds, reason)


class _Outcome:
    """How a permit was used, told once."""

    __slots__ = ("_admission", "_state", "_waiting", "candidate")

    def __init__(self, waiting: Waiting, state: DestinationState, admission: Admission) -> None:
        self._waiting = waiting
        self._state = state
        self._admission = admission
        self.candidate = admission.plan[0] if admission.plan else None

    @property
    def is_told(self) -> bool:
        return self._admission.ticket.state == "over"

    def check_untold(self) -> None:
        if self.is_told:
            raise RuntimeError("how this permit was used has been said already")

    def failed(self, reason: str) -> None:
        state, admission, moment = self._state, self._admission, current_time()
        if self.candidate is not None:
            state.shared.cooldowns.failed(self.candidate.endpoint, moment)
        before = state.health()
        counted = state.circuit.failed(admission.ticket, moment)
        state.errors.append(reason)
        state.tell("failed" if counted else "late", before, reason, admission.source)
        self._waiting.wake(state)

    def overloaded(self, overloaded: Overloaded) -> None:
        state, source = self._state, self._admission.source
        state.suspend((source, state.group), current_time() + overloaded.seconds, overloaded.reason, source)
        self.released(overloaded.reason)

    def succeeded(self) -> None:
        state, admission = self._state, self._admission
        if self.candidate is not None:
            state.shared.cooldowns.succeeded(self.candidate.endpoint)
        before = state.health()
        counted = state.circuit.succeeded(admission.ticket, current_time())
        state.tell("succeeded" if counted else "late", before, source=admission.source)
        self._waiting.wake(state)

    def released(self, cause: str) -> None:
        self._waiting.end(self._state, self._admission, cause)

    def raised(self, exc: BaseException) -> None:
        """Take an exception that leaves the block for what it says."""
        if isinstance(exc, Overloaded):
            self.overloaded(exc)
        elif fails_an_attempt(exc):
            self.failed(f"{type(exc).__name__}: {exc}")
        else:
            self.released(type(exc).__name__)


@final
class Permit:
    """Leave to use a destination by other means, such as an HTTP client's pool.

    How it went is told by leaving the block: normally, that it worked; by an exception of the kinds that fail an
    attempt (see `trio_connect.connectx`), that it failed; by `Overloaded`, that the peer said "not now"; by any other
    exception or a cancel, nothing. Or it is told before, by a method.
    """

    source: Source | None
    """Whose limits it is under; None without sources."""
    candidate: Candidate | None
    """The address whose limits it is under; None when the destination has no candidates."""

    def __init__(self, outcome: _Outcome, source: Source | None) -> None:
        self._outcome = outcome
        self.source = source
        self.candidate = outcome.candidate

    def failed(self, reason: str = "the caller said so") -> None:
        """Say that the destination does not work. It counts now; leaving the block says no more.

        Args:
          reason: what happened.

        Raises:
          RuntimeError: how it went has been said.
        """
        self._outcome.check_untold()
        self._outcome.failed(reason)

    def overloaded(self, seconds: float, reason: str = "the peer asked to come back later") -> None:
        """Say that the peer asked to come back later (429, Retry-After). It is nobody's failure.

        Suspends the source towards the route group.

        Args:
          seconds: when, above 0.
          reason: what the peer said.

        Raises:
          RuntimeError: how it went has been said.
          ValueError: the seconds are not above 0, or not finite.
        """
        overloaded = Overloaded(seconds, reason)
        self._outcome.check_untold()
        self._outcome.overloaded(overloaded)


@final
class Destination:
    """Somewhere to connect to, with its candidates, its limits, and the memory of what went wrong.

    Made by `Outbound.destination`, `Outbound.mx` and `Outbound.srv`.
    """

    __slots__ = ("__weakref__", "_find", "_lookup_retry", "_state", "_states", "_waiting")

    def __init__(
        self,
        waiting: Waiting,
        state: DestinationState,
        find: Finder | None,
        states: Callable[[], list[DestinationState]],
    ) -> None:
        self._waiting = waiting
        self._state = state
        self._find = find
        self._states = states
        self._lookup_retry = -inf

    @property
    def name(self) -> str:
        """What it is called."""
        return self._state.name

    def __repr__(self) -> str:
        return f"<trio_connect.outbound.Destination {self._state.name}>"

    # Using it

    @overload
    def connect(
        self, deadline: int = -1, *, establish: None = None
    ) -> AbstractAsyncContextManager[Connection[None]]: ...

    @overload
    def connect(
        self, deadline: int = -1, *, establish: Callable[[TcpStream], Awaitable[T]]
    ) -> AbstractAsyncContextManager[Connection[T]]: ...

    def connect(
        self, deadline: int = -1, *, establish: Establish | None = None
    ) -> AbstractAsyncContextManager[Connection[Any]]:
        """Connect, after waiting for admission, and close the connection at the end of the block.

        Waits for limits, rates and the circuit when they are known to let it go on before the deadline and the scopes
        around it; else the decision is raised at once. One call is one plan: its addresses are raced, from one source
        after the other. It counts at most once against the destination; a cancel and the caller's own deadline count
        against nobody.

        Args:
          deadline: milliseconds on the clock of `now()`, for waiting and connecting together; -1 for none.
          establish: the caller's own test of a connection, see `trio_connect.connectx`: the connection has succeeded,
            for the destination too, when this returns. It may raise `Overloaded`.

        Returns:
          An async context manager of a `Connection`.

        Raises:
          DestinationFailed: every address that could be tried has failed. A `ConnectFailed`; its `decision` says what
            to do.
          NotAdmitted: no attempt was made, or only this side was at fault; the subclass and `until` say what to do.
          DeadlineExceeded: the deadline came first.
          TypeError: an argument has the wrong type.
          ValueError: the deadline is below -1, or the destination has no candidates at all.
        """
        return self._connection(deadline, establish, waits=True)

    @overload
    def try_connect(
        self, deadline: int = -1, *, establish: None = None
    ) -> AbstractAsyncContextManager[Connection[None]]: ...

    @overload
    def try_connect(
        self, deadline: int = -1, *, establish: Callable[[TcpStream], Awaitable[T]]
    ) -> AbstractAsyncContextManager[Connection[T]]: ...

    def try_connect(
        self, deadline: int = -1, *, establish: Establish | None = None
    ) -> AbstractAsyncContextManager[Connection[Any]]:
        """Connect as `connect` does, but never wait for admission: raise the decision instead.

        Args:
          deadline: milliseconds on the clock of `now()`, for lookup and connecting; -1 for none.
          establish: see `connect`.

        Returns:
          An async context manager of a `Connection`.

        Raises:
          DestinationFailed: see `connect`.
          NotAdmitted: see `connect`.
          DeadlineExceeded: see `connect`.
          TypeError: see `connect`.
          ValueError: see `connect`.
        """
        return self._connection(deadline, establish, waits=False)

    @asynccontextmanager
    async def permit(self, deadline: int = -1) -> AsyncGenerator[Permit, None]:
        """Wait for admission, for those who bring their own client, and hold its place until the block is left.

        A permit is under the same limits, rates, circuit and decisions as a connection, but for `max_connecting`.

        Args:
          deadline: milliseconds on the clock of `now()`; -1 for none.

        Yields:
          The `Permit`.

        Raises:
          NotAdmitted: see `connect`.
          DeadlineExceeded: the deadline came while it waited.
          TypeError: the deadline is not an int.
          ValueError: the deadline is below -1.
        """
        self._enter()
        try:
            admission = await self._admit(deadline, connects=False, waits=True)
            outcome = _Outcome(self._waiting, self._state, admission)
            try:
                # Others have a turn also where everybody is admitted at once; a cancel was looked for before.
                await cancel_shielded_checkpoint()
                yield Permit(outcome, admission.source.source)
            except BaseException as exc:
                if not outcome.is_told:
                    outcome.raised(exc)
                raise
            else:
                if not outcome.is_told:
                    outcome.succeeded()
            finally:
                if admission.first_lease is not None:
                    self._waiting.release(admission.first_lease)
                self._waiting.release(admission.lease)
        finally:
            self._leave()

    @asynccontextmanager
    async def _connection(
        self, deadline: int, establish: Establish | None, *, waits: bool
    ) -> AsyncGenerator[Connection[Any], None]:
        state = self._state
        if self._find is None:
            raise ValueError(f"destination {state.name} has no candidates: it gives permits only")
        if establish is not None and not callable(establish):
            raise TypeError(f"establish must be callable or None, got {shown(establish)}")
        self._enter()
        try:
            admission = await self._admit(deadline, connects=True, waits=waits)
            run = Run(self._waiting, state, admission, deadline, establish)
            try:
                stream, result, candidate = await run.connect()
                async with stream:
                    yield Connection(stream, result, candidate, run)
            finally:
                self._waiting.end(state, admission, "ended by its caller")
                run.close()
        finally:
            self._leave()

    def _enter(self) -> None:
        self._state.busy += 1
        self._waiting.join(self._state)

    def _leave(self) -> None:
        self._state.busy -= 1
        self._state.used = current_time()

    async def _admit(self, deadline: int, *, connects: bool, waits: bool) -> Admission:
        state = self._state
        until = to_seconds(deadline)
        moment = current_time()
        if deadline > IMMEDIATE and until <= moment:
            await checkpoint()
            raise call_exceeded(f"connect to {state.name}", 0.0, detail="it began after its deadline")
        await checkpoint_if_cancelled()
        wait = state.circuit.wait(moment)
        if wait is not None and wait.known:
            # Nothing needs to be looked up for this answer.
            limit = min(max(until, moment), trio.current_effective_deadline())
            if not waits or wait.until > limit:
                refusal = Refusal(DestinationDelayed, "has failed too often", wait.until, known=True)
                state.tell("refused", state.health(), refusal.cause)
                raise state.decision(refusal, limit)
        if self._find is not None and state.found.expires <= moment:
            await self._look_up(self._find, until)
        return await self._waiting.admit(state, until, connects=connects, waits=waits)

    async def _look_up(self, find: Finder, until: float) -> None:
        state, began = self._state, current_time()
        if began < self._lookup_retry:
            refusal = Refusal(RetryAt, "its lookup failed a moment ago", self._lookup_retry, known=True)
            raise state.decision(refusal, until)
        try:
            with trio.CancelScope(deadline=until) as scope:
                found = await find()
                state.lookup_failures = 0
                state.learn(self._allowed(found))
                # Its group may be another one now, and with it the limits that those in the line wait for.
                self._waiting.wake(state)
        except Rejected as exc:
            state.errors.append(str(exc))
            state.tell("refused", state.health(), str(exc))
            raise DestinationRejected(state.name, str(exc), until=-1) from exc.__cause__
        except OSError as exc:
            state.lookup_failures += 1
            draw = state.shared.random.uniform(-1.0, 1.0)
            self._lookup_retry = current_time() + state.policy.delay.delay(state.lookup_failures, draw)
            state.errors.append(str(exc))
            refusal = Refusal(RetryAt, f"its lookup failed ({exc})", self._lookup_retry, known=True)
            state.tell("refused", state.health(), refusal.cause)
            raise state.decision(refusal, until) from exc
        if scope.cancelled_caught:
            raise call_exceeded(f"lookup of {state.name}", current_time() - began)

    def _allowed(self, found: Found) -> Found:
        """Return what the address filter lets through."""
        allows = self._state.shared.address_filter
        if allows is None:
            return found
        hosts: list[Host] = []
        for host in found.hosts:
            kept = tuple(each for each in host.candidates if allows(each.endpoint))
            if len(kept) < len(host.candidates) and self._state.policy.prohibited == "reject":
                refused = next(each for each in host.candidates if each not in kept)
                raise Rejected(f"the address filter refuses {refused.endpoint}")
            if kept:
                hosts.append(attrs.evolve(host, candidates=kept))
        if not hosts:
            raise Rejected("the address filter refuses every address")
        return attrs.evolve(found, hosts=tuple(hosts))

    # What is known of it

    def suspend(self, until: int, source: Source | None = None, *, reason: str = "suspended by hand") -> None:
        """Leave a source out for this destination until a time, by hand.

        Args:
          until: milliseconds on the clock of `now()`; -1 until `reset`.
          source: which; None for all.
          reason: what is told to those who are refused.

        Raises:
          TypeError: `until` is not an int.
          ValueError: `until` is not a time, or the outbound does not have this source.
        """
        at = to_seconds(until)
        if until == IMMEDIATE:
            raise ValueError("a suspension ends at a time: now() + milliseconds, or -1 for none")
        state = self._state
        which = None if source is None else state.shared.source_state(source)
        state.suspend((state, which), at, reason, which)

    def reset(self) -> None:
        """Start afresh: the network has come back, or somebody knows better.

        Closes the circuit, forgets the backoff and the cooldowns of its addresses, lifts the suspensions that keep
        sources from it, and lets those who wait try at once. What calls that are under way still report is ignored.
        """
        state = self._state
        shared = state.shared
        before = state.health()
        state.circuit.reset()
        for source in shared.sources:
            shared.suspensions.lift(state.suspension_keys(source))
            shared.suspensions.lift((source, family) for family in source.families)
        for candidate in self._candidates():
            shared.cooldowns.succeeded(candidate.endpoint)
            for source in shared.sources:
                shared.cooldowns.succeeded((source, candidate.endpoint))
        self._lookup_retry = -inf
        state.lookup_failures = 0
        state.tell("reset", before)
        # A source's own suspension may have kept others waiting, too.
        self._waiting.wake_all(self._states())

    def snapshot(self) -> Snapshot:
        """Return why there is no connection, and what would be the ceiling."""
        state, shared = self._state, self._state.shared
        moment = current_time()
        health = state.circuit.health
        caps: dict[Cap, None] = {}
        paces: dict[Pace, None] = {}
        self._waiting.join(state)
        for layers in state.all_layers():
            caps.update(dict.fromkeys(layers.caps))
            paces.update(dict.fromkeys(layers.paces))
        in_cooldown = [
            AddressState(each.endpoint, shared.cooldowns.failures(each.endpoint), milliseconds(until))
            for each in self._candidates()
            if (until := shared.cooldowns.until(each.endpoint)) > -inf
        ]
        return Snapshot(
            destination=state.name,
            group=state.group,
            state=health.state,
            failures=health.failures,
            openings=health.openings,
            until=shown_until(health.until),
            generation=health.generation,
            waiting=self._waiting.turns.waiting(state),
            limits=tuple(LimitState(cap.name, cap.held, cap.limit) for cap in sorted(caps, key=lambda cap: cap.limit)),
            rates=tuple(
                RateState(pace.name, milliseconds(max(moment, pace.next_start / MICROSECONDS)))
                for pace in sorted(paces, key=lambda pace: pace.interval, reverse=True)
            ),
            binding=self._binding(moment),
            addresses=tuple(in_cooldown),
            suspensions=tuple(self._suspended(moment)),
            errors=tuple(state.errors),
        )

    def _candidates(self) -> list[Candidate]:
        return [each for host in self._state.found.hosts for each in host.candidates]

    def _suspended(self, moment: float) -> list[Suspension]:
        state, suspensions = self._state, self._state.shared.suspensions
        listed: list[Suspension] = []
        keys: list[tuple[SourceState | None, Any]] = [(None, (state, None))]
        for source in state.shared.sources:
            keys += [(source, key) for key in state.suspension_keys(source)[1:]]
            keys += [(source, (source, family)) for family in source.families]
        for which, key in keys:
            until = suspensions.until(key)
            if until > moment:
                source_value = None if which is None else which.source
                listed.append(Suspension(source_value, milliseconds(until), suspensions.reason(key)))
        return listed

    def _binding(self, moment: float) -> str:
        state = self._state
        wait = state.circuit.wait(moment)
        if wait is not None:
            return "the circuit"
        refusals: list[str] = []
        for source in state.shared.sources:
            _families, refusal = state.usable_families(source, moment)
            if refusal is not None:
                refusals.append(refusal.cause)
                continue
            blocked = Limits.blocked(state.layers_of(source)[0], state, moment)
            if blocked is None:
                return ""
            refusals.append(blocked.cap.name if blocked.cap is not None else "a rate")
        return refusals[0]
