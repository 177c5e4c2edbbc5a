"""The families of sockets that streams and listeners are made over: which they are, how their addresses read."""

from __future__ import annotations

import socket
from abc import abstractmethod
from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any

from ..._endpoint import as_endpoint
from ..._text import shown
from .open import check_socket
from .unix_path import unix_family

if TYPE_CHECKING:
    import trio

    from ..._endpoint import Endpoint


class OverSocket:
    """What is made over a stream socket of one family."""

    __slots__ = ()

    @staticmethod
    @abstractmethod
    def _is_family(family: int) -> bool: ...

    @staticmethod
    @abstractmethod
    def _address(name: Any) -> Any: ...

    @classmethod
    def _check_socket(cls, sock: trio.socket.SocketType | socket.socket, *, listening: bool) -> None:
        """Refuse what this cannot be made over, and leave it as it is.

        Raises:
          TypeError: not a socket, or one of a subclass.
          ValueError: not a stream socket, of another family, or not listening where it should.
        """
        check_socket(sock)
        is_stream = sock.type == socket.SOCK_STREAM and cls._is_family(sock.family)
        if not is_stream or (listening and not _is_listening(sock)):
            kind = "listening stream socket" if listening else "stream socket"
            raise ValueError(f"{cls.__name__} needs a {kind} of its family, got {shown(sock)}")


class OverTcp(OverSocket):
    """What is made over TCP: its addresses are endpoints."""

    __slots__ = ()

    @staticmethod
    def _is_family(family: int) -> bool:
        return family in (AF_INET, AF_INET6)

    @staticmethod
    def _address(name: Any) -> Endpoint:
        return as_endpoint(tuple(name))


class OverUnix(OverSocket):
    """What is made over a unix-domain socket: its addresses are paths, unnamed ends are ""."""

    __slots__ = ()

    @staticmethod
    def _is_family(family: int) -> bool:
        return family == unix_family()

    @staticmethod
    def _address(name: Any) -> str | bytes:
        return name  # type: ignore[no-any-return]


def _is_listening(sock: trio.socket.SocketType | socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return True  # macOS has no such option: the first accept will tell
