"""Connects with a `History`: what the second one knows, and what many at a time do to one host, in virtual time.

Times are those that docs/how-to/history.md promises.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import stat
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
import trio

from tests.net.racing import Recorder, Stopwatch, at, dead, good, ms, rows, starts, virtual
from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.sweep import Step, sweep
from trio_connect import (
    Adaptive,
    AttemptStarted,
    ConnectFailed,
    ConnectReport,
    EstablishFailed,
    History,
    RacePolicy,
    SocketOptions,
    Source,
    TcpStream,
    connect,
    connectx,
    now,
    order_endpoints,
    queues,
    tcp_listen,
)
from trio_connect.testing import VirtualNetwork, run

V6, V4, OTHER = "2001:db8::1", "192.0.2.1", "192.0.2.2"
ADAPTIVE = RacePolicy(attempt_delay=Adaptive())


async def once(history: History, *hosts: str, **options: Any) -> ConnectReport:
    """Connect to a name, or to addresses, once."""
    if hosts:
        stream: TcpStream = await connectx(at(*hosts), now() + 20_000, history=history, **options)
    else:
        stream = await connect("api.test", 443, now() + 20_000, history=history, **options)
    stream.abort()
    return stream.report


async def many(count: int, history: History, *hosts: str, **options: Any) -> list[ConnectReport]:
    reports: list[ConnectReport] = []

    async def one() -> None:
        reports.append(await once(history, *hosts, **options))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(one)
    return reports


def tried(report: ConnectReport) -> list[str]:
    return [attempt.endpoint.host for attempt in report.tried]


def causes(reports: list[ConnectReport]) -> Counter[Any]:
    return Counter(attempt.cause for report in reports for attempt in report.tried)


def name(net: VirtualNetwork, *, a_delay: float = 0.0) -> None:
    net.dns("api.test", aaaa=[V6], a=[V4], a_delay=a_delay)


# --- what the next connect knows --------------------------------------------------------------------------------------


@virtual
async def test_lines_37_and_84_the_second_connect_to_a_host_with_a_dead_address_wastes_no_attempt(net):
    dead(net, V6)
    good(net, V4)
    name(net)
    history = History()
    first = await once(history)
    assert (tried(first), ms(first.elapsed)) == ([V6, V4], 270)
    for _ in range(3):
        report = await once(history)
        assert (tried(report), ms(report.elapsed)) == ([V4], 20)
        (waiting,) = (attempt for attempt in report.attempts if attempt.started is None)
        assert waiting.history is None, "it was sorted behind before the race began"


@pytest.mark.parametrize("a_delay", [0.001, 0.049])
@virtual
async def test_line_84_an_answer_with_the_dead_address_alone_begins_no_race_before_the_resolution_delay(net, a_delay):
    dead(net, V6)
    good(net, V4)
    name(net, a_delay=a_delay)
    history = History()
    await once(history)
    report = await once(history)
    assert tried(report) == [V4]
    assert ms(report.elapsed) == round(20 + 1000 * a_delay)


@virtual
async def test_line_66_a_late_answer_starts_early_only_when_what_is_pending_is_known_to_make_no_progress(net):
    dead(net, V6)
    good(net, V4)
    name(net, a_delay=0.1)
    history = History()
    # Nothing is known of the pending attempt yet, so the next start is due when the attempt delay is over.
    assert rows(await once(history)) == [(V6, "first", 0, 270, "lost"), (V4, "delay", 250, 270, "won")]
    assert rows(await once(history)) == [(V6, "first", 50, 120, "lost"), (V4, "history", 100, 120, "won")]


@virtual
async def test_line_66_an_early_start_keeps_the_minimum_delay(net):
    dead(net, V6)
    good(net, V4)
    name(net, a_delay=0.055)
    history = History()
    await once(history)
    assert rows(await once(history)) == [(V6, "first", 50, 80, "lost"), (V4, "history", 60, 80, "won")]


@virtual
async def test_the_order_of_connectx_is_the_callers_but_for_what_failed(net):
    net.host(V6).refuse(0.01)
    good(net, V4, rtt=0.02)
    good(net, OTHER, rtt=0.001)
    history = History()
    assert tried(await once(history, V6, V4, OTHER)) == [V6, V4]
    await once(history, OTHER)
    report = await once(history, V6, V4, OTHER)
    assert tried(report) == [V4]
    assert [row.history for row in report.attempts] == [None, "put behind: connection refused 21.0 ms before", None]


@virtual
async def test_line_37_after_recovery_the_address_is_used_again_within_the_promised_time(net):
    dead(net, V6)
    good(net, V4)
    name(net)
    history = History()
    recovered = 1500.0
    reports: list[tuple[float, list[str]]] = []
    while trio.current_time() < recovered + 400:
        if trio.current_time() >= recovered:
            good(net, V6)
        reports.append((trio.current_time(), tried(await once(history))))
        await trio.sleep(5)
    wasted = [began for began, hosts in reports if began < recovered and hosts[0] == V6]
    # One connect at a time finds out, after 10 s, 20 s, 40 s and so on, and never less often than every five minutes.
    gaps = [later - earlier for earlier, later in pairwise(wasted)]
    assert [round(gap, -1) for gap in gaps[:5]] == [10, 20, 40, 80, 160]
    assert max(gaps) <= 300 + 6
    used_again = min(began for began, hosts in reports if hosts == [V6])
    assert recovered <= used_again <= recovered + 300 + 5
    assert all(hosts == [V6] for began, hosts in reports if began >= used_again)


@virtual
async def test_line_37_an_address_that_was_slow_does_not_lead_and_is_tried_again_within_the_promised_time(net):
    good(net, V6, rtt=0.4)
    good(net, V4)
    name(net)
    history = History()
    assert rows(await once(history)) == [(V6, "first", 0, 270, "lost"), (V4, "delay", 250, 270, "won")]
    (asked,) = [row for row in (await once(history)).attempts if row.endpoint.host == V6]
    assert asked.outcome == "not tried"
    await trio.sleep(9)
    assert tried(await once(history)) == [V4]
    good(net, V6, rtt=0.01)
    await trio.sleep(1)
    report = await once(history)
    assert tried(report) == [V6]
    assert report.attempts[0].history == "tried again: slow, no result within 270 ms, 10.04 s before"
    assert tried(await once(history)) == [V6]


@virtual
async def test_line_37_a_faster_address_is_found_within_ten_minutes_for_each_address(net):
    net.dns("api.test", a=[V4, OTHER, "192.0.2.3"])
    good(net, V4, rtt=0.02)
    good(net, OTHER, rtt=0.05)
    good(net, "192.0.2.3", rtt=0.01)
    history = History()
    leaders: list[str] = []
    for _ in range(30):
        leaders += tried(await once(history))
        await trio.sleep(60)
    assert leaders[:10] == [V4] * 10
    assert leaders[25:] == ["192.0.2.3"] * 5
    assert Counter(leaders) == {V4: 19, OTHER: 1, "192.0.2.3": 10}


@virtual
async def test_lines_32_and_33_order_endpoints_and_connect_prefer_the_faster_address_and_used_ones(net):
    net.dns("api.test", a=[V4, OTHER])
    good(net, V4, rtt=0.05)
    good(net, OTHER, rtt=0.01)
    history = History()
    hosts = at("192.0.2.3", V4, OTHER)
    assert [endpoint.host for endpoint in order_endpoints(hosts, history=history)] == ["192.0.2.3", V4, OTHER]
    await once(history, V4)
    assert [endpoint.host for endpoint in order_endpoints(hosts, history=history)] == [V4, "192.0.2.3", OTHER]
    await once(history, OTHER)
    assert [endpoint.host for endpoint in order_endpoints(hosts, history=history)] == [OTHER, V4, "192.0.2.3"]
    assert tried(await once(history)) == [OTHER]


@virtual
async def test_line_34_partitions_do_not_learn_from_each_other(net):
    dead(net, V6)
    good(net, V4)
    name(net)
    history = History()
    await once(history.partition("one"))
    assert tried(await once(history.partition("one"))) == [V4]
    assert tried(await once(history.partition("other"))) == [V6, V4]
    assert tried(await once(history)) == [V6, V4]
    assert len(history) == len(history.partition("one")) == 6


@virtual
async def test_lines_35_and_36_networks_do_not_and_one_that_is_known_again_is_remembered(net):
    dead(net, V6)
    good(net, V4)
    name(net)
    history = History()
    history.use_network("home")
    await once(history)
    history.use_network("away")
    assert tried(await once(history)) == [V6, V4]
    history.use_network("home")
    assert tried(await once(history)) == [V4]
    history.clear()
    assert tried(await once(history)) == [V6, V4]
    history.use_network("away")
    assert tried(await once(history)) == [V4]


@virtual
async def test_sources_are_remembered_apart(net):
    good(net, V4)
    net.host(V6).refuse(0.01)
    here = Source(interface="eth1")
    history = History()
    await once(history, V6, V4)
    assert tried(await once(history, V6, V4)) == [V4]
    assert tried(await once(history, V6, V4, sources=[Source("192.0.2.254", "2001:db8::fe")])) == [V6, V4]
    history.failed((V4, 443), "bad", source=here)
    assert tried(await once(history, V4)) == [V4]
    order = order_endpoints(at(V4, OTHER), history=history)
    assert [endpoint.host for endpoint in order] == [V4, OTHER]


@virtual
async def test_what_an_establish_refuses_is_learned(net):
    good(net, V4, OTHER)
    history = History()

    async def greet(stream: TcpStream) -> None:
        if stream.peer.host == V4:
            raise EstablishFailed("421 too busy")

    assert tried(await once(history, V4, OTHER, establish=greet)) == [V4, OTHER]
    report = await once(history, V4, OTHER, establish=greet)
    assert tried(report) == [OTHER]
    assert report.attempts[1].history == "put behind: 421 too busy 20.0 ms before"


@virtual
async def test_what_is_told_after_the_connect_is_learned_and_the_time_doubles_although_tcp_connects(net):
    good(net, V4, OTHER)
    history = History()
    for wait in (10, 20, 40):
        assert tried(await once(history, V4, OTHER)) == [V4]
        history.failed((V4, 443), "certificate has expired")
        history.failed((V4, 443), "certificate has expired")
        report = await once(history, V4, OTHER)
        assert tried(report) == [OTHER]
        assert report.attempts[1].history == "put behind: certificate has expired 0.0 ms before"
        await trio.sleep(wait - 1)
        assert tried(await once(history, V4, OTHER)) == [OTHER]
        await trio.sleep(1)


# --- many at a time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["name", "addresses"])
@virtual
async def test_line_84_of_100_concurrent_connects_to_a_dead_address_16_hedge(net, by):
    dead(net, V6)
    good(net, V4)
    name(net)
    hosts = () if by == "name" else (V6, V4)
    history = History()
    watch = Stopwatch()
    reports = await many(100, history, *hosts)
    assert causes(reports) == {"first": 100, "delay": 16, "history": 84}
    assert watch.ms == 290
    assert causes(await many(100, history, *hosts)) == {"first": 100}
    # Without one.
    reports = await many(100, History().partition("x"), *hosts, policy=RacePolicy(max_in_flight=1000))
    assert causes(reports)["delay"] == 100


@virtual
async def test_line_84_connects_that_come_one_after_the_other_learn_from_the_first_hedge(net):
    dead(net, V6)
    good(net, V4)
    name(net)
    history = History()
    reports: list[ConnectReport] = []

    async def one() -> None:
        reports.append(await once(history))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(one)
            await trio.sleep(1 / 32)
    # Eight began before the first one hedged.
    assert causes(reports) == {"first": 100, "delay": 1, "history": 7}
    assert sum(tried(report)[0] == V6 for report in reports) == 8
    assert max(report.elapsed for report in reports) <= 0.271


@virtual
async def test_line_84_on_trial_one_connect_of_many_finds_out(net):
    dead(net, V6)
    good(net, V4)
    name(net)
    history = History()
    await once(history)
    await trio.sleep(10)
    reports = await many(100, history)
    assert causes(reports) == {"first": 100, "delay": 1}
    assert sum(tried(report)[0] == V6 for report in reports) == 1


@virtual
async def test_a_budget_lets_one_connect_in_twenty_hedge(net):
    """Both addresses are slower than the delay, so without a budget every connect makes two attempts."""
    policy = RacePolicy(attempt_delay=0.05)
    good(net, V4, OTHER, rtt=0.06)
    history = History(hedge_budget=2)
    reports = [await once(history, V4, OTHER, policy=policy) for _ in range(100)]
    assert causes(reports) == {"first": 100, "delay": 2 + 4}
    reports = [await once(History(), V4, OTHER, policy=policy) for _ in range(100)]
    assert causes(reports) == {"first": 100, "delay": 100}


@virtual
async def test_a_start_that_a_failure_causes_needs_no_budget(net):
    net.host(V6).refuse(0.01)
    good(net, V4)
    history = History(hedge_budget=1, retry_after=0.001, retry_at_most=0.001)
    for _ in range(10):
        assert rows(await once(history, V6, V4)) == [(V6, "first", 0, 10, "failed"), (V4, "failure", 10, 30, "won")]


@virtual
async def test_a_race_without_a_token_goes_on_when_its_attempt_fails(net):
    dead(net, V4)
    good(net, OTHER)
    policy = RacePolicy(attempt_timeout=0.9)
    history = History(hedge_budget=1, retry_after=0.001, retry_at_most=0.001)
    assert ms((await once(history, V4, OTHER, policy=policy)).elapsed) == 270
    await trio.sleep(1)
    report = await once(history, V4, OTHER, policy=policy)
    assert rows(report) == [(V4, "first", 0, 900, "timed out"), (OTHER, "failure", 900, 920, "won")]


async def test_line_84_over_sockets_of_the_kernel_too_a_race_hears_what_another_one_has_learned(sockets: Sockets):
    """The second race would wait for half a minute by itself."""
    history = History()
    hurried, patient = (RacePolicy(attempt_delay=delay, attempt_timeout=math.inf) for delay in (0.05, 30.0))
    async with no_leaks(counters=sockets.counters), faults.echoing() as good_one:
        with faults.black_hole() as hole, trio.fail_after(10):
            reports: list[ConnectReport] = []

            async def one(policy: RacePolicy) -> None:
                endpoints = [hole.pair, good_one.address.pair]
                stream: TcpStream = await connectx(endpoints, policy=policy, history=history)
                stream.abort()
                reports.append(stream.report)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(one, patient)
                nursery.start_soon(one, hurried)
    assert sorted(str(attempt.cause) for report in reports for attempt in report.tried) == [
        "delay",
        "first",
        "first",
        "history",
    ]


# --- adaptive delays --------------------------------------------------------------------------------------------------


@virtual
async def test_line_48_the_delay_is_250_ms_before_anything_is_known_and_then_follows_the_round_trip(net):
    good(net, V4, rtt=0.05)
    good(net, OTHER)
    history = History()
    recorder = Recorder()
    first = await once(history, V4, OTHER, policy=ADAPTIVE, observer=recorder)
    assert [(row.delay, row.delay_reason) for row in first.tried] == [(0.25, "initial: no round trip is known")]
    (begun,) = (event for event in recorder.events if isinstance(event, AttemptStarted))
    assert (begun.delay, begun.delay_reason, begun.history) == (0.25, "initial: no round trip is known", None)
    dead(net, V4)
    report = await once(history, V4, OTHER, policy=ADAPTIVE)
    # 2 * 50 ms + 4 * 25 ms
    assert starts(report) == {V4: 0, OTHER: 200}
    assert report.attempts[0].delay_reason == "round trip 50 ms +- 25 ms"
    data = json.loads(json.dumps(report.to_dict()))["attempts"][0]
    assert (data["delay_us"], data["delay_reason"], data["history"]) == (200_000, "round trip 50 ms +- 25 ms", None)
    assert "lost after 220 ms, delay 200 ms (round trip 50 ms +- 25 ms)" in report.draw(120)
    assert all(len(line) <= 60 for line in report.draw(60).splitlines())


@virtual
async def test_line_48_a_retransmission_does_not_make_the_delay_longer(net):
    good(net, V4, rtt=0.05)
    good(net, OTHER)
    history = History()
    await once(history, V4, OTHER, policy=ADAPTIVE)
    good(net, V4, rtt=1.05)
    await once(history, V4, policy=ADAPTIVE)
    assert (await once(history, V4, OTHER, policy=ADAPTIVE)).attempts[0].delay == pytest.approx(0.2)


async def test_a_connect_with_fast_open_measures_nothing(sockets: Sockets):
    """It succeeds before the peer has answered, once there is a cookie."""

    async def nothing(_stream: TcpStream) -> None: ...

    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        for fast_open, known in ((True, False), (False, True)):
            history = History()
            options = SocketOptions(fast_open=fast_open)
            whys: list[str | None] = []
            for _ in range(2):
                stream = await connectx(
                    [listener.endpoint], policy=ADAPTIVE, history=history, options=options, establish=nothing
                )
                stream.abort()
                whys.append(stream.report.attempts[0].delay_reason)
            # How long it takes is the machine's to say: on a busy one it is more than the minimum stands for.
            assert (whys[1] or "").startswith("initial: no round trip") == (not known)


@virtual
async def test_line_49_the_delay_is_the_same_over_whatever_is_established(net):
    good(net, V4, rtt=0.1)
    history = History()
    await once(history, V4, policy=ADAPTIVE)

    async def nothing(_stream: TcpStream) -> None: ...

    plain = await once(history.partition("x"), V4, policy=ADAPTIVE)
    other = await once(history.partition("y"), V4, policy=ADAPTIVE, establish=nothing)
    assert plain.attempts[0].delay == other.attempts[0].delay


@pytest.mark.parametrize("policy", [ADAPTIVE], ids=["adaptive"])
async def test_line_48_adaptive_without_a_history_is_a_value_error(policy, sockets: Sockets):
    async with no_leaks(counters=sockets.counters):
        with pytest.raises(ValueError, match="an Adaptive attempt_delay learns from a History: pass history="):
            await connectx(at(V4), policy=policy)
        with pytest.raises(ValueError, match="an Adaptive attempt_delay learns from a History: pass history="):
            await connect("api.test", 443, policy=policy)
        async with queues.open_queue_set() as qs:
            with pytest.raises(ValueError, match="an Adaptive attempt_delay learns from a History: pass history="):
                qs.connectx(at(V4), policy=policy)


# --- the object -------------------------------------------------------------------------------------------------------


@virtual
async def test_queues_take_one(net):
    dead(net, V6)
    good(net, V4)
    history = History()
    await once(history, V6, V4)
    async with queues.open_queue_set() as qs:
        result = await qs.wait(qs.connectx(at(V6, V4), history=history))
        assert tried(result.unwrap().report) == [V4]
    with pytest.raises(TypeError, match="history must be a History or None"):
        async with queues.open_queue_set() as qs:
            qs.connectx(at(V4), history=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"size": 0}, ValueError, "size must be at least 1"),
        ({"size": 1.0}, TypeError, "size must be an int"),
        ({"retry_after": 0}, ValueError, "retry_after must be above 0 and finite, got 0"),
        ({"retry_after": True}, TypeError, "retry_after must be a number of seconds"),
        ({"retry_after": 301}, ValueError, "retry_at_most must be at least retry_after, 301, got 300"),
        ({"retry_at_most": math.inf}, ValueError, "retry_at_most must be above 0 and finite"),
        ({"explore_after": -1}, ValueError, "explore_after must be above 0"),
        ({"lifetime": math.nan}, ValueError, "lifetime must be a number of seconds"),
        ({"hedge_budget": 0.5}, ValueError, "hedge_budget must be at least 1, or None, got 0.5"),
        ({"hedge_budget": "2"}, TypeError, "hedge_budget must be a number of starts, or None"),
    ],
)
def test_its_numbers_are_checked(options, error, text):
    with pytest.raises(error, match=text):
        History(**options)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"endpoint": "192.0.2.1:443"}, TypeError),
        ({"endpoint": ("a name", 443)}, ValueError),
        ({"reason": None}, TypeError),
        ({"source": "192.0.2.9"}, TypeError),
    ],
)
def test_what_failed_is_checked(arguments, error):
    with pytest.raises(error):
        History().failed(**{"endpoint": (V4, 443), "reason": "bad", **arguments})


def test_names_of_partitions_and_networks_are_texts():
    with pytest.raises(TypeError, match="name must be a str"):
        History().partition(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="name must be a str"):
        History().use_network(None)  # type: ignore[arg-type]


async def test_order_endpoints_takes_no_other_memory(vnet, autojump_clock):
    with pytest.raises(TypeError, match="history must be a History or None"):
        order_endpoints(at(V4), history={})  # type: ignore[arg-type]


def test_it_says_how_much_it_remembers_and_an_empty_one_is_one_too():
    history = History()
    assert (repr(history), len(history), bool(history)) == ("<History, 0 addresses>", 0, True)
    history.failed((V4, 443), "bad")
    assert repr(history.partition("x")) == "<History of partition 'x', 1 address>"


def test_a_reason_is_one_line():
    history = History()
    history.failed((V4, 443), "bad\x1b[2J\ncertificate")

    async def main(net: VirtualNetwork) -> None:
        good(net, V4)
        report = await once(history, V4)
        assert (report.attempts[0].history or "").startswith("put behind: bad\\x1b[2J certificate ")

    run(main)


# --- its clock and its file -------------------------------------------------------------------------------------------


def in_a_run(history: History, *waits: float) -> list[list[str]]:
    """The hosts that connects in a run of their own try, each after a wait."""
    seen: list[list[str]] = []

    async def main(net: VirtualNetwork) -> None:
        dead(net, V6)
        good(net, V4)
        for wait in waits:
            await trio.sleep(wait)
            seen.append(tried(await once(history, V6, V4)))

    run(main)
    return seen


def test_its_clock_goes_on_over_several_runs_and_between_them(monkeypatch):
    outside = 0.0
    monkeypatch.setattr("trio_connect._net.history.monotonic", lambda: outside)
    history = History()
    assert in_a_run(history, 1000.0) == [[V6, V4]]
    assert in_a_run(history, 0.0, 9.0) == [[V4], [V4]]
    assert in_a_run(history, 0.0, 2.0) == [[V4], [V6, V4]]
    assert in_a_run(history, 0.0) == [[V4]]
    outside += 1000.0
    assert in_a_run(history, 0.0) == [[V6, V4]]


def test_it_is_saved_and_loaded(tmp_path):
    path = tmp_path / "history.json"
    history = History()
    in_a_run(history, 0.0)
    history.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.json"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = History.load(str(path), retry_after=5.0)
    assert len(loaded) == 2
    assert in_a_run(loaded, 0.0, 11.0) == [[V4], [V6, V4]]


def test_times_in_the_file_are_ages_so_the_time_between_counts(tmp_path):
    path = tmp_path / "history.json"
    history = History()
    in_a_run(history, 0.0)
    history.save(path)
    data = json.loads(path.read_text())
    data["saved_at"] -= 11
    path.write_text(json.dumps(data))
    assert in_a_run(History.load(path), 0.0) == [[V6, V4]]


def test_without_a_file_it_is_empty(tmp_path):
    assert len(History.load(tmp_path / "none")) == 0


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b'{"version": 2}', b"[" * 100_000, b'{"version": 1, "entries": [7]}']
)
def test_a_file_that_cannot_be_understood_is_moved_aside_with_a_warning(tmp_path, content, caplog):
    path = tmp_path / "history.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING, "trio_connect"):
        assert len(History.load(path)) == 0
    aside = tmp_path / "history.json.corrupt"
    assert (path.exists(), aside.read_bytes()) == (False, content)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"the history {path} cannot be used, and is now {aside}: ")
    History().save(path)
    assert len(History.load(path)) == 0


def test_a_file_that_cannot_be_written_leaves_the_earlier_one_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "history.json"
    History().save(path)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    history = History()
    history.failed((V4, 443), "bad")
    with pytest.raises(OSError, match="No space left"):
        history.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["history.json"]


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path):
    with pytest.raises(IsADirectoryError):
        History.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        History().save(tmp_path / "none" / "history.json")


def test_no_secret_and_no_name_is_in_the_file(tmp_path):
    """What is kept: addresses, times, reasons."""
    path = tmp_path / "history.json"
    history = History()
    in_a_run(history, 0.0)
    history.save(path)
    assert set(json.loads(path.read_text())["entries"][0]) == {
        "network", "partition", "source", "endpoint", "scope", "flowinfo", "since", "heard", "tried", "used",
        "measured", "failed", "srtt", "rttvar", "failures", "left", "slow", "reason",
    }  # fmt: skip


# --- cancel at every step ---------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def peers(kinds: list[str]) -> AsyncIterator[list[tuple[str, int]]]:
    async with contextlib.AsyncExitStack() as stack:
        endpoints = []
        for kind in kinds:
            if kind == "good":
                endpoints.append((await stack.enter_async_context(faults.echoing())).address.pair)
            else:
                fault = faults.refusing() if kind == "refused" else faults.black_hole()
                endpoints.append(stack.enter_context(fault).pair)
        yield endpoints


@pytest.mark.parametrize("kinds", ["good", "hole good", "refused hole"])
async def test_line_77_a_cancel_at_any_step_leaves_nothing_under_way(kinds, sockets: Sockets, autojump_clock, modes):
    policy = RacePolicy(attempt_delay=0.010, attempt_timeout=math.inf)
    histories: list[History] = []

    async def operation(endpoints: list[tuple[str, int]]) -> TcpStream:
        history = History(hedge_budget=5)
        histories.append(history)
        stream: TcpStream = await connectx(endpoints, policy=policy, history=history)
        return stream

    async def check(_endpoints: object, step: Step) -> None:
        memory: Any = histories.pop()._shared.memory
        assert (memory.waits, memory.hedges) == ({}, {}), step

    await sweep(
        operation,
        environment=lambda: peers(kinds.split()),
        modes=modes,
        raises=ConnectFailed,
        counters=sockets.counters,
        check=check,
        quiet=0.015,
    )
