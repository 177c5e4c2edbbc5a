"""`connectx`: one connection out of many endpoints.

RFC 6458 section 9.9 promises of sctp_connectx() that the further addresses are used when one is unreachable. Here that
promise is kept for TCP, by the race of RFC 8305 section 5.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

from trio import current_time
from trio.lowlevel import enable_ki_protection

from .._check import check_callback
from .._deadline import to_seconds
from .._options import DEFAULT_OPTIONS, SocketOptions
from .._policy import DEFAULT_POLICY, RacePolicy
from .host_of import HostOfEndpoint
from .race.alone import first_then_race
from .race.candidates import EndpointsToCome, Refusals, checked, close_generator, pair_up
from .race.driver import run_race
from .race.establishing import over_tls
from .race.plan import (
    RaceOptions,
    RacePlan,
    TcpRaceOptions,
    any_proxy,
    check_fast_open,
    check_race_options,
)
from .sockets.open import factory_installed
from .streams.tcp_stream import TcpStream, TlsStream

if TYPE_CHECKING:
    import ssl
    from typing import Literal

    from .._endpoint import EndpointLike, Source
    from .._filter import AddressFilter
    from .._trace import Observer
    from .history import History
    from .names.through_nat64 import Nat64OfCall
    from .nat64 import Nat64
    from .race.candidates import Candidates

T = TypeVar("T")


# Two for each kind of `tls`: none, one, and what is known at run time only, which takes an establish for both kinds of
# stream. mypy sees that the last two overlap with others; the first one that fits counts. `connect` and `connect_srv`
# have theirs written out too: a shared signature (a Protocol with an overloaded `__call__`) would make objects of them,
# of which `help()` and editors show the type and not the arguments.
@overload
async def connectx(
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    establish: Callable[[TcpStream], Awaitable[None]] | None = None,
    tls: None = None,
    server_hostname: None = None,
    **options: Unpack[TcpRaceOptions],
) -> TcpStream: ...


@overload
async def connectx(  # type: ignore[overload-overlap]
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    establish: Callable[[TcpStream], Awaitable[T]],
    tls: None = None,
    server_hostname: None = None,
    **options: Unpack[TcpRaceOptions],
) -> T: ...


@overload
async def connectx(
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    establish: Callable[[TlsStream], Awaitable[None]] | None = None,
    tls: ssl.SSLContext | Literal[True],
    server_hostname: str | None = None,
    **options: Unpack[TcpRaceOptions],
) -> TlsStream: ...


@overload
async def connectx(  # type: ignore[overload-overlap]
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    establish: Callable[[TlsStream], Awaitable[T]],
    tls: ssl.SSLContext | Literal[True],
    server_hostname: str | None = None,
    **options: Unpack[TcpRaceOptions],
) -> T: ...


@overload
async def connectx(
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    establish: Callable[[TcpStream | TlsStream], Awaitable[None]] | None = None,
    **options: Unpack[RaceOptions],
) -> TcpStream | TlsStream: ...


@overload
async def connectx(
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    establish: Callable[[TcpStream | TlsStream], Awaitable[T]],
    **options: Unpack[RaceOptions],
) -> T: ...


@enable_ki_protection  # as tcp_connect; what the caller gave us to call is not protected
async def connectx(
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    policy: RacePolicy = DEFAULT_POLICY,
    sources: Sequence[Source] = (),
    history: History | None = None,
    address_filter: AddressFilter | None = None,
    observer: Observer | None = None,
    options: SocketOptions = DEFAULT_OPTIONS,
    nat64: Nat64 | None = None,
    tls: ssl.SSLContext | Literal[True] | None = None,
    server_hostname: str | None = None,
    establish: Callable[[Any], Awaitable[Any]] | None = None,
) -> Any:
    """Connect to one peer over whichever of its endpoints works, in the least time.

    The endpoints are tried in the order given, each start `RacePolicy.attempt_delay` after the one before, or as soon
    as any attempt fails. Slow attempts go on beside their successors. The first that succeeds wins; every other socket
    is closed before this returns.

    Args:
      endpoints: numeric addresses of one peer, best first (`order_endpoints` sorts by RFC 6724). Endpoints of an async
        iterable join the race as they come. At most 64 are tried, no iterator is read any further, and duplicates are
        dropped. An async generator is closed before this returns; a channel stays open.
      deadline: milliseconds on the clock of `now()`; -1 for none. With 0: the first endpoint, after each immediate
        failure the next, and one more poll. With one that has passed nothing is tried.
      policy: how the race is run.
      sources: where connections may start, best first. Each endpoint is tried from each source that has an address of
        its family, before the next endpoint; one that no source serves is reported as skipped.
      history: a memory of earlier connects, which this one reads and adds to. An endpoint that failed lately, or was
        slow, is tried after the others; so is one that another race waits for in vain.
      address_filter: asked once for each endpoint, before any packet; true allows it. One that it refuses is reported
        as skipped, with the reason, and all others are raced. What it raises is raised from here.
      observer: called with each `TraceEvent` as it happens.
      options: set on each socket before it connects. With `multipath` the best endpoint gets one more attempt, over
        plain TCP, at the end of the list: some networks drop what asks for MPTCP, and the kernel takes three seconds
        to give up.
      nat64: the way to IPv4 addresses from a network that has IPv6 only; see `Nat64`. An endpoint that needs it keeps
        its place in the order, and what comes behind it does not wait while the prefix is looked up.
      tls: connect over TLS, with this context; True for ``ssl.create_default_context()``, made once. The race is won
        when the handshake is done, so that an address whose TLS does not work loses to the next. Its ALPN protocols
        are offered.
      server_hostname: the name that the server has to prove; None for the address of each attempt.
      establish: the caller's own test of a connection, such as a greeting; with `tls` it gets the `TlsStream`. The race
        is won when it returns. What it returns is the result of this call, so it should hold the stream: nobody else
        will close it. None says that the connection is good, and the result is the stream. It fails its attempt, and
        the race goes on, by raising `OSError`, `trio.BrokenResourceError`, `trio.TooSlowError`, `ssl.SSLError`,
        `EstablishFailed`, or a group of nothing but these. Anything else ends the race and is raised from here.

    Returns:
      The winner's stream, its `report` complete, with `tls` a `TlsStream`; with `establish` what that returned, if not
      None.

    Raises:
      ConnectFailed: every attempt failed. An `OSError` with the errno that they agree on, or of the one that came
        furthest; `report` has each attempt, `errors` what each raised, ``__cause__`` is a group of these. With errno
        EACCES: `address_filter` allowed nothing.
      DeadlineExceeded: the deadline came first; `report` has what was tried.
      ImportError: a source has a proxy, and python-socks is not installed.
      TypeError: an argument has the wrong type, `establish` is not async, `address_filter` is, or there is a
        `server_hostname` and no `tls`.
      ValueError: there are no endpoints, one is a name or has port 0, the options ask for `fast_open` where there may
        be several and no `establish` or `tls`, the context is for servers, there are an `address_filter` and a proxy
        that looks names up (see `Source`) or `SocketOptions.multipath`, the delay is `Adaptive` without a `history`, or
        the deadline is below -1.

    See RFC 8305 section 5 for the race, RFC 6458 section 9.9 for sctp_connectx().
    """
    until = to_seconds(deadline)
    host_of = None if nat64 is None else HostOfEndpoint()
    if tls is not None or server_hostname is not None:
        if establish is not None:
            check_callback(establish, "establish")
        establish = over_tls(tls, server_hostname, establish, host_of=host_of)
    if (
        observer is not None
        or establish is not None
        or policy is not DEFAULT_POLICY
        or options is not DEFAULT_OPTIONS
        or sources != ()
        or history is not None
        or address_filter is not None
        or nat64 is not None
    ):
        check_race_options(
            policy, sources, address_filter, observer, options, establish, history=history, nat64=nat64
        )  # fmt: skip
    through_proxy = None
    if sources != () and any_proxy(sources):
        from .proxies.attempt import proxied_attempts

        through_proxy = proxied_attempts(sources)
    refusals = None if address_filter is None else Refusals(address_filter)
    # By hasattr: a fraction of what isinstance costs for an abstract class.
    if nat64 is None and not hasattr(endpoints, "__aiter__"):
        listed = checked(endpoints, sources, refusals)  # pyright: ignore[reportArgumentType]
        pairs, skipped = pair_up(listed, sources, refusals)
        if not pairs and not skipped:
            raise ValueError("connectx needs at least one endpoint, got none")
        if options is not DEFAULT_OPTIONS and len(pairs) > 1:
            check_fast_open(options, establish, candidates=len(set(pairs)))
        return await first_then_race(
            pairs, skipped, policy=policy, sources=sources, options=options, establish=establish, observer=observer,
            history=history, until=until, through_proxy=through_proxy,
        )  # fmt: skip
    plan = RacePlan(
        policy=policy, sources=sources, options=options, establish=establish, observer=observer, history=history,
        until=until, started=current_time(), factory=factory_installed(), through_proxy=through_proxy, host_of=host_of,
    )  # fmt: skip
    if nat64 is not None:
        from .names.through_nat64 import Nat64OfCall

        through = Nat64OfCall(nat64, sources, factory=plan.factory, host_of=host_of)
        return await _through_nat64(through, plan, endpoints, refusals)
    check_fast_open(options, establish)
    to_come = EndpointsToCome(
        cast("AsyncIterable[EndpointLike]", endpoints), partial(pair_up, sources=sources, refusals=refusals)
    )
    return await _race_to_come(plan, endpoints, to_come)


async def _race_to_come(plan: RacePlan, endpoints: object, candidates: Candidates) -> Any:
    try:
        return await run_race(plan, candidates=candidates)
    except BaseException:
        # Also that of a call which was late or cancelled, and has read nothing.
        await close_generator(endpoints)
        raise


async def _through_nat64(
    nat64: Nat64OfCall,
    plan: RacePlan,
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    refusals: Refusals | None,
) -> Any:
    """Connect where the caller has given a NAT64: to a list that needs no lookup for it, as to any other list."""
    from .names.through_nat64 import EndpointsThroughNat64

    if hasattr(endpoints, "__aiter__"):
        check_fast_open(plan.options, plan.establish)
        to_come = cast("AsyncIterable[EndpointLike]", endpoints)
        through = EndpointsThroughNat64(nat64, plan.started, refusals, to_come=to_come)
        return await _race_to_come(plan, endpoints, through)
    listed = checked(endpoints, plan.sources, refusals)  # pyright: ignore[reportArgumentType]
    if not listed:
        raise ValueError("connectx needs at least one endpoint, got none")
    check_fast_open(plan.options, plan.establish, candidates=len(set(listed)))
    pairs, skipped = nat64.pair_up(listed, refusals)
    if nat64.wants_prefix:
        return await run_race(
            plan, pairs, skipped, candidates=EndpointsThroughNat64(nat64, plan.started, refusals, listed)
        )
    return await first_then_race(
        pairs, skipped, policy=plan.policy, sources=plan.sources, options=plan.options, establish=plan.establish,
        observer=plan.observer, history=plan.history, until=plan.until, through_proxy=plan.through_proxy, plan=plan,
    )  # fmt: skip
