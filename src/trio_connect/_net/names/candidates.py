"""The addresses of a name as candidates of a race, in the order to try them in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from socket import AF_INET
from typing import TYPE_CHECKING, final

from ..._endpoint import Endpoint
from ..._engine.order import NO_KNOWLEDGE, Knowledge, order, served_families
from ..._trace import LookupFinished, LookupStarted
from ..race.candidates import pair_up
from ..sockets.open import factory_installed
from .lookup import Lookups
from .route import look_up_routes
from .system import custom_resolver
from .system_files import policy_table

if TYPE_CHECKING:
    import trio

    from ..._answer import Lookup
    from ..._endpoint import Source
    from ..._policy import RacePolicy
    from ..race.candidates import Offers, Refusals
    from ..race.plan import RacePlan
    from ..reports import Pair
    from .resolve import Resolver


def kernel_knows() -> bool:
    """Say whether the kernel's routes are those of the network that this run sees."""
    return not factory_installed() and custom_resolver() is None


def in_order(
    endpoints: Iterable[Endpoint], sources: Sequence[Source], policy: RacePolicy, *, ask_kernel: bool
) -> tuple[Endpoint, ...]:
    everything = tuple(dict.fromkeys(endpoints))
    # One endpoint has one order, and asking for routes costs three system calls for each.
    routes = look_up_routes(everything, sources) if ask_kernel and len(everything) > 1 else {}
    known = Knowledge(sources=routes, table=policy_table()) if ask_kernel else NO_KNOWLEDGE
    return order(
        everything,
        known,
        preferred_family_count=policy.preferred_family_count,
        first_family=None if policy.first_family == "system" else policy.first_family,
    )


@final
class AddressesOfName:
    """The addresses of one name, as candidates of a race."""

    def __init__(self, host: str, port: int, resolver: Resolver, plan: RacePlan, refusals: Refusals | None) -> None:
        self._host = host
        self._port = port
        self._resolver = resolver
        self._plan = plan
        self._ask_kernel = kernel_knows()
        self._refusals = refusals
        self._endpoints: dict[str, Endpoint] = {}
        self._lookups: Lookups | None = None

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """Those that have ended; once the race is over, all of them."""
        return () if self._lookups is None else self._lookups.records

    async def run(self, race: Offers, nursery: trio.Nursery) -> None:
        """Run the lookups in the race's nursery, and offer what they find, sorted."""
        plan = self._plan
        host, origin = self._host, plan.started
        lookups = self._lookups = Lookups(
            host,
            served_families(plan.sources),
            self._resolver,
            resolution_delay=plan.policy.resolution_delay,
            ipv4_first=plan.policy.first_family == AF_INET,
            on_start=None
            if plan.observer is None
            else lambda kind, at: race.notify(LookupStarted, host, kind, origin + at),
            on_end=None
            if plan.observer is None
            else lambda lookup: race.notify(LookupFinished, lookup, origin + lookup.ended),
            origin=origin,
        )
        lookups.start(nursery)
        while await lookups.more():
            pairs, refused = self._in_order(lookups.addresses)
            race.offer(pairs, refused, order=pairs)

    def _in_order(self, addresses: Sequence[str]) -> tuple[list[Pair], dict[Pair, str]]:
        """Sort everything that is known by now, as RFC 8305 section 3 asks for when answers come late."""
        for address in addresses:
            if address not in self._endpoints:
                self._endpoints[address] = Endpoint(address, self._port)
        # Judged before they are sorted: the kernel is asked for no route to an address that will not be used.
        allowed, refused = pair_up((self._endpoints[address] for address in addresses), (), self._refusals)
        # All of them can be reached: nothing was asked of a family that no source has, and answers are kept by family.
        sources = self._plan.sources
        endpoints = (endpoint for _, endpoint in allowed)
        ordered = in_order(endpoints, sources, self._plan.policy, ask_kernel=self._ask_kernel)
        return pair_up(ordered, sources, None)[0], refused
