"""`connect`, `resolve` and `order_endpoints`: from names to connections, in virtual time and on loopback."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import socket
from collections.abc import AsyncIterator
from socket import AF_INET, AF_INET6, AddressFamily
from typing import Any

import pytest
import trio
import trio.testing

from tests.net.racing import Recorder, Stopwatch, at, causes, dead, good, outcomes, rows, starts, virtual
from tests.support import faults
from tests.support.sockets import Sockets
from tests.support.sweep import Step, sweep
from trio_connect import (
    Answer,
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    EstablishFailed,
    LookupStarted,
    RacePolicy,
    ResolveFailed,
    Source,
    StaticResolver,
    TcpStream,
    connect,
    now,
    order_endpoints,
    resolve,
)

V6, V4 = "2001:db8::1", "192.0.2.1"
SOON = RacePolicy(attempt_delay=0.010)
PATIENT = RacePolicy(attempt_delay=0.010, attempt_timeout=math.inf)


class ScriptedResolver:
    """Answers after a delay, per family; an error is raised, None never comes."""

    def __init__(self, aaaa=(), a=(), *, aaaa_after: float = 0.0, a_after: float = 0.0) -> None:
        self.script = {AF_INET6: (aaaa, aaaa_after), AF_INET: (a, a_after)}
        self.asked: list[tuple[str, AddressFamily]] = []

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        self.asked.append((host, family))
        answer, after = self.script[family]
        await trio.sleep(after)
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Answer) else Answer(tuple(answer))


# --- the gate and the race together -----------------------------------------------------------------------------------


@virtual
async def test_lines_1_2_and_5_both_questions_at_once_aaaa_first(net):
    good(net, V6)
    net.dns("api.test", aaaa=[V6], a=[V4], a_delay=1)
    recorder = Recorder()
    stream = await connect("api.test", 443, observer=recorder)
    assert [(lookup.kind, lookup.started) for lookup in stream.report.lookups] == [("AAAA", 0.0), ("A", 0.0)]
    asked = [event.kind for event in recorder.events if isinstance(event, LookupStarted)]
    assert asked == ["AAAA", "A"]
    # The first answer and the second question share an instant.
    assert sorted(recorder.names[:3]) == ["LookupFinished", "LookupStarted", "LookupStarted"]
    assert recorder.names[3:] == ["AttemptStarted", "AttemptFinished", "LookupFinished", "RaceFinished"]
    stream.abort()


@virtual
async def test_line_6_and_9_aaaa_one_second_late_connects_at_70_ms(net):
    good(net, V6, V4)
    net.dns("api.test", aaaa=[V6], a=[V4], aaaa_delay=1)
    watch = Stopwatch()
    stream = await connect("api.test", 443)
    assert watch.ms == 70
    assert rows(stream.report) == [(V4, "first", 50, 70, "won")]
    stream.abort()


@virtual
async def test_line_9_aaaa_ten_milliseconds_later_goes_first_at_that_instant(net):
    good(net, V6, V4)
    net.dns("api.test", aaaa=[V6], a=[V4], aaaa_delay=0.010)
    stream = await connect("api.test", 443)
    assert rows(stream.report) == [(V6, "first", 10, 30, "won"), (V4, None, None, None, "not tried")]
    stream.abort()


# What an implementation that asks for each family by itself reaches, or better.
TABLE = {
    "AAAA 1 s late, A at 0": ([V6], [V4], 1.0, 0.0, "good", "good", 70),
    "A 1 s late, AAAA at 0": ([V6], [V4], 0.0, 1.0, "good", "good", 20),
    "AAAA at 30": ([V6], [V4], 0.03, 0.0, "good", "good", 50),
    "3 v6 black holes at 0, A at 100": ([V6, "2001:db8::2", "2001:db8::3"], [V4], 0, 0.1, "dead", "good", 270),
    "3 v6 black holes at 0, A at 300": ([V6, "2001:db8::2", "2001:db8::3"], [V4], 0, 0.3, "dead", "good", 520),
    "2 v4 black holes at 0, AAAA at 100": ([V6], ["192.0.2.1", "192.0.2.2"], 0.1, 0, "good", "dead", 320),
    "v6 refused at 0, A at 300": ([V6], [V4], 0, 0.3, "refused", "good", 320),
}  # fmt: skip


@pytest.mark.parametrize("row", TABLE)
@virtual
async def test_line_10_every_row_of_the_table_of_resolver_timing(net, row):
    aaaa, a, aaaa_delay, a_delay, six, four, wanted = TABLE[row]
    for hosts, kind in ((aaaa, six), (a, four)):
        for host in hosts:
            if kind == "refused":
                net.host(host).refuse(0)
            elif kind == "good":
                good(net, host)
            else:
                dead(net, host)
    net.dns("api.test", aaaa=aaaa, a=a, aaaa_delay=aaaa_delay, a_delay=a_delay)
    watch = Stopwatch()
    stream = await connect("api.test", 443)
    assert watch.ms == wanted
    stream.abort()


@pytest.mark.parametrize("slow", ["AAAA", "A"])
@pytest.mark.parametrize("delay", [0.5, 30.0, math.inf])
@virtual
async def test_lines_7_8_and_53_a_late_or_missing_answer_of_one_family_never_stalls(net, slow, delay):
    good(net, V6, V4)
    net.dns("api.test", aaaa=[V6], a=[V4], **{"aaaa_delay" if slow == "AAAA" else "a_delay": delay})
    watch = Stopwatch()
    stream = await connect("api.test", 443)
    assert watch.ms == (70 if slow == "AAAA" else 20)
    # Line 53: what is not needed any more is cancelled, and on record.
    cancelled = {lookup.kind: (lookup.answer, lookup.error) for lookup in stream.report.lookups}
    assert cancelled[slow] == (None, None)
    assert [row.outcome for row in net.trace.lookups if row.kind == slow] == ["cancelled"]
    stream.abort()


@virtual
async def test_line_19_an_empty_answer_ends_the_wait(net):
    good(net, V4)
    net.dns("api.test", a=[V4], aaaa_delay=0.01)
    watch = Stopwatch()
    stream = await connect("api.test", 443)
    assert watch.ms == 30
    stream.abort()


@virtual
async def test_lines_7_and_19_so_does_an_error(net):
    good(net, V4)
    net.dns("api.test", aaaa=[V6], a=[V4], aaaa_error=socket.EAI_AGAIN)
    watch = Stopwatch()
    stream = await connect("api.test", 443)
    assert watch.ms == 20
    lookups: tuple[Any, ...] = stream.report.lookups
    six, four = lookups
    assert (six.error.errno, six.answer, four.answer.addresses) == (socket.EAI_AGAIN, None, (V4,))
    stream.abort()


@virtual
async def test_line_10_and_63_a_late_family_goes_before_what_has_not_started(net):
    dead(net, "192.0.2.1", "192.0.2.2", "192.0.2.3")
    dead(net, "2001:db8::1")
    good(net, "2001:db8::2")
    net.dns("api.test", aaaa=["2001:db8::1", "2001:db8::2"], a=[f"192.0.2.{n}" for n in (1, 2, 3)], aaaa_delay=0.15)
    stream = await connect("api.test", 443)
    assert starts(stream.report) == {
        "192.0.2.1": 50,
        "2001:db8::1": 300,
        # The complete list in order is 6, 4, 6, 4, 4: those that were started count in it.
        "2001:db8::2": 550,
        "192.0.2.2": None,
        "192.0.2.3": None,
    }
    stream.abort()


@virtual
async def test_line_38_and_39_families_take_turns_and_the_first_may_have_two(net):
    six, four = [f"2001:db8::{n}" for n in (1, 2, 3)], [f"192.0.2.{n}" for n in (1, 2)]
    dead(net, *six, *four[:1])
    good(net, four[1])
    net.dns("api.test", aaaa=six, a=four)
    stream = await connect("api.test", 443)
    assert list(starts(stream.report)) == [six[0], four[0], six[1], four[1], six[2]]
    stream.abort()
    stream = await connect("api.test", 443, policy=RacePolicy(preferred_family_count=2))
    assert list(starts(stream.report)) == [six[0], six[1], four[0], six[2], four[1]]
    stream.abort()


@virtual
async def test_line_21_sources_of_one_family_ask_one_question(net):
    good(net, V4)
    net.dns("api.test", aaaa=[V6], a=[V4])
    watch = Stopwatch()
    stream = await connect("api.test", 443, sources=[Source(ipv4="192.0.2.254")])
    assert watch.ms == 20
    assert [lookup.kind for lookup in stream.report.lookups] == ["A"]
    assert [row.kind for row in net.trace.lookups] == ["A"]
    stream.abort()


@virtual
async def test_line_81_a_resolver_that_answers_with_the_other_family_is_corrected(net):
    good(net, V4)
    resolver = ScriptedResolver(aaaa=[V6, V4], a=[V4, V6, V4])
    stream = await connect("api.test", 443, resolver=resolver, sources=[Source(ipv4="192.0.2.254")])
    assert [(a.endpoint.host, a.outcome) for a in stream.report.attempts] == [(V4, "won")]
    stream.abort()


@virtual
async def test_what_came_of_the_first_answer_fails_and_the_second_is_still_awaited(net):
    net.host(V6).refuse(0)
    net.dns("api.test", aaaa=[V6], a=[V4], a_delay=5)
    good(net, V4)
    stream = await connect("api.test", 443)
    assert rows(stream.report) == [(V6, "first", 0, 0, "failed"), (V4, "arrival", 5000, 5020, "won")]
    stream.abort()


@virtual
async def test_line_55_establish_works_by_name_too(net):
    good(net, V6, V4)
    net.dns("api.test", aaaa=[V6], a=[V4])

    async def establish(stream: TcpStream) -> str:
        if stream.peer.host == V6:
            raise EstablishFailed
        stream.abort()
        return "v4"

    assert await connect("api.test", 443, establish=establish) == "v4"


@virtual
async def test_a_zone_with_very_many_addresses_is_raced_by_64_of_them(net):
    six, four = [f"2001:db8::{n:x}" for n in range(1, 201)], [f"192.0.2.{n}" for n in range(1, 201)]
    for host in (*six, *four):
        net.host(host).unreachable()
    net.dns("api.test", aaaa=six, a=four, a_delay=0.5)
    with pytest.raises(ConnectFailed) as caught:
        await connect("api.test", 443)
    assert outcomes(caught.value.report).count("failed") == 64
    assert len(net.trace.connections) == 64


@virtual
async def test_now_or_never_by_name_with_establish(net):
    good(net, V4, V6, rtt=0)

    async def establish(stream: TcpStream) -> TcpStream:
        return stream

    resolver = StaticResolver({"api.test": [V4, V6]})
    stream = await connect("api.test", 443, 0, resolver=resolver, establish=establish)
    stream.abort()


@virtual
async def test_an_answer_at_the_deadline_is_on_record(net):
    dead(net, V6, V4)
    net.dns("api.test", aaaa=[V6], a=[V4], a_delay=0.125)
    for _ in range(10):
        with pytest.raises(DeadlineExceeded) as caught:
            await connect("api.test", 443, now() + 125)
        assert caught.value.report is not None
        assert [lookup.answer is not None for lookup in caught.value.report.lookups] == [True, True]


# --- literals ---------------------------------------------------------------------------------------------------------


@virtual
async def test_a_numeric_host_is_not_looked_up(net):
    good(net, V6, V4)

    class Never:
        async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
            raise AssertionError

    for host in (V6, V4, "2001:DB8:0::1"):
        recorder = Recorder()
        stream = await connect(host, 443, resolver=Never(), observer=recorder)
        assert stream.report.lookups == ()
        assert recorder.report is stream.report
        stream.abort()
    assert net.trace.lookups == ()


async def test_a_numeric_host_and_now_or_never(sockets: Sockets):
    async with faults.echoing() as peer:
        stream = await connect(*peer.address.pair, 0)
        stream.abort()


# --- when there is nothing --------------------------------------------------------------------------------------------


@virtual
async def test_line_20_a_name_whose_lookups_all_fail_says_which_question_failed_how(net):
    net.dns("gone.test")
    net.dns("flaky.test", aaaa=[V6], a=[V4], aaaa_error=socket.EAI_AGAIN, a_error=socket.EAI_FAIL, a_delay=0.2)
    net.dns("half.test", aaaa=[V6], aaaa_error=socket.EAI_AGAIN)
    recorder = Recorder()
    with pytest.raises(ResolveFailed) as caught:
        await connect("gone.test", 443, observer=recorder)
    assert str(caught.value) == (
        f"[Errno {socket.EAI_NONAME}] no address to try for gone.test after 0.0 ms "
        "(AAAA: no such name, A: no such name)"
    )
    assert caught.value.errno == socket.EAI_NONAME
    assert caught.value.__cause__ is None
    assert caught.value.attempts == ()
    assert caught.value.report is recorder.report

    with pytest.raises(ResolveFailed) as caught:
        await connect("flaky.test", 443)
    assert "no address to try for flaky.test after 200.0 ms (AAAA: " in str(caught.value)
    assert "Temporary failure" in str(caught.value)
    assert "A: " in str(caught.value)
    assert "Non-recoverable failure" in str(caught.value)
    assert [error.errno for error in causes(caught.value)] == [socket.EAI_AGAIN, socket.EAI_FAIL]

    with pytest.raises(ResolveFailed, match=r"AAAA: .*Temporary failure.*, A: no address") as caught:
        await connect("half.test", 443)
    assert caught.value.errno == socket.EAI_AGAIN


@virtual
async def test_when_every_attempt_fails_the_name_is_in_the_message(net):
    net.host(V6).refuse(0.1)
    net.host(V4).refuse(0.1)
    net.dns("api.test", aaaa=[V6], a=[V4])
    with pytest.raises(ConnectFailed) as caught:
        await connect("api.test", 443)
    assert type(caught.value) is ConnectFailed
    assert str(caught.value) == (
        "[Errno 111] all 2 attempts to api.test:443 ([2001:db8::1]:443, 192.0.2.1:443) failed in 200.0 ms (refused: 2)"
    )
    assert len(caught.value.report.lookups) == 2


class Bug(Exception):
    pass


@pytest.mark.parametrize("error", [Bug(), KeyboardInterrupt(), TypeError("x")], ids=repr)
@virtual
async def test_a_resolver_that_raises_what_is_no_oserror_is_heard_as_itself(net, error):
    dead(net, V6)
    recorder = Recorder()
    resolver = ScriptedResolver(aaaa=[V6], a=error, a_after=0.1)
    with pytest.raises(type(error)) as caught:
        await connect("api.test", 443, resolver=resolver, observer=recorder)
    assert caught.value is error
    assert outcomes(recorder.report) == ["cancelled"]


@pytest.mark.parametrize("answer", [None, ["192.0.2.1"], "192.0.2.1", Answer(("not numeric",))], ids=repr)
@virtual
async def test_a_resolver_that_does_not_answer_with_an_answer_is_refused(net, answer):
    class Odd:
        async def addresses(self, host: str, family: AddressFamily, /) -> Any:
            await trio.lowlevel.checkpoint()
            return answer

    with pytest.raises((TypeError, ValueError), match="a resolver"):
        await connect("api.test", 443, resolver=Odd())


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("", 443), {}, ValueError),
        ((None, 443), {}, TypeError),
        ((b"api.test", 443), {}, TypeError),
        (("api.test:443", 443), {}, ValueError),
        (("[2001:db8::1]", 443), {}, ValueError),
        (("a" * 64 + ".test", 443), {}, ValueError),
        (("api.test", 0), {}, ValueError),
        (("192.0.2.1", 0), {}, ValueError),
        (("api.test", 65536), {}, ValueError),
        (("api.test", "443"), {}, TypeError),
        (("api.test", 443, 1.0), {}, TypeError),
        (("api.test", 443), {"resolver": 3}, TypeError),
        (("api.test", 443), {"resolver": {"api.test": V4}}, TypeError),
        (("api.test", 443), {"policy": 3}, TypeError),
        (("api.test", 443), {"establish": 3}, TypeError),
        (("api.test", 443), {"nonsense": True}, TypeError),
    ],
    ids=repr,
)
async def test_bad_input_is_refused_before_anything_is_asked(arguments, options, error):
    recorder = Recorder()
    with pytest.raises(error):
        await connect(*arguments, observer=recorder, **options)
    assert recorder.events == []


# --- deadlines --------------------------------------------------------------------------------------------------------


@virtual
async def test_line_74_the_deadline_counts_for_lookups_and_race_together(net):
    dead(net, V6)
    net.dns("never.test", aaaa_delay=math.inf, a_delay=math.inf, aaaa=[V6])
    net.dns("slow.test", aaaa=[V6], aaaa_delay=0.3, a_delay=math.inf)
    for name, lookups, attempts in (("never.test", [None, None], []), ("slow.test", [1, None], ["cancelled"])):
        recorder = Recorder()
        watch = Stopwatch()
        with pytest.raises(DeadlineExceeded, match=f"connect to {name}:443.* had no result by its deadline") as caught:
            await connect(name, 443, now() + 500, observer=recorder)
        assert watch.ms == 500
        report = caught.value.report
        assert report is recorder.report
        assert outcomes(report) == attempts
        assert [None if lookup.answer is None else len(lookup.answer.addresses) for lookup in report.lookups] == lookups


@virtual
async def test_now_or_never_needs_a_resolver_that_answers_in_that_instant(net):
    good(net, V4, rtt=0)
    good(net, V6, rtt=0)
    net.dns("api.test", aaaa=[V6], a=[V4])
    net.dns("slow.test", a=[V4], aaaa_delay=0.001, a_delay=0.001)
    with pytest.raises(DeadlineExceeded):
        await connect("slow.test", 443, 0)


async def test_now_or_never_by_name_on_loopback():
    async with faults.echoing() as peer:
        for addresses in ([peer.address.host], [peer.address.host, "127.0.0.2"]):
            stream = await connect("api.test", peer.address.port, 0, resolver=StaticResolver({"api.test": addresses}))
            assert stream.peer.host == peer.address.host
            stream.abort()


@virtual
async def test_a_call_that_was_cancelled_before_it_began_asks_nothing(net):
    net.dns("api.test", a=[V4])
    recorder = Recorder()
    with trio.CancelScope() as scope:
        scope.cancel()
        await connect("api.test", 443, observer=recorder)
    assert scope.cancelled_caught
    assert recorder.names == ["RaceFinished"]
    assert net.trace.lookups == ()


@virtual
async def test_cancelled_while_racing_the_observer_hears_the_end_once(net):
    dead(net, V6)
    net.dns("api.test", aaaa=[V6], a=[V4], a_delay=math.inf)
    recorder = Recorder()
    with trio.move_on_after(0.1):
        await connect("api.test", 443, observer=recorder)
    assert recorder.names[-1] == "RaceFinished"
    assert outcomes(recorder.report) == ["cancelled"]
    assert [(lookup.kind, lookup.answer is None) for lookup in recorder.report.lookups] == [
        ("AAAA", False),
        ("A", True),
    ]


@virtual
async def test_a_cancel_in_the_pass_of_the_win_does_not_take_it_away_while_a_lookup_is_out(net):
    good(net, V6, rtt=0.125)
    net.dns("api.test", aaaa=[V6], a=[V4], a_delay=math.inf)
    won = 0
    for _ in range(40):  # at one instant, in any order
        recorder = Recorder()
        with trio.move_on_after(0.125):
            stream = await connect("api.test", 443, observer=recorder)
            won += 1
            stream.abort()
        assert (recorder.report.winner is not None) == (won > 0)
        won = 0


# --- reports ----------------------------------------------------------------------------------------------------------


@virtual
async def test_line_78_lookups_are_in_the_report_as_data(net):
    good(net, V4)
    net.dns("api.test", aaaa=[V6], a=[V4], aaaa_error=socket.EAI_AGAIN, aaaa_delay=0.03)
    stream = await connect("api.test", 443)
    stream.abort()
    data = json.loads(json.dumps(stream.report.to_dict(), allow_nan=False))
    six, four = data["lookups"]
    assert six.pop("error").endswith("Temporary failure in name resolution")
    assert six == {
        "host": "api.test", "kind": "AAAA", "started_us": 0, "ended_us": 30_000, "addresses": None, "ttl_us": None,
        "name_exists": None, "records": None, "errno": socket.EAI_AGAIN,
    }  # fmt: skip
    assert four == {
        "host": "api.test", "kind": "A", "started_us": 0, "ended_us": 0, "addresses": [V4], "ttl_us": None,
        "name_exists": True, "records": None, "errno": None, "error": None,
    }  # fmt: skip
    assert data["attempts"][0]["started_us"] == 30_000


# --- resolve and order_endpoints --------------------------------------------------------------------------------------


@virtual
async def test_resolve_waits_for_both_and_gives_the_order_of_connect(net):
    six, four = [f"2001:db8::{n}" for n in (1, 2, 3)], [f"192.0.2.{n}" for n in (1, 2)]
    net.dns("api.test", aaaa=six, a=four, aaaa_delay=0.3, a_delay=0.1)
    watch = Stopwatch()
    endpoints = await resolve("api.test", 443)
    assert watch.ms == 300
    assert [endpoint.host for endpoint in endpoints] == [six[0], four[0], six[1], four[1], six[2]]
    dead(net, *six, *four)
    with pytest.raises(DeadlineExceeded) as caught:
        await connect("api.test", 443, now() + 5000)
    assert caught.value.report is not None
    assert [a.endpoint for a in caught.value.report.attempts] == [
        Endpoint(four[0], 443),  # came first
        *(endpoint for endpoint in endpoints if endpoint.host != four[0]),
    ]


@virtual
async def test_resolve_fails_like_connect(net):
    net.dns("gone.test")
    net.dns("never.test", a=[V4], aaaa_delay=math.inf)
    with pytest.raises(ResolveFailed, match=r"gone.test .*AAAA: no such name, A: no such name"):
        await resolve("gone.test", 443)
    watch = Stopwatch()
    with pytest.raises(DeadlineExceeded, match=r"lookup of never\.test had no result") as caught:
        await resolve("never.test", 443, now() + 200)
    assert watch.ms == 200
    assert caught.value.report is not None
    assert [lookup.kind for lookup in caught.value.report.lookups] == ["AAAA", "A"]


@pytest.mark.parametrize("error", [Bug(), KeyboardInterrupt(), ExceptionGroup("mine", [Bug(), Bug()])], ids=repr)
@virtual
async def test_resolve_raises_what_a_resolver_raised_as_itself(net, error):
    with pytest.raises(type(error)) as caught:
        await resolve("api.test", 1, resolver=ScriptedResolver(aaaa=[V6], a=error, a_after=0.1))
    assert caught.value is error


@virtual
async def test_a_cancelled_resolve_raises_cancelled_and_not_a_group(net):
    net.dns("never.test", a=[V4], a_delay=math.inf, aaaa_delay=math.inf)
    with trio.move_on_after(1) as scope:
        try:
            await resolve("never.test", 1)
        except trio.Cancelled:
            raise
        except BaseException as exc:
            raise AssertionError(repr(exc)) from exc
    assert scope.cancelled_caught


async def test_resolve_of_a_number_is_itself():
    with trio.testing.assert_checkpoints():
        assert await resolve("127.0.0.1", 0) == (Endpoint("127.0.0.1", 0),)
    assert await resolve("fe80::1%3", 80) == (Endpoint("fe80::1", 80, 3),)


class FailsWhenCancelled:
    """Asks for AAAA from a nursery, for ever; ends with an error and a cancellation in one group."""

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        if family == AF_INET6:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise OSError(errno.EIO, "no goodbye")
        return Answer((V4,))


@pytest.mark.parametrize("options", [{}, {"observer": lambda _: None}], ids=["alone", "observed"])
@virtual
async def test_what_a_resolver_raises_with_its_cancellation_costs_no_winner_and_hides_no_deadline(net, options):
    good(net, V4)
    (await connect("api.test", 443, resolver=FailsWhenCancelled(), **options)).abort()
    with pytest.raises(DeadlineExceeded):
        await connect("api.test", 443, now() + 20, resolver=FailsWhenCancelled(), **options)
    with pytest.raises(DeadlineExceeded):
        await resolve("api.test", 443, now() + 20, resolver=FailsWhenCancelled())
    with trio.move_on_after(0.020) as scope:
        await connect("api.test", 443, resolver=FailsWhenCancelled(), **options)
    assert scope.cancelled_caught


@virtual
async def test_resolve_at_once(net):
    assert await resolve("api.test", 1, 0, resolver=StaticResolver({"api.test": [V4]})) == (Endpoint(V4, 1),)
    with pytest.raises(DeadlineExceeded):
        await resolve("api.test", 1, 0, resolver=ScriptedResolver(a=[V4], a_after=1))


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((), TypeError),
        (("api.test",), TypeError),
        (("api.test", -1), ValueError),
        (("a b:1", 1), ValueError),
        (("api.test", 1, None), TypeError),
    ],
)
async def test_resolve_refuses_bad_input(arguments, error):
    with pytest.raises(error):
        await resolve(*arguments)


@virtual
async def test_line_40_the_order_is_stable_and_the_same_each_time(net):
    given = at("192.0.2.2", "2001:db8::2", "192.0.2.1", "2001:db8::1", "192.0.2.2")
    once = order_endpoints(given)
    assert once == order_endpoints(given) == order_endpoints(once)
    assert [endpoint.host for endpoint in once] == ["2001:db8::2", "192.0.2.2", "2001:db8::1", "192.0.2.1"]


async def test_line_31_the_kernel_is_asked_for_source_addresses():
    # Nothing goes from here to a documentation address of IPv6 on most machines, and then loopback comes first.
    given = [("127.0.0.1", 80), ("::1", 80)]
    assert {endpoint.host for endpoint in order_endpoints(given)} == {"127.0.0.1", "::1"}


async def test_line_41_scope_flow_and_port_survive():
    given: list[Any] = [("fe80::1", 80, 7, 3), ("fe80::1", 81, 0, 4), Endpoint("fe80::1%lo", 80)]
    assert set(order_endpoints(given)) == {
        Endpoint("fe80::1", 80, 3, 7), Endpoint("fe80::1", 81, 4), Endpoint("fe80::1", 80, "lo"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("endpoints", "options", "error"),
    [
        ("192.0.2.1", {}, TypeError),
        (Endpoint(V4, 1), {}, TypeError),
        ([("api.test", 1)], {}, ValueError),
        ([3], {}, TypeError),
        ([], {"policy": 3}, TypeError),
    ],
    ids=repr,
)
async def test_order_endpoints_refuses_bad_input(endpoints, options, error):
    with pytest.raises(error):
        order_endpoints(endpoints, **options)


def test_order_endpoints_needs_a_run():
    with pytest.raises(RuntimeError):
        order_endpoints([(V4, 1)])


async def test_order_endpoints_takes_none_and_port_0():
    assert order_endpoints([]) == ()
    assert order_endpoints([(V4, 0)]) == (Endpoint(V4, 0),)


# --- cancel at every step ---------------------------------------------------------------------------------------------


# Trio shuffles its tasks, so one round is a sample.

RESOLVERS: dict[str, dict[str, Any]] = {
    "at once": {"aaaa": ["::1"], "a": ["127.0.0.1"]},
    "A late": {"aaaa": ["::1"], "a": ["127.0.0.1"], "a_after": 0.5},
    "AAAA late": {"aaaa": ["::1"], "a": ["127.0.0.1"], "aaaa_after": 0.5},
    "A never": {"aaaa": ["::1"], "a": ["127.0.0.1"], "a_after": math.inf},
    "AAAA fails": {"aaaa": OSError(errno.EIO, "x"), "a": ["127.0.0.1"]},
    "none": {},
}


@contextlib.asynccontextmanager
async def both_loopbacks(six: str, four: str) -> AsyncIterator[int]:
    """One port, with a peer of either kind on each loopback address."""
    async with contextlib.AsyncExitStack() as stack:
        while True:
            sockets = [stack.enter_context(socket.socket(family)) for family in (AF_INET6, AF_INET)]
            sockets[0].bind(("::1", 0))
            port = sockets[0].getsockname()[1]
            try:
                sockets[1].bind(("127.0.0.1", port))
            except OSError:
                continue  # somebody has that port on the other loopback
            break
        for sock, kind in zip(sockets, (six, four), strict=True):
            if kind == "refused":
                continue
            sock.listen(0 if kind == "hole" else 16)
            if kind == "hole":
                for _ in range(2):
                    filler = stack.enter_context(socket.socket(sock.family))
                    filler.setblocking(False)
                    filler.connect_ex(sock.getsockname())
        yield port


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize(
    "kinds", ["good good", "refused good", "hole good", pytest.param("refused refused", marks=pytest.mark.slow)]
)
async def test_line_77_a_cancel_at_any_step_of_a_connect_by_name_leaves_nothing(
    kinds, resolver, sockets: Sockets, modes, autojump_clock
):
    recorders: list[Recorder] = []

    async def operation(port: int) -> TcpStream:
        recorder = Recorder()
        recorders.append(recorder)
        return await connect(
            "api.test", port, resolver=ScriptedResolver(**RESOLVERS[resolver]), policy=PATIENT, observer=recorder
        )

    async def check(_port: object, step: Step) -> None:
        report = recorders.pop().report
        assert (report.winner is not None) == (step.ending == "returned"), f"{step}\n{report}"

    six, four = kinds.split()
    await sweep(
        operation,
        environment=lambda: both_loopbacks(six, four),
        modes=modes,
        raises=ConnectFailed,
        counters=sockets.counters,
        check=check,
        quiet=0.015,
    )


@pytest.mark.parametrize("resolver", ["at once", "A late", "A never", "none"])
async def test_line_77_a_cancel_at_any_step_of_resolve_leaves_nothing(resolver, autojump_clock):
    async def operation() -> tuple[Endpoint, ...]:
        return await resolve("api.test", 1, resolver=ScriptedResolver(**RESOLVERS[resolver]))

    await sweep(operation, raises=ResolveFailed, quiet=0.015)
