"""The tool that puts faults in says of each what is true."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import faults  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    return faults


def test_each_fault_of_the_table_can_be_read(tool) -> None:
    table = tool.read(tool.TABLE)
    assert len({fault.name for fault in table}) == len(table) >= 40
    for fault in table:
        assert fault.old != fault.new
        assert fault.tests
        text = (ROOT / fault.file).read_text(encoding="utf-8")
        assert tool.apply(fault, text) is not None, f"{fault.name}: the code has changed, so write it anew"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "adding"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("def add(a, b):\n    return a + b  # sum\n")
    return folder / "__init__.py"


def test_a_verdict_for_each_kind_of_fault(
    tool, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, right = "src/adding/__init__.py", ("right",)
    # A process of pytest for each takes seconds.
    monkeypatch.setattr(tool, "passes", lambda tree, tests: "a + b" in (tree / file).read_text() and tests == right)
    faults = [
        tool.Fault("one", file, "a + b", "a - b", right),
        tool.Fault("two", file, "# sum", "# total", right),
        tool.Fault("three", file, "a * b", "a - b", right),
        tool.Fault("four", file, "a", "b", right),
        tool.Fault("five", "src/gone.py", "a", "b", right),
        tool.Fault("six", file, "a + b", "a - b", ("wrong",)),
    ]
    assert tool.run(faults, tmp_path, workers=2) == {
        "one": "caught",
        "two": "SURVIVED",
        "three": "DOES NOT APPLY",
        "four": "DOES NOT APPLY",
        "five": "DOES NOT APPLY",
        "six": "FAILS WITHOUT IT",
    }
    assert "SURVIVED         two (src/adding/__init__.py)" in capsys.readouterr().out
    assert package.read_text().count("a + b") == 1


@pytest.mark.usefixtures("package")
def test_tests_run_on_the_code_of_their_tree(tool, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import adding\n\ndef test_add():\n    assert adding.add(1, 2) == 3\n")
    assert tool.passes(tmp_path, ("test_it.py",))
