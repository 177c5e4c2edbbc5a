"""The values of results that do not refer to a queue."""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol, TypeAlias, cast, final

import attrs

from .._endpoint import Endpoint
from .._net.sockets.unix_path import show_path
from .._report import ConnectReport

Op: TypeAlias = Literal["connect", "accept", "push", "push_to", "pop", "close", "connectx"]
"""What was submitted. A failed operation keeps its name."""

Address: TypeAlias = Endpoint | str | bytes
"""An endpoint, or the path of a unix-domain socket; an unnamed end of one is ""."""


class Completion:
    """The value of a result: `Connected`, `Accepted`, `Pushed`, `Popped` or `Closed`."""

    # What is read-only here is so by properties and not by attrs: to set its frozen fields costs as much as a whole
    # submission, and every operation has a value and a result.
    __slots__ = ()
    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__match_args__)})"


class Made(Protocol):
    """A connection that can tell how it was made."""

    @property
    def local(self) -> Address | None: ...

    @property
    def peer(self) -> Address | None: ...

    @property
    def report(self) -> ConnectReport: ...


@final
@attrs.define(repr=False, unsafe_hash=True)
class Connected(Completion):
    """A connect, or a race of them, succeeded: `local`, `peer` and `report`."""

    # Addresses are parsed and reports built on first access: most programs never ask, and it is a tenth of a connect.
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
@attrs.define(repr=False, unsafe_hash=True)
class Pushed(Completion):
    """The kernel has taken all bytes."""

    __match_args__ = ("count",)

    _count: int = attrs.field(alias="count")

    @property
    def count(self) -> int:
        """How many they are."""
        return self._count


@final
@attrs.define(repr=False, unsafe_hash=True)
class Popped(Completion):
    """Data came, or the end of the stream."""

    __match_args__ = ("data", "peer", "eof", "truncated")

    _data: bytes = attrs.field(alias="data")
    _peer: Address = attrs.field(alias="peer")
    _eof: bool = attrs.field(default=False, alias="eof")
    _truncated: bool = attrs.field(default=False, alias="truncated")

    @property
    def data(self) -> bytes:
        """What came."""
        return self._data

    @property
    def peer(self) -> Address:
        """Who sent it."""
        return self._peer

    @property
    def eof(self) -> bool:
        """The peer has ended the stream; `data` is then empty. Never set for a datagram, which may be empty."""
        return self._eof

    @property
    def truncated(self) -> bool:
        """The datagram was longer than the pop; the rest of it is lost. Never set for a stream."""
        return self._truncated


@final
@attrs.frozen
class Closed(Completion):
    """The queue is closed, and every operation that was pending on it has completed."""


def named(op: Op, target: Address | tuple[Endpoint, ...] | None) -> str:
    """Return an operation with whom it was submitted to: before it is over its queue cannot tell."""
    if target is None or target == ():
        return op
    if isinstance(target, tuple):
        whom = str(target[0]) if len(target) == 1 else f"{len(target)} endpoints"
    else:
        whom = show_path(target) if isinstance(target, str | bytes) else str(target)
    return f"{op} {whom}" if op == "push_to" else f"{op} to {whom}"
