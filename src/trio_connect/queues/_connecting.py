"""Connects of queues over a reactor."""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# What a set calls of its queues has names with an underscore, because users see a queue's other names.

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias, cast, final

from trio import current_time

from .._deadline import is_late
from .._endpoint import Endpoint
from .._messages import call_late
from .._net.reactor.attempt import ReactorAttempt
from .._net.reports import late_connect
from .._report import EMPTY_REPORT
from ._operations import AnyToken, Pending
from ._transport import show
from ._values import Connected

if TYPE_CHECKING:
    from .._net.reactor.reactor import Reactor
    from ._datagram_transport import DatagramTransport
    from ._scheduler import Scheduler
    from ._states import State
    from ._stream_transports import TcpTransport, UnixTransport
    from ._transport import Transport

Payload: TypeAlias = "tuple[Any, float]"
"""Where to, and until when, in Trio time."""


class Connecting(ABC):
    """What a connect asks of its queue."""

    __slots__ = ("_control", "_scheduler", "_state", "_transport", "_watched")

    _control: Pending | None
    """The connect under way."""
    _scheduler: Scheduler
    _state: State
    _transport: Transport
    _watched: int
    """The descriptor under which the socket is registered at the reactor, before it has a channel; -1 if it is not."""

    @abstractmethod
    def _connect_ended(self, *, succeeded: bool) -> None:
        """Note how it ended."""

    @abstractmethod
    def _connect_in_task(self, token: AnyToken, payload: Payload) -> None:
        """Connect in a task, because no reactor can wait for it."""


def too_late(payload: Payload) -> OSError:
    """Return the error of a connect that would begin after its deadline."""
    target, until = payload
    if isinstance(target, Endpoint):
        return late_connect(target, None, until)
    return call_late(f"connect to {show(target)}", current_time() - until, report=EMPTY_REPORT)


@final
class TcpConnect(ReactorAttempt, Pending):
    """A TCP connect, of a queue whose socket the reactor waits for."""

    __slots__ = ("queue", "token")

    # Set before it begins. An __init__ of its own, around that of the base class, would cost a fiftieth of a connect.
    queue: Connecting
    token: AnyToken

    @property
    def busy(self) -> bool:
        return not self.over

    def cancel(self, token: AnyToken) -> None:  # noqa: ARG002 - there is one
        self.cancel_all()

    def cancel_all(self) -> None:
        if not self.over:
            self.stop()
            self._over()
            self.queue._scheduler.complete_cancelled(self.token)

    async def drained(self) -> None:
        pass

    def connected(self) -> None:
        queue = self.queue
        transport: TcpTransport = queue._transport  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        scheduler = queue._scheduler
        now = scheduler.clock()
        transport.connected(self, now)
        queue._control = None
        queue._watched = self.watched
        if self.watched >= 0:
            self._reactor.let_go(self.watched)
        queue._state = "connected"  # a queue that is closed has cancelled its connect
        scheduler.complete(self.token, Connected(transport), now)

    def failed(self, error: OSError) -> None:
        self._over()
        self.queue._scheduler.complete(self.token, error)

    def _over(self) -> None:
        queue = self.queue
        cast("TcpTransport", queue._transport).forget()
        queue._connect_ended(succeeded=False)

    def needs_task(self) -> None:
        self.queue._connect_in_task(self.token, (self.endpoint, self.until))


@final
class DirectConnect(Pending):
    """A connect of a unix-domain or datagram socket, which the kernel answers at once."""

    __slots__ = ("_payload", "_queue", "_scheduler", "_token", "_transport")

    def __init__(
        self,
        transport: UnixTransport | DatagramTransport,
        reactor: Reactor,
        scheduler: Scheduler,
        queue: Connecting,
        token: AnyToken,
        payload: Payload,
    ) -> None:
        self._transport = transport
        self._scheduler = scheduler
        self._queue = queue
        self._token: AnyToken | None = token
        self._payload = payload
        token._lane = self
        reactor.begin_soon(self)

    @property
    def busy(self) -> bool:
        return self._token is not None

    def cancel(self, token: AnyToken) -> None:  # noqa: ARG002 - there is one
        self.cancel_all()

    def cancel_all(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            self._transport.forget()
            self._queue._connect_ended(succeeded=False)
            self._scheduler.complete_cancelled(token)

    async def drained(self) -> None:
        pass

    def start(self, *, factory: bool) -> None:
        """Connect, in a pass of the reactor."""
        token, self._token = self._token, None
        if token is None:
            return
        target, until = self._payload
        outcome: Connected | OSError
        try:
            if is_late(until):
                self._transport.forget()
                raise too_late(self._payload)
            if (factory and self._transport.kernel_socket is None) or not self._transport.connect_now(target):
                self._queue._connect_in_task(token, self._payload)
                return
            outcome = Connected(self._transport)
        except OSError as exc:
            exc.__traceback__ = exc.__context__ = None
            outcome = exc
        self._queue._connect_ended(succeeded=isinstance(outcome, Connected))
        self._scheduler.complete(token, outcome)
