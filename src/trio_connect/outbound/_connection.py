"""A connection to a destination, as the block of a connect has it."""

from __future__ import annotations

from typing import Generic, TypeVar, final

from .. import Source, TcpStream, TlsStream
from .._outbound_values import Candidate
from ._running import Run

__all__ = ["Connection", "TlsConnection"]

S = TypeVar("S", TcpStream, TlsStream)
R = TypeVar("R")


class _AnyConnection(Generic[S, R]):
    stream: S
    result: R
    source: Source | None
    candidate: Candidate

    def __init__(self, stream: S, result: R, candidate: Candidate, run: Run) -> None:
        self.stream = stream
        self.result = result
        self.candidate = candidate
        self.source = run.admission.source.source
        self._run = run

    def overloaded(self, seconds: float, reason: str = "the peer asked to come back later") -> None:
        """Take note that the peer said "not now" later on: 421 in a session, 429, Retry-After.

        This suspends the source towards the route group, and counts as no failure. The connection goes on.

        Args:
          seconds: for how long, above 0.
          reason: what the peer said.

        Raises:
          TypeError: the seconds are not a number, or the reason is not a str.
          ValueError: they are not above 0, or not finite.
        """
        self._run.tell_overloaded(seconds, reason)


@final
class Connection(_AnyConnection[TcpStream, R]):
    """A connection to a destination, which holds its place under every limit until its block is left.

    Attributes:
      stream: the `trio_connect.TcpStream`; its `report` says how it came about.
      result: what `establish` returned, an R; None without one.
      source: the source that it was made from; None when the kernel chose.
      candidate: the address that it was made to.
    """


@final
class TlsConnection(_AnyConnection[TlsStream, R]):
    """A `Connection` over TLS.

    Attributes:
      stream: the `trio_connect.TlsStream`; its `report` says how it came about.
      result: what `establish` returned, an R; None without one.
      source: the source that it was made from; None when the kernel chose.
      candidate: the address that it was made to.
    """
