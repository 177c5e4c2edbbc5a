"""I/O queues: where operations are submitted."""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# What a set knows of a token has names with an underscore, because users see a token's other names.

from __future__ import annotations

import errno
from collections.abc import AsyncIterable, Sequence
from typing import TYPE_CHECKING, Any, cast, final

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from .._check import check_int
from .._deadline import is_late, to_seconds
from .._endpoint import Endpoint, EndpointLike
from .._net.connectx import connectx
from .._net.listeners.socket_listener import check_backlog
from .._net.race.plan import TcpRaceOptions
from .._net.sockets.unix_path import UnixPath
from .._text import shown
from ._channel import SENDING, Accepts, Channel, DatagramPops, DatagramPushes, Pops, Pushes, view_of
from ._closing import Closing
from ._connecting import Connecting, DirectConnect, Payload, TcpConnect, too_late
from ._datagram_transport import DatagramTransport
from ._interface import MAX_POP, Accepted, IOQueue, QToken
from ._operations import AnyToken, Lane, Operation, Pending, TaskLane
from ._scheduler import Scheduler
from ._states import EVENTS, SUBMIT, Event, State, Submission, refusal_text
from ._stream_transports import TcpTransport, UnixTransport
from ._transport import StreamTransport, Transport, show
from ._values import Address, Closed, Connected, Popped, Pushed

if TYPE_CHECKING:
    from socket import SocketType

    from typing_extensions import Buffer


@final
class SocketQueue(IOQueue, Connecting):
    """A queue over a transport."""

    __slots__ = ("_channel", "_closed", "_receiving", "_sending")

    def __init__(self, scheduler: Scheduler, transport: Transport, state: State = "unbound") -> None:
        self._scheduler = scheduler
        self._transport = transport
        self._state: State = state
        self._control: Pending | None = None
        self._receiving: Lane | None = None
        self._sending: Lane | None = None
        self._channel: Channel | None = None
        self._watched = -1
        self._closed: trio.Event | None = None

    # ------------------------------------------------------------------ who and how

    @property
    def state(self) -> State:
        return self._state

    @property
    def local(self) -> Address | None:
        return self._transport.local

    @property
    def peer(self) -> Address | None:
        return self._transport.peer

    def __repr__(self) -> str:
        where = self._transport.peer or self._transport.local
        return f"<IOQueue {self._transport.kind} {self._state}{' ' + show(where) if where else ''}>"

    # ------------------------------------------------------------------ the state

    def _check(self, submission: Submission) -> State:
        if submission != "close":
            self._scheduler.check()
        else:  # which is done also when the set was cancelled
            self._scheduler.check_thread()
            self._scheduler.check_open()
        outcome = SUBMIT[self._transport.kind][self._state][submission]
        if isinstance(outcome, int):
            raise OSError(outcome, refusal_text(self._transport.kind, self._state, submission, outcome))
        return outcome

    def _happened(self, event: Event) -> None:
        self._state = EVENTS[event][self._state]

    # ------------------------------------------------------------------ passive

    @enable_ki_protection
    async def bind(self, address: EndpointLike | UnixPath) -> Address:
        target = self._transport.check_target(address, passive=True)
        await checkpoint()
        self._state = self._check("bind")
        error: OSError | None = None
        done = False
        try:
            await self._transport.bind(target)
            done = True
        except OSError as exc:
            error = exc
        finally:
            self._happened("bound" if done else "bind failed")
        if self._scheduler.ended:
            self._state = "closed"
        if self._state not in ("bound", "unbound"):
            # The bind of a socket factory had to wait. The queue was closed meanwhile, so the new socket is closed too.
            with trio.CancelScope(shield=True):
                await self._transport.aclose()
            error = OSError(errno.ECANCELED, f"bind to {show(target)}: this queue was closed meanwhile")
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        self._scheduler.open.add(self)
        return cast("Address", self._transport.local)

    async def listen(self, backlog: int) -> None:
        check_int(backlog, "backlog")
        await checkpoint()
        if backlog < 1:
            raise OSError(errno.EINVAL, f"listen: a backlog is at least 1, got {shown(backlog)}")
        size = check_backlog(backlog)
        state = self._check("listen")
        cast("StreamTransport[Any]", self._transport).listen(size)
        self._state = state

    @enable_ki_protection
    def accept(self) -> QToken[Accepted]:
        if self._state != "listening":  # where an accept is allowed
            self._check("accept")
        token = self._scheduler.enter("accept", self)
        (self._receiving or self._open_accepting()).add(token, None)
        return token

    async def _accept(self, _: None, operation: Operation) -> Accepted | None:
        with operation.scope():
            return self._accepted_over(await cast("StreamTransport[Any]", self._transport).accept())
        return None

    def _accepted(self, sock: SocketType, name: Any) -> Accepted:
        return self._accepted_over(cast("StreamTransport[Any]", self._transport).take_accepted(sock, name))

    def _accepted_over(self, transport: StreamTransport[Any]) -> Accepted:
        queue = SocketQueue(self._scheduler, transport, "connected")
        self._scheduler.open.add(queue)
        return Accepted(queue)

    # ------------------------------------------------------------------ connecting

    @enable_ki_protection
    def connect(
        self, address: EndpointLike | UnixPath, deadline: int = -1, *, data: object = None
    ) -> QToken[Connected]:
        transport = self._transport
        target = transport.check_target(address, passive=False)
        until = to_seconds(deadline)
        if self._state != "unbound":  # where a connect is allowed
            self._check("connect")
            if transport.kind == "datagram" and any(lane.busy for lane in self._lanes()):
                raise OSError(errno.EBUSY, refusal_text("datagram", self._state, "connect", errno.EBUSY))
        scheduler = self._scheduler
        token = scheduler.enter("connect", self, target, data)
        self._state = "connecting"
        reactor = scheduler.reactor
        if reactor is None:
            self._connect_in_task(token, (target, until))
            return token
        scheduler.open.add(self)
        if isinstance(transport, TcpTransport):
            bound = transport.sock
            source = None if bound is None else transport.bound_to
            self._control = connect = TcpConnect(target, source, until, transport.options, reactor, bound)
            connect.queue, connect.token = self, token
            token._lane = connect
            reactor.begin_soon(connect)
            return token
        direct = cast("UnixTransport | DatagramTransport", transport)
        self._control = DirectConnect(direct, reactor, scheduler, self, token, (target, until))
        return token

    def _connect_in_task(self, token: AnyToken, payload: Payload) -> None:
        self._scheduler.open.discard(self)
        self._control = lane = TaskLane(self._scheduler, self._connect)
        lane.add(token, payload)

    async def _connect(self, payload: Payload, operation: Operation) -> Connected | None:
        target, until = payload
        connected = False
        try:
            if is_late(until) and not operation.cancelled:
                raise too_late(payload)
            connected = await self._transport.connect(target, until, operation)
        finally:
            self._connect_ended(succeeded=connected)
        return Connected(self._transport) if connected else None

    def _submit_race(
        self,
        endpoints: Sequence[Endpoint] | AsyncIterable[EndpointLike],
        deadline: int,
        options: TcpRaceOptions,
        data: object,
    ) -> QToken[Connected]:
        """Submit a connectx; the arguments have been checked, and this queue was made for it."""
        target = () if isinstance(endpoints, AsyncIterable) else tuple(endpoints)
        token = self._scheduler.enter("connectx", self, target, data)
        self._control = lane = TaskLane(self._scheduler, self._connectx)
        lane.add(token, (endpoints, deadline, options))
        return token

    async def _connectx(self, payload: tuple[Any, int, TcpRaceOptions], operation: Operation) -> Connected | None:
        endpoints, deadline, options = payload
        stream = None
        try:
            with operation.scope():
                stream = await connectx(endpoints, deadline, **options)
                cast("TcpTransport", self._transport).adopt(stream)
        finally:
            self._connect_ended(succeeded=stream is not None)
        return None if stream is None else Connected(self._transport)

    def _connect_ended(self, *, succeeded: bool) -> None:
        self._control = None
        if succeeded:
            self._scheduler.open.add(self)
            self._happened("connected")
        else:
            self._scheduler.open.discard(self)
            # What was bound is closed, and the lanes with it.
            if self._channel is not None:
                self._channel.forget()
            self._receiving = self._sending = self._channel = None
            self._happened("connect failed")

    # ------------------------------------------------------------------ data

    @enable_ki_protection
    def push(self, data: Buffer) -> QToken[Pushed]:
        whole = data if isinstance(data, bytes) else view_of(data)
        is_stream = self._transport.kind == "stream"
        if not whole and is_stream:
            raise OSError(errno.EINVAL, "push: there is nothing to send; the end of a stream is sent by close")
        if self._state != "connected":  # where a push is allowed
            self._check("push")
        token = self._scheduler.enter("push", self)
        (self._sending or self._open_sending()).add(token, whole if is_stream else (whole, None))
        return token

    async def _push(self, data: Buffer, operation: Operation) -> Pushed | None:
        with view_of(data) as view, operation.scope():
            await self._transport.push(view)
            return Pushed(len(view))
        return None

    @enable_ki_protection
    def push_to(self, data: Buffer, address: EndpointLike) -> QToken[Pushed]:
        whole = data if isinstance(data, bytes) else view_of(data)
        state = self._check("push_to")
        transport = cast("DatagramTransport", self._transport)
        endpoint = transport.check_target(address, passive=False)
        self._scheduler.check_room("push_to")
        # The socket is opened here and not in the operation, so that a pop submitted next has one to wait on.
        transport.open_for(endpoint)
        self._scheduler.open.add(self)
        self._state = state
        token = self._scheduler.enter("push_to", self, endpoint)
        (self._sending or self._open_sending()).add(token, (whole, endpoint))
        return token

    async def _push_datagram(self, payload: tuple[Buffer, Endpoint | None], operation: Operation) -> Pushed | None:
        data, endpoint = payload
        with view_of(data) as view, operation.scope():
            if endpoint is None:
                await self._transport.push(view)
            else:
                await cast("DatagramTransport", self._transport).push_to(view, endpoint)
            return Pushed(len(view))
        return None

    @enable_ki_protection
    def pop(self, size: int | None = None) -> QToken[Popped]:
        most = MAX_POP if size is None else check_int(size, "size")
        if not 1 <= most <= MAX_POP:
            raise OSError(errno.EINVAL, f"pop: a size is 1 to {MAX_POP}, got {shown(size)}")
        if self._state != "connected":  # where a pop is allowed
            self._check("pop")
        token = self._scheduler.enter("pop", self)
        (self._receiving or self._open_receiving()).add(token, most)
        return token

    async def _pop(self, size: int, operation: Operation) -> Popped | None:
        with operation.scope():
            data, peer, truncated = await self._transport.pop(size)
            return Popped(data, peer, eof=not data and self._transport.kind == "stream", truncated=truncated)
        return None

    # ------------------------------------------------------------------ lanes

    def _open_sending(self) -> Lane:
        channel = self._watch()
        work, kind = (self._push, Pushes) if self._transport.kind == "stream" else (self._push_datagram, DatagramPushes)
        if channel is None:
            self._sending = lane = TaskLane(self._scheduler, work)
            return lane
        self._sending = channel.sending = over = kind(channel, self._scheduler, self._transport)
        return over

    def _open_receiving(self) -> Lane:
        channel = self._watch()
        if channel is None:
            self._receiving = lane = TaskLane(self._scheduler, self._pop)
            return lane
        kind = Pops if self._transport.kind == "stream" else DatagramPops
        self._receiving = channel.receiving = over = kind(channel, self._scheduler, self._transport)
        return over

    def _open_accepting(self) -> Lane:
        channel = self._watch()
        if channel is None:
            self._receiving = lane = TaskLane(self._scheduler, self._accept)
            return lane
        self._receiving = channel.receiving = over = Accepts(channel, self._scheduler, self._transport, self._accepted)
        return over

    def _watch(self) -> Channel | None:
        """Return the socket at the reactor, None where operations need tasks."""
        channel = self._channel
        reactor = self._scheduler.reactor
        if channel is None and reactor is not None:
            transport = self._transport
            sock = transport.kernel_socket
            if sock is not None:
                is_plain = isinstance(transport, TcpTransport) and transport.is_plain_tcp
                mask = SENDING if self._watched >= 0 else 0
                self._channel = channel = Channel(reactor, sock, mask, is_plain_tcp=is_plain)
        return channel

    # ------------------------------------------------------------------ closing

    @enable_ki_protection
    def close(self) -> QToken[Closed]:
        self._state = self._check("close")
        scheduler = self._scheduler
        token = scheduler.enter_close(self)
        # Cancelled here and not when it is closed: an operation that is pending now must not complete before that.
        self._cancel_all()
        scheduler.open.add(self)
        reactor = scheduler.reactor
        if reactor is None or not reactor.running:
            self._close_in_task(token)
        else:
            reactor.step_soon(Closing(self, scheduler, token))
        return token

    def _close_in_task(self, token: AnyToken) -> None:
        """Close in a task, because something has to be awaited for it."""
        self._scheduler.spawn(self._scheduler.run, Operation(token, None), self._close)

    async def _close(self, _: None, _operation: Operation) -> Closed:
        with trio.CancelScope(shield=True):
            await self._shut()
        return Closed()

    @enable_ki_protection
    async def aclose(self) -> None:
        self._scheduler.check_thread()
        if self._state == "closing":
            self._closed = self._closed or trio.Event()
            await self._closed.wait()
            return
        if self._state != "closed":
            self._state = "closing"
            with trio.CancelScope(shield=True):
                await self._shut()
        await checkpoint()

    async def _shut(self) -> None:
        lanes = self._lanes()
        for lane in lanes:
            lane.cancel_all()
        for lane in lanes:
            await lane.drained()
        await self._dispose()

    def _cancel_all(self) -> None:
        for lane in self._lanes():
            lane.cancel_all()

    def _lanes(self) -> list[Pending]:
        return [lane for lane in (self._control, self._receiving, self._sending) if lane is not None]

    def _dispose_now(self) -> bool:
        control = self._control
        if control is not None or self._channel is not None or self._receiving is not None or self._sending is not None:
            if TaskLane in (control.__class__, self._receiving.__class__, self._sending.__class__):
                return False
            self._leave()
        elif self._watched >= 0 and self._scheduler.reactor is not None:  # what _leave does for most queues
            self._scheduler.reactor.handlers.pop(self._watched, None)
            self._watched = -1
        if not self._transport.close_now():
            return False
        self._state = "closed"
        self._scheduler.open.discard(self)
        if self._closed is not None:
            self._closed.set()
        return True

    async def _dispose(self) -> None:
        """Close the socket. The caller ensures that no operation runs any more."""
        self._state = "closing"
        self._leave()
        try:
            await self._transport.aclose()
        finally:  # close(2) closes even when it fails, and other tasks may be waiting for this close
            self._happened("closed")
            self._scheduler.open.discard(self)
            if self._closed is not None:
                self._closed.set()

    def _leave(self) -> None:
        """Leave the reactor, and let go of the lanes: one that accepts holds this queue."""
        control, channel, watched = self._control, self._channel, self._watched
        if control is not None and isinstance(control, TcpConnect):
            control.stop()
            control.token._lane = self._control = None
        if channel is not None:
            channel.forget()
            self._receiving = self._sending = self._channel = None
        elif watched >= 0:
            reactor = self._scheduler.reactor
            assert reactor is not None
            reactor.forget(watched)
        self._watched = -1
