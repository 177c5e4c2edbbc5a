"""STARTTLS with servers of others: SMTP by aiosmtpd, PostgreSQL by its own server where it is installed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink

from tests.support import faults, tls
from trio_connect import (
    ConnectFailed,
    Endpoint,
    EstablishFailed,
    RacePolicy,
    StaticResolver,
    TcpStream,
    TlsStream,
    connect,
    connectx,
    now,
    tcp_connect,
    tcp_listen,
)


@contextlib.asynccontextmanager
async def tampering(
    server: Endpoint, request: bytes, injected: bytes, *, late: bool = False
) -> AsyncIterator[Endpoint]:
    """Somebody between a client and this server, who puts bytes behind the answer that goes on to TLS.

    Args:
      server: the one that the client means.
      request: what the client asks for TLS by.
      injected: in plain text.
      late: only when the client has begun its handshake; else glued to the answer.
    """

    async def relay(client: TcpStream) -> None:
        asked = False
        async with client, await tcp_connect(server) as upstream, trio.open_nursery() as nursery:

            async def forth() -> None:
                nonlocal asked
                async for data in client:
                    if late and asked:
                        await client.send_all(injected)
                    asked = asked or request in data
                    await upstream.send_all(data)
                nursery.cancel_scope.cancel()

            nursery.start_soon(forth)
            async for data in upstream:
                await client.send_all(data + injected if asked and not late else data)
            nursery.cancel_scope.cancel()

    async def serve(client: TcpStream) -> None:
        # Either side hangs up as it likes.
        with contextlib.suppress(trio.BrokenResourceError, BaseExceptionGroup):
            await relay(client)

    async with await tcp_listen(("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield listener.endpoint
        nursery.cancel_scope.cancel()


# --- SMTP, RFC 3207 ---------------------------------------------------------------------------------------------------


@pytest.fixture
def mail_server() -> Iterator[Endpoint]:
    """A mail server that takes nothing before STARTTLS."""
    with faults.reserved_port("127.0.0.1") as port:
        controller = Controller(
            Sink(), hostname="127.0.0.1", port=port, tls_context=tls.contexts().server, require_starttls=True
        )
        controller.start()
        try:
            yield Endpoint("127.0.0.1", port)
        finally:
            controller.stop()


async def reply(stream: TcpStream | TlsStream) -> list[bytes]:
    """The lines of one reply, RFC 5321 section 4.2.1."""
    lines = [await stream.receive_until(b"\r\n", 512, now() + 5_000)]
    while lines[-1][3:4] == b"-":
        lines.append(await stream.receive_until(b"\r\n", 512, now() + 5_000))
    return lines


async def command(stream: TcpStream | TlsStream, line: bytes) -> bytes:
    await stream.send_all(line + b"\r\n")
    return (await reply(stream))[-1][:3]


async def secure_smtp(stream: TcpStream) -> TlsStream:
    """Go from the greeting to TLS, as the establish of a race."""
    if not (await reply(stream))[-1].startswith(b"220"):
        raise EstablishFailed("no greeting")
    assert await command(stream, b"EHLO client.test") == b"250"
    assert await command(stream, b"STARTTLS") == b"220"
    return await stream.start_tls(tls.contexts().client, now() + 5_000, server_hostname=tls.NAME)


async def test_mail_goes_over_starttls(mail_server: Endpoint) -> None:
    async with await connectx([mail_server], now() + 5_000, establish=secure_smtp) as stream:
        assert stream.version == "TLSv1.3"
        assert await command(stream, b"EHLO client.test") == b"250"
        assert await command(stream, b"MAIL FROM:<a@client.test>") == b"250"
        assert await command(stream, b"RCPT TO:<b@service.test>") == b"250"
        assert await command(stream, b"DATA") == b"354"
        assert await command(stream, b"Subject: x\r\n\r\nhello\r\n.") == b"250"
        assert await command(stream, b"QUIT") == b"221"


async def test_a_mail_server_with_another_name_fails_the_race(mail_server: Endpoint) -> None:
    async def secure(stream: TcpStream) -> TlsStream:
        await reply(stream)
        await command(stream, b"STARTTLS")
        return await stream.start_tls(tls.contexts().client, server_hostname="other.test")

    with pytest.raises(ConnectFailed, match=r"Hostname mismatch, certificate is not valid for 'other\.test'"):
        await connectx([mail_server], now() + 5_000, establish=secure)


async def test_of_several_mail_hosts_each_has_to_prove_its_own_name(mail_server: Endpoint) -> None:
    """Both are the same server, whose certificate is for one of them."""
    seen: list[str | None] = []

    async def secure(stream: TcpStream) -> TlsStream:
        seen.append(stream.host)
        await reply(stream)
        await command(stream, b"STARTTLS")
        return await stream.start_tls(tls.contexts().client, now() + 5_000, server_hostname=stream.host)

    names = StaticResolver({"other.test": ["127.0.0.1"], tls.NAME: ["127.0.0.1"]})
    async with tampering(mail_server, b"STARTTLS", b"") as other:
        hosts = [("other.test", other.port), (tls.NAME, mail_server.port)]
        # The second one has to wait for the failure of the first, also where that takes longer than the usual 250 ms.
        patient = RacePolicy(attempt_delay=30.0)
        call = connect(hosts, 25, now() + 5_000, resolver=names, establish=secure, policy=patient)
        async with await call as stream:
            assert await command(stream, b"EHLO client.test") == b"250"
    assert seen == ["other.test", tls.NAME]
    assert stream.host == tls.NAME
    assert "certificate is not valid for 'other.test'" in (stream.report.attempts[0].reason or "")


async def test_tls_at_once_to_a_port_with_starttls_is_told_as_plain_text(mail_server: Endpoint) -> None:
    with pytest.raises(ConnectFailed, match="the peer speaks plain text, not TLS: it sent b'220 "):
        await connectx([mail_server], now() + 5_000, tls=tls.contexts().client, server_hostname=tls.NAME)


INJECTED = b"250-injected\r\n250 AUTH PLAIN\r\n"


async def test_what_is_injected_before_tls_is_refused(mail_server: Endpoint) -> None:
    """RFC 3207 section 6 and CVE-2011-0411: an answer glued to the one to STARTTLS."""
    async with tampering(mail_server, b"STARTTLS", b"") as unharmed:
        await (await connectx([unharmed], now() + 5_000, establish=secure_smtp)).aclose()
    async with tampering(mail_server, b"STARTTLS", INJECTED) as between:
        words = f'"{len(INJECTED)} bytes are buffered that came before TLS"'
        with pytest.raises(ConnectFailed, match=words) as caught:
            await connectx([between], now() + 5_000, establish=secure_smtp)
        assert isinstance(caught.value.errors[0], RuntimeError)
        assert isinstance(caught.value.errors[0], trio.BrokenResourceError)
        # Whoever sits between one host and us keeps nobody from the others.
        async with await connectx([between, mail_server], now() + 5_000, establish=secure_smtp) as stream:
            assert stream.peer == mail_server
    async with tampering(mail_server, b"STARTTLS", INJECTED, late=True) as between:
        with pytest.raises(ConnectFailed, match="the peer speaks plain text, not TLS: it sent b'250-injected"):
            await connectx([between], now() + 5_000, establish=secure_smtp)


# --- PostgreSQL, "SSL Session Encryption" in its documentation ----------------------------------------------

SSL_REQUEST = struct.pack("!ii", 8, 80877103)


async def secure_postgres(stream: TcpStream) -> TlsStream:
    """Ask for TLS. Not a byte more than the answer is read, but whatever came with it would be refused."""
    await stream.send_all(SSL_REQUEST)
    answer = await stream.receive_exactly(1, now() + 5_000)
    if answer != b"S":
        raise EstablishFailed("the server has no TLS")
    return await stream.start_tls(tls.contexts().client, now() + 5_000, server_hostname=tls.NAME)


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (b"N", ConnectFailed, "the server has no TLS"),
        (b"SEFATAL injected", ConnectFailed, '"15 bytes are buffered that came before TLS"'),
    ],
)
async def test_a_server_without_tls_and_one_that_was_tampered_with(
    answer: bytes, error: type[Exception], words: str
) -> None:
    async with await tcp_listen(("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:

        async def serve(stream: TcpStream) -> None:
            assert await stream.receive_exactly(8) == SSL_REQUEST
            await stream.send_all(answer)
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.receive_some()
            stream.abort()

        nursery.start_soon(trio.serve_listeners, serve, [listener])
        with pytest.raises(error, match=words):
            await connectx([listener.endpoint], establish=secure_postgres)
        nursery.cancel_scope.cancel()


def _postgres() -> Path | None:
    """The folder of PostgreSQL's programs. Debian has one for each version, none of which is on the path."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    return max(folders, key=lambda folder: [int(digits) for digits in re.findall(r"\d+", str(folder))], default=None)


@contextlib.contextmanager
def postgres() -> Iterator[Endpoint]:
    """A database server of our own with TLS. It refuses to run as root, so root gives it another user."""
    with tempfile.TemporaryDirectory() as name, faults.reserved_port("127.0.0.1") as port:
        folder = Path(name)
        programs = _postgres()
        assert programs is not None
        user: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
        data = folder / "data"
        certificate = tls.authority().issue_cert(tls.NAME)
        (folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())
        (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        (folder / "key.pem").chmod(0o600)
        if user:
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "postgres")
        with open(folder / "log", "wb") as log:
            subprocess.run(
                [programs / "initdb", "-D", data, "-A", "trust", "-U", "tester", "--no-sync"], check=True, stdout=log,
                stderr=log, cwd=folder, **user,
            )  # fmt: skip
            settings = {
                "ssl": "on", "ssl_cert_file": folder / "cert.pem", "ssl_key_file": folder / "key.pem", "fsync": "off",
                "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "",
            }  # fmt: skip
            command = [
                str(programs / "postgres"),
                "-D",
                str(data),
                *(f"--{key}={value}" for key, value in settings.items()),
            ]
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **user)
        try:
            yield Endpoint("127.0.0.1", port)
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)


async def message(stream: TlsStream) -> tuple[bytes, bytes]:
    """One message of the server: its type and what is in it."""
    head = await stream.receive_exactly(5, now() + 5_000)
    return head[:1], await stream.receive_exactly(int.from_bytes(head[1:], "big") - 4, now() + 5_000)


async def answer(stream: TlsStream) -> list[bytes]:
    """What comes in rows until the server is ready for the next query."""
    rows: list[bytes] = []
    while True:
        kind, content = await message(stream)
        if kind == b"Z":
            return rows
        if kind == b"E":
            raise EstablishFailed(repr(content))
        if kind == b"D":
            rows.append(content)


async def sign_in(stream: TcpStream) -> TlsStream:
    """Go over to TLS and say who we are. A server that still starts up refuses that, with an ErrorResponse."""
    secured = await secure_postgres(stream)
    # StartupMessage of protocol 3.0.
    words = b"user\0tester\0database\0postgres\0\0"
    await secured.send_all(struct.pack("!ii", 8 + len(words), 3 << 16) + words)
    await answer(secured)
    return secured


@pytest.fixture(scope="module")
def database() -> Iterator[Endpoint]:
    """A database server that lets us in."""

    async def wait() -> None:
        until = time.monotonic() + 20
        while True:
            try:
                await (await connectx([endpoint], now() + 5_000, establish=sign_in)).aclose()
            except ConnectFailed:
                if time.monotonic() > until:
                    raise
                await trio.sleep(0.1)
            else:
                return

    if _postgres() is None:
        pytest.skip("NOT RUN: PostgreSQL is not installed, so its own STARTTLS is not tried")
    with postgres() as endpoint:
        trio.run(wait)
        yield endpoint


async def test_postgres_answers_over_tls(database: Endpoint) -> None:
    async with await connectx([database], now() + 5_000, establish=sign_in) as stream:
        assert stream.version == "TLSv1.3"
        query = b"SELECT ssl::text || ' ' || version FROM pg_stat_ssl WHERE pid = pg_backend_pid()\0"
        await stream.send_all(b"Q" + struct.pack("!i", 4 + len(query)) + query)
        # One row of one column: what the server says of this very connection.
        assert await answer(stream) == [struct.pack("!hi", 1, 12) + b"true TLSv1.3"]


async def test_a_postgres_with_another_name_fails_the_race(database: Endpoint) -> None:
    async def secure(stream: TcpStream) -> TlsStream:
        await stream.send_all(SSL_REQUEST)
        assert await stream.receive_exactly(1, now() + 5_000) == b"S"
        return await stream.start_tls(tls.contexts().client, server_hostname="other.test")

    with pytest.raises(ConnectFailed, match=r"Hostname mismatch, certificate is not valid for 'other\.test'"):
        await connectx([database], now() + 5_000, establish=secure)


async def test_what_is_injected_before_the_tls_of_postgres_is_refused(database: Endpoint) -> None:
    """CVE-2021-23222: an answer glued to the one byte that says yes to TLS."""
    injected = b"R" + struct.pack("!ii", 8, 0)
    async with tampering(database, SSL_REQUEST, b"") as unharmed:
        await (await connectx([unharmed], now() + 5_000, establish=sign_in)).aclose()
    async with tampering(database, SSL_REQUEST, injected) as between:
        with pytest.raises(ConnectFailed, match='"9 bytes are buffered that came before TLS"'):
            await connectx([between], now() + 5_000, establish=sign_in)
    async with tampering(database, SSL_REQUEST, injected, late=True) as between:
        with pytest.raises(ConnectFailed, match="the peer speaks plain text, not TLS: it sent b'R"):
            await connectx([between], now() + 5_000, establish=sign_in)
