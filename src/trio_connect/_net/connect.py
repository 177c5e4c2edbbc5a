"""`connect`: from a name, or several names of one service, to a connection.

The lookups of both families run beside the race (RFC 8305 section 3): connecting begins as soon as the gate allows,
and addresses that come later join, the whole list sorted anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from trio import current_time

from .._deadline import to_seconds
from .._options import DEFAULT_OPTIONS, SocketOptions
from .._policy import DEFAULT_POLICY, RacePolicy
from .by_name import ConnectByName
from .connectx import connectx
from .host_of import HostOfEndpoint
from .names.candidates import AddressesOfHosts
from .names.hosts import HostLike, check_connect_port, check_hosts, target_of
from .names.resolve import Resolver, check_resolver
from .names.system import SYSTEM_RESOLVER
from .race.alone import goes_alone
from .race.candidates import Refusals
from .race.driver import run_race
from .race.establishing import over_tls
from .race.plan import RaceOptions, RacePlan, TcpRaceOptions, any_proxy, check_fast_open, check_race_options
from .sockets.open import factory_installed
from .streams.tcp_stream import TcpStream, TlsStream

if TYPE_CHECKING:
    import ssl
    from typing import Literal

    from .._endpoint import Source
    from .._filter import AddressFilter
    from .._trace import Observer
    from .history import History
    from .nat64 import Nat64

T = TypeVar("T")


# As those of `connectx`, where it says why there are six.
@overload
async def connect(
    host: str | Iterable[HostLike],
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: Callable[[TcpStream], Awaitable[None]] | None = None,
    tls: None = None,
    server_hostname: None = None,
    **options: Unpack[TcpRaceOptions],
) -> TcpStream: ...


@overload
async def connect(  # type: ignore[overload-overlap]
    host: str | Iterable[HostLike],
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
    host: str | Iterable[HostLike],
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: Callable[[TlsStream], Awaitable[None]] | None = None,
    tls: ssl.SSLContext | Literal[True],
    server_hostname: str | None = None,
    **options: Unpack[TcpRaceOptions],
) -> TlsStream: ...


@overload
async def connect(  # type: ignore[overload-overlap]
    host: str | Iterable[HostLike],
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
    host: str | Iterable[HostLike],
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: Callable[[TcpStream | TlsStream], Awaitable[None]] | None = None,
    **options: Unpack[RaceOptions],
) -> TcpStream | TlsStream: ...


@overload
async def connect(
    host: str | Iterable[HostLike],
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
    establish: Callable[[TcpStream | TlsStream], Awaitable[T]],
    **options: Unpack[RaceOptions],
) -> T: ...


async def connect(
    host: str | Iterable[HostLike],
    port: int,
    deadline: int = -1,
    *,
    resolver: Resolver | None = None,
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
    """Connect to a name: look its addresses up, race them, return the first connection.

    Both families are looked up side by side. Connecting begins with the first IPv6 address; an IPv4 answer that comes
    first waits `RacePolicy.resolution_delay` for it. Addresses that come later join the race.

    Several names of one service, such as ``["db1.test", ("db2.test", 5433)]``, are looked up side by side too. All
    addresses of the first go before any of the second. A name that is still looked up holds later ones up by at most
    `RacePolicy.resolution_delay`, and its late addresses go before what has not started. One that is unknown fails
    alone. An endpoint of two names is tried once, for the first of them.

    Args:
      host: a name, or a numeric address, for which nothing is looked up; or an iterable of these, best first, each
        alone or in a pair with a port of its own. Of more than 64 the first 64 are looked up.
      port: 1 to 65535, for each host that has none of its own.
      deadline: milliseconds on the clock of `now()`, for lookups and race together; -1 for none. With 0 only a host
        that is numeric, or a resolver that answers at once, leads to a connection.
      resolver: whom to ask; None for the system, or the hostname resolver that this run has installed.
      policy: how lookups and race are run.
      sources: where connections may start, best first. A family that none of them has is not looked up, and nothing
        is when all of them have proxies that look names up.
      history: a memory of earlier connects, which this one reads and adds to: among addresses that RFC 6724 does not
        tell apart the faster one goes first, and what failed lately, or was slow, goes last; see `History`.
      address_filter: asked once for each address that a lookup finds, late ones too, and for a numeric host, however it
        is spelled; see `connectx`.
      observer: called with each `TraceEvent` as it happens.
      options: set on each socket before it connects.
      nat64: the way to IPv4 addresses from a network that has IPv6 only; see `Nat64`. A host that has only them, or is
        one, is then reached there too, without DNS64. None leaves them without a route.
      tls: connect over TLS, see `connectx`.
      server_hostname: the name that the server has to prove, whichever of the hosts it is. None for the one that the
        attempt is made for, as it is given in `host`: whatever it resolves to, that name is verified.
      establish: the caller's own test of a connection, see `connectx`.

    Returns:
      The winner's stream, its `report` complete, with `tls` a `TlsStream`; with `establish` what that returned, if not
      None.

    Raises:
      ResolveFailed: no name has an address that could be tried; `report` has the lookups, the text names each.
      ConnectFailed: every attempt failed, or `address_filter` allowed nothing (errno EACCES), see `connectx`.
        (`ResolveFailed` is one too.)
      DeadlineExceeded: the deadline came first; `report` has what was done by then.
      ImportError: a source has a proxy, and python-socks is not installed.
      TypeError: an argument has the wrong type, `establish` is not async, `address_filter` is, or there is a
        `server_hostname` and no `tls`.
      ValueError: the host is no possible name, there is no host, a port is out of range, the options ask for
        `fast_open` for a name without an `establish` or `tls`, the context is for servers, there are an
        `address_filter` and a proxy that looks names up (see `Source`) or `SocketOptions.multipath`, the delay is
        `Adaptive` without a `history`, or the deadline is below -1.

    See RFC 8305.
    """
    check_connect_port(port, host)
    hosts = check_hosts(host, port)
    until = to_seconds(deadline)
    check_race_options(policy, sources, address_filter, observer, options, establish, history=history, nat64=nat64)
    check_resolver(resolver)
    host_of = HostOfEndpoint(hosts[0].name if len(hosts) == 1 else None)
    if tls is not None or server_hostname is not None:
        establish = over_tls(tls, server_hostname, establish, host_of=host_of)
    literals = [each.literal for each in hosts if each.literal is not None]
    if len(literals) == len(hosts) and (nat64 is None or len(hosts) == 1):
        return await connectx(
            literals, deadline, policy=policy, sources=sources, history=history, address_filter=address_filter,
            observer=observer, options=options, nat64=nat64, establish=establish,
        )  # fmt: skip
    check_fast_open(options, establish)
    refusals = None if address_filter is None else Refusals(address_filter)
    proxied = None
    if sources != () and any_proxy(sources):
        from .proxies.names import ProxiedNames

        proxied = ProxiedNames(hosts, sources, refusals)
    factory = factory_installed()
    through = None
    if nat64 is not None:
        from .names.through_nat64 import Nat64OfCall

        asked_here = sources if proxied is None else proxied.asked_here
        through = Nat64OfCall(nat64, asked_here, factory=factory, host_of=host_of)
    plan = RacePlan(
        policy=policy, sources=sources if proxied is None else proxied.asked_here, options=options, establish=establish,
        observer=observer, history=history, until=until, started=current_time(), factory=factory,
        through_proxy=None if proxied is None else proxied.open_attempt, target=target_of(hosts), host_of=host_of,
    )  # fmt: skip
    addresses = AddressesOfHosts(hosts, resolver or SYSTEM_RESOLVER, plan, host_of, refusals, through)
    if proxied is not None:
        return await run_race(plan, candidates=proxied.beside(addresses))
    if until > plan.started and nat64 is None and goes_alone(establish, observer, None):
        return await ConnectByName(plan, addresses).run()
    return await run_race(plan, candidates=addresses)
