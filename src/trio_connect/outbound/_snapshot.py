"""What a destination's snapshot says: its circuit, its limits, what is suspended, and what keeps calls waiting."""

from __future__ import annotations

from math import inf
from typing import Any

from .._engine.limits import Cap, Pace
from .._outbound_values import MICROSECONDS
from ._decisions import milliseconds
from ._events import AddressState, LimitState, RateState, Snapshot, Suspension
from ._shared import SourceState
from ._state import DestinationState, shown_until

__all__ = ["snapshot_of"]


def snapshot_of(state: DestinationState, waiting: int, moment: float) -> Snapshot:
    """Return the state of a destination as a value.

    Args:
      state: the destination.
      waiting: how many calls wait for admission.
      moment: the time.
    """
    shared, health = state.shared, state.circuit.health
    caps: dict[Cap, None] = {}
    paces: dict[Pace, None] = {}
    for layers in state.all_layers():
        caps.update(dict.fromkeys(layers.caps))
        paces.update(dict.fromkeys(layers.paces))
    in_cooldown = [
        AddressState(each.endpoint, shared.cooldowns.failures(each.endpoint), milliseconds(until))
        for each in state.candidates()
        if (until := shared.cooldowns.until(each.endpoint)) > -inf
    ]
    return Snapshot(
        destination=state.name,
        group=state.group,
        state=health.state,
        failures=health.failures,
        openings=health.openings,
        until=shown_until(health.until),
        generation=health.generation,
        waiting=waiting,
        limits=tuple(LimitState(cap.name, cap.held, cap.limit) for cap in sorted(caps, key=lambda cap: cap.limit)),
        rates=tuple(
            RateState(pace.name, milliseconds(max(moment, pace.next_start / MICROSECONDS)))
            for pace in sorted(paces, key=lambda pace: pace.interval, reverse=True)
        ),
        binding=_binding(state, moment),
        addresses=tuple(in_cooldown),
        suspensions=tuple(_suspended(state, moment)),
        errors=tuple(state.errors),
    )


def _suspended(state: DestinationState, moment: float) -> list[Suspension]:
    suspensions = state.shared.suspensions
    listed: list[Suspension] = []
    keys: list[tuple[SourceState | None, Any]] = [(None, (state, None))]
    for source in state.shared.sources:
        keys += [(source, key) for key in state.suspension_keys(source)[1:]]
        keys += [(source, (source, family)) for family in source.families]
    for which, key in keys:
        if suspensions.is_on(key, moment):
            source_value = None if which is None else which.source
            listed.append(Suspension(source_value, milliseconds(suspensions.until(key)), suspensions.reason(key)))
    return listed


def _binding(state: DestinationState, moment: float) -> str:
    """Return the name of what keeps calls waiting; "" when a call could go on now."""
    if state.circuit.wait(moment) is not None:
        return "the circuit"
    refusals: list[str] = []
    for source in state.shared.sources:
        _families, refusal = state.usable_families(source, moment)
        if refusal is not None:
            refusals.append(refusal.cause)
            continue
        blocked = state.blocked(source, moment)
        if not blocked:
            return ""
        refusals.append(blocked)
    return refusals[0]
