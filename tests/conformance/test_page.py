"""The page about conformance says what the names of the tests say, and no line is without a test or a reason."""

from __future__ import annotations

import runpy
from functools import cache
from pathlib import Path

import pytest

EVIDENCE = Path(__file__).parents[2] / "docs" / "evidence"
page = runpy.run_path(str(EVIDENCE / "generate_conformance.py"))

MUST_BE_TESTED = {
    1, 2, *range(4, 22), *range(23, 46), *range(48, 58), 61, 63, 64, 65, 67, *range(74, 86),
}  # fmt: skip


@cache
def held():
    """Read every test's source once: that takes a second."""
    return page["held"](page["find"]())


def test_the_page_is_written_from_the_names_of_the_tests():
    written = (EVIDENCE / "conformance.md").read_text()
    assert written == page["render"](), "run python docs/evidence/generate_conformance.py"


def test_what_must_be_tested_is():
    by_line = held()
    assert {line for line, by in by_line.items() if by} >= MUST_BE_TESTED


def test_there_are_85_lines_and_each_has_a_test_or_a_reason():
    assert list(page["LINES"]) == list(range(1, 86))
    by_line = held()
    for line, by in by_line.items():
        assert page["status"](line, by)
    assert {22, 46, 47, 73} == set(page["BY_DESIGN"])
    assert {58, 59, 60, 62} == set(page["LEFT_OUT"])
    assert not MUST_BE_TESTED & (set(page["BY_DESIGN"]) | set(page["LEFT_OUT"]))


def test_a_line_without_either_is_refused():
    with pytest.raises(ValueError, match=r"line 45 .* has neither"):
        page["status"](45, [])


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("test_line_45_ten_ms", [45]),
        ("test_lines_1_2_and_5_together", [1, 2, 5]),
        ("test_line_55_and_56_tls", [55, 56]),
        ("test_line_31_rfc6724_rule_1", [31]),
        ("test_a_line_45", []),
        ("test_line_numbers", []),
    ],
)
def test_names_are_read(tmp_path, name, lines):
    (tmp_path / "test_x.py").write_text(f"async def {name}(): ...\n\nclass TestX:\n    def {name}(self): ...\n")
    assert [list(test.lines) for test in page["find"](tmp_path)] == ([lines] * 2 if lines else [])


def test_a_line_that_does_not_exist_is_refused(tmp_path):
    (tmp_path / "test_x.py").write_text("def test_line_86_x(): ...\n")
    with pytest.raises(ValueError, match="names line 86"):
        page["render"](tmp_path)
