"""`TcpStream`: a byte stream whose addresses are endpoints."""

from __future__ import annotations

from socket import AF_INET, AF_INET6
from typing import TYPE_CHECKING, Any, final

from ..._endpoint import Endpoint, as_endpoint
from .byte_stream import ByteStream

if TYPE_CHECKING:
    from ..._multipath import Multipath

__all__ = ["TcpStream"]


@final
class TcpStream(ByteStream[Endpoint]):
    """A TCP connection: a `trio.abc.HalfCloseableStream` with deadlines, exact reads and honest closing.

    Made by `tcp_connect`, `TcpListener.accept` or `TcpStream.from_socket`.
    """

    __slots__ = ()

    @property
    def multipath(self) -> Multipath | None:
        """What this connection has of Multipath TCP now; None says that it is plain TCP.

        Raises:
          trio.ClosedResourceError: the stream is closed.

        See RFC 8684 and `SocketOptions.multipath`.
        """
        self._check_open()
        from ..sockets.multipath import read_multipath

        return read_multipath(self._sock.multipath_info())

    @staticmethod
    def _is_family(family: int) -> bool:
        return family in (AF_INET, AF_INET6)

    @staticmethod
    def _address(name: Any) -> Endpoint:
        return as_endpoint(tuple(name))
