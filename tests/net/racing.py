"""What the tests of races share: a virtual network for a test, and the facts of a report in short."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from trio_connect import (
    ConnectReport,
    EndpointLike,
    RaceFinished,
    TcpStream,
    TraceEvent,
    connectx,
    tcp_connect,
)
from trio_connect.testing import VirtualNetwork, echo, run


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a test of an async function of a virtual network, in virtual time; no socket may stay open."""

    async def main(net: VirtualNetwork, **arguments: Any) -> None:
        await test(net, **arguments)
        assert net.open_sockets == ()

    def on_a_virtual_network(**arguments: Any) -> None:
        run(partial(main, **arguments))

    first, *others = inspect.signature(test).parameters.values()
    assert first.name == "net"
    on_a_virtual_network.__signature__ = inspect.Signature(others)  # type: ignore[attr-defined]
    on_a_virtual_network.__name__ = test.__name__
    on_a_virtual_network.__module__ = test.__module__
    return on_a_virtual_network


async def race_of_one(endpoint: EndpointLike, deadline: int = -1) -> TcpStream:
    """Connect with `connectx` as `tcp_connect` does."""
    return await connectx([endpoint], deadline)


connects = pytest.mark.parametrize("connect", [tcp_connect, race_of_one], ids=["one", "race"])
"""A test of one endpoint, by both calls."""


def good(net: VirtualNetwork, *addresses: str, rtt: float = 0.020, port: int = 443) -> None:
    """Serve a port on each of these hosts."""
    for address in addresses:
        net.host(address).listen(port, echo, rtt=rtt)


def dead(net: VirtualNetwork, *addresses: str) -> None:
    """Let each of these hosts drop every packet."""
    for address in addresses:
        net.host(address).blackhole()


def at(*addresses: str, port: int = 443) -> list[tuple[str, int]]:
    return [(address, port) for address in addresses]


def ms(seconds: float | None) -> float | None:
    """Whole microseconds, in milliseconds: sums of floats compare."""
    return None if seconds is None else round(seconds * 1e6) / 1e3


def rows(report: ConnectReport) -> list[tuple[str, str | None, float | None, float | None, str]]:
    """Host, cause, start, end and outcome of each attempt."""
    return [(a.endpoint.host, a.cause, ms(a.started), ms(a.ended), a.outcome) for a in report.attempts]


def starts(report: ConnectReport) -> dict[str, Any]:
    return {a.endpoint.host: ms(a.started) for a in report.attempts}


def winner(report: ConnectReport) -> Any:
    """The row that won, typed so that a test need not ask whether there is one: it will notice."""
    return report.winner


def causes(error: BaseException) -> tuple[Any, ...]:
    """The members of the group that an error was raised from."""
    group = error.__cause__
    assert isinstance(group, BaseExceptionGroup)
    return group.exceptions


def outcomes(report: ConnectReport) -> list[str]:
    return [a.outcome for a in report.attempts]


@attrs.define
class Recorder:
    """An observer that keeps what it is told."""

    events: list[TraceEvent] = attrs.Factory(list)

    def __call__(self, event: TraceEvent) -> None:
        self.events.append(event)

    @property
    def names(self) -> list[str]:
        return [type(event).__name__ for event in self.events]

    @property
    def report(self) -> ConnectReport:
        """The report of the one RaceFinished there is, which is the last event."""
        assert self.names.count("RaceFinished") == 1
        last = self.events[-1]
        assert isinstance(last, RaceFinished)
        return last.report


class Stopwatch:
    """Milliseconds of Trio time since it was made."""

    def __init__(self) -> None:
        self._started = trio.current_time()

    @property
    def ms(self) -> float:
        return round((trio.current_time() - self._started) * 1e6) / 1e3


def close(*streams: TcpStream) -> None:
    for stream in streams:
        stream.abort()
