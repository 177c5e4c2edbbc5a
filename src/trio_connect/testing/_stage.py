"""Runs a test that has the fixture `vnet` on its network; `pytest_trio_connect` is the plugin itself.

pytest-trio passes a fixture value that is an instrument to `trio.run`, but only one that the test function itself asks
for, so this passes the others. Elsewhere, as under anyio's plugin, the test runs inside `with vnet:`.
"""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Self, cast

import attrs
import pytest
import trio

from ._errors import VirtualNetworkError
from ._network import VirtualNetwork

_EXTRA: Final = "trio_connect_vnet"
"""The keyword under which pytest-trio sees a network that the test function did not ask for."""


class _Network(VirtualNetwork):
    """Records whether a run had it: a test that forgot to install its network has used the real one."""

    installed = False

    def before_run(self) -> None:
        self.installed = True
        super().before_run()

    def __enter__(self) -> Self:
        self.installed = True
        return super().__enter__()


@attrs.define(eq=False)
class Stage:
    """One test on its network."""

    network: _Network
    test: Callable[..., Awaitable[object]] | None = None
    """The async test as we wrapped it."""
    raised: BaseException | None = None
    """What the test itself raised."""

    @classmethod
    def of(cls, request: pytest.FixtureRequest) -> Stage:
        """Return the stage of the test that asks, with a new network."""
        return cls(_Network(request.config.option.vnet_seed))

    def end(self, request: pytest.FixtureRequest) -> None:
        """Fail a test that left its network.

        A test that raised has the network's failures in its report already, and does not fail a second time for them.
        """
        __tracebackhide__ = True
        if self.raised is not None:
            return
        self.network.verify()
        item: pytest.Item = request.node
        # A sync test that has vnet only through an autouse fixture need not run anything.
        named = isinstance(item, pytest.Function) and "vnet" in inspect.signature(item.obj).parameters
        if not self.network.installed and (named or "vnet" not in request.node.fixturenames):
            raise VirtualNetworkError(
                "the test asked for vnet and never installed it: give it to its run, as in "
                "trio.run(..., instruments=[vnet]), or enter `with vnet:` inside the run"
            )

    def wrapped(self, test: Callable[..., Any]) -> Callable[..., Any]:
        """Return the test, put on its network if it is async."""
        if hasattr(test, "hypothesis"):
            pytest.fail(
                "vnet serves one run, and @given makes one per example: write a plain `def` test without vnet that "
                "calls trio_connect.testing.run()",
                pytrace=False,
            )
        if not inspect.iscoroutinefunction(test):
            return test
        self.test = _on(self.network, test)
        return self.test

    def handed_over(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return what runs the test, with the network among its arguments if it is pytest-trio's.

        pytest-trio puts a sync function of its own in the test's place; anyio runs the test as it finds it. That Trio
        may get one instrument twice does no harm: it keeps it once.
        """
        if self.test in (None, call):
            return call
        return functools.partial(call, **{_EXTRA: self.network})

    def attach(self, report: pytest.TestReport, error: BaseException) -> None:
        """Attach the seed, the waterfall and what else the network recorded to the report of a failure."""
        if report.when == "call":
            self.raised = error
        if not report.failed:
            return
        text = f"{self.network.report()}replay it with --vnet-seed={self.network.seed}\n"
        shown = {id(one) for one in _family(error)}
        for one in self.network.failures:
            if id(one) not in shown:
                text += f"\nrecorded by the network:\n{''.join(traceback.format_exception(one))}"
        report.sections.append(("virtual network", text))


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


def _family(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and those that pytest shows with it: members of a group, causes, contexts."""
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
