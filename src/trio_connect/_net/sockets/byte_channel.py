"""What a stream of ours moves its bytes through: a stream socket, or TLS over a connection.

Every point in time here is in Trio time; `inf` waits for ever, and -inf asks for one try.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from .waiting import Expired

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer


class ByteChannel(ABC):
    """Bytes in both directions. Each coroutine is a checkpoint, and raises `Expired` when `until` came first."""

    __slots__ = ("lost",)

    lost: int
    """The errno that broke the connection, 0 while it lives. Linux tells it once."""

    @abstractmethod
    async def receive(self, size: int, until: float) -> bytes:
        """Receive up to `size` bytes; b"" at the end of the stream."""

    @abstractmethod
    async def receive_into(self, view: memoryview, until: float) -> int:
        """Receive into a buffer what is there, or what comes first, and return how much; 0 at the end only."""

    @abstractmethod
    async def send(self, data: Buffer, until: float) -> int:
        """Send some of the bytes and return how many."""

    @abstractmethod
    async def send_buffers(self, buffers: Sequence[Buffer], until: float) -> int:
        """Send some of the bytes of several buffers and return how many."""

    async def exchange(self, data: bytes, size: int, until: float) -> tuple[int, bytes | None]:
        """Send, and once all is sent receive up to `size` bytes, with as few checkpoints as can be.

        Returns:
          How many bytes were sent, and what came: b"" at the end, None where not all was sent or `until` came first.

        Raises:
          Expired: nothing was sent until then.
        """
        sent = await self.send(data, until)
        if sent < len(data):
            return sent, None
        try:
            return sent, await self.receive(size, until)
        except Expired:
            return sent, None

    @abstractmethod
    async def wait_writable(self) -> None:
        """Wait until a send would not block."""
