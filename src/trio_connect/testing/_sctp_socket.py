"""The sockets of an `SctpNetwork`: the contract of `trio_connect.sctp.SctpSocket`, without a kernel."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from socket import AddressFamily
from typing import Any, final

import attrs
import trio

from .. import Endpoint, sctp
from ._sctp_association import PIECE, End
from ._sctp_host import Fabric, os_error
from ._sctp_path import Timers

_ESTABLISHED = 4  # enum sctp_sstat_state
_SERVER_STREAMS = 10  # what Linux asks for when nobody says otherwise
_MTU = 1500


@attrs.define(eq=False)
class _Waiter:
    is_ready: Callable[[], bool]
    event: trio.Event = attrs.field(factory=trio.Event, init=False)
    was_woken: bool = attrs.field(default=False, init=False)


@final
class FakeSctpSocket(sctp.SctpSocket):
    """A one-to-one socket on a host of an `SctpNetwork`."""

    def __init__(self, net: Fabric, family: AddressFamily) -> None:
        self._net = net
        self._family = family
        self._local: tuple[str, ...] = ()
        self._port = 0
        self._timers = Timers()
        self._attempt: dict[str, Any] = {}
        self._end: End | None = None
        self._backlog: int | None = None
        self._accepted: deque[FakeSctpSocket] = deque()
        self._received: deque[sctp.Piece | sctp.AssociationEvent | sctp.PathEvent] = deque()
        self._error = 0
        self._has_ended = False
        self._waiters: set[_Waiter] = set()
        self.is_closed = False
        self.unread = 0
        """Bytes of messages that were received and not read yet."""

    # ------------------------------------------------------------------ before an association

    def bind(self, endpoints: tuple[Endpoint, ...]) -> None:
        local = tuple(each.host for each in endpoints)
        host = self._net.owner(local)
        port = endpoints[0].port or self._net.new_port()
        if any((each, port) in host.listeners for each in local):
            raise os_error(errno.EADDRINUSE)
        self._local, self._port = local, port

    def listen(self, backlog: int) -> None:
        host = self._net.owner(self._local)
        self._backlog = backlog
        host.listeners.update(dict.fromkeys([(each, self._port) for each in self._local], self))

    def is_full(self) -> bool:
        """Say whether the backlog is full."""
        return self._backlog is None or len(self._accepted) > self._backlog

    def admit(self, client: End, source: str) -> End:
        """Make this end of an association that a client has begun."""
        sock = FakeSctpSocket(self._net, self._family)
        sock._local, sock._port, sock._timers = self._local, self._port, self._timers
        end = sock._end = End(self._net, self._net.owner(self._local), sock, self._local, self._port, self._timers)
        end.peer, end.peer_port, end.outbound = client, client.port, _SERVER_STREAMS
        end.become_up(client.local, confirmed=(source,), primary=source)
        self._accepted.append(sock)
        self.changed()
        return end

    def accept(self) -> FakeSctpSocket:
        if not self._accepted:
            raise BlockingIOError(errno.EAGAIN, "nobody waits to be accepted")
        return self._accepted.popleft()

    def prepare(self, *, streams: int, attempt_delay: float, rounds: int | None, tuning: sctp.SctpTuning) -> None:
        # A path keeps the attempt delay for its time-out until it was measured, as the kernel's do.
        self._timers = attrs.evolve(self._timers.tuned(tuning), initial=attempt_delay)
        self._attempt = {"streams": streams, "delay": attempt_delay, "rounds": rounds}

    def connect(self, endpoints: tuple[Endpoint, ...]) -> None:
        host = self._net.owner(self._local)
        if not self._local:
            families = {each.family for each in endpoints} | {self._family}
            self._local = tuple(each for each in host.addresses if Endpoint(each, 0).family in families)
        self._port = self._port or self._net.new_port()
        self._end = End(self._net, host, self, self._local, self._port, self._timers)
        self._end.connect(endpoints, **self._attempt)

    def set_timers(self, tuning: sctp.SctpTuning) -> None:
        initial = self._timers.initial
        self._timers = self._timers.tuned(tuning)
        if self._end is not None:
            if tuning.rto_initial is None:
                self._timers = attrs.evolve(self._timers, initial=initial)
            self._end.timers = self._timers

    # ------------------------------------------------------------------ an association

    def tell(self, event: sctp.AssociationEvent | sctp.PathEvent) -> None:
        """Queue an event for the next reader."""
        self._received.append(event)
        self.changed()

    def put(self, data: bytes, info: sctp.ReceiveInfo) -> None:
        """Receive a message, in pieces if it is large."""
        if not self.is_closed:
            self.unread += len(data)
            for at in range(0, len(data), PIECE):
                self._received.append(sctp.Piece(data[at : at + PIECE], at + PIECE >= len(data), info))
            self.changed()

    def fail(self, code: int) -> None:
        """Queue an error, to be raised once after everything else was read. The end follows it."""
        self._error, self._has_ended = code, True
        self.changed()

    def end(self) -> None:
        """Queue the end, which comes after everything else was read."""
        self._has_ended = True
        self.changed()

    def receive(self) -> sctp.Piece | sctp.AssociationEvent | sctp.PathEvent:
        if self.is_closed:
            raise os_error(errno.EBADF)
        if self._received:
            found = self._received.popleft()
            if isinstance(found, sctp.Piece):
                self.unread -= len(found.data)
                if self._end is not None:
                    self._end.make_room()
            return found
        if self._error:
            code, self._error = self._error, 0
            raise os_error(code)
        if self._has_ended:
            return sctp.Piece(b"", end=True, info=None)
        raise BlockingIOError(errno.EAGAIN, "nothing has been received")

    def send(self, data: bytes, *, stream: int, ppid: int, unordered: bool, ttl: int | None) -> None:
        if self.is_closed:
            raise os_error(errno.EBADF)
        if self._end is None:
            raise os_error(errno.ENOTCONN)
        self._end.send(data, stream=stream, ppid=ppid, unordered=unordered, ttl=ttl)

    def _up(self) -> End:
        if self._end is None or self._end.state != "up":
            raise os_error(errno.EINVAL)
        return self._end

    def status(self) -> sctp.Status:
        end = self._up()
        primary = self.path(Endpoint(end.primary, end.peer_port))
        return sctp.Status(end.id, _ESTABLISHED, end.unacknowledged, end.inbound, end.outbound, primary)

    def peer_addresses(self) -> tuple[Endpoint, ...]:
        end = self._up()
        return tuple(Endpoint(each, end.peer_port) for each in end.ways)

    def local_addresses(self) -> tuple[Endpoint, ...]:
        return tuple(Endpoint(each, self._port) for each in self._local)

    def path(self, endpoint: Endpoint) -> sctp.Path:
        way = self._up().ways.get(endpoint.host)
        if way is None:
            raise os_error(errno.EINVAL)
        return sctp.Path(endpoint, way.state, way.srtt, way.rto, _MTU)

    def set_primary(self, endpoint: Endpoint) -> None:
        end = self._up()
        if endpoint.host not in end.ways:
            raise os_error(errno.EINVAL)
        end.primary = endpoint.host

    # ------------------------------------------------------------------ the end

    def shutdown(self) -> None:
        if self._end is None:
            raise os_error(errno.ENOTCONN)
        self._end.shutdown()

    def abort(self) -> None:
        if not self.is_closed and self._end is not None:
            self._end.abort()
        self.close()

    def close(self) -> None:
        if self.is_closed:
            return
        if self._end is not None:
            self._end.close()
        if self._backlog is not None:
            listeners = self._net.owner(self._local).listeners
            for each in self._local:
                listeners.pop((each, self._port), None)
            for sock in self._accepted:
                sock.abort()
        self.is_closed = True
        self.unread = 0
        self._received.clear()
        self.wake()

    def wake(self) -> None:
        for waiter in self._waiters:
            waiter.was_woken = True
            waiter.event.set()

    # ------------------------------------------------------------------ waiting

    def changed(self) -> None:
        """Wake the tasks whose call may succeed now."""
        for waiter in self._waiters:
            if waiter.is_ready():
                waiter.event.set()

    async def wait_readable(self) -> None:
        await self._wait(lambda: bool(self._received or self._accepted or self._has_ended))

    async def wait_writable(self) -> None:
        await self._wait(lambda: self._end is None or self._end.takes_more())

    async def _wait(self, is_ready: Callable[[], bool]) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError("the socket was closed")
        if is_ready():
            await trio.lowlevel.checkpoint()
            return
        waiter = _Waiter(is_ready)
        self._waiters.add(waiter)
        try:
            await waiter.event.wait()
        finally:
            self._waiters.discard(waiter)
        if waiter.was_woken:
            raise trio.ClosedResourceError("the socket was closed by another task")
