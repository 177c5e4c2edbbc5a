"""What the benchmarks share: a private network, a server on the other core, ratios, tables and bounds.

Absolute times drift on a machine that does other things too. So every round measures all contestants, a ratio is
taken inside its round, and what is reported is the median over the rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import math
import os
import platform
import random
import resource
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs

HERE = Path(__file__).parent
LINGER_ABORT = struct.pack("ii", 1, 0)

# linux/sched.h, sys/mount.h, net/if.h
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1

SYSCTLS = {
    "net/core/somaxconn": "65535",
    "net/ipv4/tcp_max_syn_backlog": "65535",
    "net/ipv4/ip_local_port_range": "10240 65000",
}


# ---------------------------------------------------------------------- the network


class NotPermittedError(Exception):
    """This machine does not let us make a network of our own."""


def _call(name: str, *arguments: object) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise NotPermittedError(f"{name}: {os.strerror(ctypes.get_errno())}")


def enter_network() -> None:
    """Move this process, which must have one thread, into a network with a loopback interface and nothing else.

    Raises:
      NotPermittedError: nothing has changed.
    """
    if sys.platform != "linux":
        raise NotPermittedError(f"{sys.platform} has no network namespaces")
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        _call("unshare", CLONE_NEWNET | CLONE_NEWNS)
    else:
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
        # The kernel lets an ordinary user map a group only after giving up setgroups, user_namespaces(7).
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            Path("/proc/self", name).write_text(text)
    _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(sock, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))
    for name, value in SYSCTLS.items():
        try:
            Path("/proc/sys", name).write_text(value)
        except OSError as exc:
            print(f"note: {name} stays as it is: {exc.strerror}", file=sys.stderr)


def steer_loopback(core: int) -> None:
    """Have the packets of loopback processed by another core: a handshake is then not over when connect(2) returns.

    On plain loopback both ends of a handshake run inside the client's connect(2), which no real network does. With
    receive packet steering (RPS) the client has to wait as on a network whose round trip is tens of microseconds.

    Raises:
      NotPermittedError: this machine has one core, or the kernel will not.
    """
    if core < 0:
        raise NotPermittedError("the asynchronous path needs a second core")
    _call("mount", b"none", b"/sys", b"sysfs", 0, None)
    try:
        Path("/sys/class/net/lo/queues/rx-0/rps_cpus").write_text(f"{1 << core:x}")
    except OSError as exc:
        raise NotPermittedError(f"receive packet steering: {exc.strerror}") from exc


def cores() -> tuple[int, int]:
    """Return the client's core and the server's, -1 for both where there is only one."""
    if not hasattr(os, "sched_getaffinity") or len(available := sorted(os.sched_getaffinity(0))) < 2:
        return -1, -1
    return available[0], available[1]


def pin_client(core: int) -> None:
    """Keep this process on its core and, where permitted, ahead of others."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    try:
        os.nice(-10)
    except OSError:
        pass


def open_files() -> int:
    """Let this process have as many files as it may, and return how many that are."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def ephemeral_range() -> tuple[int, int]:
    """Return the range of local ports; a peer's port inside it costs a connect one more system call."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        return 49152, 65535
    return low, high


@contextmanager
def running_server(core: int) -> Iterator[dict[str, int]]:
    """Run `_server.py`; gives its ports, all below the range of local ports."""
    low, _ = ephemeral_range()
    command = [sys.executable, str(HERE / "_server.py"), str(core), "7000", str(low - 1)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline() or sys.exit("the server did not start"))
        finally:
            process.stdin.close()
            process.stdout.close()


def spread(port: int, count: int, hosts: int = 500) -> list[tuple[str, int]]:
    """Return addresses of this machine in turn, so that no pair of addresses runs out of local ports."""
    names = [socket.inet_ntoa(struct.pack("!I", 0x7F010001 + i)) for i in range(hosts)]
    return [(names[i % hosts], port) for i in range(count)]


# ---------------------------------------------------------------------- children


def inside(script: str, *arguments: str) -> Any:
    """Run a part of a benchmark in a process of its own and return what it printed last, as JSON."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------- peers


def missing(*names: str) -> list[str]:
    """Return which of these packages are not installed."""
    absent = []
    for name in names:
        try:
            import_module(name)
        except ImportError:
            absent.append(name)
    return absent


def versions() -> str:
    """Say what is measured, and on what."""
    words = [
        f"Python {platform.python_version()} of {sys.base_prefix}",
        f"{platform.system()} {platform.release()}",
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
    ]
    for name in ("trio-connect", "trio", "anyio", "uvloop"):
        try:
            words.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            words.append(f"{name} of this checkout" if name == "trio-connect" else f"{name} not installed")
    return ", ".join(words)


# ---------------------------------------------------------------------- rounds and ratios


@attrs.frozen
class Sample:
    """What one contestant took in one round, seconds per operation."""

    wall: float
    cpu: float


class Watch:
    """Measures from when it is made to `read`, per operation."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, count: int) -> Sample:
        return Sample((time.perf_counter() - self._wall) / count, (time.process_time() - self._cpu) / count)


Samples = dict[str, list[Sample]]


def interleave(contestants: Mapping[str, Callable[[], Sample]], rounds: int) -> Samples:
    """Measure every contestant once per round, in a new order each time."""
    order = list(contestants)
    chance = random.Random(1)
    samples: Samples = {name: [] for name in order}
    for _ in range(rounds):
        chance.shuffle(order)
        for name in order:
            samples[name].append(contestants[name]())
    return samples


def ratio(samples: Samples, name: str, base: str) -> float:
    """Return the median over the rounds of one contestant's CPU time over another's; nan where one is missing."""
    pairs = zip(samples.get(name, ()), samples.get(base, ()), strict=False)
    values = [mine.cpu / theirs.cpu for mine, theirs in pairs]
    return statistics.median(values) if values else math.nan


def quiet_ratio(samples: Samples, name: str, base: str) -> float:
    """Return the ratio of the best rounds: what remains when nobody disturbs."""
    if not samples.get(name) or not samples.get(base):
        return math.nan
    return min(s.cpu for s in samples[name]) / min(s.cpu for s in samples[base])


# ---------------------------------------------------------------------- tables and bounds


def show(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@attrs.frozen
class Bound:
    """A promise and what came out."""

    what: str
    measured: float
    at_most: float | None = None
    at_least: float | None = None

    @property
    def verdict(self) -> str:
        if math.isnan(self.measured):
            return "not measured"
        over = self.at_most is not None and self.measured > self.at_most
        under = self.at_least is not None and self.measured < self.at_least
        return "MISSED" if over or under else "holds"

    def row(self) -> list[str]:
        limit = f"at most {self.at_most:g}" if self.at_most is not None else f"at least {self.at_least:g}"
        return [self.what, limit, show(self.measured), self.verdict]

    def to_dict(self) -> dict[str, Any]:
        number = None if math.isnan(self.measured) else self.measured
        return {**attrs.asdict(self), "measured": number, "verdict": self.verdict}


def print_bounds(bounds: Sequence[Bound]) -> None:
    print()
    print(table(["bound", "limit", "measured", "verdict"], [bound.row() for bound in bounds]))


# ---------------------------------------------------------------------- command lines


def parser(description: str | None, *, rounds: int, n: int) -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--rounds", type=int, default=rounds, help="how many rounds (default %(default)s)")
    result.add_argument("--n", type=int, default=n, help="operations per contestant and round (default %(default)s)")
    result.add_argument("--json", metavar="FILE", help="write every number there too")
    result.add_argument("--check", action="store_true", help="exit with 1 when a bound is missed")
    return result


def end(options: argparse.Namespace, results: Mapping[str, Any], bounds: Sequence[Bound]) -> None:
    """Write the JSON that was asked for, and judge if that was."""
    if options.json:
        document = {"versions": versions(), **results, "bounds": [bound.to_dict() for bound in bounds]}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    for verdict in ("not measured", "MISSED"):
        if options.check and (found := [bound.what for bound in bounds if bound.verdict == verdict]):
            print(f"\n{verdict}: {'; '.join(found)}", file=sys.stderr)
    if options.check and any(bound.verdict == "MISSED" for bound in bounds):
        raise SystemExit(1)
