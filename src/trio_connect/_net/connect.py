"""`connect`: from a name to a connection, and the two questions that it is made of, `resolve` and `order_endpoints`.

The lookups of both families run beside the race (RFC 8305 section 3): connecting begins as soon as the gate allows,
and addresses that come later join, the whole list sorted anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, overload

import trio
from trio import current_time
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from .._deadline import is_late, to_seconds
from .._endpoint import Endpoint, EndpointLike, Source, as_endpoint, check_port
from .._engine.order import served_families
from .._messages import call_exceeded, call_late, resolve_failed
from .._options import DEFAULT_OPTIONS, SocketOptions
from .._policy import DEFAULT_POLICY, RacePolicy, check_policy
from .._report import ConnectReport
from .._text import printable, shown
from .._trace import Observer
from .connectx import connectx
from .names.candidates import AddressesOfName, in_order, kernel_knows
from .names.lookup import Lookups
from .names.resolve import Resolver, check_host, numeric
from .names.system import SYSTEM_RESOLVER
from .race.candidates import Refusals
from .race.driver import run_race
from .race.errors import out_of_the_group
from .race.establishing import over_tls
from .race.plan import RaceOptions, RacePlan, TcpRaceOptions, check_fast_open, check_race_options
from .sockets.open import factory_installed
from .sockets.waiting import Expired, within
from .streams.tcp_stream import TcpStream, TlsStream

if TYPE_CHECKING:
    import ssl
    from typing import Literal

    from .._filter import AddressFilter

T = TypeVar("T")

_LONGEST: Final = 64
"""A numeric address with a zone is no longer (RFC 4291 section 2.2, IF_NAMESIZE), and nothing longer is remembered."""


def order_endpoints(endpoints: Iterable[EndpointLike], *, policy: RacePolicy = DEFAULT_POLICY) -> tuple[Endpoint, ...]:
    """Return endpoints in the order in which `connect` would try them.

    Sorts by the rules of RFC 6724 section 6, which need the source address that the kernel would use for each (asked
    for without sending anything), and interleaves the families as RFC 8305 section 4 says. Where a socket factory or
    hostname resolver of the run's own stands for the network, the kernel is not asked and those rules are skipped.

    Args:
      endpoints: in any order; equal ones keep theirs, and duplicates are dropped.
      policy: its `first_family` says which family comes first, its `preferred_family_count` how many of that family
        come before the first of the other.

    Raises:
      RuntimeError: called outside of `trio.run`.
      TypeError: an argument has the wrong type.
      ValueError: an endpoint is a name or malformed.
    """
    check_policy(policy)
    if isinstance(endpoints, str | bytes | Endpoint) or not isinstance(endpoints, Iterable):
        raise TypeError(f"endpoints must be an iterable of Endpoint or (host, port), got {shown(endpoints)}")
    return in_order(map(as_endpoint, endpoints), (), policy, ask_kernel=kernel_knows())


async def resolve(
    host: str, port: int, deadline: int = -1, *, resolver: Resolver | None = None
) -> tuple[Endpoint, ...]:
    """Return the endpoints of a name, in the order in which `connect` would try them.

    Waits for both families, unlike `connect`. The order is that of RFC 6724 section 6 and RFC 8305 section 4.

    Args:
      host: a name, or a numeric address, which is its own answer.
      port: 0 to 65535, put into each endpoint.
      deadline: milliseconds on the clock of `now()`; -1 for none.
      resolver: whom to ask; None for the system, or the hostname resolver that this run has installed.

    Raises:
      ResolveFailed: no family has an address; `report` has the lookups.
      DeadlineExceeded: the deadline came first; likewise.
      TypeError: an argument has the wrong type.
      ValueError: the host is no possible name, or the port or deadline is out of range.
    """
    check_host(host)
    check_port(port)
    until = to_seconds(deadline)
    check_resolver(resolver)
    literal = numeric(host)
    if literal is not None or is_late(until):
        await checkpoint()
    if is_late(until):
        started = current_time()
        report = ConnectReport(started_at=started, elapsed=0.0)
        raise call_late(f"lookup of {printable(host)}", started - until, report=report)
    if literal is not None:
        return (Endpoint(literal, port),)
    await checkpoint_if_cancelled()
    started = current_time()
    lookups = Lookups(host, served_families(()), resolver or SYSTEM_RESOLVER, resolution_delay=0.0, origin=started)

    try:
        await within(until, _everything, lookups)
    except Expired:
        elapsed = current_time() - started
        report = ConnectReport(lookups=lookups.records, started_at=started, elapsed=elapsed)
        raise call_exceeded(f"lookup of {printable(host)}", elapsed, report=report) from None
    if not lookups.addresses:
        report = ConnectReport(lookups=lookups.records, started_at=started, elapsed=current_time() - started)
        raise resolve_failed(host, report)
    endpoints = (Endpoint(address, port) for address in lookups.addresses)
    return in_order(endpoints, (), DEFAULT_POLICY, ask_kernel=kernel_knows())


async def _everything(lookups: Lookups) -> None:
    crash: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            lookups.start(nursery)
            try:
                while await lookups.more():
                    pass
            except Exception as exc:  # noqa: BLE001 - raised below; the nursery would wrap it in a group
                crash = exc
            nursery.cancel_scope.cancel()
    except BaseException as exc:  # noqa: BLE001 - raised below, out of that group
        crash = out_of_the_group(exc)
    if crash is not None:
        try:
            raise crash
        finally:
            del crash


@overload
async def connect(
    host: str,
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: None = None,
    tls: None = None,
    server_hostname: None = None,
    **options: Unpack[TcpRaceOptions],
) -> TcpStream: ...


@overload
async def connect(
    host: str,
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: Callable[[TcpStream], Awaitable[None]],
    tls: None = None,
    server_hostname: None = None,
    **options: Unpack[TcpRaceOptions],
) -> TcpStream: ...


@overload
async def connect(
    host: str,
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: Callable[[TcpStream], Awaitable[T]],
    tls: None = None,
    server_hostname: None = None,
    **options: Unpack[TcpRaceOptions],
) -> T: ...


@overload
async def connect(
    host: str,
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: None = None,
    tls: ssl.SSLContext | Literal[True],
    server_hostname: str | None = None,
    **options: Unpack[TcpRaceOptions],
) -> TlsStream: ...


@overload
async def connect(
    host: str,
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: Callable[[TlsStream], Awaitable[None]],
    tls: ssl.SSLContext | Literal[True],
    server_hostname: str | None = None,
    **options: Unpack[TcpRaceOptions],
) -> TlsStream: ...


@overload
async def connect(
    host: str,
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: Callable[[TlsStream], Awaitable[T]],
    tls: ssl.SSLContext | Literal[True],
    server_hostname: str | None = None,
    **options: Unpack[TcpRaceOptions],
) -> T: ...


@overload
async def connect(
    host: str,
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: None = None,
    **options: Unpack[RaceOptions],
) -> TcpStream | TlsStream: ...


@overload
async def connect(
    host: str,
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: Callable[[Any], Awaitable[None]],
    **options: Unpack[RaceOptions],
) -> TcpStream | TlsStream: ...


@overload
async def connect(
    host: str,
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: Callable[[Any], Awaitable[T]],
    **options: Unpack[RaceOptions],
) -> T: ...


async def connect(
    host: str,
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    policy: RacePolicy = DEFAULT_POLICY,
    sources: Sequence[Source] = (),
    address_filter: AddressFilter | None = None,
    observer: Observer | None = None,
    options: SocketOptions = DEFAULT_OPTIONS,
    tls: ssl.SSLContext | Literal[True] | None = None,
    server_hostname: str | None = None,
    establish: Callable[[Any], Awaitable[Any]] | None = None,
) -> Any:
    """Connect to a name: look its addresses up, race them, return the first connection.

    Both families are looked up side by side. Connecting begins with the first IPv6 address; an IPv4 answer that comes
    first waits `RacePolicy.resolution_delay` for it. Addresses that come later join the race.

    Args:
      host: a name, or a numeric address, for which nothing is looked up.
      port: 1 to 65535.
      deadline: milliseconds on the clock of `now()`, for lookups and race together; -1 for none. With 0 only a host
        that is numeric, or a resolver that answers at once, leads to a connection.
      resolver: whom to ask; None for the system, or the hostname resolver that this run has installed.
      policy: how lookups and race are run.
      sources: where connections may start, best first. A family that none of them has is not looked up.
      address_filter: asked once for each address that a lookup finds, late ones too, and for a numeric host, however it
        is spelled; see `connectx`.
      observer: called with each `TraceEvent` as it happens.
      options: set on each socket before it connects.
      tls: connect over TLS, see `connectx`.
      server_hostname: the name that the server has to prove, in place of `host`; whatever it resolves to, the name that
        is verified stays the one that is given here.
      establish: the caller's own test of a connection, see `connectx`.

    Returns:
      The winner's stream, its `report` complete, with `tls` a `TlsStream`; with `establish` what that returned, if not
      None.

    Raises:
      ResolveFailed: the name has no address that could be tried; `report` has the lookups, the text names each.
      ConnectFailed: every attempt failed, or `address_filter` allowed nothing (errno EACCES), see `connectx`.
        (`ResolveFailed` is one too.)
      DeadlineExceeded: the deadline came first; `report` has what was done by then.
      TypeError: an argument has the wrong type, `establish` is not async, `address_filter` is, or there is a
        `server_hostname` and no `tls`.
      ValueError: the host is no possible name, the port is out of range, the options ask for `fast_open` for a name
        without an `establish` or `tls`, the context is for servers, or the deadline is below -1.

    See RFC 8305.
    """
    literal = (
        _literal(host, port) if host.__class__ is str and port.__class__ is int and len(host) <= _LONGEST else None
    )
    if literal is None:
        check_host(host)
    if check_port(port) == 0:
        raise ValueError(f"cannot connect to port 0 of {printable(host)}: a port is 1 to 65535")
    until = to_seconds(deadline)
    check_race_options(policy, sources, address_filter, observer, options, establish)
    check_resolver(resolver)
    if tls is not None or server_hostname is not None:
        # A numeric host may be spelled as no certificate spells it: there the address is verified.
        name = host if server_hostname is None and literal is None else server_hostname
        establish = over_tls(tls, name, establish)
    if literal is not None:
        return await connectx(
            (literal,), deadline, policy=policy, sources=sources, address_filter=address_filter, observer=observer,
            options=options, establish=establish,
        )  # fmt: skip
    check_fast_open(options, establish)
    plan = RacePlan(
        policy=policy, sources=sources, options=options, establish=establish, observer=observer,
        until=until, started=current_time(), factory=factory_installed(), target=f"{host}:{port}",
    )  # fmt: skip
    refusals = None if address_filter is None else Refusals(address_filter)
    return await run_race(plan, candidates=AddressesOfName(host, port, resolver or SYSTEM_RESOLVER, plan, refusals))


@lru_cache(maxsize=1024)
def _literal(host: str, port: int) -> Endpoint | None:
    """Return the endpoint of a numeric host, None for a name. Reading such a text costs a quarter of a connect."""
    return None if numeric(host) is None else Endpoint(host, port)


def check_resolver(resolver: object) -> None:
    """Refuse what is no resolver."""
    if resolver is not None and not isinstance(resolver, Resolver):
        raise TypeError(f"resolver must have an async method addresses(host, family), got {shown(resolver)}")
