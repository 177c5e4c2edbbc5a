"""Many targets: bounded, in the order of the file, each address a series of its own."""

from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
import trio

from tests.support import LONG, faults
from tests.support.sweep import AFTER, Step, sweep
from trio_connect.cli import main as command
from trio_connect.cli.check import Check, CheckFormat, check, read_targets
from trio_connect.cli.outcome import ExitCode
from trio_connect.cli.probe import Job, run
from trio_connect.cli.settings import Target
from trio_connect.testing import echo


def test_a_file_of_targets():
    assert read_targets(["# all\n", "\n", "a.test:80 # web\n", "[2001:db8::1]:443\n", "a.test:80\n"]) == (
        Target("a.test", 80),
        Target("2001:db8::1", 443),
    )
    with pytest.raises(ValueError, match="line 2: a port is 1 to 65535, got 'x'"):
        read_targets(["a.test\n", "b.test:x\n"])


async def checked(
    targets: list[Target], format: CheckFormat, at_once: int = 100, progress: Any = None
) -> tuple[ExitCode, str]:
    out = io.StringIO()
    settings = command._settings(command._parser().parse_args(["check", "-"]))
    job = Check(targets=tuple(targets), settings=settings, at_once=at_once, format=format, out=out, progress=progress)
    code = await check(job)
    return code, out.getvalue()


def describe(net: Any) -> list[Target]:
    net.dns("half.test", ["2001:db8::1", "192.0.2.1"])
    net.dns("gone.test")
    net.host("2001:db8::1").blackhole()
    net.host("192.0.2.1", rtt=0.020).listen(80, echo)
    return [Target("half.test", 80), Target("192.0.2.1", 80), Target("gone.test", 80)]


async def test_both_families_of_one_name_are_two_series(vnet, autojump_clock):
    code, out = await checked(describe(vnet), "prometheus")
    assert code == 28
    lines = out.splitlines()
    for line in (
        "# TYPE probe_success gauge",
        'probe_success{target="half.test:80",family="ipv6",address="2001:db8::1"} 0',
        'probe_success{target="half.test:80",family="ipv4",address="192.0.2.1"} 1',
        'probe_duration_seconds{target="half.test:80",family="ipv6",address="2001:db8::1"} 10.000000',
        'probe_duration_seconds{target="half.test:80",family="ipv4",address="192.0.2.1"} 0.020000',
        'probe_ip_protocol{target="192.0.2.1:80",family="ipv4",address="192.0.2.1"} 4',
        'probe_success{target="gone.test:80",family="",address=""} 0',
    ):
        assert lines.count(line) == 1, out
    # A metric's samples stand together, below its own help.
    names = [line.split("{")[0] for line in lines if not line.startswith("#")]
    assert names == sorted(names, key=names.index)


async def test_a_table_in_the_order_of_the_file(vnet, autojump_clock):
    code, out = await checked(describe(vnet), "text")
    assert (code, out.splitlines()) == (
        28,
        [
            " 28  half.test:80  IPv4 works in 20 ms; the IPv6 address is silent",
            " ok  192.0.2.1:80  IPv4 works in 20 ms",
            "  6  gone.test:80  there is no name gone.test",
        ],
    )


async def test_a_thousand_targets_so_many_at_a_time(vnet, autojump_clock):
    many = 1000 if LONG else 300
    targets = [Target(f"2001:db8::1:{number:x}", 80) for number in range(many)]
    for target in targets:
        vnet.host(target.host, rtt=0.020).listen(80, echo)
    code, out = await checked(targets, "text", at_once=50)
    assert code == 0
    assert len(out.splitlines()) == many
    starts = sorted(vnet.trace.starts.values())
    # Fifty begin at once, and each fifty waits for the one before.
    assert [round(starts[n], 3) for n in (0, 49, 50, many - 1)] == [0.0, 0.0, 0.02, round(many / 50 * 0.02 - 0.02, 3)]


async def test_an_interrupt_gives_what_is_known(vnet, autojump_clock, capsys):
    async def interrupt() -> None:
        await trio.sleep(1.0)
        signal.raise_signal(signal.SIGINT)

    targets = describe(vnet)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(interrupt)
        code, out = await checked(targets, "text")
    assert (code, out.splitlines()) == (
        130, [" ok  192.0.2.1:80  IPv4 works in 20 ms", "  6  gone.test:80  there is no name gone.test"]
    )  # fmt: skip
    assert capsys.readouterr().err == "interrupted: 2 of 3 targets were checked\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("rich", [True, False])
async def test_how_many_are_done_is_shown_and_wiped_away(vnet, autojump_clock, monkeypatch, rich):
    if rich:
        pytest.importorskip("rich", reason="NOT RUN: the bar needs rich")
    else:
        monkeypatch.setitem(sys.modules, "rich.progress", None)
    monkeypatch.setenv("TERM", "xterm")
    progress = Terminal()
    await checked(describe(vnet), "text", progress=progress)
    said = progress.getvalue()
    assert all(f"{number}/3" in said if rich else f"{number} of 3" in said for number in (1, 2, 3))
    assert said.endswith("\x1b[2K" if rich else "\r")


def test_as_a_process(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        place = f"127.0.0.1:{sock.getsockname()[1]}"
        line = [sys.executable, "-X", "dev", "-W", "error", "-m", "trio_connect", "check"]
        done = subprocess.run([*line, "-"], input=f"{place}\n", capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f" ok  {place}  IPv4 works in ")
        done = subprocess.run([*line, str(tmp_path / "no")], capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert "cannot read" in done.stderr


# --- cancel at every step ---------------------------------------------------------------------------------------------


async def test_a_check_cancelled_at_any_step_leaves_nothing():
    before = signal.getsignal(signal.SIGINT)
    shown = io.StringIO()

    async def operation(peer: faults.Peer) -> None:
        with faults.refusing() as closed:
            targets = [Target(*peer.address.pair), Target(*closed.pair)]
            await checked(targets, "text", progress=shown)

    async def check_signals(_peer: faults.Peer, step: Step) -> None:
        assert signal.getsignal(signal.SIGINT) is before, step

    await sweep(operation, environment=faults.echoing, modes=AFTER, check=check_signals, inside=False)


@pytest.mark.parametrize("each", [False, True])
async def test_a_probe_cancelled_at_any_step_leaves_nothing(each):
    async def operation(peer: faults.Peer) -> None:
        words = ["probe", f"{peer.address.host}:{peer.address.port}", *(["--each"] if each else [])]
        parsed = command._parser().parse_args(words)
        job = Job(
            targets=tuple(parsed.targets), settings=command._settings(parsed), out=io.StringIO(), progress=io.StringIO()
        )
        await run(job)

    await sweep(operation, environment=faults.echoing, modes=AFTER, inside=False)
