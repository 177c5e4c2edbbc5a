"""What a strict checker infers of outbound destinations and their decisions."""

from pathlib import Path
from typing import Literal, assert_type

from trio_connect import MailRecord, Source, StaticResolver, TcpStream, TlsStream
from trio_connect.outbound import (
    AddressState,
    Candidate,
    Connection,
    Destination,
    DestinationDelayed,
    DestinationFailed,
    DestinationRejected,
    FileStore,
    LeaseLost,
    LimitState,
    NotAdmitted,
    Outbound,
    OutboundEvent,
    OutboundPolicy,
    Overloaded,
    Permit,
    Rate,
    RateState,
    RedisStore,
    RequeueOne,
    RetryAt,
    Snapshot,
    SourceSuspended,
    TlsConnection,
    open_outbound,
)


async def greeting(stream: TcpStream) -> bytes:
    return await stream.receive_until(b"\r\n", 1_000)


async def greeting_over_tls(stream: TlsStream) -> bytes:
    return await stream.receive_until(b"\r\n", 1_000)


def observer(event: OutboundEvent) -> None:
    print(event.what, event.after.state)


async def candidates() -> list[Candidate]:
    return [Candidate(("192.0.2.1", 25), rate=Rate(60, per=60.0))]


async def use() -> None:
    resolver = StaticResolver({}, mx={"example.org": [MailRecord("mx.example.org", 10)]})
    async with open_outbound(
        policy=OutboundPolicy(failures_to_delay=3), sources=[Source("192.0.2.9")], resolver=resolver, observer=observer
    ) as out:
        dest = out.mx("example.org")
        async with dest.connect() as plain:
            assert_type(plain, Connection[None])
            assert_type(plain.stream, TcpStream)
        async with dest.connect(tls=True) as secured:
            assert_type(secured, TlsConnection[None])
            assert_type(secured.stream, TlsStream)
        async with dest.try_connect(tls=True, server_hostname="mx.test", establish=greeting_over_tls) as greeted:
            assert_type(greeted, TlsConnection[bytes])
        dest.connect(tls=True, establish=greeting)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        dest.connect(server_hostname="mx.test")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        async with dest.try_connect(establish=greeting) as connection:
            assert_type(connection, Connection[bytes])
            assert_type(connection.result, bytes)
            assert_type(connection.source, Source | None)
        async with out.destination("api", candidates=candidates).permit() as permit:
            assert_type(permit, Permit)
            assert_type(permit.candidate, Candidate | None)
        try:
            async with out.destination("web", candidates=[("192.0.2.1", 80)]).connect():
                pass
        except SourceSuspended as decision:
            assert_type(decision.source, Source | None)
        except NotAdmitted as decision:
            assert_type(decision.until, int)
        except DestinationFailed as failed:
            assert_type(failed.decision, NotAdmitted)
        out.destination("bad", candidates=["192.0.2.1"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def stores() -> None:
    async with open_outbound(store=None) as alone:
        assert_type(alone, Outbound)
    async with open_outbound(store=FileStore("limits")), open_outbound(store=FileStore(Path("limits"))):
        pass
    async with FileStore("limits") as in_a_file:
        assert_type(in_a_file, FileStore)
    async with RedisStore("redis://limits.example/0", ttl=10, strict=True) as in_a_redis:
        assert_type(in_a_redis, RedisStore)
    open_outbound(store="limits")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    FileStore(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RedisStore(Path("limits"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RedisStore("redis://limits.example", ttl="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    RedisStore("redis://limits.example", 10.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def permits(out: Outbound) -> None:
    dest = out.destination("api")
    assert_type(dest, Destination)
    try:
        async with dest.permit(-1) as permit:
            assert_type(permit.source, Source | None)
            permit.failed("500")
            permit.overloaded(2, "Retry-After")
            permit.overloaded("soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except LeaseLost as lost:
        assert_type(lost.destination, str)
    except (RetryAt, RequeueOne, DestinationDelayed, DestinationRejected) as decision:
        assert_type(decision.cause, str)
        assert_type(decision.seconds, float)
    dest.permit(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    dest.suspend(-1)
    raise Overloaded(2.5)


def what_is_known(dest: Destination) -> None:
    snapshot = dest.snapshot()
    assert_type(snapshot, Snapshot)
    assert_type(snapshot.state, Literal["closed", "open", "probing"])
    assert_type(snapshot.limits, tuple[LimitState, ...])
    assert_type(snapshot.rates, tuple[RateState, ...])
    assert_type(snapshot.addresses, tuple[AddressState, ...])
    dest.reset()
