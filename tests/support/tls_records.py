"""A peer that speaks TLS 1.3 record by record: what OpenSSL decides by itself, a test decides here.

The handshake is OpenSSL's. After it this takes the secrets from the key log (RFC 9850) and has the records to itself,
because Python's `ssl` has no call for a KeyUpdate, and a peer that asks for many and reads nothing is nobody's program.
"""

from __future__ import annotations

import ssl
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import attrs
import trio
import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.support import tls
from trio_connect import TcpStream

# RFC 8446 sections 5.1 and 4.6.3.
_HANDSHAKE: Final = 22
_DATA: Final = 23
_KEY_UPDATE: Final = 24


@cache
def _certificate() -> trustme.LeafCert:
    return tls.authority().issue_cert(tls.NAME)


def _expand(secret: bytes, label: str, size: int) -> bytes:
    """HKDF-Expand-Label without a context, RFC 8446 section 7.1."""
    name = b"tls13 " + label.encode()
    info = size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return HKDFExpand(SHA384(), size, info).derive(secret)


@attrs.define
class _Direction:
    """The keys of one direction, RFC 8446 sections 5.3 and 7.2."""

    secret: bytes
    sequence: int = 0

    def next_keys(self) -> None:
        self.secret = _expand(self.secret, "traffic upd", 48)
        self.sequence = 0

    def cipher(self) -> tuple[AESGCM, bytes]:
        nonce = int.from_bytes(_expand(self.secret, "iv", 12), "big") ^ self.sequence
        self.sequence += 1
        return AESGCM(_expand(self.secret, "key", 32)), nonce.to_bytes(12, "big")


@attrs.define(eq=False)
class RecordPeer:
    """The server's end of a connection over TLS 1.3."""

    stream: TcpStream
    _early: bytes
    _sends: _Direction
    _receives: _Direction
    key_updates: list[int] = attrs.field(factory=list)
    """Of each KeyUpdate that has come, whether it asks for one in return."""

    @classmethod
    async def accept(cls, stream: TcpStream) -> RecordPeer:
        """Do the handshake."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        _certificate().configure_cert(context)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.num_tickets = 0
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "keys")
            context.keylog_filename = str(log)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            session = context.wrap_bio(incoming, outgoing, server_side=True)
            while True:
                try:
                    session.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    if outgoing.pending:
                        await stream.send_all(outgoing.read())
                    incoming.write(await stream.receive_some())
            assert session.cipher() == ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)
            text = await trio.Path(log).read_text()
            lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
            secrets = {label: bytes.fromhex(secret) for label, _, secret in lines}
        # What the client has sent behind its Finished, where this came late to that.
        early = incoming.read()
        return cls(
            stream,
            early,
            _Direction(secrets["SERVER_TRAFFIC_SECRET_0"]),
            _Direction(secrets["CLIENT_TRAFFIC_SECRET_0"]),
        )

    def record(self, content: bytes, kind: int = _DATA) -> bytes:
        """Return an encrypted record."""
        inner = content + bytes([kind])
        header = bytes([_DATA, 3, 3]) + (len(inner) + 16).to_bytes(2, "big")
        cipher, nonce = self._sends.cipher()
        return header + cipher.encrypt(nonce, inner, header)

    def key_update(self, *, request: bool) -> bytes:
        """Return the record of a KeyUpdate; what is made after it has the new keys."""
        record = self.record(bytes([_KEY_UPDATE, 0, 0, 1, request]), _HANDSHAKE)
        self._sends.next_keys()
        return record

    async def send(self, *data: bytes) -> None:
        """Send each of these in a record of its own."""
        await self.stream.send_all(b"".join(map(self.record, data)))

    async def _exactly(self, size: int) -> bytes:
        data, self._early = self._early[:size], self._early[size:]
        return data + await self.stream.receive_exactly(size - len(data)) if len(data) < size else data

    async def receive(self) -> bytes:
        """Receive the data of one record; b"" at its end. KeyUpdates before it are counted and obeyed."""
        while True:
            header = await self._exactly(5)
            body = await self._exactly(int.from_bytes(header[3:], "big"))
            cipher, nonce = self._receives.cipher()
            inner = cipher.decrypt(nonce, body, header)
            content, kind = inner[:-1], inner[-1]
            if kind == _DATA:
                return content
            if kind != _HANDSHAKE:
                return b""
            assert content[:4] == bytes([_KEY_UPDATE, 0, 0, 1])
            self.key_updates.append(content[4])
            self._receives.next_keys()
