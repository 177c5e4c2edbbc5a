"""The pytest plugin, by running pytest on small test files under each of the runners that people use."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import textwrap
import tomllib
from importlib.metadata import entry_points

import attrs
import pytest

import trio_connect

pytest_plugins = ["pytester"]

# In a tree that was never installed nobody else names the plugin, and naming it twice is an error.
INSTALLED = any(entry.name == "trio_connect" for entry in entry_points(group="pytest11"))
SOURCE = pathlib.Path(trio_connect.__file__).parent.parent
LOADED = [] if INSTALLED else ["-p", "pytest_trio_connect"]

HEADER = """
import pytest
import trio
from trio_connect.testing import VirtualNetworkError, UnknownHost, VirtualNetwork, echo

A = "192.0.2.1"
"""

ANYIO = """
import anyio
from trio.testing import MockClock

pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "trio", {"clock": MockClock(autojump_threshold=0)}
"""


@attrs.frozen
class Runner:
    pytester: pytest.Pytester

    def __call__(
        self, code: str, *arguments: str, mode: str = "trio_mode = true", fresh: bool = False
    ) -> pytest.RunResult:
        """Run pytest on a file with this code: in this process, or in a fresh one, which takes a second."""
        self.pytester.makeini(f"[pytest]\n{mode}\nfilterwarnings = error\n")
        self.pytester.makepyfile(HEADER + textwrap.dedent(code))
        if fresh:
            return self.pytester.runpytest_subprocess(*LOADED, *arguments)
        return self.pytester.runpytest_inprocess(*LOADED, *arguments)


@pytest.fixture
def run_pytest(pytester, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SOURCE))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return Runner(pytester)


# --- under pytest-trio ------------------------------------------------------------------------------------------------


def test_passes_and_is_silent(run_pytest):
    result = run_pytest("""
        async def test_x(vnet, autojump_clock):
            vnet.host(A).listen(80, echo, rtt=0.04)
            async with await trio.open_tcp_stream(A, 80) as stream:
                assert trio.current_time() == 0.04
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"

        class TestIt:
            @pytest.mark.parametrize("rtt", [0.1, 0.2])
            async def test_x(self, vnet, autojump_clock, rtt):
                vnet.host(A).listen(80, echo, rtt=rtt)
                async with await trio.open_tcp_stream(A, 80):
                    assert trio.current_time() == rtt
    """)
    result.assert_outcomes(passed=3)
    result.stdout.no_fnmatch_line("*vnet*")


def test_a_marked_test_needs_no_trio_mode(run_pytest):
    result = run_pytest(
        """
        @pytest.mark.trio
        async def test_x(vnet, autojump_clock):
            vnet.host(A).refuse(after=0.1)
            with pytest.raises(OSError):
                await trio.open_tcp_stream(A, 80)
            assert trio.current_time() == 0.1
        """,
        mode="",
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("touch", "named"),
    [
        ("trio.open_tcp_stream('nowhere.test', 80)", "unknown host nowhere.test: *dns('nowhere.test'*"),
        ("trio.open_tcp_stream('198.51.100.7', 80)", "unknown host 198.51.100.7: *host('198.51.100.7')*"),
        ("trio.socket.getaddrinfo('nowhere.test', 80)", "unknown host nowhere.test*"),
    ],
)
def test_an_unknown_host_that_the_program_swallows_fails_the_test(run_pytest, touch, named):
    result = run_pytest(f"""
        async def test_x(vnet, autojump_clock):
            try:
                await {touch}
            except OSError:
                pytest.fail("a program that retries on OSError must not see it")
            except Exception:
                pass
    """)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_x*", f"*UnknownHost: {named}", "*virtual network*"])


def test_an_unknown_host_that_the_program_lets_through_fails_it_once(run_pytest):
    result = run_pytest("""
        async def test_x(vnet, autojump_clock):
            await trio.open_tcp_stream("nowhere.test", 80)

        async def test_dressed(vnet, autojump_clock):
            try:
                await trio.open_tcp_stream("nowhere.test", 80)
            except UnknownHost as error:
                raise ValueError("no service") from error

        async def test_replaced(vnet, autojump_clock):
            try:
                await trio.open_tcp_stream("nowhere.test", 80)
            except UnknownHost:
                raise ValueError("no service")
    """)
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(["*UnknownHost: unknown host nowhere.test*"])
    result.stdout.no_fnmatch_line("*recorded by the network*")


def test_a_failure_shows_the_waterfall_and_the_seed(run_pytest):
    result = run_pytest(
        """
        async def test_x(vnet, autojump_clock):
            vnet.dns("api.test", ["2001:db8::1", A])
            vnet.host("2001:db8::1").blackhole()
            vnet.host(A).listen(443, echo, rtt=0.04)
            await trio.open_tcp_stream("api.test", 443)
            raise ValueError("the program's own trouble")
        """,
        "--vnet-seed=17",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "vnet: --vnet-seed=17",
            "*ValueError: the program's own trouble*",
            "*- virtual network -*",
            "virtual network, seed 17",
            "[[]2001:db8::1[]]:443 *=====*",
            "192.0.2.1:443 * ====[*] *connected*",
            "replay it with --vnet-seed=17",
        ]
    )


def test_a_failure_without_vnet_has_no_such_section(run_pytest):
    result = run_pytest("def test_x(): assert False")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*virtual network*")


def test_a_failing_setup_shows_it_too(run_pytest):
    result = run_pytest("""
        @pytest.fixture
        def broken(vnet):
            raise ValueError("no")

        def test_x(broken):
            pass
    """)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["virtual network, seed 0"])


def test_a_real_clock_fails_the_test_even_if_nothing_was_touched(run_pytest):
    result = run_pytest("""
        async def test_untouched(vnet):
            pass

        async def test_swallowed(vnet):
            for _ in range(2):
                with pytest.raises(BaseException):
                    await trio.open_tcp_stream(A, 80)
                with pytest.raises(BaseException):
                    await trio.socket.getaddrinfo("api.test", 80)

        async def test_raised(vnet):
            await trio.socket.getaddrinfo("api.test", 80)
    """)
    result.assert_outcomes(passed=2, errors=2, failed=1)
    result.stdout.fnmatch_lines(["*NotVirtualTime: a virtual network needs trio.testing.MockClock*autojump_clock*"])


def test_what_a_handler_raises_fails_the_test(run_pytest):
    result = run_pytest("""
        async def pedant(stream):
            assert await stream.receive_some() == b"EHLO"

        async def test_unnoticed(vnet, autojump_clock):
            vnet.host(A).listen(25, pedant)
            async with await trio.open_tcp_stream(A, 25) as stream:
                await stream.send_all(b"HELO")
                await stream.receive_some()

        async def test_noticed(vnet, autojump_clock):
            vnet.host(A).listen(25, pedant)
            async with await trio.open_tcp_stream(A, 25) as stream:
                await stream.send_all(b"HELO")
                assert await stream.receive_some() == b"250"
    """)
    result.assert_outcomes(passed=1, errors=1, failed=1)
    output = result.stdout.str()
    # Noticed only as an end that came too early: the report has the reason.
    assert "assert b'' == b'250'" in output
    assert "recorded by the network:\nTraceback" in output
    assert output.count("AssertionError: assert b'HELO' == b'EHLO'") >= 2
    assert "raised by the handler of 192.0.2.1 port 25" in output


def test_xfail_and_skip_are_left_alone(run_pytest):
    result = run_pytest("""
        @pytest.mark.xfail
        async def test_expected(vnet, autojump_clock):
            await trio.open_tcp_stream("nowhere.test", 80)

        async def test_skipped(vnet, autojump_clock):
            pytest.skip("not today")
    """)
    result.assert_outcomes(xfailed=1, skipped=1)


def test_async_fixtures_are_on_the_network_too(run_pytest):
    """pytest-trio runs them before the test, and only knows instruments that the test function itself names."""
    result = run_pytest("""
        @pytest.fixture
        def server(vnet):
            return vnet.host(A).listen(80, echo, rtt=0.04)

        @pytest.fixture
        async def connection(server, nursery):
            async with await trio.open_tcp_stream(A, 80) as stream:
                yield stream

        async def test_unnamed(connection, autojump_clock):
            await connection.send_all(b"x")
            assert await connection.receive_some() == b"x"
            assert trio.current_time() == 0.08

        async def test_named(connection, vnet, autojump_clock, caplog):
            assert vnet.active
            assert vnet.trace.starts == {A: 0.0}
            assert not caplog.records  # Trio logs what an instrument raises, such as when it is given twice

        @pytest.mark.usefixtures("vnet")
        async def test_used(autojump_clock):
            with pytest.raises(BaseExceptionGroup) as caught:
                await trio.open_tcp_stream("192.0.2.99", 80)
            assert caught.group_contains(UnknownHost)
    """)
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_used*"])


def test_each_test_has_a_network_of_its_own(run_pytest):
    result = run_pytest("""
        async def test_one(vnet, autojump_clock):
            vnet.dns("api.test", [A])

        async def test_two(vnet, autojump_clock):
            with pytest.raises(UnknownHost):
                await trio.socket.getaddrinfo("api.test", 80)
            vnet.failures.clear()
    """)
    result.assert_outcomes(passed=2)


def test_a_second_try_has_a_new_network(run_pytest):
    """As plugins that rerun failed tests make it."""
    run_pytest.pytester.makeconftest("""
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            for _ in range(2):
                item._initrequest()
                runtestprotocol(item, nextitem=nextitem)
            return True
    """)
    result = run_pytest("""
        networks = []

        async def test_x(vnet, autojump_clock):
            assert vnet.active
            assert vnet not in networks
            networks.append(vnet)
            assert len(networks) == 2, "the first try fails"
    """)
    result.assert_outcomes(failed=1, passed=1)


# --- seeds ------------------------------------------------------------------------------------------------------------

JITTER = """
async def test_x(vnet, autojump_clock):
    vnet.host(A).listen(80, echo, rtt=0.04, jitter=0.1)
    await trio.open_tcp_stream(A, 80)
    print("seed", vnet.seed, "took", trio.current_time())
"""


def printed(result: pytest.RunResult) -> str:
    (line,) = re.findall(r"seed \d+ took \S+", result.stdout.str())
    return str(line)


def test_a_seed_replays(run_pytest):
    drawn = [printed(run_pytest(JITTER, "-s", "-q", f"--vnet-seed={seed}")) for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert drawn[0].startswith("seed 1 took 0.")


def test_a_random_seed_is_said(run_pytest):
    result = run_pytest(JITTER, "-s", "--vnet-seed=random")
    seed = printed(result).split()[1]
    result.stdout.fnmatch_lines([f"vnet: --vnet-seed={seed}"])


def test_a_seed_that_is_no_number(run_pytest):
    result = run_pytest(JITTER, "--vnet-seed=lucky")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--vnet-seed*lucky*"])


def test_workers_of_xdist(run_pytest):
    pytest.importorskip("xdist")
    result = run_pytest(
        """
        @pytest.mark.parametrize("number", range(4))
        async def test_ok(vnet, autojump_clock, number):
            vnet.host(A).listen(80, echo, rtt=0.04)
            await trio.open_tcp_stream(A, 80)

        async def test_swallowed(vnet, autojump_clock):
            with pytest.raises(UnknownHost):
                await trio.open_tcp_stream("nowhere.test", 80)

        async def test_fails(vnet, autojump_clock):
            vnet.host(A).listen(80, echo, rtt=0.04)
            await trio.open_tcp_stream(A, 80)
            assert False
        """,
        "-n2",
        "--vnet-seed=random",
        fresh=True,
    )
    result.assert_outcomes(passed=5, errors=1, failed=1)
    output = result.stdout.str()
    assert "UnknownHost: unknown host nowhere.test" in output
    seeds = {line.rpartition("=")[2] for line in result.outlines if line.startswith(("replay it", "vnet: "))}
    assert len(seeds) == 1
    assert output.count("replay it") == 2


# --- under anyio's plugin ---------------------------------------------------------------------------------------------


def test_anyio(run_pytest):
    result = run_pytest(
        ANYIO
        + """
async def test_ok(vnet):
    vnet.host(A).listen(80, echo, rtt=0.04)
    async with await anyio.connect_tcp(A, 80) as stream:
        assert anyio.current_time() == 0.04
        await stream.send(b"x")
        assert await stream.receive() == b"x"

async def test_swallowed(vnet):
    with pytest.raises(UnknownHost):
        await anyio.connect_tcp("nowhere.test", 80)

@pytest.fixture
def server(vnet):
    return vnet.host(A).listen(80, echo, rtt=0.04)

class TestIt:
    async def test_fails(self, server):
        await anyio.connect_tcp(A, 80)
        assert anyio.current_time() == 0.05
        """,
        mode="",
    )
    result.assert_outcomes(passed=2, errors=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_swallowed*",
            "*UnknownHost: unknown host nowhere.test*",
            "*TestIt.test_fails*",
            "virtual network, seed 0",
            "192.0.2.1:80 *connected*",
        ]
    )


def test_anyio_without_a_virtual_clock_or_without_trio(run_pytest):
    result = run_pytest(
        """
        pytestmark = pytest.mark.anyio

        async def test_x(vnet):
            pass
        """,
        "-o",
        "anyio_mode=strict",
        mode="",
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines_random(
        [
            "*NotVirtualTime*",
            "vnet is a network for Trio: this test runs on something else",
        ]
    )


# --- under neither ----------------------------------------------------------------------------------------------------


def test_a_plain_test_that_brings_its_own_run(run_pytest):
    result = run_pytest("""
        from trio.testing import MockClock
        from trio_connect import testing

        async def use(net):
            net.host(A).listen(80, echo, rtt=0.04)
            async with await trio.open_tcp_stream(A, 80):
                return trio.current_time()

        def test_instrument(vnet):
            clock = MockClock(autojump_threshold=0)
            assert trio.run(use, vnet, clock=clock, instruments=[vnet]) == 0.04

        def test_with(vnet):
            async def main():
                with vnet:
                    return await use(vnet)

            assert trio.run(main, clock=MockClock(autojump_threshold=0)) == 0.04

        def test_run():
            assert testing.run(use) == 0.04

        def test_swallowed(vnet):
            async def main():
                with pytest.raises(UnknownHost):
                    await trio.open_tcp_stream("nowhere.test", 80)

            trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[vnet])
    """)
    result.assert_outcomes(passed=4, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_swallowed*"])


def test_a_network_that_no_run_ever_had(run_pytest):
    """Such a test may have talked to the real world."""
    result = run_pytest("""
        from trio.testing import MockClock

        async def main():
            pass

        def test_forgot(vnet):
            trio.run(main, clock=MockClock(autojump_threshold=0))

        def test_asked_late(request):
            request.getfixturevalue("vnet")

        @pytest.fixture(autouse=True)
        def describe(request):
            if "offline" in request.node.name:
                request.getfixturevalue("vnet")

        @pytest.mark.usefixtures("vnet")
        def test_needs_none():
            pass
    """)
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines_random(
        [
            "*ERROR at teardown of test_forgot*",
            "*ERROR at teardown of test_asked_late*",
            "*asked for vnet and never installed it*instruments=[[]vnet[]]*",
        ]
    )


def test_given_is_refused_with_the_remedy(run_pytest):
    result = run_pytest("""
        from hypothesis import HealthCheck, given, settings, strategies as st

        @given(st.integers())
        @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
        async def test_x(vnet, autojump_clock, number):
            pass
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["vnet serves one run, and @given makes one per example*testing.run()"])


def test_hypothesis_with_the_helper(run_pytest):
    result = run_pytest("""
        from hypothesis import given, settings, strategies as st
        from trio_connect import testing

        async def connect(net, rtt):
            net.host(A).listen(80, echo, rtt=rtt)
            assert trio.current_time() == 0
            async with await trio.open_tcp_stream(A, 80):
                return trio.current_time()

        @given(st.integers(0, 200))
        def test_holds(ms):
            assert testing.run(connect, ms / 1000) == ms / 1000

        @settings(database=None, derandomize=True)
        @given(st.integers(0, 200))
        def test_fails(ms):
            async def main(net):
                assert await connect(net, ms / 1000) < 0.1

            testing.run(main)
    """)
    result.assert_outcomes(passed=1, failed=1)
    # The smallest example, with the picture of just that one.
    result.stdout.fnmatch_lines(["*virtual network, seed 0", "*100 ms", "*192.0.2.1:80 *connected*"])
    result.stdout.fnmatch_lines(["*ms=100*"])


# --- manners ----------------------------------------------------------------------------------------------------------


def test_harmless_where_no_async_plugin_is(run_pytest):
    result = run_pytest(
        """
        def test_x():
            pass

        def test_vnet(vnet):
            from trio.testing import MockClock
            trio.run(trio.sleep, 1, clock=MockClock(autojump_threshold=0), instruments=[vnet])
        """,
        *("-p", "no:trio", "-p", "no:anyio", "-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:timeout"),
        mode="",
        fresh=True,
    )
    result.assert_outcomes(passed=2)


def test_imports_no_optional_package():
    code = (
        "import sys, pytest, trio.testing\n"
        "before = set(sys.modules)\n"
        "import trio_connect.testing._stage\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "['trio_connect']\n"


def test_the_entry_point():
    project = pathlib.Path(__file__).parent.parent.parent / "pyproject.toml"
    points = tomllib.loads(project.read_text())["project"]["entry-points"]["pytest11"]
    assert points == {"trio_connect": "pytest_trio_connect"}
