"""A circuit that is slow and plain: it keeps the whole history, and works everything out from it each time."""

from __future__ import annotations

from math import inf
from random import Random
from types import ModuleType
from typing import Any

import attrs

from trio_connect._outbound_values import Backoff, OutboundPolicy


@attrs.define(eq=False)
class Pass:
    """What the model knows of one ticket."""

    given: float
    era: int
    limited: bool
    spoke: bool = False


@attrs.define
class Model:
    policy: OutboundPolicy
    random: Random
    history: list[tuple[str, float]] = attrs.field(factory=list)
    """("failure" | "opening" | "success" | "recovery" | "reset" | "due", time); openings with their end as the time."""
    passes: list[Pass] = attrs.field(factory=list)

    @property
    def lease(self) -> float:
        """How long a limited ticket holds its place. One number: adding its parts one by one rounds otherwise."""
        return self.policy.connect_timeout + 5

    def since_success(self, what: str) -> list[float]:
        found: list[float] = []
        for word, time in reversed(self.history):
            if word in ("success", "recovery", "reset"):
                break
            if word == what:
                found.append(time)
        return found

    @property
    def state(self) -> str:
        for word, _ in reversed(self.history):
            match word:
                case "opening":
                    return "open"
                case "due":
                    return "probing"
                case "recovery" | "reset":
                    return "closed"
                case _:
                    continue
        return "closed"

    @property
    def era(self) -> int:
        return sum(word in ("opening", "recovery", "reset") for word, _ in self.history)

    @property
    def ramp(self) -> int | None:
        """How many may be out since the recovery, None for any number."""
        successes = 0
        for word, _ in reversed(self.history):
            if word in ("opening", "reset"):
                return None
            if word == "success":
                successes += 1
            if word == "recovery":
                places = self.policy.max_connecting + successes
                return places if places < self.policy.max_connections else None
        return None

    def out(self, now: float) -> list[Pass]:
        """The limited tickets that hold a place."""
        return [each for each in self.passes if each.limited and not each.spoke and now < each.given + self.lease]

    def health(self) -> tuple[str, int, int, float, int]:
        openings = self.since_success("opening")
        until = openings[0] if openings else -inf
        return (self.state, len(self.since_success("failure")), len(openings), until, self.era)

    def admit(self, now: float) -> Pass | tuple[float, bool]:
        state, _, _, until, _ = self.health()
        if state == "open" and now < until:
            return (until, True)
        places: float = inf if self.ramp is None else self.ramp
        if state != "closed":
            places = self.policy.probe_limit
        out = self.out(now)
        if len(out) >= places:
            return (min(each.given for each in out) + self.lease, False)
        if state == "open":
            self.history.append(("due", now))
        granted = Pass(now, self.era, limited=places < inf)
        self.passes.append(granted)
        return granted

    def counts(self, granted: Pass, now: float) -> bool:
        current = granted.era == self.era and (not granted.limited or granted in self.out(now))
        granted.spoke = True
        return current

    def succeeded(self, granted: Pass, now: float) -> bool:
        if not self.counts(granted, now):
            return False
        self.history.append(("recovery" if self.state == "probing" else "success", now))
        return True

    def failed(self, granted: Pass, now: float) -> bool:
        if not self.counts(granted, now):
            return False
        self.history.append(("failure", now))
        if self.state == "probing" or len(self.since_success("failure")) == self.policy.failures_to_delay:
            law = self.policy.delay
            step = len(self.since_success("opening"))
            delay = law.initial * law.multiplier**step
            factor = 1 + law.jitter * self.random.uniform(-1.0, 1.0)
            self.history.append(("opening", now + min(law.maximum, delay) * factor))
        return True

    def reset(self, now: float) -> None:
        self.history.append(("reset", now))


POLICIES = [
    OutboundPolicy(failures_to_delay=2, max_connecting=2, max_connections=4),
    OutboundPolicy(failures_to_delay=3, probe_limit=2, max_connecting=1, max_connections=3, connect_timeout=10.0),
    OutboundPolicy(failures_to_delay=1, delay=Backoff(initial=8.0, multiplier=2.0, maximum=20.0, jitter=0.5)),
    OutboundPolicy(failures_to_delay=0),
]


class Pair:
    """The circuit and the model, told the same, and compared after each word."""

    def __init__(self, module: ModuleType, policy: OutboundPolicy, seed: int) -> None:
        self.module = module
        self.circuit: Any = module.Circuit(policy, Random(seed))
        self.model = Model(policy, Random(seed))
        self.policy = policy
        self.now = 0.0
        self.out: list[tuple[Any, Pass]] = []

    def check(self) -> None:
        assert attrs.astuple(self.circuit.health) == self.model.health()
        if self.circuit.state == "open":
            longest = self.policy.delay.maximum * (1 + self.policy.delay.jitter)
            assert self.circuit.until <= self.now + longest

    def admit(self) -> None:
        before = self.circuit.health
        wait = self.circuit.wait(self.now)
        assert self.circuit.health == before
        granted, expected = self.circuit.admit(self.now), self.model.admit(self.now)
        assert granted == wait or wait is None
        if isinstance(expected, Pass):
            assert isinstance(granted, self.module.Ticket)
            self.out.append((granted, expected))
        else:
            assert isinstance(granted, self.module.Wait)
            assert (granted.until, granted.known) == expected
            assert granted.until > self.now
        if self.circuit.state == "probing":
            # Counted among all that live, not only against the latest: that is what a leak of places hides from.
            assert len(self.model.out(self.now)) <= max(self.policy.probe_limit, self.places_before)
        self.check()

    places_before = 0

    def tell(self, index: int, fact: str) -> None:
        ticket, expected = self.out.pop(index % len(self.out))
        if fact == "released":
            self.circuit.released(ticket, self.now)
            self.model.counts(expected, self.now)
        else:
            assert getattr(self.circuit, fact)(ticket, self.now) is getattr(self.model, fact)(expected, self.now)
        self.check()
        for again in ("succeeded", "failed", "released"):
            try:
                getattr(self.circuit, again)(ticket, self.now)
            except self.module.IllegalFact:
                continue
            raise AssertionError("a ticket spoke twice")
        self.check()

    def reset(self) -> None:
        self.circuit.reset()
        self.model.reset(self.now)
        self.check()

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def wait_until(self) -> None:
        """To the very instant at which an open circuit is due, or else the next lease ends."""
        out = self.model.out(self.now)
        if self.circuit.until > self.now:
            self.now = self.circuit.until
        elif out:
            self.now = min(each.given for each in out) + self.model.lease


def walk(module: ModuleType, policy: OutboundPolicy, seed: int, steps: int) -> None:
    """One random history."""
    random = Random(seed)
    pair = Pair(module, policy, seed)
    for _ in range(steps):
        match random.choices(("admit", "tell", "wait", "due", "reset"), (8, 6, 2, 2, 0.2))[0]:
            case "admit":
                pair.admit()
            case "tell" if pair.out:
                pair.tell(random.randrange(100), random.choices(("failed", "succeeded", "released"), (6, 2, 2))[0])
            case "wait":
                pair.wait(random.choice((0.25, 1.0, 16.0, 40.0)))
            case "due":
                pair.wait_until()
            case "reset":
                pair.reset()
            case _:
                pass
