"""What docs/how-to/testing.md says of tests is tried with pytest; its other blocks run with those of all pages."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.docs_page import blocks
from tests.example_promises import broken_promises

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parent.parent.parent / "docs" / "how-to" / "testing.md").read_text(encoding="utf-8")
ONE_FILE = "given to pytest, in one file with the others like it"
FAILS = "given to pytest, and it fails"
ANYIO = "given to pytest, under anyio"
LOADED = [] if entry_points(group="pytest11", name="trio_connect") else ["-p", "pytest_trio_connect"]


def given_to_pytest(reason: str) -> str:
    return "\n\n".join(block.code for block in blocks(PAGE) if block.skipped_because == reason)


@pytest.fixture
def run_pytest(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(code: str, mode: str = "trio_mode = true") -> tuple[pytest.RunResult, int]:
        pytester.makeini(f"[pytest]\n{mode}\nfilterwarnings = error\n")
        pytester.makepyfile(code)
        tests = len(re.findall(r"^(?:async )?def test_", code, re.MULTILINE))
        return pytester.runpytest_inprocess(*LOADED), tests

    return run


def without_rules(text: str) -> list[str]:
    return [re.sub(r"^([_-])\1+ (.*) \1+$", r"-- \2 --", line) for line in text.splitlines() if line != "..."]


def test_every_block_that_the_pages_do_not_run_is_run_here():
    reasons = {block.skipped_because for block in blocks(PAGE)}
    assert reasons == {None, ONE_FILE, FAILS, ANYIO}
    assert all("def test_" not in block.code for block in blocks(PAGE) if block.skipped_because is None)


def test_the_tests_pass(run_pytest):
    result, tests = run_pytest(given_to_pytest(ONE_FILE))
    assert tests > 5
    result.assert_outcomes(passed=tests)


def test_under_anyio(run_pytest):
    result, tests = run_pytest(given_to_pytest(ANYIO), mode="")
    result.assert_outcomes(passed=tests)


def test_failures_look_as_the_page_says(run_pytest):
    result, tests = run_pytest(given_to_pytest(FAILS))
    assert tests == 2
    result.assert_outcomes(failed=1, passed=1, errors=1)
    shown = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(shown) == 2
    for text in shown:
        # Pytest draws its rules as wide as the terminal is.
        assert broken_promises(without_rules(text), "\n".join(without_rules(result.stdout.str()))) == [], text
