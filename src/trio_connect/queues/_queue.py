"""I/O queues: where operations are submitted."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast, final

import trio
from trio import current_time
from trio.lowlevel import checkpoint

from .._check import check_int
from .._deadline import is_late, to_seconds
from .._endpoint import Endpoint, EndpointLike
from .._messages import call_late
from .._net.connectx import connectx
from .._net.listeners.socket_listener import check_backlog
from .._net.race.plan import TcpRaceOptions
from .._net.reports import late_connect
from .._net.sockets.unix_path import UnixPath
from .._text import shown
from ._datagram_transport import DatagramTransport
from ._interface import MAX_POP, Accepted, IOQueue, QToken
from ._operations import FifoRunner, Operation
from ._scheduler import Scheduler
from ._states import EVENTS, SUBMIT, Event, State, Submission, refusal_text
from ._stream_transports import TcpTransport
from ._transport import StreamTransport, Transport, show
from ._values import Address, Closed, Connected, Popped, Pushed

if TYPE_CHECKING:
    from typing_extensions import Buffer


@final
class SocketQueue(IOQueue):
    """A queue over a transport."""

    __slots__ = ("_closed", "_control", "_receiving", "_scheduler", "_sending", "_state", "_transport")

    def __init__(self, scheduler: Scheduler, transport: Transport, state: State = "unbound") -> None:
        self._scheduler = scheduler
        self._transport = transport
        self._state: State = state
        self._control: FifoRunner | None = None
        self._receiving: FifoRunner | None = None
        self._sending: FifoRunner | None = None
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
        self._scheduler.check_thread()
        self._scheduler.check_open()
        outcome = SUBMIT[self._transport.kind][self._state][submission]
        if isinstance(outcome, int):
            raise OSError(outcome, refusal_text(self._transport.kind, self._state, submission, outcome))
        return outcome

    def _happened(self, event: Event) -> None:
        self._state = EVENTS[event][self._state]

    # ------------------------------------------------------------------ passive

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
        self._scheduler.closers.add(self._dispose)
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

    def accept(self) -> QToken[Accepted]:
        self._check("accept")
        self._scheduler.check_room("accept")
        fifo = self._receiving = self._receiving or FifoRunner(self._scheduler)
        return self._scheduler.submit("accept", self, fifo, self._accept)

    async def _accept(self, operation: Operation) -> Accepted | None:
        with operation.scope():
            transport, peer = await cast("StreamTransport[Any]", self._transport).accept()
            queue = SocketQueue(self._scheduler, transport, "connected")
            self._scheduler.closers.add(queue._dispose)
            return Accepted(queue, peer)
        return None

    # ------------------------------------------------------------------ connecting

    def connect(
        self, address: EndpointLike | UnixPath, deadline: int = -1, *, data: object = None
    ) -> QToken[Connected]:
        target = self._transport.check_target(address, passive=False)
        until = to_seconds(deadline)
        state = self._check("connect")
        if self._transport.kind == "datagram" and (_busy(self._receiving) or _busy(self._sending)):
            raise OSError(errno.EBUSY, refusal_text("datagram", self._state, "connect", errno.EBUSY))
        self._scheduler.check_room("connect")
        self._state = state
        fifo = self._control = self._control or FifoRunner(self._scheduler)
        return self._scheduler.submit("connect", self, fifo, partial(self._connect, target, until), target, data)

    async def _connect(self, target: Any, until: float, operation: Operation) -> Connected | None:
        connected = False
        try:
            if is_late(until) and not operation.cancelled:
                raise _late_connect(target, until)
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
        self._control = fifo = FifoRunner(self._scheduler)
        target = () if isinstance(endpoints, AsyncIterable) else tuple(endpoints)
        work = partial(self._connectx, endpoints, deadline, options)
        return self._scheduler.submit("connectx", self, fifo, work, target, data)

    async def _connectx(
        self, endpoints: Any, deadline: int, options: TcpRaceOptions, operation: Operation
    ) -> Connected | None:
        stream = None
        try:
            with operation.scope():
                stream = await connectx(endpoints, deadline, **options)
                cast("TcpTransport", self._transport).adopt(stream)
        finally:
            self._connect_ended(succeeded=stream is not None)
        return None if stream is None else Connected(self._transport)

    def _connect_ended(self, *, succeeded: bool) -> None:
        if succeeded:
            self._scheduler.closers.add(self._dispose)
            self._happened("connected")
        else:
            self._scheduler.closers.discard(self._dispose)
            self._happened("connect failed")

    # ------------------------------------------------------------------ data

    def push(self, data: Buffer) -> QToken[Pushed]:
        view = _view(data)
        if not view and self._transport.kind == "stream":
            raise OSError(errno.EINVAL, "push: there is nothing to send; the end of a stream is sent by close")
        self._check("push")
        self._scheduler.check_room("push")
        fifo = self._sending = self._sending or FifoRunner(self._scheduler)
        return self._scheduler.submit("push", self, fifo, partial(self._push, view))

    async def _push(self, view: memoryview, operation: Operation) -> Pushed | None:
        with view, operation.scope():
            await self._transport.push(view)
            return Pushed(len(view))
        return None

    def push_to(self, data: Buffer, address: EndpointLike) -> QToken[Pushed]:
        view = _view(data)
        state = self._check("push_to")
        transport = cast("DatagramTransport", self._transport)
        endpoint = transport.check_target(address, passive=False)
        self._scheduler.check_room("push_to")
        # The socket is opened here and not in the operation, so that a pop submitted next has one to wait on.
        transport.open_for(endpoint)
        self._scheduler.closers.add(self._dispose)
        self._state = state
        fifo = self._sending = self._sending or FifoRunner(self._scheduler)
        return self._scheduler.submit("push_to", self, fifo, partial(self._push_to, view, endpoint), endpoint)

    async def _push_to(self, view: memoryview, endpoint: Endpoint, operation: Operation) -> Pushed | None:
        with view, operation.scope():
            await cast("DatagramTransport", self._transport).push_to(view, endpoint)
            return Pushed(len(view))
        return None

    def pop(self, size: int | None = None) -> QToken[Popped]:
        most = MAX_POP if size is None else check_int(size, "size")
        if not 1 <= most <= MAX_POP:
            raise OSError(errno.EINVAL, f"pop: a size is 1 to {MAX_POP}, got {shown(size)}")
        self._check("pop")
        self._scheduler.check_room("pop")
        fifo = self._receiving = self._receiving or FifoRunner(self._scheduler)
        return self._scheduler.submit("pop", self, fifo, partial(self._pop, most))

    async def _pop(self, size: int, operation: Operation) -> Popped | None:
        with operation.scope():
            data, peer, truncated = await self._transport.pop(size)
            return Popped(data, peer, eof=not data and self._transport.kind == "stream", truncated=truncated)
        return None

    # ------------------------------------------------------------------ closing

    def close(self) -> QToken[Closed]:
        state = self._check("close")
        self._state = state
        self._scheduler.closers.add(self._dispose)
        token = self._scheduler.submit("close", self, None, self._close)
        # Cancelled here and not by the task that closes: an operation that is pending now must not complete before
        # that task runs.
        for fifo in self._fifos():
            fifo.cancel()
        return token

    async def _close(self, _operation: Operation) -> Closed:
        with trio.CancelScope(shield=True):
            await self._shut()
        return Closed()

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
        fifos = self._fifos()
        for fifo in fifos:
            fifo.cancel()
        for fifo in fifos:
            await fifo.drained()
        await self._dispose()

    def _fifos(self) -> list[FifoRunner]:
        return [fifo for fifo in (self._control, self._receiving, self._sending) if fifo is not None]

    async def _dispose(self) -> None:
        """Close the socket. The caller ensures that no operation runs any more."""
        self._state = "closing"
        try:
            await self._transport.aclose()
        finally:  # close(2) closes even when it fails, and other tasks may be waiting for this close
            self._happened("closed")
            self._scheduler.closers.discard(self._dispose)
            if self._closed is not None:
                self._closed.set()


def _late_connect(target: Any, until: float) -> OSError:
    if isinstance(target, Endpoint):
        return late_connect(target, None, until)
    return call_late(f"connect to {show(target)}", current_time() - until)


def _busy(fifo: FifoRunner | None) -> bool:
    return fifo is not None and fifo.busy


def _view(data: Buffer) -> memoryview:
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"data must be a bytes-like object, got {shown(data)}") from None
    # A view without items cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")
