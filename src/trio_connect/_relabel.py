"""A package lists its public names, and each says where users import it from: in its repr, tracebacks and pickles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["publish", "relabel"]


def publish(package: dict[str, Any], *written_in: str, later: Iterable[str] = ()) -> None:
    """Set the ``__all__`` of a package to what it imports under a public name, and relabel each such value.

    The import of a name is then the one place where its package names it. Type checkers take a name to be public by
    ``from ._module import Name as Name``.

    Args:
      package: the `globals()` of the package, at the end of its ``__init__``.
      written_in: see `relabel`.
      later: public names that the package imports when they are first used.
    """
    names = [name for name in package if not name.startswith("_")]
    for name in names:
        relabel(package[name], package["__name__"], *written_in)
    package["__all__"] = sorted({*names, *later})


def relabel(value: Any, home: str, *written_in: str) -> None:
    """Have a class or function say that it is of the package that users import it from.

    Args:
      value: what has a public name; one that knows no module is left alone.
      home: the package.
      written_in: prefixes of the modules that it may have been written in; the package's own private ones if none.
    """
    if getattr(value, "__module__", "").startswith(written_in or f"{home}._"):
        value.__module__ = home
