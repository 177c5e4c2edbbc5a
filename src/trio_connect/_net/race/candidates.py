"""Who brings candidates to a race: the list or iterable of a call, or a source that runs beside the race."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, final

from trio.lowlevel import disable_ki_protection

from ..._endpoint import Endpoint, EndpointLike, as_endpoint, check_connectable
from ..._engine.race import MAX_RACED
from ..._text import shown

if TYPE_CHECKING:
    import trio

    from ..._answer import Lookup
    from ..._endpoint import Source
    from ..._trace import TraceEvent
    from .reports import Pair

P = ParamSpec("P")

MOST_READ: Final = 4096
"""So many items are read of an iterable that yields duplicates, or what no source can reach: it may have no end."""


class Offers(Protocol):
    """The race, as a source of candidates sees it."""

    def offer(
        self, pairs: Sequence[Pair], skipped: Sequence[Pair] = (), *, order: Sequence[Pair] | None = None
    ) -> bool:
        """Bring candidates, all that are known in this instant in one call.

        Args:
          pairs: to try, after those that wait. One that is known keeps its place.
          skipped: for the report only, because no source has their family.
          order: every candidate that waits in the order to try them in, as RFC 8305 section 3 asks for when answers
            come late; those that do not wait any more may be among them.

        Returns:
          Whether the race takes more: it tries at most `MAX_RACED`.
        """

    def notify(self, kind: Callable[P, TraceEvent], *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell the observer of the race, if there is one, that this happened."""


class Candidates(Protocol):
    """A source of candidates that come while the race runs."""

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """What was looked up so far, for the report."""

    async def run(self, race: Offers, nursery: trio.Nursery) -> None:
        """Offer candidates to the race; when this returns, no more will come.

        Args:
          race: to bring them to.
          nursery: of the race, for tasks of one's own; they are cancelled when it is over.

        Raises:
          Exception: it ends the race, and is raised from the call as it is.
        """


@final
class EndpointsToCome:
    """The endpoints of an async iterable."""

    lookups = ()

    def __init__(self, endpoints: AsyncIterable[EndpointLike], sources: Sequence[Source]) -> None:
        self._endpoints = endpoints
        self._sources = sources

    async def run(self, race: Offers, _nursery: trio.Nursery) -> None:
        """Offer each endpoint as it comes.

        Raises:
          ValueError: there was none.
        """
        iterator = aiter(self._endpoints)
        read = 0
        try:
            async for item in iterator:
                read += 1
                if not race.offer(*pair_up(checked((item,)), self._sources)) or read == MOST_READ:
                    break
        finally:
            # What a generator holds open is to be closed here and now, not by a garbage collector.
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()
        if not read:
            raise ValueError("connectx needs at least one endpoint, the iterable had none")


@disable_ki_protection  # the caller's iterable may block
def checked(endpoints: Iterable[EndpointLike], sources: Sequence[Source] = ()) -> list[Endpoint]:
    """Return endpoints that can be connected to, or say what is wrong with them.

    A collection is taken as a whole. Of an iterator, which may have no end, no more is read than one race can try.
    """
    if isinstance(endpoints, (str, bytes, Endpoint)) or not hasattr(endpoints, "__iter__"):
        raise TypeError(f"endpoints must be an iterable of Endpoint or (host, port), got {shown(endpoints)}")
    if not hasattr(endpoints, "__len__"):
        return list(_read(endpoints, sources))
    return [item if isinstance(item, Endpoint) and item.port else _connectable(item) for item in endpoints]


def _read(endpoints: Iterable[EndpointLike], sources: Sequence[Source]) -> Iterator[Endpoint]:
    seen: set[Endpoint] = set()
    usable = 0
    for item in islice(endpoints, MOST_READ):
        endpoint = _connectable(item)
        if endpoint not in seen:
            seen.add(endpoint)
            yield endpoint
            usable += not sources or any(source.serves(endpoint.family) for source in sources)
            if usable == MAX_RACED:
                return


def _connectable(item: EndpointLike) -> Endpoint:
    endpoint = as_endpoint(item)
    if not endpoint.port:
        check_connectable(endpoint)
    return endpoint


def pair_up(endpoints: Iterable[Endpoint], sources: Sequence[Source]) -> tuple[list[Pair], list[Pair]]:
    """Return what to try, and what cannot be because no source has its family.

    The endpoint comes before the source in rank: the caller's order of endpoints is kept, and a dead uplink costs one
    delay, not one for each endpoint.
    """
    if not sources:
        return [(None, endpoint) for endpoint in endpoints], []
    pairs: list[Pair] = []
    skipped: list[Pair] = []
    for endpoint in endpoints:
        usable: list[Pair] = [(source, endpoint) for source in sources if source.serves(endpoint.family)]
        pairs += usable
        if not usable:
            skipped.append((None, endpoint))
    return pairs, skipped
