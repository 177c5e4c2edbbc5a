"""Break the circuit on purpose, in ways that other systems are broken: does the slow model notice?

In a file of its own, because it reads the source, and mutation testing changes that.
"""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from tests.engine.circuit_model import POLICIES, walk
from trio_connect._engine import circuit as circuit_module
from trio_connect._engine.facts import IllegalFact

# Each of these was made on purpose. If the model does not notice one of them, it holds less than it says.
MUTATIONS = {
    "off by one, early": ("self.failures == self._policy", "self.failures + 1 == self._policy"),
    "off by one, late": ("self.failures == self._policy", "self.failures - 1 == self._policy"),
    "the generation is not asked": ("ticket.generation != self.generation", "False"),
    "a released ticket counts": (
        'self._hear(ticket, "released", now)',
        'self._hear(ticket, "released", now) and self._open(now)',
    ),
    "no limit on probes": ("len(self._counted) >= limit", "False"),
    "an opening does not begin a generation": (
        "1.0))\n        self._begin_generation(ramp=None)",
        "1.0))\n        self._ramp = None",
    ),
    "a source's failure counts": ("becomes != LATE", "True"),
    "a late success is taken": (
        'if not self._hear(ticket, "succeeded", now):\n            return False',
        'self._hear(ticket, "succeeded", now)',
    ),
    "a probe's place leaks": ("self._counted.pop(ticket, None)", "pass"),
    "a delay above the maximum": ("self.openings, self._random", "self.openings + 40, self._random"),
    "the delay does not grow": ("delay.delay(self.openings,", "delay.delay(1,"),
    "a success keeps the openings": (
        "def _forget(self) -> None:\n        self.failures = 0\n        self.openings = 0",
        "def _forget(self) -> None:\n        self.failures = 0",
    ),
    "a success keeps the failures": (
        "def _forget(self) -> None:\n        self.failures = 0",
        "def _forget(self) -> None:",
    ),
    "a lease does not end": (
        "has_come(next(iter(self._counted)).expires, now)",
        "next(iter(self._counted)).expires < 0",
    ),
    "a lease ends late": (
        "has_come(next(iter(self._counted)).expires, now)",
        "next(iter(self._counted)).expires < now",
    ),
    "due too late": ("not has_come(self.until, now)", "now <= self.until"),
    "no ramp": ("ramp=self._policy.max_connecting", "ramp=None"),
    "the ramp stands still": ("self._ramp += 1", "pass"),
    "the ramp ends late": ("self._ramp >= self._policy.max_connections", "self._ramp > self._policy.max_connections"),
    "a reset keeps the generation": (
        'self._become("reset")\n        self._begin_generation(ramp=None)',
        'self._become("reset")\n        self._ramp = None',
    ),
    "a recovery keeps the generation": (
        "self._begin_generation(ramp=self._policy.max_connecting)",
        "self._ramp = self._policy.max_connecting",
    ),
    "a probe that fails does not open": ('self._become("failed") == "open" or', 'self._become("failed") == "x" or'),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_model_notices_when_it_is_broken_on_purpose(mutation):
    old, new = MUTATIONS[mutation]
    source = Path(circuit_module.__file__).read_text()
    assert old in source
    broken = types.ModuleType(circuit_module.__name__)
    broken.__package__ = circuit_module.__package__
    exec(compile(source.replace(old, new), "broken", "exec"), broken.__dict__)
    with pytest.raises((AssertionError, IllegalFact)):
        for seed in range(12):
            for policy in POLICIES:
                walk(broken, policy, seed, 300)
