"""`order_endpoints`: the order in which `connect` tries addresses, asked of the kernel's routes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from ..._endpoint import Endpoint, EndpointLike, Source, as_endpoint
from ..._engine.order import NO_KNOWLEDGE, Knowledge, order
from ..._policy import DEFAULT_POLICY, RacePolicy, check_policy
from ..._text import shown
from ..sockets.open import factory_installed
from .route import look_up_routes
from .system import custom_resolver
from .system_files import policy_table

if TYPE_CHECKING:
    from ..history import History


def kernel_knows() -> bool:
    """Say whether the kernel's routes are those of the network that this run sees."""
    return not factory_installed() and custom_resolver() is None


def in_order(
    endpoints: Iterable[Endpoint],
    sources: Sequence[Source],
    policy: RacePolicy,
    *,
    ask_kernel: bool,
    history: History | None = None,
) -> tuple[Endpoint, ...]:
    """Return endpoints of one name in the order to try them in.

    Args:
      endpoints: in any order.
      sources: where connections may start.
      policy: its families' order.
      ask_kernel: whether `kernel_knows`.
      history: a memory of earlier connects, or None.
    """
    everything = tuple(dict.fromkeys(endpoints))
    # One endpoint has one order, and asking for routes costs three system calls for each.
    routes = look_up_routes(everything, sources) if ask_kernel and len(everything) > 1 else {}
    known = Knowledge(sources=routes, table=policy_table()) if ask_kernel else NO_KNOWLEDGE
    if history is not None:
        from ..history import recollections

        known = attrs.evolve(known, history=recollections(history, sources))
    return order(
        everything,
        known,
        preferred_family_count=policy.preferred_family_count,
        first_family=None if policy.first_family == "system" else policy.first_family,
    )


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
    return in_order(map(as_endpoint, endpoints), (), policy, ask_kernel=kernel_knows(), history=history)
