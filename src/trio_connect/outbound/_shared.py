"""What all destinations of one outbound have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from random import Random
from socket import AF_INET, AF_INET6, AddressFamily
from typing import final

from trio.lowlevel import ParkingLot, disable_ki_protection

from .._endpoint import Endpoint, Source
from .._engine.health import Cooldowns, Strikes, Suspensions
from .._engine.limits import Limits, Share
from .._engine.plan import weighted_order
from .._outbound_values import OutboundPolicy
from .._text import shown
from ._events import OutboundEvent, OutboundObserver
from ._store import Store

__all__ = ["Shared", "SourceState"]

_log = logging.getLogger("trio_connect.outbound")


@final
class SourceState:
    """A source, or the absence of any; compared by identity, which is quick."""

    __slots__ = ("families", "name", "source", "weight")

    def __init__(self, source: Source | None) -> None:
        self.source = source
        self.weight = 1 if source is None else source.weight
        self.name = "any source" if source is None else source.name or str(source)
        self.families: tuple[AddressFamily, ...] = tuple(
            family for family in (AF_INET, AF_INET6) if source is None or source.serves(family)
        )


@final
class Shared:
    """The limits, the memory and the random generator of one outbound.

    Args:
      sources: where connections may start; empty to let the kernel choose.
      policy: the outbound's own rules.
      address_filter: which addresses may be connected to; None for all.
      observer: told about each decision.
      random: where all draws come from.
      store: where the limits stand that other processes share; None when nobody shares them.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        policy: OutboundPolicy,
        address_filter: Callable[[Endpoint], bool] | None,
        observer: OutboundObserver | None,
        random: Random,
        store: Store | None,
    ) -> None:
        self.sources = tuple(map(SourceState, sources)) or (SourceState(None),)
        self.policy = policy
        self.address_filter = address_filter
        self.observer = observer
        self._interrupt: BaseException | None = None
        self.random = random
        self.store = store
        self.answers = ParkingLot()
        """Where tasks wait for the store to answer."""
        self.may_lose = store is not None and store.may_lose
        self.holds: set[Callable[[], None]] = set()
        """What is called when places are lost."""
        self.limits = Limits()
        self.cooldowns = Cooldowns(policy.address_cooldown, policy.state_expiry, random)
        self.suspensions = Suspensions()
        self.strikes = Strikes()
        total = policy.total_connections
        self.total = None if total is None else Share("connections of the whole program", total, reserve=policy.reserve)
        self._by_source = {each.source: each for each in self.sources}

    def in_drawn_order(self) -> Iterator[SourceState] | tuple[SourceState, ...]:
        """Return the sources in an order drawn by weight."""
        if len(self.sources) == 1:
            return self.sources
        return (self.sources[index] for index in weighted_order([each.weight for each in self.sources], self.random))

    def source_state(self, source: Source | None) -> SourceState:
        """Return the state of a source.

        Raises:
          ValueError: the outbound does not have it.
        """
        try:
            return self._by_source[source]
        except KeyError:
            raise ValueError(f"{shown(source)} is not a source of this outbound") from None

    def tell(self, event: OutboundEvent) -> None:
        """Tell the observer, unless it has raised before.

        What it raises that is not an error (Ctrl-C while it runs, `SystemExit`) is kept for `raise_interrupt`: here it
        would come between the lines of the accounting.
        """
        observer = self.observer
        if observer is None:
            return
        try:
            _call(observer, event)
        except Exception:  # noqa: BLE001 - a stranger's; logged
            self.observer = None
            _log.exception("the observer of an outbound raised and is dropped: %r", observer)
        except BaseException as exc:  # noqa: BLE001 - raised later
            self.observer = None
            self._interrupt = exc

    def raise_interrupt(self) -> None:
        """Raise what an observer was interrupted by, where nothing can be lost by it."""
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                del interrupt


@disable_ki_protection  # Ctrl-C must reach an observer that does not return
def _call(observer: OutboundObserver, event: OutboundEvent) -> None:
    observer(event)
