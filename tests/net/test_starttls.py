"""STARTTLS with servers of others: SMTP by aiosmtpd, PostgreSQL by its own server where it is installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink

from tests.support import tls
from trio_connect import ConnectFailed, Endpoint, EstablishFailed, TcpStream, TlsStream, connectx, now, tcp_listen


def free_port() -> int:
    """A port for a server that chooses none itself."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# --- SMTP, RFC 3207 ---------------------------------------------------------------------------------------------------


@pytest.fixture
def mail_server() -> Iterator[Endpoint]:
    """A mail server that takes nothing before STARTTLS."""
    port = free_port()
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


async def test_tls_at_once_to_a_port_with_starttls_is_told_as_plain_text(mail_server: Endpoint) -> None:
    with pytest.raises(ConnectFailed, match="the peer speaks plain text, not TLS: it sent b'220 "):
        await connectx([mail_server], now() + 5_000, tls=tls.contexts().client, server_hostname=tls.NAME)


async def test_what_is_injected_before_tls_is_refused() -> None:
    """RFC 3207 section 6 and CVE-2011-0411: an answer glued to the one to STARTTLS."""
    async with await tcp_listen(("127.0.0.1", 0)) as listener, trio.open_nursery() as nursery:

        async def inject(stream: TcpStream) -> None:
            await stream.send_all(b"220 mail.test\r\n")
            await stream.receive_until(b"\r\n", 512)
            await stream.send_all(b"250 STARTTLS\r\n")
            await stream.receive_until(b"\r\n", 512)
            await stream.send_all(b"220 go ahead\r\n250-injected\r\n250 AUTH PLAIN\r\n")
            await stream.receive_some()
            stream.abort()

        nursery.start_soon(trio.serve_listeners, inject, [listener])
        with pytest.raises(RuntimeError, match=r"30 bytes from .* are buffered that came before TLS"):
            await connectx([listener.endpoint], establish=secure_smtp)
        nursery.cancel_scope.cancel()


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
        (b"SEFATAL injected", RuntimeError, "15 bytes from .* are buffered that came before TLS"),
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
    found = shutil.which("postgres")
    return None if found is None else Path(found).resolve().parent


@contextlib.contextmanager
def postgres() -> Iterator[Endpoint]:
    """A database server of our own with TLS. It refuses to run as root, so root gives it another user."""
    with tempfile.TemporaryDirectory() as name:
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
        port = free_port()
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


async def sign_in(stream: TcpStream) -> TlsStream:
    """Go over to TLS and say who we are. A server that still starts up refuses that, with an ErrorResponse."""
    secured = await secure_postgres(stream)
    # StartupMessage of protocol 3.0, and the beginning of the answer: AuthenticationOk.
    words = b"user\0tester\0database\0postgres\0\0"
    await secured.send_all(struct.pack("!ii", 8 + len(words), 3 << 16) + words)
    if await secured.receive_exactly(9, now() + 5_000) != b"R" + struct.pack("!ii", 8, 0):
        raise EstablishFailed("the server lets nobody in yet")
    return secured


async def once_it_has_started(endpoint: Endpoint) -> TlsStream:
    until = time.monotonic() + 20
    while True:
        try:
            return await connectx([endpoint], now() + 5_000, establish=sign_in)
        except ConnectFailed:
            if time.monotonic() > until:
                raise
            await trio.testing.wait_all_tasks_blocked(0.1)


@pytest.mark.skipif(_postgres() is None, reason="PostgreSQL is not installed: its own TLS is not tried")
async def test_postgres_answers_over_tls() -> None:
    with postgres() as endpoint:
        async with await once_it_has_started(endpoint) as stream:
            assert isinstance(stream.ssl.context, ssl.SSLContext)
