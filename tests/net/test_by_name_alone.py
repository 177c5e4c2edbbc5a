"""A connect by name builds no race unless something races: what it does instead, and that nobody can tell."""

from __future__ import annotations

import gc
import math
import sys
from socket import AF_INET6, AddressFamily
from typing import Any

import pytest
import trio
import trio.testing

from tests.net.racing import dead, good, ms, rows, virtual
from tests.net.test_connect_by_name import RESOLVERS, ScriptedResolver, both_loopbacks
from tests.support import tls
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.sweep import sweep
from trio_connect import (
    Answer,
    ConnectFailed,
    DeadlineExceeded,
    RacePolicy,
    ResolveFailed,
    StaticResolver,
    TcpStream,
    connect,
    now,
)
from trio_connect._net.by_name import ConnectByName
from trio_connect._net.names import lookup
from trio_connect._net.race import driver

V6, V4 = "2001:db8::1", "192.0.2.1"
PATIENT = RacePolicy(attempt_delay=0.010, attempt_timeout=math.inf)


@pytest.fixture
def races(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every driver of a race that was built."""
    built: list[object] = []
    init = driver._Driver.__init__

    def counted(self: Any, *arguments: Any) -> None:
        built.append(self)
        init(self, *arguments)

    monkeypatch.setattr(driver._Driver, "__init__", counted)
    return built


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every task that asked something."""
    asked: list[object] = []
    ask = lookup.Lookups._ask

    async def counted(self: Any, *arguments: Any) -> None:
        asked.append(self)
        await ask(self, *arguments)

    monkeypatch.setattr(lookup.Lookups, "_ask", counted)
    return asked


@pytest.mark.parametrize("waits", [0.0, 0.02], ids=["answers at once", "answers together later"])
async def test_no_race_is_built_when_both_answers_come_before_connecting_begins(races, waits, loopback_clock):
    async with both() as port:
        resolver = ScriptedResolver(["::1"], ["127.0.0.1"], aaaa_after=waits, a_after=waits)
        stream = await connect("api.test", port, now() + 5_000, resolver=resolver)
        assert races == []
        report = stream.report
        assert [(a.host, a.endpoint.host, a.cause, a.outcome) for a in report.attempts] == [
            ("api.test", "::1", "first", "won"),
            ("api.test", "127.0.0.1", None, "not tried"),
        ]
        assert [(each.kind, each.host) for each in report.lookups] == [("AAAA", "api.test"), ("A", "api.test")]
        attempt = report.attempts[0]
        assert attempt.started is not None
        assert attempt.ended is not None
        assert waits <= report.lookups[1].ended <= attempt.started <= attempt.ended == report.elapsed
        stream.abort()


def both() -> Any:
    return both_loopbacks("good", "good")


async def test_nor_a_task_when_a_dict_or_the_hosts_file_has_the_answer(races, questions):
    async with both() as port:
        for host, resolver in (("api.test", StaticResolver({"api.test": ["127.0.0.1", "::1"]})), ("localhost", None)):
            with trio.testing.assert_checkpoints():
                stream = await connect(host, port, now() + 5_000, resolver=resolver)
            assert [each.kind for each in stream.report.lookups] == ["AAAA", "A"]
            assert len({time for each in stream.report.lookups for time in (each.started, each.ended)}) == 1
            stream.abort()
    assert races == questions == []


async def test_a_name_that_a_dict_has_not_is_unknown_at_once(questions):
    with trio.testing.assert_checkpoints(), pytest.raises(ResolveFailed, match="AAAA: no such name, A: no such name"):
        await connect("gone.test", 443, resolver=StaticResolver({}))
    assert questions == []


async def test_a_cancelled_call_asks_nobody_and_opens_nothing(sockets: Sockets, questions):
    async with no_leaks(counters=sockets.counters):
        for resolver in (StaticResolver({"api.test": "127.0.0.1"}), ScriptedResolver(["::1"])):
            with trio.CancelScope() as scope:
                scope.cancel()
                await connect("api.test", 9, resolver=resolver)
            assert scope.cancelled_caught
    assert questions == []


async def test_the_race_begins_beside_a_lookup_that_is_pending(races, autojump_clock):
    async with both() as port:
        resolver = ScriptedResolver(["::1"], ["127.0.0.1"], a_after=math.inf)
        stream = await connect("api.test", port, now() + 5_000, resolver=resolver)
        assert len(races) == 1
        assert stream.peer.host == "::1"
        assert [(each.answer is None, each.error) for each in stream.report.lookups] == [(False, None), (True, None)]
        stream.abort()


async def test_over_tls_the_first_attempt_is_made_alone_too(races):
    async with tls_peer() as port:
        resolver = ScriptedResolver((), ["127.0.0.1"])
        context = tls.contexts().client
        stream = await connect(tls.NAME, port, now() + 5_000, resolver=resolver, tls=context)
        assert races == []
        assert [(a.host, a.phase, a.outcome) for a in stream.report.attempts] == [(tls.NAME, "establish", "won")]
        assert len(stream.report.lookups) == 2
        await trio.aclose_forcefully(stream)


def tls_peer() -> Any:
    from contextlib import asynccontextmanager

    from trio_connect import tcp_listen

    @asynccontextmanager
    async def serving() -> Any:
        async def serve(stream: TcpStream) -> None:
            try:
                async with await stream.start_tls(tls.contexts().server, server_side=True) as secured:
                    await secured.receive_some()
            except (OSError, trio.BrokenResourceError):
                pass

        async with trio.open_nursery() as nursery:
            listener = await tcp_listen(("127.0.0.1", 0))
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            yield listener.endpoint.port
            nursery.cancel_scope.cancel()

    return serving()


# --- what follows when the first attempt will not do ------------------------------------------------------------------


@virtual
async def test_attempts_are_timed_from_the_first_one_and_reported_from_the_call(net):
    dead(net, V6)
    good(net, V4)
    net.dns("api.test", aaaa=[V6], a=[V4], aaaa_delay=0.5, a_delay=0.5)
    stream = await connect("api.test", 443)
    assert rows(stream.report) == [(V6, "first", 500, 770, "lost"), (V4, "delay", 750, 770, "won")]
    assert ms(stream.report.elapsed) == 770
    stream.abort()


async def test_so_they_are_on_a_real_network(races, loopback_clock):
    async with both_loopbacks("refused", "good") as port:
        resolver = ScriptedResolver(["::1"], ["127.0.0.1"], aaaa_after=0.5, a_after=0.5)
        stream = await connect("api.test", port, resolver=resolver)
        assert len(races) == 1
        first, second = stream.report.attempts
        assert (first.outcome, second.outcome) == ("failed", "won")
        assert (ms(first.started), ms(second.started)) == (500, 500)
        assert len(stream.report.lookups) == 2
        stream.abort()


async def test_the_deadline_while_the_lookups_wait(autojump_clock):
    started = trio.current_time()
    with pytest.raises(DeadlineExceeded, match=r"connect to api\.test:443, whose lookup did not end") as caught:
        await connect("api.test", 443, now() + 250, resolver=ScriptedResolver(a_after=math.inf))
    assert ms(trio.current_time() - started) == pytest.approx(250, abs=1)
    report = caught.value.report
    assert report is not None
    assert [(each.kind, each.answer) for each in report.lookups] == [("AAAA", Answer()), ("A", None)]
    assert report.attempts == ()


async def test_a_scope_that_expires_at_the_same_instant_wins(autojump_clock):
    deadline = now() + 250
    with trio.move_on_after(0.2) as scope:
        await connect("api.test", 443, deadline, resolver=ScriptedResolver(a_after=math.inf))
    assert scope.cancelled_caught


@virtual
async def test_an_answer_at_the_deadline_begins_no_attempt(net):
    dead(net, V6, V4)
    net.dns("api.test", a=[V4], aaaa_delay=0.125, a_delay=0.125)
    for _ in range(10):
        with pytest.raises(DeadlineExceeded) as caught:
            await connect("api.test", 443, now() + 125)
        report = caught.value.report
        assert report is not None
        assert [a.outcome for a in report.attempts if a.started is not None] == []


class Escape(BaseException):
    pass


@pytest.mark.parametrize("error", [LookupError("a bug"), Escape(), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("when", ["before", "beside the race"])
async def test_what_a_resolver_raises_comes_out_as_itself_and_leaves_nothing(sockets, autojump_clock, error, when):
    async with no_leaks(counters=sockets.counters), both_loopbacks("hole", "hole") as port:
        resolver = ScriptedResolver(["::1"] if when != "before" else (), error, a_after=0.1)
        with pytest.raises(type(error)) as caught:
            await connect("api.test", port, resolver=resolver, policy=PATIENT)
        assert caught.value is error


async def test_a_resolver_that_breaks_when_it_is_cancelled_takes_the_winner_with_it(sockets, loopback_clock):
    class Breaking:
        async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
            if family == AF_INET6:
                await trio.lowlevel.checkpoint()
                return Answer(("::1",))
            try:
                await trio.sleep_forever()
            finally:
                raise Escape

    async with no_leaks(counters=sockets.counters), both() as port:
        with pytest.raises(Escape):
            await connect("api.test", port, resolver=Breaking())


# --- cancelled at any step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolver", RESOLVERS)
@pytest.mark.parametrize(
    "kinds",
    [
        "good good",
        "hole good",
        *(pytest.param(kinds, marks=pytest.mark.slow) for kinds in ("refused good", "refused refused")),
    ],
)
async def test_line_77_a_cancel_at_any_step_leaves_nothing(kinds, resolver, sockets: Sockets, modes, autojump_clock):
    async def operation(port: int) -> TcpStream:
        return await connect("api.test", port, resolver=ScriptedResolver(**RESOLVERS[resolver]), policy=PATIENT)

    six, four = kinds.split()
    await sweep(
        operation,
        environment=lambda: both_loopbacks(six, four),
        modes=modes,
        raises=ConnectFailed,
        counters=sockets.counters,
        quiet=0.015,
    )


async def test_line_77_nor_does_one_over_tls(sockets: Sockets):
    resolver = ScriptedResolver((), ["127.0.0.1"])
    await sweep(
        lambda port: connect(tls.NAME, port, resolver=resolver, tls=tls.contexts().client),
        environment=tls_peer,
        counters=sockets.counters,
    )


# --- what is left of it -----------------------------------------------------------------------------------------------

RACED = ScriptedResolver(a=[V4], aaaa_after=5)


@pytest.mark.parametrize(
    "resolver",
    [StaticResolver({"api.test": V4}), ScriptedResolver(a=[V4]), RACED],
    ids=["known", "answered", "raced"],
)
@virtual
async def test_a_stream_and_its_report_hold_nothing_of_the_call_and_no_cycle_is_left(net, resolver):
    good(net, V4)
    gc.collect()
    gc.disable()  # what is gone then was counted, and in no cycle
    try:
        stream = await connect("api.test", 443, resolver=resolver)
        if resolver is RACED and sys.version_info >= (3, 12):
            # There a nursery that has cancelled its tasks leaves the frames of its end in a cycle, with all they hold.
            gc.collect()
        left = [each for each in gc.get_objects() if isinstance(each, ConnectByName)]
    finally:
        gc.enable()
    assert left == []
    assert stream.report.lookups
    stream.abort()
