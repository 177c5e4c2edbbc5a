"""Telling an observer what happens in a race, after everything is closed that is to be: it may raise what it likes."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final, ParamSpec, final

from trio.lowlevel import disable_ki_protection

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._trace import Observer, TraceEvent

P = ParamSpec("P")

_log: Final = logging.getLogger("trio_connect")


@disable_ki_protection  # Ctrl-C must reach an observer that does not return
def _call(observer: Observer, event: TraceEvent) -> None:
    observer(event)


@final
class Teller:
    """The events of one call that its observer has not been told yet.

    Args:
      observer: told, until it raises; or None.
      target: where the call goes, for the log; "" when that is many endpoints.
    """

    __slots__ = ("_observer", "_target", "_untold")

    def __init__(self, observer: Observer | None, target: str) -> None:
        self._observer = observer
        self._target = target
        self._untold: deque[TraceEvent] = deque()

    def note(self, kind: Callable[P, TraceEvent], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have the observer told of this by the next `tell`."""
        if self._observer is not None:
            self._untold.append(kind(*args, **kwargs))

    def tell(self) -> None:
        """Tell what was noted."""
        while self._observer is not None and self._untold:
            try:
                _call(self._observer, self._untold.popleft())
            except Exception:  # noqa: BLE001 - whatever it is, it must not break a connect
                _log.exception(
                    "an observer raised and is told no more of the connect to %s", self._target or "many endpoints"
                )
                self._observer = None
