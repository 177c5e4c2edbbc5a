"""A small proxy that speaks SOCKS5 and CONNECT, for the virtual network and for loopback.

It is written from RFC 1928, RFC 1929 and RFC 9110 section 9.3.6, and shares no code with the client.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import attrs
import trio

from tests.support.faults import own_host
from trio_connect import Endpoint, TcpStream, tcp_listen
from trio_connect.testing import echo

Behind = Callable[[Any, str, int], Awaitable[None]]
"""What happens on the tunnel: its stream, and the host and the port that were asked for."""


async def echoing(stream: Any, _host: str, _port: int) -> None:
    await echo(stream)


async def relay(stream: Any, host: str, port: int) -> None:
    """Connect to the target, and pass bytes on in both directions."""
    async with await trio.open_tcp_stream(host, port) as target, trio.open_nursery() as nursery:

        async def pump(source: Any, sink: Any) -> None:
            async for chunk in source:
                await sink.send_all(chunk)
            await sink.send_eof()

        nursery.start_soon(pump, stream, target)
        await pump(target, stream)


@attrs.define
class ProxyServer:
    """A proxy, and what it was asked."""

    credentials: tuple[str, str] | None = None
    code: int = 0
    """What it answers a SOCKS5 request with, RFC 1928 section 6."""
    status: str = "200 Connection established"
    """What it answers a CONNECT with; perhaps with interim answers before."""
    glued: bytes = b""
    """What the server behind it has said by then, sent in one write with the answer."""
    trickle: bool = False
    """Whether an answer goes out byte by byte."""
    bound: bytes = b"\x01\x00\x00\x00\x00"
    """The address that a SOCKS5 answer names, with its type; the port follows."""
    behind: Behind = echoing
    asked: list[tuple[str, int]] = attrs.Factory(list[tuple[str, int]])
    """The hosts and ports that it was asked for, in the spelling of the request."""

    async def socks5(self, stream: Any) -> None:
        """Serve one connection."""
        with contextlib.suppress(trio.BrokenResourceError, EOFError):
            await self._socks5(_Reader(stream), stream)
        await stream.aclose()

    async def http(self, stream: Any) -> None:
        """Serve one connection."""
        with contextlib.suppress(trio.BrokenResourceError, EOFError):
            await self._http(_Reader(stream), stream)
        await stream.aclose()

    async def _socks5(self, reader: _Reader, stream: Any) -> None:
        version, count = await reader.exactly(2)
        methods = await reader.exactly(count)
        assert version == 5
        wanted = 0 if self.credentials is None else 2
        if wanted not in methods:
            await stream.send_all(b"\x05\xff")
            return
        await self._send(stream, bytes([5, wanted]))
        if self.credentials is not None:
            version, length = await reader.exactly(2)
            user = await reader.exactly(length)
            password = await reader.exactly((await reader.exactly(1))[0])
            is_good = (user.decode(), password.decode()) == self.credentials
            await self._send(stream, bytes([1, not is_good]))
            if not is_good:
                return
        version, command, reserved, kind = await reader.exactly(4)
        assert (version, command, reserved) == (5, 1, 0)
        if kind == 3:
            host = (await reader.exactly((await reader.exactly(1))[0])).decode("ascii")
        else:
            host = str(ipaddress.ip_address(await reader.exactly({1: 4, 4: 16}[kind])))
        port = int.from_bytes(await reader.exactly(2), "big")
        self.asked.append((host, port))
        await self._send(stream, bytes([5, self.code, 0]) + self.bound + bytes(2), self.glued)
        if self.code == 0:
            await self.behind(stream, host, port)

    async def _http(self, reader: _Reader, stream: Any) -> None:
        head = await reader.until(b"\r\n\r\n")
        request, *lines = head.decode("latin-1").split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        method, target, version = request.split(" ")
        assert (method, version, fields["Host"]) == ("CONNECT", "HTTP/1.1", target)
        host, _, port = target.rpartition(":")
        self.asked.append((host.removeprefix("[").removesuffix("]"), int(port)))
        status = self.status
        if self.credentials is not None:
            token = base64.b64encode(":".join(self.credentials).encode("latin-1")).decode()
            if fields.get("Proxy-Authorization") != f"Basic {token}":
                status = "407 Proxy Authentication Required"
        # The fields of a 2xx answer to CONNECT say nothing of what follows, RFC 9110 section 9.3.6.
        answer = f"HTTP/1.1 {status}\r\nVia: 1.1 proxy\r\nContent-Length: 0\r\n\r\n".encode()
        await self._send(stream, answer, self.glued)
        if status.rpartition("HTTP/1.1 ")[2].startswith("2"):
            await self.behind(stream, *self.asked[-1])

    async def _send(self, stream: Any, answer: bytes, glued: bytes = b"") -> None:
        if not self.trickle:
            await stream.send_all(answer + glued)
            return
        for byte in answer + glued:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.001)


class _Reader:
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            data += await self._some(n - len(data))
        return data

    async def until(self, end: bytes) -> bytes:
        data = b""
        while not data.endswith(end):
            data += await self._some(1)
        return data.removesuffix(end)

    async def _some(self, n: int) -> bytes:
        data: bytes = await self._stream.receive_some(n)
        if not data:
            raise EOFError
        return data


@contextlib.asynccontextmanager
async def serving(serve: Callable[[Any], Awaitable[None]]) -> AsyncGenerator[Endpoint, None]:
    """Serve on loopback, at an address of its own."""
    async with await tcp_listen((own_host(), 0)) as listener, trio.open_nursery() as nursery:

        async def handle(stream: TcpStream) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await serve(stream)
            await stream.aclose()

        nursery.start_soon(trio.serve_listeners, handle, [listener])
        yield listener.endpoint
        nursery.cancel_scope.cancel()
