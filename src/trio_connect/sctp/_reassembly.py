"""Pieces of messages in, whole messages out.

A message above the kernel's partial delivery point comes in pieces, and only the last has MSG_EOR, RFC 6458 section
8.1.21. On a one-to-one socket no other message comes between two pieces, but notifications do.
"""

from __future__ import annotations

from typing import Final

from ._values import Message
from ._wire import ReceiveInfo

MAX_MESSAGE: Final = 1 << 24
"""Bytes that a message may have. A peer that never ends one must not fill the memory."""


class MessageTooLong(Exception):
    """A peer's message has more bytes than are accepted."""


class Reassembly:
    """The message that is under way.

    Args:
      limit: bytes that a message may have.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, piece: bytes, info: ReceiveInfo, *, end: bool) -> Message | None:
        """Take a piece, and return the message that it completes.

        Args:
          piece: its bytes.
          info: what the kernel says of it.
          end: whether it is the last of its message (MSG_EOR).

        Raises:
          MessageTooLong: with it the message has too many bytes. It is forgotten.
        """
        self._size += len(piece)
        if self._size > self._limit:
            self.forget()
            raise MessageTooLong(f"more than {self._limit} bytes")
        self._pieces.append(piece)
        if not end:
            return None
        data = b"".join(self._pieces) if len(self._pieces) > 1 else piece
        self.forget()
        return Message(data, info.stream, info.ppid, info.unordered, info.tsn)

    def forget(self) -> None:
        """Drop what has come of a message: the rest of it will not."""
        self._pieces = []
        self._size = 0
