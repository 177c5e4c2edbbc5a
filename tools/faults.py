# ruff: noqa: INP001, S603, T201
"""Put faults into the shells that somebody thought of, one at a time, and see whether the tests notice.

`make mutate` breaks what is pure. What touches sockets and tasks takes too long for thousands of mutants, so here a
person chooses. Each fault of tools/faults.toml is a text that is replaced by another one in one file, with the tests
that ought to notice::

    python tools/faults.py [WORD ...]

With words, only those faults whose name or file has one of them. Each fault is put into a copy of the tree, and is
"caught" when its tests fail there, "SURVIVED" when they pass, and "DOES NOT APPLY" when the old text is not in the file
exactly once: then the code has changed, and the fault wants to be written anew. The same tests must pass in a copy that
has no fault. Exits with 1 unless every fault is caught.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Literal

import attrs

ROOT: Final = Path(__file__).parents[1]
TABLE: Final = Path(__file__).with_suffix(".toml")
PATIENCE: Final = 300
"""What the tests of one fault may take, in seconds: code that hangs has been noticed."""
WORKERS: Final = len(os.sched_getaffinity(0))

Verdict = Literal["caught", "SURVIVED", "DOES NOT APPLY", "FAILS WITHOUT IT"]


@attrs.frozen
class Fault:
    """One change that the tests ought to notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    """As on pytest's command line: files, node ids, and then perhaps -k and its words."""


def read(table: Path) -> list[Fault]:
    """Return the faults of a table, in its order."""
    rows = tomllib.loads(table.read_text(encoding="utf-8"))["fault"]
    return [Fault(row["name"], row["file"], row["old"], row["new"], tuple(row["tests"])) for row in rows]


def apply(fault: Fault, text: str) -> str | None:
    """Return a file's text with the fault in it, or None when the fault does not apply to it any more."""
    return text.replace(fault.old, fault.new) if text.count(fault.old) == 1 and fault.old != fault.new else None


def passes(tree: Path, tests: Iterable[str]) -> bool:
    """Run tests in a copy of the tree; a lack of any test is an error, not a pass."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not lab and not slow and not alone",
        # A fault may let a test spin. The watchdog would read the frames of the spinning thread while they change; that
        # ends the interpreter with SIGSEGV now and then (seen with CPython 3.11). pytest-timeout ends such a test too.
        "-o",
        "faulthandler_timeout=0",
        *tests,
    ]
    environment = {**os.environ, "PYTHONPATH": os.fspath(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return False
    if run.returncode not in (0, 1):
        raise RuntimeError(f"pytest {' '.join(tests)}: exit status {run.returncode}\n{run.stdout.decode()}")
    return run.returncode == 0


def judge(fault: Fault, tree: Path) -> Verdict:
    """Put a fault into a copy of the tree, run its tests there, and take it out again."""
    path = tree / fault.file
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    broken = apply(fault, text)
    if broken is None:
        return "DOES NOT APPLY"
    path.write_text(broken, encoding="utf-8")
    try:
        return "SURVIVED" if passes(tree, fault.tests) else "caught"
    finally:
        path.write_text(text, encoding="utf-8")


def copy_tree(root: Path, copy: Path) -> None:
    """Copy what tests need."""
    ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "mutants", "dist")
    shutil.copytree(root, copy, ignore=ignored)


def run(faults: list[Fault], root: Path, *, workers: int = WORKERS) -> dict[str, Verdict]:
    """Judge every fault, each in a copy of the tree that nobody else uses meanwhile."""
    verdicts: dict[str, Verdict] = {}
    with tempfile.TemporaryDirectory() as folder:
        trees: SimpleQueue[Path] = SimpleQueue()
        for number in range(workers):
            tree = Path(folder, str(number))
            copy_tree(root, tree)
            trees.put(tree)

        def in_a_tree(tests: tuple[str, ...], fault: Fault | None) -> Verdict:
            tree = trees.get()
            try:
                if fault is not None:
                    return judge(fault, tree)
                return "caught" if passes(tree, tests) else "FAILS WITHOUT IT"
            finally:
                trees.put(tree)

        with ThreadPoolExecutor(workers) as pool:
            suites = {
                tests: pool.submit(in_a_tree, tests, None) for tests in dict.fromkeys(fault.tests for fault in faults)
            }
            judged = {fault.name: pool.submit(in_a_tree, fault.tests, fault) for fault in faults}
            for fault in faults:
                verdict = suites[fault.tests].result()
                verdicts[fault.name] = verdict = judged[fault.name].result() if verdict == "caught" else verdict
                print(f"{verdict:16} {fault.name} ({fault.file})", flush=True)
    return verdicts


def main(words: list[str]) -> int:
    """Judge the faults of the table, or those with one of these words, and return the exit status."""
    faults = [fault for fault in read(TABLE) if not words or any(word in fault.name + fault.file for word in words)]
    verdicts = run(faults, ROOT)
    caught = sum(verdict == "caught" for verdict in verdicts.values())
    print(f"{caught} of {len(faults)} caught")
    return 0 if faults and caught == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
