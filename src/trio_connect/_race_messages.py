"""How the texts of a whole race are built: what became of its attempts and lookups, each kind of failure once.

What one attempt has to say of itself is in `_messages`.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

from ._durations import duration
from ._errors import ConnectFailed, ResolveFailed
from ._lookup_text import beside_attempts, each_lookup
from ._messages import WORDS, call_exceeded, call_late, is_local, strerror
from ._text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._errors import DeadlineExceeded
    from ._report import Attempt, ConnectReport, Phase

NO_SOURCE: Final = "no source of its family"
"""The reason of an attempt that was skipped because no source has an address of its family."""

NO_ZONE: Final = "a proxy knows nothing of this machine's zones"
"""The reason of an attempt that was skipped because its endpoint has a zone, and every source that is left a proxy."""

GONE: Final = "not in the answer that came later"
"""The reason of an attempt that was skipped because the address was a hint, or expired, and a later answer lacks it."""

NOT_ALLOWED: Final = "not allowed by the address filter"
"""How the reason of an attempt begins that was skipped because the caller's filter refused its endpoint."""

_MOST_NAMED: Final = 4
"""How many endpoints, or reasons of one kind, a message lists; the report has them all."""

_MOST_REFUSED: Final = 64
"""How many endpoints are named when none was allowed: as many as one race would try."""

_PHASES: Final[tuple[Phase, ...]] = ("socket", "bind", "connect", "establish")


def agreed_errno(attempts: Sequence[Attempt]) -> int | None:
    """Return the one errno to report for many attempts, None when most of those that came furthest have no errno."""
    failed = [attempt for attempt in attempts if attempt.outcome in ("failed", "timed out")]
    remote = [attempt for attempt in failed if attempt.errno is None or not is_local(attempt.errno, attempt.phase)]
    candidates = remote or failed
    if not candidates:
        return None
    furthest = max(_PHASES.index(attempt.phase) for attempt in candidates)
    codes = [attempt.errno for attempt in candidates if _PHASES.index(attempt.phase) == furthest]
    # max() keeps the first of equals, and the attempts are in order of their starts.
    return max(codes, key=codes.count)


def is_refused(attempt: Attempt) -> bool:
    """Say whether an attempt was skipped because the caller's filter refused its endpoint."""
    return attempt.outcome == "skipped" and attempt.reason is not None and attempt.reason.startswith(NOT_ALLOWED)


def _is_local_failure(attempt: Attempt) -> bool:
    return attempt.errno is not None and attempt.outcome == "failed" and is_local(attempt.errno, attempt.phase)


def _is_of_a_proxy(attempt: Attempt) -> bool:
    """Say whether an attempt failed before its proxy was asked for the endpoint."""
    return attempt.phase == "bind" and _has_proxy(attempt)


def _has_proxy(attempt: Attempt) -> bool:
    return attempt.source is not None and attempt.source.proxy is not None


def _held_up(attempt: Attempt) -> str:
    """Return whom an attempt waited for that was ended by time or by its caller; "" for its endpoint."""
    if attempt.source is None or attempt.source.proxy is None or attempt.phase not in ("bind", "connect"):
        return ""
    waiting = "for" if attempt.phase == "bind" else "for the answer of"
    return f" while waiting {waiting} proxy {attempt.source.proxy}"


def _kind(attempt: Attempt) -> str:
    if attempt.outcome == "skipped":
        return NOT_ALLOWED if is_refused(attempt) else f"skipped, {attempt.reason}"
    if attempt.errno is None or attempt.outcome == "timed out":
        return "not established" if attempt.outcome == "failed" else f"{attempt.outcome}{_held_up(attempt)}"
    if is_local(attempt.errno, attempt.phase):
        blamed = "proxy" if _is_of_a_proxy(attempt) else "local"
        return f"{blamed}: {strerror(attempt.errno)}"
    if attempt.errno == errno.ETIMEDOUT and (attempt.phase == "establish" or _has_proxy(attempt)):
        # No SYN of ours was in vain: a deadline in the caller's establish came, or a proxy says that it got no answer.
        return "timed out in establish" if attempt.phase == "establish" else "timed out behind the proxy"
    return WORDS.get(attempt.errno) or strerror(attempt.errno)


def _counts(attempts: Sequence[Attempt]) -> str:
    kinds: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        kinds.setdefault(_kind(attempt), []).append(attempt)
    return ", ".join(f"{kind}: {len(alike)}{_quoted(alike)}" for kind, alike in kinds.items())


def _quoted(attempts: Sequence[Attempt]) -> str:
    """Return the reasons that the kind of failure does not say already, such as what a server answered."""
    reasons = [
        attempt.reason
        for attempt in attempts
        if attempt.reason is not None
        and attempt.outcome == "failed"
        and (attempt.errno is None or attempt.reason != strerror(attempt.errno))
    ]
    distinct = list(dict.fromkeys(reasons))
    if not distinct:
        return ""
    more = len(distinct) - _MOST_NAMED
    named = ", ".join(f'"{reason}"' for reason in distinct[:_MOST_NAMED])
    return f": {named}" + (f" and {more} more" if more > 0 else "")


def _where(target: str, attempts: Sequence[Attempt]) -> str:
    names = list(dict.fromkeys(str(attempt.endpoint) for attempt in attempts))
    more = len(names) - _MOST_NAMED
    named = ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    target = printable(target)
    return f"{target} ({named})" if target and named else target or named or "endpoints that never came"


def race_exceeded(target: str, report: ConnectReport) -> DeadlineExceeded:
    """Return the error for a race that its caller's deadline has ended.

    Args:
      target: a name and port, or "" when the endpoints are all there is to name.
      report: the finished report.
    """
    tried = [attempt for attempt in report.attempts if attempt.started is not None]
    if report.lookups and not tried:
        what = f"connect to {_where(target, report.attempts)}, whose lookup did not end in time,"
    else:
        what = f"connect to {_where(target, tried or report.attempts)}"
    told = [attempt for attempt in report.attempts if attempt.started is not None or is_refused(attempt)]
    worth_counting = len(told) > 1 or any(
        attempt.outcome in ("failed", "skipped") or _held_up(attempt) for attempt in told
    )
    counts = _counts(told) if worth_counting else ""
    detail = "; ".join(filter(None, (counts, beside_attempts(report))))
    return call_exceeded(what, report.elapsed, report=report, detail=detail)


def race_late(target: str, report: ConnectReport, late_by: float) -> DeadlineExceeded:
    """Return the error for a race that was called for at or after its deadline.

    Args:
      target: a name and port, or "" when the endpoints are all there is to name.
      report: the finished report, in which nothing was tried.
      late_by: seconds from the deadline to the call.
    """
    where = _where(target, report.attempts) if target or report.attempts else "endpoints still to come"
    return call_late(f"connect to {where}", late_by, report=report)


def race_failed(
    target: str, report: ConnectReport, errors: Sequence[Exception], *, beside: Sequence[str] = ()
) -> ConnectFailed:
    """Return the error for a race without a winner.

    Args:
      target: a name and port, or "" when the endpoints are all there is to name.
      report: the finished report.
      errors: one for each attempt that was started, in that order.
      beside: what else is to be said, such as of hosts without an address whose lookups are not in the report.
    """
    attempts = report.attempts
    started = sum(attempt.started is not None for attempt in attempts)
    if not started and any(map(is_refused, attempts)):
        return _nothing_allowed(target, report)
    counts = _counts(attempts)
    where = _where(target, attempts)
    tries = "the only attempt" if started == 1 else f"all {started} attempts" if started else "no attempt could be made"
    code = agreed_errno(attempts)
    if code is None and not started and attempts:
        code = errno.EADDRNOTAVAIL  # every endpoint was skipped: no source has an address of its family
    text = (
        f"{tries} to {where} failed in {duration(report.elapsed)} ({counts})"
        if started
        else f"{tries} to {where} ({counts})"
    )
    text = "; ".join(filter(None, (text, beside_attempts(report), *beside)))
    error = ConnectFailed(code, text, report=report, errors=errors)
    if errors:
        error.__cause__ = ExceptionGroup(f"attempts to {where}", errors)
    if code is not None and started and all(_is_local_failure(attempt) for attempt in report.failed):
        # Nobody else is to blame, so what to do about it is worth saying here too.
        for note in dict.fromkeys(note for each in errors for note in getattr(each, "__notes__", ())):
            error.add_note(note)
    return error


def _nothing_allowed(target: str, report: ConnectReport) -> ConnectFailed:
    """Return the error for a race in which the caller's filter has left nothing to try.

    It names every address that a race would have tried. A name server may have sent thousands.
    """
    refused = [attempt for attempt in report.attempts if is_refused(attempt)]
    others = [attempt for attempt in report.attempts if not is_refused(attempt)]
    told = [f"{attempt.endpoint}{(attempt.reason or '').removeprefix(NOT_ALLOWED)}" for attempt in refused]
    where = f" to {printable(target)}" if target else ""
    beyond = f" and {len(told) - _MOST_REFUSED} more" if len(told) > _MOST_REFUSED else ""
    text = f"no attempt could be made{where}: {NOT_ALLOWED}: {', '.join(told[:_MOST_REFUSED])}{beyond}"
    more = "; ".join(filter(None, (_counts(others), beside_attempts(report))))
    return ConnectFailed(errno.EACCES, f"{text}; {more}" if more else text, report=report, errors=())


def resolve_failed(host: str, report: ConnectReport) -> ResolveFailed:
    """Return the error for a name, or several, without an address that could be tried.

    Args:
      host: the name, or the names in one text.
      report: the finished report, with the lookups.
    """
    host = printable(host)
    told = each_lookup(report)
    told += [f"{attempt.endpoint} {attempt.outcome}" for attempt in report.attempts]
    text = f"no address to try for {host} after {duration(report.elapsed)} ({', '.join(told)})"
    errors = [lookup.error for lookup in report.lookups if lookup.error is not None]
    codes = {error.errno for error in errors}
    error = ResolveFailed(codes.pop() if len(codes) == 1 else socket.EAI_NONAME, text, report=report, errors=errors)
    if errors:
        error.__cause__ = ExceptionGroup(f"lookups of {host}", errors)
    return error
