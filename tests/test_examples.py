"""Every example runs, ends well, and prints what its docstring promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.example_promises import broken_promises, promises

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


def test_there_are_examples():
    # Without it an empty folder would make the parametrised test below vanish, and all would seem well.
    assert EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name, tmp_path):
    path = ROOT / "examples" / name
    promised = promises(path.read_text(encoding="utf-8"))
    command = [sys.executable, "-X", "dev", "-W", "error", str(path)]
    # What an example writes, into the working directory or the temporary one, goes into a folder of its own.
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    result = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr
    # With -X dev asyncio, on which the mail server of one example runs, says whenever the machine was busy for 0.1 s.
    assert re.sub(r"(?m)^Executing <.*> took [\d.]+ seconds\n", "", result.stderr) == ""
    assert broken_promises(promised, result.stdout) == [], result.stdout


DOCSTRING = '"""Title.\n\nText.\n\nPrints:\n    one ... ms\n      indented\n\n    two\n\nAfterword.\n"""\n'


def test_promises_are_read():
    assert promises(DOCSTRING) == ["one ... ms", "  indented", "two"]


@pytest.mark.parametrize("text", ["", '"""Title."""', '"""Title.\n\nPrints:\n"""', '"""Title.\n\nPrints:\nflush\n"""'])
def test_an_example_that_promises_nothing_is_refused(text):
    with pytest.raises(ValueError, match="Prints:"):
        promises(text)


@pytest.mark.parametrize(
    ("output", "broken"),
    [
        ("one 0.4 ms\nnoise\n  indented\ntwo\n", []),
        ("two\none 0.4 ms\n  indented\n", ["two"]),
        ("one 0.4 s\n", ["one ... ms", "  indented", "two"]),
        ("xone 0.4 ms\n  indented\ntwo", ["one ... ms", "  indented", "two"]),
        ("", ["one ... ms", "  indented", "two"]),
    ],
)
def test_broken_promises(output, broken):
    assert broken_promises(promises(DOCSTRING), output) == broken
