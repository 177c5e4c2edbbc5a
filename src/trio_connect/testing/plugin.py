"""The pytest plugin: fixture `vnet`, and what makes a test fail that left its virtual network.

pytest-trio hands a fixture value that is an instrument to `trio.run`, but only one that the test function itself asks
for, so this plugin hands over the others. Elsewhere, as under anyio's plugin, the test runs inside `with vnet:`.
"""

from __future__ import annotations

import functools
import inspect
import secrets
import traceback
from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import Any, Final, Self, cast

import attrs
import pytest
import trio

from ._errors import VirtualNetworkError
from ._network import VirtualNetwork

_EXTRA: Final = "trio_connect_vnet"
"""The keyword under which pytest-trio sees a network that the test function did not ask for."""


class _Network(VirtualNetwork):
    """Knows whether a run ever had it: a test that forgot to install its network talked to the real world."""

    installed = False

    def before_run(self) -> None:
        self.installed = True
        super().before_run()

    def __enter__(self) -> Self:
        self.installed = True
        return super().__enter__()


@attrs.define(eq=False)
class _Stage:
    """One test on its network."""

    network: _Network
    test: Callable[..., Awaitable[object]] | None = None
    """The async test as we wrapped it."""
    raised: BaseException | None = None
    """What the test itself raised."""


_stage = pytest.StashKey[_Stage]()


def _seed(text: str) -> int:
    return secrets.randbelow(2**32) if text == "random" else int(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--vnet-seed`."""
    parser.getgroup("trio-connect").addoption(
        "--vnet-seed",
        type=_seed,
        default=0,
        metavar="N",
        help="seed of the fixture vnet: a number, or 'random'; the report of a failed test says how to replay it",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of xdist the seed: it parses the command line anew, and would draw its own for "random"."""
    node.workerinput["vnet_seed"] = node.config.option.vnet_seed


def pytest_configure(config: pytest.Config) -> None:
    """Learn it there."""
    told: dict[str, Any] = getattr(config, "workerinput", {})
    config.option.vnet_seed = told.get("vnet_seed", config.option.vnet_seed)


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which seed the session has, unless it is the usual one."""
    seed: int = config.option.vnet_seed
    return f"vnet: --vnet-seed={seed}" if seed else None


@pytest.fixture
def vnet(request: pytest.FixtureRequest) -> Generator[VirtualNetwork, None, None]:
    """A `trio_connect.testing.VirtualNetwork`; ask for a virtual clock as well, such as `autojump_clock`."""
    __tracebackhide__ = True
    item: pytest.Item = request.node
    stage = item.stash[_stage] = _Stage(_Network(request.config.option.vnet_seed))
    yield stage.network
    # The report of a test that raised has what the network recorded; failing twice for one reason helps nobody.
    if stage.raised is None:
        stage.network.verify()
        # A sync test that has vnet only through an autouse fixture need not run anything.
        named = isinstance(item, pytest.Function) and "vnet" in inspect.signature(item.obj).parameters
        if not stage.network.installed and (named or "vnet" not in request.node.fixturenames):
            raise VirtualNetworkError(
                "the test asked for vnet and never installed it: give it to its run, as in "
                "trio.run(..., instruments=[vnet]), or enter `with vnet:` inside the run"
            )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Put an async test on its network. First, so that what pytest-trio and anyio find is the wrapped test."""
    __tracebackhide__ = True
    stage = item.stash.get(_stage, None)
    if stage is None or not isinstance(item, pytest.Function):
        return (yield)
    test = item.obj
    if hasattr(test, "hypothesis"):
        pytest.fail(
            "vnet serves one run, and @given makes one per example: write a plain `def` test without vnet that calls "
            "trio_connect.testing.run()",
            pytrace=False,
        )
    if not inspect.iscoroutinefunction(test):
        return (yield)
    item.obj = stage.test = _on(stage.network, test)
    try:
        return (yield)
    finally:
        item.obj = test


def _on(network: VirtualNetwork, test: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
    @functools.wraps(test)
    async def on_network(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        kwargs.pop(_EXTRA, None)
        if network.active:
            await test(*args, **kwargs)
            return
        if not trio.lowlevel.in_trio_run():
            pytest.fail("vnet is a network for Trio: this test runs on something else", pytrace=False)
        with network:
            await test(*args, **kwargs)

    return on_network


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let pytest-trio see a network that only a fixture asked for, so that async fixtures are on it too."""
    __tracebackhide__ = True
    stage = pyfuncitem.stash.get(_stage, None)
    # pytest-trio puts a sync function of its own in the test's place; anyio runs the test as it finds it. That Trio
    # may get one instrument twice is no harm: it keeps it once.
    if stage is not None and stage.test not in (None, pyfuncitem.obj):
        pyfuncitem.obj = functools.partial(pyfuncitem.obj, **{_EXTRA: stage.network})
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the seed, the waterfall and what else the network recorded to the report of a failure."""
    report = yield
    stage = item.stash.get(_stage, None)
    if stage is None or call.excinfo is None:
        return report
    if call.when == "call":
        stage.raised = call.excinfo.value
    if report.failed:
        network = stage.network
        text = f"{network.report()}replay it with --vnet-seed={network.seed}\n"
        shown = {id(error) for error in _family(call.excinfo.value)}
        for error in network.failures:
            if id(error) not in shown:
                text += f"\nrecorded by the network:\n{''.join(traceback.format_exception(error))}"
        report.sections.append(("virtual network", text))
    return report


def _family(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those that pytest shows with it: members of a group, causes, contexts."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", one).exceptions
