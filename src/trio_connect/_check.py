"""Arguments: what is wrong with one is said at the call, with the value and the rule.

A bool is an int to Python, and never what a caller means by a number. An int has no end, and what floats, sockets and
memory do with one of a hundred digits is an OverflowError or a MemoryError far from the call.
"""

from __future__ import annotations

from math import isnan
from typing import Final

from ._text import shown

__all__ = ["SIZE_LIMIT", "check_callback", "check_float", "check_int", "check_range", "check_size", "check_text"]

SIZE_LIMIT: Final = 1 << 40
"""Sizes are below this and deadlines are not (see `_deadline`), so that neither is taken for the other."""


def check_int(value: object, name: str, rule: str = "an int") -> int:
    """Return an int, or say that it is not one.

    Args:
      value: what the caller gave.
      name: of the argument.
      rule: what it has to be, in words.

    Raises:
      TypeError: it is not an int; a bool is not one here.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be {rule}, got {shown(value)}")
    return value


def check_range(value: object, name: str, lowest: int, highest: int) -> int:
    """Return an int between two others, these included.

    Raises:
      TypeError: it is not an int.
      ValueError: it is too small or too large.
    """
    number = check_int(value, name)
    if not lowest <= number <= highest:
        raise ValueError(f"{name} must be between {lowest} and {highest}, got {shown(number)}")
    return number


def check_size(value: object, name: str, lowest: int) -> int:
    """Return a number of bytes or of things.

    Args:
      value: what the caller gave.
      name: of the argument.
      lowest: the least that is allowed.

    Raises:
      TypeError: it is not an int.
      ValueError: it is too small, or so large that it was meant as a deadline.
    """
    number = check_int(value, name)
    if number < lowest:
        raise ValueError(f"{name} must be at least {lowest}, got {shown(value)}")
    if number >= SIZE_LIMIT:
        raise ValueError(f"{name} must be below 2**40, got {shown(value)}: a deadline?")
    return number


def check_text(value: object, name: str) -> str:
    """Return a str, or say that it is not one.

    Raises:
      TypeError: it is not a str.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {shown(value)}")
    return value


def check_callback(value: object, name: str) -> None:
    """Refuse what is neither callable nor None.

    Raises:
      TypeError: it is neither.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable or None, got {shown(value)}")


def check_float(value: object, name: str, rule: str) -> float:
    """Return a number, int or float, as it was given; infinity is one.

    Args:
      value: what the caller gave.
      name: of the argument.
      rule: what it has to be, in words: "a number of seconds".

    Raises:
      TypeError: it is not a number; a bool is not one here.
      ValueError: it is NaN, or an int beyond what a float can hold.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be {rule}, got {shown(value)}")
    try:
        impossible = isnan(value)
    except OverflowError:
        impossible = True
    if impossible:
        raise ValueError(f"{name} must be {rule}, got {shown(value)}")
    return value
