"""The page about the field reports says what the names of the tests say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"
page = runpy.run_path(str(EVIDENCE / "generate_field.py"))


def test_there_are_41_rows():
    assert list(page["ROWS"]) == list(range(1, 42))
    for before, after in page["ROWS"].values():
        assert "|" not in before + after
        assert before.endswith(".")
        assert after.endswith(".")


def test_the_page_is_written_from_the_names_of_the_tests():
    written = (EVIDENCE / "field.md").read_text(encoding="utf-8")
    assert written == page["render"](), "run python docs/evidence/generate_field.py"


def test_each_number_has_a_test():
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", (EVIDENCE / "field.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(page["ROWS"])
    for number, tests in rows:
        assert f"`test_field_{int(number):02}_" in tests


def test_a_number_that_does_not_exist_is_refused(tmp_path):
    (tmp_path / "test_x.py").write_text("class TestX:\n    async def test_field_42_x(self): ...\n")
    with pytest.raises(ValueError, match="names number 42"):
        page["render"](tmp_path)
