"""Several names of one service: whose addresses may be tried by now, and in which order.

Each name has a `Gate` of its own, and the names have an order: all addresses of the first go before any of the second,
as libpq has it for the hosts of a connection string. Names that are looked up side by side answer in any order, so a
later one may be ready while an earlier one is pending. It waits, but not for long, by the rule that RFC 8305 section 3
has for the two families of one name: the Resolution Delay runs from its own first address.

So at any time the names from the first on to some place are *released*: their addresses are tried, those that come
later too. A name is released

- when its gate is open or empty, and each name before it is released, or
- when its own first address, or that of a name behind it, has waited for the Resolution Delay. What goes before it in
  the order then need not wait any longer either.

A released name stays released, because a gate never closes again.

Rejected: one gate for all names, which would open once. A name that is pending when the race begins could then be
overtaken at once by every later one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from math import inf
from typing import TypeVar

from .gate import Gate

__all__ = ["in_turn", "next_release", "released"]

E = TypeVar("E", bound=Hashable)


def released(gates: Sequence[Gate], now: float) -> int:
    """Return how many of the names, from the first on, may have their addresses tried.

    Args:
      gates: of the names, in their order. Time need not have been told to them.
      now: the time, on the clock of the gates.
    """
    count = 0
    for place, gate in enumerate(gates, 1):
        is_next = count == place - 1 and gate.state in ("open", "empty")
        if is_next or gate.waits_until <= now:
            count = place
    return count


def next_release(gates: Sequence[Gate], count: int) -> float:
    """Return when time alone releases another name: `math.inf` when only facts can.

    Args:
      gates: of the names, in their order.
      count: how many are released, see `released`.
    """
    return min((gate.waits_until for gate in gates[count:]), default=inf)


def in_turn(names: Iterable[Iterable[E]]) -> dict[E, int]:
    """Return the endpoints in the order to try them in, each once, and of which name each is: the first that has it.

    Args:
      names: the endpoints of each released name, in its own order.
    """
    owners: dict[E, int] = {}
    for place, endpoints in enumerate(names):
        for endpoint in endpoints:
            owners.setdefault(endpoint, place)
    return owners
