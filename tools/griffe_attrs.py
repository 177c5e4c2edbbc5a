# ruff: noqa: INP001
"""Tell griffe, which reads the source for the API reference, which ``__init__`` attrs writes for a class.

Without it a value's page shows no signature, and its ``Args:`` belong to nothing.
"""

from __future__ import annotations

from typing import Any, Final

import griffe

_DEFINE: Final = ("attrs.frozen", "attrs.define")


class AttrsExtension(griffe.Extension):
    """Give each class of attrs its ``__init__``, when the whole package is read."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Go through the modules and classes of a package."""
        self._visit(pkg)

    def _visit(self, parent: griffe.Module | griffe.Class) -> None:
        for member in list(parent.members.values()):
            if isinstance(member, griffe.Class):
                define = _define(member)
                if define is not None and define.get("init") != "False" and "__init__" not in member.members:
                    member.set_member("__init__", _init(member))
            if isinstance(member, griffe.Class | griffe.Module):
                self._visit(member)


def _define(cls: griffe.Class) -> dict[str, str] | None:
    """Return the arguments of the decorator that makes a class attrs', None if nothing does."""
    for decorator in cls.decorators:
        if decorator.callable_path in _DEFINE:
            return _arguments(decorator.value)
    return None


def _arguments(call: object) -> dict[str, str]:
    if not isinstance(call, griffe.ExprCall):
        return {}
    return {a.name: str(a.value) for a in call.arguments if isinstance(a, griffe.ExprKeyword)}


def _init(cls: griffe.Class) -> griffe.Function:
    found: dict[str, griffe.Parameter] = {}
    for base in [*reversed(cls.mro()), cls]:
        define = _define(base)
        for member in base.members.values() if define is not None else ():
            if isinstance(member, griffe.Attribute) and (made := _parameter(member, define)) is not None:
                found[made.name] = made
    by_position = [p for p in found.values() if p.kind is griffe.ParameterKind.positional_or_keyword]
    by_keyword = [p for p in found.values() if p.kind is griffe.ParameterKind.keyword_only]
    itself = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    return griffe.Function("__init__", parameters=griffe.Parameters(itself, *by_position, *by_keyword), returns="None")


def _parameter(field: griffe.Attribute, define: dict[str, str]) -> griffe.Parameter | None:
    if field.annotation is None or ("class-attribute" in field.labels and "instance-attribute" not in field.labels):
        return None
    default: str | griffe.Expr | None = field.value
    details: dict[str, str] = {}
    if isinstance(field.value, griffe.ExprCall) and field.value.canonical_path in ("attrs.field", "attrs.Factory"):
        details = _arguments(field.value)
        default = details.get("default") or (f"{details['factory']}()" if "factory" in details else None)
    if details.get("init") == "False":
        return None
    keyword = "True" in (define.get("kw_only"), details.get("kw_only"))
    kind = griffe.ParameterKind.keyword_only if keyword else griffe.ParameterKind.positional_or_keyword
    name = details["alias"].strip("\"'") if "alias" in details else field.name.lstrip("_")
    return griffe.Parameter(name, annotation=field.annotation, kind=kind, default=default)
