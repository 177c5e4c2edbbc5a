"""`order_endpoints`: the order in which `connect` tries addresses, asked of the kernel's routes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from math import inf
from socket import AddressFamily
from time import monotonic
from typing import TYPE_CHECKING, Final, final

from ..._endpoint import Endpoint, EndpointLike, Source, as_endpoint
from ..._engine.order import Knowledge, has_good_source, leading, order
from ..._engine.policy_table import DEFAULT_POLICY_TABLE, PolicyTable
from ..._policy import DEFAULT_POLICY, RacePolicy, check_policy
from ..._text import shown
from ..sockets.open import factory_installed
from .route import look_up_routes
from .system import custom_resolver
from .system_files import policy_table

if TYPE_CHECKING:
    from ..history import History

_LASTS: Final = 1.0  # seconds
_MOST: Final = 512


def kernel_knows(*, factory: bool | None = None, resolver: bool | None = None) -> bool:
    """Say whether the kernel's routes are those of the network that this run sees.

    Args:
      factory: whether this run has a socket factory, as `factory_installed` has said; None asks.
      resolver: whether it has a hostname resolver, as `custom_resolver` has said; likewise.
    """
    if factory_installed() if factory is None else factory:
        return False
    return custom_resolver() is None if resolver is None else not resolver


def in_order(
    endpoints: Sequence[Endpoint],
    sources: Sequence[Source],
    policy: RacePolicy,
    *,
    factory: bool | None = None,
    history: History | None = None,
) -> tuple[Endpoint, ...]:
    """Return endpoints of one name in the order to try them in.

    Args:
      endpoints: in any order, each once.
      sources: where connections may start.
      policy: its families' order.
      factory: whether this run has a socket factory, None asks.
      history: a memory of earlier connects, or None.
    """
    # One endpoint has one order, and asking for routes costs three system calls for each.
    if len(endpoints) < 2:
        return tuple(endpoints)
    return _in_order(tuple(endpoints), sources, policy, history, asks=kernel_knows(factory=factory))


def in_recent_order(
    endpoints: Sequence[Endpoint],
    sources: Sequence[Source],
    policy: RacePolicy,
    *,
    factory: bool,
    resolver: bool | None,
    history: History | None,
) -> tuple[Endpoint, ...]:
    """Return what `in_order` does, or has returned within the last second.

    Args:
      endpoints: see there; likewise for others.
      sources: likewise.
      policy: likewise.
      factory: likewise.
      resolver: whether this run has a hostname resolver, None asks.
      history: likewise.
    """
    if len(endpoints) < 2:
        return tuple(endpoints)
    everything = tuple(endpoints)
    asks = kernel_knows(factory=factory, resolver=resolver)
    if history is not None or not asks:
        return _in_order(everything, sources, policy, history, asks=asks)
    key = everything, tuple(sources), policy.preferred_family_count, policy.first_family
    found = _recent_orders.get(key)
    if found is None:
        found = _recent_orders[key] = _in_order(everything, sources, policy, None, asks=True)
    return found


def _in_order(
    everything: tuple[Endpoint, ...],
    sources: Sequence[Source],
    policy: RacePolicy,
    history: History | None,
    *,
    asks: bool,
) -> tuple[Endpoint, ...]:
    first_family = None if policy.first_family == "system" else policy.first_family
    table = policy_table() if asks else DEFAULT_POLICY_TABLE
    if asks and len(everything) == 2 and first_family is None and history is None:
        leader = _leading(everything, table)
        if leader is not None:
            route = look_up_routes((leader,), sources)
            if leader in route and _has_good_source(leader, route[leader], table):
                return everything if leader == everything[0] else everything[::-1]
    routes = tuple(look_up_routes(everything, sources).items()) if asks else ()
    if history is None:
        return _order(everything, routes, table, policy.preferred_family_count, first_family)
    from ..history import recollections

    known = Knowledge(sources=dict(routes), table=table, history=recollections(history, sources))
    return order(everything, known, preferred_family_count=policy.preferred_family_count, first_family=first_family)


@final
class _RecentOrders:
    """Orders that are a second old at most. To ask the kernel for one route costs a tenth of a connect by name.

    What an order is made of, routes and gai.conf(5), seldom changes. It is a preference, and raced: one that has just
    changed costs an attempt at most. Those who ask for the order itself, by `order_endpoints` or `resolve`, get that of
    now.
    """

    __slots__ = ("_found", "_stale_at")

    def __init__(self) -> None:
        self._found: dict[Hashable, tuple[Endpoint, ...]] = {}
        self._stale_at = -inf

    def get(self, key: Hashable) -> tuple[Endpoint, ...] | None:
        if monotonic() >= self._stale_at or len(self._found) >= _MOST:  # not Trio's clock, which tests let jump
            self._found = {}
            self._stale_at = monotonic() + _LASTS
        return self._found.get(key)

    def __setitem__(self, key: Hashable, order: tuple[Endpoint, ...]) -> None:
        self._found[key] = order

    def forget(self) -> None:
        """Have everything sorted anew."""
        self._stale_at = -inf


_recent_orders: Final = _RecentOrders()
forget_orders: Final = _recent_orders.forget


def in_order_as_carried(
    endpoints: Sequence[Endpoint],
    carried: Mapping[Endpoint, Endpoint],
    sources: Sequence[Source],
    policy: RacePolicy,
    *,
    factory: bool,
    history: History | None,
) -> tuple[Endpoint, ...]:
    """Return endpoints of one name in the order to try them in, where some go through a NAT64.

    These are sorted as the IPv4 addresses that they carry (happy-eyeballs v3), whose source address is not known:
    this machine has no route to them. What is remembered is that of the address that is connected to.

    Args:
      endpoints: in any order, each once.
      carried: the IPv4 endpoints of those that carry one.
      sources: where connections may start.
      policy: its families' order.
      factory: whether this run has a socket factory.
      history: a memory of earlier connects, or None.
    """
    wires = {carried.get(endpoint, endpoint): endpoint for endpoint in endpoints}
    asks = kernel_knows(factory=factory)
    remembered = None
    if history is not None:
        from ..history import recollections

        remembered = recollections(history, sources, wires)
    known = Knowledge(
        sources=look_up_routes((each for each in endpoints if each not in carried), sources) if asks else {},
        table=policy_table() if asks else DEFAULT_POLICY_TABLE,
        history=remembered,
    )
    first_family = None if policy.first_family == "system" else policy.first_family
    ordered = order(
        wires, known, preferred_family_count=policy.preferred_family_count, first_family=first_family
    )  # fmt: skip
    return tuple(wires[endpoint] for endpoint in ordered)


_leading: Final = lru_cache(maxsize=512)(leading)
_has_good_source: Final = lru_cache(maxsize=512)(has_good_source)


@lru_cache(maxsize=512)
def _order(
    endpoints: tuple[Endpoint, ...],
    routes: tuple[tuple[Endpoint, str | None], ...],
    table: PolicyTable,
    preferred_family_count: int,
    first_family: AddressFamily | None,
) -> tuple[Endpoint, ...]:
    # The same few names are connected to over and over, and their routes seldom change.
    known = Knowledge(sources=dict(routes), table=table)
    return order(endpoints, known, preferred_family_count=preferred_family_count, first_family=first_family)


def order_endpoints(
    endpoints: Iterable[EndpointLike], *, policy: RacePolicy = DEFAULT_POLICY, history: History | None = None
) -> tuple[Endpoint, ...]:
    """Return endpoints in the order in which `connect` would try them.

    Sorts by the rules of RFC 6724 section 6, which need the source address that the kernel would use for each (asked
    for without sending anything), and interleaves the families as RFC 8305 section 4 says. Where a socket factory or
    hostname resolver of the run's own stands for the network, the kernel is not asked and those rules are skipped.

    Args:
      endpoints: in any order; equal ones keep theirs, and duplicates are dropped.
      policy: its `first_family` says which family comes first, its `preferred_family_count` how many of that family
        come before the first of the other.
      history: a memory of earlier connects: lower round-trip times and addresses that were used go first among those
        that the rules do not tell apart, what failed lately or was slow goes last.

    Raises:
      RuntimeError: called outside of `trio.run`.
      TypeError: an argument has the wrong type.
      ValueError: an endpoint is a name or malformed.
    """
    check_policy(policy)
    if history is not None:
        from ..history import check_history

        check_history(history)
    if isinstance(endpoints, str | bytes | Endpoint) or not isinstance(endpoints, Iterable):
        raise TypeError(f"endpoints must be an iterable of Endpoint or (host, port), got {shown(endpoints)}")
    everything = tuple(dict.fromkeys(map(as_endpoint, endpoints)))
    return in_order(everything, (), policy, factory=factory_installed(), history=history)
