"""Run a page of documentation: ``python -m tests.docs_page PAGE.md``.

The blocks fenced as ```python run in order, in one namespace for the page, as the `__main__` of a fresh process. A
block with `await`, `async for` or `async with` at its top level runs under `trio.run`; each such block is a run of its
own, so streams do not outlive a block. A block marked ```python no-run: REASON is only compiled.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs
import trio

FENCE: Final = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<info>.*)$")


@attrs.frozen
class Block:
    line: int  # of the first line of code
    code: str
    skipped_because: str | None = None


def blocks(text: str) -> Iterator[Block]:
    """The Python blocks of a page. A fence that only looks like one is a ValueError: it would silently not run."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        opening = FENCE.match(line)
        if opening is None:
            continue
        ticks, info = opening["ticks"], opening["info"].strip()
        code: list[str] = []
        for _, inner in lines:
            closing = FENCE.match(inner)
            if closing is not None and closing["ticks"].startswith(ticks) and not closing["info"].strip():
                break
            code.append(inner.removeprefix(opening["indent"]))
        else:
            raise ValueError(f"line {number}: this fence is never closed")
        language, _, mark = info.partition(" ")
        if language == "python":
            yield Block(number + 1, "\n".join(code) + "\n", _reason(mark.strip(), number))
        elif language.lower().startswith(("py", "{")):
            raise ValueError(f"line {number}: say ```python, not ```{info}")


def _reason(mark: str, number: int) -> str | None:
    if not mark:
        return None
    word, _, reason = mark.partition(":")
    if word != "no-run" or not reason.strip():
        raise ValueError(f"line {number}: say ```python or ```python no-run: REASON, not ```python {mark}")
    return reason.strip()


def compile_block(block: Block, page: str) -> types.CodeType:
    # Moved down to where it stands in the page, so that a traceback names the page's own line.
    code = "\n" * (block.line - 1) + block.code
    compiled: types.CodeType = compile(code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return compiled


def run_page(page: Path) -> None:
    module = types.ModuleType("__main__")
    # Classes of the page find their module here, as they would in a program.
    sys.modules["__main__"] = module
    for block in blocks(page.read_text(encoding="utf-8")):
        code = compile_block(block, str(page))
        if block.skipped_because is not None:
            continue
        if code.co_flags & inspect.CO_COROUTINE:
            trio.run(types.FunctionType(code, vars(module)))
        else:
            exec(code, vars(module))


if __name__ == "__main__":
    run_page(Path(sys.argv[1]))
