"""What the memory of earlier connects says of endpoints, for the order that they are tried in.

See `history` for the rules, `order` for where they stand among those of RFC 6724.
"""

from __future__ import annotations

from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import attrs

from .history import FINE, Entry, Key, source_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._endpoint import Endpoint, Source
    from .history import Memory

__all__ = ["Recollections"]

_Preference: TypeAlias = tuple[int, float]


@attrs.frozen
class Recollections:
    """What a memory says at one time, to one partition in one network.

    Args:
      memory: what is asked.
      network: whose entries are read.
      partition: likewise.
      sources: where connections may start; empty for where the kernel likes. The best of them counts.
      now: the time.
      wires: what is connected to in place of an endpoint, where that is another one (see `nat64`).
    """

    memory: Memory
    network: str
    partition: str
    sources: Sequence[Source]
    now: float
    wires: Mapping[Endpoint, Endpoint] = MappingProxyType({})

    def level(self, endpoint: Endpoint) -> int:
        """Return how far back an endpoint goes, see `Memory.level`."""
        return min((self.memory.level(key, self.now) for key in self._keys(endpoint)), default=FINE)

    def preference(self, endpoint: Endpoint) -> _Preference:
        """Return the two rules of RFC 8305 section 4 as a key: smaller is better."""
        return min(
            (0, entry.srtt) if self.memory.is_measured(entry, self.now) else (1 if entry.used > -inf else 2, 0.0)
            for entry in self._entries(endpoint)
        )

    def to_try_first(self, tied: Sequence[Endpoint]) -> Endpoint | None:
        """Return the one of these to try before the preferred one, for once; None for most of the time.

        It is one on trial, or one that was not tried for long.

        Args:
          tied: endpoints that no rule before these tells apart, in the order of preference. None is put behind.
        """
        if len(tied) == 1:
            return None
        known = {endpoint: self._entries(endpoint) for endpoint in tied}
        for endpoint, entries in known.items():
            if all(entry.doubtful for entry in entries):
                return endpoint
        tried = {endpoint: max(entry.tried for entry in entries) for endpoint, entries in known.items()}
        latest, *others = sorted(tied, key=tried.__getitem__, reverse=True)
        # Before a second one was tried the time runs from when the first was heard of.
        last = max(tried[others[0]], min(entry.since for entry in known[latest]))
        if self.now - last < self.memory.limits.explore_after:
            return None
        return min(others, key=tried.__getitem__)

    def _keys(self, endpoint: Endpoint) -> list[Key]:
        endpoint = self.wires.get(endpoint, endpoint)
        return [
            (self.network, self.partition, source_key(source, endpoint), endpoint)
            for source in self.sources or (None,)
            if source is None or source.serves(endpoint.family)
        ]

    def _entries(self, endpoint: Endpoint) -> list[Entry]:
        """Return at least one entry, an empty one for what is not known."""
        found = [self.memory.entry(key, self.now) or _UNKNOWN for key in self._keys(endpoint)]
        return found or [_UNKNOWN]


_UNKNOWN = Entry(since=inf, heard=-inf)
