"""The two kinds of facts that change nothing in any engine: late and illegal ones.

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
    """The shell told an impossible fact: a bug of this library, not of a peer or user. The engine is unchanged."""
