"""`order_endpoints`: the order in which `connect` tries addresses, asked of the kernel's routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from socket import AddressFamily
from typing import TYPE_CHECKING, Final

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


def kernel_knows(*, factory: bool | None = None) -> bool:
    """Say whether the kernel's routes are those of the network that this run sees.

    Args:
      factory: whether this run has a socket factory, as `factory_installed` has said; None asks.
    """
    return not (factory_installed() if factory is None else factory) and custom_resolver() is None


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
    everything = tuple(endpoints)
    first_family = None if policy.first_family == "system" else policy.first_family
    asks = kernel_knows(factory=factory)
    table = policy_table() if asks else DEFAULT_POLICY_TABLE
    if asks and len(everything) == 2 and first_family is None and history is None:
        leader = _leading(everything, table)
        if leader is not None:
            route = look_up_routes((leader,), sources)
            if leader in route and _has_good_source(leader, route[leader], table):
                return everything if leader is everything[0] else everything[::-1]
    routes = tuple(look_up_routes(everything, sources).items()) if asks else ()
    if history is None:
        return _order(everything, routes, table, policy.preferred_family_count, first_family)
    from ..history import recollections

    known = Knowledge(sources=dict(routes), table=table, history=recollections(history, sources))
    return order(everything, known, preferred_family_count=policy.preferred_family_count, first_family=first_family)


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
