"""The events of destinations, and the frozen snapshots of their state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import attrs

from .._endpoint import Endpoint, Source
from .._engine.circuit import Health
from .._pickling import reduced_without_password

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
    """One decision about one destination. Each `before` is the `after` of the event before it.

    Attributes:
      destination: its name.
      what: "admitted", "refused", "succeeded", "failed", "released", "late", "suspended", "reset", "store away" or
        "store back".
      at: Trio time in seconds.
      before: the circuit before it.
      after: the circuit after it.
      cause: why, in words; "" where `what` says it all.
      source: the source that it is about; None for none.
    """

    destination: str
    what: What
    at: float
    before: Health
    after: Health
    cause: str
    source: Source | None = None

    __reduce__ = reduced_without_password


OutboundObserver: TypeAlias = Callable[[OutboundEvent], None]
"""Called synchronously with each decision: it must be quick. One that raises is logged and dropped."""


@attrs.frozen
class LimitState:
    """How much of a cap is used.

    Attributes:
      name: what it is a limit on, in words.
      held: how many are held.
      cap: how many may be.
    """

    name: str
    held: int
    cap: int


@attrs.frozen
class RateState:
    """When a rate admits the next start.

    Attributes:
      name: what it is a rate of, in words.
      next: milliseconds on the clock of `now()`.
    """

    name: str
    next: int


@attrs.frozen
class AddressState:
    """A known address whose last attempt failed.

    Attributes:
      endpoint: the address.
      failures: how many attempts in a row have failed.
      until: until when plans try it last, in milliseconds on the clock of `now()`.
    """

    endpoint: Endpoint
    failures: int
    until: int


@attrs.frozen
class Suspension:
    """A source that is not used.

    Attributes:
      source: which; None for all.
      until: milliseconds on the clock of `now()`; `NO_DEADLINE` for good.
      reason: why.
    """

    source: Source | None
    until: int
    reason: str

    __reduce__ = reduced_without_password


@attrs.frozen(kw_only=True)
class Snapshot:
    """The state of a destination, and what limits it. Times are milliseconds on the clock of `now()`.

    Attributes:
      destination: its name.
      group: its route group: destinations of one group share their limits.
      state: "closed" (it is used), "open" (it is left alone) or "probing" (a call finds out).
      failures: how many calls in a row have failed at every address.
      openings: how often it was delayed since the last success.
      until: until when it is delayed; `NO_DEADLINE` when it is not.
      generation: how many generations have begun before this one: with each opening, each recovery and each `reset`.
      waiting: how many calls wait for admission.
      limits: every cap, the smallest first.
      rates: every rate, the slowest first.
      binding: the name of what would refuse a call now, as far as this process knows: a store is not asked. "" when
        nothing would.
      addresses: the known addresses that have failed last.
      suspensions: the sources that are not used.
      errors: the texts of the last failures, the latest last.
    """

    destination: str
    group: str
    state: Literal["closed", "open", "probing"]
    failures: int
    openings: int
    until: int
    generation: int
    waiting: int
    limits: tuple[LimitState, ...]
    rates: tuple[RateState, ...]
    binding: str
    addresses: tuple[AddressState, ...]
    suspensions: tuple[Suspension, ...]
    errors: tuple[str, ...]
