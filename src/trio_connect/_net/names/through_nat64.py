"""The NAT64 of one call: which of its endpoints have no route, what they become, and the lookup of the prefix.

What is synthesised is decided in `_engine.nat64`. Here the kernel is asked for routes, and the lookup runs beside the
race: what needs no prefix is tried meanwhile, and what does joins as late answers do.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from math import inf
from socket import AF_INET, AF_INET6, AddressFamily
from typing import TYPE_CHECKING, Final, final

from ..._answer import IPV4_ONLY_NAME, Answer
from ..._endpoint import Endpoint
from ..._engine.nat64 import WELL_KNOWN_PREFIX, Translation, find_prefixes, synthesise
from ..._policy import DEFAULT_POLICY
from ..nat64 import Nat64
from ..race.candidates import EndpointsToCome, Offers, Refusals, pair_up, tellers
from .lookup import Lookups
from .ordering import in_order, in_order_as_carried, kernel_knows
from .resolve import Resolver, cleaned
from .route import look_up_routes
from .system import SYSTEM_RESOLVER

if TYPE_CHECKING:
    import trio

    from ..._answer import Lookup
    from ..._endpoint import EndpointLike, Source
    from ..._engine.race_table import Candidate
    from ..._policy import RacePolicy
    from ..history import History
    from ..host_of import HostOfEndpoint

__all__ = ["EndpointsThroughNat64", "Nat64OfCall"]

_SOMEWHERE: Final = Endpoint(synthesise("192.0.0.170", WELL_KNOWN_PREFIX), 443)
"""An address of the Internet's, to ask whether there is a route to IPv6; nothing is sent there."""


@final
class _PrefixResolver:
    """A `Nat64` as one who is asked for `IPV4_ONLY_NAME`, so that the lookup is one like others in the report."""

    def __init__(self, nat64: Nat64) -> None:
        self._nat64 = nat64

    async def addresses(self, _host: str, _family: AddressFamily, /) -> Answer:
        return await self._nat64._find(_ask)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


async def _ask(resolver: Resolver | None) -> Answer:
    return cleaned(await (resolver or SYSTEM_RESOLVER).addresses(IPV4_ONLY_NAME, AF_INET6), AF_INET6)


@final
class Nat64OfCall:
    """The NAT64 of one call.

    Args:
      nat64: the caller's.
      sources: where connections may start; those without IPv4 have no route to it.
      factory: whether this run has a socket factory. The kernel then says nothing of routes, and there is one to
        whatever a source serves.
      host_of: learns which IPv4 address is behind an endpoint, for the report and for TLS.
    """

    def __init__(
        self, nat64: Nat64, sources: Sequence[Source], *, factory: bool, host_of: HostOfEndpoint | None = None
    ) -> None:
        self._nat64 = nat64
        self._sources = sources
        self._factory = factory
        self._asks = kernel_knows(factory=factory)
        self._translation = Translation(nat64.prefixes)
        self._has_route: dict[Endpoint, bool] = {}
        self._holds_back = False
        self._lookups: Lookups | None = None
        if host_of is not None:
            host_of.carried = self._translation.carried

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """That of the prefix, once it has ended."""
        return () if self._lookups is None else self._lookups.records

    @property
    def wants_prefix(self) -> bool:
        """Whether an endpoint is held back, and the prefix has not been asked for."""
        return self._holds_back and self._lookups is None

    @staticmethod
    def families(served: tuple[AddressFamily, ...]) -> tuple[AddressFamily, ...]:
        """Return the families to look a name up for: with IPv6 there is a way to IPv4 (happy-eyeballs v3, 4.1).

        Args:
          served: those that connections can start from.
        """
        return (AF_INET6, AF_INET) if AF_INET6 in served else served

    def in_order(
        self,
        endpoints: Iterable[Endpoint],
        policy: RacePolicy = DEFAULT_POLICY,
        history: History | None = None,
        refusals: Refusals | None = None,
    ) -> tuple[tuple[Endpoint, ...], dict[Candidate, str]]:
        """Return the endpoints of one name to connect to, in the order to try them in, and what is refused.

        Args:
          endpoints: as they were found.
          policy: its families' order.
          history: a memory of earlier connects, or None.
          refusals: of the caller's filter, which judges an IPv4 address and what it becomes; None without one.
        """
        wires, refused = self._wires(endpoints, refusals)
        carried = {wire: self._translation.carried[wire] for wire in wires if wire in self._translation.carried}
        if not carried:
            return in_order(wires, self._sources, policy, factory=self._factory, history=history), refused
        ordered = in_order_as_carried(
            wires, carried, self._sources, policy, factory=self._factory, history=history
        )  # fmt: skip
        return ordered, refused

    def pair_up(
        self, endpoints: Iterable[Endpoint], refusals: Refusals | None
    ) -> tuple[list[Candidate], dict[Candidate, str]]:
        """Return the candidates of endpoints that keep their order, and those that are skipped, see `pair_up`.

        Args:
          endpoints: as the caller has given them.
          refusals: see `in_order`.
        """
        wires, refused = self._wires(endpoints, refusals)
        pairs, skipped = pair_up(wires, self._sources, None)
        return pairs, refused | skipped

    def start(
        self,
        nursery: trio.Nursery,
        origin: float,
        *,
        then: Callable[[], None] | None = None,
        race: Offers | None = None,
    ) -> None:
        """Ask for the prefix.

        Args:
          nursery: where to.
          origin: what the times of the record count from.
          then: run when the answer is there, or when no answer will come.
          race: whose observer is told.
        """

        async def learn() -> None:
            if lookups.crash is not None:
                raise lookups.crash
            self._translation.learn(find_prefixes(lookups.addresses))
            if then is not None:
                then()

        on_start, on_end = (None, None) if race is None else tellers(race, origin)
        lookups = self._lookups = Lookups(
            IPV4_ONLY_NAME, (AF_INET6,), _PrefixResolver(self._nat64), resolution_delay=inf, on_start=on_start,
            on_end=on_end, origin=origin, then=learn,
        )  # fmt: skip
        lookups.start(nursery)

    async def ended(self) -> None:
        """Wait for the answer, if one was asked for."""
        if self._lookups is not None:
            while await self._lookups.more():
                pass

    def _wires(
        self, endpoints: Iterable[Endpoint], refusals: Refusals | None
    ) -> tuple[list[Endpoint], dict[Candidate, str]]:
        # Both forms are judged: the filter may know the prefix or not, and refuse either.
        plains = dict.fromkeys(map(self._translation.plain, endpoints))
        allowed, refused = pair_up(plains, (), refusals)
        wires = [wire for _, plain in allowed if (wire := self._wire(plain)) is not None]
        allowed, more = pair_up(wires, (), refusals)
        return [wire for _, wire in allowed], refused | more

    def _wire(self, plain: Endpoint) -> Endpoint | None:
        has_route = plain.family != AF_INET or self._routed(plain)
        wire = self._translation.wire(plain, has_route=has_route)
        if wire is None:
            if not self._routed(_SOMEWHERE):
                return plain  # nothing to ask, and nobody who could be asked
            self._holds_back = True
        return wire

    def _routed(self, endpoint: Endpoint) -> bool:
        if endpoint not in self._has_route:
            tries: list[tuple[Source, ...]] = [(source,) for source in self._sources]
            self._has_route[endpoint] = any(self._is_routed(endpoint, each) for each in tries or [()])
        return self._has_route[endpoint]

    def _is_routed(self, endpoint: Endpoint, sources: Sequence[Source]) -> bool:
        if not self._asks:
            return all(source.serves(endpoint.family) for source in sources)
        # One that cannot be asked for, or that is a proxy's to have, is taken to be there.
        return look_up_routes((endpoint,), sources).get(endpoint, "") is not None


@final
class EndpointsThroughNat64:
    """The endpoints of `connectx`, of which some have to wait for a prefix.

    Args:
      nat64: of the call.
      origin: when it began, in Trio time.
      refusals: of the caller's filter.
      listed: those that are known, and have been offered.
      to_come: an async iterable of others, or None.
    """

    def __init__(
        self,
        nat64: Nat64OfCall,
        origin: float,
        refusals: Refusals | None,
        listed: Iterable[Endpoint] = (),
        to_come: AsyncIterable[EndpointLike] | None = None,
    ) -> None:
        self._nat64 = nat64
        self._origin = origin
        self._refusals = refusals
        self._known = list(listed)
        self._to_come = to_come

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """That of the prefix."""
        return self._nat64.lookups

    async def run(self, race: Offers, nursery: trio.Nursery) -> None:
        """Offer each endpoint as it comes, and what has waited for the prefix in its place."""

        def offer_all() -> None:
            pairs, skipped = self._nat64.pair_up(self._known, self._refusals)
            race.offer(pairs, skipped, order=pairs)

        def ask() -> None:
            if self._nat64.wants_prefix:
                self._nat64.start(nursery, self._origin, then=offer_all, race=race)

        def pair(come: Sequence[Endpoint]) -> tuple[list[Candidate], dict[Candidate, str]]:
            self._known += come
            pairs, skipped = self._nat64.pair_up(come, self._refusals)
            ask()
            return pairs, skipped

        ask()
        if self._to_come is not None:
            await EndpointsToCome(self._to_come, pair).run(race, nursery)
        await self._nat64.ended()
