"""Paths as addresses: what is one, how it is shown, and how long it may be. No file is touched; see unix(7)."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Final, TypeAlias

from ..._text import printable, shown

__all__ = ["UnixPath", "check_path", "is_abstract", "show_path", "too_long", "unix_family"]

UnixPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

# sizeof(sun_path) is 108 on Linux and 104 on the BSDs, the closing NUL included (unix(7), unix(4)).
_MAX_PATH: Final = (108 if sys.platform == "linux" else 104) - 1


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
    """Return the address family, or say that this platform has no such sockets."""
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EAFNOSUPPORT, "this platform has no unix-domain sockets")
    return int(socket.AF_UNIX)


def too_long(path: str | bytes) -> bool:
    """Say whether a path does not fit into a socket address."""
    raw = os.fsencode(path)
    # An abstract name has no closing NUL.
    return len(raw) > _MAX_PATH + raw.startswith(b"\0")


def is_abstract(path: str | bytes) -> bool:
    """Say whether a path is a name in Linux's abstract namespace, which is not a file."""
    return os.fsencode(path).startswith(b"\0")
