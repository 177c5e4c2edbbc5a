"""The order in which the hosts of SRV records are tried (RFC 2782)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .plan import weighted_order

if TYPE_CHECKING:
    from random import Random

    from .._answer import SrvRecord

__all__ = ["srv_in_order"]


def srv_in_order(records: Iterable[SrvRecord], random: Random) -> tuple[SrvRecord, ...]:
    """Return the records in the order to try their hosts in, none where the service is not offered.

    Lower priorities go first. Within a priority the hosts are drawn one after the other, each with a chance in
    proportion to its weight; those of weight 0 come last.

    Args:
      records: as they came. One whose target is "." says that the service "is decidedly not available".
      random: where the draw comes from.
    """
    by_priority: dict[int, list[SrvRecord]] = {}
    for record in records:
        if record.target == ".":
            return ()
        by_priority.setdefault(record.priority, []).append(record)
    drawn: list[SrvRecord] = []
    for priority in sorted(by_priority):
        level = by_priority[priority]
        drawn += (level[index] for index in weighted_order([record.weight for record in level], random))
    return tuple(drawn)
