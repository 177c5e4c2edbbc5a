"""TLS where `TcpStream.start_tls` does not reach: inside of TLS, and over a unix-domain socket.

Clients speak TLS inside of TLS with a server behind a proxy that is itself reached over TLS.
"""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Self, final

import trio

from .. import move_on_at


@final
class NestedTls:
    """A `trio.SSLStream` that takes deadlines, and says with whom and why something failed. Made by `start`."""

    def __init__(self, session: trio.SSLStream[trio.abc.Stream], peer: str) -> None:
        self.ssl = session
        self._peer = peer

    @classmethod
    async def start(
        cls, stream: trio.abc.Stream, context: ssl.SSLContext, deadline: int, *, server_hostname: str | None, peer: str
    ) -> Self:
        """Do the handshake of a client.

        Args:
          stream: what to speak over.
          context: what the handshake is done with.
          deadline: milliseconds on the clock of `now()`; -1 for none.
          server_hostname: the name that the server has to prove.
          peer: what messages call the other end.

        Raises:
          ValueError: there is no name; `trio.SSLStream` would then verify nothing.
          trio.BrokenResourceError: the handshake failed.
          trio.TooSlowError: the deadline came first.
        """
        if server_hostname is None:
            raise ValueError(f"TLS through {peer} needs a server_hostname to verify")
        # The end of a connection without close_notify is an end for these clients, as it is in their own back ends.
        name = server_hostname.removesuffix(".")  # that no certificate has (RFC 6066 section 3)
        session = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
        made = cls(session, peer)
        with made._bounded("TLS handshake", deadline):
            await session.do_handshake()
        return made

    async def receive_some(self, max_bytes: int | None = None, deadline: int = -1) -> bytes:
        """Receive whatever comes first; b"" at the end."""
        with self._bounded("receive", deadline):
            return bytes(await self.ssl.receive_some(max_bytes))

    async def send_all(self, data: bytes, deadline: int = -1) -> None:
        """Send all of it."""
        with self._bounded("send", deadline):
            await self.ssl.send_all(data)

    async def aclose(self) -> None:
        """Close this and what it is spoken over."""
        await self.ssl.aclose()

    @contextmanager
    def _bounded(self, what: str, deadline: int) -> Generator[None]:
        try:
            with move_on_at(deadline) as scope:
                yield
        except trio.BrokenResourceError as exc:
            reason = exc.__cause__ or exc
            raise trio.BrokenResourceError(f"{what} over TLS through {self._peer} failed: {reason}") from reason
        if scope.cancelled_caught:
            raise trio.TooSlowError(f"{what} over TLS through {self._peer} had no result by its deadline")
