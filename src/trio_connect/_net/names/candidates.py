"""The addresses of the hosts of one connect, as candidates of its race: late ones join, the whole list sorted anew."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import chain
from socket import AF_INET
from typing import TYPE_CHECKING, final

from trio import current_time
from trio.lowlevel import ParkingLot

from ..._endpoint import Endpoint
from ..._engine.order import served_families
from ..._engine.several_names import in_turn, released
from ..._race_messages import GONE
from ..race.candidates import Offers, Refusals, pair_up, tellers
from .hosts import endpoint_of
from .lookup import Found, Lookups, wait_for_more
from .ordering import in_recent_order
from .resolve import Resolver, as_service_resolver

if TYPE_CHECKING:
    import trio

    from ..._answer import Lookup
    from ..._engine.race_table import Candidate
    from ..host_of import HostOfEndpoint
    from ..race.plan import RacePlan
    from .hosts import Host
    from .through_nat64 import Nat64OfCall


@final
class _Addresses:
    """Those of one host, in the order to try them in. Sorted when others have come, for that asks the kernel."""

    def __init__(self, host: Host, lookups: Lookups) -> None:
        self.host = host
        self.lookups = lookups
        self._sorted: tuple[Found, ...] = ()
        self.allowed: tuple[Endpoint, ...] = ()
        self.refused: dict[Candidate, str] = {}

    def sort(self, plan: RacePlan, refusals: Refusals | None, nat64: Nat64OfCall | None) -> None:
        """Sort everything that is known by now, as RFC 8305 section 3 asks for when answers come late."""
        found = self.lookups.found
        if found == self._sorted and nat64 is None:
            return
        self.refused = {}
        groups: list[tuple[Endpoint, ...]] = []
        for group in found:
            port = group.port or self.host.port
            literal = self.host.literal
            endpoints = [endpoint_of(address, port) if literal is None else literal for address in group.addresses]
            if nat64 is not None:
                ordered, refused = nat64.in_order(endpoints, plan.policy, plan.history, refusals)
                self.refused.update(refused)
                groups.append(ordered)
                continue
            # Judged before they are sorted: the kernel is asked for no route to an address that will not be used.
            if refusals is not None:
                allowed, refused = pair_up(endpoints, (), refusals)
                endpoints = [endpoint for _, endpoint in allowed]
                self.refused.update(refused)
            groups.append(
                in_recent_order(
                    endpoints,
                    plan.sources,
                    plan.policy,
                    factory=plan.factory,
                    resolver=self.lookups.resolver_installed,
                    history=plan.history,
                )
            )
        self.allowed = groups[0] if len(groups) == 1 else tuple(dict.fromkeys(chain.from_iterable(groups)))
        self._sorted = found


@final
class AddressesOfHosts:
    """The addresses of one name, or of several of one service, as candidates of a race.

    Args:
      hosts: in the order to try them in, at least one.
      resolver: whom to ask. Each name is asked for once, also when it is there with several ports.
      plan: of the race.
      host_of: learns which endpoint is tried for which name.
      refusals: of the caller's filter.
      nat64: the way to IPv4 addresses that have no route, or None.
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        resolver: Resolver,
        plan: RacePlan,
        host_of: HostOfEndpoint,
        refusals: Refusals | None,
        nat64: Nat64OfCall | None = None,
    ) -> None:
        self._plan = plan
        self._host_of = host_of
        self._refusals = refusals
        self._nat64 = nat64
        self._resolver = resolver
        self._hosts = hosts
        self._lookups: dict[tuple[str, int], Lookups] = {}
        self._to_ask: Sequence[Lookups] = ()
        # Services are those of one port; addresses are those of all.
        self._by_port = as_service_resolver(resolver) is not None
        self._names: dict[Endpoint, str | None] = {}
        self._offered: list[Candidate] = []
        self._addresses: list[_Addresses] = []
        self._lot = ParkingLot()

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """Those that have ended; once the race is over, all of them."""
        looked_up = tuple(chain.from_iterable(each.records for each in self._lookups.values()))
        return looked_up if self._nat64 is None else (*looked_up, *self._nat64.lookups)

    def records(self) -> tuple[Lookup, ...]:
        """Return `lookups`, for a report that is made when somebody looks."""
        return self.lookups

    @property
    def found(self) -> bool:
        """Whether an address is known."""
        return any(each.found for each in self._lookups.values())

    @property
    def crash(self) -> Exception | None:
        """What a lookup raised that ends the whole call."""
        for each in self._lookups.values():
            if each.crash is not None:
                return each.crash
        return None

    def is_waiting(self) -> bool:
        """Return whether a lookup is pending and none has crashed."""
        pending = False
        for each in self._lookups.values():
            if each.crash is not None:
                return False
            pending = pending or each.gate.is_pending
        return pending

    def prepare(self, race: Offers | None = None, *, then: Callable[[], Awaitable[None]] | None = None) -> None:
        """Make the lookups, and ask nobody yet.

        Args:
          race: to be told of each lookup, for its observer.
          then: run by the task of each lookup at its end.
        """
        self._addresses = [_Addresses(host, self._look_up(host, race, then)) for host in self._hosts]
        self._to_ask = tuple(self._lookups.values())

    def answer_now(self) -> bool:
        """Answer every question without waiting, where that is possible: from a hosts file or a dict.

        Returns:
          Whether each has its answer. Those about a name that has its answers are not sent out any more.
        """
        self._to_ask = [each for each in self._to_ask if not each.answer_now()]
        return not self._to_ask

    def start(self, nursery: trio.Nursery) -> None:
        """Send every question out, in this instant."""
        for each in self._to_ask:
            each.start(nursery)

    def start_but_one(self, nursery: trio.Nursery) -> Callable[[], Awaitable[None]]:
        """Send every question out but the first, and return what asks that, see `Lookups.start_but_one`."""
        first, *others = self._to_ask
        for each in others:
            each.start(nursery)
        return first.start_but_one(nursery)

    def detach(self) -> None:
        """Let go of what the tasks of lookups were to run; all have ended. A report holds this as long as it lives."""
        for each in self._lookups.values():
            each.detach()

    async def released(self) -> None:
        """Wait until addresses may be tried, or no lookup is pending."""
        await wait_for_more([each.lookups for each in self._addresses], self._lot, 0)

    async def run(self, race: Offers, nursery: trio.Nursery) -> None:
        """Run the lookups in the race's nursery, unless they are running, and offer what they find, sorted."""
        if not self._addresses:
            self.prepare(race)
            self.start(nursery)
        lookups = [each.lookups for each in self._addresses]
        nat64 = self._nat64
        changes = 0
        try:
            while (more := await wait_for_more(lookups, self._lot, changes)) is not None:
                changes = more
                self._offer(race)
                if nat64 is not None and nat64.wants_prefix:
                    nat64.start(nursery, self._plan.started, then=partial(self._offer, race), race=race)
            if nat64 is not None:
                await nat64.ended()
        finally:
            # The report of the race is made before lookups end that run in another nursery.
            for each in lookups:
                each.give_up()

    def _offer(self, race: Offers) -> None:
        pairs, skipped = self.all_in_order()
        offered, self._offered = self._offered, pairs
        # An answer has replaced hints that it does not have, or an expired answer.
        still_there = set(pairs)
        gone = {pair: GONE for pair in offered if pair not in still_there}
        race.offer(pairs, skipped | gone, order=pairs)

    def all_in_order(self) -> tuple[list[Candidate], dict[Candidate, str]]:
        """Return what may be tried by now, in order and each for the first host that has it; and what is skipped."""
        known = self._addresses
        if len(known) > 1 or self.is_waiting():
            known = known[: released([each.lookups.gate for each in known], current_time())]
        for each in known:
            each.sort(self._plan, self._refusals, self._nat64)
        if len(known) == len(self._addresses) == 1 and self._nat64 is None:
            return pair_up(known[0].allowed, self._plan.sources, None)[0], known[0].refused
        refused: dict[Candidate, str] = {}
        for each in known:
            refused.update(each.refused)
        names = [None if each.host.literal is not None else each.host.name for each in known]
        ordered = in_turn(each.allowed for each in known)
        out = in_turn([endpoint for _, endpoint in each.refused] for each in known)
        self._names.update({endpoint: names[place] for endpoint, place in (*ordered.items(), *out.items())})
        self._host_of.found(self._names)
        # What no source reaches is a literal, or has no NAT64: else nothing was asked of a family that no source has.
        pairs, unreachable = pair_up(ordered, self._plan.sources, None)
        return pairs, refused | unreachable

    def _look_up(self, host: Host, race: Offers | None, then: Callable[[], Awaitable[None]] | None) -> Lookups:
        key = host.name, host.port if self._by_port else 0
        if key in self._lookups:
            return self._lookups[key]
        plan = self._plan
        name, origin = host.name, plan.started
        families = () if host.literal is not None else served_families(plan.sources)
        if self._nat64 is not None:
            families = self._nat64.families(families)
        on_start, on_end = (None, None) if plan.observer is None or race is None else tellers(race, origin)
        lookups = self._lookups[key] = Lookups(
            name,
            families,
            self._resolver,
            resolution_delay=plan.policy.resolution_delay,
            port=host.port,
            ipv4_first=plan.policy.first_family == AF_INET,
            on_start=on_start,
            on_end=on_end,
            origin=origin,
            lot=self._lot,
            then=then,
        )
        if host.literal is not None:
            lookups.know(name)
        return lookups
