"""The byte stream interface: `bsend`, `brecv`, and their scatter/gather forms."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, final

import attrs

from .._check import SIZE_LIMIT, check_int
from .._deadline import to_seconds
from .._net.streams.receiving import receive_without_reading_ahead
from .._text import shown
from ._failures import check_deadline, failure, refuse
from ._handles import find
from ._kinds import IpcConnection, TcpConnection

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

# A receive of at most this size reads through the stream's buffer, which takes more than was asked for. A larger one
# reads straight into its memory.
_READ_AHEAD: Final = 65536


@final
@attrs.define(eq=False)
class iolist:  # noqa: N801 - libdill's name
    """One piece of a scatter/gather list, as in libdill.

    Args:
      iol_base: the memory; None in `brecvl` skips `iol_len` bytes.
      iol_len: how many of its bytes.
      iol_next: the next piece; None in the last.
      iol_rsvd: 0.

    libdill: bsendl(3), brecvl(3).
    """

    iol_base: Buffer | None = None
    iol_len: int = 0
    iol_next: iolist | None = None
    iol_rsvd: int = 0


async def bsend(s: int, buf: Buffer | None, len: int, deadline: int) -> int:
    """Send `len` bytes of a buffer, all of them or an error.

    Returns when the kernel has taken them, not when the peer has them.

    Args:
      s: the handle of a connection.
      buf: the bytes; may be None when `len` is 0.
      len: how many, from the beginning.
      deadline: milliseconds on the clock of `now()`, for all of them; -1 for none, 0 for what fits now.

    Returns:
      0.

    Raises:
      DeadlineExceeded: ETIMEDOUT; `transferred` says how many bytes the kernel took, the handle stays usable.
      OSError: EBADF, no such handle, or it was closed meanwhile; EBUSY, another task is sending; ECONNRESET, the
        connection is broken; EINVAL, `len` does not fit the buffer, or the deadline is negative and not -1; ENOTSUP,
        a listener; EPIPE, after `tcp_done` or `ipc_done`. What the kernel says about a failing network comes as it is.
      TypeError: an argument has the wrong type.

    libdill: bsend(3).
    """
    return await _send(s, [(buf, _check_size(len))], deadline)


async def bsendl(s: int, first: iolist | None, last: iolist | None, deadline: int) -> int:
    """Send the pieces of a list one after the other, all bytes or an error.

    Args:
      s: the handle of a connection.
      first: the first piece.
      last: the last piece, which has no next.
      deadline: as in `bsend`.

    Returns:
      0.

    Raises:
      DeadlineExceeded: as in `bsend`.
      OSError: as in `bsend`; EINVAL also for a list that does not end at `last`, goes round in circles, is None, or
        has a piece whose `iol_rsvd` is not 0 or whose memory is None or too small.
      TypeError: an argument has the wrong type.

    libdill: bsendl(3).
    """
    return await _send(s, _pieces(first, last), deadline)


async def brecv(s: int, buf: Buffer | None, len: int, deadline: int) -> int:
    """Receive exactly `len` bytes into a buffer.

    Nothing is lost by an error, a timeout or a cancellation half-way: what had come stays with the connection and
    is received again, though the buffer may have been written to.

    Args:
      s: the handle of a connection.
      buf: a bytearray or another writable buffer of at least `len` bytes; None skips them. Skipped bytes
        take memory until all of them have come, so skip many in pieces.
      len: how many.
      deadline: milliseconds on the clock of `now()`, for all of them; -1 for none, 0 for what is there.

    Returns:
      0.

    Raises:
      DeadlineExceeded: ETIMEDOUT; `transferred` says how many had come, the handle stays usable.
      OSError: EBADF, no such handle, or it was closed meanwhile; EBUSY, another task is receiving; ECONNRESET, the
        connection is broken; EINVAL, `len` does not fit the buffer, or the deadline is negative and not -1; ENOTSUP,
        a listener; EPIPE, the peer ended the stream before; its `__cause__` is an `IncompleteRead`, and `available`
        there says how many bytes can still be received. What the kernel says about a failing network comes as it is.
      TypeError: an argument has the wrong type.

    libdill: brecv(3).
    """
    return await _receive(s, [(buf, _check_size(len))], deadline)


async def brecvl(s: int, first: iolist | None, last: iolist | None, deadline: int) -> int:
    """Receive into the pieces of a list, one after the other and all of them full. A piece without memory is skipped.

    Args:
      s: the handle of a connection.
      first: the first piece.
      last: the last piece, which has no next.
      deadline: as in `brecv`.

    Returns:
      0.

    Raises:
      DeadlineExceeded: as in `brecv`.
      OSError: as in `brecv`; EINVAL also for a list that does not end at `last`, goes round in circles, is None, or
        has a piece whose `iol_rsvd` is not 0 or whose memory is too small.
      TypeError: an argument has the wrong type.

    libdill: brecvl(3).
    """
    return await _receive(s, _pieces(first, last), deadline)


Piece = tuple["Buffer | None", int]


def _check_size(size: object) -> int:
    length = check_int(size, "len")
    if length < 0:
        raise failure(errno.EINVAL, f"a length is at least 0, got {length}")
    if length >= SIZE_LIMIT:
        raise failure(errno.EINVAL, f"a length is below 2**40, got {shown(length)}: a deadline?")
    return length


def _pieces(first: iolist | None, last: iolist | None) -> list[Piece]:
    if first is None or last is None:
        raise failure(errno.EINVAL, "a list needs a first and a last piece")
    return list(_walk(first, last))


def _walk(first: iolist, last: iolist) -> Iterator[Piece]:
    seen: set[int] = set()
    piece: iolist | None = first
    while piece is not None:
        if not isinstance(piece, iolist):
            raise TypeError(f"a list is made of iolist objects, got {shown(piece)}")
        if id(piece) in seen:
            raise failure(errno.EINVAL, "the list goes round in circles")
        if piece.iol_rsvd:
            raise failure(errno.EINVAL, f"iol_rsvd must be 0, got {shown(piece.iol_rsvd)}")
        seen.add(id(piece))
        if (piece is last) != (piece.iol_next is None):
            raise failure(errno.EINVAL, "the list does not end at its last piece")
        yield piece.iol_base, _check_size(piece.iol_len)
        piece = piece.iol_next


def _view(stack: ExitStack, memory: Buffer, size: int) -> memoryview:
    # Released in the end: a bytearray cannot be resized while a traceback keeps a view of it.
    try:
        whole = memoryview(memory)
    except TypeError:
        raise TypeError(f"a buffer is a bytes-like object, got {shown(memory)}") from None
    stack.callback(whole.release)
    if size > whole.nbytes:
        raise failure(errno.EINVAL, f"{size} bytes do not fit a buffer of {whole.nbytes}")
    return stack.enter_context(stack.enter_context(whole.cast("B"))[:size])


async def _send(s: int, pieces: Sequence[Piece], deadline: int) -> int:
    connection = await find(s, TcpConnection, IpcConnection)
    deadline = check_deadline(deadline)
    if code := connection.outgoing.refusal():
        await refuse(code, f"sending on handle {s}")
    with ExitStack() as stack:
        views: list[memoryview] = []
        for memory, size in pieces:
            if memory is not None:
                views.append(_view(stack, memory, size))
            elif size:
                raise failure(errno.EINVAL, f"{size} bytes of nothing")
        with connection.outgoing:
            await connection.stream.send_all(views, deadline)
    return 0


async def _receive(s: int, pieces: Sequence[Piece], deadline: int) -> int:
    connection = await find(s, TcpConnection, IpcConnection)
    deadline = check_deadline(deadline)
    stream = connection.stream
    total = sum(size for _, size in pieces)
    code = connection.incoming.refusal()
    # What came before the end, or before the error, can still be received.
    if code and (code == errno.EBUSY or not 0 < total <= stream.buffered):
        await refuse(code, f"receiving on handle {s}")
    # A descriptor may ride on any byte of a unix-domain stream, so not one byte of it is read ahead.
    exact = isinstance(connection, IpcConnection)
    with ExitStack() as stack:
        views: list[memoryview | None] = []
        for memory, size in pieces:
            view = None if memory is None else _view(stack, memory, size)
            if view is not None and view.readonly:
                raise TypeError("receiving needs a writable buffer")
            views.append(view)
        with connection.incoming:
            if len(views) == 1 and views[0] is not None and (exact or total > _READ_AHEAD):
                await stream.receive_into(views[0], deadline)
                return 0
            if exact:
                data = await receive_without_reading_ahead(stream, total, to_seconds(deadline))
            else:
                data = await stream.receive_exactly(total, deadline)
        start = 0
        for view, (_, size) in zip(views, pieces, strict=True):
            if view is not None:
                view[:] = data[start : start + size]
            start += size
    return 0
