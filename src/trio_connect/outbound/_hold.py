"""What ends a call whose place is lost. Only a strict store takes places away."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import final

import trio

from .._engine.limits import Lease
from ._decisions import LeaseLost
from ._shared import Shared

__all__ = ["Hold", "hold"]


@final
class Hold:
    """Watches over the places of a call.

    Args:
      shared: what all destinations have in common.
      destination: its name.
      leases: returns the leases that the call has by then.
    """

    def __init__(self, shared: Shared, destination: str, leases: Callable[[], Iterable[Lease | None]]) -> None:
        self._shared = shared
        self._destination = destination
        self._leases = leases
        self._end: Callable[[], object] | None = None
        shared.holds.add(self.check)

    def check(self) -> None:
        """End the call, once, if one of its places is lost."""
        end = self._end
        if end is not None and any(
            place.is_lost for lease in self._leases() if lease is not None for place in lease.places.values()
        ):
            self._end = None
            end()

    @contextmanager
    def cancelling(self) -> Generator[None, None, None]:
        """Cancel what is in the block when a place is lost.

        Raises:
          LeaseLost: it was.
        """
        with trio.CancelScope() as scope:
            self.end_by(scope.cancel)
            yield
        self._end = None
        if scope.cancelled_caught:
            raise LeaseLost(self._destination)

    def end_by(self, end: Callable[[], object]) -> None:
        """From now on end the call by this when a place is lost, or at once when one is lost already."""
        self._end = end
        self.check()

    def leave(self) -> None:
        """Watch no more."""
        self._end = None
        self._shared.holds.discard(self.check)


@contextmanager
def _holding(
    shared: Shared, destination: str, leases: Callable[[], Iterable[Lease | None]]
) -> Generator[None, None, None]:
    watch = Hold(shared, destination, leases)
    try:
        with watch.cancelling():
            yield
    finally:
        watch.leave()


def hold(
    shared: Shared, destination: str, leases: Callable[[], Iterable[Lease | None]]
) -> AbstractContextManager[None]:
    """Cancel a block whose place is lost, and raise `LeaseLost` from it."""
    return _holding(shared, destination, leases) if shared.may_lose else nullcontext()
