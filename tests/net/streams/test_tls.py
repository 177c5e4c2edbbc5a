"""`TcpStream.start_tls` and `TlsStream`: handshakes that fail say why, and streams over TLS read as all of ours."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.support import tls
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.streams import arrival, make_clogged_tls_pair, make_tls_pair, pair, random_bytes, secure
from tests.support.sweep import Mode, repeated, sweep
from trio_connect import DeadlineExceeded, TcpStream, TlsStream, now, tcp_connect, tcp_listen

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
versions = pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])

# RFC 8446 section 6: alert, fatal, 120 no_application_protocol.
ALERT_120 = bytes([21, 3, 3, 0, 2, 2, 120])


async def tcp_pair() -> tuple[TcpStream, TcpStream]:
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        return await tcp_connect(listener.endpoint), await listener.accept()


async def refusing(far: TcpStream, server: ssl.SSLContext) -> None:
    """A server whose client does not go through with the handshake, or hangs up at once."""
    with pytest.raises(trio.BrokenResourceError):
        stream = await far.start_tls(server, server_side=True)
        await stream.receive_some()
    far.abort()


# --- handshakes that fail ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "name", "reason"),
    [
        pytest.param(lambda: tls.server_context("other.test"), tls.NAME, "Hostname mismatch", id="bad-name"),
        pytest.param(lambda: tls.server_context(tls.NAME), None, "IP address mismatch", id="bad-address"),
        pytest.param(
            lambda: tls.server_context(tls.NAME, expired=True), tls.NAME, "certificate has expired", id="expired"
        ),
        pytest.param(
            lambda: tls.server_context(tls.NAME, issuer=trustme.CA()), tls.NAME, "unable to get local issuer",
            id="untrusted",
        ),
    ],
)  # fmt: skip
@versions
async def test_a_certificate_that_will_not_do(
    sockets: Sockets, server: Callable[[], ssl.SSLContext], name: str | None, reason: str, version: ssl.TLSVersion
) -> None:
    context = server()
    async with no_leaks(counters=sockets.counters):
        near, far = await tcp_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(refusing, far, context)
            with pytest.raises(
                trio.BrokenResourceError, match=rf"TLS handshake with {near.peer} failed: .*{reason}"
            ) as no:
                await near.start_tls(tls.client_context(version), server_hostname=name)
        assert isinstance(no.value.__cause__, ssl.SSLCertVerificationError)
        assert near.fileno() == -1
        with pytest.raises(trio.ClosedResourceError):
            await near.receive_some()
        del no


async def test_a_failed_handshake_sends_its_alert(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await tcp_pair()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                with pytest.raises(trio.BrokenResourceError, match="alert unknown ca"):
                    await (await far.start_tls(tls.contexts().server, server_side=True)).receive_some()
                far.abort()

            nursery.start_soon(serve)
            with pytest.raises(trio.BrokenResourceError):
                await near.start_tls(ssl.create_default_context(), server_hostname=tls.NAME)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(b"220 mail.test ESMTP\r\n", r"plain text, not TLS: it sent b'220 mail.test ESMTP", id="smtp"),
        pytest.param(b"HTTP/1.1 400 Bad Request\r\n\r\n", "plain text, not TLS", id="http"),
        pytest.param(b"J\0\0\0\n8.0.36\0" + bytes(40), "plain text, not TLS", id="mysql"),
        pytest.param(b"\x15\x15\x15\x15\x15\x15", "plain text, not TLS", id="second-byte"),
        pytest.param(b"", "the peer ended the connection in the handshake", id="hangs-up"),
        pytest.param(ALERT_120, r"no protocol in common \(ALPN, alert 120\)", id="alpn"),
    ],
)
async def test_who_does_not_speak_tls(sockets: Sockets, answer: bytes, reason: str) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await tcp_pair()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await far.receive_some()
                await far.send_all(answer)
                await far.close_gracefully()

            nursery.start_soon(serve)
            with pytest.raises(trio.BrokenResourceError, match=rf"TLS handshake with {near.peer} failed: .*{reason}"):
                await near.start_tls(tls.contexts().client, server_hostname=tls.NAME)
        assert near.fileno() == -1


async def test_a_reset_in_the_handshake(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await tcp_pair()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await far.receive_some()
                far.abort()

            nursery.start_soon(serve)
            with pytest.raises(trio.BrokenResourceError, match="failed: connection reset by peer"):
                await near.start_tls(tls.contexts().client)


@pytest.mark.parametrize("deadline", ["0", "soon", "late"])
async def test_a_deadline_ends_a_handshake(
    sockets: Sockets, deadline: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await tcp_pair()
        until = {"0": 0, "soon": now() + 30, "late": now() - 5}[deadline]
        words = "did not begin" if deadline == "late" else "had no result by its deadline"
        with pytest.raises(DeadlineExceeded, match=f"TLS handshake with {near.peer} {words}"):
            await near.start_tls(tls.contexts().client, until)
        assert near.fileno() == -1
        far.abort()


# --- what is refused before anything is sent --------------------------------------------------------------------------


async def test_buffered_bytes_refuse_it(sockets: Sockets) -> None:
    """CVE-2021-38371: an answer that came before TLS must not pass for one that came over it."""
    async with no_leaks(counters=sockets.counters), pair("tcp") as (near, far):
        assert isinstance(near, TcpStream)
        await far.send_all(b"220 go ahead\r\n250 injected\r\n")
        assert await near.receive_until(b"\r\n", 100) == b"220 go ahead"
        with pytest.raises(RuntimeError, match=rf"14 bytes from {near.peer} are buffered that came before TLS"):
            await near.start_tls(tls.contexts().client, server_hostname=tls.NAME)
        assert await near.receive_until(b"\r\n", 100) == b"250 injected"


async def test_buffered_bytes_refuse_it_to_a_server_too(sockets: Sockets) -> None:
    """CVE-2011-0411: a command that came before TLS must not pass for one that came over it."""
    async with no_leaks(counters=sockets.counters), pair("tcp") as (near, far):
        assert isinstance(far, TcpStream)
        await near.send_all(b"STARTTLS\r\nMAIL FROM:<x@y.test>\r\n")
        assert await far.receive_until(b"\r\n", 100) == b"STARTTLS"
        words = rf"22 bytes from {far.peer} are buffered that came before TLS"
        with pytest.raises(RuntimeError, match=words) as caught:
            await far.start_tls(tls.contexts().server, server_side=True)
        assert isinstance(caught.value, trio.BrokenResourceError), "a client must not end a server that catches these"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"context": True}, TypeError, "context must be an ssl.SSLContext, got True"),
        ({"server_hostname": b"name"}, TypeError, "server_hostname must be a str or None, got b'name'"),
        ({"server_hostname": ""}, ValueError, "server_hostname must be a host name or an address, got ''"),
        ({"server_hostname": "."}, ValueError, "server_hostname must be a host name or an address"),
        ({"server_hostname": ".x"}, ValueError, "server_hostname must be a host name or an address, got '.x'"),
        ({"server_hostname": "x", "server_side": True}, ValueError, "a server verifies no server_hostname, got 'x'"),
        ({"server_side": True}, ValueError, "context must be one for servers, got one for clients"),
        ({"context": tls.contexts().server}, ValueError, "context must be one for clients, got one for servers"),
        ({"deadline": 1.0}, TypeError, "a deadline is an int"),
    ],
)
async def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    async with no_leaks(), pair("tcp") as (near, far):
        assert isinstance(near, TcpStream)
        with pytest.raises(error, match=words):
            await near.start_tls(**{"context": tls.contexts().client, **arguments})
        await far.send_all(b"x")
        assert await near.receive_some() == b"x"


async def test_a_busy_or_closed_stream(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), pair("tcp") as (near, far):
        assert isinstance(near, TcpStream)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.receive_exactly, 1)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await near.start_tls(tls.contexts().client)
            await far.send_all(b"x")
        near.abort()
        with pytest.raises(trio.ClosedResourceError):
            await near.start_tls(tls.contexts().client)


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("service.test", "service.test"),
        ("service.test.", "service.test"),
        ("service.test\u3002", "service.test"),
        (None, None),
        ("fe80::1", None),
        ("fe80::1%eth0", None),
    ],
)
async def test_the_name_that_is_sent_and_verified(given: str | None, sent: str | None) -> None:
    """RFC 6066 section 3: no trailing dot, and no address, in the server name indication; a zone is for nobody else."""
    seen: list[str | None] = []
    server = tls.server_context(tls.NAME, "127.0.0.1", "fe80::1")
    server.sni_callback = lambda _object, name, _context: seen.append(name)
    async with no_leaks():
        near, far = await tcp_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_one, far, server)
            stream = await near.start_tls(tls.contexts().client, server_hostname=given)
            assert await stream.receive_some() == b"hello"
            await stream.aclose()
    assert seen == [sent]


async def serve_one(far: TcpStream, server: ssl.SSLContext) -> None:
    async with await far.start_tls(server, server_side=True) as stream:
        await stream.send_all(b"hello")


# --- what a stream is -------------------------------------------------------------------------------------------------


@versions
async def test_what_a_stream_says_of_itself(sockets: Sockets, version: ssl.TLSVersion) -> None:
    server = tls.server_context(tls.NAME)
    client = tls.client_context(version)
    server.set_alpn_protocols(["h2", "http/1.1"])
    client.set_alpn_protocols(["http/1.1"])
    async with no_leaks(counters=sockets.counters):
        near, far = await secure(*await tcp_pair(), client=client, server=server)
        assert (near.version, near.alpn, far.alpn) == (version.name.replace("_", "."), "http/1.1", "http/1.1")
        assert near.cipher == far.cipher
        assert near.peer_certificate is not None
        assert ("DNS", tls.NAME) in near.peer_certificate["subjectAltName"]
        assert far.peer_certificate is None
        assert (near.peer, near.local, near.report) == (near.tcp.peer, near.tcp.local, near.tcp.report)
        assert (near.local, near.fileno()) == (far.peer, near.tcp.fileno())
        assert isinstance(near.ssl, trio.SSLStream)
        assert repr(near) == f"<TlsStream to {near.peer}>"
        await near.aclose()
        assert repr(near) == f"<TlsStream to {near.peer} (closed)>"
        assert near.fileno() == -1
        await far.aclose()


async def test_no_alpn_in_common_and_no_answer_is_a_connection() -> None:
    client = tls.client_context()
    client.set_alpn_protocols(["h2"])
    async with no_leaks():
        near, far = await secure(*await tcp_pair(), client=client)
        assert near.alpn is None
        near.abort()
        far.abort()


async def test_trios_own_check_of_streams(sockets: Sockets) -> None:
    clogged: list[tuple[TlsStream, TlsStream]] = []

    async def clogged_maker() -> tuple[TlsStream, TlsStream]:
        return clogged.pop() if clogged else await make_clogged_tls_pair()

    async def make_one() -> None:
        clogged.append(await make_clogged_tls_pair())

    async with no_leaks(counters=sockets.counters):
        # Side by side: to be sure that a pair is clogged takes half a second.
        async with trio.open_nursery() as nursery:
            for _ in range(14):
                nursery.start_soon(make_one)
        await trio.testing.check_two_way_stream(make_tls_pair, clogged_maker)
        for pair in clogged:
            for stream in pair:
                stream.abort()


@versions
async def test_much_both_ways(sockets: Sockets, version: ssl.TLSVersion) -> None:
    data = random_bytes(3_000_000)
    async with no_leaks(counters=sockets.counters):
        near, far = await secure(*await tcp_pair(), client=tls.client_context(version))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, [data[:7], data[7:2_000_000], data[2_000_000:]])
            nursery.start_soon(far.send_all, data)
            async with trio.open_nursery() as receivers:
                for stream in (near, far):

                    async def receive(stream: TlsStream = stream) -> None:
                        assert await stream.receive_exactly(len(data)) == data

                    receivers.start_soon(receive)
        await near.aclose()
        assert await far.receive_some() == b""
        await far.aclose()


@versions
async def test_first_bytes_glued_to_the_handshake(sockets: Sockets, version: ssl.TLSVersion) -> None:
    """What a peer sends with the last bytes of its handshake is not lost: by a server in 1.2, by a client in 1.3."""

    async def greet(far: TcpStream) -> None:
        async with await far.start_tls(tls.contexts().server, server_side=True) as stream:
            await stream.send_all(b"hello")
            assert await stream.receive_exactly(9) == b"good day!"

    async with no_leaks(counters=sockets.counters):
        near, far = await tcp_pair()
        middle_near, middle_far = await tcp_pair()
        async with trio.open_nursery() as nursery:

            async def relay(source: TcpStream, target: TcpStream) -> None:
                """Pass bytes on in few large pieces: what comes in two writes goes in one."""
                while data := await source.receive_some():
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    with contextlib.suppress(DeadlineExceeded):
                        data += await source.receive_some(None, 0)
                    await target.send_all(data)

            nursery.start_soon(relay, far, middle_near)
            nursery.start_soon(relay, middle_near, far)
            nursery.start_soon(greet, middle_far)
            stream = await near.start_tls(tls.client_context(version), server_hostname=tls.NAME)
            await stream.send_all(b"good day!")
            assert await stream.receive_exactly(5) == b"hello"
            assert await stream.receive_some() == b""
            await stream.aclose()
            nursery.cancel_scope.cancel()
        far.abort()
        middle_near.abort()


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_an_end_without_close_notify_is_no_end(sockets: Sockets, how: str) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_tls_pair()
        await far.send_all(b"abc")
        assert await near.fill() == 3
        if how == "fin":
            await far.tcp.aclose()
        else:
            far.abort()
        assert await near.receive_exactly(2) == b"ab"
        words = "ended the connection without close_notify" if how == "fin" else "reset"
        for call in (
            near.fill,
            near.receive_some,
            lambda: near.receive_exactly(5),
            lambda: near.receive_until(b"x", 9),
        ):
            if near.buffered and call == near.receive_some:
                assert await near.receive_some() == b"c"
            with pytest.raises(trio.BrokenResourceError, match=words):
                await call()
        await near.aclose()
        await far.aclose()


async def test_a_context_may_take_a_missing_close_notify_for_an_end() -> None:
    client = tls.client_context()
    # CPython before 3.11.4: every context has the option, so it is nobody's wish there.
    is_unasked = bool(client.options & ssl.OP_IGNORE_UNEXPECTED_EOF)
    client.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    async with no_leaks():
        near, far = await secure(*await tcp_pair(), client=client)
        await far.send_all(b"abc")
        await far.tcp.aclose()
        assert await near.receive_some() == b"abc"
        if is_unasked:
            with pytest.raises(trio.BrokenResourceError, match="without close_notify"):
                await near.receive_some()
        else:
            assert await near.receive_some() == b""
        await near.aclose()
        await far.aclose()


async def test_close_notify_is_sent_even_when_cancelled(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        for unread in (False, True):
            near, far = await make_tls_pair()
            await near.send_all(b"abc")
            if unread:
                await far.send_all(b"nobody reads this")
                await trio.testing.wait_all_tasks_blocked(0.01)
                await near.receive_some(1)
            await trio.aclose_forcefully(near)
            assert near.fileno() == -1
            assert await far.receive_some() == b"abc"
            assert await far.receive_some() == b""
            await far.aclose()


async def test_a_server_that_has_never_sent_says_nothing_wrong_at_its_end(sockets: Sockets) -> None:
    """Its session tickets are still with Trio, and a close_notify without them could not be decrypted."""
    async with no_leaks(counters=sockets.counters):
        near, far = await make_tls_pair()
        await near.send_all(b"nobody reads this")
        await arrival(far.tcp.socket)
        assert await far.receive_some(1) == b"n"
        await far.aclose()
        with pytest.raises(trio.BrokenResourceError, match="ended the connection without close_notify"):
            await near.receive_some()
        await near.aclose()


async def test_the_deadlines_of_a_handshake_and_of_a_receive_are_forgotten_after_it(
    sockets: Sockets, autojump_clock: trio.testing.MockClock
) -> None:
    """Also for who uses the stream of Trio's beneath."""
    async with no_leaks(counters=sockets.counters):
        near, far = await tcp_pair()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                async with await far.start_tls(tls.contexts().server, server_side=True) as secured:
                    assert await secured.receive_some() == b"x"
                    for answer in (b"hello", b"again"):
                        await trio.testing.wait_all_tasks_blocked()
                        await secured.send_all(answer)

            nursery.start_soon(serve)
            stream = await near.start_tls(tls.contexts().client, now() + 1_000, server_hostname=tls.NAME)
            await trio.sleep(10)
            with pytest.raises(DeadlineExceeded):
                await stream.receive_some(deadline=0)
            await stream.ssl.send_all(b"x")
            assert await stream.ssl.receive_some() == b"hello"
            assert await stream.ssl.receive_some() == b"again"
        await stream.aclose()


async def test_closing_waits_for_nobody() -> None:
    """Neither for a peer that reads nothing nor for a task that sends."""
    async with no_leaks(), trio.open_nursery() as nursery:
        near, far = await make_tls_pair()

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await near.send_all(bytes(50_000_000))

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(2):
            await near.aclose()
        far.abort()


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_a_send_that_is_interrupted_breaks_the_stream(sockets: Sockets, how: str) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_tls_pair()
        if how == "deadline":
            # One that ends between two records breaks nothing, and says nothing of the kind.
            transferred = 0
            while True:
                with pytest.raises(DeadlineExceeded) as late:
                    await near.send_all(bytes(50_000_000), 0)
                assert (late.value.transferred < 50_000_000, late.value.errno) == (True, errno.ETIMEDOUT)
                transferred += late.value.transferred
                if "; this TLS stream is broken, because half a record may have gone" in str(late.value):
                    break
            del late
            assert transferred > 0
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(near.send_all, bytes(50_000_000))
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.cancel_scope.cancel()
        for call in (lambda: near.send_all(b"x"), near.receive_some, near.wait_send_all_might_not_block):
            with pytest.raises(trio.BrokenResourceError, match=f"TLS with {near.peer} broke: a send was cut short"):
                await call()
        await near.aclose()
        await far.aclose()


@pytest.mark.parametrize("by", ["us", "Trio"])
async def test_every_call_after_a_send_that_failed_says_why(sockets: Sockets, by: str) -> None:
    """Trio's stream is of no more use then, and has no text for it."""
    async with no_leaks(counters=sockets.counters):
        near, far = await make_tls_pair()
        near.tcp.socket.shutdown(socket.SHUT_WR)
        if by == "us":
            with pytest.raises(trio.BrokenResourceError, match=f"send: connection with {near.peer} broke: broken pipe"):
                await near.send_all(b"x")
        else:
            with pytest.raises(BrokenPipeError):
                await near.ssl.send_all(b"x")
        assert near.is_dead()
        for call in (lambda: near.send_all(b"x"), near.receive_some, near.wait_send_all_might_not_block):
            with pytest.raises(trio.BrokenResourceError, match=f"TLS with {near.peer} broke: broken pipe"):
                await call()
        near.abort()
        far.abort()


async def test_a_send_that_does_not_begin_breaks_nothing(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        near, far = await make_tls_pair()
        with pytest.raises(DeadlineExceeded, match="did not begin"):
            await near.send_all(b"x", now() - 5)
        with trio.CancelScope() as scope:
            scope.cancel()
            await near.send_all(b"x")
        await near.send_all(b"y", 0)
        assert await far.receive_some() == b"y"
        near.abort()
        far.abort()


# --- nothing is left --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(behave: Callable[[TcpStream], Awaitable[None]]) -> AsyncIterator[TcpStream]:
    """A connection whose other end does this."""
    near, far = await tcp_pair()

    async def serve() -> None:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await behave(far)
        far.abort()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield near
        nursery.cancel_scope.cancel()
    near.abort()
    far.abort()


async def good(far: TcpStream) -> None:
    stream = await far.start_tls(tls.contexts().server, server_side=True)
    await stream.receive_some()


async def silent(far: TcpStream) -> None:
    while await far.receive_some():
        pass


@pytest.mark.parametrize("behave", [good, silent])
async def test_cancel_at_every_step_of_a_handshake(sockets: Sockets, behave: Any) -> None:
    descriptors: list[TcpStream] = []

    async def handshake(near: TcpStream) -> TlsStream:
        descriptors.append(near)
        return await near.start_tls(tls.contexts().client, server_hostname=tls.NAME)

    async def closed(near: TcpStream, _: object) -> None:
        assert near.fileno() == -1

    summary = await sweep(
        handshake, environment=lambda: serving(behave), counters=sockets.counters, check=closed,
        inside=False,
    )  # fmt: skip
    assert summary.endings("before")[1]["cancelled"] == repeated(1)


async def test_cancel_at_every_step_of_serving(sockets: Sockets, modes: tuple[Mode, ...]) -> None:
    async def client(far: TcpStream) -> None:
        stream = await far.start_tls(tls.contexts().client, server_hostname=tls.NAME)
        await stream.receive_some()

    async def serve(near: TcpStream) -> None:
        async with await near.start_tls(tls.contexts().server, server_side=True) as stream:
            await stream.send_all(b"hello")

    async def closed(near: TcpStream, _: object) -> None:
        assert near.fileno() == -1

    await sweep(
        serve, environment=lambda: serving(client), modes=modes,
        counters=sockets.counters, check=closed, inside=False,
    )  # fmt: skip


@pytest.mark.parametrize("deadline", [-1, 0])
async def test_cancel_at_every_step_of_a_receive(sockets: Sockets, deadline: int, modes: tuple[Mode, ...]) -> None:
    """Whatever step a cancel comes at, the next receive has every byte."""

    @contextlib.asynccontextmanager
    async def sent() -> AsyncIterator[TlsStream]:
        near, far = await make_tls_pair()
        await far.send_all(b"x" * 40_000)
        try:
            yield near
        finally:
            near.abort()
            far.abort()

    async def receive(near: TlsStream) -> None:
        with contextlib.suppress(DeadlineExceeded):
            await near.receive_into(bytearray(50_000), deadline)

    async def all_is_there(near: TlsStream, _: object) -> None:
        with trio.fail_after(5):
            while near.buffered < 40_000:
                await near.fill()
        assert near.take(40_000) == b"x" * 40_000

    await sweep(
        receive,
        environment=sent,
        modes=modes,
        counters=sockets.counters,
        check=all_is_there,
        inside=False,
    )


@contextlib.asynccontextmanager
async def unread() -> AsyncIterator[TlsStream]:
    near, far = await make_tls_pair()
    # So little that a megabyte does not fit: encrypting what may fit into the largest buffers takes long.
    near.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    far.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    await far.send_all(b"unread")
    try:
        yield near
    finally:
        near.abort()
        far.abort()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(lambda stream: stream.aclose(), id="aclose"),
        pytest.param(lambda stream: stream.send_all(bytes(1_000_000)), id="send_all"),
    ],
)
async def test_cancel_at_every_step_of_an_end(
    sockets: Sockets, end: Callable[[TlsStream], Awaitable[None]], modes: tuple[Mode, ...]
) -> None:
    async def is_over(stream: TlsStream, _: object) -> None:
        await stream.aclose()
        assert stream.fileno() == -1
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()

    await sweep(end, environment=unread, modes=modes, counters=sockets.counters, check=is_over, inside=False)
