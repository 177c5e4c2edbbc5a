"""The bytes that a stream has read and nobody has taken yet."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK: Final = 65536
# From here on a piece is kept as it came. Smaller ones are copied together, because every bytes object costs some
# 40 bytes beside its content, and a peer that sends two bytes at a time would make us hold twenty times as much.
_LARGE: Final = _BLOCK // 4


@final
class ReceiveBuffer:
    """Bytes in arrival order: added at the end, taken from the front.

    The head is immutable bytes with an offset, because taking small records out of a large read is what this is for:
    one slice makes a record, where a bytearray or a memoryview needs two objects for each. Behind the head stand
    blocks, large pieces as they came and small ones joined up to 64 KiB. A byte is copied at most three times on its
    way to whoever takes it: into a block, with the block into the head, and out.

    One single bytearray behind the head would be shorter. It was rejected because a small `take` out of it would have
    to move all of it at once, which blocks the loop for 20 ms where 64 MiB wait.
    """

    __slots__ = ("_blocks", "_delimiter", "_head", "_rest", "_start", "_unsearched")

    def __init__(self) -> None:
        self._head = b""
        self._start = 0
        self._blocks: deque[bytes | bytearray] = deque()
        # How many bytes are in the blocks.
        self._rest = 0
        # Before the last so many bytes this delimiter does not begin. Counted from the end, so that taking from the
        # front changes nothing.
        self._delimiter = b""
        self._unsearched = 0

    def __len__(self) -> int:
        return len(self._head) - self._start + self._rest

    def take(self, size: int) -> bytes | None:
        """Take exactly `size` bytes, or None while there are fewer."""
        start = self._start
        end = start + size
        head = self._head
        if end > len(head):
            return self._take_from_blocks(size) if end - len(head) <= self._rest else None
        self._start = end
        return head[start:end]

    def _take_from_blocks(self, size: int) -> bytes:
        blocks = self._blocks
        parts: list[bytes | bytearray] = [self._head[self._start :]]
        missing = size - len(parts[0])
        self._head = b""
        self._start = 0
        while missing:
            block = blocks.popleft()
            self._rest -= len(block)
            if missing < len(block):
                self._head = block = bytes(block)  # which costs nothing where it is bytes already
                self._start = missing
                block = block[:missing]
            parts.append(block)
            missing -= len(block)
        return b"".join(parts)

    def take_up_to(self, size: int) -> bytes:
        """Take what is there, at most `size` bytes."""
        data = self.take(min(size, len(self)))
        assert data is not None
        return data

    def add(self, data: bytes) -> None:
        """Add at the end."""
        self._unsearched += len(data)
        blocks = self._blocks
        if not blocks and self._start == len(self._head):
            self._head = data
            self._start = 0
            return
        self._rest += len(data)
        if len(data) >= _LARGE:
            blocks.append(data)
        elif blocks and isinstance(last := blocks[-1], bytearray) and len(last) < _BLOCK:
            last += data
        else:
            blocks.append(bytearray(data))

    def find(self, delimiter: bytes, end: int) -> int:
        """Return how many bytes stand before the delimiter, or -1 if it is not there.

        What one call has searched in vain the next ones do not search again, as long as the delimiter stays the same.

        Args:
          delimiter: at least one byte.
          end: only the first so many bytes are looked at; the delimiter has to end among them.
        """
        total = len(self)
        if delimiter != self._delimiter:
            self._delimiter = delimiter
            self._unsearched = total
        position = max(0, total - self._unsearched)
        end = min(end, total)
        if end - position < len(delimiter):
            return -1
        found = self._search(delimiter, position, end)
        # The delimiter may have begun in the last bytes: its possible beginning is searched again with what follows.
        self._unsearched = total - (end - len(delimiter) + 1 if found < 0 else found)
        return found

    def _search(self, delimiter: bytes, position: int, end: int) -> int:
        overlap = len(delimiter) - 1
        tail = b""  # the end of the pieces before, where a delimiter may begin that goes on in the next
        for piece, low, high, offset in self._pieces(position, end):
            if tail:
                found = (tail + piece[low : min(high, low + overlap)]).find(delimiter)
                if found >= 0:
                    return offset + low - len(tail) + found
            found = piece.find(delimiter, low, high)
            if found >= 0:
                return offset + found
            if overlap:
                tail = (tail + piece[max(low, high - overlap) : high])[-overlap:]
        return -1

    def _pieces(self, position: int, end: int) -> Iterator[tuple[bytes | bytearray, int, int, int]]:
        """Give what holds the bytes from `position` to `end`: a piece, a range in it, and where the piece begins."""
        base = len(self._head) - self._start
        if position < base:
            yield self._head, self._start + position, self._start + min(base, end), -self._start
            for block in self._blocks:
                if base >= end:
                    return
                yield block, 0, min(len(block), end - base), base
                base += len(block)
            return
        # From the back, where new bytes are: going through all blocks for every piece that comes would be quadratic.
        base = len(self)
        wanted: list[tuple[bytes | bytearray, int, int, int]] = []
        for block in reversed(self._blocks):
            base -= len(block)
            if base < end:
                wanted.append((block, max(0, position - base), min(len(block), end - base), base))
            if base <= position:
                break
        yield from reversed(wanted)


EMPTY_BUFFER: Final = ReceiveBuffer()
"""The buffer of every stream that has not had to keep a byte, or is closed. Never add to it."""
