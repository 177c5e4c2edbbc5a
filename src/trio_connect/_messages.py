"""How the texts of one failure are built: who, where, how long, and what to do about it.

`connect_error` gives the kernel's own `OSError` subclass, so that ``except ConnectionRefusedError`` works, with one
shape of text whether the error came at once or later. Trouble on this side of the wire is worded so that nobody
reads it as the peer's fault.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Final, cast

from ._durations import milliseconds
from ._errors import DeadlineExceeded, HandshakeFailed
from ._text import one_line, printable

if TYPE_CHECKING:
    from ._endpoint import Endpoint
    from ._report import ConnectReport, Phase

WORDS: Final = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    # Never DeadlineExceeded: nobody's deadline came, the kernel ran out of SYN retries (tcp_syn_retries, tcp(7)).
    errno.ETIMEDOUT: "timed out in the kernel",
}
"""What to say of an errno where its own text would be misunderstood."""

_NO_PROTOCOL: Final = "tlsv1 alert no application protocol"
"""OpenSSL's words for alert 120, RFC 7301 section 3.2."""

_OPENSSLS_WORDS: Final = re.compile(r"^\[SSL\] | \(_ssl\.c:\d+\)$")
"""What Python puts around them."""

_LINK_LOCAL: Final = ("fe8", "fe9", "fea", "feb")
"""How the addresses of fe80::/10 begin, RFC 4291 section 2.5.6."""

_NO_PORT: Final = (
    "the local address is not on this machine, or every local port towards that endpoint is in use "
    "(net.ipv4.ip_local_port_range); another source address has ports of its own"
)

_HINTS: Final = {
    errno.EMFILE: "raise the limit of open files (ulimit -n), or keep fewer connections at a time",
    errno.ENFILE: "the whole machine is out of open files (fs.file-max)",
    errno.EADDRINUSE: "another socket has that address and port, or that path exists already; ss -anp lists sockets",
    errno.EACCES: "a port below net.ipv4.ip_unprivileged_port_start, or a path in that folder, needs more rights",
    errno.ENODEV: "no interface has that name",
    errno.EPERM: "the system's policy forbids it",
}


@lru_cache(maxsize=256)
def strerror(code: int) -> str:
    """Return the system's text for an errno, to stand in the middle of a sentence."""
    return _in_a_sentence(os.strerror(code))


def _in_a_sentence(text: str) -> str:
    return text[:1].lower() + text[1:]


def is_local(code: int, phase: Phase) -> bool:
    """Say whether a failure is trouble on this machine, which no peer is to be blamed for."""
    # EINVAL from connect(2) is what Linux says of a source address that cannot reach the destination, such as
    # 127.0.0.1 to another machine, and of a link-local address without its zone. No packet leads to it.
    return phase in ("socket", "bind") or (phase == "connect" and code in (errno.EADDRNOTAVAIL, errno.EINVAL))


def own_words(error: OSError) -> str:
    """Return what an `OSError` says beyond the kernel's text for its errno, such as which socket option was refused."""
    words = error.strerror or ""
    return "" if error.errno is not None and words == os.strerror(error.errno) else printable(words)


def connect_error(
    code: int, phase: Phase, target: Endpoint | str, source: str, elapsed: float, detail: str = ""
) -> OSError:
    """Return the `OSError` subclass for a failed attempt.

    Args:
      code: the errno.
      phase: where it happened.
      target: the endpoint, or the path of a unix-domain socket.
      source: what the connection was to come from, in words.
      elapsed: seconds since the attempt began.
      detail: more about trouble on this machine, in words.
    """
    if is_local(code, phase):
        what = local_reason(code, detail)
        text = f"local: {phase} for {target}: {what} (from {source}, after {milliseconds(elapsed)})"
    else:
        word = WORDS.get(code) or f"failed ({strerror(code)})"
        text = f"connect to {target} from {source} {word} after {milliseconds(elapsed)}"
    error = OSError(code, text)
    hint = _hint(code, phase, target, source) if is_local(code, phase) else None
    if hint:
        error.add_note(hint)
    return error


def local_reason(code: int, detail: str) -> str:
    """Return the words for trouble on this machine."""
    return f"{strerror(code)}: {detail}" if detail else strerror(code)


def _hint(code: int, phase: Phase, target: Endpoint | str, source: str) -> str | None:
    """Return what to do about trouble on this machine."""
    is_ipv6 = not isinstance(target, str) and target.family == socket.AF_INET6
    if code == errno.EINVAL and phase != "socket" and not isinstance(target, str):
        local = source.partition(",")[0]
        for host, zone in ((target.host, target.scope_id), (local, "%" in local)):
            if not zone and host.startswith(_LINK_LOCAL):
                return f"a link-local address needs its zone, the name of an interface: {host}%eth0"
        if phase == "connect":
            return f"no route of this machine leads from {source} to {target.host} (ip route get): try another source"
        return None
    if code == errno.EADDRNOTAVAIL:
        if is_ipv6 and _is_ipv6_off():
            return "no IPv6 address here: IPv6 is switched off (net.ipv6.conf.all.disable_ipv6), or no link is up"
        return _NO_PORT if phase == "connect" else "the local address is not on this machine"
    if code == errno.EAFNOSUPPORT and is_ipv6:
        return "this system has no IPv6"
    return _HINTS.get(code)


def _is_ipv6_off() -> bool:
    """Say whether no interface has an IPv6 address, not even the loopback one: Linux then has nothing in this file."""
    try:
        with open("/proc/net/if_inet6", "rb") as file:
            return not file.read(1)
    except OSError:
        return False


def first_leaf(error: BaseException) -> BaseException:
    """Return the exception itself, or the first one in a group that is not a group."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def reason_of(error: BaseException) -> str:
    """Return in one line why an establish failed.

    That is what its exception says. An exception without a text often has one behind it: `trio.SSLStream` raises an
    empty `trio.BrokenResourceError` from the `ssl.SSLError`. Without any text the class has to do.

    Args:
      error: what was raised; of a group the first exception counts.
    """
    error = first_leaf(error)
    return next((line for exc in _chain(error) if (line := one_line(_words_of(exc)))), type(error).__name__)


def _chain(error: BaseException) -> Iterator[BaseException]:
    behind: BaseException | None = error
    while behind is not None:
        yield behind
        behind = behind.__cause__ or (None if behind.__suppress_context__ else behind.__context__)


def _words_of(error: BaseException) -> str:
    if isinstance(error, HandshakeFailed):
        return error.reason
    if isinstance(error, ssl.SSLError):
        # OpenSSL's own have these two, those that a program makes have not: "certificate has expired" and, of the
        # protocol's errors, WRONG_VERSION_NUMBER.
        verdict, mnemonic = getattr(error, "verify_message", None), getattr(error, "reason", None)
        if isinstance(verdict, str) and verdict:
            return verdict
        # Python does not know every mnemonic: then the words stand in "[SSL] tlsv1 alert ... (_ssl.c:1006)".
        words = _OPENSSLS_WORDS.sub("", str(error))
        if isinstance(mnemonic, str) and mnemonic:
            words = mnemonic.replace("_", " ").lower()
        return "no protocol in common (ALPN, alert 120)" if words == _NO_PROTOCOL else words
    if isinstance(error, OSError) and error.strerror:
        is_kernels = error.errno is not None and error.strerror == os.strerror(error.errno)
        return _in_a_sentence(error.strerror) if is_kernels else error.strerror
    return str(error)


def local_lookup_error(code: int | None, host: str, why: str = "") -> OSError:
    """Return the error for a lookup that failed because this process or machine is short of something.

    Args:
      code: the errno.
      host: the name.
      why: what is short, where the errno does not say it.
    """
    code = code or errno.EAGAIN
    error = OSError(code, f"local: lookup of {printable(host)}: {why or strerror(code)}")
    hint = "raise the limit of processes (ulimit -u, or pids.max of the cgroup)" if why else _HINTS.get(code)
    if hint is not None:
        error.add_note(hint)
    return error


def call_exceeded(
    what: str,
    elapsed: float,
    *,
    report: ConnectReport | None = None,
    transferred: int = 0,
    detail: str = "",
) -> DeadlineExceeded:
    """Return the exception for a call that had no result by its deadline.

    Args:
      what: the operation and its endpoint, such as "connect to 192.0.2.1:443".
      elapsed: seconds since the call.
      report: what had been tried by then, for a connect.
      transferred: bytes of this call that are sent, or received and buffered.
      detail: what was done by then, for the end of the text.
    """
    text = f"{what} had no result by its deadline, after {milliseconds(elapsed)}"
    if detail:
        text = f"{text} ({detail})"
    if transferred:
        text = f"{text}; transferred: {transferred} bytes"
    return DeadlineExceeded(text, report=report, transferred=transferred)


def call_late(what: str, late_by: float, *, report: ConnectReport | None = None) -> DeadlineExceeded:
    """Return the exception for a call that began at or after its deadline, and so did nothing.

    Args:
      what: the operation and its endpoint, such as "connect to 192.0.2.1:443".
      late_by: seconds from the deadline to the call.
      report: the endpoints that were not tried, for a connect.
    """
    text = f"{what} did not begin: its deadline came {milliseconds(late_by)} before the call"
    return DeadlineExceeded(text, report=report)
