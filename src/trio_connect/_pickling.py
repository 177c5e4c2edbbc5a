"""How values that hold a source are pickled: without the password of its proxy.

Reports, events and errors are kept in files, queues and result stores, and read by others than those who connect. A
`Source` itself is an argument: who pickles one means to connect from it, in another process say, so it goes whole.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import attrs

from ._endpoint import Source

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["reduced_without_password", "without_password"]


def without_password(source: Source | None) -> Source | None:
    """Return a source whose proxy has ``***`` for its name and its password; one without these as it is."""
    if source is None or source.proxy is None or source.proxy.credentials is None:
        return source
    return attrs.evolve(source, proxy=cast("Any", source.proxy.without_password()))  # which converts nothing then


def reduced_without_password(self: object) -> tuple[Callable[[], object], tuple[()]]:
    """Return what a value of an attrs class is made of again.

    Written as a method, for classes that have a field `source` to take as their ``__reduce__``.
    """
    fields = attrs.asdict(cast("attrs.AttrsInstance", self), recurse=False)
    values: dict[str, Any] = {**fields, "source": without_password(fields["source"])}
    return partial(type(self), **values), ()
