"""What a connect and its close ask of the kernel, counted by strace: the one cost that no busy machine disturbs.

The setsockopt(SO_LINGER) of `abort`, which closes these connections, is left out: aclose() does without.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent.parent / "benchmarks" / "_traced.py"
CALL = re.compile(r"(\w+)\(")
# Memory, the clock where the kernel has no vdso for it, and the interpreter's own lock: not what is counted here.
NOT_OURS = {"brk", "mmap", "munmap", "mremap", "madvise", "clock_gettime", "futex", "rt_sigreturn", "restart_syscall"}

INLINE = ["socket", "setsockopt", "connect", "connect", "epoll_wait", "close"]
SPINNING = ["socket", "setsockopt", "connect", "epoll_wait", "connect", "close"]


def skip_unless_traceable() -> None:
    if sys.platform != "linux" or shutil.which("strace") is None:
        pytest.skip("NOT RUN: strace is not installed, so nobody counts system calls here")
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"NOT RUN: strace may not trace here: {probe.stderr.strip()}")


def calls_of(kind: str, times: int, tmp_path: Path) -> list[list[str]]:
    """The system calls of each connect and close, in order."""
    skip_unless_traceable()
    trace = tmp_path / "trace"
    command = ["strace", "-qq", "-o", str(trace), sys.executable, str(PROGRAM), kind, str(times)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = []
    inside = reading = False
    for line in trace.read_text().splitlines():
        call = CALL.match(line)
        if call is None or call[1] in NOT_OURS or "SO_LINGER" in line:
            continue
        # Once a second, not once per connect: which ports are local ones may have changed.
        if reading := reading or "ip_local_port_range" in line:
            reading = call[1] != "close"
            continue
        if call[1] == "getppid":
            inside = not inside
            if inside:
                found.append([])
        elif inside:
            # glibc and the interpreter choose between the two; it is one call either way.
            found[-1].append("epoll_wait" if call[1] == "epoll_pwait" else call[1])
    assert len(found) == times
    return found


def test_six_when_the_handshake_is_over_at_once_or_within_a_pass(tmp_path):
    # A process begins with looks at once; the sixteenth connect gives the loop a pass first, and that is enough.
    seen = calls_of("outside", 40, tmp_path)
    assert all(calls in (INLINE, SPINNING) for calls in seen)
    assert seen[0] == INLINE
    assert seen[-1] == SPINNING


def test_one_more_where_a_connection_to_itself_is_possible(tmp_path):
    # Asked as soon as the socket is connected.
    for calls in calls_of("inside", 20, tmp_path):
        assert calls in ([*INLINE[:4], "getsockname", "epoll_wait", "close"], [*SPINNING[:5], "getsockname", "close"])


def test_ten_when_the_handshake_is_waited_for(tmp_path):
    # An ICMP error may stand in SO_ERROR while connect(2) says that the handshake goes on.
    asked = [*INLINE[:4], "getsockopt"]
    # Trio's own two: it tries to change a registration that a fresh descriptor never has, then adds it.
    registered = ["epoll_ctl", "epoll_ctl"]
    (calls,) = calls_of("pending", 1, tmp_path)
    assert calls == [*asked, *registered, "epoll_wait", "connect", "close"]
