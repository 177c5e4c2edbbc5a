# ruff: noqa: INP001, S603, T201
"""Break what mutmut leaves alone, and see whether the tests notice.

mutmut changes the bodies of plain functions. Tables, constants, class bodies and decorated functions (properties above
all) stay whole, and in an engine that obeys tables that is half of the decisions. This changes one thing in them at a
time, in a copy of the tree, and runs the tests there.

    python tools/mutate_rest.py src/trio_connect/_engine/race_table.py [-- tests/engine/test_race.py ...]

Without tests, those of `own_coverage.test_file` for the first module.

Prints each survivor as a difference, and exits with 1 when there are any. Where a survivor is harmless,
docs/evidence/mutants.md says why.
"""

from __future__ import annotations

import ast
import copy
import difflib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from own_coverage import test_file

# What a mutant may take, in seconds: one that loops for ever has been noticed.
PATIENCE: Final = 60
WORKERS: Final = len(os.sched_getaffinity(0))

COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
NAMES: Final = {"min": "max", "max": "min", "inf": "0.0"}
OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}


def is_only_for_readers(node: ast.AST) -> bool:
    """Say whether a statement is there for people and type checkers, so that no test can notice its change."""
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()) | ast.Pass():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")) | ast.AnnAssign(value=None):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "__slots__")]):
            return True
    return False


def places(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield every node that mutmut leaves alone."""
    for statement in body:
        if is_only_for_readers(statement):
            continue
        if isinstance(statement, ast.FunctionDef):
            if statement.decorator_list:
                for inner in statement.body:
                    if not is_only_for_readers(inner):
                        yield from ast.walk(inner)
        elif isinstance(statement, ast.ClassDef):
            yield from places(statement.body)
        elif isinstance(statement, ast.AnnAssign):
            assert statement.value is not None
            yield from ast.walk(statement.value)
        else:
            yield from ast.walk(statement)


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Yield each way to break one node."""
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield ast.Constant(value + 1)
            yield ast.Constant(value / 2)
        case ast.Constant(value=str(value)):
            yield ast.Constant(f"{value}?")
        case ast.Compare(left=left, ops=[operator], comparators=comparators):
            yield ast.Compare(left, [COMPARISONS[type(operator)]()], comparators)
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
            yield from values
        case ast.UnaryOp(operand=operand):
            yield operand
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            yield ast.BinOp(left, OPERATORS[type(operator)](), right)
        case ast.IfExp(body=body, orelse=orelse):
            yield body
            yield orelse
        case ast.If():
            for truth in (True, False):
                yield ast.If(ast.Constant(truth), node.body, node.orelse)
        case ast.Return(value=ast.expr()):
            yield ast.Return(ast.Constant(None))
        case ast.Name(id=name, ctx=ast.Load()) if name in NAMES:
            yield ast.parse(NAMES[name], mode="eval").body
        case _:
            pass


class Replace(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old = old
        self.new = new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.old else self.generic_visit(node)


def mutants(source: str) -> Iterator[str]:
    """Yield the module once for each change."""
    tree = ast.parse(source)
    for number, node in enumerate(places(tree.body)):
        for place in range(sum(1 for _ in variants(node))):
            broken = copy.deepcopy(tree)
            victim = list(places(broken.body))[number]
            changed = Replace(victim, list(variants(victim))[place]).visit(broken)
            yield ast.unparse(ast.fix_missing_locations(changed))


def survives(tree: Path, tests: list[str]) -> bool:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    middle = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    modules, tests = sys.argv[1:middle], sys.argv[middle + 1 :]
    if not tests:
        tests = [test_file(modules[0].removeprefix("src/trio_connect/").removesuffix(".py"))]
    root = Path(__file__).parents[1]
    trees: SimpleQueue[Path] = SimpleQueue()
    found = 0
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(WORKERS) as pool:
        for number in range(WORKERS):
            copied = Path(scratch) / str(number)
            for part in ("src", "tests", "docs"):
                shutil.copytree(root / part, copied / part, ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(root / "pyproject.toml", copied)
            trees.put(copied)
        if not survives(Path(scratch) / "0", tests):
            print("the tests fail before anything is broken")
            return 2

        def attempt(module: str, original: str, mutant: str) -> bool:
            tree = trees.get()
            try:
                (tree / module).write_text(mutant)
                return survives(tree, tests)
            finally:
                (tree / module).write_text(original)
                trees.put(tree)

        for module in modules:
            original = (root / module).read_text()
            plain = ast.unparse(ast.parse(original))
            broken = list(mutants(original))
            alive = list(pool.map(lambda mutant: attempt(module, original, mutant), broken))  # noqa: B023
            found += sum(alive)
            print(f"{module}: {len(broken)} mutants, {sum(alive)} survived")
            for mutant, survived in zip(broken, alive, strict=True):
                if survived:
                    lines = difflib.unified_diff(plain.splitlines(), mutant.splitlines(), lineterm="", n=0)
                    print("\n".join(line for line in lines if not line.startswith(("---", "+++"))))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
