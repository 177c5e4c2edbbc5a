"""What a handle can mean: a connection or a listener, TCP or unix-domain."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeAlias, TypeVar

import attrs

from .._net.listeners.tcp_listener import TcpListener
from .._net.listeners.unix_listener import UnixListener
from .._net.streams.tcp_stream import TcpStream
from .._net.streams.unix_stream import UnixStream
from ._directions import Direction

__all__ = [
    "NAMES",
    "Connection",
    "Handle",
    "IpcConnection",
    "IpcListening",
    "Listening",
    "TcpConnection",
    "TcpListening",
]

S = TypeVar("S", TcpStream, UnixStream)
L = TypeVar("L", TcpListener, UnixListener)


@attrs.define(eq=False)
class Connection(Generic[S]):
    """What a handle of a connection means."""

    stream: S
    incoming: Direction = attrs.field(factory=Direction, init=False)
    outgoing: Direction = attrs.field(factory=Direction, init=False)

    def close(self) -> None:
        """Close at once, with RST where there is one."""
        self.stream.abort()


@attrs.define(eq=False)
class Listening(Generic[L]):
    """What a handle of a listener means."""

    listener: L
    accepting: Direction = attrs.field(factory=Direction, init=False)

    def close(self) -> None:
        """Close at once."""
        self.listener.close()


class TcpConnection(Connection[TcpStream]):
    """Made by `tcp_connect`, `tcp_accept` and `tcp_fromfd`."""


class IpcConnection(Connection[UnixStream]):
    """Made by `ipc_connect`, `ipc_accept`, `ipc_pair` and `ipc_fromfd`."""


class TcpListening(Listening[TcpListener]):
    """Made by `tcp_listen` and `tcp_listener_fromfd`."""


class IpcListening(Listening[UnixListener]):
    """Made by `ipc_listen` and `ipc_listener_fromfd`."""


Handle: TypeAlias = Connection[Any] | Listening[Any]

NAMES: Final[dict[type[Any], str]] = {
    TcpConnection: "TCP connection",
    IpcConnection: "unix-domain connection",
    TcpListening: "TCP listener",
    IpcListening: "unix-domain listener",
}
