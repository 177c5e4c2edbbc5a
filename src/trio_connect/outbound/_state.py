"""One destination: its circuit, its limits, what is known of its addresses, and whether a call may go on.

Nothing here waits. `DestinationState.admit` checks every limit and then takes a place under all, or returns a refusal.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Hashable, Iterator
from math import inf
from typing import final

import attrs
from trio import current_time

from .._deadline import NO_DEADLINE
from .._engine.circuit import Circuit, Health, Ticket
from .._engine.limits import Cap, Layers, Lease, Limits, Pace, Place
from .._engine.plan import make_plan
from .._outbound_values import MICROSECONDS, Candidate, OutboundPolicy
from .._policy import RacePolicy
from ._decisions import DestinationDelayed, NotAdmitted, RequeueOne, RetryAt, SourceSuspended, milliseconds
from ._events import OutboundEvent, What
from ._lookups import Found
from ._refusal import Refusal, joined, refusal_of
from ._shared import Shared, SourceState
from ._store import Later

__all__ = ["Admission", "DestinationState", "shown_until"]

_MOST_ERRORS = 8
"""How many texts of failures are remembered."""


@attrs.define(eq=False)
class Admission:
    """The places and the ticket of a call that was admitted."""

    source: SourceState
    lease: Lease
    ticket: Ticket
    connecting: Cap | None
    """The cap whose place it has while it connects."""
    plan: list[Candidate]
    """What to try, in order; empty for a permit without candidates."""
    first_lease: Lease | None
    """The place of the first of the plan, where its candidate has limits of its own."""


@final
class DestinationState:
    """One destination.

    Args:
      shared: what it has in common with the others.
      name: what it is called.
      policy: its rules.
      group: what shares its limits, if the caller said so.
    """

    def __init__(self, shared: Shared, name: str, policy: OutboundPolicy, group: str | None) -> None:
        self.shared = shared
        self.name = name
        self.policy = policy
        self.given_group = group
        self.group = name if group is None else group
        self.circuit = Circuit(policy, shared.random)
        self.found = Found((), None, -inf)
        self.last_refusal: Refusal | None = None
        """Why the first waiting call waits."""
        self.why = ""
        """Why the addresses of the last call that failed did, in few words."""
        self.errors: deque[str] = deque(maxlen=_MOST_ERRORS)
        self.busy = 0
        """How many calls and connections there are."""
        self.used = current_time()
        self.is_member = False
        self.race_policy = RacePolicy(attempt_delay=policy.stagger, attempt_timeout=policy.attempt_timeout)
        self._connecting = Cap(f"connects to {name} under way", policy.max_connecting)
        self._layers: dict[SourceState, tuple[Layers, Layers]] = {}
        self._own_layers: dict[Candidate, Layers] = {}
        self._families: frozenset[int] = frozenset()
        self._is_registered = False
        self._registered: set[Layers] = set()
        """Those that the store knows. Another destination may have given one of their limits a smaller number since."""
        self._asked_from: SourceState | None = None
        self._asked_for: Candidate | None = None
        """For which source and candidate a store was asked."""

    # What is known of its addresses

    def learn(self, found: Found) -> None:
        """Store what a lookup has found."""
        if found is self.found:
            return
        self.found = found
        group = self.given_group
        if group is None:
            group = found.group or self.name
        if group != self.group:
            self.group = group
            self._layers.clear()
        self._is_registered = False
        candidates = self.candidates()
        self._families = frozenset(each.endpoint.family for each in candidates)
        self._own_layers = {
            each: self._own(each, group)
            for each in candidates
            if each.max_connections is not None or each.rate is not None
        }

    def _own(self, candidate: Candidate, group: str) -> Layers:
        limits, endpoint = self.shared.limits, candidate.endpoint
        key, shared = (group, endpoint), _shared(group, endpoint)
        most, rate = candidate.max_connections, candidate.rate
        return Layers.of(
            [] if most is None else [limits.cap(key, f"connections to {endpoint}", most, shared=shared)],
            [] if rate is None else [limits.pace(key, f"rate of {endpoint}", rate, shared=shared)],
        )

    def register(self) -> None:
        """Have the store know every limit, in the task of a call, which hears of what is wrong.

        Raises:
          ValueError: another process has a limit with another number.
        """
        store = self.shared.store
        if store is not None and not self._is_registered:
            there = list(self.all_layers())
            try:
                for layers in there:
                    if layers not in self._registered:
                        store.register(layers.shared_caps, layers.shared_paces)
            except OSError:
                return  # it will refuse what it is asked for, with the reason
            self._registered = set(there)
            self._is_registered = True

    def candidates(self) -> list[Candidate]:
        """Return the candidates of all hosts that the last lookup has found."""
        return [each for host in self.found.hosts for each in host.candidates]

    def own_layers(self, candidate: Candidate) -> Layers | None:
        """Return the limits of a candidate; None when it has none of its own."""
        return self._own_layers.get(candidate)

    # Admission

    def admit(self, now: float, *, connects: bool) -> Admission | Refusal:
        """Take all that a call needs to go on, or nothing.

        Args:
          now: the time.
          connects: whether the call makes a connection; False for a permit.
        """
        refusal = self.refused_by_circuit(now)
        if refusal is not None:
            return refusal
        refusals: list[Refusal] = []
        for source in self._in_order():
            outcome = self.admit_from(source, now, connects=connects)
            if isinstance(outcome, Admission):
                return outcome
            if outcome.pending:
                # What the store gives is for this source. Another one is asked for when it gives nothing.
                self._asked_from = source
                return outcome
            refusals.append(outcome)
        return joined(refusals)

    def refused_by_circuit(self, now: float) -> Refusal | None:
        """Return why the circuit lets no call through now; None when it does."""
        wait = self.circuit.wait(now)
        if wait is None:
            return None
        cause = self.too_often() if wait.known else "is being tried by another call"
        return Refusal(DestinationDelayed, cause, wait.until, wait.known)

    def _in_order(self) -> Iterator[SourceState] | tuple[SourceState, ...]:
        """Return the sources in an order drawn by weight, after the one for which a store was asked."""
        asked, self._asked_from = self._asked_from, None
        if asked is None:
            return self.shared.in_drawn_order()
        return (asked, *(each for each in self.shared.in_drawn_order() if each is not asked))

    def change_source(
        self, held: Lease, before: SourceState, source: SourceState, now: float, *, starts_anew: bool
    ) -> Lease | Refusal:
        """Take a place under the limits of another source, for a call that was admitted from a first one.

        What both sources share the call has already: its places move to the new lease, and what is left of the old one
        is to be given back. A call alone in its group would else find the group full, with itself.

        Args:
          held: the lease of the call.
          before: its source until now.
          source: the other one.
          now: the time.
          starts_anew: whether a connection was made already, so that the next one counts under the rates of both, too.
        """
        layers = self.layers_of(source)[1]
        charged = () if starts_anew else self.layers_of(before)[1].paces
        missing = Layers.of(
            [cap for cap in layers.caps if cap not in held.caps], [pace for pace in layers.paces if pace not in charged]
        )
        outcome = self.take(missing, now)
        if isinstance(outcome, Lease):
            held.move((*layers.caps, self._connecting), outcome)
        return outcome

    def take(self, layers: Layers, now: float) -> Lease | Refusal:
        """Take a place under every limit, those that other processes share among them, or nothing."""
        blocked = Limits.blocked(layers, self, now)
        if blocked is not None:
            return refusal_of(blocked, layers)
        places: dict[Cap, Place] = {}
        store = self.shared.store
        if store is not None:
            outcome = store.acquire(layers.shared_caps, layers.shared_paces)
            if isinstance(outcome, Later):
                return Refusal(
                    RetryAt, outcome.cause, now + outcome.seconds, outcome.known, outcome.blockers,
                    pending=outcome.pending, is_answered=outcome.is_answered,
                )  # fmt: skip
            places = outcome
        lease = Limits.acquire(layers, self, now)
        assert isinstance(lease, Lease), "nothing has happened since it was not blocked"
        lease.places.update(places)
        return lease

    def too_often(self) -> str:
        """Return the cause of a refusal by the open circuit."""
        return f"has failed too often{self.shown_why()}"

    def shown_why(self) -> str:
        """Return `why` for the end of a cause."""
        return f" ({self.why})" if self.why else ""

    def usable_families(self, source: SourceState, now: float) -> tuple[frozenset[int], Refusal | None]:
        """Return the families by which a source reaches this destination, or why it does not."""
        suspensions = self.shared.suspensions
        served = frozenset(source.families)
        if self._families:
            served &= self._families
            if not served:
                cause = f"{source.name} has no address of the family of any candidate"
                return served, Refusal(RequeueOne, cause, now + self.policy.delay.maximum, known=True)
        if not len(suspensions):
            return served, None
        for key in self.suspension_keys(source):
            if suspensions.is_on(key, now):
                return frozenset(), self._suspended(source, key)
        keys: dict[int, Hashable] = {family: (source, family) for family in served}
        usable = frozenset(family for family, key in keys.items() if not suspensions.is_on(key, now))
        if usable:
            return usable, None
        return usable, self._suspended(source, min(keys.values(), key=suspensions.until))

    def suspension_keys(self, source: SourceState) -> tuple[Hashable, ...]:
        """Return the keys of the suspensions that can keep a source from this destination, whatever the family."""
        return ((self, None), (self, source), (source, self.group))

    def plan(
        self, source: SourceState, families: frozenset[int], now: float, *, limited: bool = True
    ) -> list[Candidate]:
        """Return what to try from a source, in order: as many as one call may, or all."""
        cooldowns = self.shared.cooldowns

        def cooldown(candidate: Candidate) -> float:
            return max(cooldowns.until(candidate.endpoint), cooldowns.until((source, candidate.endpoint)))

        hosts = self.found.hosts
        if not families >= self._families:
            hosts = tuple(
                attrs.evolve(host, candidates=tuple(c for c in host.candidates if c.endpoint.family in families))
                for host in hosts
            )
        limit = self.policy.max_addresses_per_plan if limited else sum(len(host.candidates) for host in hosts)
        return make_plan(hosts, now, cooldown, limit, self.shared.random)

    def admit_from(self, source: SourceState, now: float, *, connects: bool) -> Admission | Refusal:
        """Take all that a call from one source needs, or nothing, as `admit` does. The circuit was asked before."""
        families, refusal = self.usable_families(source, now)
        if refusal is not None:
            return refusal
        layers = self.layers_of(source)[0 if connects else 1]
        blocked = Limits.blocked(layers, self, now)
        if blocked is not None:
            return refusal_of(blocked, layers)
        plan = self.plan(source, families, now) if self.found.hosts else []
        first_lease = None
        if self._own_layers:
            outcome = self._first_admissible(plan, layers, now)
            if isinstance(outcome, Refusal) and not outcome.pending:
                # There may be room at an address for which the plan had no place.
                outcome = self._first_admissible(self.plan(source, families, now, limited=False), layers, now)
            if isinstance(outcome, Refusal):
                return outcome
            plan, lease, first_lease = outcome
            del plan[self.policy.max_addresses_per_plan :]
        else:
            taken = self.take(layers, now)
            if isinstance(taken, Refusal):
                return taken
            lease = taken
        ticket = self.circuit.admit(now)
        assert isinstance(ticket, Ticket), "nothing has happened since nobody had to wait"
        return Admission(source, lease, ticket, self._connecting if connects else None, plan, first_lease)

    def _first_admissible(
        self, plan: list[Candidate], layers: Layers, now: float
    ) -> tuple[list[Candidate], Lease, Lease | None] | Refusal:
        """Take the places of a call for the first candidate whose own limits admit it now.

        Returns:
          the plan, rotated to that candidate, the places of the call, and those under the candidate's own limits.
        """
        refusals: list[Refusal] = []
        asked, self._asked_for = self._asked_for, None
        if asked in plan:
            # What the store gives is for this one.
            plan = [asked, *(each for each in plan if each != asked)]
        for index, candidate in enumerate(plan):
            own = self._own_layers.get(candidate)
            lease = self.take(layers if own is None else own | layers, now)
            if isinstance(lease, Refusal):
                if lease.pending:
                    self._asked_for = candidate
                    return lease
                refusals.append(lease)
                continue
            # Skipped candidates go last: they may have room by then.
            rotated = plan[index:] + plan[:index]
            if own is None:
                return rotated, lease, None
            first = Lease(self, [])
            lease.move(own.caps, first)
            return rotated, lease, first
        return joined(refusals)

    def blocked(self, source: SourceState, now: float) -> str:
        """Return the name of the limit that would refuse a connection from a source; "" when there is not one."""
        blocked = Limits.blocked(self.layers_of(source)[0], self, now)
        candidates = [each for host in self.found.hosts for each in host.candidates]
        if blocked is None and self._own_layers and len(self._own_layers) == len(candidates):
            own = [Limits.blocked(layers, self, now) for layers in self._own_layers.values()]
            blocked = None if None in own else own[0]
        if blocked is None:
            return ""
        return blocked.cap.name if blocked.cap is not None else "a rate"

    def layers_of(self, source: SourceState) -> tuple[Layers, Layers]:
        """Return the limits of a connection, and those of a permit."""
        layers = self._layers.get(source)
        if layers is None:
            shared, policy, group = self.shared, self.policy, self.group
            limits = shared.limits
            named = f"from {source.name} to {group}"
            ours, everybodys = _shared(group, source.name), _shared(group)
            caps = [limits.cap((source, group), f"connections {named}", policy.max_connections, shared=ours)]
            paces: list[Pace] = []
            if policy.group_max_connections is not None:
                caps.append(
                    limits.cap(group, f"connections to {group}", policy.group_max_connections, shared=everybodys)
                )
            if shared.total is not None:
                caps.append(shared.total)
            if policy.rate is not None:
                paces.append(limits.pace((source, group), f"rate {named}", policy.rate, shared=ours))
            if policy.group_rate is not None:
                paces.append(limits.pace(group, f"rate to {group}", policy.group_rate, shared=everybodys))
            layers = Layers.of([self._connecting, *caps], paces), Layers.of(caps, paces)
            self._layers[source] = layers
        return layers

    def all_layers(self) -> Iterator[Layers]:
        """Return the limits of all sources and candidates."""
        for source in self.shared.sources:
            yield self.layers_of(source)[0]
        yield from self._own_layers.values()

    def _suspended(self, source: SourceState, key: Hashable) -> Refusal:
        suspensions = self.shared.suspensions
        which = None if key == (self, None) else source
        name = "every source" if which is None else source.name
        cause = f"{name} is suspended ({suspensions.reason(key)})"
        until = suspensions.until(key)
        return Refusal(SourceSuspended, cause, until, known=True, source=None if which is None else which.source)

    # Decisions and events

    def decision(self, refusal: Refusal, deadline: float) -> NotAdmitted:
        """Return the exception for a caller with this deadline."""
        # A place may become free at any time. The shortest delay of the policy is a guess.
        at = refusal.timer if refusal.known else min(refusal.timer, current_time() + self.policy.delay.initial)
        until = milliseconds(at)
        late = at > deadline
        if refusal.kind is SourceSuspended:
            return SourceSuspended(self.name, refusal.cause, until=until, source=refusal.source, misses_deadline=late)
        return refusal.kind(self.name, refusal.cause, until=until, misses_deadline=late)

    def refuse(self, refusal: Refusal, deadline: float) -> NotAdmitted:
        """Tell the observer of a refusal, and return the decision for a caller with this deadline."""
        self.tell("refused", self.health(), refusal.cause)
        return self.decision(refusal, deadline)

    def health(self) -> Health | None:
        """Return the circuit's health for an event; None without an observer."""
        return None if self.shared.observer is None else self.circuit.health

    def tell(self, what: What, before: Health | None, cause: str = "", source: SourceState | None = None) -> None:
        """Tell the observer of a decision. `before` is what `health` returned before it."""
        if before is not None:
            event = OutboundEvent(
                destination=self.name, what=what, at=current_time(), before=before, after=self.circuit.health,
                cause=cause, source=None if source is None else source.source,
            )  # fmt: skip
            self.shared.tell(event)

    def suspend(self, key: Hashable, until: float, reason: str, source: SourceState | None) -> None:
        """Suspend what a key stands for: a source, for this destination or for more."""
        before = self.health()
        self.shared.suspensions.suspend(key, until, reason)
        self.tell("suspended", before, reason, source)

    def is_idle(self, now: float) -> bool:
        """Say whether nothing would be lost if this destination were forgotten."""
        expiry = self.policy.state_expiry
        if self.busy or max(self.used, self.circuit.until) + expiry > now:
            return False
        suspensions = self.shared.suspensions
        if any(suspensions.is_on((self, source), now) for source in (None, *self.shared.sources)):
            return False
        used = [*(layers for layers, _ in self._layers.values()), *self._own_layers.values()]
        return all(pace.next_start <= now * MICROSECONDS for layers in used for pace in layers.paces)


def _shared(group: str, *what: object) -> str:
    """Return what all processes know a limit by: its route group, and the source or endpoint that it is for."""
    return json.dumps([group, *map(str, what)])


def shown_until(at: float) -> int:
    """Return a time for a snapshot."""
    return NO_DEADLINE if at == -inf else milliseconds(at)
