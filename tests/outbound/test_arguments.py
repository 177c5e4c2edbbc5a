"""Whatever a public callable is given, it works, or says what is wrong in a TypeError or ValueError of its own."""

from __future__ import annotations

import itertools
from contextlib import suppress
from random import Random
from typing import Any

import attrs
import pytest

from tests.field.test_fuzz import Fuzzer, Target, check_counts, target
from tests.outbound.kit import at, good
from trio_connect import Source, StaticResolver
from trio_connect.momentum import initiate_connection
from trio_connect.outbound import (
    Backoff,
    Candidate,
    Connection,
    Destination,
    NotAdmitted,
    Outbound,
    OutboundPolicy,
    Overloaded,
    Permit,
    Rate,
    open_outbound,
)

FUZZED = (Outbound, Destination, Permit, Connection)


async def use(manager: Any) -> None:
    with suppress(NotAdmitted):
        async with manager:
            pass


def of_outbound(
    out: Outbound, destination: Destination, permit: Permit, connection: Connection[None]
) -> dict[str, Target]:
    async def connect(**arguments: Any) -> None:
        await use(destination.connect(**arguments))

    async def try_connect(**arguments: Any) -> None:
        await use(destination.try_connect(**arguments))

    async def permission(**arguments: Any) -> None:
        await use(destination.permit(**arguments))

    async def opened(**arguments: Any) -> None:
        await use(open_outbound(**arguments))

    def overloaded(seconds: Any, reason: Any) -> None:
        permit._outcome._admission.ticket.state = "current"
        permit.overloaded(seconds, reason)

    def failed(reason: Any) -> None:
        permit._outcome._admission.ticket.state = "current"
        permit.failed(reason)

    count = itertools.count()

    def nothing(*_: object) -> None:
        pass

    async def named(name: Any, candidates: Any, group: Any, policy: Any) -> None:
        # What else is given counts with a new name alone.
        name = f"a{next(count)}" if name == "a" else name
        made = out.destination(name, candidates=candidates, group=group, policy=policy)
        await use(made.connect(0))

    async def by_name(name: Any, port: Any) -> None:
        await use(out.destination(name, port=port).connect(0))

    def initiate(**arguments: Any) -> None:
        with suppress(NotAdmitted):
            initiate_connection(**arguments).close()

    return {
        "Rate": target(Rate, 1, 1.0, 1),
        "Backoff": target(Backoff, **attrs.asdict(Backoff(), recurse=False)),
        "Candidate": target(Candidate, ("192.0.2.1", 25), 0, 1, 5, Rate(1)),
        "OutboundPolicy": target(OutboundPolicy, **attrs.asdict(OutboundPolicy(), recurse=False)),
        "Overloaded": target(Overloaded, 1.0, "busy"),
        "open_outbound": Target(
            opened,
            {
                "policy": OutboundPolicy(), "sources": (Source("192.0.2.254"),), "resolver": StaticResolver({}),
                "address_filter": None, "observer": None, "random": Random(1),
            },
        ),
        "destination": target(named, "a", at("192.0.2.1"), None, None),
        "Outbound.destination": target(by_name, "a.test", port=25),
        "mx": target(out.mx, "a.test", port=25, group=None, policy=None),
        "srv": target(out.srv, "_x._tcp.a.test", group=None, policy=None),
        "connect": Target(connect, {"deadline": 0, "establish": None}),
        "try_connect": Target(try_connect, {"deadline": 0, "establish": None}),
        "permit": Target(permission, {"deadline": 0}),
        "suspend": target(destination.suspend, -1, None, reason="x"),
        "reset": target(destination.reset),
        "failed": target(failed, "x"),
        "overloaded": target(overloaded, 1.0, "x"),
        "Connection.overloaded": target(connection.overloaded, 1.0, "x"),
        "initiate_connection": Target(
            initiate,
            {
                "out": out, "dest": destination, "source": None, "finish_connect": nothing, "timeout_func": nothing,
                "user_data": None,
            },
        ),
    }  # fmt: skip


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))])
async def test_every_public_callable_refuses_what_cannot_be(seed, vnet, autojump_clock):
    good(vnet, "192.0.2.1", rtt=0.0)
    fuzzer = Fuzzer(seed)
    policy = OutboundPolicy(max_connections=1000, max_connecting=1000, failures_to_delay=0)
    resolver = StaticResolver({"a.test": ("192.0.2.1",)}, mx={}, srv={})
    async with open_outbound(policy=policy, resolver=resolver) as out:
        destination = out.destination("d", candidates=at("192.0.2.1"))
        async with destination.connect() as connection, out.destination("p").permit() as permit:
            targets = of_outbound(out, destination, permit, connection)
            names = {name.rpartition(".")[2] for name in targets}
            for kind in FUZZED:
                public = {name for name in vars(kind) if not name.startswith("_") and callable(getattr(kind, name))}
                assert public <= names | {"snapshot"}, kind
            await fuzzer.run(targets, 3000)
    check_counts(fuzzer.counts, 3000)
