"""The contract of a stream socket: what attempts, streams and listeners ask of one, and nothing else.

Two classes keep it. `KernelSocket` is a descriptor of the kernel's under Trio's wait functions. `FactorySocket` is
whatever the socket factory of a run has made, for ``trio.socket.set_custom_socket_factory`` is honoured everywhere.
`open.open_stream_socket` chooses. Every point in time here is in Trio time; `inf` waits for ever, and -inf asks for one
try.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from abc import abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol, TypeAlias, TypeVar

import trio
from trio import current_time
from trio.lowlevel import checkpoint

from ..._messages import own_words
from .byte_channel import ByteChannel
from .interface import bind_to_interface
from .options import refused
from .waiting import Expired

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence
    from typing import Self

    from typing_extensions import Buffer

    from ..._report import Phase
    from .options import Plan

T = TypeVar("T")

Ancillary: TypeAlias = "tuple[int, int, Buffer]"
"""Level, type and data of a control message, cmsg(3)."""

LINGER_ABORT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER, socket(7), with which close(2) sends RST."""
PEER_BUFFER: Final = 16 << 20
"""The peer's send buffer, which nobody can ask for: four times what Linux tunes itself to, tcp_wmem in tcp(7)."""
SHORT_READS: Final = 256
"""How many passes of a discard may find less than a full share. A peer that trickles must not keep a close for long."""

EMPTY_READS: Final = 32
"""How many passes of a discard in a row may find nothing where the peer's kernel was waiting for room."""

LONGEST_YIELD: Final = 0.010
"""Seconds that a discard gives to others in all. On a busy machine each turn of somebody else's takes milliseconds, in
which no task of this program runs."""

# linux/in.h; only Linux builds of the socket module have it.
IPPROTO_MPTCP: Final = int(getattr(socket, "IPPROTO_MPTCP", 262))
# linux/socket.h and linux/mptcp.h.
_SOL_MPTCP: Final = 284
_MPTCP_INFO: Final = 1
# The beginning of struct mptcp_info, up to mptcpi_subflows_total.
MPTCP_INFO_SIZE: Final = 81

CONNECTION_ERRORS: Final = frozenset(
    getattr(errno, name)
    for name in (
        "EPERM", "ECONNABORTED", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH",
        "EOPNOTSUPP", "ENETUNREACH", "ENOSR", "ESOCKTNOSUPPORT", "EPROTONOSUPPORT", "ETIMEDOUT", "ECONNRESET",
    )
    if hasattr(errno, name)
)  # fmt: skip
"""What `StreamSocket.accept` skips.

accept(2), "Error handling": Linux passes errors that are already pending on the new connection as an error from
accept(), which is to be tried again; EPERM says that firewall rules forbid the connection. The list is the one of
trio.SocketListener, whose source gives the reason of each.
"""


class LocalFailure(Exception):
    """An attempt ended before anything could leave this machine."""

    def __init__(self, code: int, phase: Phase, detail: str = "") -> None:
        super().__init__(code, phase, detail)
        self.code = code
        self.phase: Phase = phase
        self.detail = detail
        """What the errno does not say, such as which socket option was refused."""

    @classmethod
    def of(cls, error: OSError, phase: Phase) -> LocalFailure:
        """Return the failure that an error of the system means."""
        return cls(errno_of(error), phase, own_words(error))


def errno_of(exc: OSError) -> int:
    """Return an exception's errno; fakes may raise an OSError without one."""
    return exc.errno or errno.EIO


class Closable(Protocol):
    """What `close_on_error` closes."""

    def close(self) -> object:
        """Close it."""


@contextmanager
def close_on_error(*sockets: Closable) -> Generator[None, None, None]:
    """Close these when the block raises anything."""
    try:
        yield
    except BaseException:
        for sock in sockets:
            sock.close()
        raise


class StreamSocket(ByteChannel):
    """One stream socket: TCP or unix-domain, connecting, connected or listening.

    Its owner closes it, exactly once; nothing is closed by a finaliser or by a failed or cancelled call. No method but
    those that say so is a checkpoint on every path.
    """

    __slots__ = ("_sock",)

    in_kernel: ClassVar[bool]
    """Whether this is a socket of the kernel, which knows every option, and whose descriptor may be given to it."""

    _sock: Any
    shared: bool
    """Whether somebody else has the socket or its descriptor, and so may wait on it when it is closed."""

    # ------------------------------------------------------------------ connecting

    @abstractmethod
    def begin(self, address: Any) -> int:
        """Start connecting, connect(2).

        Returns:
          0 for connected, EALREADY where it goes on or nobody can say yet, else the errno. EALREADY also when the
          handshake is over and connect(2) only could not say so, as on plain loopback: `poll` it.
        """

    @abstractmethod
    def poll(self, address: Any) -> int:
        """Ask a connect that has begun, without waiting: 0, EALREADY, or its errno."""

    @abstractmethod
    async def finish(self, address: Any, until: float) -> int:
        """Wait for a connect that has begun: 0, or its errno.

        Raises:
          Expired: `until` came first; one more poll was made.
          LocalFailure: a socket that binds only now could not be bound.
        """

    @abstractmethod
    def bind_to_connect(self, address: Any) -> None:
        """Bind to the local address that the connect will come from; where that is a coroutine, as `finish` begins."""

    @abstractmethod
    async def bind(self, address: Any) -> None:
        """Bind to a local address. Never waits."""

    def listen(self, backlog: int) -> None:
        """Start listening, listen(2)."""
        self._sock.listen(backlog)

    @abstractmethod
    async def accept(self, until: float) -> tuple[Self, Any]:
        """Accept one connection, skipping `CONNECTION_ERRORS`: its socket, and the address of the peer. A checkpoint.

        Raises:
          Expired: `until` came first.
        """

    # ------------------------------------------------------------------ moving bytes: those of `ByteChannel`, and

    @abstractmethod
    async def send_message(self, data: bytes, ancillary: Sequence[Ancillary], until: float) -> int:
        """Send bytes with ancillary data riding on them, see sendmsg(2)."""

    @abstractmethod
    async def receive_message(
        self, size: int, room: int, flags: int, until: float
    ) -> tuple[bytes, Sequence[tuple[int, int, bytes]], int]:
        """Receive up to `size` bytes and up to `room` bytes of ancillary data, and the flags of recvmsg(2)."""

    @abstractmethod
    def receive_now(self, size: int) -> bytes | None:
        """Receive up to `size` bytes without a task: b"" at the end of the stream, None where nothing has come.

        Raises:
          NotImplementedError: something has come, and only a coroutine of this socket could take it.
        """

    # ------------------------------------------------------------------ ending

    def shutdown_write(self) -> None:
        """Send FIN once what was sent before has gone."""
        self._sock.shutdown(socket.SHUT_WR)

    @abstractmethod
    async def discard(self) -> None:
        """Throw away what has been received, without waiting for the peer; never raises."""

    @abstractmethod
    def wake(self) -> None:
        """Wake every task that waits on this socket with `trio.ClosedResourceError`."""

    @abstractmethod
    def close(self) -> None:
        """Close; what was sent is still delivered unless unread input makes the kernel send RST."""

    def abort(self) -> None:
        """Close with RST."""
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ABORT)
        except OSError:
            pass
        self.close()

    # ------------------------------------------------------------------ the rest

    def multipath_info(self) -> bytes | None:
        """Return what the kernel knows of an MPTCP connection, struct mptcp_info; None for plain TCP."""
        try:
            info = self._sock.getsockopt(_SOL_MPTCP, _MPTCP_INFO, MPTCP_INFO_SIZE)
        except (OSError, NotImplementedError):  # EOPNOTSUPP or ENOPROTOOPT: plain TCP, or fallen back to it
            return None
        return info if isinstance(info, bytes) else None

    @property
    def is_multipath(self) -> bool:
        """Whether it was made as an MPTCP socket. What became of its connection, `multipath_info` says."""
        try:
            return bool(self._sock.proto == IPPROTO_MPTCP)
        except (AttributeError, NotImplementedError):  # a fake
            return False

    def set_options(self, plan: Plan) -> None:
        """Set socket options.

        Raises:
          OSError: one was refused; the text says which.
        """
        for level, option, value in plan:
            try:
                self._sock.setsockopt(level, option, value)
            except OSError as exc:
                who = "an MPTCP socket" if self.is_multipath else "the system"
                raise refused(exc, level, option, by=who) from exc

    def bind_to_interface(self, name: str) -> None:
        """Send through one interface only.

        Raises:
          OSError: there is no such interface, or this platform cannot.
        """
        bind_to_interface(self._sock, name)

    def setsockopt(self, level: int, option: int, value: int | Buffer) -> None:
        """Set one socket option."""
        self._sock.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, size: int) -> int | bytes:
        """Return one socket option: an int for size 0."""
        value: int | bytes = (
            self._sock.getsockopt(level, option, size) if size else self._sock.getsockopt(level, option)
        )
        return value

    def getsockname(self) -> Any:
        """Return the local address."""
        return self._sock.getsockname()

    def getpeername(self) -> Any:
        """Return the remote address."""
        return self._sock.getpeername()

    async def check_open(self) -> None:
        """Refuse to wait for one that somebody has closed who was given it: -1 is not a descriptor.

        Raises:
          OSError: EBADF, after a checkpoint.
        """
        if self.fileno() == -1:
            await checkpoint()
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def fileno(self) -> int:
        """Return the descriptor, -1 once closed."""
        number: int = self._sock.fileno()
        return number

    @abstractmethod
    def is_readable(self) -> bool:
        """Say whether a read would not wait: there is input, the end of the stream, or an error, or it is closed."""

    @abstractmethod
    def share_fileno(self) -> int:
        """Give the descriptor out, to somebody who may wait on it."""

    @abstractmethod
    def trio_socket(self) -> trio.socket.SocketType:
        """Give out Trio's view of the same socket; closing either closes both."""


async def skip_connection_errors(accept: Callable[[], Awaitable[T]], until: float) -> T:
    """Accept, and accept again where the error is one of the connection and not of the listener.

    Each error has had its pass of the loop: one that never ends, such as a rule for this process, must not block it.

    Raises:
      Expired: `until` came, and there were only errors.
    """
    last = False
    while True:
        try:
            return await accept()
        except OSError as exc:
            if exc.errno not in CONNECTION_ERRORS:
                raise
            if last:
                raise Expired from None
            last = current_time() >= until
