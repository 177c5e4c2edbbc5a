"""`adapters.anyio`: a connectable and a stream for what is written for anyio."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from functools import partial
from importlib import import_module
from socket import AF_INET, AF_INET6
from typing import Any

import pytest
import trio
import trio.testing

from tests.adapters.kit import serving
from tests.net.racing import Stopwatch, dead, virtual
from tests.support import tls
from tests.support.leaks import no_leaks
from tests.support.proxies import ProxyServer
from tests.support.sockets import Sockets
from tests.support.streams import arrival
from tests.support.sweep import repeated, sweep
from trio_connect import ConnectFailed, Endpoint, NetworkFilter, Source, TcpStream, TlsStream, connectx
from trio_connect.adapters import failure_of
from trio_connect.testing import VirtualNetwork, echo

anyio = pytest.importorskip("anyio", reason="NOT RUN: anyio is not installed")
adapter = import_module("trio_connect.adapters.anyio")
Connectable, Stream = adapter.Connectable, adapter.Stream

V6, V4 = "2001:db8::1", "192.0.2.1"


async def shout(stream: TcpStream) -> None:
    """Send everything back in capitals, then the end."""
    async with stream:
        while data := await stream.receive_some():
            await stream.send_all(data.upper())


async def shout_over_tls(stream: Any) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async with trio.SSLStream(stream, tls.contexts().server, server_side=True) as secured:
            while data := await secured.receive_some():
                await secured.send_all(data.upper())


# --- connecting -------------------------------------------------------------------------------------------------------


@virtual
async def test_a_connectable_races(net: VirtualNetwork) -> None:
    dead(net, V6)
    net.host(V4).listen(80, echo, rtt=0.020)
    net.dns("api.test", aaaa=[V6], a=[V4])
    time = Stopwatch()
    connectable = Connectable("api.test", 80)
    assert isinstance(connectable, anyio.abc.ByteStreamConnectable)
    assert repr(connectable) == "Connectable('api.test', 80)"
    async with await connectable.connect() as stream:
        assert time.ms == 270
        assert isinstance(stream, anyio.abc.ByteStream)
        assert [attempt.outcome for attempt in stream.stream.report.attempts] == ["lost", "won"]


@virtual
async def test_over_tls_the_race_is_won_by_the_handshake(net: VirtualNetwork) -> None:
    net.host(V6).silent(443)
    net.host(V4).listen(443, shout_over_tls)
    net.dns(tls.NAME, aaaa=[V6], a=[V4])
    connectable = Connectable(tls.NAME, 443, tls=tls.contexts().client)
    async with await anyio.as_connectable(connectable).connect() as stream:
        assert isinstance(stream.stream, TlsStream)
        await stream.send(b"hello")
        assert await stream.receive() == b"HELLO"
        attribute = anyio.streams.tls.TLSAttribute
        assert stream.extra(attribute.tls_version) == "TLSv1.3"
        assert stream.extra(attribute.alpn_protocol) is None
        assert stream.extra(attribute.server_side) is False
        assert stream.extra(attribute.standard_compatible) is True
        assert stream.extra(attribute.cipher) == stream.stream.cipher
        assert ("DNS", tls.NAME) in stream.extra(attribute.peer_certificate)["subjectAltName"]
        assert isinstance(stream.extra(attribute.peer_certificate_binary), bytes)
        assert stream.extra(attribute.channel_binding_tls_unique) is not None
        with pytest.raises(NotImplementedError, match="no half-close over TLS"):
            await stream.send_eof()


@virtual
async def test_several_names_also_when_it_connects_again(net: VirtualNetwork) -> None:
    net.host(V4).listen(5433, echo)
    net.dns("db1.test", [])
    net.dns("db2.test", a=[V4])
    connectable = Connectable(iter(["db1.test", ("db2.test", 5433)]), 5432)
    for _ in range(2):
        async with await connectable.connect() as stream:
            assert stream.extra(anyio.abc.SocketAttribute.remote_address) == (V4, 5433)


@pytest.mark.parametrize(
    ("host", "text"),
    [(5, "got 5"), (b"db1.test", "got b'db1.test'"), ({"db1.test": 5432}, "got a mapping"), (["db1.test", 5], "got 5")],
)
async def test_hosts_that_are_none_are_refused_in_the_words_of_connect(host: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        await Connectable(host, 80).connect()


async def test_of_hosts_without_an_end_those_are_read_that_can_be_tried() -> None:
    assert len(Connectable((f"db{number}.test" for number in itertools.count()), 80).host) == 64


@virtual
async def test_under_the_tls_of_anyio(net: VirtualNetwork) -> None:
    net.host(V4).listen(443, shout_over_tls)
    net.dns(tls.NAME, a=[V4])
    secured = anyio.streams.tls.TLSConnectable(
        Connectable(tls.NAME, 443), hostname=tls.NAME, ssl_context=tls.contexts().client, standard_compatible=False
    )
    async with await secured.connect() as stream:
        await stream.send(b"hello")
        assert await stream.receive() == b"HELLO"
        assert stream.extra(anyio.abc.SocketAttribute.remote_address) == (V4, 443)


@virtual
async def test_a_proxy_that_looks_the_name_up(net: VirtualNetwork) -> None:
    pytest.importorskip("python_socks", reason="NOT RUN: python-socks is not installed")
    net.host(V4).listen(1080, ProxyServer().socks5)
    source = Source(proxy=f"socks5h://{V4}:1080")
    async with await Connectable("api.test", 80, sources=[source]).connect() as stream:
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        assert stream.extra(anyio.abc.SocketAttribute.remote_address) == ("api.test", 80)


@virtual
async def test_failures_are_anyios(net: VirtualNetwork) -> None:
    net.host(V4).refuse()
    net.dns("api.test", a=[V4])
    with pytest.raises(anyio.ConnectionFailed, match=r"the only attempt to api\.test:80 .*refused: 1") as caught:
        await Connectable("api.test", 80).connect()
    assert (caught.value.errno, type(failure_of(caught.value))) == (111, ConnectFailed)
    with pytest.raises(anyio.ConnectionFailed, match="not allowed by the address filter"):
        await Connectable(V4, 80, address_filter=NetworkFilter.public_only()).connect()
    net.host(V6).listen(443, partial(shout_over_tls))
    net.dns("other.test", aaaa=[V6])
    with pytest.raises(anyio.ConnectionFailed, match="Hostname mismatch"):
        await Connectable("other.test", 443, tls=tls.contexts().client).connect()
    dead(net, V4)
    time = Stopwatch()
    with pytest.raises(TimeoutError), anyio.fail_after(1.5):
        await Connectable(V4, 80).connect()
    assert time.ms == 1500
    with pytest.raises(ValueError, match="port 0"):
        await Connectable(V4, 0).connect()


def test_without_trio_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="on Trio only"):
        asyncio.run(Connectable("127.0.0.1", 80).connect())


# --- the stream -------------------------------------------------------------------------------------------------------


async def test_a_stream_over_loopback(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), serving(shout) as endpoint:
        stream = await Connectable("127.0.0.1", endpoint.port).connect()
        await stream.send(b"hello")
        assert (await stream.receive(2), await stream.receive()) == (b"HE", b"LLO")
        await stream.send_eof()
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send_eof()


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", AF_INET), ("::1", AF_INET6)])
async def test_extra_attributes(host: str, family: int) -> None:
    async with serving(shout, host) as endpoint, Stream(await connectx([endpoint])) as stream:
        attribute = anyio.abc.SocketAttribute
        assert stream.extra(attribute.family) == family
        assert stream.extra(attribute.remote_address) == (host, endpoint.port)
        assert stream.extra(attribute.remote_port) == endpoint.port
        assert stream.extra(attribute.local_address) == (host, stream.stream.local.port)
        assert stream.extra(attribute.local_port) == stream.stream.local.port
        with pytest.raises(anyio.TypedAttributeLookupError):
            stream.extra(attribute.raw_socket)
        closed = Stream(await connectx([endpoint]))
        await closed.aclose()
        for local in (attribute.local_address, attribute.local_port):
            with pytest.raises(anyio.ClosedResourceError, match=f"the stream with .*{endpoint.port} is closed"):
                closed.extra(local)


async def test_a_busy_and_a_broken_stream() -> None:
    async def reset(stream: TcpStream) -> None:
        assert await stream.receive_exactly(2) == b"go"
        stream.abort()

    async with serving(reset) as endpoint, Stream(await connectx([endpoint])) as stream:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError, match="already reading from"):
                await stream.receive()
            nursery.cancel_scope.cancel()
        await stream.send(b"go")
        with pytest.raises(anyio.BrokenResourceError, match=str(endpoint)):
            await stream.receive()


async def test_cancelled_at_every_step(sockets: Sockets) -> None:
    @contextlib.asynccontextmanager
    async def secured() -> AsyncIterator[Endpoint]:
        async with serving(shout_over_tls) as endpoint:
            yield endpoint

    async def begin(endpoint: Endpoint) -> Any:
        connectable = Connectable("127.0.0.1", endpoint.port, tls=tls.contexts().client)
        return (await connectable.connect()).stream

    summary = await sweep(begin, environment=secured, counters=sockets.counters, inside=False)
    assert summary.endings("before")[1]["cancelled"] == repeated(1)


@pytest.mark.parametrize("operation", ["receive", "send", "send_eof", "aclose"])
async def test_a_stream_cancelled_at_every_step(sockets: Sockets, operation: str) -> None:
    @contextlib.asynccontextmanager
    async def connected() -> AsyncIterator[Any]:
        async with serving(shout) as endpoint, await Connectable("127.0.0.1", endpoint.port).connect() as stream:
            await stream.send(b"hello")
            await arrival(stream.stream.socket)  # of the answer: the server is at work, which a census counts
            yield stream

    async def call(stream: Any) -> None:
        await getattr(stream, operation)(*([b"more"] if operation == "send" else []))

    await sweep(call, environment=connected, counters=sockets.counters)
