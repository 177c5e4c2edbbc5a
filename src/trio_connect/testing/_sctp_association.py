"""One end of an association on an `SctpNetwork`: retransmission, failover, heartbeats, shutdown (RFC 9260).

Congestion control, path MTU, bundling, restart and dynamic addresses are left out. A packet is a function that runs at
the other end when it arrives. A timer is only armed while it can have an effect, so that a clock that jumps to the next
event does not run for ever.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, Protocol, TypeAlias

import attrs

from .. import Endpoint, sctp
from ._sctp_host import Fabric, Listening, SctpHost, os_error
from ._sctp_path import PeerPath, Timers, best
from ._timeline import Timer

State: TypeAlias = Literal["connecting", "echoed", "up", "dead"]

BUFFER: Final = 212_992
"""Bytes that wait to be acknowledged, or to be received: Linux's default, net.core.wmem_default."""
PIECE: Final = 65_536
_INIT_ATTEMPTS: Final = 8  # net.sctp.max_init_retransmits
_MOST_ERRORS: Final = 10  # net.sctp.association_max_retrans
_USER_ABORT: Final = 12  # RFC 9260 section 3.3.10.12


@attrs.define(eq=False)
class _Chunk:
    """A message that is under way."""

    data: bytes
    info: sctp.ReceiveInfo
    number: int
    """Of its stream: RFC 9260 calls it the stream sequence number."""
    expires: float | None = None
    is_done: bool = False
    has_arrived: bool = False
    timer: Timer | None = None


class Reader(Protocol):
    """A socket, as its end of the association knows it."""

    unread: int

    def tell(self, event: sctp.AssociationEvent | sctp.PathEvent) -> None:
        """Queue an event for the next reader."""

    def put(self, data: bytes, info: sctp.ReceiveInfo) -> None:
        """Receive a message."""

    def fail(self, code: int) -> None:
        """Queue an error, to be raised once after everything else was read. The end follows it."""

    def end(self) -> None:
        """Queue the end, which comes after everything else was read."""

    def changed(self) -> None:
        """Wake the tasks whose call may succeed now."""


class End:
    """One end of an association. It may outlive its socket, to deliver what was sent."""

    def __init__(
        self, net: Fabric, host: SctpHost, sock: Reader, local: tuple[str, ...], port: int, timers: Timers
    ) -> None:
        self.net, self.host, self.socket = net, host, sock
        self.local, self.port, self.timers = local, port, timers
        self.id = net.new_id()
        self.state: State = "connecting"
        self.peer: End | None = None
        self.peer_port = 0
        self.outbound = self.inbound = 0
        self.primary = ""
        self.ways: dict[str, PeerPath] = {}
        self.queued = 0
        self.is_shut = False
        """Whether either end has said that it sends no more."""
        self.is_finished = False
        self._under_way: list[_Chunk] = []
        self._postponed: deque[tuple[_Chunk, str, Callable[[], None]]] = deque()
        self._closing: Timer | None = None
        self._was_told = False
        self._errors = 0
        self._tsn = 0
        self._sent: dict[int, int] = {}
        self._expected: dict[int, int] = {}
        self._early: dict[tuple[int, int], _Chunk] = {}
        self._setup: Timer | None = None
        host.ends.add(self)

    # ------------------------------------------------------------------ setting up

    def connect(self, endpoints: tuple[Endpoint, ...], *, streams: int, delay: float, rounds: int | None) -> None:
        """Send INIT to one address after the other, RFC 9260 section 5.1."""
        self.peer_port, self.outbound = endpoints[0].port, streams
        given = tuple(each.host for each in endpoints)
        most = None if rounds is None else _INIT_ATTEMPTS * rounds

        def init(turn: int) -> None:
            if self.state != "connecting":
                return
            if most is not None and turn > most:
                self._cannot_start(errno.ETIMEDOUT)
                return
            to = given[turn % len(given)]
            self.net.carry(self.host, self.local, to, lambda host, source: self._init_arrived(host, source, to, given))
            # The pause doubles after each round over all addresses.
            self._setup = self.net.later(delay * 2 ** min(turn // len(given), 16), lambda: init(turn + 1))

        init(0)

    def _init_arrived(self, host: SctpHost, source: str, to: str, given: tuple[str, ...]) -> None:
        listener = host.listeners.get((to, self.peer_port))
        if listener is None or listener.is_full():
            self.net.send(host, (to,), source, lambda: self._cannot_start(errno.ECONNREFUSED))
        else:
            self.net.send(host, (to,), source, lambda: self._acknowledged(listener, to, source, given))

    def _acknowledged(self, listener: Listening, to: str, source: str, given: tuple[str, ...]) -> None:
        if self.state != "connecting":
            return
        self.state = "echoed"
        made: list[End] = []

        def arrived(host: SctpHost, _: str) -> None:
            if not made:
                if listener.is_closed or listener.is_full():
                    self.net.send(host, (to,), source, lambda: self._cannot_start(errno.ECONNREFUSED))
                    return
                made.append(listener.admit(self, source))
            self.net.send(host, (to,), source, lambda: self._up(made[0], to, given))

        def cookie() -> None:
            if self.state == "echoed":
                self.net.carry(self.host, self.local, to, arrived)
                self._setup = self.net.later(self.timers.initial, cookie)

        if self._setup is not None:
            self._setup.cancel()
        cookie()

    def _up(self, peer: End, answered: str, given: tuple[str, ...]) -> None:
        if self.state != "echoed":
            return
        self.peer = peer
        self.become_up(peer.local, confirmed=given, primary=answered)

    def become_up(self, addresses: tuple[str, ...], *, confirmed: tuple[str, ...], primary: str) -> None:
        """Begin to use the paths to the addresses that the peer has listed."""
        if self._setup is not None:
            self._setup.cancel()
        self.state = "up"
        # As in the kernel's list, the addresses given by the caller come first, in their order.
        listed = [each for each in confirmed if each in addresses]
        for each in dict.fromkeys((*listed, *addresses)):
            self.ways[each] = PeerPath(each, "active" if each in confirmed else "unconfirmed", self.timers.initial)
        self.primary = primary if primary in self.ways else next(iter(self.ways))
        assert self.peer is not None
        self.inbound = self.peer.outbound
        self.socket.tell(sctp.AssociationEvent("up", 0, self.outbound, self.inbound))
        self.schedule_heartbeats()

    def _cannot_start(self, code: int) -> None:
        if self.state in ("connecting", "echoed"):
            self._die()
            self.socket.tell(sctp.AssociationEvent("cannot start"))
            self.socket.fail(code)

    # ------------------------------------------------------------------ sending

    def send(self, data: bytes, *, stream: int, ppid: int, unordered: bool, ttl: int | None) -> None:
        """Send a message.

        Raises:
          BlockingIOError: the send buffer is full.
          OSError: EPIPE, EMSGSIZE, EINVAL.
        """
        if self.state != "up" or self.is_shut:
            raise os_error(errno.EPIPE)
        if len(data) > BUFFER:
            raise os_error(errno.EMSGSIZE)
        if stream >= self.outbound:
            raise os_error(errno.EINVAL)
        if self.queued >= BUFFER:
            raise BlockingIOError(errno.EAGAIN, "the send buffer is full")
        self._tsn += 1
        number = self._sent.get(stream, 0)
        if not unordered:
            self._sent[stream] = number + 1
        expires = None if ttl is None else self.net.now() + ttl / 1000
        chunk = _Chunk(data, sctp.ReceiveInfo(stream, ppid, unordered, self._tsn), number, expires)
        self.queued += len(data)
        self._under_way.append(chunk)
        self._transmit(chunk, self._best())

    def takes_more(self) -> bool:
        """Say whether a sender need not wait: there is room, or its call fails."""
        return self.state != "up" or self.is_shut or self.queued < BUFFER

    @property
    def unacknowledged(self) -> int:
        """How many messages are under way."""
        return len(self._under_way)

    def _best(self, but: PeerPath | None = None) -> PeerPath:
        return best(self.ways.values(), self.primary, but)

    def _transmit(self, chunk: _Chunk, way: PeerPath) -> None:
        sent = self.net.now()
        chunk.timer = self.net.later(way.rto, lambda: self._timed_out(chunk, way))
        self._packet(
            way.address, lambda peer, source: peer.arrived(chunk, source, lambda: self._taken(chunk, way, sent))
        )

    def _packet(self, to: str, arrive: Callable[[End, str], None]) -> None:
        """Send a packet to the peer. A peer without the association answers with ABORT, RFC 9260 section 8.4."""
        peer = self.peer
        assert peer is not None

        def reached(_: SctpHost, source: str) -> None:
            if peer.state == "dead" and not peer.is_finished:
                self.net.send(peer.host, peer.local, source, lambda: self.lost(errno.ECONNRESET, 0))
            else:
                arrive(peer, source)

        self.net.carry(self.host, self.local, to, reached)

    def _timed_out(self, chunk: _Chunk, way: PeerPath) -> None:
        if chunk.is_done or self.state != "up":
            return
        if not self._failed(way):
            return
        if chunk.expires is not None and self.net.now() >= chunk.expires:
            self.queued -= len(chunk.data)
            chunk.data, chunk.expires = b"", None  # what remains tells the peer to go on without it: FORWARD TSN
        self._transmit(chunk, self._best(but=way))

    def _failed(self, way: PeerPath) -> bool:
        """Count a packet of a path that was not acknowledged in time; return whether the association goes on.

        RFC 9260 sections 8.1 and 8.2.
        """
        if way.state != "unconfirmed":
            self._errors += 1
        if way.missed(self.timers):
            self._tell(way, "unreachable")
        if self._errors > _MOST_ERRORS:
            self.lost(errno.ETIMEDOUT, 0)
            return False
        self.schedule_heartbeats()
        return True

    def _worked(self, way: PeerPath, rtt: float) -> None:
        self._errors = 0
        before = way.answered(rtt, self.timers)
        if before == "inactive":
            self._tell(way, "available")
        elif before == "unconfirmed":
            self._tell(way, "confirmed")

    def _tell(self, way: PeerPath, what: Literal["available", "unreachable", "confirmed"]) -> None:
        self.socket.tell(sctp.PathEvent(Endpoint(way.address, self.peer_port), what))

    def _taken(self, chunk: _Chunk, way: PeerPath, sent: float) -> None:
        if chunk.is_done or self.state != "up":
            return
        chunk.is_done = True
        if chunk.timer is not None:
            chunk.timer.cancel()
        self._under_way.remove(chunk)
        self.queued -= len(chunk.data)
        self._worked(way, self.net.now() - sent)
        self.socket.changed()
        self._go_on()

    # ------------------------------------------------------------------ receiving

    def arrived(self, chunk: _Chunk, source: str, acknowledge: Callable[[], None]) -> None:
        """Receive a chunk, and acknowledge it."""
        if self.state != "up" or chunk.has_arrived:
            self.net.send(self.host, self.local, source, acknowledge)
        elif self.socket.unread < BUFFER:
            self._take(chunk, source, acknowledge)
        else:
            # The window is full. The probes of a real sender are left out here. Nothing counts as lost.
            assert chunk.timer is not None
            chunk.timer.cancel()
            self._postponed.append((chunk, source, acknowledge))

    def make_room(self) -> None:
        """Receive the chunks that waited for a read."""
        while self._postponed and self.state == "up" and self.socket.unread < BUFFER:
            self.arrived(*self._postponed.popleft())

    def _take(self, chunk: _Chunk, source: str, acknowledge: Callable[[], None]) -> None:
        chunk.has_arrived = True
        self.net.send(self.host, self.local, source, acknowledge)
        if chunk.info.unordered:
            self._deliver(chunk)
            return
        stream = chunk.info.stream
        self._early[stream, chunk.number] = chunk
        while (ready := self._early.pop((stream, self._expected.get(stream, 0)), None)) is not None:
            self._expected[stream] = ready.number + 1
            self._deliver(ready)

    def _deliver(self, chunk: _Chunk) -> None:
        if chunk.data:
            self.socket.put(chunk.data, chunk.info)

    # ------------------------------------------------------------------ heartbeats

    def schedule_heartbeats(self) -> None:
        """Start a heartbeat timer on each path whose state a heartbeat would change."""
        for way in self.ways.values():
            if self.state == "up" and way.heartbeat is None and self._is_worth_a_heartbeat(way):
                pause = way.rto if way.state == "unconfirmed" else self.timers.heartbeat + way.rto
                way.heartbeat = self.net.later(pause, lambda way=way: self._heartbeat(way))  # type: ignore[misc]

    def _is_worth_a_heartbeat(self, way: PeerPath) -> bool:
        works = self.net.carries(self.host.route(self.local, way.address), way.address)
        return {"active": not works, "inactive": works}.get(way.state, True)

    def _heartbeat(self, way: PeerPath) -> None:
        sent = self.net.now()

        def answered() -> None:
            if timer.action is not None and self.state == "up":
                timer.cancel()
                way.heartbeat = None
                self._worked(way, self.net.now() - sent)
                self.schedule_heartbeats()

        def unanswered() -> None:
            way.heartbeat = None
            self._failed(way)

        timer = way.heartbeat = self.net.later(way.rto, unanswered)
        self._packet(
            way.address,
            lambda peer, source: self.net.send(peer.host, peer.local, source, answered),
        )

    # ------------------------------------------------------------------ the end

    def shutdown(self) -> None:
        """Send SHUTDOWN when everything was acknowledged, RFC 9260 section 9.2."""
        if self.state != "up":
            raise os_error(errno.ENOTCONN)
        self.is_shut = True
        self._go_on()

    def _go_on(self) -> None:
        """Go on with the graceful end: an end with no chunk under way repeats SHUTDOWN until the other end answers."""
        if self.is_shut and not self._under_way and self._closing is None:
            self._say_shutdown()

    def _say_shutdown(self) -> None:
        way = self._best()

        def again() -> None:
            if self._failed(way):
                self._say_shutdown()

        self._closing = self.net.later(way.rto, again)
        self._packet(way.address, lambda peer, source: peer.told_of_shutdown(source, is_answer=self._was_told))

    def told_of_shutdown(self, source: str, *, is_answer: bool) -> None:
        """Take SHUTDOWN, or the SHUTDOWN ACK that answers it and ends the association, RFC 9260 section 9.2."""
        peer = self.peer
        if self.state == "up" and not (is_answer or self._was_told):
            self.is_shut = self._was_told = True
            if self._closing is not None:
                self._closing.cancel()  # both ends have said SHUTDOWN, so this one answers as well
                self._closing = None
            self.socket.changed()
            self._go_on()
        elif is_answer and peer is not None:
            self.net.send(self.host, self.local, source, peer.finish)
            self.finish()

    def finish(self) -> None:
        """End gracefully."""
        if self.state == "up":
            self.is_finished = True
            self._die()
            self.socket.tell(sctp.AssociationEvent("shut down"))
            self.socket.end()

    def abort(self) -> None:
        """End at once, RFC 9260 section 9.1."""
        peer = self.peer
        if self.state == "up" and peer is not None:
            to = self._best().address
            self.net.send(self.host, self.local, to, lambda: peer.lost(errno.ECONNRESET, _USER_ABORT))
        self._die()

    def close(self) -> None:
        """End as a socket's close(2) does: gracefully in the background, or by ABORT if something was not read."""
        if self.state != "up" or self.socket.unread:
            self.abort()
        elif not self.is_shut:
            self.shutdown()

    def lost(self, code: int, cause: int) -> None:
        """End because the peer has ended, or does not answer any more."""
        if self.state == "up":
            self._die()
            self.socket.tell(sctp.AssociationEvent("lost", cause))
            self.socket.fail(code)

    def _die(self) -> None:
        self.state = "dead"
        self.host.ends.discard(self)
        timers = [self._setup, self._closing]
        timers += [chunk.timer for chunk in self._under_way]
        timers += [way.heartbeat for way in self.ways.values()]
        for timer in timers:
            if timer is not None:
                timer.cancel()
        self._postponed.clear()
