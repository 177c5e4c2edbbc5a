"""The scenarios of races and of peers, over TLS: what answers TCP and has no TLS loses as what is dead does."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from benchmarks.scoreboard import PORT, RACES, Fate, Scenario, four, six
from tests.net.racing import ms, outcomes, rows, starts, virtual
from tests.support import tls
from trio_connect import ConnectFailed, History, RacePolicy, TcpStream, TlsStream, connect, connectx
from trio_connect.testing import VirtualNetwork, run

RTT = 0.020
HOST = tls.NAME


async def serve_tls(stream: Any, completed: list[str] | None = None) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async with trio.SSLStream(stream, tls.contexts().server, server_side=True) as secured:
            await secured.do_handshake()
            if completed is not None:
                completed.append(stream.socket.getsockname()[0])
            await secured.receive_some()


async def no_tls(after: float, stream: Any) -> None:
    """Answer a handshake with something else."""
    await stream.receive_some()
    await trio.sleep(after)
    await stream.send_all(b"220 mail.test ESMTP\r\n")


def describe(net: VirtualNetwork, fates: dict[str, Fate]) -> None:
    """Give each host a fate over TLS. TCP is up after one round trip, or `Fate.after` where that is longer."""
    for address, fate in fates.items():
        host = net.host(address)
        if fate.kind == "ok":
            host.listen(PORT, serve_tls, rtt=fate.after)
        elif fate.kind == "refused":
            rtt = min(RTT, fate.after / 2)
            host.listen(PORT, partial(no_tls, fate.after - 2 * rtt), rtt=rtt)
        else:
            host.silent(PORT, rtt=RTT)
    net.dns(HOST, list(fates))


# In milliseconds. The next start is 250 ms after the one before, and 20 ms more, which TCP took: so says
# draft-ietf-happy-happyeyeballs-v3. Who wins then needs two round trips, the second one for TLS.
OVER_TLS_MS = {
    "A": 270 + 40,
    "B": 270 + 40,
    "C": 5 * 270 + 40,
    "D": 300 + 40,
    "E": 40 * 10 + 40,
    "F": 2 * 700,
    "G": 30 * 270 + 40,
    "G with the default": 10_000 + 14 * 270 + 40,
}


def key(scenario: Scenario) -> str:
    row = scenario.title[0]
    return "G with the default" if row == "G" and scenario.policy == RacePolicy() else row


@pytest.mark.parametrize("scenario", RACES, ids=lambda scenario: scenario.title)
def test_each_race_over_tls_takes_what_its_schedule_says(scenario: Scenario) -> None:
    async def main(net: VirtualNetwork) -> None:
        describe(net, scenario.fates)
        stream = await connect(HOST, PORT, policy=scenario.policy, tls=tls.contexts().client)
        assert round(trio.current_time() * 1000, 3) == OVER_TLS_MS[key(scenario)]
        assert isinstance(stream, TlsStream)
        assert scenario.fates[stream.peer.host].kind == "ok"
        begun = sorted(attempt.started for attempt in stream.report.tried if attempt.started is not None)
        assert all(later - earlier >= 0.0099 for earlier, later in pairwise(begun))
        assert net.trace.live_max <= scenario.policy.max_in_flight
        await stream.aclose()
        assert net.open_sockets == ()

    run(main)


async def by_trio() -> None:
    stream = await trio.open_ssl_over_tcp_stream(HOST, PORT, ssl_context=tls.contexts().client)
    try:
        await stream.do_handshake()
    finally:
        await trio.aclose_forcefully(stream)


async def by_anyio() -> None:
    await anyio.aclose_forcefully(await anyio.connect_tcp(HOST, PORT, ssl_context=tls.contexts().client))


async def by_us() -> None:
    await trio.aclose_forcefully(await connect(HOST, PORT, tls=tls.contexts().client))


@pytest.mark.parametrize("scenario", RACES, ids=lambda scenario: scenario.title)
def test_peers_race_tcp_alone_and_have_no_second_chance(scenario: Scenario) -> None:
    """What takes longer than a minute, or fails, counts as never."""

    async def main(net: VirtualNetwork, call: Callable[[], Awaitable[None]]) -> float:
        describe(net, scenario.fates)
        try:
            with trio.fail_after(60):
                await call()
        except (OSError, trio.TooSlowError, trio.BrokenResourceError, anyio.BrokenResourceError):
            return math.inf
        return round(trio.current_time() * 1000, 3)

    ours, *theirs = (run(main, call) for call in (by_us, by_trio, by_anyio))
    assert ours <= min(theirs)
    # The first address answers TCP. Only where its TLS is good too do they connect at all.
    good = next(iter(scenario.fates.values())).kind == "ok"
    assert [took < math.inf for took in theirs] == [good] * 2


# --- peers that do race TLS -------------------------------------------------------------------------------------------


@virtual
async def test_okhttp_when_tls_fails_those_that_wait_behind_it_go_on_and_do_not_begin_anew(net: VirtualNetwork) -> None:
    """OkHttp takes the losers up again. Here they have not lost: what was begun beside is under way still."""
    net.host(six(1)).listen(PORT, partial(no_tls, 0.0), rtt=0.300)
    net.host(four(1)).listen(PORT, serve_tls, rtt=0.400)
    net.dns(HOST, aaaa=[six(1)], a=[four(1)])
    stream = await connect(HOST, PORT, tls=tls.contexts().client)
    assert rows(stream.report) == [(six(1), "first", 0.0, 600.0, "failed"), (four(1), "delay", 250.0, 1050.0, "won")]
    assert len(net.trace.connections) == 2
    await stream.aclose()


@virtual
async def test_okhttp_when_every_tls_fails_each_is_tried_once_and_named(net: VirtualNetwork) -> None:
    for address in (six(1), four(1), four(2)):
        net.host(address).listen(PORT, partial(no_tls, 0.0), rtt=RTT)
    net.dns(HOST, aaaa=[six(1)], a=[four(1), four(2)])
    with pytest.raises(ConnectFailed, match="plain text") as caught:
        await connect(HOST, PORT, tls=tls.contexts().client)
    assert caught.value.report is not None
    assert starts(caught.value.report) == {six(1): 0.0, four(1): 40.0, four(2): 80.0}
    assert all(address in str(caught.value) for address in (six(1), four(1), four(2)))


@virtual
async def test_ooni_what_worked_over_tls_is_remembered_also_by_another_process(
    net: VirtualNetwork, tmp_path: Path
) -> None:
    """OONI keeps which pairs of address and TLS worked, in a file, and tries those first."""
    describe(net, {six(1): Fate("hole"), four(1): Fate("ok", RTT)})
    history = History()

    async def took(history: History) -> tuple[float, int]:
        began = trio.current_time()
        stream = await connect(HOST, PORT, tls=tls.contexts().client, history=history)
        elapsed = trio.current_time() - began
        await stream.aclose()
        return ms(elapsed) or 0.0, len(stream.report.tried)

    assert await took(history) == (310.0, 2)
    assert await took(history) == (40.0, 1)
    history.save(tmp_path / "history")
    assert await took(History.load(tmp_path / "history")) == (40.0, 1)


@virtual
async def test_bun_and_node_a_slow_handshake_is_not_ended_by_the_next_start(net: VirtualNetwork) -> None:
    """Node destroys an attempt after 250 ms, Bun did so in the middle of TLS."""
    net.host(six(1)).listen(PORT, serve_tls, rtt=0.500)
    net.host(four(1)).silent(PORT, rtt=RTT)
    net.dns(HOST, aaaa=[six(1)], a=[four(1)])
    stream = await connect(HOST, PORT, tls=tls.contexts().client)
    assert round(trio.current_time() * 1000, 3) == 1000
    assert (stream.peer.host, outcomes(stream.report)) == (six(1), ["won", "lost"])
    await stream.aclose()


@virtual
async def test_apple_one_handshake_is_completed_and_no_server_sees_a_session_that_nobody_wants(
    net: VirtualNetwork,
) -> None:
    """Users of Apple's framework find WebSockets opened twice, for both handshakes were done."""
    completed: list[str] = []
    for address in (six(1), four(1)):
        net.host(address).listen(PORT, partial(serve_tls, completed=completed), rtt=0.300)
    net.dns(HOST, aaaa=[six(1)], a=[four(1)])
    stream = await connect(HOST, PORT, tls=tls.contexts().client)
    await trio.sleep(5)
    assert completed == [stream.peer.host] == [six(1)]
    await stream.aclose()


@virtual
async def test_taps_no_path_of_less_security_stands_in(net: VirtualNetwork) -> None:
    """RFC 9623 section 4: stacks of unequal security are never raced."""
    net.host(six(1)).listen(PORT, partial(no_tls, 0.0), rtt=0.001)
    net.host(four(1)).listen(PORT, serve_tls, rtt=0.300)
    kinds: list[type[TcpStream | TlsStream]] = []

    async def establish(stream: TcpStream | TlsStream) -> None:
        kinds.append(type(stream))

    options: dict[str, Any] = {"tls": tls.contexts().client, "server_hostname": HOST, "establish": establish}
    stream = await connectx([(six(1), PORT), (four(1), PORT)], **options)
    assert (kinds, stream.peer.host) == ([TlsStream], four(1))
    await stream.aclose()
