"""How values are shown: what differs from the defaults, so that signatures and error texts stay readable."""

from __future__ import annotations

from typing import Any, cast

import attrs

__all__ = ["changed_repr"]


def changed_repr(self: object) -> str:
    """Return the call that makes a value of an attrs class, without the arguments that are the class's defaults.

    Written as a method, for classes to take as their ``__repr__``.
    """
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cast("type[attrs.AttrsInstance]", type(self)))
    shown = [
        f"{field.alias}={getattr(self, field.name)!r}"
        for field in fields
        if field.init and field.repr and getattr(self, field.name) != field.default
    ]
    return f"{type(self).__name__}({', '.join(shown)})"
