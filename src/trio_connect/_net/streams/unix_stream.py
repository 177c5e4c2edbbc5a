"""`UnixStream`: a byte stream whose addresses are paths, and which carries file descriptors."""

from __future__ import annotations

import errno
import os
import sys
from socket import MSG_CTRUNC
from typing import final

from trio import ClosedResourceError, current_time
from trio.lowlevel import checkpoint, enable_ki_protection

from ..._check import check_int
from ..._deadline import is_late, to_seconds
from ..sockets.descriptors import CARRIER, CLOSE_ON_EXEC, duplicate, pack, room_for_one, unpack
from ..sockets.families import OverUnix
from ..sockets.waiting import Expired
from .byte_stream import ByteStream

__all__ = ["UnixStream"]


@final
class UnixStream(OverUnix, ByteStream[str | bytes]):
    """A unix-domain stream connection, like `TcpStream`. Addresses are paths; unnamed ends are ""."""

    __slots__ = ()

    @enable_ki_protection  # Ctrl-C cannot come between the copy and the code that closes it
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
        self._check_can_send_bytes()
        if sys.platform == "win32":
            raise OSError(errno.EOPNOTSUPP, "this platform cannot pass descriptors")
        if is_late(until):
            await self._refuse_late("send", until)
        # While this waits for room, its caller may close the number, and another open may get it.
        try:
            copy = duplicate(fd)
        except OSError as exc:
            await checkpoint()  # or a loop that waits for a free number would starve those who have them
            raise OSError(exc.errno, f"descriptor {fd} cannot be sent: {os.strerror(exc.errno or 0)}") from None
        started = current_time()
        self._sending = True
        try:
            await self._sock.send_message(CARRIER, pack(copy), until)
        except Expired:
            raise self._exceeded("send", started, 0) from None
        except OSError as exc:
            if exc.errno == errno.ETOOMANYREFS:  # sendmsg(2): nothing was sent, the connection is well
                raise
            self._raise_broken("send", exc)
        except ClosedResourceError:
            self._raise_closed()
        finally:
            self._sending = False
            os.close(copy)

    @enable_ki_protection  # Ctrl-C cannot come between a descriptor that has come and its owner
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
            data, ancillary, flags = await self._sock.receive_message(1, room_for_one(), CLOSE_ON_EXEC, until)
        except Expired:
            raise self._exceeded("receive", started, 0) from None
        except OSError as exc:
            self._raise_broken("receive", exc)
        except ClosedResourceError:
            self._raise_closed()
        finally:
            self._receiving = False
        if not data:
            raise self._incomplete(1, "a descriptor")
        fds = unpack(ancillary)
        if len(fds) == 1 and data == CARRIER:
            os.set_inheritable(fds[0], False)
            return int(fds[0])
        for fd in fds:
            os.close(fd)
        if flags & MSG_CTRUNC and not fds:
            raise OSError(errno.EMFILE, "a descriptor came and the system had no room for it")
        self._own_buffer().add(data)
        raise OSError(errno.EPROTO, f"bytes, not a descriptor, came on {self!r}")
