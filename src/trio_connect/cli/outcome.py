"""What one probe has found, and the exit code that curl has for it."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import IO, Any

import attrs

from trio_connect import Attempt, ConnectFailed, ConnectReport, DeadlineExceeded, ResolveFailed, TlsStream


class ExitCode(IntEnum):
    """Exit codes, as far as there are any, with curl's meaning (curl(1), EXIT CODES)."""

    OK = 0
    USAGE = 2  # argparse's
    RESOLVE = 6
    CONNECT = 7
    WRITE = 23
    TIMEOUT = 28
    TLS = 35
    CERTIFICATE = 60
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it


class CannotWrite(Exception):
    """What was found has no place to go; ``__cause__`` is the `OSError` that says why."""


def write(out: IO[str], text: str) -> None:
    """Write a line, or several.

    Args:
      out: where to.
      text: without its last line break.

    Raises:
      CannotWrite: it could not be written.
    """
    try:
        print(text, file=out, flush=True)
    except OSError as error:
        raise CannotWrite from error


@attrs.frozen(kw_only=True)
class TlsFacts:
    """What a handshake has agreed on."""

    version: str
    cipher: str
    alpn: str | None
    expires: float | None
    """When the certificate does, in seconds since 1970; None where it was not verified."""

    @classmethod
    def of(cls, stream: TlsStream) -> TlsFacts:
        """Return the facts of a connection."""
        certificate = stream.peer_certificate or {}
        not_after = certificate.get("notAfter")
        expires = ssl.cert_time_to_seconds(not_after) if isinstance(not_after, str) else None
        return cls(version=stream.version, cipher=stream.cipher[0], alpn=stream.alpn, expires=expires)

    def days_left(self, now: float) -> int | None:
        """Return the whole days that the certificate has left.

        Args:
          now: seconds since 1970.
        """
        return None if self.expires is None else int((self.expires - now) // 86400)

    def to_dict(self, now: float) -> dict[str, Any]:
        """Return the facts as JSON-safe data."""
        return {
            "version": self.version,
            "cipher": self.cipher,
            "alpn": self.alpn,
            "certificate_expires_s": None if self.expires is None else int(self.expires),
            "certificate_days_left": self.days_left(now),
        }


@attrs.frozen(kw_only=True)
class Probe:
    """One look at a target."""

    report: ConnectReport
    exit_code: ExitCode
    error: str | None = None
    tls: Mapping[int, TlsFacts] = attrs.field(factory=dict[int, TlsFacts])
    """By the index of the attempt."""
    wanted_tls: bool = False
    each: bool = False


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code for what a connect has raised."""
    if isinstance(error, ResolveFailed):
        return ExitCode.RESOLVE
    if isinstance(error, DeadlineExceeded):
        return ExitCode.TIMEOUT
    if isinstance(error, ConnectFailed):
        establishing = [attempt for attempt in error.report.failed if attempt.phase == "establish"]
        if any(_is_about_a_certificate(each) for each in error.errors):
            return ExitCode.CERTIFICATE
        if any(attempt.outcome == "failed" for attempt in establishing):
            return ExitCode.TLS
    # The kernel's own time-out is one too, as in curl.
    return ExitCode.TIMEOUT if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT else ExitCode.CONNECT


def exit_code_of_each(attempts: Mapping[Attempt, ExitCode]) -> ExitCode:
    """Return the exit code of addresses that were tried by themselves: fine if each family has answered somewhere.

    Args:
      attempts: the exit code of each by itself.
    """
    answered = {attempt.endpoint.family for attempt in attempts if attempt.outcome == "won"}
    broken = {code for attempt, code in attempts.items() if attempt.endpoint.family not in answered}
    if not broken:
        return ExitCode.OK if attempts else ExitCode.RESOLVE
    return broken.pop() if len(broken) == 1 else ExitCode.CONNECT


def _is_about_a_certificate(error: BaseException) -> bool:
    return any(isinstance(each, ssl.SSLCertVerificationError) for each in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    behind: BaseException | None = error
    while behind is not None:
        yield behind
        behind = behind.__cause__ or behind.__context__
