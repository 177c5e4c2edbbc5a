"""How a destination comes by its candidates: by a lookup when the last answer has expired, later after a failure."""

from __future__ import annotations

from math import inf
from typing import final

import attrs
import trio
from trio import current_time

from .._engine.moments import has_come
from .._engine.plan import Host
from .._messages import call_exceeded
from .._net.race.candidates import Refusals
from ._decisions import DestinationRejected, RetryAt
from ._lookups import Finder, Found, Rejected
from ._refusal import Refusal
from ._state import DestinationState
from ._waiting import Waiting

__all__ = ["Finding"]


@final
class Finding:
    """The lookups of one destination.

    Args:
      find: asks for the candidates.
      state: of the destination, which learns them.
      waiting: its calls that wait for admission.
    """

    __slots__ = ("_failures", "_find", "_retry_at", "_state", "_waiting")

    def __init__(self, find: Finder, state: DestinationState, waiting: Waiting) -> None:
        self._find = find
        self._state = state
        self._waiting = waiting
        self._failures = 0
        self._retry_at = -inf

    def is_due(self, now: float) -> bool:
        """Say whether what is known has expired."""
        return has_come(self._state.found.expires, now)

    def reset(self) -> None:
        """Forget failures."""
        self._failures = 0
        self._retry_at = -inf

    async def look_up(self, until: float) -> None:
        """Find the candidates, or say why there is not one.

        Args:
          until: the caller's deadline, in Trio time.

        Raises:
          DeadlineExceeded: the deadline came first.
          DestinationRejected: the DNS or the address filter says that nothing can be reached.
          RetryAt: the lookup failed, now or a moment ago.
        """
        state, began = self._state, current_time()
        if not has_come(self._retry_at, began):
            refusal = Refusal(RetryAt, "its lookup failed a moment ago", self._retry_at, known=True)
            raise state.decision(refusal, until)
        try:
            with trio.CancelScope(deadline=until) as scope:
                found = await self._find()
                self._failures = 0
                state.learn(self._allowed(found))
                # The group may have changed, and with it the limits that waiting calls need.
                self._waiting.wake(state)
        except Rejected as exc:
            state.errors.append(str(exc))
            state.tell("refused", state.health(), str(exc))
            raise DestinationRejected(state.name, str(exc), until=-1) from exc.__cause__
        except OSError as exc:
            if has_come(self._retry_at, began):
                # One lookup may fail for many who wait for it, and has failed once.
                self._failures += 1
                draw = state.shared.random.uniform(-1.0, 1.0)
                self._retry_at = current_time() + state.policy.delay.delay(self._failures, draw)
            state.errors.append(str(exc))
            refusal = Refusal(RetryAt, f"its lookup failed ({exc})", self._retry_at, known=True)
            raise state.refuse(refusal, until) from exc
        if scope.cancelled_caught:
            raise call_exceeded(f"lookup of {state.name}", current_time() - began)

    def _allowed(self, found: Found) -> Found:
        """Return what the address filter lets through."""
        address_filter = self._state.shared.address_filter
        if address_filter is None:
            return found
        refusals = Refusals(address_filter)
        hosts: list[Host] = []
        for host in found.hosts:
            kept = tuple(each for each in host.candidates if refusals.of(each.endpoint) is None)
            if len(kept) < len(host.candidates) and self._state.policy.prohibited == "reject":
                refused = next(each for each in host.candidates if each not in kept)
                raise Rejected(f"the address filter refuses {refused.endpoint}")
            if kept:
                hosts.append(attrs.evolve(host, candidates=kept))
        if not hosts:
            raise Rejected("the address filter refuses every address")
        return attrs.evolve(found, hosts=tuple(hosts))
