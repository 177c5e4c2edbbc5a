"""What the trace says, and the picture it draws."""

from __future__ import annotations

import attrs
import pytest
import trio

from trio_connect.testing import Trace, TraceEvent, VirtualNetwork, echo, run
from trio_connect.testing._trace import Recorder

SIX, FOUR = "2001:db8::1", "192.0.2.1"


async def a_race(net: VirtualNetwork) -> Trace:
    net.dns("api.test", aaaa=[SIX], a=[FOUR], a_delay=0.010)
    net.host(SIX).blackhole()
    net.host(FOUR).listen(443, echo, rtt=0.040)
    async with await trio.open_tcp_stream("api.test", 443) as stream:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"
    await trio.sleep(1)
    return net.trace


def test_the_events_of_a_race_in_canonical_order() -> None:
    trace = run(a_race)
    assert trace.canonical() == (
        "0.000000000 lookup api.test #0  AAAA\n"
        "0.000000000 lookup api.test #0  A\n"
        "0.000000000 answer api.test #0  AAAA 2001:db8::1\n"
        "0.010000000 start [2001:db8::1]:443 #0 192.0.2.254\n"
        "0.010000000 answer api.test #0  A 192.0.2.1\n"
        "0.260000000 start 192.0.2.1:443 #0 192.0.2.254\n"
        "0.300000000 connected 192.0.2.1:443 #0 192.0.2.254\n"
        "0.300000000 abandoned [2001:db8::1]:443 #0 192.0.2.254\n"
        "0.320000000 accepted 192.0.2.1:443 #0 192.0.2.1\n"
        "0.340000000 closed 192.0.2.1:443 #0 192.0.2.254 5 B out, 5 B in\n"
        "0.360000000 closed 192.0.2.1:443 #0 192.0.2.1 5 B out, 5 B in\n"
    )
    assert trace.starts == {SIX: 0.01, FOUR: 0.26}
    assert trace.live_max == 2


def test_the_waterfall_of_a_race() -> None:
    picture = run(a_race).waterfall()
    assert picture.splitlines() == [
        "                   0               300 ms",
        "A api.test         =|                      at   0 ms: 192.0.2.1 after 10 ms",
        "AAAA api.test      |                       at   0 ms: 2001:db8::1",
        "[2001:db8::1]:443   ====================~  at  10 ms: abandoned after 290 ms",
        "192.0.2.1:443                        ===*  at 260 ms: connected after 40 ms, 5 B out, 5 B in",
    ]
    assert max(map(len, run(a_race).waterfall(width=80).splitlines())) <= 80


def test_the_waterfall_of_what_goes_on_and_of_what_failed() -> None:
    async def main(net: VirtualNetwork) -> Trace:
        net.host(FOUR).refuse(after=0.5)
        net.host("192.0.2.2").blackhole()
        net.host("192.0.2.3").listen(80, echo)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.open_tcp_stream, "192.0.2.2", 80)
            stream = await trio.open_tcp_stream("192.0.2.3", 80)
            await stream.send_all(b"abc")
            with pytest.raises(OSError, match="all attempts"):
                await trio.open_tcp_stream(FOUR, 80)
            picture = net.trace.waterfall()
            nursery.cancel_scope.cancel()
        rows = dict(row.split("  ", 1) for row in picture.splitlines()[1:])
        assert rows["192.0.2.1:80"].endswith("x  at 0 ms: connection refused after 500 ms")
        assert rows["192.0.2.2:80"].endswith(">  at 0 ms: connecting")
        assert rows["192.0.2.3:80"].endswith("  at 0 ms: connected, 3 B out, 0 B in")
        assert net.trace.waterfall(rows=1).endswith("... and 2 more\n")
        return net.trace

    trace = run(main)
    assert [connection.outcome for connection in trace.connections] == ["ECONNREFUSED", "abandoned", "connected"]
    assert Trace().waterfall() == "(nothing happened on the virtual network)\n"


def test_events_of_one_instant_are_ordered_by_host_port_and_ordinal() -> None:
    recorder = Recorder()
    events = [
        TraceEvent(at, "start", host, port, ordinal, "192.0.2.254")
        for at in (0.0, 1.0)
        for host in (FOUR, SIX)
        for port in (80, 443)
        for ordinal in (0, 1)
    ]
    for event in reversed(events):
        recorder.add(event)
    assert Trace(recorder).events == tuple(events)
    assert str(attrs.evolve(events[-1], detail="x")) == f"1.000000000 start [{SIX}]:443 #1 192.0.2.254 x"


def test_both_ends_of_a_reset_are_told_apart() -> None:
    async def leave(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)

    async def main(net: VirtualNetwork) -> Trace:
        net.host(FOUR).listen(443, leave, rtt=0.1)
        stream = await trio.open_tcp_stream(FOUR, 443)
        await stream.send_all(b"more than it reads")
        await trio.sleep(1)
        await stream.aclose()
        net.host(SIX).listen(443, echo, rtt=0.1)
        stream = await trio.open_tcp_stream(SIX, 443)
        await stream.send_all(b"x")
        await trio.sleep(1)
        await stream.aclose()
        await trio.sleep(1)
        return net.trace

    resets = [event for event in run(main).events if event.kind == "reset"]
    assert [(event.source, event.host) for event in resets] == [("192.0.2.254", FOUR), (SIX, SIX)]
