"""`connectx`: one connection out of many endpoints.

RFC 6458 section 9.9 promises of sctp_connectx() that the further addresses are used when one is unreachable. Here that
promise is kept for TCP, by the race of RFC 8305 section 5.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar, Unpack, cast, overload

import trio
from trio import current_time
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    disable_ki_protection,
    enable_ki_protection,
)

from .._deadline import to_seconds
from .._endpoint import Endpoint, EndpointLike, Source, as_endpoint, check_connectable
from .._engine.race import MAX_RACED
from .._engine.spinning import CREDIT
from .._messages import race_failed
from .._options import DEFAULT_OPTIONS, SocketOptions, check_options
from .._policy import DEFAULT_POLICY, RacePolicy, check_policy
from .._text import shown
from .attempt import PENDING, local_ports, open_and_begin, reject_self_connect, spinning
from .race.driver import RaceDriver
from .race.opening import opening_after, opening_failed
from .sockets.open import factory_installed
from .sockets.stream_socket import LocalFailure
from .sockets.waiting import Expired
from .streams.tcp_stream import TcpStream

if TYPE_CHECKING:
    from .._trace import Observer
    from .race.reports import Pair

T = TypeVar("T")

MOST_READ: Final = 4096
"""So many items are read of an iterable that yields duplicates, or what no source can reach: it may have no end."""


class RaceOptions(TypedDict, total=False):
    """The keyword arguments that `connectx`, `connect` and what is built on them have in common."""

    policy: RacePolicy
    """How the race is run."""
    sources: Sequence[Source]
    """Where connections may start, best first. Each endpoint is tried from each source that has its family."""
    observer: Observer | None
    """Called with each `TraceEvent`."""
    options: SocketOptions
    """What to set on each socket before it connects."""


@overload
async def connectx(
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    establish: None = None,
    **options: Unpack[RaceOptions],
) -> TcpStream: ...


@overload
async def connectx(
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    establish: Callable[[TcpStream], Awaitable[None]],
    **options: Unpack[RaceOptions],
) -> TcpStream: ...


@overload
async def connectx(
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    establish: Callable[[TcpStream], Awaitable[T]],
    **options: Unpack[RaceOptions],
) -> T: ...


@enable_ki_protection  # as tcp_connect; what the caller gave us to call is not protected
async def connectx(
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    policy: RacePolicy = DEFAULT_POLICY,
    sources: Sequence[Source] = (),
    observer: Observer | None = None,
    options: SocketOptions = DEFAULT_OPTIONS,
    establish: Callable[[TcpStream], Awaitable[Any]] | None = None,
) -> Any:
    """Connect to one peer over whichever of its endpoints works, in the least time.

    The endpoints are tried in the order given, each start `RacePolicy.attempt_delay` after the one before, or as soon
    as any attempt fails. Slow attempts go on beside their successors. The first that succeeds wins; every other socket
    is closed before this returns.

    Args:
      endpoints: numeric addresses of one peer, best first (`order_endpoints` sorts by RFC 6724). Endpoints of an async
        iterable join the race as they come. At most 64 are tried, no iterator is read any further, and duplicates are
        dropped.
      deadline: milliseconds on the clock of `now()`; -1 for none. With 0: the first endpoint, after each immediate
        failure the next, and one more poll. With one that has passed nothing is tried.
      policy: how the race is run.
      sources: where connections may start, best first. Each endpoint is tried from each source that has an address of
        its family, before the next endpoint; one that no source serves is reported as skipped.
      observer: called with each `TraceEvent` as it happens.
      options: set on each socket before it connects.
      establish: the caller's own test of a connection, such as a TLS handshake or a greeting; the race is won when it
        returns. What it returns is the result of this call, so it should hold the stream: nobody else will close
        it. None says that the connection is good, and the result is the stream. It fails its attempt, and the race
        goes on, by raising `OSError`, `trio.BrokenResourceError`, `trio.TooSlowError`, `ssl.SSLError`,
        `EstablishFailed`, or a group of nothing but these. Anything else ends the race and is raised from here.

    Returns:
      The winner's stream, its `report` complete; with `establish` what that returned, if not None.

    Raises:
      ConnectFailed: every attempt failed. An `OSError` with the errno that they agree on, or of the one that came
        furthest; `report` has each attempt, `errors` what each raised, ``__cause__`` is a group of these.
      DeadlineExceeded: the deadline came first; `report` has what was tried.
      TypeError: an argument has the wrong type, or `establish` is not async.
      ValueError: there are no endpoints, one is a name or has port 0, the options ask for `fast_open` where there may
        be several and no `establish`, or the deadline is below -1.

    See RFC 8305 section 5 for the race, RFC 6458 section 9.9 for sctp_connectx().
    """
    until = to_seconds(deadline)
    plain = observer is None and establish is None
    if not plain or policy is not DEFAULT_POLICY or options is not DEFAULT_OPTIONS or sources != ():
        check_race_options(policy, sources, observer, options, establish)
    if hasattr(endpoints, "__aiter__"):  # a fraction of what isinstance costs for an abstract class
        check_fast_open(options, establish)
        stream_of = cast("AsyncIterable[EndpointLike]", endpoints)
        return await _connect_to_stream_of(stream_of, until, policy, sources, observer, options, establish)
    pairs, skipped = pair_up(checked(endpoints, sources), sources)  # pyright: ignore[reportArgumentType]
    if not pairs and not skipped:
        raise ValueError("connectx needs at least one endpoint, got none")
    if options is not DEFAULT_OPTIONS and len(pairs) > 1:
        check_fast_open(options, establish, candidates=len(set(pairs)))
    opening = None
    waited = False
    plain = plain and bool(pairs)
    if plain:
        await checkpoint_if_cancelled()
    started = current_time()
    factory = factory_installed()
    if plain and until > started and not factory:
        # The first attempt is made before anything is built for a race: most of the time there is none.
        source, endpoint = pairs[0]
        sock = None
        heard_later = False
        try:
            sock, address, code = open_and_begin(endpoint, source, options, factory=False)
            if code == PENDING:
                heard_later = bool(spinning.credit) or spinning.is_worthwhile()
                if heard_later:
                    await cancel_shielded_checkpoint()
                code = sock.poll(address)
                if heard_later and (code == PENDING or spinning.credit != CREDIT):
                    spinning.learn(enough=code != PENDING)
                if code == PENDING:
                    # Nothing else is to be done before the next start is due or the attempt's time is up.
                    alone = policy.attempt_timeout
                    if len(pairs) > 1 and policy.attempt_delay < alone:
                        alone = policy.attempt_delay
                    alone += started
                    heard_later = True
                    try:
                        code = await sock.finish(address, min(alone, until))
                    except Expired:
                        waited = True
            if code == 0 and (endpoint.port in local_ports() or source is not None):
                code = reject_self_connect(code, sock, endpoint, source)
            if not code:
                if not heard_later:
                    await cancel_shielded_checkpoint()
                return TcpStream(sock, endpoint, (pairs, skipped, started, current_time()))
            opening = opening_after(code, sock, endpoint, source, started, at_once=not heard_later)
        except LocalFailure as exc:
            opening = opening_failed(exc, endpoint, source, started)
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        if opening[0] is None:
            # Failed, and perhaps in a pass that has brought a cancel: another SYN would come after it.
            await checkpoint_if_cancelled()
    driver = RaceDriver(
        policy, pairs, until=until, started=started, more=False, options=options, factory=factory,
        establish=establish, observer=observer, target="", skipped=skipped,
    )  # fmt: skip
    driver.adopt(opening, waited=waited)
    value, report = await driver.run()
    if report is not None:
        raise race_failed("", report, driver.errors)
    return value


async def _connect_to_stream_of(
    endpoints: AsyncIterable[EndpointLike],
    until: float,
    policy: RacePolicy,
    sources: Sequence[Source],
    observer: Observer | None,
    options: SocketOptions,
    establish: Callable[[TcpStream], Awaitable[Any]] | None,
) -> Any:
    driver = RaceDriver(
        policy, [], until=until, started=current_time(), more=True, options=options, factory=factory_installed(),
        establish=establish, observer=observer, target="",
    )  # fmt: skip

    async def feed(_nursery: trio.Nursery) -> None:
        iterator = aiter(endpoints)
        read = 0
        try:
            async for item in iterator:
                read += 1
                pairs, skipped = pair_up(checked((item,)), sources)
                driver.race.add(pairs, current_time())
                driver.race.skip(skipped)
                driver.wake()
                if driver.race.full or read == MOST_READ:
                    break
        finally:
            # What a generator holds open is to be closed here and now, not by a garbage collector.
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()
        driver.race.no_more()

    value, report = await driver.run(feed)
    if report is not None:
        if not report.attempts:
            raise ValueError("connectx needs at least one endpoint, the iterable had none")
        raise race_failed("", report, driver.errors)
    return value


def check_race_options(policy: object, sources: object, observer: object, options: object, establish: object) -> None:
    """Refuse what cannot be the arguments of a race."""
    if policy is not DEFAULT_POLICY:
        check_policy(policy)
    if sources != ():
        check_sources(sources)
    if options is not DEFAULT_OPTIONS:
        check_options(options)
    if observer is not None and not callable(observer):
        raise TypeError(f"observer must be callable or None, got {shown(observer)}")
    if establish is not None and not callable(establish):
        raise TypeError(f"establish must be callable or None, got {shown(establish)}")


def check_sources(sources: object) -> None:
    """Refuse what is not a sequence of sources."""
    if isinstance(sources, Source) or not isinstance(sources, Iterable):
        raise TypeError(f"sources must be a sequence of Source, got {shown(sources)}")
    for item in cast("Iterable[object]", sources):
        if not isinstance(item, Source):
            raise TypeError(f"sources must be a sequence of Source, got {shown(item)} in it")


def check_fast_open(
    options: SocketOptions, establish: Callable[[TcpStream], Awaitable[Any]] | None, *, candidates: float = inf
) -> None:
    """Refuse a race that its first candidate would always win, for with a cookie connect(2) succeeds unanswered.

    Args:
      options: of the race.
      establish: the caller's own test of a connection, for which somebody has to answer.
      candidates: how many there are; infinite where that is not known.
    """
    if options.fast_open and establish is None and candidates > 1:
        raise ValueError(
            "fast_open cannot be raced: such a connect succeeds before anybody has answered (RFC 7413); "
            "give it an establish, or one numeric endpoint"
        )


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
