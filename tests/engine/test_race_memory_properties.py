"""Random races that share one memory of earlier connects, in turns and side by side.

Beside a plain model of the network, which says what becomes of each attempt, stand the rules that have to hold whatever
happens: no candidate is started twice, the floor and the limits are kept, every race ends when its own would have ended
at the latest, and nothing stays behind.
"""

from __future__ import annotations

from errno import ECONNREFUSED
from itertools import pairwise
from math import inf
from random import Random

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import examples
from trio_connect._endpoint import Endpoint
from trio_connect._engine.history import Limits, Memory
from trio_connect._engine.race import Race
from trio_connect._engine.race_memory import RaceMemory
from trio_connect._engine.race_table import Abandon, Candidate, Command, Exhausted, Start, Won
from trio_connect._policy import MIN_ATTEMPT_DELAY, Adaptive, RacePolicy

EXAMPLES = examples(40, 1000)
CANDIDATES: list[Candidate] = [(None, Endpoint(f"192.0.2.{n}", 443)) for n in range(1, 6)]


@attrs.define(eq=False)
class Run:
    """One race, and what the network will do with its attempts."""

    race: Race
    began: float
    policy: RacePolicy
    candidates: list[Candidate]
    fates: dict[Candidate, tuple[str, float]]
    starts: list[tuple[float, Candidate, str]] = attrs.Factory(list)
    due: dict[int, tuple[float, str]] = attrs.Factory(dict)
    live: set[int] = attrs.Factory(set)
    ends: set[float] = attrs.Factory(set)
    woken: bool = False
    ended: float | None = None
    winner: Candidate | None = None

    def wake(self) -> None:
        self.woken = True

    def next_event(self) -> float:
        return min([self.race.deadline, *(at for at, _ in self.due.values())], default=inf)

    def execute(self, commands: list[Command], now: float) -> None:
        for command in commands:
            match command:
                case Start():
                    assert command.candidate not in [candidate for _, candidate, _ in self.starts]
                    kind, after = self.fates[command.candidate]
                    self.starts.append((now, command.candidate, command.cause))
                    self.live.add(command.id)
                    assert len(self.live) <= self.policy.max_in_flight
                    if kind != "dead":
                        self.due[command.id] = (now + after, kind)
                case Abandon():
                    self.ends.add(now)
                    self.live.discard(command.id)
                    self.due.pop(command.id, None)
                case Won():
                    self.ended = now
                    self.live.discard(command.id)
                    self.winner = self.starts[command.id][1]
                case Exhausted():
                    self.ended = now

    def go_on(self, now: float) -> None:
        """Tell everything that has happened by now."""
        for attempt, (at, kind) in sorted(self.due.items()):
            if at <= now and self.ended is None:
                del self.due[attempt]
                if kind == "good":
                    self.execute(self.race.succeeded(attempt, now), now)
                else:
                    self.live.discard(attempt)
                    self.ends.add(now)
                    self.execute(
                        self.race.failed(attempt, now, phase="connect", errno=ECONNREFUSED, reason="refused"), now
                    )
        if self.ended is None:
            self.woken = False
            self.execute(self.race.tick(now), now)


def made(
    memory: Memory,
    policy: RacePolicy,
    candidates: list[Candidate],
    fates: dict[Candidate, tuple[str, float]],
    now: float,
) -> Run:
    """A race that begins now, with this memory."""

    def wake() -> None:
        run.wake()

    one = RaceMemory(memory, "", "", policy, wake=wake)
    run = Run(Race(policy, now, candidates, more=False, memory=one), now, policy, candidates, fates)
    return run


@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**32), budget=st.sampled_from([None, 1.0, 3.0]), adaptive=st.booleans())
def test_whatever_races_learn_of_each_other_each_keeps_the_rules(seed, budget, adaptive):
    random = Random(seed)
    memory = Memory(
        Limits(size=4, retry_after=10.0, retry_at_most=60.0, explore_after=600.0, lifetime=600.0, hedge_budget=budget)
    )
    policy = RacePolicy(
        attempt_delay=Adaptive() if adaptive else 0.25,
        attempt_timeout=1.937,
        max_in_flight=random.choice([1, 2, 16]),
    )
    fates: dict[Candidate, tuple[str, float]] = {
        candidate: (random.choice(["good", "refused", "dead"]), random.choice([0.021, 0.243, 0.307]))
        for candidate in CANDIDATES
    }
    waiting_to_begin = sorted(random.choice([0.0, 0.0, 0.1, 0.25, 1.0, 9.0, 11.0, 30.0]) for _ in range(12))
    runs: list[Run] = []
    now = 0.0
    while waiting_to_begin or any(run.ended is None for run in runs):
        active = [run for run in runs if run.ended is None]
        now = max(now, min([*waiting_to_begin[:1], *(run.next_event() for run in active)]))
        while waiting_to_begin and waiting_to_begin[0] <= now:
            waiting_to_begin.pop(0)
            chosen = random.sample(CANDIDATES, random.randint(1, 5))
            run = made(memory, policy, chosen, fates, now)
            runs.append(run)
            active.append(run)
        random.shuffle(active)
        for run in active:
            run.go_on(now)
        while woken_runs := [run for run in active if run.woken and run.ended is None]:
            for run in woken_runs:
                run.go_on(now)

    for run in runs:
        assert run.ended is not None
        good = [candidate for candidate in run.candidates if fates[candidate][0] == "good"]
        assert (run.winner in good) == bool(good)
        if not good:
            assert {candidate for _, candidate, _ in run.starts} == set(run.candidates)
        # Without a memory each start is due after one delay at the latest. Held back, it waits for one more, or until
        # what is pending has timed out. At the limit it waits for a slot, likewise.
        assert run.ended - run.began <= len(run.candidates) * policy.attempt_timeout + 0.3
        times = [at for at, _, _ in run.starts]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert all(gap >= MIN_ATTEMPT_DELAY - 1e-9 for gap in gaps)
        assert run.starts[0][2] == "first"
        assert len(run.race.records()) == len(run.candidates)
        if budget is None and policy.max_in_flight == 16:
            # Held back once, a start is made after twice the delay. So no race is later than one delay for each start.
            longest = 2.0 if adaptive else 0.25
            assert all(gap <= 2 * longest + 1e-9 for gap in gaps)
    assert memory.waits == {}
    assert memory.hedges == {}
    assert len(memory) <= 4
    if budget is not None:
        # One that is due at the very instant at which an attempt fails is owed to the failure as well.
        hedges = sum(cause == "delay" and at not in run.ends for run in runs for at, _, cause in run.starts)
        assert hedges <= budget + 0.05 * sum(run.winner is not None for run in runs)


@pytest.mark.parametrize("count", [1, 2, 50])
def test_line_84_hedges_for_one_dead_address_are_as_many_as_may_be_in_flight_however_many_races_there_are(count):
    memory = Memory(
        Limits(size=9, retry_after=10.0, retry_at_most=60.0, explore_after=600.0, lifetime=600.0, hedge_budget=None)
    )
    policy = RacePolicy(max_in_flight=4)
    dead, good = CANDIDATES[:2]
    fates = {dead: ("dead", inf), good: ("good", 0.02)}
    runs = [made(memory, policy, [dead, good], fates, 0.0) for _ in range(count)]
    now = 0.0
    while any(run.ended is None for run in runs):
        for run in runs:
            if run.ended is None:
                run.go_on(now)
        for run in runs:
            if run.woken and run.ended is None:
                run.go_on(now)
        now = min((run.next_event() for run in runs if run.ended is None), default=now)
    causes = [cause for run in runs for _, _, cause in run.starts]
    assert causes.count("delay") == min(count, 4)
    assert causes.count("history") == max(count - 4, 0)
    assert max(run.ended or 0 for run in runs) == pytest.approx(0.27 if count <= 4 else 0.29)
