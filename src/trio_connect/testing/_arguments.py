"""Arguments of the virtual network are checked by the call that gets them.

A round trip of "1" or a handler that is not a function would otherwise fail later, in a task of the network's own, as
trio.TrioInternalError.
"""

from __future__ import annotations

import math

__all__ = ["check_handler", "check_int", "check_seconds", "shown"]

_LONGEST = 200


def shown(value: object) -> str:
    """Return the repr of a value for a message. It is cut when it is long, and a repr that raises is replaced."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - the repr of a stranger
        return f"an object of {type(value).__name__} without a repr"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def check_int(name: str, value: object, lowest: int, highest: int) -> int:
    """Return an int between two others.

    Raises:
      TypeError: not an int, or a bool.
      ValueError: out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {shown(value)}")
    if not lowest <= value <= highest:
        raise ValueError(f"{name} must be {lowest} to {highest}, not {shown(value)}")
    return value


def check_number(name: str, value: object, rule: str) -> float:
    """Return a number as a float; infinity is one.

    Raises:
      TypeError: not a number, or a bool.
      ValueError: NaN, or an int that no float can hold.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {rule}, not {shown(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{name} must be {rule}, not {shown(value)}")
    return number


def check_seconds(name: str, value: object) -> float:
    """Return a finite number of seconds, 0 or more.

    Raises:
      TypeError: not a number, or a bool.
      ValueError: out of range.
    """
    rule = "a finite number of seconds >= 0"
    number = check_number(name, value, rule)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name} must be {rule}, not {shown(value)}")
    return number


def check_handler(value: object) -> None:
    """Refuse what cannot be called.

    Raises:
      TypeError: not callable, and not None.
    """
    if value is not None and not callable(value):
        raise TypeError(f"handler must be an async function of one stream, or None, not {shown(value)}")
