"""Where the candidates of a race come from: a list or iterable of the call, or a source that runs beside the race."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from itertools import islice
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, cast, final

from trio.lowlevel import disable_ki_protection

from ..._endpoint import Endpoint, EndpointLike, as_endpoint, check_connectable, reaches
from ..._engine.race import MAX_RACED
from ..._race_messages import NO_SOURCE, NO_ZONE, NOT_ALLOWED
from ..._text import shown
from ..._trace import LookupFinished, LookupStarted

if TYPE_CHECKING:
    import trio

    from ..._answer import Lookup, LookupKind
    from ..._endpoint import Source
    from ..._engine.race_table import Candidate
    from ..._filter import AddressFilter, NetworkFilter
    from ..._trace import TraceEvent

P = ParamSpec("P")

MOST_READ: Final = 4096
"""How many items are read from an iterable, which may be endless and yield duplicates or refused endpoints."""


class Offers(Protocol):
    """A race, as a source of candidates uses it."""

    def offer(
        self, pairs: Sequence[Candidate], skipped: Mapping[Candidate, str], *, order: Sequence[Candidate] | None = None
    ) -> bool:
        """Add candidates: all that are known in this instant, in one call.

        Args:
          pairs: to try, after those that wait. One that is known keeps its place.
          skipped: for the report only, each with the reason.
          order: every candidate that waits in the order to try them in, as RFC 8305 section 3 asks for when answers
            come late; those that do not wait any more may be among them.

        Returns:
          Whether the race takes more: it tries at most `MAX_RACED`.
        """
        ...

    def notify(self, kind: Callable[P, TraceEvent], *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell the observer of the race, if there is one, that this happened."""
        ...


class Candidates(Protocol):
    """A source of candidates that come while the race runs."""

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """What was looked up so far, for the report."""
        ...

    async def run(self, race: Offers, nursery: trio.Nursery, /) -> None:
        """Offer candidates to the race; when this returns, no more will come.

        Args:
          race: takes the candidates.
          nursery: the race's, for tasks of the source; they are cancelled when the race is over.

        Raises:
          Exception: it ends the race, and is raised from the call as it is.
        """
        ...


def tellers(race: Offers, origin: float) -> tuple[Callable[[str, LookupKind, float], None], Callable[[Lookup], None]]:
    """Return what tells the observer of a race that a lookup has started, and what tells that one has ended."""

    def on_start(asked: str, kind: LookupKind, at: float) -> None:
        race.notify(LookupStarted, asked, kind, origin + at)

    def on_end(lookup: Lookup) -> None:
        race.notify(LookupFinished, lookup, origin + lookup.ended)

    return on_start, on_end


@final
class Refusals:
    """The answers of the caller's filter in one call. It is asked once for each endpoint.

    Args:
      address_filter: checked before.
    """

    def __init__(self, address_filter: AddressFilter) -> None:
        # Loaded only where a filter is used.
        from ..._filter import NetworkFilter

        self._filter = address_filter
        self._explains = isinstance(address_filter, NetworkFilter)
        self._said: dict[Endpoint, str | None] = {}

    def of(self, endpoint: Endpoint) -> str | None:
        """Return why an endpoint is refused, for the report; None when it is allowed.

        Raises:
          TypeError: the filter is async after all.
          BaseException: what the filter raised, as it is.
        """
        if endpoint not in self._said:
            self._said[endpoint] = self._ask(endpoint)
        return self._said[endpoint]

    @disable_ki_protection  # the caller's filter may block
    def _ask(self, endpoint: Endpoint) -> str | None:
        if self._explains:
            why = cast("NetworkFilter", self._filter).refusal(endpoint)
            return None if why is None else f"{NOT_ALLOWED}: {why}"
        verdict: object = self._filter(endpoint)
        if hasattr(verdict, "__await__"):
            if isinstance(verdict, Coroutine):
                verdict.close()  # a coroutine that is dropped without this warns
            raise TypeError(f"address_filter must not be async, but {shown(self._filter)} returned an awaitable")
        return None if verdict else NOT_ALLOWED


@final
class EndpointsToCome:
    """The endpoints of an async iterable.

    Args:
      endpoints: as the caller has given them.
      pair: returns candidates and what is skipped, as `pair_up` does.
    """

    lookups = ()

    def __init__(
        self,
        endpoints: AsyncIterable[EndpointLike],
        pair: Callable[[Sequence[Endpoint]], tuple[list[Candidate], dict[Candidate, str]]],
    ) -> None:
        self._endpoints = endpoints
        self._pair = pair

    async def run(self, race: Offers, _nursery: trio.Nursery) -> None:
        """Offer each endpoint as it comes.

        Raises:
          ValueError: the iterable had no endpoint.
        """
        iterator = aiter(self._endpoints)
        read = 0
        try:
            async for item in iterator:
                read += 1
                if not race.offer(*self._pair(checked((item,)))) or read == MOST_READ:
                    break
        finally:
            await close_generator(iterator)
        if not read:
            raise ValueError("connectx needs at least one endpoint, the iterable had none")


async def close_generator(iterator: object) -> None:
    """Close the caller's async generator, now and not by the garbage collector: nobody else can go on with it.

    Anything else that has an `aclose` is left alone. A memory channel, for instance, may have other readers, and its
    owner may want what is left in it.
    """
    if isinstance(iterator, AsyncGenerator):
        await cast("AsyncGenerator[EndpointLike]", iterator).aclose()


@disable_ki_protection  # the caller's iterable may block
def checked(
    endpoints: Iterable[EndpointLike], sources: Sequence[Source] = (), refusals: Refusals | None = None
) -> list[Endpoint]:
    """Return endpoints that can be connected to, or say what is wrong with them.

    A collection is taken as a whole. Of an iterator, which may have no end, no more is read than one race can try.
    """
    if isinstance(endpoints, (str, bytes, Endpoint)) or not hasattr(endpoints, "__iter__"):
        raise TypeError(f"endpoints must be an iterable of Endpoint or (host, port), got {shown(endpoints)}")
    if not hasattr(endpoints, "__len__"):
        return list(_read(endpoints, sources, refusals))
    return [item if isinstance(item, Endpoint) and item.port else _connectable(item) for item in endpoints]


def _read(
    endpoints: Iterable[EndpointLike], sources: Sequence[Source], refusals: Refusals | None
) -> Iterator[Endpoint]:
    seen: set[Endpoint] = set()
    usable = 0
    for item in islice(endpoints, MOST_READ):
        endpoint = _connectable(item)
        if endpoint not in seen:
            seen.add(endpoint)
            yield endpoint
            reachable = not sources or any(reaches(source, endpoint) for source in sources)
            usable += reachable and (refusals is None or refusals.of(endpoint) is None)
            if usable == MAX_RACED:
                return


def _connectable(item: EndpointLike) -> Endpoint:
    endpoint = as_endpoint(item)
    if not endpoint.port:
        check_connectable(endpoint)
    return endpoint


def pair_up(
    endpoints: Iterable[Endpoint], sources: Sequence[Source], refusals: Refusals | None
) -> tuple[list[Candidate], dict[Candidate, str]]:
    """Return the candidates to try, and those that are skipped, with the reasons.

    Each endpoint is paired with every source before the next endpoint. This keeps the caller's order of endpoints, and
    a dead uplink costs one delay, not one for each endpoint.
    """
    skipped: dict[Candidate, str] = {}
    if refusals is not None:
        judged = [(endpoint, refusals.of(endpoint)) for endpoint in endpoints]
        endpoints = [endpoint for endpoint, why in judged if why is None]
        skipped = {(None, endpoint): why for endpoint, why in judged if why is not None}
    if not sources:
        return [(None, endpoint) for endpoint in endpoints], skipped
    pairs: list[Candidate] = []
    for endpoint in endpoints:
        usable: list[Candidate] = [(source, endpoint) for source in sources if reaches(source, endpoint)]
        pairs += usable
        if not usable:
            serves = any(source.serves(endpoint.family) for source in sources)
            skipped[None, endpoint] = NO_ZONE if serves else NO_SOURCE
    return pairs, skipped
