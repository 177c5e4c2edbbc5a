"""What a strict checker infers of the adapters, and which options it refuses."""

from typing import assert_type

import httpcore
import httpcore2
import httpx
import httpx2
from anyio.abc import ByteStream, ByteStreamConnectable
from opentelemetry.trace import NoOpTracerProvider

from trio_connect import (
    ConnectFailed,
    DeadlineExceeded,
    NetworkFilter,
    Observer,
    RacePolicy,
    Source,
    StaticResolver,
    TcpStream,
    connectx,
    sctp,
)
from trio_connect.adapters import anyio, failure_of
from trio_connect.adapters import httpx as for_httpx
from trio_connect.adapters import httpx2 as for_httpx2
from trio_connect.adapters.httpcore import Backend
from trio_connect.adapters.otel import trace_events


def transports() -> None:
    public = NetworkFilter.public_only()
    names = StaticResolver({})
    stock = for_httpx2.transport(address_filter=public, resolver=names, verify=False, limits=httpx2.Limits(), retries=1)
    assert_type(stock, httpx2.AsyncHTTPTransport)
    older = for_httpx.transport(policy=RacePolicy(), sources=[Source("192.0.2.9")], limits=httpx.Limits(), uds=None)
    assert_type(older, httpx.AsyncHTTPTransport)
    for_httpx2.transport(tls=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    for_httpx2.transport(address_filter="public")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for_httpx2.transport(limits=httpx.Limits())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def pools() -> None:
    httpcore2.AsyncConnectionPool(network_backend=Backend(address_filter=NetworkFilter.public_only()))
    httpcore.AsyncConnectionPool(network_backend=Backend())
    Backend(server_hostname="api.test")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def anybody(connectable: ByteStreamConnectable) -> ByteStream:
    return await connectable.connect()


async def connectables(stream: TcpStream) -> None:
    await anybody(anyio.Connectable("api.test", 443, tls=True))
    assert_type(await anyio.Connectable("api.test", 443).connect(), anyio.Stream)
    assert_type(failure_of(OSError()), ConnectFailed | DeadlineExceeded | None)
    anyio.Stream(stream)


async def observers() -> None:
    assert_type(trace_events(tracer_provider=NoOpTracerProvider()), Observer)
    await connectx([("192.0.2.1", 80)], observer=trace_events())
    await sctp.connectx([("192.0.2.1", 80)], observer=trace_events())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    trace_events(meter_provider=NoOpTracerProvider())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    trace_events(NoOpTracerProvider())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
