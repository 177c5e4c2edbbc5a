"""One end of a TCP connection: bytes in order, windows, FIN and RST, as Linux shows them to a program.

Rules.
- An end talks to its peer only through messages on its own wire; the messages of one direction arrive in order.
- `send` takes what fits into the send buffer, and bytes leave it when the peer has acknowledged them. Bytes travel only
  as far as the peer's receive buffer has room for, and reading makes room: that is the back-pressure.
- A message that meets a cut path waits at the head of its wire and is retransmitted with doubling pauses from 0.2 s
  plus a round trip, at most 120 s; after 15 of them the sender has ETIMEDOUT. Where only the ack is lost, the sender is
  who waits for that. Everything behind it waits too.
- Unread input at close, or SO_LINGER 0, becomes RST; otherwise FIN follows the data. Data for an end that is gone is
  answered with RST. RST is never retransmitted.
- What comes for an end that has shut both directions down is answered with RST, and is an error here too.
- The results of reads and writes come in Linux's order (tcp_recvmsg, tcp_sendmsg). A read gives queued bytes, then the
  end of the stream if a FIN came, then a pending error once, then the end of the stream for ever. A write raises the
  pending error once, then EPIPE.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, NoReturn

import attrs

from ._path import SEGMENT, Path, Wire
from ._timeline import Place, Timeline, Timer
from ._trace import Tally

DATA_RETRIES: Final = 15  # net.ipv4.tcp_retries2
MIN_RTO: Final = 0.2
MAX_RTO: Final = 120.0

State = Literal["connecting", "open", "dead"]
MessageKind = Literal["open", "data", "fin", "rst", "ack", "window"]


def fail(number: int) -> NoReturn:
    """Raise the OSError that the kernel would."""
    raise OSError(number, os.strerror(number))


@attrs.define(eq=False)
class Message:
    """Something on a wire: `size` bytes of data, or how much an ack or a window update is worth."""

    kind: MessageKind
    arrives: float
    lost: bool
    data: bytes = b""
    size: int = 0


def _nothing() -> None:
    pass


@attrs.define(eq=False)
class End:
    """One end of a connection. The two ends of a connection refer to each other."""

    timeline: Timeline
    place: Place
    path: Path
    wire: Wire
    passes: Callable[[], bool]
    local: tuple[str, int]
    remote: tuple[str, int]
    send_buffer: int
    receive_buffer: int
    state: State = "connecting"
    peer: End | None = None

    inbox: bytearray = attrs.field(factory=bytearray, init=False)
    error: int = attrs.field(default=0, init=False)
    """The pending error, SO_ERROR, which is raised once."""
    fin_received: bool = attrs.field(default=False, init=False)
    read_closed: bool = attrs.field(default=False, init=False)
    write_closed: bool = attrs.field(default=False, init=False)
    orphan: bool = attrs.field(default=False, init=False)
    """Whether the program has closed this end, which then only delivers what was sent."""
    tally: Tally = attrs.field(factory=Tally, kw_only=True)

    on_open: Callable[[], None] = attrs.field(default=_nothing, init=False)
    on_readable: Callable[[], None] = attrs.field(default=_nothing, init=False)
    on_writable: Callable[[], None] = attrs.field(default=_nothing, init=False)
    on_reset: Callable[[], None] = attrs.field(default=_nothing, init=False)

    _outbox: bytearray = attrs.field(factory=bytearray, init=False, alias="_outbox")
    _unacked: int = attrs.field(default=0, init=False, alias="_unacked")
    _window: int = attrs.field(default=0, init=False, alias="_window")
    _window_debt: int = attrs.field(default=0, init=False, alias="_window_debt")
    _fin_sent: bool = attrs.field(default=False, init=False, alias="_fin_sent")
    _transit: deque[Message] = attrs.field(factory=deque[Message], init=False, alias="_transit")
    _timer: Timer | None = attrs.field(default=None, init=False, alias="_timer")
    _delivering: bool = attrs.field(default=False, init=False, alias="_delivering")
    _retries: int = attrs.field(default=0, init=False, alias="_retries")

    # ---- What the program does ----

    def send(self, data: memoryview) -> int:
        """Take what fits.

        Raises:
          BlockingIOError: nothing fits, or the handshake goes on.
          OSError: the pending error, or EPIPE.
        """
        if self.error:
            fail(self.take_error())
        if self.write_closed or self.state == "dead":
            fail(errno.EPIPE)
        room = self.room
        if self.state == "connecting" or (not room and len(data)):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        accepted = min(room, len(data))
        self._outbox += data[:accepted]
        self._unacked += accepted
        self.tally.sent += accepted
        self._flush()
        return accepted

    @property
    def room(self) -> int:
        """How many bytes the send buffer takes now."""
        return max(0, self.send_buffer - self._unacked)

    @property
    def is_over(self) -> bool:
        """Whether both ends have sent FIN, and have each other's: the kernel then has no connection any more."""
        return self._fin_sent and self.fin_received and (self.peer is None or self.peer.fin_received)

    @property
    def writable(self) -> bool:
        """Whether a send would not wait; errors count, as they do for poll(2)."""
        return bool(self.state == "dead" or self.error or self.write_closed or (self.state == "open" and self.room))

    @property
    def readable(self) -> bool:
        """Whether a receive would not wait."""
        return bool(self.inbox or self.fin_received or self.error or self.read_closed or self.state == "dead")

    def receive(self, limit: int, peek: bool = False) -> bytes:
        """Take at most `limit` bytes; b"" at the end.

        Raises:
          BlockingIOError: nothing is there yet.
          OSError: the pending error.
        """
        if self.inbox:
            data = bytes(self.inbox[:limit])
            if not peek:
                del self.inbox[:limit]
                self.tally.received += len(data)
                self._open_window(len(data))
            return data
        if self.fin_received:
            return b""
        if self.error:
            fail(self.take_error())
        if self.read_closed or self.state == "dead":
            return b""
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def take_error(self) -> int:
        """Return the pending error, which is then no longer pending."""
        error, self.error = self.error, 0
        return error

    def shutdown(self, read: bool, write: bool) -> None:
        """Half-close.

        Raises:
          OSError: ENOTCONN without a connection.
        """
        if self.state != "open" or self.is_over:
            fail(errno.ENOTCONN)
        if read:
            self.read_closed = True
            self.on_readable()
        if write and not self.write_closed:
            self.write_closed = True
            self._flush()
            self.on_writable()

    def close(self, linger: bool = True) -> None:
        """Close: send FIN after the data, or RST when there is unread input or SO_LINGER is 0."""
        self.on_readable = self.on_writable = _nothing
        if self.state != "open":
            self.die(0)
        elif self.inbox or not linger:
            self.abort()
        else:
            self.orphan = self.write_closed = True
            self._flush()

    def abort(self) -> None:
        """Send RST and forget everything; what is already under way still arrives before it."""
        if self.state == "open":
            self._outbox.clear()
            self.state = "dead"
            self._transmit("rst")
        self.die(0)

    def die(self, error: int) -> None:
        """End at once, with a pending error for the program if one is given."""
        self.state = "dead"
        self.error = error
        self._outbox.clear()
        self._unacked = 0
        self.on_readable()
        self.on_writable()

    def resize(self, receive_buffer: int) -> None:
        """Change the size of the receive buffer while connected."""
        grown, self.receive_buffer = receive_buffer - self.receive_buffer, receive_buffer
        if self.state == "open":
            if grown < 0:
                # A window once offered is not taken back (RFC 9293 3.8.6): later reads open it by less.
                self._window_debt -= grown
            else:
                self._open_window(grown)

    # ---- What the network does ----

    def open(self, peer: End) -> None:
        """Learn that the handshake is over for this end."""
        self.peer, self.state, self._window = peer, "open", peer.receive_buffer
        self.on_open()
        self.on_writable()

    def greet(self) -> None:
        """Send the last packet of the handshake, which opens the peer."""
        self._transmit("open")

    def _open_window(self, size: int) -> None:
        paid = min(size, self._window_debt)
        self._window_debt -= paid
        if size > paid:
            self._transmit("window", size=size - paid)

    def _flush(self) -> None:
        while self._outbox and self._window and self.state == "open":
            size = min(len(self._outbox), self._window, SEGMENT)
            data = bytes(self._outbox[:size])
            del self._outbox[:size]
            self._window -= size
            self._transmit("data", data, size)
        if self.write_closed and not self._outbox and not self._fin_sent and self.state == "open":
            self._fin_sent = True
            self._transmit("fin")

    def _transmit(self, kind: MessageKind, data: bytes = b"", size: int = 0) -> None:
        message = Message(kind, self.wire.arrival(self.timeline.now(), len(data)), not self.passes(), data, size)
        self._transit.append(message)
        self._drain()

    def _drain(self) -> None:
        # Not re-entrant: what an arrival causes to be sent has to queue behind the messages that arrive with it.
        if self._delivering or self._timer is not None:
            return
        now = self.timeline.now()
        while self._transit and self._transit[0].arrives <= now:
            if self._transit[0].lost or not self.passes():
                self._stall()
                return
            message = self._transit.popleft()
            assert self.peer is not None
            self._delivering = True
            try:
                self.peer.arrive(message)
            finally:
                self._delivering = False
        if self._transit:
            self._timer = self.timeline.at(self._transit[0].arrives, self.place, self._head_is_due)

    def _head_is_due(self) -> None:
        self._timer = None
        self._drain()

    def _stall(self) -> None:
        if self.state == "dead":
            # A closed end does not retransmit. The peer finds out when it sends something.
            self._transit.clear()
            return
        pause = min((MIN_RTO + self.path.rtt) * 2**self._retries, MAX_RTO)
        self._timer = self.timeline.at(self.timeline.now() + pause, self.place, self._retransmit)

    def _retransmit(self) -> None:
        self._timer = None
        if self.state == "dead":
            self._transit.clear()
        elif self.passes():
            self._retries = 0
            arrives = self.timeline.now() + self.path.rtt / 2
            for message in self._transit:
                message.lost = False
                message.arrives = max(message.arrives, arrives)
            self._drain()
        elif self._retries >= DATA_RETRIES:
            self._give_up()
        else:
            self._retries += 1
            self._stall()

    def _give_up(self) -> None:
        """Learn that nothing gets through any more. Only who waits for an ack gives up: an ack waits for nothing."""
        kinds = {message.kind for message in self._transit}
        self._transit.clear()
        self._retries = 0
        if kinds - {"ack", "window"}:
            self.time_out()
        if self.peer is not None and ("ack" in kinds or self.peer.has_unsent):
            self.peer.time_out()

    @property
    def has_unsent(self) -> bool:
        """Whether bytes wait for room at the peer."""
        return bool(self._outbox)

    def time_out(self) -> None:
        """Learn that what was sent is not acknowledged."""
        if self.state != "dead":
            self.die(0 if self.orphan else errno.ETIMEDOUT)

    def arrive(self, message: Message) -> None:
        if self.state == "dead":
            if message.kind in ("data", "open"):
                self._answer_with_reset()
            return
        match message.kind:
            case "open":
                assert self.peer is not None
                self.open(self.peer)
            case "data":
                if self.orphan:
                    self._answer_with_reset()
                    return
                if self.read_closed and self._fin_sent:
                    # RFC 1122 section 4.2.2.13, and Linux's tcp_rcv_state_process: nobody will ever read this.
                    self._answer_with_reset()
                    self.die(errno.ECONNRESET)
                    return
                self.inbox += message.data
                self._transmit("ack", size=message.size)
                self.on_readable()
            case "fin":
                self.fin_received = True
                self.on_readable()
            case "ack":
                self._unacked -= message.size
                self.on_writable()
            case "window":
                self._window += message.size
                self._flush()
            case "rst":
                self.on_reset()
                self.die(0 if self.orphan else errno.EPIPE if self.fin_received else errno.ECONNRESET)

    def _answer_with_reset(self) -> None:
        self.state = "dead"
        self._outbox.clear()
        self._transmit("rst")
