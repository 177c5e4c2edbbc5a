"""The bytes that a stream has read and nobody has taken yet."""

from __future__ import annotations

from typing import Final, final


@final
class ReceiveBuffer:
    """Bytes in arrival order: added at the end, taken from the front.

    It is immutable bytes with an offset, because taking small records out of a large read is what it is for: a
    bytearray would move the rest at every `del`, a memoryview would cost an object and a conversion per record.
    """

    __slots__ = ("_data", "_start")

    def __init__(self) -> None:
        self._data = b""
        self._start = 0

    def __len__(self) -> int:
        return len(self._data) - self._start

    def take(self, size: int) -> bytes | None:
        """Take exactly `size` bytes, or None while there are fewer."""
        start = self._start
        end = start + size
        data = self._data
        if end > len(data):
            return None
        self._start = end
        return data[start:end]

    def take_up_to(self, size: int) -> bytes:
        """Take what is there, at most `size` bytes."""
        data = self._data[self._start : self._start + size]
        self._start += len(data)
        return data

    def add(self, data: bytes) -> None:
        """Add at the end."""
        self._data = self._data[self._start :] + data
        self._start = 0

    def put_back(self, data: bytes) -> None:
        """Add at the front what had been taken from there."""
        self._data = data + self._data[self._start :]
        self._start = 0

    def find(self, delimiter: bytes, start: int) -> int:
        """Return how many bytes stand before the delimiter, searching from an offset; -1 if it is not there."""
        found = self._data.find(delimiter, self._start + start)
        return found if found < 0 else found - self._start


EMPTY_BUFFER: Final = ReceiveBuffer()
"""The buffer of every stream that has not had to keep a byte, or is closed. Never add to it."""
