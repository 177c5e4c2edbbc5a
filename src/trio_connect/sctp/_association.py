"""An association: messages to and from one peer, over all the paths that lead to it."""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
)

from .._check import check_range
from .._deadline import is_late, to_seconds
from .._endpoint import EndpointLike, as_endpoint
from .._messages import call_exceeded, call_late, strerror
from .._net.sockets.waiting import Expired, park
from ._incoming import Incoming
from ._socket import SctpSocket
from ._values import Message, Path, PathEvent, SctpTuning, check_seconds
from ._wire import Status

if TYPE_CHECKING:
    from .._endpoint import Endpoint
    from .._report import ConnectReport
    from ._telling import Teller

T = TypeVar("T")

_LONGEST_TTL: Final = 4_000_000.0  # the kernel has 32 bits of milliseconds


class Association(trio.abc.ReceiveChannel[Message]):
    """An association with one peer, RFC 9260.

    Iterating over it gives messages; it ends when the peer has shut the association down. One task may receive while
    others send. There is no half-close in SCTP: a shutdown stops both directions.

    `connectx` and `SctpListener.accept` make it.

    Attributes:
      report: how it was made. Empty for one that a listener accepted.
      path_events: what happened to the paths, the last 256 events. Receiving fills it: without a receiving task it
        stays empty.
    """

    report: ConnectReport
    path_events: deque[PathEvent]

    def __init__(
        self,
        sock: SctpSocket,
        status: Status | None,
        *,
        peer: str,
        ppid: int,
        tuning: SctpTuning,
        report: ConnectReport,
        teller: Teller,
    ) -> None:
        if not isinstance(sock, SctpSocket):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("an Association is made by sctp.connectx() or by accepting, not by its class")
        self._socket = sock
        self._peer = peer
        self._ppid = ppid
        self._tuning = tuning
        self._incoming = Incoming(sock, status, peer, teller)
        self._sending = trio.StrictFIFOLock()
        self._receiving = self._closed = False
        self.report = report
        self.path_events = self._incoming.path_events

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._incoming.end is not None else "open"
        return f"<sctp.Association with {self._peer}, {state}>"

    # ------------------------------------------------------------------ what it is

    @property
    def id(self) -> int:
        """The kernel's number of the association; 0 when it had ended before it was accepted."""
        return 0 if self._incoming.status is None else self._incoming.status.association

    @property
    def outbound_streams(self) -> int:
        """How many streams there are to send on, as negotiated: the least of what both ends wanted."""
        return 0 if self._incoming.status is None else self._incoming.status.outbound

    @property
    def inbound_streams(self) -> int:
        """How many streams the peer may send on, as negotiated."""
        return 0 if self._incoming.status is None else self._incoming.status.inbound

    @property
    def primary(self) -> Endpoint:
        """The address of the peer that is sent to while that path works.

        Raises:
          OSError: ENOTCONN, the association has ended; the text says how.
          trio.ClosedResourceError: it was closed here.
        """
        return self._asked(lambda: self._socket.status().primary.endpoint)

    def set_primary(self, endpoint: EndpointLike) -> None:
        """Send to this address of the peer while that path works, RFC 6458 section 8.1.9.

        Args:
          endpoint: one of those that `paths` lists.

        Raises:
          OSError: EINVAL, the peer has no such address; ENOTCONN, the association has ended.
          TypeError: not an endpoint.
          ValueError: the endpoint is malformed.
          trio.ClosedResourceError: it was closed here.
        """
        address = as_endpoint(endpoint)
        self._check_open()
        try:
            self._socket.set_primary(address)
        except OSError as exc:
            if exc.errno == errno.EINVAL and self._is_up():
                raise OSError(errno.EINVAL, f"{self._peer} has no address {address}: paths() lists them") from None
            raise self._no_answer(exc) from None

    @property
    def local(self) -> tuple[Endpoint, ...]:
        """The addresses of this end.

        Raises:
          OSError: ENOTCONN, the association has ended; the text says how.
          trio.ClosedResourceError: it was closed here.
        """
        return self._asked(self._socket.local_addresses)

    def paths(self) -> tuple[Path, ...]:
        """Return how each path to the peer stands now.

        The peer's addresses are those that the peer itself listed: an address that `connectx` was given and that the
        peer did not list has been dropped, and one that only the peer listed was added.

        Raises:
          OSError: ENOTCONN, the association has ended; the text says how.
          trio.ClosedResourceError: it was closed here.
        """
        return self._asked(lambda: tuple(map(self._socket.path, self._socket.peer_addresses())))

    def _asked(self, question: Callable[[], T]) -> T:
        """Return what the socket tells of the association."""
        self._check_open()
        try:
            return question()
        except OSError as exc:
            raise self._no_answer(exc) from None

    def _is_up(self) -> bool:
        try:
            self._socket.status()
        except OSError:
            return False
        return True

    def _no_answer(self, exc: OSError) -> OSError:
        """Return what to raise when the socket has nothing to tell of the association."""
        if self._incoming.end or exc.errno in (errno.EINVAL, errno.ENOTCONN):
            return OSError(errno.ENOTCONN, self._incoming.end or f"the association with {self._peer} has ended")
        return exc

    # ------------------------------------------------------------------ messages

    @enable_ki_protection  # Ctrl-C cannot come between a send and whoever waits for its turn
    async def send(
        self,
        data: bytes | bytearray | memoryview,
        deadline: int = -1,
        *,
        stream: int = 0,
        ppid: int | None = None,
        unordered: bool = False,
        ttl: float | None = None,
    ) -> None:
        """Send one message. Waits while the send buffer is full.

        Args:
          data: at least one byte, and no more than the send buffer holds (SO_SNDBUF, some 200 KB by default).
          deadline: milliseconds on the clock of `now()`; -1 for none.
          stream: its number, below `outbound_streams`. Messages of one stream arrive in order.
          ppid: what the bytes are, see `Ppid`; None for the association's own.
          unordered: let it overtake others of its stream.
          ttl: seconds after which it is dropped if it was not sent by then, RFC 7496 section 4.1; None for never.

        Raises:
          OSError: EMSGSIZE, it is larger than the send buffer; EINVAL, there is no such stream; EPIPE, the association
            has ended; ECONNRESET or ETIMEDOUT, it has just been lost.
          DeadlineExceeded: the deadline came first; nothing of the message was sent.
          TypeError: an argument has the wrong type.
          ValueError: there is no data, or a number is out of range.
          trio.ClosedResourceError: it was closed here.
        """
        payload = _payload(data)
        number = self._ppid if ppid is None else check_ppid(ppid)
        check_range(stream, "stream", 0, 0xFFFF)
        milliseconds = None if ttl is None else round(check_seconds(ttl, "ttl", 0.001, _LONGEST_TTL) * 1000)
        until = to_seconds(deadline)
        self._check_open()
        started = await self._begin("send to", until)
        send = partial(self._send_once, payload, stream, number, milliseconds, unordered=unordered)
        try:
            await self._take_turn(until)
            try:
                await self._finish(send, self._socket.wait_writable, until)
            finally:
                self._sending.release()
        except Expired:
            raise call_exceeded(f"send to {self._peer}", trio.current_time() - started) from None

    async def _begin(self, what: str, until: float) -> float:
        """Return when a call began.

        Raises:
          DeadlineExceeded: it begins at or after its deadline, so nothing is done.
        """
        await checkpoint_if_cancelled()
        started = trio.current_time()
        if is_late(until):
            await cancel_shielded_checkpoint()
            raise call_late(f"{what} {self._peer}", started - until)
        return started

    async def _take_turn(self, until: float) -> None:
        """Wait for the other senders: of two tasks that wait on one socket, the event loop refuses the second."""
        try:
            self._sending.acquire_nowait()
        except trio.WouldBlock:
            with trio.CancelScope(deadline=until) as scope:
                await self._sending.acquire()
            if scope.cancelled_caught:
                raise Expired from None

    def _send_once(self, data: bytes, stream: int, ppid: int, ttl: int | None, *, unordered: bool) -> None:
        self._check_open()
        try:
            self._socket.send(data, stream=stream, ppid=ppid, unordered=unordered, ttl=ttl)
        except BlockingIOError:
            raise
        except OSError as exc:
            raise self._send_error(exc, len(data), stream) from None

    async def _finish(self, call: Callable[[], T], wait: Callable[[], Awaitable[None]], until: float) -> T:
        """Try a call, and wait until it is worth another try; ready beats expired.

        Raises:
          Expired: `until` came first.
        """
        in_time = True
        while True:
            try:
                value = call()
            except BlockingIOError:
                if not in_time:
                    raise Expired from None
                try:
                    in_time = await park(lambda _: wait(), 0, until)
                except trio.ClosedResourceError:
                    continue  # the next try raises the reason
            except BaseException:
                await cancel_shielded_checkpoint()
                raise
            else:
                await cancel_shielded_checkpoint()
                return value

    def _send_error(self, exc: OSError, size: int, stream: int) -> OSError:
        code = exc.errno or 0
        if code == errno.EMSGSIZE:
            text = f"a message of {size} bytes to {self._peer} does not fit into the send buffer (SO_SNDBUF)"
        elif code == errno.EINVAL and stream >= self.outbound_streams:
            text = f"no stream {stream} towards {self._peer}: there are {self.outbound_streams}"
        elif self._incoming.end is not None or code in (errno.EPIPE, errno.ESHUTDOWN, errno.ENOTCONN):
            code, text = errno.EPIPE, self._incoming.end or f"the association with {self._peer} has been shut down"
        else:
            text = f"send to {self._peer} failed ({strerror(code)})"
        return OSError(code, text)

    @enable_ki_protection  # Ctrl-C cannot come between a message and whom it is for
    async def receive(self, deadline: int = -1) -> Message:
        """Return the next message, whole.

        A call that times out or is cancelled loses nothing: what has come of a message is kept for the next.

        Args:
          deadline: milliseconds on the clock of `now()`; -1 for none.

        Raises:
          trio.EndOfChannel: the peer has shut the association down, and every message was received.
          OSError: ECONNRESET, the peer aborted it; ETIMEDOUT, the peer cannot be reached any more; EMSGSIZE, a message
            had more than 16 MiB: the association was aborted.
          DeadlineExceeded: the deadline came first.
          trio.BusyResourceError: another task receives.
          trio.ClosedResourceError: it was closed here.
        """
        until = to_seconds(deadline)
        self._check_open()
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this association")
        self._receiving = True
        try:
            started = await self._begin("receive from", until)
            try:
                return await self._finish(self._next_message, self._socket.wait_readable, until)
            except Expired:
                raise call_exceeded(f"receive from {self._peer}", trio.current_time() - started) from None
        finally:
            self._receiving = False

    def _next_message(self) -> Message:
        while True:
            self._check_open()
            message = self._incoming.read_one()
            if message is not None:
                return message
            if self._incoming.end is not None:
                raise self._incoming.error() or trio.EndOfChannel

    # ------------------------------------------------------------------ the end

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError(f"the association with {self._peer} was closed here")

    async def abort(self) -> None:
        """End it at once, RFC 9260 section 9.1: the peer gets ECONNRESET, and what was not delivered yet is lost.

        Also ends an `aclose` that waits for the peer.
        """
        self._closed = True
        self._socket.abort()
        await checkpoint()

    async def aclose(self) -> None:
        """End it gracefully: what was sent is delivered, then both ends have ended. RFC 9260 section 9.2.

        Waits at most `SctpTuning.shutdown` seconds for the peer, discarding what it still sends; then, and when this
        call is cancelled, the association is aborted.
        """
        if not self._closed:
            self._closed = True
            # Other waiting tasks must not take the notification that this call waits for.
            self._socket.wake()
            try:
                with trio.move_on_after(self._tuning.shutdown), contextlib.suppress(trio.ClosedResourceError):
                    await self._shut_down()  # closed: by abort()
            finally:
                if self._incoming.end is None:
                    self._socket.abort()
                else:
                    self._socket.close()
        await checkpoint()

    async def _shut_down(self) -> None:
        try:
            self._socket.shutdown()
        except OSError:  # there is no association any more
            return
        while self._incoming.end is None:
            try:
                self._incoming.read_one()
            except BlockingIOError:
                await self._socket.wait_readable()
            else:
                await checkpoint()


def _payload(data: object) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise TypeError(f"data must be bytes, bytearray or memoryview, got {type(data).__name__}")
    payload = bytes(data)  # pyright: ignore[reportUnknownArgumentType] - a memoryview of anything
    if not payload:
        raise ValueError("data must not be empty: SCTP has no message without data, RFC 9260 section 3.3.1")
    return payload


def check_ppid(value: object) -> int:
    """Return a payload protocol identifier, or say what is wrong with it."""
    return int(check_range(value, "ppid", 0, 0xFFFFFFFF))
