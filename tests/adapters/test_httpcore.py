"""`adapters.httpcore`: one back end for httpcore2 and httpcore 1, each with its own exceptions."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import trio

from tests.adapters.kit import Site, serving
from tests.net.racing import Stopwatch, dead, virtual
from tests.support import tls
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.sweep import repeated, sweep
from trio_connect import (
    ConnectFailed,
    ConnectReport,
    Endpoint,
    History,
    RaceFinished,
    Source,
    StaticResolver,
    TcpStream,
    TraceEvent,
    order_endpoints,
)
from trio_connect.adapters import failure_of
from trio_connect.testing import VirtualNetwork

if not any(map(find_spec, ("httpcore2", "httpcore"))):
    pytest.skip("NOT RUN: httpcore2 and httpcore are not installed", allow_module_level=True)
httpcore = import_module("trio_connect.adapters.httpcore")
Backend = httpcore.Backend
V6, V4 = "2001:db8::1", "192.0.2.1"
NAMES = StaticResolver({tls.NAME: ["127.0.0.1"]})


# --- pools ------------------------------------------------------------------------------------------------------------


@virtual
async def test_a_pool_keeps_its_connection(net: VirtualNetwork, core: Any) -> None:
    site = Site(tls.contexts().server)
    dead(net, V6)
    net.host(V4).listen(443, site.serve)
    net.dns(tls.NAME, aaaa=[V6], a=[V4])
    async with core.AsyncConnectionPool(network_backend=Backend(), ssl_context=tls.contexts().client) as pool:
        for _ in range(2):
            response = await pool.request("GET", f"https://{tls.NAME}/")
            assert response.content == b"ok"
    assert site.connections == 1


@virtual
async def test_its_own_exceptions(net: VirtualNetwork, core: Any) -> None:
    net.host(V6).refuse()
    dead(net, V4)
    async with core.AsyncConnectionPool(network_backend=Backend()) as pool:
        with pytest.raises(core.ConnectError, match="refused: 1") as refused:
            await pool.request("GET", f"http://[{V6}]/")
        timeouts = {"timeout": {"connect": 1.0}}
        with pytest.raises(core.ConnectTimeout, match="no result by its deadline"):
            await pool.request("GET", f"http://{V4}/", extensions=timeouts)
    assert isinstance(failure_of(refused.value), ConnectFailed)


def test_both_clients_know_each_exception(core: Any) -> None:
    """With a retry of its own, each decides by class."""
    for name in ("ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "WriteError", "WriteTimeout"):
        assert issubclass(getattr(httpcore, name), getattr(core, name))
    assert issubclass(Backend, core.AsyncNetworkBackend)


def test_the_failure_behind_an_error_is_not_that_of_an_earlier_one() -> None:
    earlier = ConnectFailed(111, "earlier")

    def stumble() -> None:
        try:
            raise earlier
        except ConnectFailed:
            raise KeyError("while handling it")  # noqa: B904 - this is what is tried

    with pytest.raises(KeyError) as caught:
        stumble()
    assert caught.value.__context__ is earlier
    assert failure_of(caught.value) is None
    assert failure_of(earlier) is earlier


# --- the stream -------------------------------------------------------------------------------------------------------


async def test_what_a_connection_says_of_itself() -> None:
    site = Site(tls.contexts().server)
    async with serving(site.serve) as endpoint:
        plain = await Backend(resolver=NAMES).connect_tcp(tls.NAME, endpoint.port)
        assert plain.get_extra_info("ssl_object") is None
        stream = await plain.start_tls(tls.contexts().client, tls.NAME)
        sock = stream.get_extra_info("socket")
        assert isinstance(sock, trio.socket.SocketType)
        assert stream.get_extra_info("server_addr") == sock.getpeername() == endpoint.sockaddr
        assert stream.get_extra_info("client_addr") == sock.getsockname()
        assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert isinstance(stream.get_extra_info("report"), ConnectReport)
        assert stream.get_extra_info("is_readable") is False
        assert stream.get_extra_info("colour") is None
        await stream.write(b"")
        await stream.write(b"GET /last HTTP/1.1\r\n\r\n")
        assert (await stream.read(5), await stream.read(1 << 16)) == (
            b"HTTP/",
            b"1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
        assert await stream.read(1 << 16) == b""
        assert stream.get_extra_info("is_readable") is True
        await stream.aclose()
        assert stream.get_extra_info("is_readable") is True
        assert stream.get_extra_info("socket") is None
        assert stream.get_extra_info("server_addr") == endpoint.sockaddr
        with pytest.raises(httpcore.ReadError):
            await stream.read(1)
        with pytest.raises(httpcore.WriteError):
            await stream.write(b"x")
        with pytest.raises(httpcore.ConnectError):
            await plain.start_tls(tls.contexts().client, tls.NAME)


@virtual
async def test_a_timeout_of_zero_is_one_try(net: VirtualNetwork) -> None:
    net.host(V4).listen(80, Site().serve)
    stream = await Backend().connect_tcp(V4, 80)
    with pytest.raises(httpcore.ReadTimeout):
        await stream.read(100, 0)
    await stream.write(b"GET / HTTP/1.1\r\n\r\n", 0)
    await trio.sleep(1)
    assert (await stream.read(100, 0.0)).endswith(b"ok")
    await stream.aclose()


@virtual
async def test_a_timeout_ends_a_read_and_loses_nothing(net: VirtualNetwork) -> None:
    async def late(stream: Any) -> None:
        await trio.sleep(2)
        await stream.send_all(b"late")

    net.host(V4).listen(80, late, rtt=0.0)
    stream = await Backend().connect_tcp(V4, 80)
    time = Stopwatch()
    with pytest.raises(httpcore.ReadTimeout):
        await stream.read(100, 1.5)
    assert time.ms == 1500
    assert await stream.read(100, 1.5) == b"late"
    await stream.aclose()


async def test_tls_without_a_name_verifies_the_address() -> None:
    async with serving(Site(tls.contexts().server).serve) as endpoint:
        stream = await (await Backend().connect_tcp("127.0.0.1", endpoint.port)).start_tls(tls.contexts().client)
        await stream.aclose()
    async with serving(Site(tls.server_context(tls.NAME)).serve) as endpoint:
        plain = await Backend().connect_tcp("127.0.0.1", endpoint.port)
        with pytest.raises(httpcore.ConnectError, match="IP address mismatch"):
            await plain.start_tls(tls.contexts().client)


async def _silent(stream: trio.abc.Stream) -> None:
    """TLS that never answers, behind a TCP that does."""
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass


BAD_TLS: dict[str, tuple[Any, str]] = {
    "expired": (Site(tls.server_context(tls.NAME, expired=True)).serve, "certificate has expired"),
    "silent": (_silent, "no result by its deadline"),
}


@pytest.mark.parametrize("fault", ["expired", "silent"])
@virtual
async def test_a_handshake_that_failed_is_told_to_the_history_and_the_next_connect_avoids_the_address(
    net: VirtualNetwork, core: Any, fault: str
) -> None:
    serve, text = BAD_TLS[fault]
    site = Site(tls.contexts().server)
    net.host(V6).listen(443, serve)
    net.host(V4).listen(443, site.serve)
    net.dns(tls.NAME, aaaa=[V6], a=[V4])
    reports: list[ConnectReport] = []
    failures: list[str] = []

    def watch(event: TraceEvent) -> None:
        if isinstance(event, RaceFinished):
            reports.append(event.report)

    history = History()
    backend = Backend(history=history, observer=watch)

    async def ask() -> bool:
        """Say whether a request over a connection of its own was answered."""
        timeouts = {"timeout": {"connect": 1.0}}
        context = tls.contexts().client
        async with core.AsyncConnectionPool(network_backend=backend, ssl_context=context) as pool:
            try:
                await pool.request("GET", f"https://{tls.NAME}/", extensions=timeouts)
            except (core.ConnectError, core.ConnectTimeout) as exc:
                failures.append(str(exc))
                return False
        return True

    def tried() -> list[str]:
        return [attempt.endpoint.host for attempt in reports[-1].tried]

    assert not await ask()
    for _ in range(3):
        assert await ask()
        assert tried() == [V4]
    # Ten seconds later one request finds out that it is still so, and the next time is twice as long.
    await trio.sleep(10)
    assert not await ask()
    assert tried() == [V6]
    assert "tried again: " in (reports[-1].attempts[0].history or "")
    for wait in (11, 8):
        await trio.sleep(wait)
        assert await ask()
    assert [text in failure for failure in failures] == [True, True]
    # Other connects know it too.
    assert order_endpoints([(V6, 443), (V4, 443)], history=history)[0].host == V4


@virtual
async def test_without_a_history_it_fails_each_time(net: VirtualNetwork, core: Any) -> None:
    net.host(V6).listen(443, BAD_TLS["expired"][0])
    net.host(V4).listen(443, Site(tls.contexts().server).serve)
    net.dns(tls.NAME, aaaa=[V6], a=[V4])
    async with core.AsyncConnectionPool(network_backend=Backend(), ssl_context=tls.contexts().client) as pool:
        for _ in range(2):
            with pytest.raises(core.ConnectError, match="certificate has expired"):
                await pool.request("GET", f"https://{tls.NAME}/")


@virtual
async def test_what_says_nothing_of_the_address_is_not_told_to_the_history(net: VirtualNetwork) -> None:
    history = History()
    backend = Backend(history=history)
    net.host(V4).listen(443, BAD_TLS["expired"][0])
    net.host(V6).listen(443, Site(tls.contexts().server).serve)

    def is_good() -> bool:
        return order_endpoints([(V4, 443), ("192.0.2.2", 443)], history=history)[0].host == V4

    # Through a proxy of the client's, TLS is with another host.
    plain = await backend.connect_tcp(V4, 443)
    with pytest.raises(httpcore.ConnectError):
        await plain.start_tls(tls.contexts().client, tls.NAME)
    assert is_good()
    # Closed on this side.
    plain = await backend.connect_tcp(V4, 443)
    await plain.aclose()
    with pytest.raises(httpcore.ConnectError):
        await plain.start_tls(tls.contexts().client, V4)
    assert is_good()
    # Cancelled.
    plain = await backend.connect_tcp(V4, 443)
    with trio.CancelScope() as scope:
        scope.cancel()
        await plain.start_tls(tls.contexts().client, V4)
    assert is_good()
    # TLS inside of TLS: the address is that of the outer one.
    outer = await (await backend.connect_tcp(V6, 443)).start_tls(tls.contexts().client, tls.NAME)
    with pytest.raises((httpcore.ConnectError, httpcore.ConnectTimeout)):
        await outer.start_tls(tls.contexts().client, V6, 1.0)
    assert order_endpoints([(V6, 443), ("2001:db8::2", 443)], history=history)[0].host == V6
    # And one that does.
    plain = await backend.connect_tcp(V4, 443, local_address="192.0.2.254")
    with pytest.raises(httpcore.ConnectError):
        await plain.start_tls(tls.contexts().client, V4)
    assert is_good(), "it was another source"
    plain = await backend.connect_tcp(V4, 443)
    with pytest.raises(httpcore.ConnectError):
        await plain.start_tls(tls.contexts().client, V4)
    assert not is_good()


async def test_a_context_for_the_other_side_leaves_nothing() -> None:
    async with no_leaks(), serving(Site().serve) as endpoint:
        plain = await Backend().connect_tcp("127.0.0.1", endpoint.port)
        with pytest.raises(ValueError, match="context must be one for clients, got one for servers"):
            await plain.start_tls(tls.contexts().server, tls.NAME)
        assert plain.get_extra_info("socket") is None


async def test_a_reset_and_nonsense_over_tls_are_no_end() -> None:
    async def break_it(nonsense: bytes, stream: TcpStream) -> None:
        async with await stream.start_tls(tls.contexts().server, server_side=True) as secured:
            assert await secured.receive_exactly(2) == b"go"
            if nonsense:
                await stream.send_all(nonsense)
                await secured.receive_some()
            stream.abort()

    for nonsense in (b"", b"\x17\x03\x03\x00\x05wrong"):
        async with serving(partial(break_it, nonsense)) as endpoint:
            stream = await (await Backend().connect_tcp("127.0.0.1", endpoint.port)).start_tls(tls.contexts().client)
            await stream.write(b"go")
            with pytest.raises(httpcore.ReadError, match=f"with {endpoint} broke"):
                await stream.read(100)
            await stream.aclose()


@virtual
async def test_tls_inside_of_tls(net: VirtualNetwork) -> None:
    """As behind a proxy that is reached over TLS."""
    site = Site(tls.contexts().server)

    async def proxy(stream: Any) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await site.serve(trio.SSLStream(stream, tls.contexts().server, server_side=True))

    net.host(V4).listen(443, proxy)
    net.host(V6).listen(443, Site(tls.contexts().server).serve)

    async def begin(host: str) -> Any:
        plain = await Backend().connect_tcp(host, 443)
        return await plain.start_tls(tls.contexts().client, tls.NAME)

    outer = await begin(V4)
    stream = await outer.start_tls(tls.contexts().client, f"{tls.NAME}.", 5.0)  # as of https://service.test./
    with pytest.raises(httpcore.ReadTimeout, match=f"receive over TLS through {V4}:443 had no result by its deadline"):
        await stream.read(100, 1.0)
    await stream.write(b"GET / HTTP/1.1\r\n\r\n", 1.0)
    assert (await stream.read(100, 1.0)).endswith(b"ok")
    assert stream.get_extra_info("server_addr") == (V4, 443)
    await stream.aclose()

    outer = await begin(V4)
    with pytest.raises(httpcore.ConnectError, match=f"TLS handshake over TLS through {V4}:443 failed: .*mismatch"):
        await outer.start_tls(tls.contexts().client, "other.test")
    with pytest.raises(httpcore.ConnectTimeout, match=r"TLS handshake over TLS through .* no result by its deadline"):
        await (await begin(V6)).start_tls(tls.contexts().client, tls.NAME, 1.0)
    with pytest.raises(ValueError, match="needs a server_hostname"):
        await (await begin(V4)).start_tls(tls.contexts().client)


# --- cancelling -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def secured() -> AsyncIterator[Endpoint]:
    async with serving(Site(tls.contexts().server).serve) as endpoint:
        yield endpoint


async def test_a_connect_and_a_handshake_cancelled_at_every_step(sockets: Sockets) -> None:
    async def begin(endpoint: Endpoint) -> Any:
        plain = await Backend().connect_tcp("127.0.0.1", endpoint.port, 5.0)
        stream = await plain.start_tls(tls.contexts().client, tls.NAME, 5.0)
        return stream.get_extra_info("socket")

    summary = await sweep(begin, environment=secured, counters=sockets.counters, inside=False)
    assert summary.endings("before")[1]["cancelled"] == repeated(1)


async def test_a_handshake_inside_of_tls_cancelled_at_every_step(sockets: Sockets) -> None:
    @contextlib.asynccontextmanager
    async def doubly_secured() -> AsyncIterator[Endpoint]:
        async def proxy(stream: Any) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await Site(tls.contexts().server).serve(trio.SSLStream(stream, tls.contexts().server, server_side=True))

        async with serving(proxy) as endpoint:
            yield endpoint

    async def begin(endpoint: Endpoint) -> Any:
        stream = await Backend().connect_tcp("127.0.0.1", endpoint.port, 5.0)
        for _ in range(2):
            stream = await stream.start_tls(tls.contexts().client, tls.NAME, 5.0)
        return stream.get_extra_info("socket")

    await sweep(begin, environment=doubly_secured, rounds=1, counters=sockets.counters, inside=False, modes=("after",))


async def test_a_request_cancelled_at_every_step(sockets: Sockets) -> None:
    core = pytest.importorskip("httpcore2", reason="NOT RUN: httpcore2 is not installed")

    async def ask(endpoint: Endpoint) -> None:
        async with core.AsyncConnectionPool(network_backend=Backend(), ssl_context=tls.contexts().client) as pool:
            await pool.request("GET", f"https://{endpoint}/")

    await sweep(
        ask, environment=secured, rounds=1, counters=sockets.counters, inside=False, modes=("after", "deadline")
    )


# --- where it runs ----------------------------------------------------------------------------------------------------


def test_without_trio_it_says_so() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"on Trio only: run the client under trio\.run\(\)"):
            await Backend().connect_tcp("127.0.0.1", 80)
        with pytest.raises(RuntimeError, match="on Trio only"):
            await Backend().connect_unix_socket("nowhere")

    asyncio.run(main())


def test_sources_and_a_local_address_contradict_one_another() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="sources or local_address, not both"):
            await Backend(sources=[Source("127.0.0.1")]).connect_tcp("127.0.0.1", 80, local_address="127.0.0.1")

    trio.run(main)
    with pytest.raises(TypeError, match="unknown options: adress_filter, tls"):
        Backend(adress_filter=None, tls=True)
