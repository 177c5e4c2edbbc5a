"""How durations are written: whole microseconds in records, milliseconds in messages, a few digits in pictures."""

from __future__ import annotations

__all__ = ["duration", "microseconds", "milliseconds", "short_duration"]


def microseconds(seconds: float | None) -> int | None:
    """Return a time for a record that machines read; None stays None."""
    return None if seconds is None else round(seconds * 1e6)


def milliseconds(seconds: float) -> str:
    """Return the duration of an attempt for a message."""
    return f"{seconds * 1000:.1f} ms"


def duration(seconds: float) -> str:
    """Return the duration of a whole call for a message."""
    return f"{seconds:.2f} s" if seconds >= 1 else milliseconds(seconds)


def short_duration(seconds: float) -> str:
    """Return a time for a picture, where two or three digits are enough."""
    value = seconds * 1000
    if value >= 10_000:
        return f"{seconds:.1f} s"
    if value >= 10:
        return f"{value:.0f} ms"
    return f"{round(value, 1 if value >= 1 else 2):g} ms"
