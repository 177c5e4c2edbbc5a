"""What a failed connection says: who, where, how long, and what to do about it.

`connect_error` gives the kernel's own `OSError` subclass, so that ``except ConnectionRefusedError`` works, with one
shape of text whether the error came at once or later. Trouble on this side of the wire is worded so that nobody
reads it as the peer's fault.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from ._deadline import STALE_HINT, is_stale
from ._report import EMPTY_REPORT, ConnectReport

if TYPE_CHECKING:
    from ._endpoint import Endpoint
    from ._report import Phase

__all__ = ["DeadlineExceeded", "IncompleteRead"]

_WORDS: Final = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    # Never DeadlineExceeded: nobody's deadline came, the kernel ran out of SYN retries (tcp_syn_retries, tcp(7)).
    errno.ETIMEDOUT: "timed out in the kernel",
}

_HINTS: Final = {
    errno.EMFILE: "raise the limit of open files (ulimit -n), or keep fewer connections at a time",
    errno.ENFILE: "the whole machine is out of open files (fs.file-max)",
    errno.EADDRINUSE: "another socket has that address and port, or that path exists already; ss -anp lists sockets",
    errno.EADDRNOTAVAIL: "the local address is not on this machine, or, in a connect, every local port towards that "
    "endpoint is in use (net.ipv4.ip_local_port_range); another source address has ports of its own",
    errno.EACCES: "a port below net.ipv4.ip_unprivileged_port_start, or a path in that folder, needs more rights",
    errno.ENODEV: "no interface has that name",
    errno.EPERM: "the system's policy forbids it",
}


def strerror(code: int) -> str:
    """Return the system's text for an errno, to stand in the middle of a sentence."""
    text = os.strerror(code)
    return text[:1].lower() + text[1:]


def milliseconds(seconds: float) -> str:
    """Return a duration for a message."""
    return f"{seconds * 1000:.1f} ms"


def is_local(code: int, phase: Phase) -> bool:
    """Say whether a failure is trouble on this machine, which no peer is to be blamed for."""
    return phase in ("socket", "bind") or (phase == "connect" and code == errno.EADDRNOTAVAIL)


def connect_error(code: int, phase: Phase, target: Endpoint | str, source: str, elapsed: float) -> OSError:
    """Return the `OSError` subclass for a failed attempt.

    Args:
      code: the errno.
      phase: where it happened.
      target: the endpoint, or the path of a unix-domain socket.
      source: what the connection was to come from, in words.
      elapsed: seconds since the attempt began.
    """
    if is_local(code, phase):
        text = f"local: {phase} for {target}: {strerror(code)} (from {source}, after {milliseconds(elapsed)})"
    else:
        word = _WORDS.get(code) or f"failed ({strerror(code)})"
        text = f"connect to {target} from {source} {word} after {milliseconds(elapsed)}"
    error = OSError(code, text)
    if code in _HINTS and is_local(code, phase):
        error.add_note(_HINTS[code])
    return error


class DeadlineExceeded(trio.TooSlowError, TimeoutError):
    """The deadline that was passed to a call came before its result.

    Both a `trio.TooSlowError` and a `TimeoutError`, with errno ETIMEDOUT. A scope of the caller's that expires raises
    what Trio raises, never this; the kernel's own timeout is a plain `TimeoutError`.

    Args:
      message: what was waited for, and for how long.
      report: what had been tried by then; empty unless the call was `tcp_connect`.
      transferred: bytes of this call that the kernel had taken, or that were received and stay buffered.
    """

    report: ConnectReport
    """What had been tried by then; empty unless the call was a connect."""
    transferred: int
    """Bytes of this call that the kernel had taken, or that were received and stay in the stream's buffer."""

    def __init__(self, message: str, *, report: ConnectReport = EMPTY_REPORT, transferred: int = 0) -> None:
        super().__init__(errno.ETIMEDOUT, message)
        self.report = report
        self.transferred = transferred

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.strerror,), self.__dict__

    @classmethod
    def during(
        cls, what: str, elapsed: float, until: float, *, report: ConnectReport = EMPTY_REPORT, transferred: int = 0
    ) -> DeadlineExceeded:
        """Return the exception with the project's one wording.

        Args:
          what: the operation and its endpoint, such as "connect to 192.0.2.1:443".
          elapsed: seconds since the call.
          until: the deadline, as Trio time.
          report: see the attribute.
          transferred: see the attribute.
        """
        text = f"{what} had no result by its deadline, after {milliseconds(elapsed)}"
        if transferred:
            text = f"{text}; transferred: {transferred} bytes"
        if is_stale(until):
            text = f"{text}; {STALE_HINT}"
        return cls(text, report=report, transferred=transferred)


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
