"""The receiving half of a stream.

Two rules shape this module. A receive that times out or is cancelled loses nothing: bytes go into the stream's buffer
before anything can interrupt the call, and are taken from there at its very end. And a second receiver gets
`trio.BusyResourceError` and changes nothing.

Memory and time follow what has come, never what was asked for: a size may have been read from the wire, and whoever
sends a length prefix of 1 GiB and three bytes more must cost us three bytes.
"""

from __future__ import annotations

import errno
from math import inf
from typing import TYPE_CHECKING, Any, Final

from trio import ClosedResourceError, current_time
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from ..._check import SIZE_LIMIT, check_size
from ..._deadline import NO_DEADLINE, is_late, to_seconds
from ..._errors import IncompleteRead
from ..._text import shown
from ..sockets.waiting import Expired
from .state import A, C, StreamState, turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

RECEIVE_SIZE: Final = 65536
"""What one read asks for unless told otherwise; trio.SocketStream's own default."""
_LARGEST_READ: Final = 1 << 18
"""What one read asks for at most, because recv(2) needs memory for all of it before anything has come."""


def _next_size(size: int, got: int) -> int:
    """Return what to ask the next read for: more where the last one was filled."""
    return min(2 * size, _LARGEST_READ) if got == size else RECEIVE_SIZE


class ReceivingHalf(StreamState[A, C]):
    """Everything that takes bytes from the peer."""

    __slots__ = ()

    async def receive_some(self, max_bytes: int | None = None, deadline: int = -1) -> bytes:
        """Receive whatever comes first, buffered bytes before all.

        Args:
          max_bytes: at most this many; None leaves it to the stream.
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 for what is there.

        Returns:
          At least one byte, or b"" at the end of the stream.

        Raises:
          DeadlineExceeded: nothing came in time. The stream stays usable.
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = inf if deadline.__class__ is int and deadline == NO_DEADLINE else to_seconds(deadline)
        size = RECEIVE_SIZE if max_bytes is None else check_size(max_bytes, "max_bytes", 1)
        if self._closed or self._receiving:
            self._refuse_receive()
        started = current_time() if until != inf else 0.0
        if -inf < until <= started:
            await self._refuse_late("receive", until)
        if self._buffer:
            await checkpoint_if_cancelled()
            data = self._buffer.take_up_to(size)
            await cancel_shielded_checkpoint()
            return data
        return await self._receive(min(size, _LARGEST_READ), until, started)

    async def receive_exactly(self, n: int, deadline: int = -1) -> bytes:
        """Receive exactly `n` bytes.

        Args:
          n: how many; 0 is a checkpoint and returns b"".
          deadline: milliseconds on the clock of `now()`, for all of them together; -1 for none, 0 for what is there.

        Returns:
          The `n` bytes, never fewer.

        Raises:
          DeadlineExceeded: fewer came in time; those stay buffered, `transferred` counts them.
          IncompleteRead: the peer ended the stream before; what came stays buffered.
          trio.BrokenResourceError: the connection broke; what came stays buffered.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = inf if deadline.__class__ is int and deadline == NO_DEADLINE else to_seconds(deadline)
        if n.__class__ is not int or not 0 <= n < SIZE_LIMIT:
            check_size(n, "n", 0)
        if self._closed or self._receiving:
            self._refuse_receive()
        started = current_time() if until != inf else 0.0
        if -inf < until <= started:
            await self._refuse_late("receive", until)
        if self._buffer or not 0 < n <= RECEIVE_SIZE:
            return await self._receive_exactly(n, until)
        # Nearly every call comes here, and one read mostly gives what it wants. This is `_receive` written out, because
        # its frame would be resumed at every wakeup.
        self._receiving = True
        try:
            data = await self._sock.receive(RECEIVE_SIZE, until)
        except Expired:
            raise self._exceeded("receive", started, 0) from None
        except OSError as exc:
            self._raise_broken("receive", exc)
        except ClosedResourceError:
            self._raise_closed()
        finally:
            self._receiving = False
        if self._closed:
            self._raise_closed()
        if len(data) == n:
            return data
        if not data:
            self._check_end("receive")
        return await self._complete(n, data, until, started)

    async def receive_into(self, buffer: Buffer, deadline: int = -1) -> None:
        """Fill a whole buffer.

        Args:
          buffer: a bytearray, a writable memoryview, an array; an empty one is a checkpoint.
          deadline: milliseconds on the clock of `now()`, for all of it; -1 for none, 0 for what is there.

        Raises:
          DeadlineExceeded: less came in time. What came stays buffered in the stream and will be received again.
          IncompleteRead: the peer ended the stream before; likewise.
          TypeError: the buffer is read-only or no buffer.
          trio.BrokenResourceError: the connection broke; likewise.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = to_seconds(deadline)
        try:
            whole = memoryview(buffer)
        except TypeError:
            raise TypeError(f"receive_into needs a writable buffer, got {shown(buffer)}") from None
        with whole, whole.cast("B") as view:
            if view.readonly:
                raise TypeError("receive_into needs a writable buffer")
            self._check_can_receive()
            if until != inf and is_late(until):
                await self._refuse_late("receive", until)
            await self._fill_target(view, until)

    async def receive_until(self, delimiter: bytes, max_bytes: int, deadline: int = -1) -> bytes:
        r"""Receive up to a delimiter, such as ``b"\r\n"``.

        Args:
          delimiter: at least one byte.
          max_bytes: how many bytes may stand before the delimiter.
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 for what is there.

        Returns:
          The bytes before the delimiter. The delimiter is taken from the stream too, and not returned.

        Raises:
          DeadlineExceeded: no delimiter came in time; what came stays buffered.
          IncompleteRead: the peer ended the stream before it; what came stays buffered.
          OSError: EMSGSIZE, more than `max_bytes` came without it; they stay buffered.
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = to_seconds(deadline)
        if not isinstance(delimiter, bytes | bytearray | memoryview):
            raise TypeError(f"delimiter must be bytes, got {shown(delimiter)}")
        delimiter = bytes(delimiter)
        if not delimiter:
            raise ValueError("delimiter must have at least one byte")
        check_size(max_bytes, "max_bytes", 0)
        self._check_can_receive()
        started = current_time()
        if -inf < until <= started:
            await self._refuse_late("receive", until)
        end = max_bytes + len(delimiter)
        found = -1

        def missing() -> int:
            nonlocal found
            found = self._buffer.find(delimiter, end)
            return 0 if found >= 0 or len(self._buffer) >= end else 1

        buffered = not missing()
        if not buffered:
            await self._read(missing, until, None, repr(delimiter))
        if found < 0:
            await checkpoint()
            text = f"no {delimiter!r} within {max_bytes} bytes from {self._whom()}"
            raise OSError(errno.EMSGSIZE, text)
        if buffered:
            await checkpoint_if_cancelled()
        line = self._buffer.take_up_to(found)
        self._buffer.take(len(delimiter))
        if buffered:  # each read has passed through the loop
            await cancel_shielded_checkpoint()
        return line

    def take(self, n: int) -> bytes | None:
        """Take exactly `n` buffered bytes, or None while there are fewer; never waits, no checkpoint.

        With `fill` this is the fast way through many small records::

            while (record := stream.take(64)) is None:
                if not await stream.fill():
                    break

        Args:
          n: how many bytes; 0 gives b"".

        Returns:
          The bytes; None while fewer than `n` are buffered, and once the stream is closed.

        Raises:
          trio.BusyResourceError: another task is receiving.
          TypeError: n is not an int.
          ValueError: n is negative.
        """
        if self._receiving:
            self._refuse_receive()
        if n.__class__ is not int or not 0 <= n < SIZE_LIMIT:
            check_size(n, "n", 0)
        return self._buffer.take(n)

    async def fill(self, deadline: int = -1) -> int:
        """Read once into the buffer.

        Args:
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 for what is there.

        Returns:
          How many bytes were added; 0 at the end of the stream.

        Raises:
          DeadlineExceeded: nothing came in time. The stream stays usable.
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = to_seconds(deadline)
        self._check_can_receive()
        started = current_time() if until != inf else 0.0
        if -inf < until <= started:
            await self._refuse_late("receive", until)
        data = await self._receive(RECEIVE_SIZE, until, started)
        self._own_buffer().add(data)
        return len(data)

    async def _receive(self, size: int, until: float, started: float) -> bytes:
        self._receiving = True
        try:
            data = await self._sock.receive(size, until)
        except Expired:
            raise self._exceeded("receive", started, len(self._buffer)) from None
        except OSError as exc:
            self._raise_broken("receive", exc)
        except ClosedResourceError:
            self._raise_closed()
        finally:
            self._receiving = False
        if self._closed:
            self._raise_closed()
        if not data:
            self._check_end("receive")
        return data

    async def _complete(self, n: int, data: bytes, until: float, started: float) -> bytes:
        """Return `n` bytes, where nothing was buffered and a first read of `RECEIVE_SIZE` has given these."""
        if not data:
            raise self._incomplete(n, f"{n} bytes")
        buffer = self._own_buffer()
        buffer.add(data)
        if len(data) < n:
            await self._read(lambda: n - len(buffer), until, n, f"{n} bytes", since=started)
        return buffer.take_up_to(n)

    async def _receive_exactly(self, n: int, until: float, *, ahead: bool = True) -> bytes:
        buffered = len(self._buffer) >= n
        if buffered:
            await checkpoint_if_cancelled()
        else:
            await self._read(lambda: n - len(self._buffer), until, n, f"{n} bytes", ahead=ahead)
        data = self._buffer.take_up_to(n)
        if buffered:  # each read has passed through the loop
            await cancel_shielded_checkpoint()
        return data

    async def _read(
        self,
        missing: Callable[[], int],
        until: float,
        expected: int | None,
        what: str,
        *,
        ahead: bool = True,
        since: float | None = None,
    ) -> None:
        """Read into the buffer, once at least, until nothing is missing.

        Args:
          missing: says how many bytes are, at least.
          until: the deadline, in Trio time.
          expected: how many bytes were asked for, where a number was.
          what: the same in words, for the error at the end of the stream.
          ahead: whether more may be read than is missing, when it has come.
          since: when the call began, where it has read once already.
        """
        started = current_time() if since is None else since
        size = RECEIVE_SIZE
        for _ in turns(until, begun=since is not None):
            data = await self._receive(size if ahead else min(size, missing()), until, started)
            if not data:
                raise self._incomplete(expected, what)
            self._own_buffer().add(data)
            if missing() <= 0:
                return
            size = _next_size(size, len(data))
        raise self._exceeded("receive", started, len(self._buffer))

    async def _fill_target(self, view: memoryview, until: float) -> None:
        """Fill a buffer without a detour; whatever ends this early keeps the bytes."""
        buffered = len(self._buffer)
        if len(view) <= buffered:
            await checkpoint_if_cancelled()
            view[:] = self._buffer.take_up_to(len(view))
            await cancel_shielded_checkpoint()
            return
        started = current_time()
        # What is buffered stays there until the rest has come: a caller that polls must not pay for it each time.
        count = buffered
        self._receiving = True
        try:
            for _ in turns(until):
                got = await self._sock.receive_into(view[count:], until)
                if self._closed:
                    self._raise_closed()
                count += got
                if not got or count == len(view):
                    break
            else:
                raise Expired
        except Expired:
            raise self._exceeded("receive", started, count) from None
        except OSError as exc:
            self._raise_broken("receive", exc)
        except ClosedResourceError:
            self._raise_closed()
        finally:
            self._receiving = False
            if buffered < count < len(view) and not self._closed:
                self._own_buffer().add(bytes(view[buffered:count]))
        if count < len(view):
            self._check_end("receive")
            raise self._incomplete(len(view), f"{len(view)} bytes")
        if buffered:
            view[:buffered] = self._buffer.take_up_to(buffered)

    def _incomplete(self, expected: int | None, what: str) -> IncompleteRead:
        available = len(self._buffer)
        text = f"{self._whom()} ended the stream before {what}; {available} bytes came and stay buffered"
        return IncompleteRead(text, expected=expected, available=available)


async def receive_without_reading_ahead(stream: ReceivingHalf[Any, Any], n: int, until: float) -> bytes:
    """Receive exactly `n` bytes, and leave in the kernel what comes after them.

    For streams where a descriptor may ride on any byte. No method, because users have `ReceivingHalf.receive_into`,
    which needs memory for all of it before anything has come.

    Args:
      stream: where from.
      n: how many bytes.
      until: the deadline, in Trio time.

    Returns:
      The bytes.

    Raises:
      DeadlineExceeded: as `ReceivingHalf.receive_exactly`, and so are the others.
    """
    stream._check_can_receive()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - of this module
    return await stream._receive_exactly(n, until, ahead=False)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - likewise
