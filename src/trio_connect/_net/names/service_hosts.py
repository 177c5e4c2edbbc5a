"""The hosts of a service, as candidates of a race: its SRV records are looked up, then the targets' addresses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, final

import trio
from trio import current_time

from ..._answer import Lookup, SrvRecord
from ..._engine.race import MAX_RACED
from ..._engine.srv import srv_in_order
from ..._text import shown
from ..._trace import LookupFinished, LookupStarted
from ..resolver import failure_in, without_frames
from .candidates import AddressesOfHosts
from .hosts import Host
from .resolve import SrvResolver, check_host, numeric

if TYPE_CHECKING:
    from ..host_of import HostOfEndpoint
    from ..race.candidates import Offers, Refusals
    from ..race.plan import RacePlan
    from .through_nat64 import Nat64OfCall


@final
class HostsOfService:
    """The hosts of a service.

    Args:
      question: service, protocol and domain.
      otherwise: what is tried where there are no records.
      resolver: whom to ask.
      random: where the order of equal priorities comes from.
      plan: of the race.
      host_of: learns which endpoint is tried for which host.
      refusals: of the caller's filter.
      nat64: the way to IPv4 addresses that have no route, or None.
    """

    def __init__(
        self,
        question: str,
        otherwise: Host | None,
        resolver: SrvResolver,
        random: Random,
        plan: RacePlan,
        host_of: HostOfEndpoint,
        refusals: Refusals | None,
        nat64: Nat64OfCall | None = None,
    ) -> None:
        self._question = question
        self._otherwise = otherwise
        self._resolver = resolver
        self._random = random
        self._plan = plan
        self._host_of = host_of
        self._refusals = refusals
        self._nat64 = nat64
        self._srv: tuple[Lookup, ...] = ()
        self._addresses: AddressesOfHosts | None = None

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """Those that have ended; once the race is over, all of them."""
        return self._srv if self._addresses is None else (*self._srv, *self._addresses.lookups)

    async def run(self, race: Offers, nursery: trio.Nursery) -> None:
        """Look the records up, then their targets in the race's nursery, and offer what they find."""
        hosts = await self._find(race)
        if hosts:
            self._addresses = AddressesOfHosts(
                hosts, self._resolver, self._plan, self._host_of, self._refusals, self._nat64
            )
            await self._addresses.run(race, nursery)

    async def _find(self, race: Offers) -> Sequence[Host]:
        records: tuple[SrvRecord, ...] | None = None
        error: OSError | None = None
        started = current_time()
        race.notify(LookupStarted, self._question, "SRV", started)
        try:
            records = _checked(await self._resolver.srv(self._question))
        except OSError as exc:
            error = without_frames(exc)
        except BaseExceptionGroup as exc:
            error = failure_in(exc)
            cancelled = exc.split(trio.Cancelled)[0]
            if error is None:
                raise
            if cancelled is not None:
                try:
                    raise cancelled from None
                finally:
                    del cancelled  # its traceback holds this frame
        finally:
            ended, origin = current_time(), self._plan.started
            lookup = Lookup(
                host=self._question,
                kind="SRV",
                started=started - origin,
                ended=ended - origin,
                records=records,
                error=error,
            )
            self._srv = (lookup,)
            race.notify(LookupFinished, lookup, ended)
        if records is None:
            return ()
        if not records:
            # RFC 2782: without records the service may still be at the domain itself. After an error it may not: the
            # records may say that it is elsewhere, or nowhere.
            return () if self._otherwise is None else (self._otherwise,)
        return tuple(dict.fromkeys(_hosts(srv_in_order(records, self._random))))[:MAX_RACED]


def _checked(records: Sequence[SrvRecord]) -> tuple[SrvRecord, ...]:
    for record in records:
        if not isinstance(record, SrvRecord):
            raise TypeError(f"a resolver returns a sequence of SrvRecord, got {shown(record)} in it")
    return tuple(records)


def _hosts(records: Sequence[SrvRecord]) -> Iterator[Host]:
    for record in records:
        try:
            is_name = numeric(check_host(record.target)) is None
        except ValueError:
            is_name = False
        if is_name and record.port:
            # A target is complete, so no search list may add to it.
            yield Host(record.target.removesuffix(".") + ".", record.port, None)
