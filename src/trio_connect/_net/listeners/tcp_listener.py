"""`tcp_listen` and what it returns."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, final

from trio import current_time
from trio.lowlevel import checkpoint, enable_ki_protection

from ..._endpoint import Endpoint, EndpointLike, as_endpoint
from ..._messages import connect_error, own_words
from ..._options import DEFAULT_OPTIONS, SocketOptions, check_options
from ..attempt import load_reports
from ..sockets import options as sockopts
from ..sockets.address import sockaddr_of
from ..sockets.families import OverTcp
from ..sockets.open import open_stream_socket, set_options
from ..sockets.stream_socket import StreamSocket, errno_of
from ..streams.tcp_stream import TcpStream
from .socket_listener import SocketListener, check_backlog

if TYPE_CHECKING:
    from ..._report import Phase

__all__ = ["TcpListener", "tcp_listen"]


@final
class TcpListener(OverTcp, SocketListener[TcpStream, Endpoint]):
    """A listening TCP socket: a `trio.abc.Listener` whose accepts have deadlines. Made by `tcp_listen`."""

    __slots__ = ("_options",)

    def __init__(self, sock: StreamSocket, name: Endpoint, options: SocketOptions = DEFAULT_OPTIONS) -> None:
        super().__init__(sock, name)
        self._options = options

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens, with the port that was chosen."""
        return self._name

    def _stream(self, sock: StreamSocket, name: Any) -> TcpStream:
        if sys.platform != "linux":  # where accepted sockets inherit the listener's options, tcp(7)
            try:
                sock.set_options(sockopts.accepted(self._options))
            except OSError:
                pass  # the connection is already gone; the first receive or send will say so
        return TcpStream(sock, self._address(name))


@enable_ki_protection  # Ctrl-C cannot come between making a socket and the code that closes it
async def tcp_listen(
    endpoint: EndpointLike, *, backlog: int | None = None, options: SocketOptions = DEFAULT_OPTIONS
) -> TcpListener:
    """Listen on one numeric address. A checkpoint; never waits.

    The address can be bound again at once after a restart (SO_REUSEADDR). ``::`` takes IPv4 too unless
    `SocketOptions.v6only` is set.

    Args:
      endpoint: where to listen; port 0 asks for any free port, which the listener's `endpoint` then has.
      backlog: how many connections may wait to be accepted, see listen(2); None for as many as the system allows.
      options: set on the listener; accepted connections have them too.

    Returns:
      The listener.

    Raises:
      OSError: EADDRINUSE, another socket listens there; EADDRNOTAVAIL, the address is not of this machine; EACCES, the
        port needs more rights; ENODEV, the zone names no interface; EMFILE, ENFILE, ENOBUFS, ENOMEM. The text begins
        with "local:".
      TypeError: an argument has the wrong type.
      ValueError: the endpoint is a name or malformed, or the backlog is negative.

    See bind(2), listen(2) and ip(7).
    """
    endpoint = as_endpoint(endpoint)
    size = check_backlog(backlog)
    check_options(options)
    load_reports()
    await checkpoint()
    started = current_time()
    family = endpoint.family
    phase: Phase = "socket"
    sock: StreamSocket | None = None
    try:
        address = sockaddr_of(endpoint)
        plan = sockopts.listening(options, family)
        sock = open_stream_socket(family, listening=True, multipath=options.multipath)
        set_options(sock, plan, options)
        phase = "bind"
        await sock.bind(address)
        sock.listen(size)
        name = sock.getsockname()
    except OSError as exc:
        if sock is not None:
            sock.close()
        raise connect_error(
            errno_of(exc), phase, endpoint, "this machine", current_time() - started, own_words(exc)
        ) from None
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    return TcpListener(sock, as_endpoint(tuple(name)), options)
