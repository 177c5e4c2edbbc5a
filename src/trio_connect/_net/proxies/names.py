"""Names that go to a proxy, as candidates of a race beside the addresses that are looked up here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, ParamSpec, final

from ..._endpoint import sends_names
from ..._unresolved import UnresolvedEndpoint
from ..race.candidates import pair_up
from .attempt import proxied_attempts

if TYPE_CHECKING:
    import trio

    from ..._answer import Lookup
    from ..._endpoint import Source
    from ..._engine.race_table import Candidate
    from ..._trace import TraceEvent
    from ..names.hosts import Host
    from ..race.candidates import Candidates, Offers, Refusals

P = ParamSpec("P")


@final
class ProxiedNames:
    """A connect to names of which some sources have proxies.

    Args:
      hosts: the names, best first; perhaps with numeric hosts among them.
      sources: all of them, best first.
      refusals: of the caller's filter, which judges numeric hosts.
    """

    def __init__(self, hosts: Sequence[Host], sources: Sequence[Source], refusals: Refusals | None) -> None:
        self.open_attempt = proxied_attempts(sources)
        """Makes the attempts through their proxies."""
        self.asked_here = [source for source in sources if not sends_names(source)]
        """The sources for which the names are looked up here."""
        first = list(takewhile(sends_names, sources))
        last = [source for source in sources[len(first) :] if sends_names(source)]
        # What is judged is what is sent: a proxy may read any spelling as an address.
        spelled = [each.spelled for each in hosts]
        numeric = [each for each in spelled if each is not None]
        refused = pair_up(numeric, first + last, refusals)[1]
        # Where others are asked here, they report what is refused.
        self._skipped = {} if self.asked_here else refused
        endpoints = [
            endpoint or UnresolvedEndpoint(each.name, each.port) for endpoint, each in zip(spelled, hosts, strict=True)
        ]
        allowed = [endpoint for endpoint in endpoints if (None, endpoint) not in refused]
        self._first: list[Candidate] = [(source, endpoint) for endpoint in allowed for source in first]
        self._last: list[Candidate] = [(source, endpoint) for endpoint in allowed for source in last]

    def beside(self, candidates: Candidates) -> Candidates:
        """Return the candidates with what their proxies look up.

        Args:
          candidates: the addresses that are looked up here; they are not, when no source wants them.
        """
        if not self._first and not self._last and self.asked_here:
            return candidates
        return _WithNames(candidates if self.asked_here else None, self._first, self._last, self._skipped)


@final
class _WithNames:
    """The candidates of another source, and names that go to proxies.

    Names of the first sources are tried at once: they wait for no lookup. Those of later sources stand behind all
    addresses, and join with the first of these, or when no lookup has found any.
    """

    def __init__(
        self,
        candidates: Candidates | None,
        first: list[Candidate],
        last: list[Candidate],
        skipped: Mapping[Candidate, str],
    ) -> None:
        self._candidates = candidates
        self._first = first
        self._last = last
        self._skipped = skipped

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """Those of the candidates."""
        return () if self._candidates is None else self._candidates.lookups

    async def run(self, race: Offers, nursery: trio.Nursery) -> None:
        """Offer the names around what is looked up."""
        race.offer(self._first, self._skipped)
        if self._candidates is not None:
            await self._candidates.run(_Around(race, self._first, self._last), nursery)
        race.offer(self._last, {})


@final
class _Around:
    """A race as the candidates see it: puts the names around what they offer."""

    def __init__(self, race: Offers, first: list[Candidate], last: list[Candidate]) -> None:
        self._race = race
        self._first = first
        self._last = last
        self._has_last = False

    def offer(
        self, pairs: Sequence[Candidate], skipped: Mapping[Candidate, str], *, order: Sequence[Candidate] | None = None
    ) -> bool:
        self._has_last = self._has_last or bool(pairs)
        last = self._last if self._has_last else ()
        if order is not None:
            order = [*self._first, *order, *last]
        return self._race.offer([*pairs, *last], skipped, order=order)

    def notify(self, kind: Callable[P, TraceEvent], *args: P.args, **kwargs: P.kwargs) -> None:
        self._race.notify(kind, *args, **kwargs)
