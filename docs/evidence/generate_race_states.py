# ruff: noqa: INP001
"""Draw race-states.md from the tables that the engine obeys: ``python docs/evidence/generate_race_states.py``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from trio_connect._engine.facts import ILLEGAL, LATE
from trio_connect._engine.race_table import ATTEMPT_DECISIONS, ATTEMPT_FACTS, RACE_DECISIONS, RACE_FACTS

PAGE: Final = Path(__file__).with_name("race-states.md")

Table = dict[str, dict[str, str]]

INTRODUCTION: Final = """\
# The states of a race

This page is drawn from the tables in `trio_connect._engine.race_table`, which the engine obeys. Do not edit it: run
`python docs/evidence/generate_race_states.py`.

Words in small letters are facts, told to the engine; words that begin with a capital, and the reasons after
`Abandon`, are what the engine decides. A *late* fact is ignored, an *illegal* one raises and changes nothing; the
theory at the top of `trio_connect._engine.race` says why facts can be late.
"""


def plain(table: Mapping[Any, Mapping[Any, str]]) -> Table:
    return {state: dict(row) for state, row in table.items()}


def slug(state: str) -> str:
    return state.replace(" ", "_")


def edges(facts: Table, decisions: Table) -> Iterator[tuple[str, str, str]]:
    """Yield (state, next state, what leads there) for all that changes something."""
    labels: dict[tuple[str, str], list[str]] = {}
    for table in (facts, decisions):
        for state, row in table.items():
            for word, becomes in row.items():
                if becomes not in (LATE, ILLEGAL, state):
                    reason = f"Abandon: {word}" if table is decisions and word[0].islower() else word
                    labels.setdefault((state, becomes), []).append(reason)
    for (state, becomes), words in labels.items():
        yield state, becomes, ", ".join(words)


def diagram(first: tuple[str, ...], facts: Table, decisions: Table) -> Iterator[str]:
    yield "```mermaid"
    yield "stateDiagram-v2"
    for state in facts:
        if slug(state) != state:
            yield f'    state "{state}" as {slug(state)}'
    for state in first:
        yield f"    [*] --> {slug(state)}"
    drawn = list(edges(facts, decisions))
    for state, becomes, label in drawn:
        yield f"    {slug(state)} --> {slug(becomes)}: {label}"
    for state in facts:
        if state not in {edge[0] for edge in drawn}:
            yield f"    {slug(state)} --> [*]"
    yield "```"


def grid(facts: Table) -> Iterator[str]:
    words = list(next(iter(facts.values())))
    yield f"| state | {' | '.join(words)} |"
    yield f"|---|{'---|' * len(words)}"
    for state, row in facts.items():
        cells = ("stays" if row[word] == state else row[word] for word in words)
        yield f"| {state} | {' | '.join(cells)} |"


def render() -> str:
    """Return the page."""
    race_facts, race_decisions = plain(RACE_FACTS), plain(RACE_DECISIONS)
    attempt_facts, attempt_decisions = plain(ATTEMPT_FACTS), plain(ATTEMPT_DECISIONS)
    return "\n".join(
        [
            INTRODUCTION,
            "## The race",
            "",
            "*Open*: more candidates may come. *Closed*: no more will.",
            "",
            *diagram(("open", "closed"), race_facts, race_decisions),
            "",
            *grid(race_facts),
            "",
            "## An attempt",
            "",
            *diagram(("waiting",), attempt_facts, attempt_decisions),
            "",
            *grid(attempt_facts),
            "",
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(render())
