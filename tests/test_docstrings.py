"""Public docstrings are complete: what `help()` shows names every argument, what is returned, and in one style."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

from tests.test_docs_site import public_modules
from trio_connect import adapters

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")


def sections(text: str) -> dict[str, list[str]]:
    """Return the lines below each `Args:` and kin."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        title = line.removesuffix(":")
        if title in SECTIONS and line != title:
            lines = found[title] = []
        elif line and not line.startswith(" "):
            lines = None
        elif line and lines is not None:
            lines.append(line)
    return found


def entries(lines: list[str]) -> set[str]:
    """Return the names that begin the entries of a section, `a, b: text` counting as two."""
    heads = (match[1] for line in lines if (match := re.match(r"  ([\w*]+(?:, [\w*]+)*):", line)))
    return {name.lstrip("*") for head in heads for name in head.split(", ")}


def shown_modules() -> Iterator[str]:
    """Yield the public modules, and the adapters to clients that are installed."""
    yield from public_modules()
    yield "trio_connect.adapters"
    for found in pkgutil.iter_modules(adapters.__path__, "trio_connect.adapters."):
        with suppress(ImportError):
            import_module(found.name)
            yield found.name


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield each public function, and each public method that is ours, with its name."""
    seen: set[object] = set()
    for module in shown_modules():
        for name in getattr(import_module(module), "__all__", ()):
            value = getattr(import_module(module), name)
            found = {name: value} if inspect.isroutine(value) else {}
            if inspect.isclass(value):
                members = ((each, inspect.getattr_static(value, each)) for each in dir(value) if each[0] != "_")
                found = {f"{name}.{each}": getattr(member, "__func__", member) for each, member in members}
            for label, function in found.items():
                if inspect.isfunction(function) and function.__module__.startswith("trio_connect"):
                    if function not in seen:
                        yield f"{module}.{label}", function
                    seen.add(function)


def gaps(function: Callable[..., Any]) -> Iterator[str]:
    """Yield what a docstring leaves out."""
    text = inspect.getdoc(function)
    if not text:
        yield "no docstring"
        return
    found = sections(text)
    for title, lines in found.items():
        if not lines or not re.match(r"  \S", lines[0]):
            yield f"{title}: indented by two"
    signature = inspect.signature(function)
    named = entries(found.get("Args", []))
    for name, parameter in signature.parameters.items():
        if name not in ("self", "cls") and parameter.kind is not parameter.VAR_KEYWORD and name not in named:
            yield f"no word about {name}"
    returned = str(signature.return_annotation)
    if returned.startswith(("Generator[", "AsyncGenerator[")):
        if not returned.startswith("Generator[None") and "Yields" not in found:
            yield "no Yields"
    elif returned not in ("None", "NoReturn") and "Returns" not in found and not text.startswith("Return "):
        yield "no Returns"


def test_docstrings_are_complete():
    found = {name: missing for name, function in public_callables() if (missing := list(gaps(function)))}
    assert found == {}


def public_classes() -> Iterator[tuple[str, type]]:
    """Yield each public class that is ours, with its name."""
    for module in shown_modules():
        for name in getattr(import_module(module), "__all__", ()):
            value = getattr(import_module(module), name)
            if inspect.isclass(value) and value.__module__.startswith("trio_connect"):
                yield f"{module}.{name}", value


def unexplained(cls: type) -> set[str]:
    """Return the attributes that no docstring of a class or its bases explains: `help()` shows no string below one."""
    bases = [base for base in cls.__mro__ if base.__module__.startswith("trio_connect")]
    fields = {name for base in bases for name in vars(base).get("__annotations__", {}) if not name.startswith("_")}
    for base in bases:
        found = sections(inspect.cleandoc(base.__doc__ or ""))
        fields -= entries(found.get("Args", [])) | entries(found.get("Attributes", []))
    return {name for name in fields if not isinstance(inspect.getattr_static(cls, name, None), property)}


def test_help_explains_every_attribute():
    assert {name: missing for name, cls in public_classes() if (missing := unexplained(cls))} == {}


def test_an_attribute_that_is_not_explained_is_seen():
    class Bare:
        width: int
        """Shown by no help()."""
        height: int
        _own: int

        @property
        def area(self) -> int:
            return self.width * self.height

    class Half(Bare):
        """A shape.

        Attributes:
          width: in points.
        """

    Bare.__module__ = Half.__module__ = "trio_connect"
    assert unexplained(Bare) == {"width", "height"}
    assert unexplained(Half) == {"height"}


def test_what_is_left_out_is_seen():
    def bare(a: int) -> int:
        return a

    def half(a: int, b: int) -> int:
        """Add.

        Args:
            a: one.
        """
        return a + b

    def whole(a: int, *b: int, **c: int) -> int:
        """Add.

        Args:
          a, b: numbers.

        Returns:
          The sum.
        """
        return a + sum(b) + sum(c.values())

    assert list(gaps(bare)) == ["no docstring"]
    assert list(gaps(half)) == ["Args: indented by two", "no word about a", "no word about b", "no Returns"]
    assert list(gaps(whole)) == []
