"""The page of rules says what the tables and the tests say."""

from __future__ import annotations

import runpy
from pathlib import Path

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"


def test_the_page_of_rules_is_drawn_from_the_tables_and_names_a_test_for_each_of_46():
    generator = runpy.run_path(str(EVIDENCE / "generate_outbound_rules.py"))
    page = (EVIDENCE / "outbound-rules.md").read_text(encoding="utf-8")
    assert page == generator["render"](), "run python docs/evidence/generate_outbound_rules.py"
    assert set(generator["tests"]()) == set(range(1, 47))
    assert sum(map(len, generator["INVARIANTS"].values())) == 46
    assert "    probing --> open: failed\n" in page
    assert "| connect | EADDRNOTAVAIL | path |\n" in page
