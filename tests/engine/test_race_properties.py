"""Random races against an oracle that is slow and plain: it looks at every millisecond, and works out when the gate
opens from the list of all that has happened, again each time.

Times are whole milliseconds held in floats, so sums are exact and ties are real. Facts of one instant reach the engine
in a drawn order: what it does must not depend on it. (Except that progress comes first, for it puts off a start that
cannot be taken back, and so do candidates where sorting decides who is next.)
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EMFILE
from math import inf
from random import Random
from typing import Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import examples
from trio_connect import _policy
from trio_connect._endpoint import Endpoint
from trio_connect._engine import race_schedule
from trio_connect._engine.race import Race
from trio_connect._engine.race_table import Abandon, Candidate, Command, Exhausted, Start, Won
from trio_connect._policy import RacePolicy

EXAMPLES = examples(80, 2000)
FLOOR = 10
STARVED = -inf
# Far beyond what nine attempts can take, each with its delay, its time and one postponement.
HORIZON = 1500
ESTABLISH = ("establish ok", "establish fails", "establish hangs")


@pytest.fixture(autouse=True, scope="module")
def milliseconds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race_schedule, "MIN_ATTEMPT_DELAY", float(FLOOR))
        patch.setattr(_policy, "LONGEST_DELAY", inf)
        yield


@attrs.frozen(kw_only=True)
class Fate:
    """What happens to one candidate, in milliseconds."""

    arrives: int
    rank: int
    loopback: bool
    kind: str
    connect: int
    establish: int

    def progress(self) -> int | None:
        return self.connect if self.kind in ESTABLISH else None

    def success(self) -> int | None:
        match self.kind:
            case "ok":
                return self.connect
            case "establish ok":
                return self.connect + self.establish
        return None

    def failure(self) -> int | None:
        match self.kind:
            case "unsent":
                return 0
            case "refused":
                return self.connect
            case "establish fails":
                return self.connect + self.establish
        return None


@attrs.frozen(kw_only=True)
class Plan:
    fates: list[Fate]
    closes: int
    """How long after the last arrival it is known to have been the last."""
    is_sorted: bool
    delay: float
    timeout: float
    limit: int
    sockets: int = 99
    """So many can be open at a time."""

    def candidates(self) -> list[Candidate]:
        return [
            (None, Endpoint(f"{'127.0.0' if fate.loopback else '192.0.2'}.{n + 1}", 443))
            for n, fate in enumerate(self.fates)
        ]

    def closed_at(self) -> int:
        return max((fate.arrives for fate in self.fates), default=0) + self.closes


@attrs.define
class Outcome:
    """What a race did: who was started when and why, and how it ended."""

    starts: list[tuple[int, float, str]] = attrs.Factory(list)
    ended: float = inf
    how: str = "never"
    winners: set[int] = attrs.Factory(set)

    def before_the_end(self) -> list[tuple[int, float, str]]:
        # What else happens in the instant of the end depends on who is told first.
        return [start for start in self.starts if start[1] < self.ended]


# Twice what is common out there.
KINDS = ("unsent", "black hole", "black hole", "refused", "refused", "ok", *ESTABLISH)

fates = st.builds(
    Fate,
    arrives=st.just(0) | st.integers(0, 120),
    rank=st.integers(0, 3),
    loopback=st.sampled_from([False, False, False, True]),
    kind=st.sampled_from(KINDS),
    connect=st.integers(0, 60),
    establish=st.integers(0, 60),
)
plans = st.builds(
    Plan,
    fates=st.lists(fates, max_size=9),
    closes=st.just(0) | st.integers(0, 50),
    is_sorted=st.booleans(),
    delay=st.integers(10, 50).map(float) | st.sampled_from([10.0, 20.0, inf]),
    timeout=st.integers(1, 90).map(float) | st.just(inf),
    limit=st.integers(1, 4),
)


# The oracle


@attrs.define(kw_only=True, eq=False)
class Ran:
    """One start that the oracle made."""

    number: int
    at: int
    due: float
    ended: int | None = None
    starved: bool = False


@attrs.frozen(kw_only=True)
class Happened:
    at: int
    what: Literal["progress", "end", "arrival"]
    about: Ran | None = None
    """The attempt that progressed or ended; of several that ended, the newest."""
    full: bool = False
    idle: bool = False


def gate(plan: Plan, ran: list[Ran], happened: list[Happened]) -> tuple[float, str]:
    """Work out when the next start is due, and why, from the rules and everything that has happened."""
    if not ran:
        return min((fate.arrives for fate in plan.fates), default=0), "first"
    last = ran[-1]
    due, cause = last.due + plan.delay, "delay"
    floor = max((r.at + FLOOR for r in ran if sets_floor(plan, r.number) and not r.starved), default=0)
    put_off = 0.0
    for event in happened:
        # Of its own instant, a start leaves behind only what it brought about itself.
        if event.at < last.at or (event.at == last.at and (event.what != "end" or event.about is not last)):
            continue
        match event.what:
            case "progress":
                assert event.about is not None
                handshake = min(float(event.at - event.about.at), plan.delay)
                if handshake > put_off:
                    due, put_off = max(due, event.at) + handshake - put_off, handshake
            case "end" if due > event.at or event.full:
                due, cause = max(event.at, floor), "failure" if due > event.at else "slot"
            case "arrival" if event.idle or due < event.at:
                due, cause = max(event.at, floor), "arrival"
            case _:
                pass
    return max(due, floor), cause


def sets_floor(plan: Plan, number: int) -> bool:
    return not plan.fates[number].loopback and plan.fates[number].kind != "unsent"


def oracle(plan: Plan) -> Outcome:
    ran: list[Ran] = []
    live: list[Ran] = []
    waiting: list[int] = []
    starved: list[int] = []
    happened: list[Happened] = []
    outcome = Outcome()

    def due_now(r: Ran, after: int | None, now: int) -> bool:
        return after is not None and r.at + after == now

    for now in range(HORIZON):
        arriving = [n for n, fate in enumerate(plan.fates) if fate.arrives == now]
        first_round = True
        while True:
            for r in live:
                fate = plan.fates[r.number]
                if due_now(r, fate.progress(), now) and (first_round or r.at == now) and now - r.at <= plan.timeout:
                    happened.append(Happened(at=now, what="progress", about=r))
            winners = [r for r in live if due_now(r, plan.fates[r.number].success(), now)]
            if winners:
                outcome.winners = {r.number for r in winners}
                outcome.how, outcome.ended = "won", now
                return outcome
            full = len(live) >= plan.limit
            over = [r for r in live if due_now(r, plan.fates[r.number].failure(), now) or now - r.at >= plan.timeout]
            for r in over:
                r.ended = now
                live.remove(r)
            if over:
                happened.append(Happened(at=now, what="end", about=over[-1], full=full))
            if first_round and arriving:
                if not waiting and not starved:
                    idle = not live and all(r.ended != now for r in ran)
                    happened.append(Happened(at=now, what="arrival", idle=idle))
                waiting += arriving
                if plan.is_sorted:
                    waiting.sort(key=lambda n: (plan.fates[n].rank, n))
            first_round = False
            if not (waiting or starved) or len(live) >= plan.limit:
                break
            due, cause = gate(plan, ran, happened)
            if now < due:
                break
            if len(live) >= plan.sockets:
                # Nobody's failure, and no start: but the schedule goes on from there.
                starved.append(starved.pop(0) if starved else waiting.pop(0))
                starved.sort()
                ran.append(Ran(number=starved[0], at=now, due=due, ended=now, starved=True))
                continue
            r = Ran(number=(starved or waiting).pop(0), at=now, due=due)
            ran.append(r)
            live.append(r)
            outcome.starts.append((r.number, now, cause))
        if now >= plan.closed_at() and not live and not waiting and not starved:
            outcome.how, outcome.ended = "exhausted", now
            return outcome
    return outcome


# The driver


class Driver:
    """Runs the engine through a plan, and keeps the books on what is open.

    With `multipath` the last fate is that of the plain attempt, which is no candidate.
    """

    def __init__(self, plan: Plan, seed: int, *, multipath: bool = False) -> None:
        self.plan = plan
        self.random = Random(seed)
        self.outcome = Outcome()
        self.candidates = plan.candidates()
        self.started: list[tuple[int, float]] = []
        self.open: set[int] = set()
        self.most_open = 0
        policy = RacePolicy(attempt_delay=plan.delay, attempt_timeout=plan.timeout, max_in_flight=plan.limit)
        there = [n for n, fate in enumerate(plan.fates) if fate.arrives == 0][: -1 if multipath else None]
        if plan.is_sorted:
            there.sort(key=lambda n: (plan.fates[n].rank, n))
        self.known = there
        more = plan.closed_at() > 0
        self.race = Race(policy, 0.0, [self.candidates[n] for n in there], more=more, multipath=multipath)

    def do(self, commands: list[Command], now: float) -> None:
        for place, command in enumerate(commands):
            match command:
                case Start(attempt, candidate, cause, plain):
                    number = self.candidates.index(candidate)
                    if plain:
                        assert number == 0
                        number = len(self.candidates) - 1
                    if attempt < len(self.started):
                        assert self.started[attempt] == (number, STARVED)
                        del self.started[attempt]
                    if len(self.open) >= self.plan.sockets:
                        self.started.insert(attempt, (number, STARVED))
                        failed = self.race.failed(attempt, now, phase="socket", errno=EMFILE, emitted=False)
                        self.do(failed, now)
                        continue
                    self.started.insert(attempt, (number, now))
                    self.outcome.starts.append((number, now, cause))
                    self.open.add(attempt)
                    self.most_open = max(self.most_open, len(self.open))
                case Abandon(attempt, reason):
                    assert (attempt in self.open) == (reason != "late")
                    self.open.discard(attempt)
                case Won(attempt):
                    assert self.open == {attempt}
                    self.outcome.winners = {self.started[attempt][0]}
                    self.outcome.how, self.outcome.ended = "won", now
                    assert place == len(commands) - 1
                case Exhausted():
                    assert not self.open
                    self.outcome.how, self.outcome.ended = "exhausted", now
                    assert place == len(commands) - 1

    def arrive(self, number: int, now: float) -> None:
        self.race.add([self.candidates[number]], now)
        self.known = [*self.known, number]
        if self.plan.is_sorted and self.race.state == "open":
            self.known.sort(key=lambda n: (self.plan.fates[n].rank, n))
            self.race.replace_order([self.candidates[n] for n in self.known])

    def reports(self, now: float, told: set[tuple[int, str]]) -> tuple[list[int], list[tuple[int, str]]]:
        """Who has progressed now, and who has ended now, of those that were not told yet."""
        progressed: list[int] = []
        ended: list[tuple[int, str]] = []
        for attempt, (number, at) in enumerate(self.started):
            fate = self.plan.fates[number]
            for what, after in (("progress", fate.progress()), ("ok", fate.success()), ("failed", fate.failure())):
                if after is None or at + after != now or (attempt, what) in told:
                    continue
                told.add((attempt, what))
                if what == "progress":
                    progressed.append(attempt)
                else:
                    ended.append((attempt, what))
        self.random.shuffle(progressed)
        self.random.shuffle(ended)
        return progressed, ended

    def tell(self, attempt: int, what: str, now: float) -> None:
        if what == "ok":
            self.do(self.race.succeeded(attempt, now), now)
            return
        self.open.discard(attempt)
        emitted = self.plan.fates[self.started[attempt][0]].kind != "unsent"
        self.do(self.race.failed(attempt, now, phase="connect", errno=111, emitted=emitted), now)

    def instant(self, now: float) -> None:
        """Tell everything that happens now; attempts may come of it that end now, too."""
        arriving = [n for n, fate in enumerate(self.plan.fates) if fate.arrives == now > 0]
        told: set[tuple[int, str]] = set()
        while True:
            progressed, ended = self.reports(now, told)
            turns = [*((attempt, "progress") for attempt in progressed), *ended]
            # The driver sorts what it hears of attempts, but not who comes: that is told as soon as somebody comes.
            # Where candidates are ranked, arrivals come before what may make a start: an end, or any fact once it is
            # due. Who is best depends on who is there.
            harmless = 0 if now >= self.race.deadline else len(progressed)
            last_place = harmless if self.plan.is_sorted else len(turns)
            places = sorted(self.random.randint(0, last_place) for _ in arriving)
            for place, number in reversed([*zip(places, arriving, strict=True)]):
                turns.insert(place, (number, "arrival"))
            arriving = []
            for attempt, what in turns:
                if what == "arrival":
                    self.arrive(attempt, now)
                elif what == "progress":
                    self.do(self.race.progressed(attempt, now), now)
                else:
                    self.tell(attempt, what, now)
            if now == self.plan.closed_at() and self.race.state == "open":
                self.race.no_more()
            self.do(self.race.tick(now), now)
            if not any(self.reports(now, set(told))):
                break

    def run(self) -> Outcome:
        moments = {float(self.plan.closed_at()), *(float(fate.arrives) for fate in self.plan.fates)}
        now = 0.0
        self.instant(now)
        while self.outcome.how == "never":
            moments.update(
                at + after
                for number, at in self.started
                for fate in [self.plan.fates[number]]
                for after in (fate.progress(), fate.success(), fate.failure())
                if after is not None
            )
            moments = {moment for moment in moments if moment > now}
            now = min([*moments, self.race.deadline])
            if now >= HORIZON:
                break
            self.instant(now)
        return self.outcome


@settings(max_examples=EXAMPLES)
@given(plan=plans, seed=st.integers(0, 2**16))
def test_the_race_does_what_the_oracle_says(plan: Plan, seed: int):
    told = Driver(plan, seed).run()
    wanted = oracle(plan)
    assert (told.how, told.ended) == (wanted.how, wanted.ended)
    assert told.winners <= wanted.winners
    assert told.before_the_end() == wanted.before_the_end()


def test_who_comes_in_the_instant_of_a_start_that_is_due_is_considered():
    def fate(kind: str, arrives: int, connect: int, establish: int = 0) -> Fate:
        return Fate(arrives=arrives, rank=0, loopback=False, kind=kind, connect=connect, establish=establish)

    came = [
        fate("establish hangs", 49, 43),
        fate("establish ok", 49, 43, 1),
        fate("ok", 105, 0),
        fate("black hole", 92, 0),
    ]
    plan = Plan(fates=came, closes=0, is_sorted=True, delay=13.0, timeout=inf, limit=3)
    for seed in range(20):
        told = Driver(plan, seed).run()
        assert told.starts == [(0, 49, "first"), (1, 62, "delay"), (2, 105, "delay")]
        assert (told.how, told.ended, told.winners) == ("won", 105, {2})


@settings(max_examples=EXAMPLES)
@given(plan=plans, seeds=st.tuples(st.integers(0, 2**16), st.integers(0, 2**16)))
def test_the_order_of_facts_in_one_instant_changes_nothing(plan: Plan, seeds: tuple[int, int]):
    one, other = (Driver(plan, seed).run() for seed in seeds)
    assert (one.how, one.ended, one.before_the_end()) == (other.how, other.ended, other.before_the_end())


@settings(max_examples=EXAMPLES)
@given(plan=plans, seed=st.integers(0, 2**16))
def test_promises_that_need_no_oracle(plan: Plan, seed: int):
    driver = Driver(plan, seed)
    outcome = driver.run()

    # No attempt that could have won sooner was given up or passed over by those that did start.
    finishes = [at + after for n, at in driver.started if (after := plan.fates[n].success()) is not None
                and after <= plan.timeout]  # fmt: skip
    if outcome.how == "won":
        assert outcome.ended == min(finishes)
    else:
        assert finishes == []

    assert driver.most_open <= plan.limit
    for (n, at), (_, following) in zip(driver.started, driver.started[1:], strict=False):
        assert following - at >= (FLOOR if sets_floor(plan, n) else 0)

    if driver.race.state not in ("won", "exhausted"):
        driver.do(driver.race.cancel(HORIZON), HORIZON)
    assert len(driver.open) == (outcome.how == "won")
    assert driver.race.deadline == inf

    rows = driver.race.records()
    told_of = {n for n, fate in enumerate(plan.fates) if fate.arrives < outcome.ended}
    assert len({row.endpoint for row in rows}) == len(rows)
    assert {row.endpoint for row in rows} >= {driver.candidates[n][1] for n in told_of}
    for row, (n, at) in zip(rows, driver.started, strict=False):
        assert (row.endpoint, row.started) == (driver.candidates[n][1], at)
        assert row.ended is not None
        assert at <= row.ended <= at + plan.timeout
    for row in rows[len(driver.started) :]:
        assert (row.outcome, row.started, row.ended, row.cause) == ("not tried", None, None, None)
    assert [row.outcome for row in rows].count("won") == (outcome.how == "won")


few_sockets = st.builds(
    Plan,
    # Without establish: what progresses in an instant is told before what ends in it and gives its socket back.
    fates=st.lists(fates.map(lambda fate: attrs.evolve(fate, kind=fate.kind.removeprefix("establish "))).map(
        lambda fate: fate if fate.kind in KINDS else attrs.evolve(fate, kind="refused")), min_size=1, max_size=9),
    closes=st.just(0) | st.integers(0, 50),
    is_sorted=st.just(False),
    delay=st.integers(10, 50).map(float) | st.sampled_from([10.0, 20.0, inf]),
    timeout=st.integers(1, 90).map(float) | st.just(inf),
    limit=st.integers(1, 4),
    sockets=st.integers(1, 3),
)  # fmt: skip


@settings(max_examples=EXAMPLES)
@given(plan=few_sockets, seed=st.integers(0, 2**16))
def test_field_19_the_race_does_what_the_oracle_says_with_few_sockets(plan: Plan, seed: int):
    driver = Driver(plan, seed)
    told = driver.run()
    wanted = oracle(plan)
    assert (told.how, told.ended) == (wanted.how, wanted.ended)
    assert told.winners <= wanted.winners
    assert told.before_the_end() == wanted.before_the_end()
    assert driver.most_open <= min(plan.limit, plan.sockets)


dropped = st.builds(
    Fate, arrives=st.just(0), rank=st.just(0), loopback=st.just(False), kind=st.just("black hole"), connect=st.just(0),
    establish=st.just(0),
)  # fmt: skip
plain = fates.map(lambda fate: attrs.evolve(fate, arrives=0, rank=0, loopback=False))
multipath_plans = st.builds(
    Plan,
    fates=st.tuples(st.lists(dropped, min_size=1, max_size=6), plain).map(lambda parts: [*parts[0], parts[1]]),
    closes=st.just(0) | st.integers(0, 50),
    is_sorted=st.just(False),
    delay=st.integers(10, 50).map(float) | st.sampled_from([10.0, 20.0, inf]),
    timeout=st.integers(1, 90).map(float) | st.just(inf),
    limit=st.integers(1, 8),
)


@settings(max_examples=EXAMPLES)
@given(plan=multipath_plans, seed=st.integers(0, 2**16))
def test_mptcp_where_the_option_is_dropped_the_plain_attempt_is_one_more_candidate(plan: Plan, seed: int):
    """Nobody answers what asks for MPTCP: the race is as one with the best endpoint once more, at the end."""
    told = Driver(plan, seed, multipath=True).run()
    wanted = oracle(plan)
    assert (told.how, told.ended) == (wanted.how, wanted.ended)
    assert told.winners <= wanted.winners
    assert told.before_the_end() == wanted.before_the_end()


def test_the_oracle_knows_the_textbook_race():
    hole = Fate(arrives=0, rank=0, loopback=False, kind="black hole", connect=0, establish=0)
    good = attrs.evolve(hole, kind="ok", connect=20)
    plan = Plan(fates=[hole, hole, good], closes=0, is_sorted=False, delay=250.0, timeout=inf, limit=16)
    assert oracle(plan) == Outcome(
        starts=[(0, 0, "first"), (1, 250, "delay"), (2, 500, "delay")], ended=520, how="won", winners={2}
    )
