"""`connectx(tls=...)` while its first attempt is alone: a handshake without a task, until the next attempt is due."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.net.racing import Recorder
from tests.support import tls
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from tests.support.sweep import repeated, sweep
from trio_connect import (
    ConnectFailed,
    ConnectReport,
    DeadlineExceeded,
    Endpoint,
    RacePolicy,
    StaticResolver,
    TcpStream,
    TlsStream,
    connect,
    connectx,
    now,
    tcp_listen,
)
from trio_connect._engine.race import Race
from trio_connect._net.attempt import PENDING, Attempt
from trio_connect._net.race.establishing import over_tls
from trio_connect._net.race.first import First
from trio_connect._net.streams.handshake import Handshake
from trio_connect._options import DEFAULT_OPTIONS

Behaviour = Callable[[TcpStream], Awaitable[None]]
# By default the next attempt begins after 250 ms, also where this machine was what took so long.
SEQUENTIAL = RacePolicy(attempt_delay=30.0)


@contextlib.asynccontextmanager
async def listening(*behaviours: Behaviour) -> AsyncIterator[list[Endpoint]]:
    """A listener for each of these."""
    async with contextlib.AsyncExitStack() as stack, trio.open_nursery() as nursery:
        endpoints: list[Endpoint] = []
        for behave in behaviours:
            listener = await stack.enter_async_context(await tcp_listen(("127.0.0.1", 0)))

            async def serve(stream: TcpStream, behave: Behaviour = behave) -> None:
                with contextlib.suppress(trio.BrokenResourceError, OSError):
                    await behave(stream)
                stream.abort()

            nursery.start_soon(trio.serve_listeners, serve, [listener])
            endpoints.append(listener.endpoint)
        yield endpoints
        nursery.cancel_scope.cancel()


async def secure(stream: TcpStream) -> None:
    async with await stream.start_tls(tls.contexts().server, server_side=True) as secured:
        await secured.send_all(b"hello")


async def untrusted(stream: TcpStream) -> None:
    await stream.start_tls(tls.server_context(tls.NAME, issuer=trustme.CA()), server_side=True)


async def hang_up(stream: TcpStream) -> None:
    await stream.receive_some()
    await stream.aclose()


async def silent(stream: TcpStream) -> None:
    while await stream.receive_some():
        pass


def race(endpoints: Sequence[Endpoint], deadline: int = -1, **options: Any) -> Awaitable[TlsStream]:
    return connectx(endpoints, deadline, tls=tls.contexts().client, server_hostname=tls.NAME, **options)


def facts(report: ConnectReport) -> list[tuple[Any, ...]]:
    return [
        (row.endpoint, row.cause, row.phase, row.outcome, row.errno, row.reason, row.beaten_by)
        for row in report.attempts
    ]


@contextlib.contextmanager
def counted_tasks() -> Iterator[list[str]]:
    """The names of the tasks that races start."""
    names: list[str] = []

    class Counter(trio.abc.Instrument):
        def task_spawned(self, task: trio.lowlevel.Task) -> None:
            if task.name.startswith("connect to"):
                names.append(task.name)

    counter = Counter()
    trio.lowlevel.add_instrument(counter)
    yield names
    trio.lowlevel.remove_instrument(counter)


# --- alone ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["connectx", "connect"])
async def test_it_needs_no_task(call: str) -> None:
    async with no_leaks(), listening(secure) as endpoints:
        with counted_tasks() as names:
            if call == "connectx":
                stream = await race([*endpoints, Endpoint("192.0.2.1", 443)], policy=SEQUENTIAL)
            else:
                stream = await connect("127.0.0.1", endpoints[0].port, tls=tls.contexts().client)
        assert names == []
        assert await stream.receive_exactly(5) == b"hello"
        (row, *rest) = stream.report.attempts
        assert (row.outcome, row.cause, row.phase, row.started) == ("won", "first", "establish", 0.0)
        assert row.ended == stream.report.elapsed > 0
        assert [other.outcome for other in rest] == ["not tried"] * (call == "connectx")
        await stream.aclose()


NAMES = StaticResolver({tls.NAME: ["127.0.0.1"], "alias.test": ["127.0.0.1"]})
CALLS: dict[str, Callable[[Endpoint, dict[str, Any]], Awaitable[TlsStream]]] = {
    "connect": lambda endpoint, options: connect(tls.NAME, endpoint.port, resolver=NAMES, **options),
    "connect, with a dot": lambda endpoint, options: connect(f"{tls.NAME}.", endpoint.port, resolver=NAMES, **options),
    "connect, alias": lambda endpoint, options: connect(
        "alias.test", endpoint.port, resolver=NAMES, server_hostname=tls.NAME, **options
    ),
    "connect, address": lambda endpoint, options: connect("127.0.0.1", endpoint.port, **options),
    "connectx": lambda endpoint, options: connectx([endpoint], **options),
    "connectx, name": lambda endpoint, options: connectx([endpoint], server_hostname=tls.NAME, **options),
}


@pytest.mark.parametrize(
    ("host", "asked"), [("stra\u00dfe.test", "xn--strae-oqa.test"), ("b\u00fccher.test.", "xn--bcher-kva.test")]
)
async def test_a_name_beyond_ascii_is_sent_and_verified_as_it_is_looked_up(host: str, asked: str) -> None:
    """By IDNA 2008. That of 2003, which Python has, makes ss of the first one: a name of somebody else."""
    seen: list[str | None] = []

    async def serve(stream: TcpStream) -> None:
        context = tls.server_context(asked)
        context.sni_callback = lambda _object, name, _context: seen.append(name)
        await (await stream.start_tls(context, server_side=True)).receive_some()

    resolver = StaticResolver({host: ["127.0.0.1"]})
    async with no_leaks(), listening(serve) as (endpoint,):
        stream = await connect(host, endpoint.port, resolver=resolver, tls=tls.contexts().client)
        assert stream.host == host
        await stream.aclose()
    assert seen == [asked]


@pytest.mark.parametrize("call", CALLS)
async def test_the_name_that_is_verified_is_the_callers(call: str) -> None:
    """A certificate for the address does not stand for one for the name, nor the other way round."""

    def proving(name: str) -> Behaviour:
        async def serve(stream: TcpStream) -> None:
            await (await stream.start_tls(tls.server_context(name), server_side=True)).receive_some()

        return serve

    wants_address = call in ("connect, address", "connectx")
    words = "IP address mismatch" if wants_address else "Hostname mismatch"
    async with no_leaks(), listening(proving(tls.NAME), proving("127.0.0.1")) as (by_name, by_address):
        good, bad = (by_address, by_name) if wants_address else (by_name, by_address)
        options: dict[str, Any] = {"tls": tls.contexts().client}
        with counted_tasks() as names:
            await (await CALLS[call](good, options)).aclose()
        assert names == []
        with pytest.raises(ConnectFailed, match=words):
            await CALLS[call](bad, options)


@pytest.mark.parametrize(
    "kinds",
    [[secure], [hang_up, secure], [untrusted, secure], [untrusted, hang_up]],
    ids=lambda kinds: "-".join(kind.__name__ for kind in kinds),
)
async def test_the_report_is_that_of_a_race_with_tasks(kinds: list[Behaviour]) -> None:
    """An observer makes the difference: it is told each step."""

    async def report(endpoints: Sequence[Endpoint], recorder: Recorder | None) -> tuple[Any, ...]:
        try:
            stream = await race(endpoints, observer=recorder, policy=SEQUENTIAL)
        except ConnectFailed as exc:
            said = [(type(error), getattr(error, "__notes__", None)) for error in exc.errors]
            return facts(exc.report), exc.errno, said
        found = facts(stream.report)
        await stream.aclose()
        return (found,)

    async with no_leaks(), listening(*kinds) as endpoints:
        refused = Endpoint("127.0.0.1", 1)
        for candidates in (endpoints, [*endpoints, refused], [refused, *endpoints]):
            assert await report(candidates, None) == await report(candidates, Recorder())


@pytest.mark.parametrize(("took", "others", "until"), [
    (0.0, True, math.inf), (0.1, True, math.inf), (0.25, True, math.inf), (0.1, True, 0.2), (0.1, False, math.inf),
])  # fmt: skip
@pytest.mark.parametrize("delay", [0.25, math.inf])
async def test_it_stops_where_the_race_has_something_to_do(
    took: float, others: bool, until: float, delay: float, autojump_clock: trio.testing.MockClock
) -> None:
    policy = RacePolicy(attempt_delay=delay)
    async with no_leaks(), listening(silent) as (endpoint,):
        started = trio.current_time() - took
        attempt = Attempt(endpoint, None, started)
        code = attempt.begin_and_poll(DEFAULT_OPTIONS, factory=False)
        assert code in (0, PENDING)
        if code:
            await attempt.finish(math.inf)
        candidates = [(None, endpoint), (None, Endpoint("192.0.2.1", 443))][: 1 + others]
        engine = Race(policy, started, candidates, more=False)
        engine.tick(started)
        engine.progressed(0, started + took)
        first = First(attempt, 0)
        establish = over_tls(tls.contexts().client, None, None)
        assert await first.secure(establish, policy, started + until, others=others) is None
        assert not first.has_failed
        assert trio.current_time() == pytest.approx(min(engine.deadline, started + until))
        attempt.close()


@pytest.mark.parametrize("several", [False, True])
async def test_the_deadline_counts(several: bool, autojump_clock: trio.testing.MockClock) -> None:
    async with no_leaks(), listening(silent, silent) as endpoints:
        with pytest.raises(DeadlineExceeded) as caught:
            await race(endpoints[: 1 + several], now() + 1_000)
        assert trio.current_time() == pytest.approx(1.0, abs=0.001)
        assert caught.value.report is not None
        assert [(row.outcome, row.phase, row.cause) for row in caught.value.report.attempts] == [
            ("cancelled", "establish", "first"), ("cancelled", "establish", "delay")
        ][: 1 + several]  # fmt: skip
        del caught


async def test_the_attempt_timeout_counts(autojump_clock: trio.testing.MockClock) -> None:
    async with no_leaks(), listening(silent) as endpoints:
        with pytest.raises(ConnectFailed, match=r"\(timed out: 1\)") as no:
            await race(endpoints, policy=RacePolicy(attempt_timeout=1.0))
        assert trio.current_time() == pytest.approx(1.0)
        del no


# --- no longer alone --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("winner", [0, 1])
async def test_the_handshake_goes_on_beside_the_next_attempt(winner: int, mock_clock: trio.testing.MockClock) -> None:
    """On the same connection, in a task, and nothing of it is lost."""
    asked, other = [trio.Event(), trio.Event()], trio.Event()
    connections = [0, 0]

    async def behave(number: int, stream: TcpStream) -> None:
        connections[number] += 1
        await trio.lowlevel.wait_readable(stream.fileno())
        asked[number].set()
        if number != winner:
            await silent(stream)
        await other.wait()
        await secure(stream)

    async with no_leaks(), listening(partial(behave, 0), partial(behave, 1)) as endpoints:
        streams: list[TlsStream] = []

        async def call() -> None:
            streams.append(await race(endpoints))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            with counted_tasks() as names:
                await asked[0].wait()
                await trio.testing.wait_all_tasks_blocked(0.01)
                mock_clock.jump(0.2)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert (names, connections) == ([], [1, 0])
                mock_clock.jump(0.1)
                await asked[1].wait()
            assert names == [f"connect to {endpoint}" for endpoint in endpoints]
            other.set()
        (stream,) = streams
        assert await stream.receive_exactly(5) == b"hello"
        assert stream.peer == endpoints[winner]
        assert connections == [1, 1]
        outcomes = ["won", "lost"] if winner == 0 else ["lost", "won"]
        assert [(row.cause, row.phase, row.outcome) for row in stream.report.attempts] == [
            ("first", "establish", outcomes[0]), ("delay", "establish", outcomes[1])
        ]  # fmt: skip
        await stream.aclose()


@pytest.mark.parametrize("first", [silent, untrusted])
async def test_the_report_of_the_winner_holds_nothing_of_the_attempt_that_came_first(first: Behaviour) -> None:
    async with no_leaks(), listening(first, secure) as endpoints:
        gc.collect()
        gc.disable()  # what is gone then was counted, and in no cycle
        try:
            stream = await race(endpoints, policy=RacePolicy(attempt_delay=0.010))
            if sys.version_info >= (3, 12):
                # There a nursery that has cancelled its tasks leaves the frames of its end in a cycle.
                gc.collect()
            left = [each for each in gc.get_objects() if isinstance(each, First)]
        finally:
            gc.enable()
        assert left == []
        assert len(stream.report.tried) == 2
        await stream.aclose()


async def test_what_is_no_failure_of_an_attempt_ends_the_call_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with no_leaks(), listening(secure, secure) as endpoints:
        with monkeypatch.context() as patched:

            async def stumble(*_: object) -> None:
                patched.undo()
                raise LookupError("a fault of ours")

            patched.setattr(Handshake, "_step", stumble)
            with pytest.raises(LookupError, match="a fault of ours"):
                await race(endpoints)


async def test_a_failure_starts_the_next_without_waiting(autojump_clock: trio.testing.MockClock) -> None:
    async with no_leaks(), listening(untrusted, secure) as endpoints:
        stream = await race(endpoints, policy=RacePolicy(attempt_delay=math.inf, attempt_timeout=math.inf))
        failed, won = stream.report.attempts
        assert (failed.outcome, failed.phase, won.cause) == ("failed", "establish", "failure")
        assert "unable to get local issuer" in (failed.reason or "")
        await stream.aclose()


async def test_no_syn_follows_a_failure_that_a_cancel_came_with(monkeypatch: pytest.MonkeyPatch) -> None:
    scope = trio.CancelScope()
    begun: list[Attempt] = []
    begin = Attempt.begin

    def counted(attempt: Attempt, *args: Any, **kwargs: Any) -> int:
        begun.append(attempt)
        return begin(attempt, *args, **kwargs)

    async def fail(handshake: Handshake, _: float) -> None:
        scope.cancel()
        await handshake.abandon()
        raise trio.BrokenResourceError

    async with no_leaks(), listening(silent, silent) as endpoints:
        monkeypatch.setattr(Attempt, "begin", counted)
        monkeypatch.setattr(Handshake, "advance", fail)
        with scope:
            await race(endpoints, policy=SEQUENTIAL)
        assert scope.cancelled_caught
        assert [attempt.endpoint for attempt in begun] == endpoints[:1]
        begun.clear()


# --- nothing is left --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kinds",
    [[secure], [hang_up, secure], [silent, silent]],
    ids=lambda kinds: "-".join(kind.__name__ for kind in kinds),
)
async def test_cancel_at_every_step(sockets: Sockets, kinds: list[Behaviour]) -> None:
    policy = RacePolicy(attempt_delay=0.010, attempt_timeout=math.inf)
    summary = await sweep(
        lambda endpoints: race(endpoints, policy=policy), environment=lambda: listening(*kinds),
        counters=sockets.counters, inside=False,
    )  # fmt: skip
    assert summary.endings("before")[1]["cancelled"] == repeated(1)


async def test_an_interrupt_closes_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interruption(BaseException):
        pass

    async def interrupt(*_: Any) -> Any:
        raise Interruption

    async with no_leaks(), listening(secure) as endpoints:
        monkeypatch.setattr("trio_connect._net.streams.tls_transport.TlsTransport.send_some", interrupt)
        with pytest.raises(Interruption):
            await race(endpoints)
