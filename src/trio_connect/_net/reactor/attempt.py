"""An attempt that a reactor waits for, and not a task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import inf
from typing import TYPE_CHECKING, Final

from ..._engine.spinning import CREDIT, Spinning
from ..attempt import PENDING, Attempt, spinning
from ..reports import deadline_exceeded, late_connect
from ..sockets.stream_socket import errno_of
from .events import EDGE, OUT

if TYPE_CHECKING:
    from ..._endpoint import Endpoint, Source
    from ..._options import SocketOptions
    from ..._report import Phase
    from ..sockets.stream_socket import StreamSocket
    from .reactor import Reactor

WRITABLE: Final = OUT | EDGE
"""What the socket of a connect is registered for."""


at_once: Final = Spinning()
"""Whether the first poll comes at once, which is enough on plain loopback, learnt by the whole process."""


class ReactorAttempt(Attempt, ABC):
    """One attempt, over a reactor: begun in a pass, asked when there is something to hear, over at its deadline.

    A subclass says what comes of it. It has closed the socket when it says that the attempt has failed.
    """

    __slots__ = ("_bound", "_options", "_reactor", "_timed", "over", "until", "watched")

    timeout: float = inf
    """How many seconds it may take from where it begins, if that comes before the deadline."""

    def __init__(
        self,
        endpoint: Endpoint,
        source: Source | None,
        until: float,
        options: SocketOptions,
        reactor: Reactor,
        bound: StreamSocket | None = None,
    ) -> None:
        """Make an attempt that has not been submitted.

        Args:
          endpoint: where to; checked before.
          source: where from, None for the kernel's choice; checked before.
          until: the deadline, in Trio time.
          options: what to set before connecting.
          reactor: what waits for it; `Reactor.begin_soon` begins it.
          bound: the socket to connect, where the caller has made and bound one. From the beginning on, it is this
            attempt's.
        """
        # Written out: a call of the base class's would cost a fiftieth of a connect.
        self.endpoint = endpoint
        self.source = source
        self.phase: Phase = "connect"
        self.sock = None
        self.yielded = False
        self.until = until
        self.over = False
        """Whether it has ended, in whatever way."""
        self.watched = -1
        """The descriptor under which its socket is registered at the reactor, -1 while it is not."""
        self._timed = False
        self._options = options
        self._reactor = reactor
        self._bound = bound

    # ------------------------------------------------------------------ what comes of it

    @abstractmethod
    def connected(self) -> None:
        """Take its socket over."""

    @abstractmethod
    def failed(self, error: OSError) -> None:
        """Hear that it has failed."""

    @abstractmethod
    def needs_task(self) -> None:
        """Connect in a task: there is a socket factory, whose sockets no reactor can wait for. Nothing was done."""

    def too_late(self) -> OSError:
        """Return the error of an attempt that has come to its deadline; its socket is still open."""
        return deadline_exceeded(self.endpoint, self.source, self.origin(), self.started)

    # ------------------------------------------------------------------ what a reactor calls

    def start(self, *, factory: bool) -> None:
        """Begin."""
        over = self.over  # to a type checker the attribute itself would then be False below
        if over:
            return
        bound = self._bound
        if factory and bound is None:
            self.over = True
            self.needs_task()
            return
        reactor = self._reactor
        until = self.until
        self.started = now = reactor.clock()
        if until <= now and until != -inf:
            self.sock = bound
            self._end(late_connect(self.endpoint, self.source, until))
            return
        if now + self.timeout < until:
            self.until = until = now + self.timeout
        code = self.begin(self._options, factory=False) if bound is None else self.begin_over(bound)
        if self.over:  # stopped from inside of connect(2), by whoever observes it
            self.close()
            return
        asked = False
        if code == PENDING and (at_once.credit or until == -inf or at_once.is_worthwhile()):
            asked = True
            code = self.poll()
            if code == PENDING or at_once.credit != CREDIT:
                at_once.learn(enough=code != PENDING)
        # With 0 as the deadline: one try, one pass of the loop, and one more look.
        spins = code == PENDING and (spinning.credit or until == -inf or spinning.is_worthwhile())
        if code == PENDING and not spins and not asked:
            code = self.poll()  # an error that came back inside connect(2) is no event, see `KernelSocket.poll`
        if code != PENDING:
            self._settle(code)
            return
        if spins:
            reactor.asking.append(self)
        elif not self._wait():
            return
        if -inf < until < inf:
            self._timed = True
            reactor.deadlines.add(until, self)

    def ask(self) -> None:
        """Ask it, a pass after it has begun: see `Attempt.first_poll`."""
        if self.over:
            return
        if self.until == -inf:
            self.expire()
            return
        code = self.poll()
        if code == PENDING or spinning.credit != CREDIT:
            spinning.learn(enough=code != PENDING)
        if code == PENDING:
            self._wait()
        else:
            self._settle(code)

    def event(self, _flags: int) -> None:
        """Ask it: events may be stale, and of no use."""
        if self.over:
            return
        code = self.poll()
        if code and code != PENDING:
            self._end(self.error(code))
        elif not code:
            self._succeed()

    def expire(self) -> None:
        """Ask it once more, for ready beats expired, and end it."""
        self._timed = False  # the reactor has it no more
        code = self.poll()
        if code == PENDING:
            self._end(self.too_late())
        else:
            self._settle(code)

    # ------------------------------------------------------------------ the rest

    def stop(self) -> None:
        """End it, and say nothing. Does nothing to one that is over."""
        if not self.over:
            if self.sock is None:
                self.sock = self._bound
            self._leave()
            self._drop()

    def _wait(self) -> bool:
        """Have the reactor tell of its socket, and say whether there was room for that."""
        sock = self.sock
        assert sock is not None
        fd = sock.fileno()
        try:
            self._reactor.watch(fd, self, WRITABLE)
        except OSError as exc:  # the system is out of room for it
            self._end(self.error(errno_of(exc)))
            return False
        self.watched = fd
        return True

    def _settle(self, code: int) -> None:
        if code:
            self._end(self.error(code))
        else:
            self._succeed()

    def _succeed(self) -> None:
        self.over = True
        if self._timed:
            self._timed = False
            self._reactor.deadlines.forget()  # in a pass, where there is no wait to be shortened
        self.connected()

    def _end(self, error: OSError) -> None:
        self._leave()
        self._drop()
        self.failed(error)

    def _leave(self) -> None:
        self.over = True
        if self._timed:
            self._timed = False
            self._reactor.forget_deadline()

    def _drop(self) -> None:
        if self.watched >= 0:
            self._reactor.forget(self.watched)
        self.close()
