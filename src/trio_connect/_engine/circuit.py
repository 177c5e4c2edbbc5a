"""The circuit of a destination: whether calls may connect to it, and which calls probe whether it has recovered.

Theory of operation
===================

The circuit is a machine of three states. It is driven from outside: facts go in together with the time, and it reads
no clock and no socket. Its only randomness is the jitter, drawn from a generator that is passed in.

- *Closed*: every call is admitted. Failures are counted. The `failures_to_delay`-th in a row opens the circuit.
- *Open*: no call is admitted before `until`. The delay grows with each opening since the last success.
- *Probing*: `until` has passed. At most `probe_limit` tickets are out at once, and further calls wait. A success closes
  the circuit. A failure opens it again at once, with the next longer delay.

A **ticket** is what an admitted call holds until its outcome is known. It says exactly one of:

- `succeeded`: the handshake is done. (TCP alone proves nothing: a dead service behind a live balancer has TCP.)
- `failed`: every address that could be tried has failed, and this side was not the cause.
- `released`: neither is known. The call was cancelled, or its source could not be bound. Only the place of a probe
  becomes free; otherwise a cancelled probe would keep the circuit open for ever.

A **generation** begins when the circuit opens, when a probe closes it, and with a reset. A ticket belongs to the
generation in which it was given, and its outcome is *late* in any later one: it frees its place, and changes nothing
else. So a burst of calls that all began before an opening counts once, and cannot lengthen the delay.

A ticket given while probing has a **lease**. When the lease runs out the place is free, and the outcome is late from
then on. Tickets of earlier generations keep their places until their outcome is told or their leases run out: probes
that began before a re-opening still load a peer that is in trouble.

After a probe has closed the circuit, the number of tickets that are out at once starts at `max_connecting` and grows
by one with each success, so that a peer which has just recovered does not get all waiting calls at once. At
`max_connections` the ramp ends. A failure does not change it.

Every pair of state and fact is in the tables below. An illegal pair raises `IllegalFact` and changes nothing.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs

from .facts import ILLEGAL, LATE, IllegalFact
from .moments import has_come

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

    from .._outbound_values import OutboundPolicy
    from .facts import Illegal, Late

__all__ = ["CIRCUIT_DECISIONS", "CIRCUIT_FACTS", "TICKET_FACTS", "Circuit", "Health", "Ticket", "Wait"]

CircuitState: TypeAlias = Literal["closed", "open", "probing"]
CircuitFact: TypeAlias = Literal["due", "succeeded", "failed", "released", "reset"]

CIRCUIT_FACTS: Final[Mapping[CircuitState, Mapping[CircuitFact, CircuitState | Illegal]]] = {
    # A circuit that is closed has no time to wait for, and one that is open has given no ticket in its generation.
    "closed": {
        "due": ILLEGAL,
        "succeeded": "closed",
        "failed": "closed",
        "released": "closed",
        "reset": "closed",
    },
    "open": {
        "due": "probing",
        "succeeded": ILLEGAL,
        "failed": ILLEGAL,
        "released": ILLEGAL,
        "reset": "closed",
    },
    "probing": {
        "due": ILLEGAL,
        "succeeded": "closed",
        "failed": "open",
        "released": "probing",
        "reset": "closed",
    },
}
"""The next state of the circuit, by the outcome of a ticket of its generation, by time ("due": a call asks after
`until`), or by a reset."""

CIRCUIT_DECISIONS: Final[Mapping[CircuitState, Mapping[str, CircuitState]]] = {"closed": {"Opened": "open"}}
"""The circuit's own decision: the failure that completes the number opens it."""

TicketState: TypeAlias = Literal["current", "outdated", "expired", "over"]
TicketFact: TypeAlias = Literal["succeeded", "failed", "released"]

TICKET_FACTS: Final[Mapping[TicketState, Mapping[TicketFact, Literal["over"] | Late | Illegal]]] = {
    "current": {"succeeded": "over", "failed": "over", "released": "over"},
    # Of an earlier generation, or with a lease that ran out: the outcome is told once, and ignored.
    "outdated": {"succeeded": LATE, "failed": LATE, "released": LATE},
    "expired": {"succeeded": LATE, "failed": LATE, "released": LATE},
    "over": {"succeeded": ILLEGAL, "failed": ILLEGAL, "released": ILLEGAL},
}
"""The next state of a ticket, by its outcome. A late outcome is final too."""


@attrs.frozen
class Health:
    """The state of a circuit at one moment.

    Attributes:
      state: "closed", "open" or "probing".
      failures: how many calls in a row have failed.
      openings: how often the circuit has opened since the last success.
      until: no call is admitted before this time; minus infinity while it has not opened.
      generation: how many generations have begun before this one.
    """

    state: CircuitState = "closed"
    failures: int = 0
    openings: int = 0
    until: float = -inf
    generation: int = 0


class Ticket:
    """The right to try once, and the duty to report the outcome."""

    __slots__ = ("expires", "generation", "state")

    def __init__(self, generation: int, expires: float) -> None:
        self.generation = generation
        self.expires = expires
        self.state: TicketState = "current"


@attrs.frozen
class Wait:
    """No call is admitted now.

    Args:
      until: when to ask again.
      known: whether no call can be admitted before then. False when the outcome of a ticket may admit one at any time.
    """

    until: float
    known: bool


class Circuit:
    """The circuit of one destination.

    Args:
      policy: the number of failures, the delays, the limit on probes and their lease.
      random: where the jitter comes from.
    """

    __slots__ = ("_counted", "_policy", "_ramp", "_random", "failures", "generation", "openings", "state", "until")

    def __init__(self, policy: OutboundPolicy, random: Random) -> None:
        self._policy = policy
        self._random = random
        self._ramp: int | None = None
        """How many tickets may be out after a recovery; None when any number may."""
        self._counted: dict[Ticket, None] = {}
        """The tickets given while their number was limited, and still out: in the order in which their leases end."""
        self.state: CircuitState = "closed"
        self.failures = 0
        self.openings = 0
        self.until = -inf
        self.generation = 0

    @property
    def health(self) -> Health:
        """The state now."""
        return Health(self.state, self.failures, self.openings, self.until, self.generation)

    def wait(self, now: float) -> Wait | None:
        """Return what a call that asks now has to wait for; None when it would get a ticket."""
        if self.state == "closed" and self._ramp is None:
            return None
        if self.state == "open" and not has_come(self.until, now):
            return Wait(self.until, known=True)
        self._expire(now)
        limit = self._policy.probe_limit if self._ramp is None else self._ramp
        if len(self._counted) >= limit:
            return Wait(next(iter(self._counted)).expires, known=False)
        return None

    def admit(self, now: float) -> Ticket | Wait:
        """Ask for a ticket."""
        wait = self.wait(now)
        if wait is not None:
            return wait
        if self.state == "closed" and self._ramp is None:
            return Ticket(self.generation, inf)
        if self.state == "open":
            self._become("due")
        ticket = Ticket(self.generation, now + self._policy.probe_lease)
        self._counted[ticket] = None
        return ticket

    def succeeded(self, ticket: Ticket, now: float) -> bool:
        """Learn that a call has succeeded. Return whether that counted: False when it is late."""
        if not self._hear(ticket, "succeeded", now):
            return False
        if self.state == "probing":
            self._begin_generation(ramp=self._policy.max_connecting)
        elif self._ramp is not None:
            self._ramp += 1
        if self._ramp is not None and self._ramp >= self._policy.max_connections:
            self._ramp = None
        self._become("succeeded")
        self._forget()
        return True

    def failed(self, ticket: Ticket, now: float) -> bool:
        """Learn that a call failed at this time. Return whether that counted: False when it is late."""
        if not self._hear(ticket, "failed", now):
            return False
        self.failures += 1
        if self._become("failed") == "open" or self.failures == self._policy.failures_to_delay:
            self._open(now)
        return True

    def released(self, ticket: Ticket, now: float) -> None:
        """Learn that a call has ended without an outcome."""
        self._hear(ticket, "released", now)

    def reset(self) -> None:
        """Close, and forget the backoff, because the caller says so."""
        self._become("reset")
        self._begin_generation(ramp=None)
        self._forget()

    def _become(self, fact: CircuitFact) -> CircuitState:
        becomes = CIRCUIT_FACTS[self.state][fact]
        if becomes == ILLEGAL:
            raise IllegalFact(f"{fact}: not while the circuit is {self.state}")
        self.state = becomes
        return becomes

    def _hear(self, ticket: Ticket, fact: TicketFact, now: float) -> bool:
        """Take a ticket back, and say whether its outcome counts."""
        self._expire(now)
        state = ticket.state
        if state == "current" and ticket.generation != self.generation:
            state = "outdated"
        becomes = TICKET_FACTS[state][fact]
        if becomes == ILLEGAL:
            raise IllegalFact(f"{fact}: this ticket has said how it went")
        ticket.state = "over"
        self._counted.pop(ticket, None)
        return becomes != LATE

    def _expire(self, now: float) -> None:
        while self._counted and has_come(next(iter(self._counted)).expires, now):
            ticket = next(iter(self._counted))
            ticket.state = "expired"
            del self._counted[ticket]

    def _open(self, now: float) -> None:
        self.state = CIRCUIT_DECISIONS["closed"]["Opened"]
        self.openings += 1
        self.until = now + self._policy.delay.delay(self.openings, self._random.uniform(-1.0, 1.0))
        self._begin_generation(ramp=None)

    def _begin_generation(self, *, ramp: int | None) -> None:
        """Make the tickets that are out outdated, and limit those to come.

        Args:
          ramp: how many may be out at once; None for any number while the circuit is closed.
        """
        self.generation += 1
        self._ramp = ramp

    def _forget(self) -> None:
        self.failures = 0
        self.openings = 0
        self.until = -inf
