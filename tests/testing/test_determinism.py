"""Same seed, same canonical trace: in one process, in another, and under xdist; another seed, another trace."""

from __future__ import annotations

import json
import subprocess
import sys

import trio

from trio_connect.testing import VirtualNetwork, echo, run

SIX = [f"2001:db8::{number}" for number in range(1, 7)]
FOUR = [f"192.0.2.{number}" for number in range(1, 7)]


async def busy(net: VirtualNetwork) -> str:
    """Jitter everywhere, many tasks, several connections to one port, faults on the way."""
    net.dns("api.test", aaaa=SIX, a=FOUR, aaaa_delay=0.03, a_delay=0.01)
    for number, address in enumerate([*SIX, *FOUR]):
        net.host(address).listen(443, echo, rtt=0.2 + number / 100, jitter=0.3, bandwidth=60_000)
    net.host(SIX[0]).blackhole()
    net.host(SIX[1]).refuse(after=0.17)
    net.host(FOUR[0]).flap([(0.5, "down"), (2.0, "up")])

    async def one(host: str) -> None:
        stream = await trio.open_tcp_stream(host, 443)
        await stream.send_all(b"x" * 30_000)
        got = 0
        while got < 30_000:
            got += len(await stream.receive_some())
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        for host in ("api.test", *SIX[2:], *FOUR, *FOUR):
            nursery.start_soon(one, host)
    return net.trace.canonical()


def elsewhere(times: int) -> set[str]:
    """The traces of so many runs in a process of their own, where nobody measures coverage."""
    program = (
        "import json, runpy, sys; it = runpy.run_path(sys.argv[1]);"
        "print(json.dumps([it['run'](it['busy'], seed=7) for _ in range(int(sys.argv[2]))]))"
    )
    command = [sys.executable, "-c", program, __file__, str(times)]
    return set(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


def test_a_hundred_runs_give_one_trace() -> None:
    (trace,) = elsewhere(100)
    assert trace.count(" start ") == trace.count(" connected ") + trace.count(" failed ") + trace.count(" abandoned ")
    assert trace.count(" closed ") > 30


def test_another_seed_gives_another_trace() -> None:
    assert run(busy, seed=7) != run(busy, seed=8)


def test_another_process_gives_the_same_trace() -> None:
    assert elsewhere(1) == {run(busy, seed=7)}


def test_draws_of_one_connection_do_not_depend_on_the_others() -> None:
    async def alone(net: VirtualNetwork) -> float | None:
        net.host(FOUR[0]).listen(443, echo, rtt=0.1, jitter=0.5)
        await (await trio.open_tcp_stream(FOUR[0], 443)).aclose()
        return net.trace.connections[0].ended

    async def in_company(net: VirtualNetwork) -> float | None:
        net.host(*FOUR[1:]).listen(443, echo, rtt=0.1, jitter=0.5)
        async with trio.open_nursery() as nursery:
            for host in FOUR[1:]:
                nursery.start_soon(trio.open_tcp_stream, host, 443)
            return await alone(net) and next(c.ended for c in net.trace.connections if c.host == FOUR[0])

    assert run(alone, seed=3) == run(in_company, seed=3)
