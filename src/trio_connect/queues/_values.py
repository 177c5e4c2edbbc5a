"""The values of results that do not refer to a queue."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias, cast, final

import attrs

from .._endpoint import Endpoint
from .._report import ConnectReport

Op: TypeAlias = Literal["connect", "accept", "push", "push_to", "pop", "close", "connectx"]
"""What was submitted. A failed operation keeps its name."""

Address: TypeAlias = Endpoint | str | bytes
"""An endpoint, or the path of a unix-domain socket; an unnamed end of one is ""."""


class Completion:
    """The value of a result: `Connected`, `Accepted`, `Pushed`, `Popped` or `Closed`."""

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
@attrs.frozen
class Pushed(Completion):
    """The kernel has taken all bytes.

    Attributes:
      count: how many bytes went: all of them.
    """

    count: int


@final
@attrs.frozen
class Popped(Completion):
    """Data came, or the end of the stream.

    Attributes:
      data: the bytes.
      peer: who sent it.
      eof: the peer has ended the stream; `data` is then empty. Never set for a datagram, which may be empty.
      truncated: the datagram was longer than the pop; the rest of it is lost. Never set for a stream.
    """

    data: bytes
    peer: Address
    eof: bool = False
    truncated: bool = False


@final
@attrs.frozen
class Closed(Completion):
    """The queue is closed, and every operation that was pending on it has completed."""
