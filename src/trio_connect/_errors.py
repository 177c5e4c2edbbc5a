"""The exceptions of the library.

- `OSError`

  - `ConnectFailed`: no attempt of a race led to a connection

    - `ResolveFailed`: a name has no address that could be tried

  - `TimeoutError`: the kernel gave up by itself

    - `DeadlineExceeded`, a `trio.TooSlowError` too: the deadline that was passed to a call came first

- `trio.BrokenResourceError`

  - `IncompleteRead`, an `EOFError` too: the peer ended the stream too early

- `EstablishFailed`: raised by the caller's own test of a connection, to fail that attempt alone

A single connect raises the kernel's own `OSError` subclass. `_messages` and `_race_messages` build the texts.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from ._report import Attempt, ConnectReport

__all__ = ["ConnectFailed", "DeadlineExceeded", "EstablishFailed", "IncompleteRead", "ResolveFailed"]


class EstablishFailed(Exception):
    """Raised by the caller's establish to say: this peer will not do, try the next one."""


class HandshakeFailed(trio.BrokenResourceError):
    """A TLS handshake failed; to users a `trio.BrokenResourceError`.

    Args:
      message: with whom, and why.
      reason: why, in one line, for reports that name the peer themselves.
    """

    reason: str

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.reason), self.__dict__


class PlainTextBeforeTls(HandshakeFailed, RuntimeError):
    """Bytes that nobody has taken came before a handshake; to users a `trio.BrokenResourceError` and a `RuntimeError`.

    The one, because a peer can bring it about: an attempt of a race fails by it, and a server that catches what broken
    connections raise goes on. The other, because it may be the program that has not read its answer to the end.
    """


class ConnectFailed(OSError):
    """No attempt of a race led to a connection.

    `errno` is what the attempts agree on; else that of the failure that came furthest, where trouble of this machine
    counts only if there was nothing else. There the most frequent errno counts, then the first; a certificate or a
    greeting has no errno, and if most came to that, `errno` is None. ``__cause__`` is an `ExceptionGroup` of `errors`.

    Args:
      code: the errno, or None.
      message: the text.
      report: what was tried.
      errors: one for each attempt that failed, in the order of their starts. What an establish raised is there as it
        was raised, a group too.
    """

    _report: ConnectReport | None
    errors: tuple[Exception, ...]

    def __init__(
        self,
        code: int | None,
        message: str,
        *,
        report: ConnectReport | None = None,
        errors: Iterable[Exception] = (),
    ) -> None:
        if code is None:
            super().__init__(message)
        else:
            super().__init__(code, message)
        self._report = report
        self.errors = tuple(errors)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errno, self.strerror if self.errno is not None else str(self)), self.__dict__

    @property
    def report(self) -> ConnectReport:
        """What had been tried: every attempt, and every lookup."""
        if self._report is None:
            # Loaded when somebody looks. Raising an error reads no module, because no descriptor may be left.
            from ._report import EMPTY_REPORT

            self._report = EMPTY_REPORT
        return self._report

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts of the report."""
        return self.report.attempts


class ResolveFailed(ConnectFailed):
    """A name has no address that could be tried. `report` has the lookups, `errno` is mostly an EAI number.

    Attributes:
      errors: one for each lookup that failed.
    """


class DeadlineExceeded(trio.TooSlowError, TimeoutError):
    """The deadline that was passed to a call came before its result.

    Both a `trio.TooSlowError` and a `TimeoutError`, with errno ETIMEDOUT. A scope of the caller's that expires raises
    what Trio raises, never this; the kernel's own timeout is a plain `TimeoutError`.

    Args:
      message: what was waited for, and for how long.
      report: what had been tried by then; None unless the call was a connect or a lookup.
      transferred: bytes of this call that the kernel had taken, or that were received and stay buffered.
    """

    report: ConnectReport | None
    """What had been tried, every attempt and every lookup; None unless the call was a connect or a lookup."""
    transferred: int
    """Bytes of this call that the kernel had taken, or that were received and stay in the stream's buffer."""

    def __init__(self, message: str, *, report: ConnectReport | None = None, transferred: int = 0) -> None:
        super().__init__(errno.ETIMEDOUT, message)
        self.report = report
        self.transferred = transferred

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror,), self.__dict__


class IncompleteRead(trio.BrokenResourceError, EOFError):
    """The peer ended the stream before as many bytes had come as were asked for.

    The bytes that did come stay in the stream's buffer: `available` of them can still be taken.

    Args:
      message: who ended the stream, and before what.
      expected: how many bytes were asked for; None when a delimiter was.
      available: how many came and are buffered.
    """

    expected: int | None
    """How many bytes were asked for; None when a delimiter was."""
    available: int
    """How many there are."""

    def __init__(self, message: str, *, expected: int | None, available: int) -> None:
        super().__init__(message)
        self.expected = expected
        self.available = available

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), expected=self.expected, available=self.available), self.args, self.__dict__
