"""One attempt: make a socket, bind it, connect it, say what happened. Nothing else calls connect(2).

Every attempt has a socket of its own. A socket whose connect failed is no use for another one: Linux reports
ECONNABORTED to the next connect() after a failure was read, and starts a new attempt in silence at the one after.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from functools import lru_cache
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, final

from .._endpoint import Endpoint
from .._engine.spinning import Spinning
from .._messages import connect_error
from .._options import DEFAULT_OPTIONS
from .sockets import options as sockopts
from .sockets.kernel_socket import KernelSocket, new_socket
from .sockets.open import open_stream_socket, set_options
from .sockets.options import DEFAULT_PLAN
from .sockets.stream_socket import LocalFailure, close_on_error

if TYPE_CHECKING:
    from .._endpoint import SockAddr, Source
    from .._options import SocketOptions
    from .._report import Phase
    from .sockets.stream_socket import StreamSocket

PENDING: Final = errno.EALREADY
"""The handshake goes on, or it is over and connect(2) has not been asked again."""

spinning: Final = Spinning()
"""Whether a pass comes before the first poll, learnt by the whole process."""

# linux/in.h; not in the socket module before Python 3.12.
_IP_BIND_ADDRESS_NO_PORT: Final = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24)
_RANGE_LASTS: Final = 1.0  # seconds; reading it takes as long as a connect
_RANGE_FILE: Final = "/proc/sys/net/ipv4/ip_local_port_range"


def open_and_begin(
    endpoint: Endpoint, source: Source | None, options: SocketOptions, *, factory: bool
) -> tuple[StreamSocket, SockAddr, int]:
    """Make a socket for one attempt and start connecting it. The caller goes on: a poll, or a pass of the loop first.

    Every call must yield to Trio's loop once. Yielding before the first poll is free and may let the handshake finish,
    which saves the wait: see `spinning`. Polled first, the socket may be connected already, as on plain loopback,
    where the handshake is over when connect(2) returns. docs/evidence/performance.md has the figures.

    Rejected: always a pass first, which costs a connect to a far peer a sixth more when nothing else is to be done;
    always a poll first, which costs twice as much where a pass would have been enough.

    Args:
      endpoint: where to; checked before.
      source: where from, None for the kernel's choice; checked before.
      options: what to set before connecting.
      factory: whether this run has a socket factory.

    Returns:
      The socket, the address that it goes to, and what is known: 0 for connected, an errno, or `PENDING`, which may
      mean that the answer has come and has not been asked for.

    Raises:
      LocalFailure: it could not be made or bound, or the endpoint's zone names no interface; nothing stays open.
    """
    # What connect_address does, mostly without its call.
    address = endpoint.sockaddr if endpoint.scope_id.__class__ is int else connect_address(endpoint)
    sock: StreamSocket
    if source is not None or factory or options is not DEFAULT_OPTIONS:
        sock = open_socket(endpoint, source, options, factory=factory)
    else:
        # What open_socket does for nearly every connect there is, in a third of the time.
        raw = None
        try:
            raw = new_socket(endpoint.family)
            for level, option, value in DEFAULT_PLAN:
                raw.setsockopt(level, option, value)
        except OSError as exc:
            if raw is not None:
                raw.close()
            raise LocalFailure.of(exc, "socket") from exc
        sock = KernelSocket(raw)
    try:
        return sock, address, sock.begin(address)
    except BaseException:  # an audit hook may forbid it
        sock.close()
        raise


def open_socket(endpoint: Endpoint, source: Source | None, options: SocketOptions, *, factory: bool) -> StreamSocket:
    """Make a socket for one attempt, with its options set, bound to its source.

    Raises:
      LocalFailure: the kernel would not; nothing stays open.
    """
    family = endpoint.family
    phase: Phase = "socket"
    try:
        bind_address = _bind_address(family, source)
        sock = open_stream_socket(family, factory=factory)
        with close_on_error(sock):
            set_options(sock, sockopts.connecting(options, family), options)
            if source is not None:
                phase = "bind"
                _prepare_source(sock, source)
                if bind_address is not None:
                    sock.bind_to_connect(bind_address)
    except OSError as exc:
        raise LocalFailure.of(exc, phase) from exc
    return sock


def _bind_address(family: int, source: Source | None) -> Any:
    if source is None:
        return None
    host = source.ipv4 if family == socket.AF_INET else source.ipv6
    if host is None:
        if not source.port:
            return None
        host = "0.0.0.0" if family == socket.AF_INET else "::"
    return sockaddr_of(Endpoint(host, source.port))


def _prepare_source(sock: StreamSocket, source: Source) -> None:
    plan: list[tuple[int, int, int]] = []
    if source.port:
        # A fixed local port must be usable again while its last connection is in TIME_WAIT.
        plan.append((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1))
    elif sys.platform == "linux" and sock.in_kernel:
        # The port is then chosen by connect(), per destination, ip(7). IPv6 sockets take the option too.
        plan.append((socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1))
    sock.set_options(tuple(plan))
    if source.interface is not None:
        sock.bind_to_interface(source.interface)


def sockaddr_of(endpoint: Endpoint) -> Any:
    """Return the address for the kernel, a zone name turned into the interface's index.

    Raises:
      OSError: ENODEV, there is no such interface.
    """
    if not isinstance(endpoint.scope_id, str):
        return endpoint.sockaddr
    try:
        index = socket.if_nametoindex(endpoint.scope_id)
    except OSError as exc:
        raise OSError(errno.ENODEV, f"no interface {endpoint.scope_id!r}") from exc
    return endpoint.host, endpoint.port, endpoint.flowinfo, index


def connect_address(endpoint: Endpoint) -> Any:
    """Return the address for connect(2).

    Raises:
      LocalFailure: the endpoint's zone names no interface.
    """
    if endpoint.scope_id.__class__ is int:
        return endpoint.sockaddr
    try:
        return sockaddr_of(endpoint)
    except OSError as exc:
        raise LocalFailure.of(exc, "socket") from exc


@lru_cache(maxsize=1)
def load_reports() -> object:
    """Load and return what reports are made of, once, while there is a descriptor left to read it with.

    Reports are looked at when something is wrong, and then there may be none left.
    """
    try:
        from .race import reports
    except OSError:  # who looks at a report tries again
        return None
    return reports


def _read_local_ports() -> range:
    try:
        # Three system calls; open() makes nine.
        fd = os.open(_RANGE_FILE, os.O_RDONLY)
        try:
            low, high = map(int, os.read(fd, 64).split())
        finally:
            os.close(fd)
    except (OSError, ValueError):
        return range(1, 65536)  # unknown, as on every system but Linux: check each connection
    return range(low, high + 1)


@final
class _LocalPorts:
    """The range of ip_local_port_range, ip(7), which somebody may change while this program runs."""

    __slots__ = ("_range", "_stale_at")

    def __init__(self) -> None:
        self._range = range(0)
        self._stale_at = -inf

    def current(self) -> range:
        """Return the ports that the kernel picks local ones from, as they were a second ago at most."""
        if monotonic() >= self._stale_at:  # not Trio's clock, which tests let jump and stand still
            self._range = _read_local_ports()
            self._stale_at = monotonic() + _RANGE_LASTS
        return self._range

    def forget(self) -> None:
        """Have the next call read it again."""
        self._stale_at = -inf


_local_ports: Final = _LocalPorts()
local_ports: Final = _local_ports.current
forget_local_ports: Final = _local_ports.forget


def _abort_self_connect(sock: StreamSocket, endpoint: Endpoint) -> bool:
    """Close a connection that has this very socket at its other end, and say whether it had.

    Connecting to a port of this machine that nobody listens on, from the same port by chance, is TCP's simultaneous
    open (RFC 9293 section 3.5): the kernel reports success, everything sent comes back, and the real server can no
    longer bind its port.
    """
    try:
        name = sock.getsockname()
    except (OSError, NotImplementedError):
        return False
    if name[1] != endpoint.port:
        return False
    # Asked only now: an address has several spellings (v4-mapped ones), and a wildcard stands for another one.
    try:
        if name[:2] != sock.getpeername()[:2]:
            return False
    except (OSError, NotImplementedError):
        return False
    # With RST: an ordinary close would leave the port in TIME_WAIT, closed to the server that it belongs to.
    sock.abort()
    return True


def begin(sock: StreamSocket, endpoint: Endpoint, source: Source | None) -> int:
    """Start connecting: 0 when that has already succeeded, `PENDING` when it goes on or nobody knows, else the errno.

    Raises:
      LocalFailure: the endpoint's zone names no interface.
    """
    return reject_self_connect(sock.begin(connect_address(endpoint)), sock, endpoint, source)


def reject_self_connect(code: int, sock: StreamSocket, endpoint: Endpoint, source: Source | None) -> int:
    """Return `code`, or ECONNREFUSED after closing a socket that connected to itself."""
    if code:
        return code
    port = endpoint.port
    # Only a local port of those that the kernel picks from, or one that was asked for, can be the destination's.
    itself = port in local_ports() or sock.__class__ is not KernelSocket or (source is not None and source.port == port)
    return errno.ECONNREFUSED if itself and _abort_self_connect(sock, endpoint) else 0


def poll(sock: StreamSocket, endpoint: Endpoint, source: Source | None) -> int:
    """Ask a pending connect, without waiting: 0, `PENDING`, or its errno."""
    return reject_self_connect(sock.poll(connect_address(endpoint)), sock, endpoint, source)


async def finish(sock: StreamSocket, endpoint: Endpoint, source: Source | None, until: float) -> int:
    """Wait for a pending connect: 0, or its errno. The caller closes the socket unless it is 0.

    Args:
      sock: begun before, still pending.
      endpoint: where it goes.
      source: where it was to come from.
      until: when to give up, in Trio time.

    Raises:
      Expired: `until` came first.
      LocalFailure: the fake socket of a factory could not be bound.
    """
    return reject_self_connect(await sock.finish(connect_address(endpoint), until), sock, endpoint, source)


def describe_source(sock: StreamSocket | None, endpoint: Endpoint, source: Source | None) -> str:
    """Say where an attempt came from: what the caller asked for, else the address that the kernel had chosen."""
    if source is not None:
        return source.describe(endpoint.family)
    if sock is not None:
        try:
            host = sock.getsockname()[0]
        except (OSError, NotImplementedError, LookupError):
            return "any address"
        if host not in ("0.0.0.0", "::", ""):
            return str(host)
    return "any address"


def attempt_error(
    code: int,
    phase: Phase,
    sock: StreamSocket | None,
    endpoint: Endpoint,
    source: Source | None,
    elapsed: float,
    detail: str = "",
) -> OSError:
    """Return the error for one failed attempt."""
    return connect_error(code, phase, endpoint, describe_source(sock, endpoint, source), elapsed, detail)
