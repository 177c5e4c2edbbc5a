"""A one-to-one SCTP socket: the contract, and the kernel's.

A call that would wait raises `BlockingIOError`. Only `wait_readable` and `wait_writable` wait.
An association or listener owns one socket, and closes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, Final, TypeAlias, final

import attrs
import trio

from .._endpoint import Endpoint
from .._net.sockets.interface import interface_index
from .._net.sockets.stream_socket import LINGER_ABORT
from . import _wire as wire  # pyright: ignore[reportPrivateUsage]
from ._values import Path, SctpTuning
from ._wire import Notification, ReceiveInfo, Status

_NOTIFICATIONS: Final = (
    wire.ASSOC_CHANGE, wire.PEER_ADDR_CHANGE, wire.SHUTDOWN_EVENT, wire.PARTIAL_DELIVERY_EVENT,
)  # fmt: skip
_MOST_ATTEMPTS: Final = 0xFFFF  # struct sctp_initmsg has 16 bits for it
_FEW_ADDRESSES: Final = 64
"""How many addresses of a peer there is room for at first. The kernel says ENOMEM when there are more."""


@attrs.frozen
class Piece:
    """A message, or a part of one.

    Args:
      data: its bytes; b"" with `info` None when the association has ended.
      end: whether it is the last of its message.
      info: what the kernel says of it.
    """

    data: bytes
    end: bool
    info: ReceiveInfo | None


class SctpSocket(ABC):
    """The socket of an association or a listener: the kernel's, or one that a test has made.

    Only `wait_readable` and `wait_writable` wait. Every other method raises `BlockingIOError` where it would wait, and
    `OSError` as the kernel would.
    """

    @abstractmethod
    def bind(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Bind to local addresses, all with one port; port 0 asks for any.

        Args:
          endpoints: one or more; all have the port of the first.

        Raises:
          OSError: what the kernel says.
        """

    @abstractmethod
    def listen(self, backlog: int) -> None:
        """Accept associations.

        Args:
          backlog: how many associations may wait to be accepted.

        Raises:
          OSError: what the kernel says.
        """

    @abstractmethod
    def accept(self) -> SctpSocket:
        """Return the socket of an association that a peer has made."""

    @abstractmethod
    def prepare(self, *, streams: int, attempt_delay: float, rounds: int | None, tuning: SctpTuning) -> None:
        """Set what must be set before an association is begun.

        Args:
          streams: how many to ask for, to send on.
          attempt_delay: seconds between two INITs.
          rounds: how many addresses are tried as often each as the system tries one; None for as long as it takes.
          tuning: heartbeat and retransmissions.
        """

    @abstractmethod
    def connect(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Begin an association over any of the peer's addresses, RFC 6458 section 9.9. Notifications tell the outcome.

        Args:
          endpoints: one or more addresses of one peer.

        Raises:
          OSError: what the kernel says.
        """

    @abstractmethod
    def set_timers(self, tuning: SctpTuning) -> None:
        """Set the timers of the association, or of those that a listener will accept.

        Ends the time in which the attempt delay was the retransmission time-out.

        Args:
          tuning: the timers; None leaves one as it is.

        Raises:
          OSError: what the kernel says.
        """

    @abstractmethod
    def receive(self) -> Piece | Notification:
        """Return the next thing that was received or has happened."""

    @abstractmethod
    def send(self, data: bytes, *, stream: int, ppid: int, unordered: bool, ttl: int | None) -> None:
        """Send one message.

        Args:
          data: the message.
          stream: its stream, from 0.
          ppid: payload protocol identifier.
          unordered: whether it may overtake others of its stream.
          ttl: milliseconds after which it is not sent any more; None for never.

        Raises:
          OSError: what the kernel says.
        """

    @abstractmethod
    def status(self) -> Status:
        """Return the status of the association; EINVAL when there is not one."""

    @abstractmethod
    def peer_addresses(self) -> tuple[Endpoint, ...]:
        """Return the addresses of the peer, as it listed them."""

    @abstractmethod
    def local_addresses(self) -> tuple[Endpoint, ...]:
        """Return the addresses of this end."""

    @abstractmethod
    def path(self, endpoint: Endpoint) -> Path:
        """Return how one path stands.

        Args:
          endpoint: an address of the peer.

        Returns:
          The path.

        Raises:
          OSError: EINVAL, the peer has no such address.
        """

    @abstractmethod
    def set_primary(self, endpoint: Endpoint) -> None:
        """Send on this path while it works.

        Args:
          endpoint: an address of the peer.

        Raises:
          OSError: EINVAL, the peer has no such address.
        """

    @abstractmethod
    def shutdown(self) -> None:
        """Begin the graceful end: SHUTDOWN follows when the peer has acknowledged everything, RFC 9260 section 9.2."""

    @abstractmethod
    def abort(self) -> None:
        """Close with ABORT, RFC 9260 section 9.1."""

    @abstractmethod
    def close(self) -> None:
        """Close; an association still ends gracefully, in the background."""

    @abstractmethod
    def wake(self) -> None:
        """Have every task that waits here raise `trio.ClosedResourceError`."""

    @abstractmethod
    async def wait_readable(self) -> None:
        """Wait until `receive` or `accept` is worth another try."""

    @abstractmethod
    async def wait_writable(self) -> None:
        """Wait until `send` is worth another try."""


SocketFactory: TypeAlias = Callable[[socket.AddressFamily], SctpSocket]
"""Makes a socket that is neither bound nor connected. AF_INET6 means that IPv4 addresses are used beside IPv6 ones."""

_factory: trio.lowlevel.RunVar[SocketFactory | None] = trio.lowlevel.RunVar("trio_connect.sctp factory", default=None)


def set_socket_factory(factory: SocketFactory | None) -> SocketFactory | None:
    """Set the factory of SCTP sockets for this run, as `trio.socket.set_custom_socket_factory` does for TCP.

    Args:
      factory: called with the address family; None for the kernel's sockets.

    Returns:
      The one before.

    Raises:
      RuntimeError: called outside of `trio.run`.
    """
    before = _factory.get()
    _factory.set(factory)
    return before


def factory_installed() -> bool:
    """Say whether this run has a factory of SCTP sockets."""
    return _factory.get() is not None


def open_socket(family: socket.AddressFamily) -> SctpSocket:
    """Return a new socket, from the factory of this run if it has one.

    Raises:
      OSError: EPROTONOSUPPORT, the kernel has no SCTP.
    """
    factory = _factory.get()
    return KernelSctpSocket.make(family) if factory is None else factory(family)


def family_of(endpoints: tuple[Endpoint, ...]) -> socket.AddressFamily:
    """Return the family of a socket that can have all of these addresses."""
    mixed = any(endpoint.family == socket.AF_INET6 for endpoint in endpoints)
    return socket.AF_INET6 if mixed else socket.AF_INET


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


@final
class KernelSctpSocket(SctpSocket):
    """The kernel's socket, sctp(7) and RFC 6458 section 4."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._timers: tuple[int, int, int] | None = None
        """Initial, least and greatest retransmission time-out as they were before `prepare`."""

    @classmethod
    def make(cls, family: socket.AddressFamily) -> KernelSctpSocket:
        """Make a socket.

        Raises:
          OSError: EPROTONOSUPPORT or ESOCKTNOSUPPORT, the kernel has no SCTP.
        """
        if sys.platform != "linux":  # FreeBSD has SCTP as well, with other numbers for its options
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
        sock = socket.socket(family, socket.SOCK_STREAM, wire.SOL_SCTP)
        made = cls(sock)
        try:
            if family == socket.AF_INET6:
                # IPv4 addresses of a peer are then told as what they are.
                sock.setsockopt(wire.SOL_SCTP, wire.WANT_MAPPED_V4, 0)
            made._subscribe()
        except BaseException:
            sock.close()
            raise
        return made

    def _subscribe(self) -> None:
        """Ask for what receiving depends on.

        Before connecting, or COMM_UP is missed. And always: after a shutdown(2) of this end, only the notification
        that the association has ended wakes who reads.
        """
        for kind in _NOTIFICATIONS:
            self._sock.setsockopt(wire.SOL_SCTP, wire.EVENT, wire.pack_event(kind))
        self._sock.setsockopt(wire.SOL_SCTP, wire.RECVRCVINFO, 1)
        # Without Nagle's rule: what is sent is a message, not a part of one.
        self._sock.setsockopt(wire.SOL_SCTP, wire.NODELAY, 1)

    def bind(self, endpoints: tuple[Endpoint, ...]) -> None:
        first, *others = endpoints
        if first.port:
            # A server that starts again does not have to wait until the associations of the one before have ended.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address: Any = _with_index(first).sockaddr
        if self._sock.family == socket.AF_INET6 and first.family == socket.AF_INET:
            address = (f"::ffff:{first.host}", first.port)
        self._sock.bind(address)
        if others:
            port = self._sock.getsockname()[1]
            same_port = [Endpoint(each.host, port, each.scope_id, each.flowinfo) for each in others]
            self._sock.setsockopt(wire.SOL_SCTP, wire.BINDX_ADD, wire.pack_addresses(map(_with_index, same_port)))

    def listen(self, backlog: int) -> None:
        self._sock.listen(backlog)

    def accept(self) -> KernelSctpSocket:
        # It has the listener's subscriptions: sctp_copy_descendant() in the kernel.
        return KernelSctpSocket(self._sock.accept()[0])

    def _system_timers(self) -> tuple[int, int, int]:
        return wire.unpack_rtoinfo(self._sock.getsockopt(wire.SOL_SCTP, wire.RTOINFO, 16))

    def prepare(self, *, streams: int, attempt_delay: float, rounds: int | None, tuning: SctpTuning) -> None:
        self._timers = self._system_timers()
        # The retransmission time-out of INIT is what paces the addresses. sinit_max_init_timeo is not: it only caps
        # the pause, which doubles after each round over all addresses.
        initial = wire.pack_rtoinfo(initial=_ms(attempt_delay))
        self._sock.setsockopt(wire.SOL_SCTP, wire.RTOINFO, initial)
        # Every INIT counts, to whichever address it went.
        once = wire.unpack_initmsg(self._sock.getsockopt(wire.SOL_SCTP, wire.INITMSG, 8))
        attempts = _MOST_ATTEMPTS if rounds is None else min(once * rounds, _MOST_ATTEMPTS)
        initmsg = wire.pack_initmsg(streams=streams, attempts=attempts)
        self._sock.setsockopt(wire.SOL_SCTP, wire.INITMSG, initmsg)
        self._set_path_parameters(tuning)

    def _set_path_parameters(self, tuning: SctpTuning) -> None:
        heartbeat, retransmissions = _ms(tuning.heartbeat or 0), tuning.path_max_retrans or 0
        if heartbeat or retransmissions:
            packed = wire.pack_path_parameters(heartbeat=heartbeat, retransmissions=retransmissions)
            self._sock.setsockopt(wire.SOL_SCTP, wire.PEER_ADDR_PARAMS, packed)

    def connect(self, endpoints: tuple[Endpoint, ...]) -> None:
        with contextlib.suppress(BlockingIOError):  # EINPROGRESS: the usual case
            self._sock.setsockopt(wire.SOL_SCTP, wire.CONNECTX, wire.pack_addresses(map(_with_index, endpoints)))

    def set_timers(self, tuning: SctpTuning) -> None:
        initial, minimum, maximum = self._timers or self._system_timers()
        if tuning.rto_initial is not None:
            initial = _ms(tuning.rto_initial)
        # The kernel refuses a least that is above the greatest, so the one that was given moves the other.
        if tuning.rto_max is not None:
            maximum = _ms(tuning.rto_max)
            minimum = min(minimum, maximum)
        if tuning.rto_min is not None:
            minimum = _ms(tuning.rto_min)
            maximum = max(minimum, maximum)
        packed = wire.pack_rtoinfo(initial=initial, minimum=minimum, maximum=maximum)
        self._sock.setsockopt(wire.SOL_SCTP, wire.RTOINFO, packed)
        self._set_path_parameters(tuning)

    def receive(self) -> Piece | Notification:
        if sys.platform == "win32":  # `make` has refused; the socket module has no such names there
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
        data, control, flags, _ = self._sock.recvmsg(65536, wire.RCVINFO_SPACE)
        if flags & wire.MSG_NOTIFICATION:
            return wire.unpack_notification(data)
        return Piece(data, bool(flags & socket.MSG_EOR), wire.unpack_receive(control))

    def send(self, data: bytes, *, stream: int, ppid: int, unordered: bool, ttl: int | None) -> None:
        if sys.platform == "win32":  # `make` has refused; the socket module has no such names there
            raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
        control = wire.pack_send(stream=stream, ppid=ppid, unordered=unordered, ttl=ttl)
        self._sock.sendmsg([data], control, socket.MSG_NOSIGNAL)

    def status(self) -> Status:
        return wire.unpack_status(self._ask(wire.STATUS, bytes(wire.STATUS_SIZE)))

    def peer_addresses(self) -> tuple[Endpoint, ...]:
        return self._addresses(wire.GET_PEER_ADDRS)

    def local_addresses(self) -> tuple[Endpoint, ...]:
        return self._addresses(wire.GET_LOCAL_ADDRS)

    def _addresses(self, option: int) -> tuple[Endpoint, ...]:
        room = _FEW_ADDRESSES
        while True:
            try:
                return wire.unpack_getaddrs(self._ask(option, wire.pack_getaddrs(room * 28)))
            except OSError as exc:
                if exc.errno != errno.ENOMEM or room > 1 << 16:
                    raise
            room *= 8

    def path(self, endpoint: Endpoint) -> Path:
        return wire.unpack_paddrinfo(self._ask(wire.GET_PEER_ADDR_INFO, wire.pack_paddrinfo(_with_index(endpoint))))

    def set_primary(self, endpoint: Endpoint) -> None:
        self._sock.setsockopt(wire.SOL_SCTP, wire.PRIMARY_ADDR, wire.pack_primary(_with_index(endpoint)))

    def _ask(self, option: int, question: bytes) -> bytes:
        """Return the answer to an option whose buffer has a question in it: socket.getsockopt cannot pass one.

        The whole buffer: the length that the kernel gives back for local addresses leaves out their header.
        """
        buffer = ctypes.create_string_buffer(question, len(question))
        length = ctypes.c_uint32(len(question))
        # -1 alone is an error: a positive result is an answer for some options.
        if _libc().getsockopt(self._sock.fileno(), wire.SOL_SCTP, option, buffer, ctypes.byref(length)) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return buffer.raw

    def shutdown(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ABORT)
        self.close()

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    def wake(self) -> None:
        trio.lowlevel.notify_closing(self._sock)

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._sock)

    async def wait_writable(self) -> None:
        await trio.lowlevel.wait_writable(self._sock)


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 1) if seconds else 0


def _with_index(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint whose zone is the index that the interface of that name has now.

    Raises:
      OSError: ENODEV, there is no such interface.
    """
    if not isinstance(endpoint.scope_id, str):
        return endpoint
    return Endpoint(endpoint.host, endpoint.port, interface_index(endpoint.scope_id), endpoint.flowinfo)
