"""What a call wants of the limits in a `RedisStore`, what the server is asked for it, and the keys of both there."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Final, Literal

import attrs

from .._engine.limits import Cap, Pace
from ._store import Later

__all__ = ["EPOCH_KEY", "PEERS_KEY", "Claim", "Key", "Question", "Turn", "cap_key", "pace_key", "wanted_key"]

EPOCH_KEY: Final = "{trio-connect}:run"
PEERS_KEY: Final = "{trio-connect}:processes"

Key = tuple[tuple[str, ...], tuple[str, ...]]


@attrs.define(eq=False)
class Claim:
    """What a call wants, and how far that is."""

    key: Key
    caps: Sequence[Cap]
    paces: Sequence[Pace]
    id: str
    state: Literal["new", "asked", "granted", "refused", "doubtful"] = "new"
    """"doubtful": the question was not answered."""
    until: float = -inf
    """Until when the answer stands."""
    fence: float = -inf
    """When the lease runs out."""
    rest: float = inf
    """Until when it waits for others to have a chance, before it is asked again."""
    poll: float = 0.0
    refusal: Later | None = None
    may_hold: bool = False
    """Whether the server may have given a lease: it was asked, and has not refused since."""

    @property
    def is_pending(self) -> bool:
        """Whether it is to be asked, or is on its way."""
        return self.state in ("new", "asked")


@attrs.define(eq=False)
class Turn:
    """How this process takes places under a limit that others want too."""

    began: float
    """Since when."""
    rest: float = -inf
    """Until when nothing is asked, so that others have a chance."""


@attrs.frozen
class Question:
    """What to ask the server for a claim."""

    claim: Claim
    keys: list[str]
    arguments: list[str]
    releases: list[tuple[str, str]]
    """The leases that it gives back, each by limit and id."""


def cap_key(cap: Cap) -> str:
    """Return the key of the leases under a limit."""
    return f"{{trio-connect}}:places:{cap.limit}:{cap.shared}"


def wanted_key(key: str) -> str:
    """Return the key of who was last refused a place under the limit with a key."""
    return f"{key}:wanted"


def pace_key(pace: Pace) -> str:
    """Return the key of a rate."""
    return f"{{trio-connect}}:rate:{pace.interval}:{pace.burst}:{pace.shared}"
