"""Random networks against an oracle that is slow and plain: it walks from tick to tick, and looks at every attempt.

The real driver runs on the virtual network, in virtual time. A tick is 1/1024 of a second, so that all times are exact
floats and ties are real. What happens in one instant happens in whatever order Trio shuffled its tasks to.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from math import inf
from typing import Any

import attrs
import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.net.racing import Recorder
from tests.support import examples
from trio_connect import (
    Attempt,
    AttemptFinished,
    AttemptStarted,
    ConnectFailed,
    DeadlineExceeded,
    Endpoint,
    EstablishFailed,
    RacePolicy,
    TcpStream,
    connectx,
)
from trio_connect import (
    now as now_ms,
)
from trio_connect._engine import race_schedule
from trio_connect.testing import VirtualNetwork, echo, run

TICK = 1 / 1024
FLOOR = 16
STEP_MS = 125
STEP = 128  # 125 ms, in ticks: deadlines are whole milliseconds
HORIZON = 12 * STEP


@pytest.fixture(autouse=True, scope="module")
def floor_of_whole_ticks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race_schedule, "MIN_ATTEMPT_DELAY", FLOOR * TICK)
        yield


@attrs.frozen(kw_only=True)
class Fate:
    """What happens to one candidate; times in ticks."""

    kind: str  # "ok", "refused", "unsent", "unreachable", "hole"
    connect: int
    then: str  # what establish does: "ok", "fails", "hangs"
    establish: int
    arrives: int


@attrs.frozen(kw_only=True)
class Plan:
    fates: list[Fate]
    delay: float
    timeout: float
    limit: int
    establish: bool
    stream: bool
    """The candidates come one by one, from an async iterable that ends `closes` ticks after the last."""
    closes: int
    ends: int | None
    """The deadline, in steps."""
    by_scope: bool
    """That is the deadline of a scope around the call."""
    sockets: int = 99
    """So many can be open at a time."""

    def arrival(self, n: int) -> int:
        # In order: a generator has one thread of time.
        return max(fate.arrives for fate in self.fates[: n + 1]) if self.stream else 0

    def closed_at(self) -> int:
        return self.arrival(len(self.fates) - 1) + self.closes if self.stream else 0

    def until(self) -> float:
        return inf if self.ends is None else self.ends * STEP

    def connected_after(self, n: int) -> int | None:
        return self.fates[n].connect if self.fates[n].kind == "ok" else None

    def won_after(self, n: int) -> int | None:
        fate = self.fates[n]
        if fate.kind != "ok" or (self.establish and fate.then != "ok"):
            return None
        return fate.connect + (fate.establish if self.establish else 0)

    def failed_after(self, n: int) -> int | None:
        fate = self.fates[n]
        if fate.kind == "unsent":
            return 0
        if fate.kind in ("refused", "unreachable"):
            return fate.connect
        if fate.kind == "ok" and self.establish and fate.then == "fails":
            return fate.connect + fate.establish
        return None


fates = st.builds(
    Fate,
    kind=st.sampled_from(["ok", "ok", "refused", "refused", "unreachable", "unsent", "hole", "hole"]),
    # Mostly round numbers, so that much happens in one instant.
    connect=st.sampled_from([10, 20, 20, 30, 40, 40, 60]) | st.integers(1, 60),
    then=st.sampled_from(["ok", "fails", "hangs"]),
    establish=st.sampled_from([0, 10, 20, 40]) | st.integers(0, 60),
    arrives=st.just(0) | st.sampled_from([0, 20, 40, 60]) | st.integers(0, 120),
)
plans = st.builds(
    Plan,
    fates=st.lists(fates, min_size=1, max_size=7),
    delay=st.sampled_from([16, 20, 20, 30, 40, 50, inf]),
    timeout=st.sampled_from([20, 40, 40, 60, 90, inf]),
    limit=st.integers(1, 4),
    establish=st.booleans(),
    stream=st.booleans(),
    closes=st.integers(0, 50),
    ends=st.none() | st.integers(1, 10),
    by_scope=st.booleans(),
).map(lambda plan: plan if plan.timeout < inf or plan.ends else attrs.evolve(plan, ends=10))


# --- the oracle -------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Ran:
    number: int
    started: int
    cause: str
    ended: int | None = None
    outcome: str = ""
    told_progress: bool = False


@attrs.define
class Story:
    ran: list[Ran] = attrs.Factory(list)
    how: str = ""
    at: int = -1
    winners: set[int] = attrs.Factory(set)


def oracle(plan: Plan) -> Story:
    story = Story()
    waiting: list[int] = []
    starved: list[int] = []
    due, cause, floor, put_off = 0.0, "first", -inf, 0.0
    last_start = -1

    def live() -> list[Ran]:
        return [ran for ran in story.ran if ran.ended is None]

    for now in range(HORIZON + 1):
        arriving = [n for n in range(len(plan.fates)) if plan.arrival(n) == now]
        while True:
            for ran in live():
                took = now - ran.started
                # A handshake that is over in the instant of its timeout has come too late for its establish,
                # unless that takes no time; either way the next start is not put off by who is ended now.
                if plan.establish and plan.connected_after(ran.number) == took and not ran.told_progress:
                    ran.told_progress = True
                    handshake = min(took, plan.delay)
                    if handshake > put_off:
                        due, put_off = max(due, now) + handshake - put_off, handshake
            winners = {ran.number for ran in live() if plan.won_after(ran.number) == now - ran.started}
            if winners:
                story.how, story.at, story.winners = "won", now, winners
                return story
            full = len(live()) >= plan.limit
            over = []
            for ran in live():
                took = now - ran.started
                if plan.failed_after(ran.number) == took:
                    ran.ended, ran.outcome = now, "failed"
                elif took >= plan.timeout and now < plan.until():
                    ran.ended, ran.outcome = now, "timed out"
                else:
                    continue
                over.append(ran)
                if plan.fates[ran.number].kind == "unsent":
                    floor = -inf
            if any(ran.started == now or last_start != now for ran in over):
                if due > now:
                    due, cause = max(now, floor), "failure"
                elif full:
                    due, cause = max(now, floor), "slot"
            if arriving:
                if not waiting and not starved:
                    idle = not live() and all(ran.ended != now for ran in story.ran)
                    if cause == "first":
                        due = max(due, now)
                    elif idle or due < now:
                        due, cause = max(now, floor), "arrival"
                waiting += arriving
                arriving = []
            if now >= plan.until():
                story.how, story.at = "deadline", now
                if not live() and not waiting and not starved and now >= plan.closed_at():
                    story.how = "exhausted"
                return story
            if not (waiting or starved) or len(live()) >= plan.limit or now < max(due, floor):
                break
            if len(live()) < plan.sockets:
                story.ran.append(Ran((starved or waiting).pop(0), now, cause))
                last_start = now
                floor = now + FLOOR
            elif starved:
                starved.append(starved.pop(0))
            else:
                starved.append(waiting.pop(0))
            due = due + plan.delay if due + plan.delay > now else now + plan.delay
            cause, put_off = "delay", 0.0
        if now >= plan.closed_at() and not live() and not waiting and not starved:
            story.how, story.at = "exhausted", now
            return story
    raise AssertionError("the oracle has no end")


# --- the real thing ---------------------------------------------------------------------------------------------------


def host_of(n: int) -> str:
    return f"192.0.2.{n + 1}" if n % 2 else f"2001:db8::{n + 1}"


def describe(net: VirtualNetwork, plan: Plan) -> None:
    for n, fate in enumerate(plan.fates):
        host = net.host(host_of(n))
        match fate.kind:
            case "ok":
                host.listen(443, echo, rtt=fate.connect * TICK)
            case "refused":
                host.refuse(fate.connect * TICK)
            case "unreachable":
                host.unreachable(errno.EHOSTUNREACH, after=fate.connect * TICK)
            case "unsent":
                host.unreachable(errno.ENETUNREACH)
            case _:
                host.blackhole()


class Book:
    """An observer that keeps count of what is alive."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.alive: set[int] = set()
        self.ran_out: dict[int, bool] = {}
        self.most = 0

    def __call__(self, event) -> None:
        self.recorder(event)
        if isinstance(event, AttemptStarted):
            # Counted up, but for those that this machine had no descriptor for.
            before = [e.attempt for e in self.recorder.events[:-1] if isinstance(e, AttemptStarted)]
            assert event.attempt == len(set(before)) or self.ran_out[event.attempt]
            self.alive.add(event.attempt)
            self.most = max(self.most, len(self.alive))
        elif isinstance(event, AttemptFinished):
            self.ran_out[event.attempt] = event.errno == errno.EMFILE
            self.alive.remove(event.attempt)


class FewSockets(trio.abc.SocketFactory):
    """Those of the virtual network, as many as this machine has descriptors for."""

    def __init__(self, net: VirtualNetwork, sockets: int) -> None:
        self.net = net
        self.left = sockets
        inner = trio.socket.set_custom_socket_factory(self)
        assert inner is not None
        self.inner = inner

    def socket(self, *kind: Any) -> Any:
        if len(self.net.open_sockets) >= self.left:
            raise OSError(errno.EMFILE, "too many open files")
        return self.inner.socket(*kind)


async def race(net: VirtualNetwork, plan: Plan, book: Book) -> tuple[str, object]:
    describe(net, plan)
    FewSockets(net, plan.sockets)
    endpoints = [Endpoint(host_of(n), 443) for n in range(len(plan.fates))]

    async def come() -> AsyncIterator[Endpoint]:
        for n, endpoint in enumerate(endpoints):
            if plan.arrival(n) * TICK > trio.current_time():
                await trio.sleep_until(plan.arrival(n) * TICK)
            yield endpoint
        if plan.closes:
            await trio.sleep_until(plan.closed_at() * TICK)

    async def establish(stream: TcpStream) -> TcpStream:
        fate = plan.fates[endpoints.index(stream.peer)]
        if fate.establish:
            await trio.sleep_until(trio.current_time() + fate.establish * TICK)
        if fate.then == "hangs":
            await trio.sleep_forever()
        if fate.then == "fails":
            raise EstablishFailed
        return stream

    policy = RacePolicy(
        attempt_delay=plan.delay * TICK, attempt_timeout=plan.timeout * TICK, max_in_flight=plan.limit
    )  # fmt: skip
    deadline = -1 if plan.ends is None or plan.by_scope else now_ms() + plan.ends * STEP_MS
    ends_by = plan.ends * STEP * TICK if plan.ends is not None and plan.by_scope else inf
    tasks = trio.lowlevel.current_statistics().tasks_living
    result: tuple[str, object] = "deadline", None
    with trio.CancelScope(deadline=ends_by):
        try:
            stream = await connectx(
                come() if plan.stream else endpoints, deadline, policy=policy, observer=book,
                establish=establish if plan.establish else None,
            )  # fmt: skip
        except ConnectFailed as exc:
            result = "exhausted", exc
        except DeadlineExceeded as exc:
            result = "deadline", exc
        else:
            result = "won", stream
    ended_at = trio.current_time()
    assert ended_at == book.recorder.events[-1].at
    assert len(net.open_sockets) == (result[0] == "won")
    if isinstance(result[1], TcpStream):
        assert result[1].report is book.recorder.report
        result[1].abort()
    # The network has a task of its own, and one for each connection that it serves.
    await trio.sleep(1)
    assert trio.lowlevel.current_statistics().tasks_living <= tasks + 1
    assert net.open_sockets == ()
    return result


def ticks(seconds: Any) -> Any:
    return None if seconds is None else seconds / TICK


def had_a_socket(attempts: tuple[Attempt, ...]) -> list[Attempt]:
    """Those that were started, in the order of their last starts."""
    started = [a for a in attempts if a.started is not None and a.errno != errno.EMFILE]
    return sorted(started, key=lambda a: a.started or 0.0)


def told(attempts: tuple[Attempt, ...]) -> list[tuple[Any, ...]]:
    return [(a.endpoint.host, ticks(a.started), a.cause) for a in had_a_socket(attempts)]


# Somebody comes in the very instant in which a handshake puts off the start that nobody was there for.
_COINCIDENCE = Plan(
    fates=[
        Fate(kind="ok", connect=20, then="hangs", establish=0, arrives=60),
        Fate(kind="ok", connect=10, then="ok", establish=40, arrives=0),
        Fate(kind="ok", connect=20, then="hangs", establish=0, arrives=0),
        Fate(kind="ok", connect=10, then="ok", establish=0, arrives=120),
    ],
    delay=16, timeout=40, limit=2, establish=True, stream=True, closes=0, ends=None, by_scope=False,
)  # fmt: skip


# So does somebody who comes in the instant of two handshakes, of which the longer is told last.
_TWO_HANDSHAKES = Plan(
    fates=[
        Fate(kind="ok", connect=130, then="hangs", establish=0, arrives=0),
        Fate(kind="refused", connect=55, then="ok", establish=0, arrives=0),
        Fate(kind="ok", connect=30, then="hangs", establish=0, arrives=0),
        Fate(kind="ok", connect=10, then="ok", establish=0, arrives=130),
    ],
    delay=50, timeout=400, limit=16, establish=True, stream=True, closes=0, ends=None, by_scope=False,
)  # fmt: skip


# Here it is a failure, and the floor keeps the start that it makes from being made at once.
_FAILURE_AND_HANDSHAKE = Plan(
    fates=[
        Fate(kind="ok", connect=10, then="fails", establish=40, arrives=0),
        Fate(kind="ok", connect=10, then="hangs", establish=0, arrives=0),
        Fate(kind="ok", connect=10, then="hangs", establish=0, arrives=0),
    ],
    delay=30, timeout=60, limit=2, establish=True, stream=True, closes=0, ends=None, by_scope=False,
)  # fmt: skip


@settings(max_examples=examples(80, 800))
@given(plan=plans)
@example(plan=_COINCIDENCE)
@example(plan=_FAILURE_AND_HANDSHAKE)
@example(plan=_TWO_HANDSHAKES)
def test_the_driver_does_what_the_oracle_says(plan: Plan):
    compare(plan)


@pytest.mark.slow
@pytest.mark.timeout(300)
@settings(max_examples=2000)
@given(plan=plans)
def test_the_driver_does_what_the_oracle_says_two_thousand_times(plan: Plan):
    compare(plan)


# Without an establish: a connection is told of before what fails in its instant and gives its descriptor back.
few_sockets = st.builds(
    lambda plan, sockets: attrs.evolve(plan, sockets=sockets, establish=False), plans, st.integers(1, 3)
)


@settings(max_examples=examples(50, 500))
@given(plan=few_sockets)
def test_field_19_the_driver_does_what_the_oracle_says_with_few_sockets(plan: Plan):
    """Out of descriptors, a race goes on as those that it has come back."""
    compare(plan)


def compare(plan: Plan) -> None:
    wanted = oracle(plan)
    book = Book()
    how, _ = run(race, plan, book)
    report = book.recorder.report

    # How it ended, when, and who won. At the very deadline a scope around the call decides.
    ended = ticks(report.elapsed)
    if plan.by_scope and wanted.at == plan.until():
        assert (how, ended) in {("deadline", wanted.at), (wanted.how, wanted.at)}
    else:
        assert (how, ended) == (wanted.how, wanted.at)
    if how == "won":
        assert report.winner is not None
        assert report.winner.endpoint.host in {host_of(n) for n in wanted.winners}
    else:
        assert report.winner is None

    # Who was started, when and why. What else is started in the instant of the end depends on who is told first.
    before_the_end = [row for row in told(report.attempts) if row[1] < ended]
    assert before_the_end == [(host_of(r.number), r.started, r.cause) for r in wanted.ran if r.started < wanted.at]

    # How each ended that ended before the race did.
    for attempt, ran in zip(had_a_socket(report.attempts), wanted.ran, strict=False):
        if ran.ended is not None and ran.ended < wanted.at:
            assert (ticks(attempt.ended), attempt.outcome) == (ran.ended, ran.outcome)

    check_promises(plan, book, how)


def check_promises(plan: Plan, book: Book, how: str) -> None:
    """What holds whatever the oracle says."""
    report = book.recorder.report
    assert book.alive == set()
    assert book.most <= plan.limit
    known = [row.endpoint.host for row in report.attempts]
    assert len(set(known)) == len(known)
    if not plan.stream:
        assert set(known) == {host_of(n) for n in range(len(plan.fates))}
    started: list[Any] = [row for row in report.attempts if row.started is not None]
    in_order: list[Any] = had_a_socket(report.attempts)
    for row, following in pairwise(in_order):
        unsent = plan.fates[[host_of(n) for n in range(len(plan.fates))].index(row.endpoint.host)].kind == "unsent"
        assert following.started - row.started >= (0 if unsent else FLOOR * TICK)
    for row in started:
        assert row.started <= row.ended <= report.elapsed
        assert row.ended - row.started <= plan.timeout * TICK
        if row.outcome in ("won", "lost", "cancelled"):
            assert row.ended == report.elapsed
        assert (row.errno is not None) == (row.outcome in ("failed", "timed out") and row.phase != "establish") or (
            row.phase == "establish" and row.errno in (None, errno.ETIMEDOUT)
        )
        assert (row.beaten_by is not None) == (row.outcome == "lost")
    outcomes = {row.outcome for row in started}
    assert outcomes <= {"won": {"won", "lost"}, "exhausted": set(), "deadline": {"cancelled"}}[how] | {
        "failed",
        "timed out",
    }
    # The events tell what the report tells.
    finished = {
        e.attempt: (e.outcome, e.phase, e.errno, e.at) for e in book.recorder.events if isinstance(e, AttemptFinished)
    }
    assert finished == {n: (r.outcome, r.phase, r.errno, r.ended) for n, r in enumerate(started)}


def test_the_oracle_knows_the_textbook_race():
    hole = Fate(kind="hole", connect=1, then="ok", establish=0, arrives=0)
    good = attrs.evolve(hole, kind="ok", connect=20)
    plan = Plan(
        fates=[hole, hole, good], delay=256, timeout=inf, limit=16, establish=False, stream=False, closes=0, ends=10,
        by_scope=False,
    )  # fmt: skip
    story = oracle(plan)
    assert [(r.number, r.started, r.cause) for r in story.ran] == [
        (0, 0, "first"),
        (1, 256, "delay"),
        (2, 512, "delay"),
    ]
    assert (story.how, story.at, story.winners) == ("won", 532, {2})


def test_progress_is_told_before_a_failure_of_the_same_instant():
    """At 86 one attempt connects and another is refused: whichever task ran first, the start is the failure's."""
    fates = [
        Fate(kind="ok", connect=10, then="ok", establish=31, arrives=0),
        Fate(kind="ok", connect=10, then="fails", establish=0, arrives=0),
        Fate(kind="refused", connect=40, then="ok", establish=0, arrives=0),
        Fate(kind="ok", connect=20, then="ok", establish=10, arrives=0),
        Fate(kind="ok", connect=10, then="ok", establish=0, arrives=0),
    ]
    plan = Plan(
        fates=fates, delay=20, timeout=40, limit=2, establish=True, stream=False, closes=0, ends=None, by_scope=False
    )
    for _ in range(20):  # Trio shuffles the tasks of one pass
        compare(plan)
