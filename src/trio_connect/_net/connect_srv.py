"""`connect_srv`: to whichever host of a domain offers a service, by its SRV records (RFC 2782)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, overload

from trio import current_time

from .._deadline import to_seconds
from .._options import DEFAULT_OPTIONS, SocketOptions
from .._policy import DEFAULT_POLICY, RacePolicy
from .._text import shown
from .host_of import HostOfEndpoint
from .names.hosts import Host, check_connect_port
from .names.resolve import SrvResolver, check_host, numeric
from .names.service_hosts import HostsOfService
from .race.candidates import Refusals
from .race.driver import run_race
from .race.establishing import over_tls
from .race.plan import RacePlan, TcpRaceOptions, any_proxy, check_fast_open, check_race_options
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

_RANDOM: Final = Random()  # noqa: S311 - it spreads clients over servers of one priority


@overload
async def connect_srv(
    service: str,
    name: str,
    deadline: int = -1,
    *,
    port: int | None = None,
    resolver: SrvResolver | None = None,
    random: Random | None = None,
    establish: Callable[[TcpStream], Awaitable[None]] | None = None,
    tls: None = None,
    server_hostname: None = None,
    **options: Unpack[TcpRaceOptions],
) -> TcpStream: ...


@overload
async def connect_srv(
    service: str,
    name: str,
    deadline: int = -1,
    *,
    port: int | None = None,
    resolver: SrvResolver | None = None,
    random: Random | None = None,
    establish: Callable[[TcpStream], Awaitable[T]],
    tls: None = None,
    server_hostname: None = None,
    **options: Unpack[TcpRaceOptions],
) -> T: ...


@overload
async def connect_srv(
    service: str,
    name: str,
    deadline: int = -1,
    *,
    port: int | None = None,
    resolver: SrvResolver | None = None,
    random: Random | None = None,
    establish: Callable[[TlsStream], Awaitable[None]] | None = None,
    tls: ssl.SSLContext | Literal[True],
    server_hostname: str | None = None,
    **options: Unpack[TcpRaceOptions],
) -> TlsStream: ...


@overload
async def connect_srv(
    service: str,
    name: str,
    deadline: int = -1,
    *,
    port: int | None = None,
    resolver: SrvResolver | None = None,
    random: Random | None = None,
    establish: Callable[[TlsStream], Awaitable[T]],
    tls: ssl.SSLContext | Literal[True],
    server_hostname: str | None = None,
    **options: Unpack[TcpRaceOptions],
) -> T: ...


async def connect_srv(
    service: str,
    name: str,
    deadline: int = -1,
    *,
    port: int | None = None,
    resolver: SrvResolver | None = None,
    random: Random | None = None,
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
    """Connect to a service of a domain: look its SRV records up, then race the addresses of the hosts that they name.

    The hosts are tried as `connect` tries several names: lower priorities first, and those of one priority in an order
    drawn by their weights.

    Args:
      service: service and protocol, such as ``_xmpp-client._tcp``.
      name: the domain.
      deadline: milliseconds on the clock of `now()`, for lookups and race together; -1 for none.
      port: where the service is at the domain itself, when that has no SRV records; None when it is not there then.
      resolver: whom to ask; None for a `DnsResolver` that such calls share.
      random: where the draw comes from; None for a generator of the module's own.
      policy: see `connect`.
      sources: see `connect`; not with a proxy.
      history: see `connect`.
      address_filter: see `connect`.
      observer: see `connect`.
      options: see `connect`.
      nat64: see `connect`.
      tls: see `connect`.
      server_hostname: the name that the server has to prove; None for `name`, and never the host that a record names:
        records can be forged (RFC 6125 section 6.2.1).
      establish: see `connect`.

    Returns:
      See `connect`.

    Raises:
      ResolveFailed: the lookup of the records failed, none was found, or none leads to an address; or the service is
        not offered (target "."). `report` has the lookups.
      ConnectFailed: see `connect`.
      DeadlineExceeded: see `connect`.
      ImportError: there is no resolver given, and dnspython is missing.
      TypeError: an argument has the wrong type, or the resolver has no method `srv`; see also `connect`.
      ValueError: service and name are no possible name, or a source has a proxy; see also `connect`.

    See RFC 2782.
    """
    question = _question(service, name)
    otherwise = None if port is None else Host(name, check_connect_port(port, name), None)
    until = to_seconds(deadline)
    check_race_options(policy, sources, address_filter, observer, options, establish, history=history, nat64=nat64)
    if sources != () and any_proxy(sources):
        raise ValueError("connect_srv goes through no proxy: look the records up, and give connect the hosts")
    if random is not None and not isinstance(random, Random):
        raise TypeError(f"random must be a random.Random or None, got {shown(random)}")
    if tls is not None or server_hostname is not None:
        establish = over_tls(tls, name if server_hostname is None else server_hostname, establish)
    check_fast_open(options, establish)
    host_of = HostOfEndpoint()
    factory = factory_installed()
    through = None
    if nat64 is not None:
        from .names.through_nat64 import Nat64OfCall

        through = Nat64OfCall(nat64, sources, factory=factory, host_of=host_of)
    plan = RacePlan(
        policy=policy, sources=sources, options=options, establish=establish, observer=observer, history=history,
        until=until, started=current_time(), factory=factory, target=question, host_of=host_of,
    )  # fmt: skip
    refusals = None if address_filter is None else Refusals(address_filter)
    candidates = HostsOfService(
        question, otherwise, _srv_resolver(resolver), random or _RANDOM, plan, host_of, refusals, through
    )  # fmt: skip
    return await run_race(plan, candidates=candidates)


def _question(service: object, name: object) -> str:
    for text in (service, name):
        if not isinstance(text, str):
            raise TypeError(f"service and name are str, got {shown(text)}")
    labels = str(service).split(".")
    if len(labels) != 2 or not all(label.startswith("_") and len(label) > 1 for label in labels):
        raise ValueError(f'a service is its name and its protocol, such as "_xmpp-client._tcp", got {shown(service)}')
    if numeric(check_host(name)) is not None:
        raise ValueError(f"an address has no SRV records, got {shown(name)}")
    return check_host(f"{service}.{name}")


def _srv_resolver(resolver: object) -> SrvResolver:
    if resolver is None:
        # Loaded only where it is used: a resolver of the caller's own may need no dnspython.
        from .names.dns import default_dns_resolver

        return default_dns_resolver()
    if not isinstance(resolver, SrvResolver):
        raise TypeError(f"SRV records need a resolver with an async method srv(name), got {shown(resolver)}")
    return resolver
