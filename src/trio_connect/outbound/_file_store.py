"""Limits that the processes of one machine share, in a file of locks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from random import uniform
from types import TracebackType
from typing import Final, final

import attrs

from .._engine.limits import Cap, Pace, Place
from .._text import shown
from ._file_locks import COUNTING, MOST_PLACES, FileOfLocks, Limit
from ._store import CLOSED, Later

__all__ = ["FileStore"]

_POLL: Final = 0.050
"""Seconds between two looks for a place that another process may have given back: the kernel does not tell of it."""

_MOMENT: Final = 0.001
"""Seconds after which a rate is asked for again that another process was counting."""

_PLACES: Final = "connections"
_RATE: Final = "rate"

_AWAY: Final = 1.0
"""Seconds after which a file that could not be used is tried again."""


@final
class FileStore:
    """Limits that all processes of this machine share which name the same file.

    A connection holds a locked byte of the file. The kernel frees it when the process ends, however it ends: nothing
    expires, nothing has to be renewed, and nothing is left behind. A rate is a number in the file. It holds on when
    processes are started again, until the machine is.

    All processes have the same limits for one key. A limit may change when no process has the file open. Put the
    file on a local disk or in memory: locks on network file systems are another thing.

    Args:
      path: the file. It is made for its owner alone; processes of several users need one that they all may write.

    Raises:
      TypeError: the path is not one.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given: object = path
        if not isinstance(given, str | os.PathLike):
            raise TypeError(f"path must be a str or a path, got {shown(path)}")
        self._path = Path(path)
        self._file: FileOfLocks | None = None
        self._changed: Callable[[str, str], None] | None = None

    def __repr__(self) -> str:
        return f"FileStore({str(self._path)!r})"

    @property
    def may_lose(self) -> bool:
        """Whether a place may be lost: the kernel takes no place away."""
        return False

    async def __aenter__(self) -> FileStore:
        if self._file is not None:
            raise ValueError(f"{self!r} is in use by another outbound: each has one of its own")
        self._file = FileOfLocks(self._path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        changed, self._changed = self._changed, None
        if changed is not None:
            changed("", "")

    def bind(self, changed: Callable[[str, str], None], lost: Callable[[], None]) -> None:  # noqa: ARG002 - of Store
        """Have waiting calls try again when the store is left; for outbounds.

        Args:
          changed: called with two empty texts. What else changes in a file, nobody tells.
          lost: would be called when places are lost. The kernel takes none away.
        """
        self._changed = changed

    def register(self, caps: Sequence[Cap], paces: Sequence[Pace]) -> None:
        """Refuse limits that other processes have with other numbers; for outbounds.

        Args:
          caps: limits on how many at once.
          paces: rates.

        Raises:
          OSError: the file cannot be read, locked or written.
          ValueError: another process has one of them with another number.
        """
        if self._file is None:
            return
        for cap in caps:
            self._places(cap)
        for pace in paces:
            self._rate(pace)

    def acquire(self, caps: Sequence[Cap], paces: Sequence[Pace]) -> dict[Cap, Place] | Later:
        """Take a place under each cap and count a start of each rate, or do nothing; for outbounds.

        Args:
          caps: limits on how many at once.
          paces: rates.

        Returns:
          the places, or why there is not one and when to ask again.
        """
        if self._file is None:
            return CLOSED
        places: dict[Cap, Place] = {}
        outcome: dict[Cap, Place] | Later = Later("", 0.0)
        try:
            outcome = self._take(caps, paces, places)
        except OSError as exc:
            outcome = Later(f"local: {self!r} cannot be used: {exc.strerror}", _AWAY)
        except ValueError as exc:
            # Whoever gives a place back tries for others here, and must not hear of what is wrong with their limits.
            outcome = Later(str(exc), inf, known=True)
        finally:
            if outcome is not places:
                for each in places.values():
                    each.release()
        return outcome

    def _take(self, caps: Sequence[Cap], paces: Sequence[Pace], places: dict[Cap, Place]) -> dict[Cap, Place] | Later:
        file = self._opened
        for cap in caps:
            # Its number may be smaller by now, as another destination of this program has it. That one was refused.
            limit = file.known(_PLACES, cap.shared) or self._places(cap)
            place = file.take(limit)
            if place is None:
                cause = f"all {cap.limit} {cap.name} are held, some by other processes"
                return Later(cause, uniform(0.5, 1.5) * _POLL, blockers=(cap,))  # noqa: S311 - jitter
            places[cap] = _Held(file, limit, place)
        if paces:
            wait = file.start([file.known(_RATE, each.shared) or self._rate(each) for each in paces])
            if wait == COUNTING:
                # It may not have the processor now, so even who may not wait is to ask once more.
                return Later("another process is counting a start of a rate", _MOMENT, pending=True)
            if wait is not None:
                slowest = max(paces, key=lambda pace: pace.interval)
                return Later(f"the {slowest.name} is used up by all processes", wait, known=True)
        return places

    @property
    def _opened(self) -> FileOfLocks:
        assert self._file is not None, "an outbound enters its store"
        return self._file

    def _places(self, cap: Cap) -> Limit:
        return self._opened.limit(_PLACES, cap.shared, min(cap.limit, MOST_PLACES))

    def _rate(self, pace: Pace) -> Limit:
        return self._opened.limit(_RATE, pace.shared, pace.burst, pace.interval)


@final
@attrs.define(eq=False)
class _Held:
    """A place that this process holds."""

    _file: FileOfLocks
    _limit: Limit
    _place: int

    @property
    def is_lost(self) -> bool:
        """Whether somebody else has it: nobody takes a lock away from a process."""
        return False

    def release(self) -> None:
        """Give it back."""
        self._file.give(self._limit, self._place)
