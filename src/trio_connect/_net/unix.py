"""Unix-domain twins of the TCP calls: the same streams, addressed by path.

Connecting is immediate or refused, except when the listener's backlog is full: Linux then answers EAGAIN, which says
that nothing was started and that nothing will report room (unix(7)). Python maps it to the exception of EINPROGRESS,
and code that takes it for that reports a connection that does not exist. Here it is tried again, ever less often,
until there is room or the deadline comes.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import attrs
import trio
from trio import current_time
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from .._check import check_int
from .._deadline import is_late, to_seconds
from .._messages import call_exceeded, call_late, connect_error
from .._text import printable, shown
from .attempt import PENDING, load_reports
from .listener import SocketListener, check_backlog
from .sockets.open import open_stream_socket
from .sockets.stream_socket import errno_of
from .sockets.waiting import Expired
from .streams.byte_stream import ByteStream

if TYPE_CHECKING:
    from .._report import Phase
    from .sockets.stream_socket import StreamSocket

UnixPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

# sizeof(sun_path) is 108 on Linux and 104 on the BSDs, the closing NUL included (unix(7), unix(4)).
_MAX_PATH: Final = (108 if sys.platform == "linux" else 104) - 1
# A full backlog empties at the pace of the server's accepts: begin below a scheduler tick, end where nobody notices.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05

_CARRIER: Final = b"\xcc"
_INT: Final = struct.Struct("i")
_CLOSE_ON_EXEC: Final = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))  # recvmsg(2), Linux


def check_path(path: object) -> str | bytes:
    """Return a path as the kernel takes it, or say what is wrong with it."""
    if not isinstance(path, str | bytes | os.PathLike):
        raise TypeError(f"path must be a str, bytes or path object, got {shown(path)}")
    plain: str | bytes = os.fspath(path)
    try:
        raw = os.fsencode(plain)
    except UnicodeEncodeError as exc:
        raise ValueError(f"path must be one that can be encoded, got {shown(plain)}: {exc.reason}") from None
    if not raw:
        raise ValueError("path must not be empty")
    if b"\0" in raw[1:] and not raw.startswith(b"\0"):
        raise ValueError(f"path must not contain NUL, except first for an abstract name, got {shown(plain)}")
    return plain


def show_path(path: str | bytes) -> str:
    """Return a path for a message."""
    text = os.fsdecode(path)
    return printable("@" + text[1:] if text.startswith("\0") else text)


def unix_family() -> int:
    """Return the address family, or say that there is none here."""
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this platform has no unix-domain sockets")
    return int(socket.AF_UNIX)


def too_long(path: str | bytes) -> bool:
    """Say whether a path does not fit into a socket address."""
    raw = os.fsencode(path)
    # An abstract name has no closing NUL.
    return len(raw) > _MAX_PATH + raw.startswith(b"\0")


@final
class UnixStream(ByteStream[str | bytes]):
    """A unix-domain stream connection, like `TcpStream`. Addresses are paths; unnamed ends are ""."""

    __slots__ = ()

    @staticmethod
    def _is_family(family: int) -> bool:
        return family == unix_family()

    @staticmethod
    def _address(name: Any) -> str | bytes:
        return name  # type: ignore[no-any-return]

    async def send_fd(self, fd: int, deadline: int = -1) -> None:
        """Give the peer a copy of a file descriptor. It rides on one byte of the stream, 0xCC as in libdill.

        Args:
          fd: stays open here, and may be closed as soon as this is called.
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 for what fits now.

        Raises:
          DeadlineExceeded: there was no room in time; nothing was sent, the stream stays usable.
          OSError: EBADF, `fd` is not open; EMFILE; ETOOMANYREFS, too many are on their way (see unix(7)).
          TypeError: not an int.
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is sending.
          trio.ClosedResourceError: this stream was closed, before or meanwhile, or `send_eof` was called.
        """
        until = to_seconds(deadline)
        check_int(fd, "fd")
        self._check_can_send()
        if self._eof_sent:
            raise trio.ClosedResourceError("nothing can be sent after send_eof()")
        if sys.platform == "win32":
            raise OSError(errno.EOPNOTSUPP, "this platform cannot pass descriptors")
        if is_late(until):
            await self._refuse_late("send", until)
        # While this waits for room, its caller may close the number, and another open may get it.
        try:
            copy = os.dup(fd)
        except OverflowError:
            raise OSError(errno.EBADF, f"descriptor {shown(fd)} is not open") from None
        started = current_time()
        self._sending = True
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _INT.pack(copy))]
            await self._sock.send_message(_CARRIER, rights, until)
        except Expired:
            raise self._exceeded("send", started, 0) from None
        except OSError as exc:
            if exc.errno == errno.ETOOMANYREFS:  # sendmsg(2): nothing was sent, the connection is well
                raise
            self._raise_broken("send", exc)
        finally:
            self._sending = False
            os.close(copy)

    async def receive_fd(self, deadline: int = -1) -> int:
        """Receive a file descriptor that the peer sends with `send_fd`, and own it; children do not inherit it.

        The descriptor has its place in the stream, and a read that reaches past that place loses it. Take the bytes
        before it with `receive_into`, the one read that never takes more than it was asked for.

        Args:
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 for what is there.

        Returns:
          The descriptor, close-on-exec.

        Raises:
          DeadlineExceeded: none came in time. The stream stays usable.
          IncompleteRead: the peer ended the stream.
          OSError: EPROTO, what comes next is no descriptor; it stays buffered. EMFILE, there was no room for it, and
            it is lost.
          trio.BrokenResourceError: the connection broke.
          trio.BusyResourceError: another task is receiving.
          trio.ClosedResourceError: this stream was closed, before or meanwhile.
        """
        until = to_seconds(deadline)
        self._check_can_receive()
        if is_late(until):
            await self._refuse_late("receive", until)
        if self._buffer:
            await checkpoint()
            raise OSError(errno.EPROTO, f"bytes, not a descriptor, came on {self!r}")
        if sys.platform == "win32":
            raise OSError(errno.EOPNOTSUPP, "this platform cannot pass descriptors")
        started = current_time()
        self._receiving = True
        try:
            # CMSG_LEN: the padding that CMSG_SPACE adds has room for another descriptor.
            room = socket.CMSG_LEN(_INT.size)
            data, ancillary, flags = await self._sock.receive_message(1, room, _CLOSE_ON_EXEC, until)
        except Expired:
            raise self._exceeded("receive", started, 0) from None
        except OSError as exc:
            self._raise_broken("receive", exc)
        finally:
            self._receiving = False
        if not data:
            raise self._incomplete(1, "a descriptor")
        fds = [
            fd
            for level, kind, content in ancillary
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            for (fd,) in _INT.iter_unpack(content[: len(content) // _INT.size * _INT.size])
        ]
        if len(fds) == 1 and data == _CARRIER:
            os.set_inheritable(fds[0], False)
            return int(fds[0])
        for fd in fds:
            os.close(fd)
        if flags & socket.MSG_CTRUNC and not fds:
            raise OSError(errno.EMFILE, "a descriptor came and the system had no room for it")
        self._own_buffer().add(data)
        raise OSError(errno.EPROTO, f"bytes, not a descriptor, came on {self!r}")


@final
class UnixListener(SocketListener[UnixStream, str | bytes]):
    """A listening unix-domain socket. Made by `unix_listen`; closing it removes the path that it made."""

    __slots__ = ("_made",)

    def __init__(self, sock: StreamSocket, name: str | bytes) -> None:
        super().__init__(sock, name)
        self._made: _MadePath | None = None

    @property
    def path(self) -> str | bytes:
        """Where it listens."""
        return self._name

    @staticmethod
    def _is_family(family: int) -> bool:
        return family == unix_family()

    @staticmethod
    def _address(name: Any) -> str | bytes:
        return name  # type: ignore[no-any-return]

    def _stream(self, sock: StreamSocket, name: Any) -> UnixStream:
        return UnixStream(sock, name)

    def _own_path(self) -> None:
        """Make closing remove the path: the file that this listener made, and no successor's."""
        self._made = _MadePath.find(self._name)

    def _close(self) -> None:
        made, self._made = self._made, None
        if made is not None:
            made.remove()
        super()._close()


@attrs.frozen
class _MadePath:
    """The file that bind(2) made, to be removed again unless another one stands in its place."""

    path: str | bytes
    """Absolute: the program may change its directory meanwhile."""
    device: int
    inode: int

    @classmethod
    def find(cls, path: str | bytes) -> _MadePath | None:
        """Look for the file; None for an abstract name, and where a fake made no file."""
        if os.fsencode(path).startswith(b"\0"):
            return None
        try:
            absolute = os.path.abspath(path)
            status = os.lstat(absolute)
        except OSError:
            return None
        return cls(absolute, status.st_dev, status.st_ino)

    def remove(self) -> None:
        try:
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == (self.device, self.inode):
                os.unlink(self.path)
        except OSError:
            pass


async def unix_connect(path: UnixPath, deadline: int = -1) -> UnixStream:
    """Connect to a unix-domain socket.

    Args:
      path: its path; a first NUL byte means Linux's abstract namespace.
      deadline: milliseconds on the clock of `now()`; -1 for none. It bounds how long a full backlog is waited for;
        with 0 that is not waited for at all.

    Returns:
      The connected stream.

    Raises:
      OSError: the kernel's own subclass: ENOENT, ECONNREFUSED (nobody listens there any more), EACCES, ENAMETOOLONG.
      DeadlineExceeded: the listener's backlog stayed full until the deadline; its `report` is empty.
      TypeError: an argument has the wrong type.
      ValueError: the path is empty, or the deadline is below -1.

    See unix(7).
    """
    address = check_path(path)
    until = to_seconds(deadline)
    load_reports()
    await checkpoint_if_cancelled()
    started = current_time()
    if is_late(until):
        await checkpoint()
        raise call_late(f"connect to {show_path(address)}", started - until)
    phase: Phase = "socket"
    sock: StreamSocket | None = None
    try:
        family = unix_family()
        sock = open_stream_socket(family)
        phase = "connect"
        code = await connect_socket(sock, address, until)
        if code:
            raise connect_error(code, phase, show_path(address), "this machine", current_time() - started)
        return UnixStream(sock, address)
    except Expired:
        assert sock is not None
        sock.close()
        what = f"connect to {show_path(address)}, whose backlog is full,"
        from .._report import EMPTY_REPORT

        raise call_exceeded(what, current_time() - started, report=EMPTY_REPORT) from None
    except OSError as exc:
        if sock is not None:
            sock.close()
            if phase == "connect":
                raise
        await cancel_shielded_checkpoint()
        where = show_path(address)
        raise connect_error(errno_of(exc), phase, where, "this machine", current_time() - started) from None
    except BaseException:
        if sock is not None:
            sock.close()
        raise


async def connect_socket(sock: StreamSocket, address: str | bytes, until: float) -> int:
    """Connect an open socket: 0, or its error. The caller closes it unless it is 0.

    Raises:
      Expired: `until`, in Trio time, came while the backlog was full.
    """
    pause = _FIRST_PAUSE
    last = False
    while True:
        if too_long(address):
            code = errno.ENAMETOOLONG
        else:
            code = sock.begin(address)
            if code == PENDING:
                code = await sock.finish(address, until)
        if code != errno.EAGAIN:
            await cancel_shielded_checkpoint()
            return code
        if last:
            raise Expired
        now = current_time()
        last = now + pause >= until
        if now >= until:
            await checkpoint()
        else:
            # A scope of our own is not needed: nothing but this sleep waits, and it knows when to end.
            await trio.sleep_until(min(now + pause, until))
        pause = min(pause * 2, _LONGEST_PAUSE)


async def unix_listen(path: UnixPath, *, backlog: int | None = None, mode: int | None = None) -> UnixListener:
    """Listen on a unix-domain socket. A checkpoint; never waits.

    A path that exists is an error and is left alone: only its owner can know that nobody uses it. Closing the
    listener removes the path, unless another socket has taken its place; also when the program has changed its
    directory since.

    Args:
      path: where; a first NUL byte means Linux's abstract namespace.
      backlog: how many connections may wait to be accepted, see listen(2); None for as many as the system allows.
      mode: who may connect, the permission bits of the path such as 0o660 (connecting needs the right to write, see
        unix(7)). On Linux the path never has more rights than these; elsewhere not once anybody can connect. None
        leaves it to the umask.

    Returns:
      The listener; closing it removes the path.

    Raises:
      OSError: EADDRINUSE, the path exists; ENOENT, its folder does not; EACCES, ENAMETOOLONG.
      TypeError: an argument has the wrong type.
      ValueError: the path is empty, the backlog negative, the mode not from 0 to 0o777 or given for an abstract name.
    """
    return await listen_on_path(path, backlog, mode, remove=True)


def _check_mode(mode: object, address: str | bytes) -> int | None:
    if mode is None:
        return None
    mode = check_int(mode, "mode", "an int or None")
    if not 0 <= mode <= 0o777:
        raise ValueError(f"mode must be permission bits, from 0 to 0o777, got {shown(mode)}")
    if os.fsencode(address).startswith(b"\0"):
        raise ValueError(f"mode must be None for an abstract name, which has no permissions, got {mode:#o}")
    return mode


def _set_mode_before_bind(sock: StreamSocket, mode: int) -> None:
    """Have bind(2) make the path with these rights, or with fewer where the umask takes some away.

    Linux takes the mode of the path from the socket's own (unix(7): fchmod on a socket before it is bound). The other
    two ways were rejected: the umask belongs to all threads of the process, and a chmod after bind leaves a moment
    in which the path has the rights that the umask gives.
    """
    if sys.platform == "linux" and sock.in_kernel:
        os.fchmod(sock.fileno(), mode)


def _set_mode_after_bind(address: str | bytes, mode: int) -> None:
    """Give the path the rights that the umask has taken away. Nobody can connect yet: the socket does not listen."""
    if stat.S_IMODE(os.lstat(address).st_mode) == mode:
        return
    if sys.platform != "linux":
        os.chmod(address, mode, follow_symlinks=False)
        return
    # Linux has no chmod(2) that spares a link, so this goes through a descriptor: whoever may write to the folder could
    # put a link to another file in the path's place.
    descriptor = os.open(address, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise OSError(errno.EADDRINUSE, "")
        os.chmod(f"/proc/self/fd/{descriptor}", mode)
    finally:
        os.close(descriptor)


def _give_up(sock: StreamSocket | None, made: _MadePath | None) -> None:
    if made is not None:
        made.remove()
    if sock is not None:
        sock.close()


async def listen_on_path(path: UnixPath, backlog: int | None, mode: int | None = None, *, remove: bool) -> UnixListener:
    """Listen; `remove` says whether closing removes the path."""
    address = check_path(path)
    size = check_backlog(backlog)
    mode = _check_mode(mode, address)
    await checkpoint()
    started = current_time()
    phase: Phase = "socket"
    sock: StreamSocket | None = None
    made: _MadePath | None = None
    try:
        family = unix_family()
        sock = open_stream_socket(family, listening=True)
        phase = "bind"
        if too_long(address):
            raise OSError(errno.ENAMETOOLONG, "")
        if mode is not None:
            _set_mode_before_bind(sock, mode)
        await sock.bind(address)
        made = _MadePath.find(address)
        if mode is not None:
            _set_mode_after_bind(address, mode)
        sock.listen(size)
    except OSError as exc:
        _give_up(sock, made)
        where = show_path(address)
        raise connect_error(errno_of(exc), phase, where, "this machine", current_time() - started) from None
    except BaseException:
        _give_up(sock, made)
        raise
    listener = UnixListener(sock, address)
    if remove:
        listener._own_path()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return listener
