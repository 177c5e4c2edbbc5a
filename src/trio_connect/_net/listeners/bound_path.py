"""The path that bind(2) makes for a unix-domain socket: its rights, and its removal."""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

import attrs

from ..._check import check_int
from ..._text import shown
from ..sockets.unix_path import is_abstract

if TYPE_CHECKING:
    from ..sockets.stream_socket import StreamSocket

__all__ = ["BoundPath", "check_mode", "set_mode_after_bind", "set_mode_before_bind"]


@attrs.frozen
class BoundPath:
    """The file that bind(2) made, to be removed again unless another one stands in its place."""

    path: str | bytes
    """Absolute: the program may change its directory meanwhile."""
    device: int
    inode: int

    @classmethod
    def find(cls, path: str | bytes) -> BoundPath | None:
        """Look for the file; None for an abstract name, and where a fake made no file."""
        if is_abstract(path):
            return None
        try:
            absolute = os.path.abspath(path)
            status = os.lstat(absolute)
        except OSError:
            return None
        return cls(absolute, status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Remove the file, unless another one has taken its place."""
        try:
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == (self.device, self.inode):
                os.unlink(self.path)
        except OSError:
            pass


def check_mode(mode: object, address: str | bytes) -> int | None:
    """Return the permission bits, or say what is wrong with them."""
    if mode is None:
        return None
    mode = check_int(mode, "mode", "an int or None")
    if not 0 <= mode <= 0o777:
        raise ValueError(f"mode must be permission bits, from 0 to 0o777, got {shown(mode)}")
    if is_abstract(address):
        raise ValueError(f"mode must be None for an abstract name, which has no permissions, got {mode:#o}")
    return mode


def set_mode_before_bind(sock: StreamSocket, mode: int) -> None:
    """Have bind(2) make the path with these rights, or with fewer where the umask takes some away.

    Linux takes the mode of the path from the socket's own (unix(7): fchmod on a socket before it is bound). The other
    two ways were rejected: the umask belongs to all threads of the process, and a chmod after bind leaves a moment
    in which the path has the rights that the umask gives.
    """
    if sys.platform == "linux" and sock.in_kernel:
        os.fchmod(sock.fileno(), mode)


def set_mode_after_bind(address: str | bytes, mode: int) -> None:
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
