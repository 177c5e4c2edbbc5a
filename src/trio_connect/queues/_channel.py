"""Sockets that a reactor waits for, and the lanes of operations on them.

Each operation is tried in a pass of the reactor, and again after an event when the kernel has said that it would block.
Edge-triggered events, epoll(7), come once: so a lane remembers that its direction is ready until the kernel says that
it is not any more. What an event says is only taken as a reason to try.
"""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# What a set knows of a token has names with an underscore, because users see a token's other names.

from __future__ import annotations

import errno
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast, final

from .._endpoint import as_endpoint
from .._net.reactor.events import EDGE, ERR, HUP, IN, OUT, PRI, RDHUP
from .._net.sockets.address import sockaddr_of
from .._net.sockets.raw_socket import accept_now
from .._net.sockets.stream_socket import CONNECTION_ERRORS, errno_of
from .._text import shown
from ._operations import AnyToken, Lane
from ._transport import error
from ._values import Completion, Popped, Pushed

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from typing_extensions import Buffer

    from .._net.reactor.reactor import Reactor
    from ._scheduler import Scheduler
    from ._transport import Transport
    from ._values import Address

_SHARE: Final = 16
"""So many operations of one lane are tried before others have their turn."""

SENDING: Final = OUT | EDGE
DATAGRAMS: Final = IN | EDGE
CONNECTIONS: Final = IN | EDGE
# Sending too, or a push that would block later had to ask for one more event.
BYTES: Final = IN | PRI | RDHUP | OUT | EDGE

# After these a short read does not mean that there is nothing more: the end of the stream comes after the bytes, and
# urgent data cut a read short where they stand, tcp(7).
_MORE_TO_COME: Final = PRI | RDHUP | HUP | ERR
_NOT_READABLE: Final = ~OUT
_NOT_WRITABLE: Final = ~(IN | PRI | RDHUP)


def view_of(data: Buffer) -> memoryview:
    """Return the bytes of the caller's buffer.

    Raises:
      TypeError: it has none.
    """
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"data must be a bytes-like object, got {shown(data)}") from None
    if not view.c_contiguous:
        raise TypeError(f"data must be bytes that lie side by side, got {shown(data)} with gaps")
    # A view without items cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


@final
class Channel:
    """One socket of the kernel's, at the reactor.

    Args:
      reactor: what waits for it.
      sock: open as long as this is used.
      mask: what it is registered for already; 0 for a socket that is not.
      is_plain_tcp: whether a read that brings less than was asked for says that there is nothing more, epoll(7). Not so
        for unix-domain sockets, whose reads end where a descriptor was sent along, for datagrams, and for MPTCP.
    """

    __slots__ = ("_is_plain_tcp", "_mask", "drains", "fd", "lost", "reactor", "receiving", "sending", "sock")

    def __init__(self, reactor: Reactor, sock: socket.SocketType, mask: int, *, is_plain_tcp: bool) -> None:
        self.reactor = reactor
        self.sock = sock
        self.fd = sock.fileno()
        self.receiving: ReactorLane | None = None
        self.sending: ReactorLane | None = None
        self.lost = 0
        """The errno that broke the connection, 0 while it lives. Linux tells it once, to whoever comes first."""
        self.drains = False
        """Whether a short read now means that there is nothing more, and that an event will tell of more."""
        self._mask = mask
        self._is_plain_tcp = is_plain_tcp
        if mask:
            reactor.hand_on(self.fd, self)

    def event(self, flags: int) -> None:
        """Try what an event makes worth trying."""
        if flags & _MORE_TO_COME:
            self.drains = self._is_plain_tcp = False
        lane = self.receiving
        if lane is not None and flags & _NOT_READABLE:
            lane.ready = True
            if lane.token is not None:
                lane.serve()
        lane = self.sending
        if lane is not None and flags & _NOT_WRITABLE:
            lane.ready = True
            if lane.token is not None:
                lane.serve()

    def ask_for(self, interest: int) -> None:
        """Have the reactor tell of this, from now on and now.

        Raises:
          OSError: ENOSPC or ENOMEM, the system is out of room for it.
        """
        mask = self._mask | interest
        if mask != self._mask:
            if self._mask:
                self.reactor.watch_more(self.fd, mask)
            else:
                self.reactor.watch(self.fd, self, mask)
            self._mask = mask
            self.drains = self._is_plain_tcp and bool(mask & IN)

    def forget(self) -> None:
        """Hear no more of it, for it is about to be closed."""
        if self._mask:
            self.reactor.forget(self.fd)
        lane = self.receiving
        if lane is not None and lane.token is not None:
            lane.let_go()
        lane = self.sending
        if lane is not None and lane.token is not None:
            lane.let_go()
        # They hold this channel, and a cycle would be left to the garbage collector for each connection.
        self.receiving = self.sending = None


class ReactorLane(Lane):
    """Operations that are tried until the kernel says that they would block, and again after an event."""

    __slots__ = ("_channel", "_payload", "_queued", "_scheduler", "_transport", "_waiting", "ready", "token")

    interest: int
    """What to ask the reactor for when an operation would block."""

    def __init__(self, channel: Channel, scheduler: Scheduler, transport: Transport) -> None:
        self._channel = channel
        self._scheduler = scheduler
        self._transport = transport
        self.token: AnyToken | None = None
        """Of the first operation."""
        self._payload: Any = None
        self._waiting: deque[tuple[AnyToken, Any]] | None = None
        self._queued = False
        self.ready = True
        """Whether it is worth trying. If not, an event will tell."""

    # ------------------------------------------------------------------ the order

    @property
    def busy(self) -> bool:
        return self.token is not None

    def add(self, token: AnyToken, payload: Any) -> None:
        token._lane = self
        if self.token is None:
            self.token, self._payload = token, payload
            if self.ready and not self._queued:  # _go_on, without its call
                self._queued = True
                self._channel.reactor.step_soon(self)
            return
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append((token, payload))

    def _go_on(self) -> None:
        """Have the next operation tried, in a pass to come."""
        if self.ready and not self._queued:
            self._queued = True
            self._channel.reactor.step_soon(self)

    def cancel(self, token: AnyToken) -> None:
        if self.token is token:
            self._scheduler.complete_cancelled(self._advance())
            if self.token is not None:
                self._go_on()
            return
        for item in self._waiting or ():
            if item[0] is token:
                cast("deque[Any]", self._waiting).remove(item)
                self._scheduler.complete_cancelled(token)
                return

    def cancel_all(self) -> None:
        while self.token is not None:
            self._scheduler.complete_cancelled(self._advance())

    async def drained(self) -> None:
        pass

    def let_go(self) -> None:
        """Let go of what is pending when its set ends, and gets no result, and of the caller's buffers."""
        for token in (self.token, *(token for token, _ in self._waiting or ())):
            assert token is not None
            token._lane = None
        self.token = self._payload = self._waiting = None

    def _advance(self) -> AnyToken:
        """Turn to the next operation. Return the token of the first one, which is the caller's to complete."""
        token = self.token
        assert token is not None
        if self._waiting:
            self.token, self._payload = self._waiting.popleft()
        else:
            self.token = self._payload = None
        return token

    # ------------------------------------------------------------------ trying

    def run(self) -> None:
        """Try, in a pass of the reactor."""
        self._queued = False
        self.serve()

    def abandon(self) -> None:
        """Do nothing: what is pending when its set is cancelled is cancelled too."""

    def serve(self) -> None:
        """Try as many operations as is fair."""
        for _ in range(_SHARE):
            if self.token is None or not self.ready:
                return
            self._try()
        if self.token is not None:
            self._go_on()

    @abstractmethod
    def _try(self) -> None:
        """Try the first operation."""

    def _block(self) -> None:
        """Wait for an event."""
        self.ready = False
        try:
            self._channel.ask_for(self.interest)
        except OSError as exc:
            self.ready = True
            self._complete(error(errno_of(exc), "epoll_ctl for", self._transport.peer or self._transport.local))

    def _complete(self, outcome: OSError | Completion) -> None:
        self._scheduler.complete(self._advance(), outcome)

    def _fail(self, exc: OSError, what: str, address: Address | None) -> None:
        self._complete(error(errno_of(exc), what, address))


@final
class Pops(ReactorLane):
    """The pops of a stream."""

    __slots__ = ("_peer",)

    interest = BYTES

    def __init__(self, channel: Channel, scheduler: Scheduler, transport: Transport) -> None:
        super().__init__(channel, scheduler, transport)
        self._peer = cast("Address", transport.peer)

    def _try(self) -> None:
        channel = self._channel
        size = self._payload
        peer = self._peer
        try:
            data = channel.sock.recv(size)
        except BlockingIOError:
            self._block()
        except OSError as exc:
            channel.lost = errno_of(exc)
            self._complete(error(channel.lost, "pop from", peer, self._transport.local))
        else:
            if not data and channel.lost:
                self._complete(error(channel.lost, "pop from", peer, self._transport.local))
                return
            if len(data) < size and channel.drains and data:
                self.ready = False
            self._scheduler.complete(self._advance(), Popped(data, peer, not data))


@final
class Pushes(ReactorLane):
    """The pushes of a stream: the bytes of each, of which the kernel may take a part at a time."""

    __slots__ = ("_sent",)

    interest = SENDING

    def __init__(self, channel: Channel, scheduler: Scheduler, transport: Transport) -> None:
        super().__init__(channel, scheduler, transport)
        self._sent = 0

    def _try(self) -> None:
        channel = self._channel
        data = self._payload
        sent = self._sent
        try:
            if sent:
                with memoryview(data) as whole, whole[sent:] as rest:
                    count = channel.sock.send(rest)
            else:
                count = channel.sock.send(data)
        except BlockingIOError:
            self._block()
        except OSError as exc:
            code = errno_of(exc)
            # After EPIPE the other direction may still end well: the peer closed, and had sent all it wanted to.
            if code != errno.EPIPE:
                channel.lost = code
            self._complete(error(code, "push to", self._transport.peer, self._transport.local))
        else:
            sent += count
            if sent == len(data):
                self._scheduler.complete(self._advance(), Pushed(sent))
            else:
                self._sent = sent

    def _advance(self) -> AnyToken:
        self._sent = 0
        return super()._advance()


@final
class DatagramPops(ReactorLane):
    """The pops of a datagram queue."""

    __slots__ = ()

    interest = DATAGRAMS

    def _try(self) -> None:
        size = self._payload
        try:
            # One byte more than is wanted tells whether it was cut off.
            data, sender = self._channel.sock.recvfrom(size + 1)
        except BlockingIOError:
            self._block()
        except OSError as exc:
            self._fail(exc, "pop from", self._transport.peer or self._transport.local)
        else:
            self._complete(Popped(data[:size], as_endpoint(tuple(sender)), truncated=len(data) > size))


@final
class DatagramPushes(ReactorLane):
    """The pushes of a datagram queue: a memoryview each, and where to, None where the socket is connected."""

    __slots__ = ()

    interest = SENDING

    def _try(self) -> None:
        data, target = self._payload
        sock = self._channel.sock
        try:
            count = sock.send(data) if target is None else sock.sendto(data, sockaddr_of(target))
        except BlockingIOError:
            self._block()
        except OSError as exc:
            self._fail(exc, "push to", target or self._transport.peer)
        else:
            self._complete(Pushed(count))


@final
class Accepts(ReactorLane):
    """The accepts of a listening queue.

    Args:
      channel: the listening socket.
      scheduler: of its set.
      transport: of its queue.
      accepted: makes the value of an accepted socket, given the peer's address as the kernel has it.
    """

    __slots__ = ("_accepted", "_family", "_proto")

    interest = CONNECTIONS

    def __init__(
        self,
        channel: Channel,
        scheduler: Scheduler,
        transport: Transport,
        accepted: Callable[[socket.SocketType, Any], Completion],
    ) -> None:
        super().__init__(channel, scheduler, transport)
        self._accepted = accepted
        self._family, self._proto = int(channel.sock.family), channel.sock.proto

    def _try(self) -> None:
        try:
            sock, name = accept_now(self._channel.sock, self._family, self._proto)
        except BlockingIOError:
            self._block()
        except OSError as exc:
            if exc.errno not in CONNECTION_ERRORS:
                self._fail(exc, "accept on", self._transport.local)
        else:
            self._complete(self._accepted(sock, name))
