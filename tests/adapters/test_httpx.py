"""`adapters.httpx2` and `adapters.httpx`: their clients over connections of ours."""

from __future__ import annotations

import contextlib
import ssl
from functools import partial
from socket import AF_INET, IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET, TCP_NODELAY, AddressFamily
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.adapters.kit import OK, Client, Site, found, serving
from tests.net.racing import Stopwatch, dead, rows, virtual
from tests.support import tls
from tests.support.leaks import no_leaks
from tests.support.proxies import ProxyServer
from tests.support.sockets import Sockets
from tests.support.streams import arrival
from tests.support.tls_records import RecordPeer
from trio_connect import (
    Answer,
    ConnectFailed,
    Endpoint,
    History,
    NetworkFilter,
    RaceFinished,
    RacePolicy,
    SocketOptions,
    Source,
    StaticResolver,
    TcpStream,
    TraceEvent,
    connect,
    unix_listen,
)
from trio_connect.adapters import failure_of
from trio_connect.testing import VirtualNetwork

V6, V4, OTHER = "2001:db8::1", "192.0.2.1", "192.0.2.2"
CERTIFIED = tls.NAME
PUBLIC = NetworkFilter.public_only()
REFUSED = r"not allowed by the address filter: 127\.0\.0\.2"
HERE = NetworkFilter(allow=["127.0.0.1/32"])
"""127.0.0.2 stands for the internal network."""


# --- fetching ---------------------------------------------------------------------------------------------------------


@virtual
async def test_two_requests_over_one_connection_that_has_won_a_race(net: VirtualNetwork, client: Client) -> None:
    site = Site()
    dead(net, V6)
    net.host(V4).listen(80, site.serve, rtt=0.020)
    net.dns("api.test", aaaa=[V6], a=[V4])
    time = Stopwatch()
    async with client() as http:
        first = await http.get("http://api.test/one")
        assert (first.status_code, first.text, time.ms) == (200, "ok", 290)
        second = await http.get("http://api.test/two")
        assert (second.status_code, second.text, time.ms) == (200, "ok", 310)
        report = second.extensions["network_stream"].get_extra_info("report")
    assert rows(report) == [(V6, "first", 0, 270, "lost"), (V4, "delay", 250, 270, "won")]
    assert (site.connections, site.requests) == (1, ["/one", "/two"])


@virtual
async def test_likewise_over_tls(net: VirtualNetwork, client: Client) -> None:
    site = Site(tls.contexts().server)
    net.host(V4).listen(443, site.serve, rtt=0.020)
    net.dns(CERTIFIED, a=[V4])
    async with client(verify=tls.contexts().client) as http:
        assert (await http.get(f"https://{CERTIFIED}/one")).text == "ok"
        response = await http.get(f"https://{CERTIFIED}/two")
        assert (response.status_code, response.text) == (200, "ok")
        stream = response.extensions["network_stream"]
        session = stream.get_extra_info("ssl_object")
        assert (session.version(), session.selected_alpn_protocol()) == ("TLSv1.3", None)
        assert stream.get_extra_info("server_addr") == (V4, 443)
    assert (site.connections, site.requests) == (1, ["/one", "/two"])


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_over_loopback_and_nothing_is_left(sockets: Sockets, client: Client, scheme: str) -> None:
    site = Site(tls.contexts().server if scheme == "https" else None)
    async with (
        no_leaks(counters=sockets.counters),
        serving(site.serve) as endpoint,
        client(verify=tls.contexts().client) as http,
    ):
        for path in ("/one", "/two"):
            assert (await http.get(f"{scheme}://{endpoint}{path}")).text == "ok"
    assert (site.connections, site.requests) == (1, ["/one", "/two"])


@virtual
async def test_a_connection_that_the_server_has_closed_is_not_used_again(net: VirtualNetwork, client: Client) -> None:
    site = Site(answers={"/last": OK})
    net.host(V4).listen(80, site.serve)
    async with client() as http:
        for _ in range(2):
            assert (await http.get(f"http://{V4}/last")).text == "ok"
            await trio.sleep(1)
    assert site.connections == 2


async def test_new_keys_do_not_cost_a_connection(client: Client) -> None:
    """A server may change its keys after an answer. Who takes that for the end connects anew for each request."""
    connections = 0

    async def serve(stream: TcpStream) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            peer = await RecordPeer.accept(stream)
            while await peer.receive():
                await peer.send(OK)
                await read.wait()
                await stream.send_all(peer.key_update(request=True))

    options: dict[str, Any] = {"verify": tls.contexts().client, "resolver": StaticResolver({CERTIFIED: ["127.0.0.1"]})}
    async with serving(serve) as endpoint, client(**options) as http:
        for _ in range(3):
            read = trio.Event()
            response = await http.get(f"https://{CERTIFIED}:{endpoint.port}/")
            assert response.text == "ok"
            read.set()
            await arrival(response.extensions["network_stream"].get_extra_info("socket"))
    assert connections == 1


class OverRecords(trio.abc.Stream):
    """TLS whose every record a test decides, as what other TLS is spoken over."""

    def __init__(self, peer: RecordPeer) -> None:
        self.peer = peer

    async def send_all(self, data: Any) -> None:
        for start in range(0, len(data), 16_000):
            await self.peer.send(bytes(data[start : start + 16_000]))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return await self.peer.receive()

    async def aclose(self) -> None:
        await self.peer.stream.aclose()


async def test_new_keys_of_a_proxy_do_not_cost_a_connection_either(client: Client) -> None:
    connections = 0

    async def serve(stream: TcpStream) -> None:
        nonlocal connections
        connections += 1
        peer = await RecordPeer.accept(stream)
        with contextlib.suppress(trio.BrokenResourceError):
            assert (await peer.receive()).startswith(b"CONNECT ")
            await peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
            session = trio.SSLStream(OverRecords(peer), tls.contexts().server, server_side=True)
            while await session.receive_some():
                await session.send_all(OK)
                await read.wait()
                await stream.send_all(peer.key_update(request=True))
        await stream.aclose()

    async with serving(serve) as endpoint:
        proxy = client.library.Proxy(f"https://{CERTIFIED}:{endpoint.port}", ssl_context=tls.contexts().client)
        names = StaticResolver({CERTIFIED: ["127.0.0.1"]})
        async with client(verify=tls.contexts().client, proxy=proxy, resolver=names) as http:
            for _ in range(3):
                read = trio.Event()
                response = await http.get(f"https://{CERTIFIED}/")
                assert response.text == "ok"
                read.set()
                await arrival(response.extensions["network_stream"].get_extra_info("socket"))
    assert connections == 1


@virtual
async def test_with_one_of_three_addresses_dead_and_one_internal_a_guarded_client_connects(
    net: VirtualNetwork, client: Client
) -> None:
    site, internal = Site(), Site()
    dead(net, V6)
    net.host(V4).listen(80, site.serve, rtt=0.020)
    net.host(OTHER).listen(80, internal.serve)
    net.dns("api.test", aaaa=[V6], a=[OTHER, V4])
    time = Stopwatch()
    async with client(address_filter=NetworkFilter(deny=[f"{OTHER}/32"])) as http:
        assert (await http.get("http://api.test/")).text == "ok"
    assert time.ms == 290
    assert (site.connections, internal.connections) == (1, 0)


@virtual
async def test_an_end_without_close_notify_is_an_end(net: VirtualNetwork, client: Client) -> None:
    """Many servers of HTTP end so. What is missing then, the framing of HTTP tells."""
    answers = {
        "/last/whole": b"HTTP/1.1 200 OK\r\n\r\nall of it",
        "/last/cut": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nsome of it",
    }
    net.host(V4).listen(443, Site(tls.contexts().server, answers).serve)
    net.dns(CERTIFIED, a=[V4])
    async with client(verify=tls.contexts().client) as http:
        assert (await http.get(f"https://{CERTIFIED}/last/whole")).text == "all of it"
        with pytest.raises(client.library.RemoteProtocolError, match="without sending complete message body"):
            await http.get(f"https://{CERTIFIED}/last/cut")


# --- failures are the client's own, in our words ----------------------------------------------------------------------


@virtual
async def test_refused(net: VirtualNetwork, client: Client) -> None:
    net.host(V6).refuse(after=0.010)
    net.host(V4).refuse(after=0.010)
    net.dns("api.test", aaaa=[V6], a=[V4])
    async with client() as http:
        with pytest.raises(client.library.ConnectError) as caught:
            await http.get("http://api.test/")
    text = str(caught.value)
    assert text == f"[Errno 111] all 2 attempts to api.test:80 ([{V6}]:80, {V4}:80) failed in 20.0 ms (refused: 2)"
    assert isinstance(caught.value.__cause__, client.core.ConnectError)
    failure = failure_of(caught.value)
    assert isinstance(failure, ConnectFailed)
    assert [attempt.endpoint.host for attempt in failure.attempts] == [V6, V4]


@virtual
async def test_timed_out(net: VirtualNetwork, client: Client) -> None:
    dead(net, V4)
    time = Stopwatch()
    async with client(timeout=1.5) as http:
        with pytest.raises(client.library.ConnectTimeout, match=f"connect to {V4}:80 .*deadline, after 1500.0 ms"):
            await http.get(f"http://{V4}/")
    assert time.ms == 1500


@virtual
async def test_all_attempts_have_timed_out_before_the_client(net: VirtualNetwork, client: Client) -> None:
    dead(net, V4, V6)
    net.dns("api.test", aaaa=[V6], a=[V4])
    async with client(timeout=None, policy=RacePolicy(attempt_timeout=1.0)) as http:
        with pytest.raises(client.library.ConnectTimeout, match=r"all 2 attempts to api\.test.*timed out: 2"):
            await http.get("http://api.test/")


@virtual
async def test_an_unknown_host(net: VirtualNetwork, client: Client) -> None:
    net.dns("gone.test", [])
    async with client() as http:
        with pytest.raises(client.library.ConnectError, match=r"gone\.test"):
            await http.get("http://gone.test/")


@virtual
async def test_a_host_that_nobody_can_have(net: VirtualNetwork, client: Client) -> None:
    """Whoever follows redirects meets such."""
    async with client() as http:
        with pytest.raises(client.library.ConnectError, match=r"label|host"):
            await http.get(f"http://{'a' * 64}.test/")


@pytest.mark.parametrize(
    ("context", "words"),
    [
        (partial(tls.server_context, CERTIFIED, expired=True), "certificate has expired"),
        (partial(tls.server_context, "other.test"), "Hostname mismatch"),
    ],
)
@virtual
async def test_a_bad_certificate(net: VirtualNetwork, client: Client, context: Any, words: str) -> None:
    net.host(V4).listen(443, Site(context()).serve)
    net.dns(CERTIFIED, a=[V4])
    async with client(verify=tls.contexts().client) as http:
        with pytest.raises(client.library.ConnectError, match=f"TLS handshake with {V4}:443 failed: {words}"):
            await http.get(f"https://{CERTIFIED}/")


@virtual
async def test_a_handshake_that_is_never_answered(net: VirtualNetwork, client: Client) -> None:
    net.host(V4).silent(443)
    time = Stopwatch()
    async with client(timeout=2.0) as http:
        with pytest.raises(client.library.ConnectTimeout, match=f"TLS handshake with {V4}:443 .*deadline"):
            await http.get(f"https://{V4}/")
    assert time.ms == 2000


@virtual
async def test_an_answer_that_never_comes(net: VirtualNetwork, client: Client) -> None:
    net.host(V4).silent(80)
    async with client(timeout=2.0) as http:
        with pytest.raises(client.library.ReadTimeout, match=f"receive from {V4}:80 .*deadline"):
            await http.get(f"http://{V4}/")


@pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")  # how it drops a body that it cannot send
@virtual
async def test_a_request_that_nobody_reads(net: VirtualNetwork, client: Client) -> None:
    net.host(V4).silent(80)
    async with client(timeout=2.0) as http:
        with pytest.raises(client.library.WriteTimeout, match=f"send to {V4}:80 .*deadline"):
            await http.post(f"http://{V4}/", content=bytes(1 << 26))


@virtual
async def test_a_connection_that_breaks(net: VirtualNetwork, client: Client) -> None:
    async def hang_up(stream: Any) -> None:
        await stream.receive_some()
        stream.socket.setsockopt(SOL_SOCKET, 13, bytes([1, 0, 0, 0, 0, 0, 0, 0]))  # SO_LINGER: close with a reset
        stream.socket.close()

    net.host(V4).listen(80, hang_up)
    async with client() as http:
        with pytest.raises(client.library.ReadError, match=f"{V4}:80.*reset"):
            await http.get(f"http://{V4}/")


@virtual
async def test_the_clients_retries_are_made(net: VirtualNetwork, client: Client) -> None:
    net.host(V4).refuse(after=0.0)
    events: list[TraceEvent] = []
    time = Stopwatch()
    async with client(retries=2, observer=events.append) as http:
        with pytest.raises(client.library.ConnectError):
            await http.get(f"http://{V4}/")
    assert time.ms == 500  # at once, then after half a second
    assert sum(isinstance(event, RaceFinished) for event in events) == 3


# --- a memory ---------------------------------------------------------------------------------------------------------


def half_dead(net: VirtualNetwork) -> None:
    """An address that answers TCP first and has no TLS, and one that has."""
    net.host(V6).silent(443, rtt=0.010)
    net.host(V4).listen(443, Site(tls.contexts().server).serve, rtt=0.020)
    net.dns(CERTIFIED, aaaa=[V6], a=[V4])


@virtual
async def test_with_a_history_an_address_without_tls_fails_once(net: VirtualNetwork, client: Client) -> None:
    half_dead(net)
    history = History()
    async with client(verify=tls.contexts().client, timeout=1.0, history=history) as http:
        with pytest.raises(client.library.ConnectTimeout):
            await http.get(f"https://{CERTIFIED}/")
        response = await http.get(f"https://{CERTIFIED}/")
        assert response.text == "ok"
        report = response.extensions["network_stream"].get_extra_info("report")
    assert [attempt.endpoint.host for attempt in report.tried] == [V4]


@virtual
async def test_with_a_retry_too_it_does_not_fail_at_all(net: VirtualNetwork, client: Client) -> None:
    half_dead(net)
    async with client(verify=tls.contexts().client, timeout=1.0, history=History(), retries=1) as http:
        assert (await http.get(f"https://{CERTIFIED}/")).text == "ok"


@virtual
async def test_what_is_wrong_behind_a_proxy_is_not_held_against_the_proxy(net: VirtualNetwork, client: Client) -> None:
    tunnel = Tunnel(Site(tls.server_context("other.test")), tls.contexts().server)
    net.host(V4).listen(3128, tunnel.serve)
    proxy = client.library.Proxy(f"https://{V4}:3128", ssl_context=tls.contexts().client)
    history = History()
    async with client(verify=tls.contexts().client, proxy=proxy, history=history) as http:
        with pytest.raises(client.library.ConnectError, match="Hostname mismatch"):
            await http.get(f"https://{CERTIFIED}/")
    stream = await connect(V4, 3128, history=history)
    assert stream.report.attempts[0].history is None
    stream.abort()


@virtual
async def test_a_cancel_in_the_handshake_is_held_against_nobody(net: VirtualNetwork, client: Client) -> None:
    half_dead(net)
    history = History()
    async with client(verify=tls.contexts().client, history=history) as http:
        with trio.move_on_after(1.0) as scope:
            await http.get(f"https://{CERTIFIED}/")
        assert scope.cancelled_caught
    stream = await connect(CERTIFIED, 443, history=history)
    assert (stream.peer.host, stream.report.attempts[0].history) == (V6, None)
    stream.abort()


# --- safety -----------------------------------------------------------------------------------------------------------


async def test_a_redirect_to_an_internal_address_gets_no_packet_there(client: Client) -> None:
    internal = Site()
    async with serving(internal.serve, "127.0.0.2") as inside:
        outside = Site(answers={"/": found(f"http://{inside}/latest/meta-data")})
        async with serving(outside.serve) as endpoint:
            async with client(address_filter=HERE, follow_redirects=True) as guarded:
                with pytest.raises(client.library.ConnectError, match=REFUSED):
                    await guarded.get(f"http://{endpoint}/")
            assert (outside.connections, internal.connections) == (1, 0)
            async with client(follow_redirects=True) as unguarded:
                assert (await unguarded.get(f"http://{endpoint}/")).text == "ok"
            assert internal.requests == ["/latest/meta-data"]


LOOPBACK = [
    "localhost", "localhost.", "127.0.0.1", "127.1", "0x7f.1", "2130706433", "0.0.0.0", "[::1]", "[::]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
]  # fmt: skip


async def test_no_spelling_of_this_machine_gets_past_the_filter(client: Client) -> None:
    site = Site()
    async with serving(site.serve) as endpoint, client(address_filter=PUBLIC) as guarded:
        for host in LOOPBACK:
            with pytest.raises(client.library.ConnectError, match="not allowed by the address filter"):
                await guarded.get(f"http://{host}:{endpoint.port}/")
    assert site.connections == 0


class Rebinding:
    """A resolver whose owner says an address that is allowed first, and an internal one from then on."""

    def __init__(self) -> None:
        self.answers = ["127.0.0.1"]

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        if family != AF_INET:
            return Answer()
        return Answer((self.answers.pop() if self.answers else "127.0.0.2",))


async def test_a_name_that_rebinds_to_an_internal_address_gets_no_packet_there(client: Client) -> None:
    outside, internal = Site(answers={"/last": OK}), Site()
    async with serving(outside.serve) as endpoint, serving(internal.serve, "127.0.0.2") as inside:
        async with client(address_filter=HERE, resolver=Rebinding()) as guarded:
            assert (await guarded.get(f"http://api.test:{endpoint.port}/last")).text == "ok"
            with pytest.raises(client.library.ConnectError, match=REFUSED):
                await guarded.get(f"http://api.test:{inside.port}/last")
        assert (outside.connections, internal.connections) == (1, 0)
        async with client(resolver=Rebinding()) as unguarded:
            await unguarded.get(f"http://api.test:{endpoint.port}/last")
            await unguarded.get(f"http://api.test:{inside.port}/last")
        assert internal.connections == 1


async def test_proxies_of_the_environment_are_not_asked(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, site = Site(), Site()
    async with serving(proxy.serve) as asked, serving(site.serve) as endpoint:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{asked}")
            monkeypatch.delenv("NO_PROXY", raising=False)
        async with client(address_filter=HERE) as guarded:
            await guarded.get(f"http://{endpoint}/")
        assert (proxy.connections, site.connections) == (0, 1)
        async with client.library.AsyncClient() as stock:
            await stock.get(f"http://{endpoint}/")
        assert (proxy.connections, site.connections) == (1, 1)


def test_a_filter_and_a_proxy_contradict_one_another(client: Client) -> None:
    with pytest.raises(ValueError, match=r"address_filter cannot be combined with proxy.*sources=\[Source"):
        client(address_filter=PUBLIC, proxy="http://proxy.test:3128")


# --- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", [{"local_address": "127.0.0.3"}, {"sources": [Source("127.0.0.3")]}])
async def test_where_connections_start(client: Client, option: dict[str, Any]) -> None:
    async with serving(Site().serve) as endpoint, client(**option) as http:
        response = await http.get(f"http://{endpoint}/")
        host, port = response.extensions["network_stream"].get_extra_info("client_addr")
        assert (host, port > 0) == ("127.0.0.3", True)


@virtual
async def test_the_wildcard_address_as_local_address_means_one_family(net: VirtualNetwork, client: Client) -> None:
    """So do users of httpx say "IPv4 only"."""
    net.host(V6).listen(80, Site().serve)
    net.host(V4).listen(80, Site().serve)
    net.dns("api.test", aaaa=[V6], a=[V4])
    for wildcard, chosen in (("0.0.0.0", V4), ("::", V6)):
        async with client(local_address=wildcard) as http:
            response = await http.get("http://api.test/")
            assert response.extensions["network_stream"].get_extra_info("server_addr")[0] == chosen


async def test_socket_options(client: Client) -> None:
    wanted = [(SOL_SOCKET, SO_KEEPALIVE, 1), (IPPROTO_TCP, TCP_NODELAY, bytes(4))]
    async with serving(Site().serve) as endpoint, client(socket_options=wanted) as http:
        response = await http.get(f"http://{endpoint}/")
        sock = response.extensions["network_stream"].get_extra_info("socket")
        assert sock.getsockopt(SOL_SOCKET, SO_KEEPALIVE) == 1
        assert sock.getsockopt(IPPROTO_TCP, TCP_NODELAY) == 0


@pytest.mark.parametrize("refused", [(SOL_SOCKET, 9999, 1), (SOL_SOCKET, 9999, None, 4)])
async def test_a_socket_option_that_is_refused(client: Client, refused: Any) -> None:
    async with no_leaks(), serving(Site().serve) as endpoint, client(socket_options=[refused]) as http:
        with pytest.raises(client.library.ConnectError, match=f"socket option .*9999.* to {endpoint}"):
            await http.get(f"http://{endpoint}/")


async def test_options_of_ours_are_set_before_the_connect(client: Client) -> None:
    async with serving(Site().serve) as endpoint, client(options=SocketOptions(keepalive_idle=7)) as http:
        response = await http.get(f"http://{endpoint}/")
        sock = response.extensions["network_stream"].get_extra_info("socket")
        assert sock.getsockopt(SOL_SOCKET, SO_KEEPALIVE) == 1


async def test_options_that_contradict_or_that_nobody_knows(client: Client) -> None:
    with pytest.raises(ValueError, match="sources or local_address, not both"):
        client(local_address="127.0.0.3", sources=[Source("127.0.0.3")])
    with pytest.raises(TypeError, match="adress_filter"):
        client(adress_filter=PUBLIC)
    async with client(address_filter="127.0.0.1") as http:
        with pytest.raises(TypeError, match="address_filter must be callable"):
            await http.get("http://127.0.0.1:9/")
    names = [Source(proxy="socks5h://127.0.0.1:1080")]
    async with client(address_filter=PUBLIC, sources=names) as http:
        for host in ("api.test", "127.0.0.1"):  # no ConnectError: those are tried again
            with pytest.raises(ValueError, match="so the address filter cannot judge what it finds: use socks5"):
                await http.get(f"http://{host}:9/")


async def test_what_a_filter_raises_is_no_error_of_a_connect(client: Client) -> None:
    def broken(endpoint: Endpoint) -> bool:
        return int(endpoint.host) > 0

    async with client(address_filter=broken) as http:
        with pytest.raises(ValueError, match="invalid literal for int"):
            await http.get("http://127.0.0.1:9/")


def test_a_client_whose_back_end_is_elsewhere_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or else its filter would never be asked."""

    class Newer:
        def __init__(self, **_options: Any) -> None:
            self._pool = object()

    monkeypatch.setattr(client.library, "AsyncHTTPTransport", Newer)
    Newer.__module__ = f"{client.name}._transports.default"
    with pytest.raises(
        RuntimeError, match=rf"^{client.name} has no back end at Newer\._pool\._network_backend in this"
    ):
        client()


async def test_a_unix_domain_socket(client: Client, tmp_path: Any) -> None:
    path = str(tmp_path / "http")
    site = Site()
    async with await unix_listen(path) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, site.serve, [listener])
        async with client(uds=path) as http:
            response = await http.get("http://api.test/")
            assert response.text == "ok"
            assert response.extensions["network_stream"].get_extra_info("server_addr") == path
        nursery.cancel_scope.cancel()
    async with client(uds=path) as http:
        with pytest.raises(client.library.ConnectError, match=path):
            await http.get("http://api.test/")


# --- proxies of the client's own --------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Tunnel:
    """An HTTP proxy, over TLS itself if it has a context. All targets are the site behind it."""

    site: Site
    context: ssl.SSLContext | None = None
    targets: list[str] = attrs.Factory(list)

    async def serve(self, stream: trio.abc.Stream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                if self.context is not None:
                    stream = trio.SSLStream(stream, self.context, server_side=True)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += await stream.receive_some(1)
                self.targets.append(head.split(b" ")[1].decode())
                await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
                await self.site.serve(stream)


@pytest.mark.parametrize("scheme", ["http", "https"])
@virtual
async def test_through_a_proxy(net: VirtualNetwork, client: Client, scheme: str) -> None:
    """Over TLS to the proxy there is TLS inside of TLS."""
    tunnel = Tunnel(Site(tls.contexts().server), tls.contexts().server if scheme == "https" else None)
    net.host(V4).listen(3128, tunnel.serve)
    proxy = client.library.Proxy(
        f"{scheme}://{V4}:3128", ssl_context=tls.contexts().client if scheme == "https" else None
    )
    async with client(verify=tls.contexts().client, proxy=proxy) as http:
        for _ in range(2):
            response = await http.get(f"https://{CERTIFIED}/")
            assert response.text == "ok"
            stream = response.extensions["network_stream"]
            assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert stream.get_extra_info("server_addr") == (V4, 3128)
    assert (tunnel.targets, tunnel.site.requests) == ([f"{CERTIFIED}:443"], ["/", "/"])


@pytest.mark.parametrize("scheme", ["http", "https"])
@virtual
async def test_a_bad_certificate_behind_a_proxy(net: VirtualNetwork, client: Client, scheme: str) -> None:
    tunnel = Tunnel(Site(tls.server_context("other.test")), tls.contexts().server if scheme == "https" else None)
    net.host(V4).listen(3128, tunnel.serve)
    proxy = client.library.Proxy(
        f"{scheme}://{V4}:3128", ssl_context=tls.contexts().client if scheme == "https" else None
    )
    async with client(verify=tls.contexts().client, proxy=proxy) as http:
        with pytest.raises(client.library.ConnectError, match=f"TLS .*{V4}:3128 failed: .*Hostname mismatch"):
            await http.get(f"https://{CERTIFIED}/")


# --- proxies of ours --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["socks5", "http", "socks5h"])
@virtual
async def test_through_a_source_with_a_proxy(net: VirtualNetwork, client: Client, scheme: str) -> None:
    """It is sent addresses, which a filter has judged; or names, as the source says."""
    pytest.importorskip("python_socks", reason="NOT RUN: python-socks is not installed")
    site = Site(tls.contexts().server)

    async def behind(stream: Any, _host: str, _port: int) -> None:
        await site.serve(stream)

    server = ProxyServer(behind=behind)
    net.host("192.0.2.8").listen(1080, server.http if scheme == "http" else server.socks5)
    net.dns(CERTIFIED, a=[V4])
    net.dns("internal.test", a=[OTHER])
    by_name = scheme == "socks5h"
    source = Source(proxy=f"{scheme}://192.0.2.8:1080", proxy_resolves=by_name)
    judge = NetworkFilter(deny=[f"{OTHER}/32"])
    async with client(verify=tls.contexts().client, sources=[source], address_filter=judge) as http:
        response = await http.get(f"https://{CERTIFIED}/")
        assert response.text == "ok"
        target = (CERTIFIED if by_name else V4, 443)
        assert response.extensions["network_stream"].get_extra_info("server_addr") == target
        assert server.asked == [target]
        if not by_name:
            with pytest.raises(client.library.ConnectError, match="not allowed by the address filter"):
                await http.get("https://internal.test/")
            assert server.asked == [target]


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_cancelled_in_the_handshake_it_leaves_no_descriptor(sockets: Sockets, client: Client) -> None:
    async def say_nothing(stream: TcpStream) -> None:
        async with stream:
            await stream.receive_some()
            in_the_handshake.set()
            assert await stream.receive_some() == b""

    in_the_handshake = trio.Event()
    async with (
        serving(say_nothing) as endpoint,
        client() as http,
        no_leaks(counters=sockets.counters),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(http.get, f"https://{endpoint}/")
        await in_the_handshake.wait()
        nursery.cancel_scope.cancel()
