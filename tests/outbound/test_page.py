"""The page of rules says what the tables and the tests say."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_rules_is_drawn_from_the_tables_and_names_a_test_for_each_of_46():
    generator = runpy.run_path(str(DOCS / "generate_outbound_rules.py"))
    page = (DOCS / "outbound-rules.md").read_text(encoding="utf-8")
    assert page == generator["render"](), "run python docs/generate_outbound_rules.py"
    assert set(generator["tests"]()) == set(range(1, 47))
    assert sum(map(len, generator["INVARIANTS"].values())) == 46
    assert "    probing --> open: failed\n" in page
    assert "| connect | EADDRNOTAVAIL | path |\n" in page
