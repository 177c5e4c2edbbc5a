"""The page about states says what the tables say."""

from __future__ import annotations

import runpy
from pathlib import Path

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"


def test_the_page_of_states_is_drawn_from_the_tables():
    generator = runpy.run_path(str(EVIDENCE / "generate_race_states.py"))
    page = (EVIDENCE / "race-states.md").read_text()
    assert page == generator["render"](), "run python docs/evidence/generate_race_states.py"
    assert "    connecting --> timed_out: Abandon: attempt_timeout\n" in page
    assert "| lost | late | late | late | late |\n" in page
