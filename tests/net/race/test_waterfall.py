"""How a report reads: `str(report)` of races on the virtual network, to the letter."""

from __future__ import annotations

import math
import socket

import pytest

from tests.net.racing import at, dead, good, virtual
from trio_connect import (
    ConnectFailed,
    ConnectReport,
    DeadlineExceeded,
    EstablishFailed,
    RacePolicy,
    ResolveFailed,
    Source,
    TcpStream,
    connect,
    connectx,
    now,
)


def reads(report: ConnectReport, picture: str) -> None:
    lines = [line[4:] for line in picture.strip("\n").splitlines()]
    assert str(report).splitlines() == [line.rstrip() for line in lines if line.strip()]


@virtual
async def test_a_race_with_every_outcome(net):
    dead(net, "192.0.2.1", "192.0.2.5")
    net.host("192.0.2.2").refuse(0.1)
    net.host("192.0.2.3").silent(443, rtt=0.01)
    good(net, "192.0.2.4", "192.0.2.6", "192.0.2.7")

    async def establish(stream: TcpStream) -> TcpStream:
        if stream.peer.host == "192.0.2.3":
            await stream.receive_some()
        if stream.peer.host == "192.0.2.4":
            raise EstablishFailed
        return stream

    hosts = [f"192.0.2.{n}" for n in range(1, 8)]
    policy = RacePolicy(attempt_timeout=0.85)
    stream = await connectx(
        [("2001:db8::1", 443), *at(*hosts)], establish=establish, policy=policy, sources=[Source(ipv4="192.0.2.254")]
    )
    stream.abort()
    reads(stream.report, """
                              0   870 ms
    192.0.2.1:443....0.2.254  =========!  at   0 ms: timed out after 850 ms
    192.0.2.2:443....0.2.254     =x       at 250 ms: connection refused after 100 ms
    192.0.2.3:443....0.2.254      =====~  at 350 ms: lost in establish after 520 ms
    192.0.2.4:443....0.2.254        =x    at 610 ms: EstablishFailed after 20 ms
    192.0.2.5:443....0.2.254         ==~  at 630 ms: lost after 240 ms
    192.0.2.6:443....0.2.254           *  at 850 ms: won after 20 ms
    192.0.2.7:443....0.2.254              not tried
    [2001:db8::1]:443                     skipped: no source of its family
    connected to 192.0.2.6:443 in 870 ms, 5 other attempts
    """)  # fmt: skip


@virtual
async def test_lookups_and_attempts_on_one_axis(net):
    dead(net, "2001:db8::1")
    good(net, "192.0.2.1")
    net.dns("api.test", aaaa=["2001:db8::1"], a=["192.0.2.1"], a_delay=0.1)
    stream = await connect("api.test", 443)
    stream.abort()
    reads(stream.report, """
                       0                   270 ms
    AAAA api.test      |                           at   0 ms: 1 address
    A api.test         =========|                  at   0 ms: 1 address after 100 ms
    [2001:db8::1]:443  =========================~  at   0 ms: lost after 270 ms
    192.0.2.1:443                             ==*  at 250 ms: won after 20 ms
    connected to 192.0.2.1:443 in 270 ms, 1 other attempt
    """)  # fmt: skip


@virtual
async def test_a_lookup_that_failed_and_one_that_was_cancelled(net):
    good(net, "192.0.2.1")
    net.dns("api.test", aaaa=["2001:db8::1"], a=["192.0.2.1"], aaaa_delay=math.inf)
    stream = await connect("api.test", 443)
    stream.abort()
    reads(stream.report, """
                   0                          70 ms
    AAAA api.test  ===============================~  at  0 ms: cancelled after 70 ms
    A api.test     |                                 at  0 ms: 1 address
    192.0.2.1:443                        =========*  at 50 ms: won after 20 ms
    connected to 192.0.2.1:443 in 70 ms
    """)  # fmt: skip
    net.dns("api.test", aaaa=["2001:db8::1"], a_error=socket.EAI_AGAIN, aaaa_error=socket.EAI_FAIL, a_delay=0.02)
    with pytest.raises(ResolveFailed) as caught:
        await connect("api.test", 443)
    reads(caught.value.report, """
                   0    20 ms
    AAAA api.test  x           at 0 ms: Non-recoverable failure in name resolution
    A api.test     =========x  at 0 ms: Temporary failure in name res... after 20 ms
    no connection after 20 ms
    """)  # fmt: skip


@virtual
async def test_races_without_a_winner(net):
    dead(net, "192.0.2.1")
    net.host("192.0.2.2").refuse(0.005)
    with pytest.raises(DeadlineExceeded) as expired:
        await connectx(at("192.0.2.1", "192.0.2.2"), now() + 100)
    assert expired.value.report is not None
    reads(expired.value.report, """
                   0                         100 ms
    192.0.2.1:443  ===============================~  at 0 ms: cancelled after 100 ms
    192.0.2.2:443                                    not tried
    no connection after 100 ms
    """)  # fmt: skip
    with pytest.raises(ConnectFailed) as failed:
        await connectx(at("192.0.2.2"))
    reads(failed.value.report, """
                   0                    5 ms
    192.0.2.2:443  ========================x  at 0 ms: connection refused after 5 ms
    no connection after 5 ms
    """)  # fmt: skip
    with pytest.raises(ConnectFailed) as skipped:
        await connectx(at("192.0.2.2"), sources=[Source(ipv6="2001:db8::fe")])
    reads(skipped.value.report, """
    192.0.2.2:443                                   skipped: no source of its family
    no connection after 0 ms
    """)  # fmt: skip


@virtual
async def test_a_race_that_took_no_time(net):
    good(net, "192.0.2.1", rtt=0)
    stream = await connectx(at("192.0.2.1"))
    stream.abort()
    reads(stream.report, """
    192.0.2.1:443  *                                         at 0 ms: won
    connected to 192.0.2.1:443 in 0 ms
    """)  # fmt: skip


def test_the_empty_report():
    reads(ConnectReport(), """
    no connection after 0 ms
    """)  # fmt: skip
    assert ConnectReport().winner is None
    assert ConnectReport().to_dict() == {
        "version": 1, "started_at_us": 0, "elapsed_us": 0, "lookups": [], "attempts": [],
        "multipath": None, "winner": None,
    }  # fmt: skip
