"""Telling an observer what happens to an association and to its paths."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias, final

from trio.lowlevel import disable_ki_protection

from ._values import AssociationEvent, PathEvent

if TYPE_CHECKING:
    from .._trace import RaceFinished

SctpObserver: TypeAlias = "Callable[[PathEvent | AssociationEvent | RaceFinished], None]"
"""Called synchronously by `receive`, `accept` or `connectx`: must be quick. One that raises is logged and dropped."""

_log: Final = logging.getLogger("trio_connect")


@disable_ki_protection  # Ctrl-C must reach an observer that does not return
def _call(observer: SctpObserver, event: PathEvent | AssociationEvent | RaceFinished) -> None:
    observer(event)


@final
class Teller:
    """Calls an observer, until it raises."""

    def __init__(self, observer: SctpObserver | None, what: str) -> None:
        self._observer = observer
        self._what = what

    def tell(self, event: PathEvent | AssociationEvent | RaceFinished) -> None:
        """Tell an event."""
        if self._observer is not None:
            try:
                _call(self._observer, event)
            except Exception:  # noqa: BLE001 - whatever it is, it must not break an association
                _log.exception("an observer raised and is told no more of the association with %s", self._what)
                self._observer = None
