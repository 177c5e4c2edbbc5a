"""`unix_connect`, the twin of `tcp_connect`: the same streams, addressed by path.

Connecting is immediate or refused, except when the listener's backlog is full: Linux then answers EAGAIN: the
connect has not started, and no event will report room (unix(7)). Python maps it to the exception of EINPROGRESS,
so other code may report a connection that does not exist. Here the connect is tried again, ever less often, until there
is room or the deadline comes.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

import trio
from trio import current_time
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled, enable_ki_protection

from .._deadline import is_late, to_seconds
from .._messages import call_exceeded, call_late, connect_error
from .attempt import PENDING, load_reports
from .sockets.open import open_stream_socket
from .sockets.stream_socket import close_on_error, errno_of
from .sockets.unix_path import UnixPath, check_path, show_path, too_long, unix_family
from .sockets.waiting import Expired
from .streams.unix_stream import UnixStream

if TYPE_CHECKING:
    from .sockets.stream_socket import StreamSocket

__all__ = ["connect_socket", "unix_connect"]

# A full backlog empties at the pace of the server's accepts: the first pause is below a scheduler tick,
# the last too short to be noticed.
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05


@enable_ki_protection  # Ctrl-C cannot come between making a socket and the code that closes it
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
        from .._report import EMPTY_REPORT

        raise call_late(f"connect to {show_path(address)}", started - until, report=EMPTY_REPORT)
    where = show_path(address)
    try:
        sock = open_stream_socket(unix_family())
    except OSError as exc:
        await cancel_shielded_checkpoint()
        raise connect_error(errno_of(exc), "socket", where, "this machine", current_time() - started) from None
    with close_on_error(sock):
        try:
            code = await connect_socket(sock, address, until)
        except Expired:
            what = f"connect to {where}, whose backlog is full,"
            from .._report import ConnectReport

            raise call_exceeded(what, current_time() - started, report=ConnectReport()) from None
        if code:
            raise connect_error(code, "connect", where, "this machine", current_time() - started)
        return UnixStream(sock, address)


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
            # No cancel scope is needed: only this sleep waits, and it ends at the deadline.
            await trio.sleep_until(min(now + pause, until))
        pause = min(pause * 2, _LONGEST_PAUSE)
