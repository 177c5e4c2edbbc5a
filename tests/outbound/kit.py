"""What the tests of outbound destinations share: hosts, policies without chance, small helpers."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Any

import trio

from trio_connect import Source, now
from trio_connect.outbound import (
    Backoff,
    Destination,
    NotAdmitted,
    Outbound,
    OutboundEvent,
    OutboundPolicy,
    open_outbound,
)
from trio_connect.testing import VirtualNetwork, discard

EVEN = Backoff(jitter=0.0)
LOCAL4, LOCAL6 = "192.0.2.254", "2001:db8::fe"
"""Where programs live on the virtual network."""
NEAR = Source(LOCAL4, name="near")
FAR = Source(LOCAL4, name="far")
BOTH = Source(LOCAL4, LOCAL6, name="both")
BROKEN = Source("192.0.2.77", name="broken")
"""It is not an address of the program's host, so nothing can be bound to it."""


def rules(**changes: Any) -> OutboundPolicy:
    """A policy without jitter."""
    return OutboundPolicy(**{"delay": EVEN, "address_cooldown": EVEN, **changes})


def opened(
    policy: OutboundPolicy | None = None, *, seed: int = 0, **arguments: Any
) -> AbstractAsyncContextManager[Outbound]:
    return open_outbound(policy=policy or rules(), random=Random(seed), **arguments)


def good(net: VirtualNetwork, *addresses: str, rtt: float = 0.020, port: int = 25) -> None:
    for address in addresses:
        net.host(address).listen(port, discard, rtt=rtt)


def refusing(net: VirtualNetwork, *addresses: str, after: float | None = None) -> None:
    for address in addresses:
        net.host(address).refuse(after)


def silent(net: VirtualNetwork, *addresses: str) -> None:
    for address in addresses:
        net.host(address).blackhole()


def at(*addresses: str, port: int = 25) -> list[tuple[str, int]]:
    return [(address, port) for address in addresses]


async def fails(destination: Destination, deadline: int = -1, **arguments: Any) -> NotAdmitted:
    """Connect, which must fail, and return the decision."""
    try:
        async with destination.connect(deadline, **arguments):
            pass
    except Exception as exc:  # noqa: BLE001 - every decision will do
        return decision_of(exc)
    raise AssertionError("it connected")


def decision_of(exc: Exception) -> NotAdmitted:
    """The decision behind what a call raised; anything else is raised again."""
    decision = getattr(exc, "decision", None)
    if not isinstance(decision, NotAdmitted):
        raise exc
    return decision


async def connects(destination: Destination, deadline: int = -1, **arguments: Any) -> Any:
    """Connect, which must not fail; return the connection, which is closed."""
    async with destination.connect(deadline, **arguments) as connection:
        return connection


async def until_due(destination: Destination) -> None:
    """Wait until the circuit is due."""
    await trio.sleep((destination.snapshot().until - now()) / 1000)


def starts(net: VirtualNetwork, *addresses: str) -> list[float]:
    """When connects to these addresses began, to any without one."""
    return [row.started for row in net.trace.connections if not addresses or row.host in addresses]


def words(events: Iterable[OutboundEvent]) -> list[str]:
    return [event.what for event in events]


class Census:
    """Counts what is open at once, and never more than it may be."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open = 0
        self.highest = 0

    def __enter__(self) -> None:
        self.open += 1
        self.highest = max(self.highest, self.open)
        assert self.open <= self.most

    def __exit__(self, *_: object) -> None:
        self.open -= 1
