"""The public types of a queue set: queues, tokens and results.

The three refer to one another, so they are in one module. `IOQueue` is the interface; `_queue` implements it.
"""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# A result reads its token's fields and not their properties.

from __future__ import annotations

from abc import abstractmethod
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NoReturn,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    final,
)

import attrs
import trio

from .._endpoint import Endpoint, EndpointLike
from .._net.sockets.unix_path import UnixPath
from ._states import State
from ._table import Entry
from ._values import Address, Closed, Completion, Connected, Op, Popped, Pushed, named

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAX_POP: Final = 65536
"""The most that one pop can bring, and what it asks for unless told otherwise."""

Target: TypeAlias = Address | tuple[Endpoint, ...] | None
"""What an operation was submitted to: one address, the addresses of a race, or None for the queue itself."""


class IOQueue(trio.abc.AsyncResource):
    """A socket and the operations submitted to it. `QueueSet.stream`, `.datagram` and `.unix`, or an accept, make it.

    Submissions are synchronous: they check and return a token, and the operation starts when the submitting task next
    waits. A submission that the state of the queue forbids raises an `OSError`. How an operation went is data in its
    result.

    Several accepts, pops or pushes may be outstanding. They are served in the order of their submission, and pushes
    are never interleaved.

    Every submission raises:
      OSError: EBADF, the queue or its set is closed, or being closed; EAGAIN, as many operations are submitted and not
        claimed as the set allows (a close is always taken in); EBUSY, a bind is under way; or what is said at the
        method.
      RuntimeError: it was called from another thread than the set's.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def state(self) -> State:
        """The state of the queue, which decides what may be submitted."""

    @property
    @abstractmethod
    def local(self) -> Address | None:
        """The local address: what was bound, or what a connection has; None without either.

        An accepted queue reads its address when it is first asked for. After a close it is lost.
        """

    @property
    @abstractmethod
    def peer(self) -> Address | None:
        """What this queue is or was connected to; None if it never was."""

    # ------------------------------------------------------------------ passive

    @abstractmethod
    async def bind(self, address: EndpointLike | UnixPath) -> Address:
        """Bind to a local address. A checkpoint; never waits.

        Args:
          address: an endpoint (a wildcard and port 0 are allowed), or a path for a unix-domain queue.

        Returns:
          `local`: what was bound, with the port that was chosen.

        Raises:
          OSError: EINVAL, it is bound, listening or connecting; EISCONN, connected; EBADF, closed; ECANCELED, closed
            meanwhile; and what the system says: EADDRINUSE, EADDRNOTAVAIL, EACCES.
          TypeError: no address of this kind.
          ValueError: likewise, or a name instead of an address.
        """

    @abstractmethod
    async def listen(self, backlog: int) -> None:
        """Listen on what is bound. A checkpoint; never waits.

        Args:
          backlog: how many connections may wait to be accepted, see listen(2). The system's own limit caps it.

        Raises:
          OSError: EINVAL, a backlog below 1; EDESTADDRREQ, not bound; EADDRINUSE, listening or connecting already, or
            another socket listens there; EISCONN, connected; EBADF, closed; EOPNOTSUPP, a datagram queue.
          TypeError: the backlog is not an int.
        """

    @abstractmethod
    def accept(self) -> QToken[Accepted]:
        """Submit an accept: one connection for one token.

        Returns:
          The token; the value of its result is an `Accepted`.

        Raises:
          OSError: EINVAL, the queue does not listen; EOPNOTSUPP, a datagram queue.
        """

    # ------------------------------------------------------------------ connecting

    @abstractmethod
    def connect(
        self, address: EndpointLike | UnixPath, deadline: int = -1, *, data: object = None
    ) -> QToken[Connected]:
        """Submit a connect. When it fails the queue is unbound, and may bind and connect again.

        Args:
          address: a numeric endpoint, or a path for a unix-domain queue.
          deadline: milliseconds on the clock of `now()`; -1 for none. When it comes first the result's error is
            `DeadlineExceeded`.
          data: anything of the caller's; it is the result's `data`.

        Returns:
          The token; the value of its result is a `Connected`.

        Raises:
          OSError: EINPROGRESS, a connect is under way; EISCONN, connected; EOPNOTSUPP, listening; EAFNOSUPPORT, bound
            to another address family; EBUSY, a datagram queue has operations outstanding.
          TypeError: no address of this kind, or no deadline.
          ValueError: likewise, or a name instead of an address, or port 0.
        """

    # ------------------------------------------------------------------ data

    @abstractmethod
    def push(self, data: Buffer) -> QToken[Pushed]:
        """Submit bytes to be sent, all of them; to a connected datagram queue, one datagram.

        Args:
          data: a bytes-like object. It must not change before the token completes. A datagram may be empty (RFC 768).

        Returns:
          The token; the value of its result is a `Pushed`.

        Raises:
          OSError: EINVAL, no bytes for a stream; ENOTCONN, not connected.
          TypeError: not bytes.
        """

    @abstractmethod
    def push_to(self, data: Buffer, address: EndpointLike) -> QToken[Pushed]:
        """Submit one datagram. An unbound queue is bound by this, to a port that the system chooses.

        Args:
          data: a bytes-like object. It must not change before the token completes. It may be empty (RFC 768).
          address: where to.

        Returns:
          The token; the value of its result is a `Pushed`.

        Raises:
          OSError: EISCONN, connected; EOPNOTSUPP, a stream; EAFNOSUPPORT, bound to another address family; EMFILE and
            kin, the system has no socket for it.
          TypeError: not bytes, or no endpoint.
          ValueError: no endpoint, or port 0.
        """

    @abstractmethod
    def pop(self, size: int | None = None) -> QToken[Popped]:
        """Submit a receive: whatever comes first, one byte or more; of a datagram queue, one datagram.

        Args:
          size: at most so many bytes, 1 to 65536 (None). What a stream has more stays for the next pop. A longer
            datagram is cut off, as by recvfrom(2), and the value says so: `Popped.truncated`.

        Returns:
          The token; the value of its result is a `Popped`.

        Raises:
          OSError: EINVAL, a size that is not allowed; ENOTCONN, a stream that is not connected; EDESTADDRREQ, a
            datagram queue that is not bound.
          TypeError: the size is not an int.
        """

    # ------------------------------------------------------------------ closing

    @abstractmethod
    def close(self) -> QToken[Closed]:
        """Submit a close.

        From here on submissions are EBADF; what is pending completes with ECANCELED before the close does.
        What has been pushed is still delivered. Closing never waits for the peer, and never fails for want of room:
        its token is taken in also when the set is full.

        Returns:
          The token; the value of its result is a `Closed`.

        Raises:
          OSError: EBADF, closed already, or being closed.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Close without a token. When it returns, everything that was pending has completed.

        A second close does nothing. A call that is cancelled closes the queue all the same.
        """


@final
@attrs.define(repr=False, unsafe_hash=True)
class Accepted(Completion):
    """A peer connected to a listening queue: `queue` and `peer`."""

    # The address is parsed when it is first asked for: that takes a fifth of an accept.
    __match_args__ = ("queue", "peer")

    _queue: IOQueue = attrs.field(alias="queue")

    @property
    def queue(self) -> IOQueue:
        """The new connected queue. It belongs to the same set."""
        return self._queue

    @property
    def peer(self) -> Address:
        """The address of the other end."""
        return cast("Address", self._queue.peer)


V_co = TypeVar("V_co", bound=Completion, covariant=True)


class Owner(Protocol):
    """What a token asks of the set that it belongs to."""

    def is_done(self, token: QToken[Completion]) -> bool: ...

    def cancel(self, token: QToken[Completion]) -> None: ...


@final
@attrs.define(eq=False, repr=False)
class QToken(Entry, Generic[V_co]):
    """The name of one submitted operation: wait for it, once, with the set that it came from.

    Not awaitable by itself: `QueueSet.wait` is where waiting, deadlines and claiming are.
    """

    _owner: Owner
    _id: int
    _op: Op
    _queue: IOQueue
    _submitted_at: float
    _target: Target
    _data: Any
    _lane: Any = attrs.field(default=None, init=False)
    """The lane where it can be cancelled; None for a close, and once it has completed."""
    _result: QResult[V_co] | None = attrs.field(default=None, init=False)
    """From its completion to its claim."""

    @property
    def id(self) -> int:
        """Counts up from 1 within its set."""
        return self._id

    @property
    def op(self) -> Op:
        """What was submitted."""
        return self._op

    @property
    def queue(self) -> IOQueue:
        """The queue it was submitted to; of a connectx a new one, which the race connects."""
        return self._queue

    @property
    def submitted_at(self) -> float:
        """In Trio time."""
        return self._submitted_at

    @property
    def target(self) -> Target:
        """What a connect or push_to was submitted to; the endpoints of a connectx, `()` where they come one by one."""
        return self._target

    @property
    def data(self) -> Any:
        """What the caller gave to connect."""
        return self._data

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

    def __repr__(self) -> str:
        return f"<QToken {self.id}: {named(self.op, self.target)} on {self.queue!r}{' (done)' if self.done else ''}>"


@attrs.define(repr=False, unsafe_hash=True, match_args=False)
class _Result(Generic[V_co]):
    """What both kinds of result have."""

    _token: QToken[V_co]
    _elapsed: float

    @property
    def token(self) -> QToken[V_co]:
        """The token that was waited for."""
        return self._token

    @property
    def elapsed(self) -> float:
        """Seconds from submission to completion."""
        return self._elapsed

    @property
    def op(self) -> Op:
        """What was submitted."""
        return self._token._op

    @property
    def queue(self) -> IOQueue:
        """The queue that the operation was submitted to; for a connectx a new one, which it connected."""
        return self._token._queue

    @property
    def target(self) -> Target:
        """What the operation was submitted to: the token's `target`."""
        return self._token._target

    @property
    def data(self) -> Any:
        """What the caller gave to connect."""
        return self._token._data


@final
@attrs.define(repr=False, unsafe_hash=True)
class Succeeded(_Result[V_co]):
    """The result of an operation that succeeded.

    Attributes:
      ok: True.
      error: None.
      errno: None.
    """

    __match_args__ = ("token", "elapsed", "value")

    _value: V_co
    ok: ClassVar[Literal[True]] = True
    error: ClassVar[None] = None
    errno: ClassVar[None] = None

    @property
    def value(self) -> V_co:
        """What it brought."""
        return self._value

    def unwrap(self) -> V_co:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        return f"Succeeded({self.op} on {self.queue!r}: {self.value!r}, elapsed={self.elapsed!r})"


@final
@attrs.define(repr=False, unsafe_hash=True)
class Failed(_Result[V_co]):
    """The result of an operation that failed: its error, as data.

    Attributes:
      error: why.
      ok: False.
      value: None.
    """

    __match_args__ = ("token", "elapsed", "error")

    # A field and not a property, for only by a field do type checkers tell the two kinds apart.
    error: OSError = attrs.field(on_setattr=attrs.setters.frozen)
    ok: ClassVar[Literal[False]] = False
    value: ClassVar[None] = None

    @property
    def errno(self) -> int:
        """The errno of the error."""
        code = self.error.errno
        assert code is not None  # every error of an operation has one
        return code

    def unwrap(self) -> NoReturn:
        """Raise the error.

        Returns:
          Never.

        Raises:
          OSError: the operation's error.
        """
        try:
            raise self.error
        finally:
            del self  # the traceback holds this frame, which would hold the error

    def __repr__(self) -> str:
        return f"Failed({self.op} on {self.queue!r}: {self.error!r}, elapsed={self.elapsed!r})"


QResult: TypeAlias = Succeeded[V_co] | Failed[V_co]
"""How an operation ended. `result.error is None` tells a type checker which of the two it is."""
