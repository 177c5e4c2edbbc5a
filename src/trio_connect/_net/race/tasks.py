"""The tasks of a race: one for each attempt that is pending, and one for whoever brings candidates.

They decide nothing. What they find out they put into the race's mailbox, and who steers the race takes it from there:
all facts of one instant together, so that which task the loop ran first makes no difference.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import attrs
import trio
from trio import current_time

from ..._messages import local_reason, reason_of
from ..._text import shown
from ..attempt import attempt_error, finish
from ..sockets.stream_socket import LocalFailure, StreamSocket
from ..streams.tcp_stream import TcpStream
from .errors import comes_of_closing, errno_of_establish, fails_an_attempt, without_cancellation

if TYPE_CHECKING:
    from ..._endpoint import Endpoint, Source
    from ..._report import Phase

Establish: TypeAlias = Callable[[TcpStream], Awaitable[Any]]

Feed: TypeAlias = Callable[[trio.Nursery], Awaitable[None]]


@attrs.define(eq=False)
class LiveAttempt:
    """An attempt that the race waits for, or that has just won it."""

    id: int
    source: Source | None
    endpoint: Endpoint
    sock: StreamSocket
    started: float
    """In Trio time."""
    connected: bool = False
    phase: Phase = "connect"
    stream: TcpStream | None = None
    scope: trio.CancelScope | None = None
    over: bool = False
    """Whether the race has no more use for its news: it was ended, or has won."""

    def is_over(self) -> bool:
        """Return `over`. A method, because to a type checker an attribute keeps its value across an await."""
        return self.over


@attrs.frozen
class Connected:
    """TCP is up."""

    id: int


@attrs.frozen
class Established:
    """The caller's establish has returned."""

    id: int
    value: Any


@attrs.frozen
class Failed:
    """The attempt has come to nothing."""

    id: int
    phase: Phase
    code: int | None
    error: Exception
    reason: str


Fact: TypeAlias = Connected | Established | Failed


# The order in which the facts of one instant are told: progress puts off a start that a failure would make, and a
# success makes it needless.
_ORDER: Final[tuple[type[Fact], ...]] = (Connected, Established, Failed)


@final
class Mailbox:
    """What the tasks of a race have found out and nobody has acted on yet."""

    __slots__ = ("_lot", "crash", "facts")

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.crash: BaseException | None = None
        """What ends the whole race, because it is not the failure of an attempt."""
        self._lot = trio.lowlevel.ParkingLot()

    def tell(self, fact: Fact) -> None:
        """Put a fact in."""
        self.facts.append(fact)
        self.wake()

    def crash_with(self, exc: BaseException) -> None:
        """Put in what ends the race.

        The first is what happened, and the others may only come of its end; but an interrupt is not to be lost.
        """
        if self.crash is None or (isinstance(self.crash, Exception) and not isinstance(exc, Exception)):
            self.crash = exc
        self.wake()

    def wake(self) -> None:
        """Have whoever waits look again."""
        self._lot.unpark_all()

    async def wait(self, deadline: float) -> None:
        """Wait to be woken, until a deadline in Trio time at most."""
        if deadline > current_time():
            with trio.CancelScope(deadline=deadline):
                await self._lot.park()

    def discard(self) -> None:
        """Forget what nobody will ask for: exceptions that hold the frames of tasks, which hold this."""
        self.facts = []
        self.crash = None

    def take(self) -> list[Fact]:
        """Empty it, and return what was in it, in the order in which the facts of one instant are told."""
        facts, self.facts = self.facts, []
        facts.sort(key=lambda fact: _ORDER.index(type(fact)))
        return facts


def result_of(attempt: LiveAttempt, code: int) -> Fact:
    """Return what is known of an attempt whose connect has ended with 0 or an errno."""
    return _failed(attempt, "connect", code) if code else Connected(attempt.id)


def _failed(attempt: LiveAttempt, phase: Phase, code: int, detail: str = "") -> Failed:
    elapsed = current_time() - attempt.started
    error = attempt_error(code, phase, attempt.sock, attempt.endpoint, attempt.source, elapsed, detail)
    return Failed(attempt.id, phase, code, error, local_reason(code, detail))


async def follow(attempt: LiveAttempt, scope: trio.CancelScope, mailbox: Mailbox, establish: Establish | None) -> None:
    """Wait for an attempt to connect, run the caller's establish on it, and tell what came of each."""
    if attempt.is_over():
        return  # given up before this task had its first turn: waiting for a closed socket would confuse epoll
    with scope:
        try:
            if not attempt.connected:
                code = await finish(attempt.sock, attempt.endpoint, attempt.source, inf)
                if attempt.is_over():
                    return
                mailbox.tell(result_of(attempt, code))
                if code:
                    return
                attempt.connected = True
            if establish is not None:
                attempt.stream = TcpStream(attempt.sock, attempt.endpoint)
                mailbox.tell(Established(attempt.id, await _establish(establish, attempt.stream)))
        except BaseException as exc:  # noqa: BLE001 - told to who steers, to be raised outside of the nursery
            _tell_error(attempt, without_cancellation(exc), mailbox)


async def _establish(establish: Establish, stream: TcpStream) -> Any:
    """Run the caller's establish: what it returned, or the stream where that was None."""
    awaitable = establish(stream)
    if not isawaitable(awaitable):
        raise TypeError(f"establish must be an async function, got {shown(establish)}, which returned {awaitable!r}")
    value = await awaitable
    return stream if value is None else value


def _tell_error(attempt: LiveAttempt, exc: BaseException, mailbox: Mailbox) -> None:
    if isinstance(exc, LocalFailure):
        mailbox.tell(_failed(attempt, exc.phase, exc.code, exc.detail))
    elif fails_an_attempt(exc):
        reason = reason_of(exc)
        exc.add_note(f"while establishing over {attempt.endpoint}")
        mailbox.tell(Failed(attempt.id, "establish", errno_of_establish(exc), exc, reason))
    elif not attempt.is_over() or not comes_of_closing(exc):
        mailbox.crash_with(exc)


async def run_feed(feed: Feed, nursery: trio.Nursery, mailbox: Mailbox) -> None:
    """Run what brings candidates; what it raises ends the race."""
    try:
        await feed(nursery)
    except BaseException as exc:  # noqa: BLE001 - raised by who steers, outside of the nursery
        mailbox.crash_with(without_cancellation(exc))
    else:
        mailbox.wake()  # no more will come: whether that ends the race, only a look at it tells
