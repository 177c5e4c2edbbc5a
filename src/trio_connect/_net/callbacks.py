"""What a caller gives us to call and nobody awaits: an async function there is a mistake, and told at the call."""

from __future__ import annotations

from inspect import iscoroutinefunction

from .._check import check_callback
from .._text import shown

__all__ = ["check_not_async", "check_observer"]


def check_not_async(value: object, name: str) -> None:
    """Refuse an async function where what is called is not awaited: it would never run, and nobody would hear of it.

    Raises:
      TypeError: it is one.
    """
    if iscoroutinefunction(value) or iscoroutinefunction(type(value).__call__):
        raise TypeError(f"{name} must not be async, got {shown(value)}")


def check_observer(value: object) -> None:
    """Refuse what cannot be told of events.

    Raises:
      TypeError: it is not callable and not None, or is async.
    """
    if value is not None:
        check_callback(value, "observer")
        check_not_async(value, "observer")
