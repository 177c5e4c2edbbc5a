"""The events of destinations, and the frozen snapshots of their state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import attrs

from .._endpoint import Endpoint, Source
from .._engine.circuit import Health

__all__ = [
    "AddressState",
    "LimitState",
    "OutboundEvent",
    "OutboundObserver",
    "RateState",
    "Snapshot",
    "Suspension",
    "What",
]

What: TypeAlias = Literal[
    "admitted", "refused", "succeeded", "failed", "released", "late", "suspended", "reset", "store away", "store back"
]
"""What was decided. "late" is the outcome of a call that began before the circuit last changed; it is ignored.
"store away" and "store back" are told of each destination in use."""


@attrs.frozen(kw_only=True)
class OutboundEvent:
    """One decision about one destination. Each `before` is the `after` of the event before it."""

    destination: str
    what: What
    at: float
    """Trio time in seconds."""
    before: Health
    after: Health
    cause: str
    """Why, in words; "" where `what` says it all."""
    source: Source | None = None


OutboundObserver: TypeAlias = Callable[[OutboundEvent], None]
"""Called synchronously with each decision: it must be quick. One that raises is logged and dropped."""


@attrs.frozen
class LimitState:
    """How much of a cap is used."""

    name: str
    held: int
    cap: int


@attrs.frozen
class RateState:
    """When a rate admits the next start."""

    name: str
    next: int
    """Milliseconds on the clock of `now()`."""


@attrs.frozen
class AddressState:
    """A known address whose last attempt failed."""

    endpoint: Endpoint
    failures: int
    """How many attempts in a row have failed."""
    until: int
    """Until when plans try it last, in milliseconds on the clock of `now()`."""


@attrs.frozen
class Suspension:
    """A source that is not used."""

    source: Source | None
    until: int
    """Milliseconds on the clock of `now()`; `NO_DEADLINE` for good."""
    reason: str


@attrs.frozen(kw_only=True)
class Snapshot:
    """The state of a destination, and what limits it. Times are milliseconds on the clock of `now()`."""

    destination: str
    group: str
    """Its route group: destinations of one group share their limits."""
    state: Literal["closed", "open", "probing"]
    failures: int
    """How many calls in a row have failed at every address."""
    openings: int
    """How often it was delayed since the last success."""
    until: int
    """Until when it is delayed; `NO_DEADLINE` when it is not."""
    generation: int
    """How many generations have begun before this one: with each opening, each recovery and each `reset`."""
    waiting: int
    """How many calls wait for admission."""
    limits: tuple[LimitState, ...]
    """Every cap, the smallest first."""
    rates: tuple[RateState, ...]
    """Every rate, the slowest first."""
    binding: str
    """The name of what would refuse a call now; "" when nothing would."""
    addresses: tuple[AddressState, ...]
    """The known addresses that have failed last."""
    suspensions: tuple[Suspension, ...]
    """The sources that are not used."""
    errors: tuple[str, ...]
    """The texts of the last failures, the latest last."""
