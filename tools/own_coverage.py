# ruff: noqa: INP001, S603, T201
"""Ask of each pure module that its own test file runs every line and takes every branch of it.

What other tests happen to run does not count: a module that only the whole suite covers is one whose tests cannot be
read beside it, and where a mutant survives until somebody runs everything.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/trio_connect"

# Where it is not tests/engine/test_<module>.py or tests/test_<module>.py: one table, one idea, several modules.
TESTED_IN = {
    "_engine/race_table": "tests/engine/test_race.py",
    "_engine/race_schedule": "tests/engine/test_race.py",
    "_policy": "tests/engine/test_race.py",
    "_trace": "tests/net/test_race_driver.py",
}
PURE_VALUES = ("_answer", "_deadline", "_endpoint", "_options", "_policy", "_report", "_trace")


def modules() -> list[str]:
    engine = sorted(f"_engine/{path.stem}" for path in (PACKAGE / "_engine").glob("[!_]*.py"))
    return [*engine, *PURE_VALUES]


def test_file(module: str) -> str:
    folder, _, name = module.rpartition("/")
    return TESTED_IN.get(module, f"tests/{folder.strip('_')}/test_{name.lstrip('_')}.py".replace("//", "/"))


def measure(module: str) -> tuple[bool, str]:
    """Run a module's own tests; say whether they cover it, and what was printed."""
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"COVERAGE_FILE": f"{directory}/data"}

        def python(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", *arguments]
            return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

        tests = python("coverage", "run", "-m", "pytest", "-q", "-p", "no:xdist", test_file(module))
        if tests.returncode:
            return False, tests.stdout + tests.stderr
        python("coverage", "combine", "--quiet", directory)
        report = python("coverage", "report", "--fail-under=100", f"--include=src/trio_connect/{module}.py")
        return report.returncode == 0, report.stdout + report.stderr


def main() -> int:
    names = modules()
    missing = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for module, (covered, output) in zip(names, pool.map(measure, names), strict=True):
            print(f"{module + '.py':28} {'every line and branch' if covered else 'NOT COVERED'} by {test_file(module)}")
            if not covered:
                missing += 1
                print(output)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
