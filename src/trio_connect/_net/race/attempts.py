"""The attempts of a race that are under way: their sockets and their tasks. Nothing here decides.

Each pending attempt has a task from the moment that the race has a nursery. Only the driver's task closes sockets, so
each is closed exactly once.
"""

from __future__ import annotations

import errno
import logging
from math import inf
from typing import TYPE_CHECKING, Final, final

import attrs
import trio

from ..._durations import milliseconds
from ..._messages import reason_of
from ..attempt import PENDING
from ..streams.tcp_stream import TcpStream
from .errors import comes_of_closing, errno_of_establish, fails_an_attempt, without_cancellation
from .establishing import call_establish
from .mailbox import Connected, Established, Fact, Failed, Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._endpoint import Endpoint
    from ..attempt import AnyAttempt
    from ..host_of import HostOfEndpoint
    from .first import First
    from .plan import Establish

_log: Final = logging.getLogger("trio_connect")


@attrs.define(eq=False)
class RunningAttempt:
    """An attempt that the race waits for, or that has just won it."""

    id: int
    attempt: AnyAttempt
    establish: Establish | None
    host_of: HostOfEndpoint | None
    connected: bool = False
    stream: TcpStream | None = None
    scope: trio.CancelScope | None = None
    over: bool = False
    """Whether the race ignores its further reports: it was ended, or has won."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it goes."""
        return self.attempt.endpoint

    def is_over(self) -> bool:
        """Return `over`. A method, because to a type checker an attribute keeps its value across an await."""
        return self.over

    def open_stream(self) -> TcpStream:
        """Return the stream over its socket, made when it is first needed."""
        if self.stream is None:
            assert self.attempt.sock is not None
            self.stream = TcpStream(self.attempt.sock, self.attempt.endpoint)
            if self.host_of is not None:
                self.stream._set_host(self.host_of(self.attempt.endpoint))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        return self.stream


def _result_of(running: RunningAttempt, code: int) -> Fact:
    if not code:
        return Connected(running.id)
    attempt = running.attempt
    # The error is made now: it names the local address, which a closed socket has forgotten.
    return Failed(
        running.id, attempt.phase, code, attempt.error(code), attempt.reason(code), attempt.may_have_sent(code)
    )


@final
class RunningAttempts:
    """The attempts that are alive, by their ids, in the order of their starts.

    Args:
      mailbox: where their tasks put facts.
      establish: the caller's own test of a connection, or None.
      host_of: for which name each endpoint is tried; None without names.
    """

    def __init__(self, mailbox: Mailbox, establish: Establish | None, host_of: HostOfEndpoint | None) -> None:
        self.live: dict[int, RunningAttempt] = {}
        self.errors: dict[int, Exception | Callable[[], Exception]] = {}
        """The exception of each attempt that failed."""
        self._mailbox = mailbox
        self._establish = establish
        self._host_of = host_of
        self._nursery: trio.Nursery | None = None

    def start(self, attempt_id: int, attempt: AnyAttempt, *, connected: bool) -> RunningAttempt:
        """Take over an attempt that has begun. Run it in a task if there is a nursery."""
        running = self.live[attempt_id] = RunningAttempt(attempt_id, attempt, self._establish, self._host_of, connected)
        if self._nursery is not None and (not connected or self._establish is not None):
            self._spawn(self._nursery, running)
        return running

    def go_on_with(self, running: RunningAttempt, first: First) -> None:
        """Establish an attempt by going on with what it has begun. Its task has not been started."""
        running.stream = first.stream
        running.establish = first.go_on

    def spawn_in(self, nursery: trio.Nursery) -> None:
        """Give each attempt a task, now and from now on."""
        self._nursery = nursery
        for running in self.live.values():
            self._spawn(nursery, running)

    def poll(self) -> None:
        """Poll each socket, and put the fact that its task would put."""
        for running in self.live.values():
            code = running.attempt.poll()
            if code != PENDING:
                self._mailbox.tell(_result_of(running, code))

    def take(self, attempt_id: int) -> RunningAttempt:
        """Remove an attempt that the race has ended, and return it with its socket open."""
        running = self.live.pop(attempt_id)
        running.over = True
        return running

    def stop(self, attempt_id: int, error: Exception | Callable[[], Exception] | None = None) -> None:
        """End an attempt: close its socket, and remember its exception."""
        self.close(self.take(attempt_id))
        if error is not None:
            self.errors[attempt_id] = error

    def stop_all(self) -> None:
        """End every attempt, and start no more tasks."""
        self._nursery = None
        for attempt_id in tuple(self.live):
            self.stop(attempt_id)

    def close(self, running: RunningAttempt) -> None:
        """Close an attempt that was taken, and end its task. The socket goes first: a shielded task then ends too."""
        # The other sockets have to be closed too, whatever a factory's socket raises.
        try:
            if running.stream is not None:
                running.stream._close_now()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            else:
                if running.scope is not None and running.attempt.sock is not None:
                    running.attempt.sock.wake()
                running.attempt.close()
        except Exception:  # noqa: BLE001 - whatever it is, the race goes on
            _log.exception("a socket of the connect to %s could not be closed", running.endpoint)
        except BaseException as exc:  # noqa: BLE001 - raised when everything is closed
            self._mailbox.crash_with(exc)
        finally:
            if running.scope is not None:
                running.scope.cancel()

    def in_order(self) -> list[Exception]:
        """Return the exceptions of the failed attempts, in the order of their starts."""
        errors = (self.errors[attempt_id] for attempt_id in sorted(self.errors))
        return [error if isinstance(error, Exception) else error() for error in errors]

    def _spawn(self, nursery: trio.Nursery, running: RunningAttempt) -> None:
        running.scope = scope = trio.CancelScope()
        name = f"connect to {running.endpoint}"
        nursery.start_soon(run_attempt, running, scope, self._mailbox, name=name)


async def run_attempt(running: RunningAttempt, scope: trio.CancelScope, mailbox: Mailbox) -> None:
    """Wait for an attempt to connect, run its establish on it, and report both outcomes."""
    if running.is_over():
        return  # ended before this task first ran: its socket is closed and cannot be waited for
    with scope:
        try:
            if not running.connected:
                code = await running.attempt.finish(inf)
                if running.is_over():
                    return
                mailbox.tell(_result_of(running, code))
                if code:
                    return
                running.connected = True
            if running.establish is not None:
                mailbox.tell(Established(running.id, await call_establish(running.establish, running.open_stream())))
        except BaseException as exc:  # noqa: BLE001 - told to the driver, to be raised outside of the nursery
            _tell_error(running, without_cancellation(exc), mailbox)


def _tell_error(running: RunningAttempt, exc: BaseException, mailbox: Mailbox) -> None:
    if fails_an_attempt(exc):
        mailbox.tell(failure(running, exc))
    elif not running.is_over() or not comes_of_closing(exc):
        mailbox.crash_with(exc)


def failure(running: RunningAttempt, exc: Exception) -> Failed:
    """Return the fact that what establishes an attempt has raised this."""
    reason = reason_of(exc)
    exc.add_note(f"while establishing over {running.endpoint}")
    return Failed(running.id, "establish", errno_of_establish(exc), exc, reason, True)


def took_too_long(attempt: AnyAttempt, now: float) -> TimeoutError:
    """Return the error of an attempt that `attempt_timeout` ends.

    Args:
      attempt: its phase says what it was doing; its socket is still open.
      now: the time.
    """
    doing = "connect to" if attempt.phase == "connect" else "establish with"
    elapsed = milliseconds(now - attempt.started)
    text = f"{doing} {attempt.endpoint} from {attempt.origin()} took longer than attempt_timeout, {elapsed}"
    return TimeoutError(errno.ETIMEDOUT, text)
