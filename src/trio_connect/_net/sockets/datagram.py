"""A datagram socket, of the kernel or of a socket factory.

Nothing here is worth a fast path of its own, so both kinds are Trio's: its own socket, or the object that the run's
socket factory made.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, final

import trio

from .open import factory_installed

if TYPE_CHECKING:
    from typing_extensions import Buffer


@final
class DatagramSocket:
    """An open datagram socket."""

    __slots__ = ("_sock", "raw")

    def __init__(self, family: int) -> None:
        self.raw: socket.socket | None = None
        """The kernel's socket, for whoever waits for it by other means than Trio's; None for a factory's."""
        if factory_installed():
            self._sock = trio.socket.socket(family, socket.SOCK_DGRAM)
        else:
            self.raw = socket.socket(family, socket.SOCK_DGRAM)
            self._sock = trio.socket.from_stdlib_socket(self.raw)
        if family == socket.AF_INET6:
            try:
                # "::" shall mean the same on every machine, whatever net.ipv6.bindv6only says.
                self._sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            except OSError:
                pass  # a fake may know no options at all
            except BaseException:
                self._sock.close()
                raise

    @property
    def family(self) -> int:
        """The address family."""
        return self._sock.family

    async def bind(self, address: Any) -> None:
        """Bind to a local address."""
        await self._sock.bind(address)

    async def connect(self, address: Any) -> None:
        """Set where to send, and from whom alone to receive. Nothing is sent."""
        await self._sock.connect(address)

    async def send(self, data: Buffer) -> int:
        """Send one datagram to where this socket is connected."""
        return await self._sock.send(data)

    async def send_to(self, data: Buffer, address: Any) -> int:
        """Send one datagram."""
        return await self._sock.sendto(data, address)

    async def receive(self, size: int) -> tuple[bytes, Any, bool]:
        """Receive one datagram, its sender, and whether it was longer than `size` and cut off, recvfrom(2)."""
        # One byte more than is wanted tells: MSG_TRUNC of recvmsg(2) is not there on every platform, nor in a fake.
        data, sender = await self._sock.recvfrom(size + 1)
        return data[:size], sender, len(data) > size

    def getsockname(self) -> Any:
        """Return the local address."""
        return self._sock.getsockname()

    def close(self) -> None:
        """Close. A second call does nothing."""
        self._sock.close()
