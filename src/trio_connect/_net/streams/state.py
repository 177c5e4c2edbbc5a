"""What the two directions of a stream share: the socket or the TLS over it, who is using it, and how it broke."""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from math import inf
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar

import trio
from trio import current_time
from trio.lowlevel import checkpoint

from ..._errors import DeadlineExceeded
from ..._messages import call_exceeded, call_late, strerror
from ..._text import printable
from ..sockets.byte_channel import ByteChannel
from ..sockets.kernel_socket import KernelSocket
from .buffer import EMPTY_BUFFER, ReceiveBuffer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..reports import Recorded

A = TypeVar("A")
C = TypeVar("C", bound=ByteChannel)

_NOBODY: Final = "a peer without a name"
_PREPOSITIONS: Final = {"send": "to", "receive": "from"}


class StreamState(Generic[A, C]):
    """The state of one connection: its address is an A, its bytes go through a C.

    An operation belongs to one task per direction.
    """

    # All of them here, none in the halves: of two bases with slots of their own no class can be made.
    __slots__ = (
        "__weakref__",
        "_buffer",
        "_closed",
        "_draining",
        "_eof_sent",
        "_host",
        "_local",
        "_peer",
        "_receiving",
        "_report",
        "_sending",
        "_sock",
    )  # fmt: skip

    _sock: C
    _buffer: ReceiveBuffer
    _peer: A
    _host: str | None
    """Of a `TcpStream`, and missing until somebody sets it: most never do."""
    _local: A | None
    _report: Recorded
    _receiving: bool
    _sending: bool
    _eof_sent: bool
    _closed: bool
    _draining: bool

    def __init__(self, sock: C, peer: A, report: Recorded = None) -> None:
        if sock.__class__ is not KernelSocket and not isinstance(sock, ByteChannel):
            raise TypeError(f"{type(self).__name__} is made by connecting, accepting or from_socket(), not directly")
        self._sock = sock
        self._buffer = EMPTY_BUFFER
        self._peer = peer
        self._local: A | None = None
        self._report = report
        self._receiving = self._sending = self._eof_sent = self._closed = self._draining = False

    def _own_buffer(self) -> ReceiveBuffer:
        """Return a buffer of this stream's own to put bytes into, made when it is first needed."""
        if self._buffer is EMPTY_BUFFER:
            self._buffer = ReceiveBuffer()
        return self._buffer

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError(f"{self._named()} is closed")

    def _check_can_receive(self) -> None:
        if self._closed or self._receiving:
            self._refuse_receive()

    def _refuse_receive(self) -> NoReturn:
        self._check_open()
        raise trio.BusyResourceError(f"another task is receiving from {self._named()}")

    def _check_can_send(self) -> None:
        self._check_open()
        if self._sending:
            raise trio.BusyResourceError(f"another task is sending to {self._named()}")

    def _check_can_send_bytes(self) -> None:
        if self._closed or self._sending or self._eof_sent:
            self._check_can_send()
            raise trio.ClosedResourceError(f"nothing can be sent after send_eof() on {self._named()}")

    def _raise_broken(self, what: str, exc: OSError) -> NoReturn:
        # While a graceful close drains, the stream is closed for everybody but it. EBADF: closed through .socket.
        if (self._closed and not self._draining) or exc.errno == errno.EBADF:
            self._raise_closed()
        code = exc.errno or errno.EIO
        # After EPIPE the other direction may still end well: the peer closed, and had sent all it wanted to.
        if code != errno.EPIPE:
            self._sock.lost = code
        text = f"{what}: connection with {self._whom()} broke: {strerror(code)}"
        raise trio.BrokenResourceError(text) from exc

    def _raise_closed(self) -> NoReturn:
        raise trio.ClosedResourceError(f"{self._named()} was closed by another task") from None

    def _check_end(self, what: str) -> None:
        """Tell the end of the stream from a broken one.

        The kernel tells an error once, to whichever call comes first, and says "end of stream" to all others.
        """
        code = self._sock.lost
        if code:
            self._raise_broken(what, OSError(code, os.strerror(code)))

    def _named(self) -> str:
        """Return what a message calls this: of many streams one is meant."""
        whom = self._whom()
        return "this stream" if whom == _NOBODY else f"the stream with {whom}"

    def _whom(self) -> str:
        """Return what a message calls the peer. A unix-domain client has no name, so that of our end tells."""
        if self._peer:
            return printable(str(self._peer))
        try:
            own = self._local if self._closed else self.local
        except OSError:
            own = None  # closed through .socket
        return f"a client of {printable(str(own))}" if own else _NOBODY

    @property
    @abstractmethod
    def local(self) -> A:
        """The local address."""

    def _described(self, what: str) -> str:
        return f"{what} {_PREPOSITIONS.get(what, 'with')} {self._whom()}"

    async def _refuse_late(self, what: str, until: float) -> NoReturn:
        """Refuse a call that begins at or after its deadline, a point in Trio time.

        Raises:
          DeadlineExceeded: after a checkpoint, so that an enclosing scope is heard first.
        """
        late_by = current_time() - until
        await checkpoint()
        raise call_late(self._described(what), late_by)

    def _exceeded(self, what: str, started: float, transferred: int) -> DeadlineExceeded:
        elapsed = current_time() - started
        return call_exceeded(self._described(what), elapsed, transferred=transferred)


def turns(until: float, *, begun: bool = False) -> Iterator[None]:
    """Count the steps of a call of several: one at least, and one more after `until`, a point in Trio time.

    Args:
      until: when.
      begun: whether the first of them has been made.
    """
    if not begun:
        yield
    while until == inf or current_time() < until:
        yield
    yield
