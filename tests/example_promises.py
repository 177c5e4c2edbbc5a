"""What an example promises to print: the indented lines after ``Prints:`` in its docstring.

Each promised line must appear as a whole line of its output, in that order; other lines may stand between them. Three
dots stand for any text within a line, for what differs from run to run.
"""

from __future__ import annotations

import ast
import re
import textwrap


def promises(source: str) -> list[str]:
    """The promised lines. No docstring, no ``Prints:`` or nothing after it is a ValueError."""
    docstring = ast.get_docstring(ast.parse(source)) or ""
    _, found, after = docstring.partition("\nPrints:\n")
    if not found:
        raise ValueError("the docstring has no paragraph that begins with a line `Prints:`")
    indented = re.match(r"(?:[ \t]+\S.*(?:\n|\Z)|[ \t]*\n)*", after)
    lines = [line for line in textwrap.dedent(indented[0] if indented else "").splitlines() if line.strip()]
    if not lines:
        raise ValueError("nothing indented follows `Prints:`")
    return lines


def broken_promises(promised: list[str], output: str) -> list[str]:
    """The promised lines that do not appear in their turn."""
    lines = iter(output.splitlines())
    return [line for line in promised if not any(_matches(line, printed) for printed in lines)]


def _matches(promised: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(part) for part in promised.rstrip().split("..."))
    return re.fullmatch(pattern, printed.rstrip()) is not None
