"""In which order endpoints are tried: RFC 6724 section 6, families interleaved (RFC 8305 section 4).

The source address of each endpoint is passed in as a `Knowledge`. A rule that lacks its knowledge decides nothing, so
without any knowledge the order follows from the addresses alone.

A memory of earlier connects adds what RFC 8305 section 4 asks for: between the rules 8 and 9 lower round-trip times
first, then what was used before. What failed or is slow goes behind all others, after the families are interleaved.

The RFC compares two destinations at a time and its "no preference" is not transitive when something is unknown or when
two families tie. Here every rule is a rank, so the result does not depend on the sorting algorithm:

- an endpoint with an unknown source counts as good in rules 1 to 5. Among endpoints that are equal by then, it switches
  rule 9 off;
- rule 9 moves endpoints of a family among the places that this family holds, so ties between families stay as given.

Rules 3, 4 and 7 are not applied: no socket tells whether an address is deprecated, a home address or behind a tunnel.

Rule 9 is off for IPv4. The RFC allows it ("Rules 9 and 10 MAY be superseded"), and prefix lengths say nothing about
IPv4 routes: it makes all clients of one network prefer one address of a DNS round robin (Go's issues 13283 and 18518;
glibc applies it only inside the own subnet).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, groupby
from socket import AF_INET, AF_INET6, AddressFamily
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from .policy_table import DEFAULT_POLICY_TABLE, PolicyTable, as_integer, common_prefix_length, is_ipv4, scope_of

if TYPE_CHECKING:
    from .._endpoint import Endpoint, Source
    from .history_order import Recollections

__all__ = ["Knowledge", "has_good_source", "interleave", "leading", "order", "served_families", "sort"]

_NO_SOURCES: Final[Mapping[Endpoint, str | None]] = MappingProxyType({})


def _wire_family(endpoint: Endpoint) -> AddressFamily:
    """Return the family that packets to an endpoint travel over: that of its sockets, or IPv4 for ``::ffff:192.0.2.1``.

    RFC 6724 section 2.1 has one row for IPv4 and IPv4-mapped addresses alike.
    """
    return AF_INET if endpoint.family == AF_INET or is_ipv4(as_integer(endpoint.host)) else AF_INET6


@attrs.frozen(kw_only=True)
class Knowledge:
    """What is known beyond the addresses themselves.

    Args:
      sources: the source address of each endpoint, numeric (a zone is ignored); None for an endpoint that has none and
        so cannot be reached (rule 1). An endpoint that is not in the mapping has an unknown source.
      table: the policy table of rules 5 and 6.
      history: what is remembered of earlier connects.
    """

    sources: Mapping[Endpoint, str | None] = _NO_SOURCES
    table: PolicyTable = DEFAULT_POLICY_TABLE
    history: Recollections | None = None


NO_KNOWLEDGE: Final = Knowledge()

_Rank: TypeAlias = tuple[bool, bool, bool, int, int]


def _rank(endpoint: Endpoint, known: Knowledge) -> _Rank:
    """Return the rules 1 to 8 of one endpoint as a key: smaller is better."""
    destination = as_integer(endpoint.host)
    policy = known.table.lookup(destination)
    scope = scope_of(destination)
    unusable = wrong_scope = wrong_label = False
    if endpoint in known.sources:
        source = known.sources[endpoint]
        if source is None:
            unusable = True
        else:
            address = as_integer(source)
            wrong_scope = scope_of(address) != scope
            wrong_label = known.table.lookup(address).label != policy.label
    return (
        unusable,  # rule 1: avoid unusable destinations
        wrong_scope,  # rule 2: prefer matching scope
        wrong_label,  # rule 5: prefer matching label
        -policy.precedence,  # rule 6: prefer higher precedence
        scope,  # rule 8: prefer smaller scope
    )


def _apply_rule_9(tied: Sequence[Endpoint], known: Knowledge) -> Iterable[Endpoint]:
    """Return endpoints that no earlier rule tells apart, the longest matching prefix first in each family."""
    if len(tied) == 1:
        return tied

    def matching_prefix(endpoint: Endpoint) -> int:
        source = known.sources[endpoint]
        return 0 if source is None else common_prefix_length(as_integer(source), as_integer(endpoint.host))

    def in_order(family: AddressFamily) -> Iterable[Endpoint]:
        members = [endpoint for endpoint in tied if _wire_family(endpoint) == family]
        if family == AF_INET6 and all(member in known.sources for member in members):
            members.sort(key=matching_prefix, reverse=True)
        return members

    # "When DA and DB belong to the same address family": each family is sorted among its own places.
    queues = {family: iter(in_order(family)) for family in (AF_INET6, AF_INET)}
    return (next(queues[_wire_family(endpoint)]) for endpoint in tied)


def sort(endpoints: Iterable[Endpoint], known: Knowledge = NO_KNOWLEDGE) -> tuple[Endpoint, ...]:
    """Return the endpoints, each once, in the order of RFC 6724 section 6.

    Equal endpoints keep the order they came in (rule 10).
    """
    ranks = {endpoint: _rank(endpoint, known) for endpoint in endpoints}
    ranked = groupby(sorted(ranks, key=ranks.__getitem__), key=ranks.__getitem__)
    return tuple(chain.from_iterable(_order_tied(tuple(tied), known) for _, tied in ranked))


def _order_tied(tied: Sequence[Endpoint], known: Knowledge) -> Iterable[Endpoint]:
    """Return endpoints that the rules 1 to 8 do not tell apart, in order."""
    history = known.history
    if history is None:
        return _apply_rule_9(tied, known)
    preference = {endpoint: history.preference(endpoint) for endpoint in tied}
    preferred = groupby(sorted(tied, key=preference.__getitem__), key=preference.__getitem__)
    ordered = [*chain.from_iterable(_apply_rule_9(tuple(equal), known) for _, equal in preferred)]
    first = history.to_try_first(ordered)
    return ordered if first is None else (first, *(endpoint for endpoint in ordered if endpoint != first))


def interleave(
    endpoints: Iterable[Endpoint], preferred_family_count: int = 1, *, first_family: AddressFamily | None = None
) -> tuple[Endpoint, ...]:
    """Return the endpoints with the families in turn, each family in its own order.

    RFC 8305 section 4: "Whichever address family is first in the list should be followed by an address of the other
    address family".

    Args:
      endpoints: in the order of `sort`.
      preferred_family_count: how many endpoints of the first family come before the first of the other family ("First
        Address Family Count"), 1 or more.
      first_family: the family to begin with; None for that of the first endpoint. IPv4-mapped addresses are IPv4's.
    """
    by_family: dict[AddressFamily, list[Endpoint]] = {} if first_family is None else {first_family: []}
    for endpoint in endpoints:
        by_family.setdefault(_wire_family(endpoint), []).append(endpoint)
    # The first key is the first family; without its endpoints the other family's are all there is.
    preferred, others = (*by_family.values(), [], [])[:2]
    result = preferred[:preferred_family_count]
    rest = preferred[preferred_family_count:]
    paired = min(len(others), len(rest))
    for other, one in zip(others, rest, strict=False):
        result += other, one
    return (*result, *others[paired:], *rest[paired:])


def order(
    endpoints: Iterable[Endpoint],
    known: Knowledge = NO_KNOWLEDGE,
    *,
    preferred_family_count: int = 1,
    first_family: AddressFamily | None = None,
) -> tuple[Endpoint, ...]:
    """Return the order of attempts: the endpoints, each once, sorted and interleaved.

    Answers that come late are ordered by calling this again with everything that is known by then, and taking the
    first endpoint that has not been started (RFC 8305 section 5; happy-eyeballs v3 likewise).

    Args:
      endpoints: as they came.
      known: see `Knowledge`.
      preferred_family_count: see `interleave`.
      first_family: likewise.
    """
    if known.history is None:
        return interleave(sort(endpoints, known), preferred_family_count, first_family=first_family)
    levels: dict[int, list[Endpoint]] = {}
    for endpoint in endpoints:
        levels.setdefault(known.history.level(endpoint), []).append(endpoint)
    return tuple(
        chain.from_iterable(
            interleave(sort(levels[level], known), preferred_family_count, first_family=first_family)
            for level in sorted(levels)
        )
    )


def leading(endpoints: Sequence[Endpoint], table: PolicyTable) -> Endpoint | None:
    """Return which of two endpoints goes first if its source is a good one, whatever that of the other is.

    So the kernel has to be asked for one route only, where a name has one address of each family.

    Args:
      endpoints: of two families; of others nothing is said.
      table: the policy table.

    Returns:
      The endpoint, see `has_good_source`; None where both sources decide.
    """
    if len(endpoints) != 2 or _wire_family(endpoints[0]) == _wire_family(endpoints[1]):
        return None
    known = Knowledge(table=table)
    one, other = (_rank(endpoint, known) for endpoint in endpoints)
    return None if one == other else endpoints[one > other]


def has_good_source(endpoint: Endpoint, source: str | None, table: PolicyTable) -> bool:
    """Say whether the rules 1, 2 and 5 of RFC 6724 section 6 have nothing against an endpoint.

    Args:
      endpoint: where to.
      source: where from; None when it cannot be reached.
      table: the policy table.
    """
    return not any(_rank(endpoint, Knowledge(sources={endpoint: source}, table=table))[:3])


def served_families(sources: Iterable[Source]) -> tuple[AddressFamily, ...]:
    """Return the families that connections can start from, IPv6 first; both when no source is given.

    A family that is not among them needs no lookup.
    """
    sources = tuple(sources)
    if not sources:
        return AF_INET6, AF_INET
    return tuple(family for family in (AF_INET6, AF_INET) if any(source.serves(family) for source in sources))
