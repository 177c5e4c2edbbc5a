"""The pytest plugin of trio-connect: the fixture `vnet`, and reports without our frames.

pytest loads this in every run of the environment, so it imports nothing of ours before a test asks for `vnet`; what
serves such a test is `trio_connect.testing._stage`.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from trio_connect.testing import VirtualNetwork
    from trio_connect.testing._stage import Stage

_stage: pytest.StashKey[Stage] = pytest.StashKey()


def _seed(text: str) -> int:
    if text != "random":
        return int(text)
    from secrets import randbelow

    return randbelow(2**32)


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
    from trio_connect.testing._stage import Stage

    stage = request.node.stash[_stage] = Stage.of(request)
    yield stage.network
    stage.end(request)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Put an async test on its network. First, so that what pytest-trio and anyio find is the wrapped test."""
    __tracebackhide__ = True
    stage = item.stash.get(_stage, None)
    if stage is None or not isinstance(item, pytest.Function):
        return (yield)
    test = item.obj
    item.obj = stage.wrapped(test)
    try:
        return (yield)
    finally:
        item.obj = test


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Let pytest-trio see a network that only a fixture asked for, so that async fixtures are on it too."""
    __tracebackhide__ = True
    stage = pyfuncitem.stash.get(_stage, None)
    if stage is not None:
        pyfuncitem.obj = stage.handed_over(pyfuncitem.obj)
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Leave our frames out of the report of a failure, and attach what the virtual network recorded."""
    if call.excinfo is None:
        return (yield)
    with _our_frames_hidden(item.config):
        report = yield
    stage = item.stash.get(_stage, None)
    if stage is not None:
        stage.attach(report, call.excinfo.value)
    return report


@contextmanager
def _our_frames_hidden(config: pytest.Config) -> Generator[None]:
    """Hide the frames of our modules from pytest, which looks for a name in a frame's locals and globals.

    What failed is in the test and in the text of the error; ours is a hundred lines between the two. `--full-trace`
    shows everything, and so does the test suite of a checkout that the modules belong to.
    """
    ours = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "trio_connect"]
    shown = [vars(module) for module in ours if _is_below(getattr(module, "__file__", None), config.rootpath)]
    hidden = [] if shown or config.getoption("fulltrace", default=False) else [vars(module) for module in ours]
    for names in hidden:
        names["__tracebackhide__"] = True
    try:
        yield
    finally:
        for names in hidden:
            del names["__tracebackhide__"]


def _is_below(file: str | None, folder: Path) -> bool:
    return file is not None and folder in Path(file).parents
