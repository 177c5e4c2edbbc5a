"""Numbers 20, 34, 35, 36, 37, 38 and 41 of the field reports: queues, the virtual network, the plugin, the package."""

from __future__ import annotations

import array
import errno
import platform
import re
import runpy
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_connect
from tests.example_promises import broken_promises, promises
from tests.support.faults import own_host
from trio_connect import Endpoint, tcp_listen
from trio_connect.queues import Failed, IOQueue, Pushed, QueueSet, Succeeded, open_queue_set

LOOPBACK = ("127.0.0.1", 0)
NOBODY = ("192.0.2.1", 9)


def is_closed(queue: IOQueue) -> bool:
    return queue.state == "closed"


# --- 20 ---------------------------------------------------------------------------------------------------------------


class OwnError(Exception):
    pass


@pytest.mark.parametrize("first", ["cancel", "body"])
async def test_field_20_an_exception_of_the_body_comes_out_as_it_is_when_a_cancel_comes_too(first):
    """An exception out of `async with open_queue_set()` is never in a group for a cancel that came in the same pass."""
    with trio.CancelScope() as scope:
        with pytest.raises(OwnError) as caught:
            async with open_queue_set() as qs:
                queue = qs.stream()
                await queue.bind(LOOPBACK)
                await queue.listen(1)
                queue.accept()
                await trio.testing.wait_all_tasks_blocked()
                if first == "cancel":
                    scope.cancel()
                    raise OwnError
                try:
                    raise OwnError
                finally:
                    scope.cancel()
        assert type(caught.value) is OwnError
    assert queue.state == "closed"


async def test_field_20_an_own_group_stays_what_it_was():
    """A group that the body raised comes out as that very group."""
    group = ExceptionGroup("own", [OwnError(), ValueError()])
    with trio.CancelScope() as scope, pytest.raises(ExceptionGroup) as caught:
        async with open_queue_set() as qs:
            queue = qs.datagram()
            await queue.bind(LOOPBACK)
            queue.pop()
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            raise group
    assert caught.value is group


async def test_field_20_a_cancel_alone_is_a_cancel():
    """A cancel while operations are pending is no group either: `except trio.Cancelled` sees it."""
    seen: list[type[BaseException]] = []
    with trio.CancelScope() as scope:
        try:
            async with open_queue_set() as qs:
                queue = qs.datagram()
                await queue.bind(LOOPBACK)
                queue.pop()
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.sleep_forever()
        except BaseException as error:
            seen.append(type(error))
            raise
    assert scope.cancelled_caught
    assert seen == [trio.Cancelled]


# --- 34 ---------------------------------------------------------------------------------------------------------------


EMPTY: list[Any] = [b"", bytearray(), memoryview(b""), array.array("i")]


@pytest.mark.parametrize("nothing", EMPTY, ids=lambda value: type(value).__name__)
async def test_field_34_an_empty_datagram_is_legal(nothing):
    """`push_to(b"")` and `push(b"")` send an empty datagram; on a stream it is EINVAL."""
    async with open_queue_set() as qs:
        server, client = qs.datagram(), qs.datagram()
        address = await server.bind(LOOPBACK)
        assert isinstance(address, Endpoint)
        assert (await qs.wait(client.push_to(nothing, address))).value == Pushed(0)
        connected = qs.datagram()
        (await qs.wait(connected.connect(address))).unwrap()
        assert (await qs.wait(connected.push(nothing))).value == Pushed(0)
        for _ in range(2):
            popped = (await qs.wait(server.pop())).unwrap()
            assert (popped.data, popped.eof, popped.truncated) == (b"", False, False)
        with pytest.raises(OSError, match="nothing to send") as caught:
            qs.stream().push(nothing)
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("size", [1, 3, 65536])
async def test_field_34_a_truncated_datagram_is_told(size):
    """A datagram that is longer than the pop says so; one that fits exactly does not."""
    async with open_queue_set() as qs:
        server, client = qs.datagram(), qs.datagram()
        address = await server.bind(LOOPBACK)
        assert isinstance(address, Endpoint)
        for length in (min(size, 60_000), min(size, 60_000) + 1):
            await qs.wait(client.push_to(bytes(length), address))
            popped = (await qs.wait(server.pop(size))).unwrap()
            assert len(popped.data) == min(length, size)
            assert popped.truncated is (length > size)


async def test_field_34_a_close_never_fails_for_want_of_room():
    """With as many operations in flight as the set allows `close()` still is a token, which completes."""
    async with open_queue_set(max_in_flight=1) as qs:
        queue, other = qs.datagram(), qs.stream()
        await queue.bind(LOOPBACK)
        pop = queue.pop()
        with pytest.raises(OSError, match="not claimed") as caught:
            queue.pop()
        assert caught.value.errno == errno.EAGAIN
        closes = [queue.close(), other.close()]
        for close in closes:
            assert (await qs.wait(close)).ok
        assert (await qs.wait(pop)).errno == errno.ECANCELED
        assert is_closed(queue)
        assert is_closed(other)


async def unreachable(qs: QueueSet, **extra: Any) -> Any:
    # A port of 127.0.0.1 that is free again may be a listener's of another worker by then.
    async with await tcp_listen((own_host(), 0)) as listener:
        closed = listener.endpoint
    return closed, qs.stream().connect((closed.host, closed.port), **extra)


async def test_field_34_a_result_knows_its_target_and_the_data_of_the_caller():
    """`result.target` is what was submitted to, and `connect(ep, data=x)` carries x to `result.data`."""
    async with open_queue_set() as qs:
        data = object()
        closed, token = await unreachable(qs, data=data)
        result = await qs.wait(token)
        assert (result.target, token.target, result.errno) == (closed, closed, errno.ECONNREFUSED)
        assert result.data is token.data is data
        race = qs.connectx([(closed.host, closed.port)], data="race")
        assert race.target == (closed,)
        assert (await qs.wait(race)).data == "race"
        queue = qs.datagram()
        assert (await qs.wait(queue.push_to(b"x", closed))).target == closed
        pop = queue.pop()
        assert (pop.target, pop.data) == (None, None)

        async def one_by_one():
            yield closed

        assert (await qs.wait(qs.connectx(one_by_one()))).target == ()


async def test_field_34_a_result_is_one_of_two_kinds():
    """`result.error is None` says whether there is a value or an errno, at run time as for a type checker."""
    async with open_queue_set() as qs:
        _, token = await unreachable(qs)
        failed = await qs.wait(token)
        assert isinstance(failed, Failed)
        assert (failed.ok, failed.value, failed.op) == (False, None, "connect")
        assert "refused" in repr(failed)
        with pytest.raises(ConnectionRefusedError):
            failed.unwrap()
        good = await qs.wait(qs.stream().close())
        assert isinstance(good, Succeeded)
        assert (good.ok, good.error, good.errno, good.op) == (True, None, None, "close")
        assert "Closed()" in repr(good)


# --- 36 ---------------------------------------------------------------------------------------------------------------

pytest_plugins = ["pytester"]

IMPORTED = """
import sys

def loaded():
    return sorted(name for name in sys.modules if name.partition(".")[0] in ("trio", "attrs", "trio_connect"))

def test_without():
    assert loaded() == []

def test_with(vnet):
    assert "trio_connect.testing" in loaded()
    with vnet_run(vnet):
        pass

import contextlib

@contextlib.contextmanager
def vnet_run(vnet):
    import trio
    from trio.testing import MockClock
    trio.run(trio.lowlevel.checkpoint, clock=MockClock(), instruments=[vnet])
    yield
"""
NO_OTHERS = [
    word for name in ("trio", "anyio", "hypothesispytest", "xdist", "timeout") for word in ("-p", f"no:{name}")
]


def run_pytest(
    pytester: pytest.Pytester, code: str, *words: str, ini: str = "", fresh: bool = False
) -> pytest.RunResult:
    pytester.makeini(f"[pytest]\n{ini}\n")
    pytester.makepyfile(code)
    installed = any(entry.name == "trio_connect" for entry in entry_points(group="pytest11"))
    run = pytester.runpytest_subprocess if fresh else pytester.runpytest_inprocess
    return run(*([] if installed else ["-p", "pytest_trio_connect"]), *words)


@pytest.fixture
def ours_importable(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(trio_connect.__file__).parent.parent))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)


@pytest.mark.usefixtures("ours_importable")
def test_field_36_the_plugin_imports_nothing_before_vnet_is_asked_for(pytester):
    """A pytest run whose tests do not ask for `vnet` imports neither the library nor Trio."""
    run_pytest(pytester, IMPORTED, *NO_OTHERS, fresh=True).assert_outcomes(passed=2)


FAILS = """
import pytest
from trio.testing import MockClock
import trio_connect

{mark}

{backend}

async def test_x(vnet{clock}):
    vnet.host("192.0.2.1").refuse()
    await trio_connect.{call}
"""
CALLS = ['tcp_connect(("192.0.2.1", 7))', 'connectx([("192.0.2.1", 7)] * 3)', 'connect("192.0.2.1", 7)']
BACKEND = """
@pytest.fixture
def anyio_backend():
    return "trio", {"clock": MockClock(autojump_threshold=0)}
"""


@pytest.mark.usefixtures("ours_importable")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("runner", ["anyio", "pytest-trio"])
def test_field_36_a_failed_connect_shows_none_of_our_source(pytester, call, runner):
    """The report of a test in which a connect failed has the test's own lines and the text of the error."""
    anyio = runner == "anyio"
    code = FAILS.format(
        call=call,
        mark="pytestmark = pytest.mark.anyio" if anyio else "",
        backend=BACKEND if anyio else "",
        clock="" if anyio else ", autojump_clock",
    )
    result = run_pytest(pytester, code, "-p", "no:xdist", ini="" if anyio else "trio_mode = true")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "refused" in text
    assert "await trio_connect." in text
    # pytest-trio's failures are groups, which pytest prints as Python does: two lines a frame, and hides none.
    assert len(re.findall(r".*trio_connect/_.*", text)) <= (0 if anyio else 2)
    assert len(text.splitlines()) < 60
    if call == CALLS[0]:
        full = run_pytest(pytester, code, "-p", "no:xdist", "--full-trace", ini="" if anyio else "trio_mode = true")
        assert "trio_connect/_net" in full.stdout.str()


# --- 37 ---------------------------------------------------------------------------------------------------------------


async def test_field_37_queues_show_no_internals():
    """What `dir` shows of a queue, a token and a result is what the documentation shows."""
    async with open_queue_set() as qs:
        queue = qs.stream()
        result = await qs.wait(queue.close())
        shown = [public(value) for value in (queue, result.token, result)]
    assert shown == [
        {"state", "local", "peer", "bind", "listen", "accept", "connect", "push", "push_to", "pop", "close", "aclose"},
        {"id", "op", "queue", "submitted_at", "target", "data", "done", "cancel"},
        {"token", "op", "queue", "target", "data", "ok", "error", "errno", "value", "elapsed", "unwrap"},
    ]


def public(value: object) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


async def test_field_37_the_virtual_network_shows_no_internals(vnet, autojump_clock):
    """What `dir` shows of a virtual network, a host, a socket and the trace is what the documentation shows."""
    vnet.host("192.0.2.1").listen(7, trio_connect.testing.echo)
    stream = await trio.open_tcp_stream("192.0.2.1", 7)
    async with stream:
        assert public(vnet) - {"installed"} == {
            *("seed", "local", "trace", "failures", "host", "dns", "partition", "heal", "verify", "report", "active"),
            *("open_sockets", *public(trio.abc.Instrument)),
        }
        assert public(vnet.local) == {
            *("addresses", "name", "here", "listen", "silent", "refuse", "blackhole", "unreachable", "reset", "flap"),
            "recover",
        }
        # One is of Windows alone. The other is for TlsStream.is_dead, as docs/how-to/streams.md says.
        assert public(stream.socket) - {"share", "recv_nowait"} == public(trio.socket.SocketType) - {"share"}
        assert public(vnet.trace) == {
            *("events", "connections", "lookups", "unknown", "starts", "live_max", "waterfall", "canonical"),
        }
        assert public(vnet.trace.connections[0]) == {
            *("host", "port", "ordinal", "source", "started", "ended", "outcome", "closed", "sent", "received"),
        }


def test_field_37_streams_and_listeners_show_no_internals():
    """What only a race or a queue calls has a private name."""
    shown = {
        name
        for kind in (
            trio_connect.TcpStream,
            trio_connect.UnixStream,
            trio_connect.TcpListener,
            trio_connect.UnixListener,
        )
        for name in public(kind)
    }
    assert shown.isdisjoint({"set_report", "close_now", "own_path", "submit_race", "dispose"})
    assert "during" not in public(trio_connect.DeadlineExceeded)


def test_field_37_the_package_says_its_version():
    """`trio_connect.__version__` is what was installed."""
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", trio_connect.__version__)
    assert version("trio-connect") == trio_connect.__version__


def test_field_37_testing_is_an_attribute():
    """`import trio_connect` is enough for `trio_connect.testing`, which loads when it is first asked for."""
    code = "import sys, trio_connect; assert 'trio_connect.testing' not in sys.modules; trio_connect.testing.run"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    assert "testing" in dir(trio_connect)


# --- 38 ---------------------------------------------------------------------------------------------------------------


def test_field_38_the_readme_begins_with_what_everybody_wants(capsys):
    """Its first sentence says what it is for, then comes pip install, then ten lines around connect(), which work."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = text.split("\n\n")[1].replace("\n", " ")
    assert first.startswith("trio-connect opens connections for [Trio]")
    codes = [block for block in re.findall(r"```(\w+)[^\n]*\n(.*?)```", text, flags=re.DOTALL) if block[0] != "text"]
    assert codes[0][0] == "sh"
    assert codes[0][1].startswith("pip install")
    language, code = codes[1]
    assert language == "python"
    assert len([line for line in code.splitlines() if line.strip()]) == 10
    assert 'connect("example.org", 443, deadline)' in code

    async def on_the_network(net: trio_connect.testing.VirtualNetwork) -> None:
        net.dns("example.org", ["2001:db8::1", "192.0.2.1"])
        net.host("2001:db8::1").blackhole()
        net.host("192.0.2.1").listen(443, trio_connect.testing.echo, rtt=0.02)
        names: dict[str, Any] = {"__name__": "readme"}
        exec(compile(code.replace("trio.run(main)", ""), "README.md", "exec"), names)
        await names["main"]()

    trio_connect.testing.run(on_the_network)
    said = capsys.readouterr().out
    assert "connected to 192.0.2.1:443 in 270 ms" in said


def test_field_38_a_real_protocol_is_among_the_examples(tmp_path):
    """The Redis example also runs where there is no redis-server, against a faithful script of it."""
    path = ROOT / "examples" / "redis_client.py"
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(path)],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert broken_promises(promises(path.read_text(encoding="utf-8")), result.stdout) == []


# --- 41 ---------------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parent.parent.parent


def fake_python(folder: Path, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{says}\n")
    path.chmod(0o755)
    return path


def test_field_41_every_supported_python_of_the_machine_is_found(tmp_path):
    """`.ci/run` asks this list: PATH, pyenv and uv are looked through; a name without an interpreter does not count."""
    managed = fake_python(tmp_path / "pyenv" / "versions" / "3.13.4" / "bin", "echo 3.13.4")
    fake_python(tmp_path / "pyenv" / "versions" / "3.13.12" / "bin", "exit 127")
    uv = fake_python(tmp_path / "uv" / "cpython-3.14.0-linux-x86_64-gnu" / "bin", "echo 3.14.0")
    shim = fake_python(tmp_path / "bin", "echo pyenv: python3.12: command not found; exit 127")
    shim.rename(shim.with_name("python3.12"))
    environment = {
        "PATH": str(tmp_path / "bin"),
        "HOME": str(tmp_path),
        "PYENV_ROOT": str(tmp_path / "pyenv"),
        "UV_PYTHON_INSTALL_DIR": str(tmp_path / "uv"),
    }
    command = [sys.executable, str(ROOT / "tools" / "pythons.py")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    found = dict(line.split(" ", 1) for line in result.stdout.splitlines())
    versions = [".".join(release.split(".")[:2]) for release in found]
    assert list(dict.fromkeys(versions)) == ["3.11", "3.12", "3.13", "3.14"]
    expected = {platform.python_version(): sys.executable}
    expected |= {"3.13.4": str(managed)} if sys.version_info[:2] != (3, 13) else {}
    expected |= {"3.14.0": str(uv)} if sys.version_info[:2] != (3, 14) else {}
    assert {release: found[release] for release in expected} == expected
    assert str(shim.with_name("python3.12")) not in found.values()


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13", "3.14"])
def test_field_41_the_python_of_the_distribution_is_one_of_them(version):
    """It may be an older release of a version that is there already, and behave in another way."""
    distributions = Path(f"/usr/bin/python{version}")
    tool = runpy.run_path(str(ROOT / "tools" / "pythons.py"))
    its_release = tool["release"](str(distributions))
    assert (its_release is not None) == distributions.exists()
    assert its_release is None or its_release in tool["find"](version)


def test_field_41_ci_runs_the_suite_on_each_of_them():
    """Each other Python gets `make test` in an environment of its own, and one that is not there is named."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'part "make test on Python $version" test "PYTHON=$path" "VENV=.venv-$version"' in script
    assert 'not_run "make test on Python $version: this machine has none"' in script
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True, timeout=30)
