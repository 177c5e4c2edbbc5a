"""What the tests of adapters share: a web site that counts, and the clients that it is asked by."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from typing import Any

import attrs
import pytest
import trio

from trio_connect import Endpoint, tcp_listen

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def found(location: str) -> bytes:
    return b"HTTP/1.1 302 Found\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % location.encode()


@attrs.define(eq=False)
class Site:
    """Answers requests without a body on any kind of stream, and keeps connections open."""

    context: ssl.SSLContext | None = None
    answers: dict[str, bytes] = attrs.Factory(dict)
    """What is sent for a path, if not `OK`. With a path that begins with "/last" the connection ends."""
    connections: int = 0
    requests: list[str] = attrs.Factory(list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                if self.context is None:
                    await self.talk(stream)
                else:
                    # Without a close_notify: the connection beneath is closed, and this is forgotten.
                    await self.talk(trio.SSLStream(stream, self.context, server_side=True))

    async def talk(self, stream: trio.abc.Stream) -> None:
        received = b""
        while chunk := await stream.receive_some():
            received += chunk
            while b"\r\n\r\n" in received:
                head, _, received = received.partition(b"\r\n\r\n")
                path = head.split(b" ")[1].decode()
                self.requests.append(path)
                await stream.send_all(self.answers.get(path, OK))
                if path.startswith("/last"):
                    return


@contextlib.asynccontextmanager
async def serving(serve: Callable[[Any], Awaitable[None]], host: str = "127.0.0.1") -> AsyncIterator[Endpoint]:
    """Have a server at an address of this machine."""
    async with await tcp_listen((host, 0)) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.endpoint
        nursery.cancel_scope.cancel()


@attrs.frozen
class Client:
    """httpx2 or httpx, with the adapter for it."""

    name: str
    library: Any
    core: Any
    adapter: Any

    def __call__(self, *, timeout: float | None = 5.0, follow_redirects: bool = False, **options: Any) -> Any:
        """Make a client whose connections are ours."""
        transport = self.adapter.transport(**options)
        return self.library.AsyncClient(transport=transport, timeout=timeout, follow_redirects=follow_redirects)


CORES = {"httpx2": "httpcore2", "httpx": "httpcore"}


@pytest.fixture(params=CORES)
def client(request: pytest.FixtureRequest) -> Client:
    name: str = request.param
    library = pytest.importorskip(name, reason=f"NOT RUN: {name} is not installed")
    return Client(name, library, import_module(CORES[name]), import_module(f"trio_connect.adapters.{name}"))


@pytest.fixture(params=CORES.values())
def core(request: pytest.FixtureRequest) -> Any:
    """httpcore2 or httpcore."""
    name: str = request.param
    return pytest.importorskip(name, reason=f"NOT RUN: {name} is not installed")
