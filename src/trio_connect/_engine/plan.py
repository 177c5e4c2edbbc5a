"""A plan: which addresses of a destination one call tries, and in which order.

- Lower priorities go first. Within a priority the hosts are drawn by weight, one after the other, as RFC 2782
  says for SRV records.
- The addresses of a host keep the order that they come in, which is RFC 6724's when they come from a lookup.
- Within a priority the families alternate, beginning with that of the first address, so that a family without a route
  costs one attempt before the other family is tried (RFC 8305 section 4).
- Addresses in cooldown go last, whatever their priority, because the next priority is better than an address that has
  just failed. Of them, the cooldown that ends first goes first. They are never left out.
- A plan has a limit, because the owner of the DNS zone chooses how many addresses there are. The first address of each
  family is in it, then the first of each priority, then the others in order. So a long first priority displaces neither
  the other family nor the last priority.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from random import Random

    from .._outbound_values import Candidate

__all__ = ["Host", "make_plan", "weighted_order"]


@attrs.frozen
class Host:
    """What a lookup found under one name: its addresses share the priority and the weight of their host."""

    priority: int
    weight: int
    candidates: tuple[Candidate, ...]

    @classmethod
    def of(cls, candidate: Candidate) -> Host:
        """Return a candidate as a host of its own."""
        return cls(candidate.priority, candidate.weight, (candidate,))


def weighted_order(weights: Sequence[int], random: Random) -> list[int]:
    """Return indexes in an order drawn by weight; those of weight 0 come last, in any order.

    Drawing again and again without putting back is the same as sorting by ``-log(u) / weight``, u uniform in (0, 1),
    the lowest first (Efraimidis and Spirakis, 2006).
    """
    if len(weights) == 1:
        return [0]
    keys = [random.expovariate(weight) if weight else inf for weight in weights]
    order = list(range(len(weights)))
    random.shuffle(order)
    order.sort(key=keys.__getitem__)
    return order


def make_plan(
    hosts: Sequence[Host], now: float, cooldown: Callable[[Candidate], float], limit: int, random: Random
) -> list[Candidate]:
    """Return the candidates to try, in order.

    Args:
      hosts: the hosts of the destination.
      now: the time.
      cooldown: says until when a candidate is in cooldown.
      limit: how many to return at most.
      random: where the draw comes from.
    """
    if len(hosts) == 1 and len(hosts[0].candidates) == 1:
        return list(hosts[0].candidates)
    healthy: list[Candidate] = []
    cooling: list[tuple[float, Candidate]] = []
    for level in _levels(hosts, random):
        fit: list[Candidate] = []
        for candidate in level:
            until = cooldown(candidate)
            if until <= now:
                fit.append(candidate)
            else:
                cooling.append((until, candidate))
        healthy += _alternate(fit)
    # The sort is stable: of two that end together the one of the better priority goes first.
    cooling.sort(key=lambda pair: pair[0])
    return _cut([*healthy, *(candidate for _, candidate in cooling)], limit)


def _levels(hosts: Sequence[Host], random: Random) -> Iterator[list[Candidate]]:
    by_priority: dict[int, list[Host]] = {}
    for host in hosts:
        by_priority.setdefault(host.priority, []).append(host)
    for priority in sorted(by_priority):
        level = by_priority[priority]
        order = weighted_order([host.weight for host in level], random)
        yield [candidate for index in order for candidate in level[index].candidates]


def _alternate(candidates: list[Candidate]) -> list[Candidate]:
    if not candidates:
        return candidates
    first = [each for each in candidates if each.endpoint.family == candidates[0].endpoint.family]
    other = [each for each in candidates if each.endpoint.family != candidates[0].endpoint.family]
    both = min(len(first), len(other))
    pairs = [each for pair in zip(first[:both], other[:both], strict=True) for each in pair]
    return [*pairs, *first[both:], *other[both:]]


def _cut(candidates: list[Candidate], limit: int) -> list[Candidate]:
    if len(candidates) <= limit:
        return candidates
    families: set[int] = set()
    priorities: set[int] = set()
    by_family: list[int] = []
    by_priority: list[int] = []
    for index, candidate in enumerate(candidates):
        if candidate.endpoint.family not in families:
            families.add(candidate.endpoint.family)
            by_family.append(index)
        if candidate.priority not in priorities:
            priorities.add(candidate.priority)
            by_priority.append(index)
    chosen = list(dict.fromkeys([*by_family, *by_priority, *range(len(candidates))]))[:limit]
    return [candidates[index] for index in sorted(chosen)]
