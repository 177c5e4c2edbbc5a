# ruff: noqa: INP001, S603, T201
"""Ask of each pure module, and of `_deadline`, that its own test file runs every line and takes every branch of it.

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
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PACKAGE: Final = ROOT / "src/trio_connect"

# Modules that another's test file tests too: the tables, rows and schedule of a race are tested as one with it.
TESTED_IN: Final = {
    "_engine/facts": "tests/engine/test_race.py",
    "_engine/race_candidates": "tests/engine/test_race.py",
    "_engine/race_table": "tests/engine/test_race.py",
    "_engine/race_tries": "tests/engine/test_race.py",
    "_engine/race_schedule": "tests/engine/test_race.py",
    "_engine/shortage": "tests/engine/test_charge.py",
    "_pickling": "tests/test_proxy.py",
    "_policy": "tests/engine/test_race.py",
    "outbound/_redis_claim": "tests/outbound/test_redis_claims.py",
    "outbound/_store": "tests/outbound/test_redis_claims.py",
    "_trace": "tests/net/race/test_driver.py",
}


def modules() -> list[str]:
    """Return the modules, by their path below the package and without suffix."""
    sys.path.insert(0, str(ROOT))
    from tests.import_rules import PURE_PARTS, PURE_VALUES

    engine = {f"_engine/{path.stem}" for path in (PACKAGE / "_engine").glob("[!_]*.py")}
    pure = engine | PURE_VALUES | {"/".join(parts) for parts in PURE_PARTS}
    # What the import rules know of may not be there yet.
    return sorted(name for name in {*pure, "_deadline"} if (PACKAGE / f"{name}.py").exists())


def test_file(module: str) -> str:
    """Return the test file of a module: `_engine/gate` is tested in ``tests/engine/test_gate.py``."""
    if module in TESTED_IN:
        return TESTED_IN[module]
    *folder, name = module.split("/")
    return "/".join(["tests", *(part.strip("_") for part in folder), f"test_{name.lstrip('_')}.py"])


def measure(module: str) -> tuple[bool, str]:
    """Run a module's own tests; say whether they cover it, and what was printed."""
    with tempfile.TemporaryDirectory() as directory:
        environment = os.environ | {"COVERAGE_FILE": f"{directory}/data"}

        def python(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", *arguments]
            return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

        # What measures is right only while nothing runs beside it.
        options = ["-q", "-p", "no:xdist", "-m", "not slow and not alone"]
        tests = python("coverage", "run", "-m", "pytest", *options, test_file(module))
        if tests.returncode:
            return False, tests.stdout + tests.stderr
        python("coverage", "combine", "--quiet", directory)
        report = python("coverage", "report", "--fail-under=100", f"--include=src/trio_connect/{module}.py")
        return report.returncode == 0, report.stdout + report.stderr


def main() -> int:
    """Measure every module, print a line for each, and return the exit status."""
    names = modules()
    missing = 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for module, (covered, output) in zip(names, pool.map(measure, names), strict=True):
            print(f"{'every line and branch' if covered else 'NOT COVERED'}: {module}.py by {test_file(module)}")
            if not covered:
                missing += 1
                print(output)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
