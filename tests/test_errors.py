"""What errors say: the kernel's own class, one shape of text, and nobody blamed who is not to blame."""

from __future__ import annotations

import errno
import os
import pickle
import re
from typing import get_args

import pytest
import trio
import trio.testing

from trio_connect import (
    Answer,
    Attempt,
    ConnectFailed,
    ConnectReport,
    DeadlineExceeded,
    Endpoint,
    IncompleteRead,
    Lookup,
    ResolveFailed,
)
from trio_connect._errors import PlainTextBeforeTls
from trio_connect._messages import call_exceeded, connect_error, is_local
from trio_connect._race_messages import race_failed, resolve_failed
from trio_connect._report import Phase

PEER = Endpoint("192.0.2.1", 443)
PHASES: tuple[Phase, ...] = get_args(Phase)


@pytest.mark.parametrize("code", sorted(errno.errorcode))
@pytest.mark.parametrize("phase", PHASES)
def test_every_errno_in_every_phase_gives_the_kernels_class_and_one_shape(code: int, phase: Phase) -> None:
    error = connect_error(code, phase, PEER, "192.0.2.9", 0.0004)
    assert error.errno == code
    assert type(error) is type(OSError(code, ""))
    assert not isinstance(error, DeadlineExceeded)
    text = str(error)
    assert "192.0.2.1:443" in text
    assert "192.0.2.9" in text
    assert "after 0.4 ms" in text
    if is_local(code, phase):
        assert text.startswith(f"[Errno {code}] local: {phase} for 192.0.2.1:443: ")
        said = os.strerror(code)
        assert said[1:] in text
    else:
        assert re.fullmatch(
            rf"\[Errno {code}\] connect to {re.escape(str(PEER))} from 192\.0\.2\.9 .* after 0\.4 ms", text
        )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ECONNREFUSED, "refused"),
        (errno.ECONNRESET, "reset"),
        (errno.ETIMEDOUT, "timed out in the kernel"),
        (errno.ENETUNREACH, "failed (network is unreachable)"),
    ],
)
def test_the_words_for_what_happened(code: int, words: str) -> None:
    error = connect_error(code, "connect", PEER, "192.0.2.9", 0.0004)
    assert str(error) == f"[Errno {code}] connect to 192.0.2.1:443 from 192.0.2.9 {words} after 0.4 ms"


@pytest.mark.parametrize(
    ("code", "phase", "local"),
    [
        (errno.EMFILE, "socket", True), (errno.ECONNREFUSED, "socket", True), (errno.EADDRINUSE, "bind", True),
        (errno.EADDRNOTAVAIL, "connect", True), (errno.EINVAL, "connect", True), (errno.EINVAL, "establish", False),
        (errno.EADDRNOTAVAIL, "establish", False),
        (errno.ECONNREFUSED, "connect", False), (errno.EACCES, "connect", False), (errno.EMFILE, "connect", False),
    ],
)  # fmt: skip
def test_what_is_local(code: int, phase: Phase, local: bool) -> None:
    assert is_local(code, phase) is local


def test_local_errors_bring_a_hint_where_there_is_one() -> None:
    assert "ulimit -n" in connect_error(errno.EMFILE, "socket", PEER, "any", 0).__notes__[0]
    assert "ip_local_port_range" in connect_error(errno.EADDRNOTAVAIL, "connect", PEER, "any", 0).__notes__[0]
    assert not hasattr(connect_error(errno.EINVAL, "bind", PEER, "any", 0), "__notes__")
    assert not hasattr(connect_error(errno.EINVAL, "bind", "/run/x", "any", 0), "__notes__")
    # A peer that forbids is no policy of this system.
    assert not hasattr(connect_error(errno.EPERM, "connect", PEER, "any", 0), "__notes__")


def test_deadline_exceeded_is_both_kinds_and_no_kernel_timeout() -> None:
    error = DeadlineExceeded("too late")
    assert isinstance(error, trio.TooSlowError)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, OSError)
    assert error.errno == errno.ETIMEDOUT
    assert str(error) == f"[Errno {errno.ETIMEDOUT}] too late"
    assert error.report is None
    assert error.transferred == 0


def test_deadline_exceeded_words() -> None:
    report = ConnectReport(started_at=1.0)
    error = call_exceeded(f"connect to {PEER}", 0.5, report=report, transferred=7)
    assert str(error) == (
        f"[Errno {errno.ETIMEDOUT}] connect to 192.0.2.1:443 had no result by its deadline, after 500.0 ms; "
        "transferred: 7 bytes"
    )
    assert (error.report, error.transferred) == (report, 7)


def test_incomplete_read_is_the_end_of_a_broken_stream() -> None:
    error = IncompleteRead("ended early", expected=10, available=3)
    assert isinstance(error, trio.BrokenResourceError)
    assert isinstance(error, EOFError)
    assert (error.expected, error.available, str(error)) == (10, 3, "ended early")
    assert IncompleteRead("x", expected=None, available=0).expected is None


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExceeded("too late", report=ConnectReport(started_at=1.0), transferred=3),
        IncompleteRead("ended early", expected=10, available=3),
        PlainTextBeforeTls("3 bytes came too early", "too early"),
        connect_error(errno.ECONNREFUSED, "connect", PEER, "any", 0.1),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_cross_processes(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_a_failed_race_can_be_pickled():
    failed = Attempt(
        endpoint=Endpoint("192.0.2.1", 443), cause="first", started=0.0, ended=0.1, outcome="failed",
        errno=errno.ECONNREFUSED,
    )  # fmt: skip
    report = ConnectReport(attempts=(failed,), elapsed=0.1)
    error = race_failed("api.test:443", report, [OSError(errno.ECONNREFUSED, "refused")])
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.errno, str(copy), copy.attempts) == (ConnectFailed, error.errno, str(error), (failed,))
    nameless = pickle.loads(pickle.dumps(ConnectFailed(None, "nobody said why", report=report)))
    assert (nameless.errno, str(nameless), nameless.report) == (None, "nobody said why", report)


def test_a_failed_lookup_says_of_each_question_how_it_ended():
    lookups = (
        Lookup(host="api.test", kind="AAAA", started=0.0, ended=0.1, answer=Answer()),
        Lookup(host="api.test", kind="A", started=0.0, ended=0.1, answer=Answer(("192.0.2.1",))),
        Lookup(host="api.test", kind="HTTPS", started=0.0, ended=0.1),
        Lookup(host="api.test", kind="SRV", started=0.0, ended=0.1, answer=Answer(name_exists=False)),
        Lookup(host="api.test", kind="MX", started=0.0, ended=0.1, error=OSError(errno.EIO, "no server")),
    )
    error = resolve_failed("api.test", ConnectReport(lookups=lookups, elapsed=1.5))
    assert isinstance(error, ResolveFailed)
    assert error.errno == errno.EIO
    assert error.strerror == (
        "no address to try for api.test after 1.50 s (AAAA: no address, A: found, HTTPS: cancelled, SRV: no such name, "
        "MX: [Errno 5] no server)"
    )
