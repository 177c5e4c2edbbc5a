"""Whatever a public callable is given, it works, or says what is wrong in a TypeError or ValueError of its own."""

from __future__ import annotations

import signal
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from tests.field.test_fuzz import Fuzzer, Target, check_counts, target
from tests.net.test_interrupts import interrupt_at
from tests.sctp.fakenet import FakeNet
from trio_connect import now, sctp
from trio_connect.testing import SctpNetwork

FEW = 20
"""Any call has more lines than that; a sweep that finds fewer has not looked."""


def of_sctp(net: FakeNet, client: sctp.Association, listener: sctp.SctpListener) -> dict[str, Target]:
    async def connectx(**arguments: Any) -> None:
        with net.on_client():
            association = await sctp.connectx(**arguments)
        await association.abort()

    async def listen(**arguments: Any) -> None:
        with net.on_server():
            made = await sctp.listen(**arguments)
        await made.aclose()

    options = {"attempt_delay": 0.25, "streams": 10, "ppid": 0, "tuning": sctp.SctpTuning(), "observer": None}
    return {
        "SctpTuning": target(sctp.SctpTuning, **attrs.asdict(sctp.SctpTuning())),
        "connectx": Target(connectx, {"endpoints": net.peers(), "deadline": 0, "local": net.client_hosts, **options}),
        "listen": Target(
            listen, {"endpoints": net.peers(port=9), "backlog": 5, "ppid": 0, "tuning": sctp.SctpTuning()}
        ),
        "accept": target(listener.accept, 0, observer=None),
        "send": target(client.send, b"x", 0, stream=0, ppid=None, unordered=False, ttl=None),
        "receive": target(client.receive, 0),
        "set_primary": target(client.set_primary, net.peers()[0]),
    }


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 10))])
async def test_every_public_callable_refuses_what_cannot_be(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    fuzzer = Fuzzer(seed)
    with SctpNetwork() as network:
        net = FakeNet(network)
        async with net.pair() as (client, _server), net.listening(port=7) as listener:
            targets = of_sctp(net, client, listener)
            public = {
                name
                for kind in (sctp.Association, sctp.SctpListener)
                for name in vars(kind)
                if not name.startswith("_") and callable(getattr(kind, name))
            }
            assert public <= {*targets, "paths", "abort", "aclose"}
            await fuzzer.run(targets, 1500)
    check_counts(fuzzer.counts, 1500)


@pytest.mark.parametrize("stride", [13, pytest.param(1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_an_interrupt_at_any_line_is_heard_and_leaves_no_association(stride: int) -> None:
    heard: list[bool] = []

    async def main(line: int) -> int:
        seen = [0]
        with SctpNetwork() as network:
            net = FakeNet(network)
            async with net.listening() as listener:
                try:
                    with net.on_client(), interrupt_at(line, seen, interrupt_files):
                        association = await sctp.connectx(net.peers(), now() + 1000)
                        try:
                            accepted = await listener.accept(now() + 1000)
                            try:
                                await association.send(b"x")
                                await accepted.receive(now() + 1000)
                            finally:
                                await accepted.abort()
                        finally:
                            await association.abort()
                    await trio.lowlevel.checkpoint()
                    heard.append(False)
                except KeyboardInterrupt:
                    heard.append(True)
                # The listener is still there: when it closes it ends what nobody has accepted.
                await net.no_association(of_server=False)
        return seen[0]

    interrupt_files = sctp.connectx.__code__.co_filename.removesuffix("_connect.py")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        line = stride
        while trio.run(main, line, clock=trio.testing.MockClock(autojump_threshold=0)) >= line:
            line += stride
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(heard) > FEW // stride
    assert all(heard[:-1])
