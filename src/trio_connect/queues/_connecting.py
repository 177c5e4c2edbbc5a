"""Connects of queues over a reactor: each is a lane of one operation."""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# What a set calls of its queues has names with an underscore, because users see a queue's other names.

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias, final

from trio import current_time

from .._deadline import is_late
from .._net.reactor.attempt import ReactorAttempt
from ._operations import AnyToken, Lane, Operation
from ._values import Connected

if TYPE_CHECKING:
    from .._endpoint import Endpoint
    from .._net.reactor.reactor import Reactor
    from ._datagram_transport import DatagramTransport
    from ._scheduler import Scheduler
    from ._stream_transports import TcpTransport, UnixTransport

Payload: TypeAlias = "tuple[Any, float]"
"""Where to, and until when, in Trio time."""


class Connecting(ABC):
    """What a connect asks of its queue."""

    __slots__ = ()

    @abstractmethod
    def _connect_ended(self, *, succeeded: bool) -> None:
        """Note how it ended."""

    @abstractmethod
    def _connected_over_reactor(self, watched: int) -> None:
        """Note that it succeeded, and under which descriptor the socket is registered at the reactor; -1 if not."""

    @abstractmethod
    def _connect_in_task(self, token: AnyToken, operation: Operation, payload: Payload) -> None:
        """Connect in a task, because no reactor can wait for it."""

    @abstractmethod
    def _late_connect(self, payload: Payload) -> OSError:
        """Return the error of a connect that would begin after its deadline."""


@final
class TcpConnect(ReactorAttempt, Lane):
    """A TCP connect."""

    __slots__ = ("_operation", "_queue", "_scheduler", "_token", "_transport")

    def __init__(
        self,
        token: AnyToken,
        operation: Operation,
        target: Endpoint,
        until: float,
        transport: TcpTransport,
        reactor: Reactor,
        scheduler: Scheduler,
        queue: Connecting,
    ) -> None:
        bound = transport.bound
        source = None if bound is None else transport.bound_to
        super().__init__(target, source, until, transport.options, reactor, bound)
        self._token = token
        self._operation = operation
        self._transport = transport
        self._scheduler = scheduler
        self._queue = queue
        operation.lane = self
        reactor.begin_soon(self)

    @property
    def busy(self) -> bool:
        return not self.over

    def add(self, token: AnyToken, operation: Operation, payload: Any) -> None:
        raise NotImplementedError  # it was made of one operation

    def cancel(self, token: AnyToken, operation: Operation) -> None:  # noqa: ARG002 - there is one
        self.cancel_all()

    def cancel_all(self) -> None:
        if not self.over:
            self.stop()
            self._transport.forget()
            self._queue._connect_ended(succeeded=False)
            self._scheduler.complete_cancelled(self._token, self._operation)

    async def drained(self) -> None:
        pass

    def connected(self) -> None:
        transport = self._transport
        now = current_time()
        transport.connected(self, now)
        self._queue._connected_over_reactor(self.watched)
        self._scheduler.complete(self._token, self._operation, Connected(transport), now)

    def failed(self, error: OSError) -> None:
        self._transport.forget()
        self._queue._connect_ended(succeeded=False)
        self._scheduler.complete(self._token, self._operation, error)

    def needs_task(self) -> None:
        self._queue._connect_in_task(self._token, self._operation, (self.endpoint, self.until))


@final
class DirectConnect(Lane):
    """A connect of a unix-domain or datagram socket, which the kernel answers at once."""

    __slots__ = ("_operation", "_payload", "_queue", "_reactor", "_scheduler", "_token", "_transport")

    def __init__(
        self,
        transport: UnixTransport | DatagramTransport,
        reactor: Reactor,
        scheduler: Scheduler,
        queue: Connecting,
    ) -> None:
        self._transport = transport
        self._reactor = reactor
        self._scheduler = scheduler
        self._queue = queue
        self._token: AnyToken | None = None

    @property
    def busy(self) -> bool:
        return self._token is not None

    def add(self, token: AnyToken, operation: Operation, payload: Payload) -> None:
        operation.lane = self
        self._token = token
        self._operation = operation
        self._payload = payload
        self._reactor.begin_soon(self)

    def cancel(self, token: AnyToken, operation: Operation) -> None:  # noqa: ARG002 - there is one
        self.cancel_all()

    def cancel_all(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            self._transport.forget()
            self._queue._connect_ended(succeeded=False)
            self._scheduler.complete_cancelled(token, self._operation)

    async def drained(self) -> None:
        pass

    def start(self, *, factory: bool) -> None:
        """Connect, in a pass of the reactor."""
        token, self._token = self._token, None
        if token is None:
            return
        target, until = self._payload
        operation = self._operation
        outcome: Connected | OSError
        try:
            if is_late(until):
                self._transport.forget()
                raise self._queue._late_connect(self._payload)
            if (factory and self._transport.kernel_socket is None) or not self._transport.connect_now(target):
                self._queue._connect_in_task(token, operation, self._payload)
                return
            outcome = Connected(self._transport)
        except OSError as exc:
            exc.__traceback__ = exc.__context__ = None
            outcome = exc
        self._queue._connect_ended(succeeded=isinstance(outcome, Connected))
        self._scheduler.complete(token, operation, outcome)
