"""What a strict checker infers of connects and their errors."""

from collections.abc import Sequence
from typing import assert_type

from trio_connect import Attempt, ConnectFailed, Endpoint, TcpStream, connect, connectx


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
