"""The command as a process: exit codes, what goes to which stream, files, pipes, Ctrl-C, terminals, pictures."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.conftest import DOCUMENT
from tests.support import faults
from tests.support.pace import least
from trio_connect import Attempt, ConnectReport, Endpoint
from trio_connect.cli.interrupt import interruptible
from trio_connect.cli.main import main
from trio_connect.cli.outcome import ExitCode
from trio_connect.cli.probe import Job

COMMAND = [sys.executable, "-m", "trio_connect"]


@pytest.fixture
def listener() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def closed() -> Any:
    with faults.refusing() as address:
        yield f"{address.host}:{address.port}"


@pytest.fixture
def deaf() -> Any:
    """A place that drops every SYN: its backlog is full."""
    with faults.black_hole() as nowhere:
        yield f"{nowhere.host}:{nowhere.port}"


def test_a_connection(shell, listener):
    done = shell("probe", listener)
    assert (done.returncode, done.stderr) == (0, "")
    assert "won after" in done.stdout
    assert re.search(r"^IPv4 works in [\d.]+ m?s: nothing is wrong\.$", done.stdout, re.MULTILINE)
    assert "\x1b" not in done.stdout


@pytest.fixture
def here(capsys) -> Any:
    """Run the command in this process, as `shell` does in one of its own."""

    def here(*words: str) -> subprocess.CompletedProcess[str]:
        code: Any
        try:
            code = main(words)
        except SystemExit as left:
            code = left.code
        return subprocess.CompletedProcess(words, code, *capsys.readouterr())

    return here


# A process for each way to end, its own function call for what only differs in what is wrong.
@pytest.mark.parametrize(("way", "words", "code"), [
    ("shell", ["probe", "{listener}", "{closed}"], 7),
    ("shell", ["probe", "{listener}", "--tls", "--deadline", "0.2"], 28),
    ("shell", ["probe", "{listener}", "-o", "/dev/full"], 23),
    ("shell", [], 2),
    *(("here", words, code) for words, code in [
        (["probe", "{closed}"], 7),
        (["probe", "{deaf}", "--deadline", "0.2"], 28),
        (["probe", "{closed}", "{deaf}", "--deadline", "0.2"], 7),
        (["probe", "{closed}", "--each"], 7),
        (["probe", "name.test:80", "--resolve", "name.test:80:127.0.0.1", "--connect-to", "name.test::{closed}"], 7),
        (["probe", "{listener}", "-o", "/nowhere/at/all"], 23),
        (["probe", "{listener}", "--proxy", "socks6://h"], 2),
        (["probe", "{listener}", "--format", "svg", "-n", "2"], 2),
        (["probe", "host:0"], 2),
        (["probe", "h", "--each", "--proxy", "socks5h://127.0.0.1:1"], 2),
        (["probe", "h", "--interface", "a/b"], 2),
    ]),
])  # fmt: skip
def test_exit_codes(shell, here, listener, closed, deaf, way, words, code):
    words = [word.format(listener=listener, closed=closed, deaf=deaf) for word in words]
    done = (shell if way == "shell" else here)(*words)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert (done.stdout == "") == (code in (2, 23))
    assert (done.stderr != "") == (code in (2, 23))


def test_a_name_that_is_not_there(shell):
    done = shell("probe", "name.test:80", "--connect-to", "::name.invalid:")
    assert done.returncode in (6, 28)  # 28 where this machine's resolver is silent
    assert done.stderr == ""


def test_json_is_one_document_and_a_file_has_all_of_it(shell, listener, closed, tmp_path):
    path = tmp_path / "result.json"
    done = shell("probe", listener, closed, "-n", "3", "--interval", "0.01", "--format", "json", "-o", str(path))
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")
    data = json.loads(path.read_text())
    DOCUMENT.validate(data)
    good, bad = data["targets"]
    assert [len(good["rounds"]), good["summary"]["succeeded"], bad["summary"]["succeeded"]] == [3, 3, 0]
    assert good["summary"]["addresses"][0]["outcomes"] == {"won": 3}
    assert good["summary"]["connect"]["min_us"] <= good["summary"]["connect"]["p50_us"]
    assert bad["summary"]["connect"] is None


def test_rounds_in_words(shell, listener):
    done = shell("probe", listener, "-n", "2", "--interval", "0.01")
    assert "2 of 2 succeeded (100.0 %)" in done.stdout
    assert f"{listener}  2 won, mean " in done.stdout


def sockets_of(pid: int) -> set[str]:
    found = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="that a SYN is out is seen in Linux's /proc")
@pytest.mark.parametrize("format", ["text", "json", "jsonl", "svg"])
def test_ctrl_c_gives_what_is_known(deaf, format):
    process = subprocess.Popen(
        [*COMMAND, "probe", deaf, "--format", format], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    deadline = time.monotonic() + 20
    # The signal is sent when the SYN is out, which /proc/net/tcp shows as a socket in SYN_SENT.
    port = f"{int(deaf.rpartition(':')[2]):04X}"
    while time.monotonic() < deadline:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        waiting = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(port) and row[3] == "02"}
        if waiting & sockets_of(process.pid):
            break
        select.select([process.stdout], [], [], 0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")
    if format == "json":
        data = json.loads(out)
        DOCUMENT.validate(data)
        assert data["targets"][0]["rounds"][0]["report"]["attempts"][0]["outcome"] == "cancelled"
    elif format == "jsonl":
        assert json.loads(out.splitlines()[-1])["advice"].startswith("interrupted")
    elif format == "svg":
        assert out.endswith("</svg>\n")
    else:
        assert "interrupted before its end" in " ".join(out.split())


def test_a_second_ctrl_c_ends_a_command_that_does_not_end_by_the_first(monkeypatch):
    async def stuck(job: Job) -> ExitCode:
        async with trio.open_nursery() as nursery:
            with interruptible() as interrupt, trio.CancelScope(shield=True):
                nursery.start_soon(trio.sleep_forever)
                signal.raise_signal(signal.SIGINT)
                while not interrupt.happened:  # Trio's loop has to take it up
                    await trio.lowlevel.checkpoint()
                signal.raise_signal(signal.SIGINT)
                await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr("trio_connect.cli.probe.run", stuck)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["probe", "192.0.2.1:80"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "raised",
    [
        ZeroDivisionError("a bug"),
        ExceptionGroup("of a nursery", [ValueError("no host"), ZeroDivisionError("a bug")]),
        BaseExceptionGroup("of a nursery", [KeyboardInterrupt(), ZeroDivisionError("a bug")]),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_bug_is_taken_neither_for_a_usage_error_nor_for_an_interrupt(raised, monkeypatch):
    async def broken(_job: Job) -> ExitCode:
        raise raised

    monkeypatch.setattr("trio_connect.cli.probe.run", broken)
    with pytest.raises(type(raised)) as caught:
        main(["probe", "192.0.2.1:80"])
    assert caught.value is raised


def in_a_shell(words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a line of a shell, in which `$command` is the command."""
    environment = {**os.environ, "command": shlex.join(COMMAND)}
    return subprocess.run(
        ["bash", "-c", words], check=False, env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(("words", "code", "error"), [
    ("$command probe {closed} >&-", 23, "cannot write the result: stdout is closed"),
    ("$command probe {closed} --format json 2>&-", 7, ""),
    ("$command check - <&-", 2, "cannot read -: stdin is closed"),
    ("$command probe {closed} -o ''", 23, "cannot write '': "),
])  # fmt: skip
def test_a_stream_that_is_closed(closed, words, code, error):
    done = in_a_shell(words.format(closed=closed))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert error in done.stderr
    assert (done.stdout == "") == (code == 23 or bool(error))
    if done.stdout:
        assert json.loads(done.stdout)["exit_code"] == code


def test_without_a_descriptor_for_trio_it_says_that_it_cannot_begin():
    # What Python and Trio need for their imports is not of interest, so it is there before the limit is.
    program = (
        "import resource, sys; from trio_connect.cli.main import main; import trio_connect.cli.probe\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4)); sys.exit(main(['probe', '192.0.2.1:9']))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr == "trio-connect: cannot begin: Too many open files\n"


def test_what_the_encoding_of_stdout_does_not_have_is_spelt():
    words = (
        "PYTHONIOENCODING=ascii $command probe --deadline 1 --resolve bücher.test:1:127.0.0.1 bücher.test:1 --format "
    )
    done = in_a_shell(words + "text")
    assert (done.returncode, done.stderr) == (7, "")
    assert "b\\xfccher.test:1" in done.stdout
    done = in_a_shell(words + "svg")
    assert (done.returncode, done.stderr) == (7, "")
    assert "b&#252;cher.test:1" in done.stdout


UNBUFFERED = pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
"""Values of PYTHONUNBUFFERED, which containers and services often set: without it, what cannot be written is kept."""


@UNBUFFERED
def test_a_stdout_without_room(listener, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    done = in_a_shell(f"$command probe {listener} >/dev/full")
    said = "trio-connect: cannot write the result: No space left on device\n"
    assert (done.returncode, done.stderr) == (23, said)


@UNBUFFERED
def test_a_reader_that_goes_away(listener, unbuffered, monkeypatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    for _ in range(3):
        process = subprocess.Popen(
            [*COMMAND, "probe", listener, "--format", "json", "-n", "3", "--interval", "0.05"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        with process.stderr:
            assert process.stderr.read() == ""
        assert process.wait(20) == 23


def screen(words: list[str], columns: int, **environment: str) -> str:
    """What the command shows on a terminal, stderr included."""
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    inherited = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS")}
    env = {**inherited, "TERM": "xterm", **environment}
    process = subprocess.Popen([*COMMAND, *words], stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    seen = b""
    while select.select([master], [], [], 20)[0]:
        try:
            seen += os.read(master, 65536)
        except OSError:  # EIO: the last who had the terminal open is gone
            break
    os.close(master)
    process.wait(20)
    return seen.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.parametrize(
    ("columns", "colour"),
    [
        pytest.param(80, True, id="80-colour"),
        pytest.param(200, False, id="200-NO_COLOR"),
        pytest.param(200, True, id="200-colour", marks=pytest.mark.slow),
        pytest.param(80, False, id="80-NO_COLOR", marks=pytest.mark.slow),
    ],
)
def test_a_terminal(listener, closed, tmp_path, columns, colour):
    place = f"name.test:{listener.rpartition(':')[2]}"
    words = ["probe", place, "--resolve", f"{place}:127.0.0.1,127.0.0.2"]
    seen = screen(words, columns, **({} if colour else {"NO_COLOR": "1"}))
    assert ("\x1b[32m" in seen) == colour
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen).replace("\r", "")
    lines = text.strip().splitlines()
    assert max(map(len, lines)) <= columns
    assert lines[0] == f"{place}: a race, 2 addresses"
    (row,) = [line for line in lines if "won after" in line]
    assert row.split()[0] == listener
    assert re.search(r"=*\*  at +[\d.]+ ms: won after [\d.]+ ms$", row)
    assert f"connected to {listener} in " in text
    assert " ".join(text.split()).endswith("nothing is wrong.")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.parametrize("columns", [80, 200])
def test_what_goes_on_is_drawn_on_a_terminal_and_wiped_away(deaf, columns):
    seen = screen(["probe", deaf, "--deadline", "0.7"], columns)
    assert "connecting after" in seen
    assert "\x1b[2K" in seen  # lines that are erased
    assert seen.count("is silent") == 1


def browser() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def test_a_picture_in_a_browser(tmp_path):
    program = browser()
    if program is None:
        pytest.skip("NO BROWSER: install chromium to see that pictures are drawn as the report says")
    attempts = [
        Attempt(endpoint=Endpoint("2001:db8::1", 443), started=0.0, ended=0.3, outcome="failed", errno=111,
                reason='refused <b>&"', cause="first"),
        Attempt(endpoint=Endpoint("192.0.2.1", 443), started=0.25, ended=0.31, outcome="won", cause="delay"),
        Attempt(endpoint=Endpoint("192.0.2.2", 443), outcome="not tried"),
    ]  # fmt: skip
    report = ConnectReport(attempts=tuple(attempts), elapsed=0.31)
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{report.draw_svg(title='host.test:443')}</body>")
    done = subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom",
         page.as_uri()],
        capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", done.stdout)
    assert texts[0] == "host.test:443"
    assert texts[-1] == "connected to 192.0.2.1:443 in 310 ms, 1 other attempt"
    # Label and words of each row, as in the text.
    rows = ["[2001:db8::1]:443", 'at 0 ms: refused &lt;b&gt;&amp;" after 300 ms', "192.0.2.1:443",
            "at 250 ms: won after 60 ms", "192.0.2.2:443", "not tried"]  # fmt: skip
    assert [text for text in texts if text in rows] == rows
    assert done.stdout.count("<title>") == 3
    assert "script" not in done.stdout
    assert "<circle" in done.stdout
    assert 'd="M-5 -5L5 5M-5 5L5 -5"' in done.stdout


def test_help_and_version(capsys):
    for words in (["--help"], ["probe", "--help"], ["--version"]):
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 0
    assert "exit codes, as curl has them" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", [["exa mple"], ["a..b", "--each"], ["[fe80::1%]:80"]])
def test_a_target_that_no_host_can_have_is_a_usage_error(words, capsys):
    assert main(["probe", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"trio-connect: .* host .*\n", said.err)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["probe", "192.0.2.1", "--format", "prometheus"], "prometheus is a format of: trio-connect check"),
        (["check", "-", "--format", "json"], "json is a format of: trio-connect probe --each"),
        (["probe", "192.0.2.1", "--format", "xml"], "invalid choice: 'xml' (choose from"),
    ],
)
def test_a_format_of_the_other_command_is_a_usage_error_that_names_it(words, text, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("names", ["", "h2,,http/1.1", "h2,", "x" * 256, "h\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_protocols_that_tls_cannot_offer_are_a_usage_error(names, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["probe", "192.0.2.1", "--alpn", names])
    assert caught.value.code == 2
    assert "--alpn: a protocol has a name of 1 to 255 ASCII characters" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["probe", "probe --each", "check"])
def test_a_proxy_without_its_extra_is_a_usage_error(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "python_socks.async_.trio.v2", None)
    name, *words = command.split()
    target = "192.0.2.1:80"
    if name == "check":
        (tmp_path / "targets").write_text(f"{target}\n")
        target = str(tmp_path / "targets")
    assert main([name, target, *words, "--proxy", "socks5://192.0.2.2:1080"]) == 2
    assert capsys.readouterr().err == "trio-connect: a proxy needs python-socks: pip install 'trio-connect[socks]'\n"


@pytest.mark.alone
def test_little_is_spent_before_the_first_packet(listener):
    """At most 150 ms of processor time on top of `import trio`; the least of five, in processes of their own."""
    script = (
        f"import sys; sys.path.append({str(Path(__file__).parents[2])!r})\n"
        "import trio; from tests.support.pace import PacedClock, running_tasks\n"
        "clock = PacedClock(slowness=running_tasks)  # most of it is imports\n"
        "import trio_connect.cli.main as m; import trio_connect.cli.probe as p; real = p.Recorder.observer\n"
        "def observer(self, shift=0):\n"
        "    inner = real(self, shift)\n"
        "    def hear(event):\n"
        "        if type(event).__name__ == 'AttemptStarted':\n"
        "            clock.lap(); print(clock.seconds, file=sys.stderr)\n"
        "        inner(event)\n"
        "    return hear\n"
        "p.Recorder.observer = observer\n"
        f"m.main(['probe', '{listener}'])"
    )

    def spent() -> float:
        return float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stderr)

    bound = 0.150
    assert least(spent, bound=bound, attempts=5) <= bound
