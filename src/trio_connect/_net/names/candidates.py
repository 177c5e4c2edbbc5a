"""The addresses of the hosts of one connect, as candidates of its race: late ones join, the whole list sorted anew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from socket import AF_INET
from typing import TYPE_CHECKING, final

from trio import current_time
from trio.lowlevel import ParkingLot

from ..._endpoint import Endpoint
from ..._engine.order import served_families
from ..._engine.several_names import in_turn, released
from ..._messages import GONE
from ..._trace import LookupFinished, LookupStarted
from ..race.candidates import Offers, Refusals, pair_up
from .lookup import Found, Lookups, wait_for_more
from .ordering import in_order, kernel_knows
from .resolve import Resolver, as_service_resolver

if TYPE_CHECKING:
    import trio

    from ..._answer import Lookup, LookupKind
    from ..host_of import HostOfEndpoint
    from ..race.plan import RacePlan
    from ..reports import Pair
    from .hosts import Host


@final
class _Addresses:
    """Those of one host, in the order to try them in. Sorted when others have come, for that asks the kernel."""

    def __init__(self, host: Host, lookups: Lookups) -> None:
        self.host = host
        self.lookups = lookups
        self._endpoints: dict[tuple[str, int], Endpoint] = {}
        self._sorted: tuple[Found, ...] = ()
        self.allowed: tuple[Endpoint, ...] = ()
        self.refused: dict[Pair, str] = {}

    def sort(self, plan: RacePlan, refusals: Refusals | None, *, ask_kernel: bool) -> None:
        """Sort everything that is known by now, as RFC 8305 section 3 asks for when answers come late."""
        found = self.lookups.found
        if found == self._sorted:
            return
        ordered: dict[Endpoint, None] = {}
        self.refused = {}
        for group in found:
            endpoints = [self._endpoint(address, group.port or self.host.port) for address in group.addresses]
            # Judged before they are sorted: the kernel is asked for no route to an address that will not be used.
            allowed, refused = pair_up(endpoints, (), refusals)
            self.refused.update(refused)
            group_in_order = in_order(
                (endpoint for _, endpoint in allowed),
                plan.sources,
                plan.policy,
                ask_kernel=ask_kernel,
                history=plan.history,
            )
            ordered.update(dict.fromkeys(endpoint for endpoint in group_in_order if endpoint not in ordered))
        self.allowed = tuple(ordered)
        self._sorted = found

    def _endpoint(self, address: str, port: int) -> Endpoint:
        if (address, port) not in self._endpoints:
            self._endpoints[address, port] = self.host.literal or Endpoint(address, port)
        return self._endpoints[address, port]


@final
class AddressesOfHosts:
    """The addresses of one name, or of several of one service, as candidates of a race.

    Args:
      hosts: in the order to try them in, at least one.
      resolver: whom to ask. Each name is asked for once, also when it is there with several ports.
      plan: of the race.
      host_of: learns which endpoint is tried for which name.
      refusals: of the caller's filter.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        resolver: Resolver,
        plan: RacePlan,
        host_of: HostOfEndpoint,
        refusals: Refusals | None,
    ) -> None:
        self._plan = plan
        self._host_of = host_of
        self._refusals = refusals
        self._resolver = resolver
        self._hosts = hosts
        self._lookups: dict[tuple[str, int], Lookups] = {}
        # Services are those of one port; addresses are those of all.
        self._by_port = as_service_resolver(resolver) is not None
        self._names: dict[Endpoint, str | None] = {}
        self._offered: list[Pair] = []

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """Those that have ended; once the race is over, all of them."""
        return tuple(chain.from_iterable(each.records for each in self._lookups.values()))

    async def run(self, race: Offers, nursery: trio.Nursery) -> None:
        """Run the lookups in the race's nursery, and offer what they find, sorted."""
        lot = ParkingLot()
        hosts = [_Addresses(host, self._look_up(host, race, lot)) for host in self._hosts]
        lookups = [host.lookups for host in hosts]
        for each in self._lookups.values():
            each.start(nursery)
        ask_kernel = kernel_knows()
        found = 0
        while (more := await wait_for_more(lookups, lot, found)) is not None:
            found = more
            known = hosts[: released([each.gate for each in lookups], current_time())]
            for host in known:
                host.sort(self._plan, self._refusals, ask_kernel=ask_kernel)
            self._offer(race, known)

    def _look_up(self, host: Host, race: Offers, lot: ParkingLot) -> Lookups:
        key = host.name, host.port if self._by_port else 0
        if key in self._lookups:
            return self._lookups[key]
        plan = self._plan
        name, origin = host.name, plan.started

        def on_start(asked: str, kind: LookupKind, at: float) -> None:
            race.notify(LookupStarted, asked, kind, origin + at)

        def on_end(lookup: Lookup) -> None:
            race.notify(LookupFinished, lookup, origin + lookup.ended)

        lookups = self._lookups[key] = Lookups(
            name,
            () if host.literal is not None else served_families(plan.sources),
            self._resolver,
            resolution_delay=plan.policy.resolution_delay,
            port=host.port,
            ipv4_first=plan.policy.first_family == AF_INET,
            on_start=None if plan.observer is None else on_start,
            on_end=None if plan.observer is None else on_end,
            origin=origin,
            lot=lot,
        )
        if host.literal is not None:
            lookups.know(name)
        return lookups

    def _offer(self, race: Offers, known: Sequence[_Addresses]) -> None:
        """Offer the addresses of these hosts, each to the first host that has it."""
        refused: dict[Pair, str] = {}
        for each in known:
            refused.update(each.refused)
        names = [None if each.host.literal is not None else each.host.name for each in known]
        ordered = in_turn(each.allowed for each in known)
        out = in_turn([endpoint for _, endpoint in each.refused] for each in known)
        self._names.update({endpoint: names[place] for endpoint, place in (*ordered.items(), *out.items())})
        self._host_of.found(self._names)
        # What no source reaches can only be a literal: nothing was asked of a family that no source has.
        pairs, unreachable = pair_up(ordered, self._plan.sources, None)
        offered, self._offered = self._offered, pairs
        # An answer has replaced hints that it does not have, or an expired answer.
        still_there = set(pairs)
        gone = {pair: GONE for pair in offered if pair not in still_there}
        race.offer(pairs, refused | unreachable | gone, order=pairs)
