"""What users of a queue set hold in their hands: tokens, results, and what an operation brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeAlias, TypeVar, cast, final

import attrs

from .._endpoint import Endpoint
from .._report import ConnectReport

if TYPE_CHECKING:
    from ._queue import IOQueue

Op: TypeAlias = Literal["connect", "accept", "push", "push_to", "pop", "close", "connectx"]
"""What was submitted. A failed operation keeps its name."""

Address: TypeAlias = Endpoint | str | bytes
"""An endpoint, or the path of a unix-domain socket; an unnamed end of one is ""."""


class Completion:
    """What an operation brought: `Connected`, `Accepted`, `Pushed`, `Popped` or `Closed`."""

    __slots__ = ()


class Made(Protocol):
    """A connection that can tell how it was made."""

    @property
    def local(self) -> Address | None: ...

    @property
    def peer(self) -> Address | None: ...

    @property
    def report(self) -> ConnectReport: ...


@final
@attrs.frozen(repr=False)
class Connected(Completion):
    """A connect, or a race of them, succeeded: `local`, `peer` and `report`."""

    # Addresses are parsed and reports built when somebody looks: most never do, and it is a tenth of a connect's cost.
    __match_args__ = ("local", "peer", "report")

    _made: Made = attrs.field(alias="made")

    @property
    def local(self) -> Address:
        """The address of this end."""
        return cast("Address", self._made.local)

    @property
    def peer(self) -> Address:
        """The address that was connected to."""
        return cast("Address", self._made.peer)

    @property
    def report(self) -> ConnectReport:
        """How the connection was made; empty for unix-domain and datagram queues."""
        return self._made.report

    def __repr__(self) -> str:
        return f"Connected(local={self.local!r}, peer={self.peer!r})"


@final
@attrs.frozen
class Accepted(Completion):
    """Somebody connected to a listening queue."""

    queue: IOQueue
    """The new connected queue. It belongs to the set too."""
    peer: Address


@final
@attrs.frozen
class Pushed(Completion):
    """All bytes went to the kernel."""

    count: int


@final
@attrs.frozen
class Popped(Completion):
    """Data came, or the end of the stream."""

    data: bytes
    peer: Address
    """Who sent it."""
    eof: bool = False
    """The peer has ended the stream; `data` is then empty. Never set for a datagram, which may be empty."""


@final
@attrs.frozen
class Closed(Completion):
    """The queue is closed, and every operation that was pending on it has completed."""


V_co = TypeVar("V_co", bound=Completion, covariant=True)


class Owner(Protocol):
    """What a token asks of the set that it belongs to."""

    def is_done(self, token: QToken[Completion]) -> bool: ...

    def cancel(self, token: QToken[Completion]) -> None: ...


@final
@attrs.define(eq=False, repr=False)
class QToken(Generic[V_co]):
    """The name of one submitted operation: wait for it, once, with the set that it came from.

    Not awaitable by itself: `QueueSet.wait` is where waiting, deadlines and claiming are.
    """

    id: int = attrs.field(on_setattr=attrs.setters.frozen)
    """Counts up from 1 within its set."""
    op: Op = attrs.field(on_setattr=attrs.setters.frozen)
    queue: IOQueue = attrs.field(on_setattr=attrs.setters.frozen)
    """The queue it was submitted to."""
    submitted_at: float = attrs.field(on_setattr=attrs.setters.frozen)
    """In Trio time."""
    _owner: Owner = attrs.field(alias="owner", on_setattr=attrs.setters.frozen)

    @property
    def done(self) -> bool:
        """Whether the operation is over: its result is there to be claimed, or was claimed."""
        return self._owner.is_done(self)

    def cancel(self) -> None:
        """End the operation; its result is then ECANCELED, unless it completes first.

        Does nothing to an operation that is over, nor to a close. A push that is cancelled may have sent a part.

        Raises:
          RuntimeError: called from another thread than the set's.
        """
        self._owner.cancel(self)

    def belongs_to(self, owner: object) -> bool:
        """Say whether this token was submitted there."""
        return self._owner is owner

    def __repr__(self) -> str:
        return f"<QToken {self.id}: {self.op} on {self.queue!r}{' (done)' if self.done else ''}>"


@final
@attrs.frozen
class QResult(Generic[V_co]):
    """How an operation ended: its value, or its error as data."""

    token: QToken[V_co] = attrs.field(repr=False)
    op: Op
    queue: IOQueue
    """The queue that the operation was submitted to; for a connectx a new one, which it connected."""
    error: OSError | None
    value: V_co | None
    """None when there is an error."""
    elapsed: float
    """Seconds from submission to completion."""

    @property
    def ok(self) -> bool:
        """Whether the operation succeeded."""
        return self.error is None

    @property
    def errno(self) -> int | None:
        """The errno of the error, None when there is none."""
        return None if self.error is None else self.error.errno

    def unwrap(self) -> V_co:
        """Return the value.

        Raises:
          OSError: the operation's error.
        """
        if self.error is not None:
            try:
                raise self.error
            finally:
                del self  # the traceback holds this frame, which would hold the error
        return cast("V_co", self.value)
