"""In which order endpoints are tried: RFC 6724 section 6, what was learnt, families interleaved (RFC 8305 section 4).

Nothing is asked here. The source address of each endpoint and the memory of earlier connects come in as a `Knowledge`;
what is missing from it decides nothing, so without any knowledge the order follows from the addresses alone.

The RFC compares two destinations at a time and its "no preference" is not transitive when something is unknown or when
two families tie. Here every rule is a rank, so the result does not depend on the sorting algorithm:

- an unknown source has nothing against it in rules 1 to 5, and among endpoints that are equal by then it switches
  rule 9 off; an unknown round-trip time counts as the longest;
- rule 4 ranks an address that is neither home nor care-of (that is: nearly every address) with home addresses;
- rule 9 moves endpoints of a family among the places that this family holds, so ties between families stay as given.

Rule 9 is off for IPv4 unless asked for. The RFC allows it ("Rules 9 and 10 MAY be superseded"), and prefix lengths say
nothing about IPv4 routes: it makes all clients of one network prefer one address of a DNS round robin (Go's issues
13283 and 18518; glibc applies it only inside the own subnet).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, groupby
from math import inf
from socket import AF_INET, AF_INET6, AddressFamily
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import attrs

from .._endpoint import Endpoint, Source
from .policy_table import DEFAULT_POLICY_TABLE, PolicyTable, as_integer, common_prefix_length, is_ipv4, scope_of

__all__ = ["Knowledge", "SourceAddress", "interleave", "order", "served_families", "sort"]

Mobility: TypeAlias = Literal["at home", "home", "care-of"]
"""What Mobile IPv6 makes of an address; "at home" is home and care-of address at once (RFC 6275)."""

_MOBILITY_RANK: Final[dict[Mobility | None, int]] = {"at home": 0, "home": 1, None: 1, "care-of": 2}


@attrs.frozen
class SourceAddress:
    """The local address that packets to an endpoint would leave from, and what is known about that way.

    Only `host` can be learnt from a socket. The other fields need knowledge of the system's configuration; left alone
    they switch rules 3, 4 and 7 of RFC 6724 section 6 off.

    Args:
      host: a numeric address; a zone is ignored.
      deprecated: the address is past its preferred lifetime (RFC 4862 section 5.5.4), for rule 3.
      mobility: whether it is a home or care-of address, for rule 4.
      encapsulated: the endpoint is reached through a transition tunnel such as 6in4, for rule 7.
    """

    host: str
    deprecated: bool = False
    mobility: Mobility | None = None
    encapsulated: bool = False


_NO_SOURCES: Final[Mapping[Endpoint, SourceAddress | None]] = MappingProxyType({})


def _wire_family(endpoint: Endpoint) -> AddressFamily:
    """Return the family that packets to an endpoint travel over: that of its sockets, or IPv4 for ``::ffff:192.0.2.1``.

    RFC 6724 section 2.1 has one row for IPv4 and IPv4-mapped addresses alike.
    """
    return AF_INET if endpoint.family == AF_INET or is_ipv4(as_integer(endpoint.host)) else AF_INET6


def _no_rtt(_endpoint: Endpoint) -> float | None:
    return None


def _not_used(_endpoint: Endpoint) -> bool:
    return False


@attrs.frozen(kw_only=True)
class Knowledge:
    """What is known beyond the addresses themselves.

    Args:
      sources: the source address of each endpoint; None for an endpoint that has none and so cannot be reached
        (rule 1). An endpoint that is not in the mapping has an unknown source.
      table: the policy table of rules 5 and 6.
      rtt: gives the expected round-trip time of an endpoint in seconds, or None. RFC 8305 section 4: a client that
        knows them SHOULD prefer the lower one, by a rule between rules 8 and 9.
      used: says whether an endpoint was used before. Same section: used ones SHOULD be preferred, by a rule between
        that one and rule 9.
      ipv4_longest_prefix: apply rule 9 to IPv4 too; see the module's text for why it is off.
    """

    sources: Mapping[Endpoint, SourceAddress | None] = _NO_SOURCES
    table: PolicyTable = DEFAULT_POLICY_TABLE
    rtt: Callable[[Endpoint], float | None] = _no_rtt
    used: Callable[[Endpoint], bool] = _not_used
    ipv4_longest_prefix: bool = False


NO_KNOWLEDGE: Final = Knowledge()

_Rank: TypeAlias = tuple[bool, bool, bool, int, bool, int, bool, int, float, bool]


def _rank(endpoint: Endpoint, known: Knowledge) -> _Rank:
    """Return the rules 1 to 8 and the history of one endpoint as a key: smaller is better."""
    destination = as_integer(endpoint.host)
    policy = known.table.lookup(destination)
    scope = scope_of(destination)
    unusable = wrong_scope = wrong_label = deprecated = encapsulated = False
    mobility = _MOBILITY_RANK[None]
    if endpoint in known.sources:
        source = known.sources[endpoint]
        if source is None:
            unusable = True
        else:
            address = as_integer(source.host)
            wrong_scope = scope_of(address) != scope
            deprecated = source.deprecated
            mobility = _MOBILITY_RANK[source.mobility]
            wrong_label = known.table.lookup(address).label != policy.label
            encapsulated = source.encapsulated
    rtt = known.rtt(endpoint)
    return (
        unusable,  # rule 1: avoid unusable destinations
        wrong_scope,  # rule 2: prefer matching scope
        deprecated,  # rule 3: avoid deprecated addresses
        mobility,  # rule 4: prefer home addresses
        wrong_label,  # rule 5: prefer matching label
        -policy.precedence,  # rule 6: prefer higher precedence
        encapsulated,  # rule 7: prefer native transport
        scope,  # rule 8: prefer smaller scope
        inf if rtt is None else rtt,
        not known.used(endpoint),
    )


def _apply_rule_9(tied: Sequence[Endpoint], known: Knowledge) -> Iterable[Endpoint]:
    """Return endpoints that no earlier rule tells apart, the longest matching prefix first in each family."""

    def matching_prefix(endpoint: Endpoint) -> int:
        source = known.sources[endpoint]
        return 0 if source is None else common_prefix_length(as_integer(source.host), as_integer(endpoint.host))

    def in_order(family: AddressFamily) -> Iterable[Endpoint]:
        members = [endpoint for endpoint in tied if _wire_family(endpoint) == family]
        if (family == AF_INET6 or known.ipv4_longest_prefix) and all(member in known.sources for member in members):
            members.sort(key=matching_prefix, reverse=True)
        return members

    # "When DA and DB belong to the same address family": each family is sorted among its own places.
    queues = {family: iter(in_order(family)) for family in (AF_INET6, AF_INET)}
    return (next(queues[_wire_family(endpoint)]) for endpoint in tied)


def sort(endpoints: Iterable[Endpoint], known: Knowledge = NO_KNOWLEDGE) -> tuple[Endpoint, ...]:
    """Return the endpoints, each once, in the order of RFC 6724 section 6 with the history rules of RFC 8305 section 4.

    Equal endpoints keep the order they came in (rule 10).
    """
    ranks = {endpoint: _rank(endpoint, known) for endpoint in endpoints}
    ranked = groupby(sorted(ranks, key=ranks.__getitem__), key=ranks.__getitem__)
    return tuple(chain.from_iterable(_apply_rule_9(tuple(tied), known) for _, tied in ranked))


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
    groups: Iterable[Iterable[Endpoint]],
    known: Knowledge = NO_KNOWLEDGE,
    *,
    preferred_family_count: int = 1,
    first_family: AddressFamily | None = None,
) -> tuple[Endpoint, ...]:
    """Return the order of attempts: each group sorted and interleaved, all of one group before the next.

    Answers that come late are ordered by calling this again with everything that is known by then, and taking the
    first endpoint that has not been started (RFC 8305 section 5; happy-eyeballs v3 likewise).

    Args:
      groups: the endpoints by priority, the first group first. An endpoint in several groups counts in its first.
      known: see `Knowledge`.
      preferred_family_count: see `interleave`; it holds in each group.
      first_family: likewise.
    """
    ordered = (interleave(sort(group, known), preferred_family_count, first_family=first_family) for group in groups)
    return tuple(dict.fromkeys(chain.from_iterable(ordered)))


def served_families(sources: Iterable[Source]) -> tuple[AddressFamily, ...]:
    """Return the families that connections can start from, IPv6 first; both when no source is given.

    A family that is not among them needs no lookup.
    """
    sources = tuple(sources)
    return tuple(
        family for family in (AF_INET6, AF_INET) if not sources or any(source.serves(family) for source in sources)
    )
