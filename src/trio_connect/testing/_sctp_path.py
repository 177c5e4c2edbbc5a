"""One path of an association on an `SctpNetwork`: its state, its timers, and the choice between paths."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import attrs

from .. import sctp
from ._timeline import Timer

PathState: TypeAlias = Literal["active", "potentially failed", "inactive", "unconfirmed"]

_PREFERENCE: Final[tuple[PathState, ...]] = ("active", "potentially failed", "unconfirmed", "inactive")


@attrs.frozen
class Timers:
    """What an association was told of its timers, in seconds. The defaults are Linux's."""

    initial: float = 3.0
    least: float = 1.0
    greatest: float = 60.0
    heartbeat: float = 30.0
    path_retransmissions: int = 5

    def tuned(self, tuning: sctp.SctpTuning) -> Timers:
        """Return these timers with what a tuning says."""
        least, greatest = self.least, self.greatest
        if tuning.rto_max is not None:
            greatest, least = tuning.rto_max, min(least, tuning.rto_max)
        if tuning.rto_min is not None:
            least, greatest = tuning.rto_min, max(greatest, tuning.rto_min)
        return Timers(
            self.initial if tuning.rto_initial is None else tuning.rto_initial,
            least,
            greatest,
            self.heartbeat if tuning.heartbeat is None else tuning.heartbeat,
            self.path_retransmissions if tuning.path_max_retrans is None else tuning.path_max_retrans,
        )


@attrs.define(eq=False)
class PeerPath:
    """One path to the peer."""

    address: str
    state: PathState
    rto: float
    srtt: float = 0.0
    errors: int = 0
    heartbeat: Timer | None = None

    def missed(self, timers: Timers) -> bool:
        """Count a packet that was not acknowledged in time; say whether the path became unreachable by it.

        RFC 9260 section 8.2, and RFC 7829 for the state "potentially failed".
        """
        self.errors += 1
        self.rto = min(self.rto * 2, timers.greatest)
        if self.errors > timers.path_retransmissions and self.state != "inactive":
            self.state = "inactive"
            return True
        if self.state == "active":
            self.state = "potentially failed"
        return False

    def answered(self, rtt: float, timers: Timers) -> PathState:
        """Take a measurement of the round-trip time, and return the state of the path before it."""
        self.errors = 0
        self.srtt = rtt
        self.rto = min(max(timers.least, 3 * rtt), timers.greatest)
        before, self.state = self.state, "active"
        return before


def best(ways: Iterable[PeerPath], primary: str, but: PeerPath | None = None) -> PeerPath:
    """Return the path to send on: the primary one unless another is in a better state."""
    ordered = sorted(ways, key=lambda way: (_PREFERENCE.index(way.state), way.address != primary))
    return next((way for way in ordered if way is not but), ordered[0])
