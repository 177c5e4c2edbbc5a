"""What a strict checker infers of connects and their errors."""

from collections.abc import Sequence
from typing import assert_type

from trio_connect import (
    AddressFilter,
    Attempt,
    ConnectFailed,
    Endpoint,
    NetworkFilter,
    RaceOptions,
    TcpStream,
    connect,
    connectx,
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


def allow(endpoint: Endpoint) -> bool:
    return endpoint.port == 443


async def allow_later(endpoint: Endpoint) -> bool:
    return endpoint.port == 443


async def filters(endpoints: Sequence[Endpoint]) -> None:
    chosen: AddressFilter = NetworkFilter.public_only()
    assert_type(chosen(endpoints[0]), bool)
    options = RaceOptions(address_filter=allow)
    assert_type(await connectx(endpoints, **options), TcpStream)
    assert_type(await connect("api.test", 443, address_filter=chosen), TcpStream)
    await connectx(endpoints, address_filter=allow_later)  # type: ignore[arg-type]


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
