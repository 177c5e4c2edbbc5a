"""Where users import a name from is what its repr, its tracebacks and its pickles say."""

from __future__ import annotations

from typing import Any

__all__ = ["relabel"]


def relabel(value: Any, home: str, *written_in: str) -> None:
    """Have a class or function say that it is of the package that users import it from.

    Args:
      value: what has a public name; one that knows no module is left alone.
      home: the package.
      written_in: prefixes of the modules that it may have been written in; the package's own private ones if none.
    """
    if getattr(value, "__module__", "").startswith(written_in or f"{home}._"):
        value.__module__ = home
