"""What every engine says of a fact that changes nothing: it is late, or it is illegal.

The tables of the engines list each pair of state and fact. `LATE` is a fact about something that is already over: it is
expected, and ignored. `ILLEGAL` is one that cannot be.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

__all__ = ["ILLEGAL", "LATE", "Illegal", "IllegalFact", "Late"]

Late: TypeAlias = Literal["late"]
Illegal: TypeAlias = Literal["illegal"]
LATE: Final = "late"
ILLEGAL: Final = "illegal"


class IllegalFact(RuntimeError):
    """The shell said what cannot be: a bug of ours, never of a peer, a resolver or a user. The engine is as it was."""
