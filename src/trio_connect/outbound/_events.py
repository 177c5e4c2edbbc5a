"""What is told of a destination as it happens, and the frozen pictures of it."""

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

What: TypeAlias = Literal["admitted", "refused", "succeeded", "failed", "released", "late", "suspended", "reset"]
"""What was decided. Late: the outcome of a call that began before the circuit last changed, which is ignored."""


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
    """When a rate lets the next one begin."""

    name: str
    next: int
    """Milliseconds on the clock of `now()`."""


@attrs.frozen
class AddressState:
    """An address that failed, of those that are known."""

    endpoint: Endpoint
    failures: int
    """How many attempts in a row."""
    until: int
    """Until when it goes last, in milliseconds on the clock of `now()`."""


@attrs.frozen
class Suspension:
    """A source that is left out."""

    source: Source | None
    until: int
    """Milliseconds on the clock of `now()`; `NO_DEADLINE` for good."""
    reason: str


@attrs.frozen(kw_only=True)
class Snapshot:
    """Why there is no connection, and what would be the ceiling. Times are milliseconds on the clock of `now()`."""

    destination: str
    group: str
    """Its route group: what shares its limits."""
    state: Literal["closed", "open", "probing"]
    failures: int
    """How many calls in a row have reached nobody."""
    openings: int
    """How often it was delayed since the last success."""
    until: int
    """Until when it is delayed; `NO_DEADLINE` when it is not."""
    generation: int
    """How many changes of state there were."""
    waiting: int
    """How many calls wait for admission."""
    limits: tuple[LimitState, ...]
    """Every cap, the smallest first."""
    rates: tuple[RateState, ...]
    """Every rate, the slowest first."""
    binding: str
    """What would refuse a call that came now; "" when nothing would."""
    addresses: tuple[AddressState, ...]
    """The known addresses that have failed last."""
    suspensions: tuple[Suspension, ...]
    """The sources that are left out."""
    errors: tuple[str, ...]
    """The texts of the last failures, the latest last."""
