"""What a strict checker infers of connects and their errors."""

import ssl
from collections.abc import AsyncIterator, Sequence
from ipaddress import IPv6Network
from typing import Unpack, assert_type

from trio_connect import (
    Adaptive,
    AddressFilter,
    Attempt,
    ConnectFailed,
    DeadlineExceeded,
    DnsResolver,
    Endpoint,
    History,
    HostLike,
    IncompleteRead,
    MailRecord,
    MailResolver,
    Nat64,
    NetworkFilter,
    RaceOptions,
    RacePolicy,
    ServiceRecord,
    ServiceResolver,
    Source,
    SystemResolver,
    TcpStream,
    TlsStream,
    connect,
    connect_each,
    connect_srv,
    connectx,
    now,
    order_endpoints,
    resolve,
    tcp_connect,
    unix_connect,
)


async def greeting(stream: TcpStream) -> bytes:
    return await stream.receive_until(b"\r\n", 1_000)


async def check(stream: TcpStream) -> None:
    await stream.receive_until(b"\r\n", 1_000)


def not_async(stream: TcpStream) -> bool:
    return stream.fileno() >= 0


async def results(endpoints: Sequence[Endpoint]) -> None:
    assert_type(await connectx(endpoints), TcpStream)
    assert_type(await connectx(endpoints, establish=greeting), bytes)
    assert_type(await connectx(endpoints, establish=check), TcpStream)
    assert_type(await connect("api.test", 443, establish=greeting), bytes)
    assert_type(await connect("api.test", 443, establish=check), TcpStream)
    await connectx(endpoints, establish=not_async)  # type: ignore[arg-type]


async def by_service(resolver: DnsResolver, context: ssl.SSLContext) -> None:
    assert_type(await connect_srv("_x._tcp", "a.test"), TcpStream)
    assert_type(await connect_srv("_x._tcp", "a.test", establish=check), TcpStream)
    assert_type(await connect_srv("_x._tcp", "a.test", establish=greeting, resolver=resolver), bytes)
    assert_type(await connect_srv("_x._tcp", "a.test", tls=context, policy=RacePolicy()), TlsStream)
    await connect_srv("_x._tcp", "a.test", server_hostname="a.test")  # type: ignore[call-overload]
    await connect_srv("_x._tcp", "a.test", resolver=SystemResolver())  # type: ignore[call-overload]
    services: ServiceResolver = resolver
    mail: MailResolver = resolver
    assert_type(await services.services("a.test", 443), Sequence[ServiceRecord])
    assert_type(await mail.mx("a.test"), Sequence[MailRecord])
    async with DnsResolver(["192.0.2.53"], services="https", alpn=("h2",)) as entered:
        assert_type(entered, DnsResolver)
        assert_type(await connect("a.test", 443, resolver=entered), TcpStream)


async def later() -> AsyncIterator[tuple[str, int]]:
    yield "192.0.2.1", 443


async def many_peers(endpoints: Sequence[Endpoint]) -> None:
    async with connect_each(endpoints, limit=5) as each:
        async for endpoint, outcome in each:
            assert_type(endpoint, Endpoint)
            assert_type(outcome, TcpStream | OSError)
            if isinstance(outcome, OSError):
                assert_type(outcome.errno, int | None)
            else:
                assert_type(outcome, TcpStream)
    connect_each(later(), attempt_timeout=1.5)
    connect_each([("192.0.2.1", 443)])
    streams: list[TcpStream] = []
    errors: dict[Endpoint, OSError] = {}
    async with connect_each(endpoints) as each:
        async for endpoint, outcome in each:
            match outcome:
                case TcpStream():
                    streams.append(outcome)
                case DeadlineExceeded():
                    assert_type(outcome.transferred, int)
                case _:
                    errors[endpoint] = outcome
    connect_each(["192.0.2.1"])  # type: ignore[list-item]


async def several_names(names: list[str], pairs: tuple[tuple[str, int], ...], context: ssl.SSLContext) -> None:
    assert_type(await connect(["db1.test", ("db2.test", 5433)], 5432), TcpStream)
    assert_type(await connect(names, 5432, establish=greeting), bytes)
    assert_type(await connect(pairs, 5432, tls=context), TlsStream)
    assert_type((await connect(names, 5432)).report.attempts[0].host, str | None)
    await connect([["db1.test"]], 5432)  # type: ignore[list-item]
    await connect([("db1.test", "5432")], 5432)  # type: ignore[list-item]
    first: HostLike = names[0]
    second: HostLike = ("db2.test", 5433)
    assert_type(await connect([first, second], 5432, now() + 1_000), TcpStream)
    assert_type(await connect(names, 5432, tls=True, establish=greeting_over_tls), bytes)
    assert_type(await connect(names, 5432, tls=None), TcpStream)
    await connect(names, 5432, tls=context, establish=greeting)  # type: ignore[arg-type]


def allow(endpoint: Endpoint) -> bool:
    return endpoint.port == 443


async def allow_later(endpoint: Endpoint) -> bool:
    return endpoint.port == 443


async def filters(endpoints: Sequence[Endpoint]) -> None:
    chosen: AddressFilter = NetworkFilter.public_only()
    assert_type(chosen(endpoints[0]), bool)
    options = RaceOptions(address_filter=allow)
    assert_type(await connectx(endpoints, **options), TcpStream | TlsStream)  # there may be tls among them
    assert_type(await connect("api.test", 443, address_filter=chosen), TcpStream)
    await connectx(endpoints, address_filter=allow_later)  # type: ignore[arg-type]


async def through_a_nat64(endpoints: Sequence[Endpoint]) -> None:
    nat64 = Nat64(["64:ff9b::/96"])
    assert_type(nat64.prefixes, tuple[IPv6Network, ...])
    assert_type(await connect("192.0.2.1", 443, nat64=nat64), TcpStream)
    assert_type(await connectx(endpoints, nat64=Nat64(resolver=SystemResolver())), TcpStream)
    assert_type(await resolve("api.test", 443, nat64=nat64), tuple[Endpoint, ...])
    await connectx(endpoints, nat64="64:ff9b::/96")  # type: ignore[call-overload]


async def greeting_over_tls(stream: TlsStream) -> bytes:
    return await stream.receive_until(b"\r\n", 1_000)


async def check_over_tls(stream: TlsStream) -> None:
    await stream.receive_until(b"\r\n", 1_000)


async def check_any(stream: TcpStream | TlsStream) -> None:
    await stream.receive_until(b"\r\n", 1_000)


async def results_over_tls(endpoints: Sequence[Endpoint], context: ssl.SSLContext) -> None:
    assert_type(await connectx(endpoints, tls=True), TlsStream)
    assert_type(await connectx(endpoints, tls=context, server_hostname="api.test"), TlsStream)
    assert_type(await connectx(endpoints, tls=context, establish=greeting_over_tls), bytes)
    assert_type(await connectx(endpoints, tls=context, establish=check_over_tls), TlsStream)
    assert_type(await connect("api.test", 443, tls=True), TlsStream)
    assert_type(await connect("api.test", 443, tls=context, establish=greeting_over_tls), bytes)
    assert_type(await connect("api.test", 443, tls=context, establish=check_over_tls), TlsStream)
    maybe: ssl.SSLContext | None = context if endpoints else None
    assert_type(await connectx(endpoints, tls=maybe), TcpStream | TlsStream)
    assert_type(await connect("api.test", 443, tls=maybe), TcpStream | TlsStream)
    assert_type(await connect("api.test", 443, tls=maybe, establish=check_any), TcpStream | TlsStream)
    await connect("api.test", 443, tls=maybe, establish=check)  # type: ignore[arg-type]
    await connectx(endpoints, tls=context, establish=check)  # type: ignore[arg-type]
    await connectx(endpoints, tls=False)  # type: ignore[call-overload]
    stream = await connect("api.test", 443, tls=True)
    assert_type(stream.tcp, TcpStream)
    assert_type(stream.alpn, str | None)
    tcp = await connect("api.test", 25)
    assert_type(await tcp.start_tls(context), TlsStream)


async def with_a_history(endpoints: Sequence[Endpoint], history: History) -> None:
    assert_type(await connectx(endpoints, history=history.partition("user")), TcpStream)
    assert_type(await connect("api.test", 443, history=None), TcpStream)
    assert_type(order_endpoints(endpoints, history=history), tuple[Endpoint, ...])
    assert_type(History.load("history.json", size=10, hedge_budget=None), History)
    History.load("history.json", sise=10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RacePolicy(attempt_delay=Adaptive(maximum=1.0))
    stream = await connectx(endpoints, history=history, policy=RacePolicy(attempt_delay=Adaptive()))
    for attempt in stream.report.attempts:
        assert_type(attempt.delay, float | None)
        assert_type(attempt.history, str | None)


async def passed_on(endpoints: Sequence[Endpoint], **options: Unpack[RaceOptions]) -> TcpStream | TlsStream:
    return await connectx(endpoints, **options)


async def errors(endpoints: Sequence[Endpoint]) -> None:
    try:
        await connectx(endpoints)
    except ConnectFailed as error:
        assert_type(error.errors, tuple[Exception, ...])
        assert_type(error.attempts, tuple[Attempt, ...])
        for cause in error.errors:
            if isinstance(cause, OSError):
                assert_type(cause.errno, int | None)
        for attempt in error.attempts:
            assert_type(attempt.reason, str | None)


def proxies() -> None:
    source = Source(proxy="socks5h://user:word@proxy.test:1080", proxy_resolves=True)
    assert_type(source.proxy_resolves, bool)
    assert_type(str(source.proxy), str)
    Source(proxy=1080)  # type: ignore[arg-type]


async def exchanges(stream: TcpStream, context: ssl.SSLContext) -> None:
    assert_type(await stream.exchange(b"PING", 4), bytes)
    assert_type(await stream.exchange([b"length", bytearray(b"body")], 4, now() + 1_000), bytes)
    assert_type(await (await unix_connect("path")).exchange(memoryview(b"PING"), 4), bytes)
    assert_type(await (await stream.start_tls(context)).exchange(b"PING", 4), bytes)
    assert_type(stream.take(4), bytes | None)
    assert_type(await (await tcp_connect(("192.0.2.1", 443), now() + 1_000)).fill(), int)
    await stream.exchange("PING", 4)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await stream.exchange(b"PING", None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    try:
        await stream.receive_exactly(4)
    except IncompleteRead as error:
        assert_type(error.expected, int | None)
        assert_type(error.available, int)
