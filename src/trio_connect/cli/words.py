"""How the command says numbers."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """Return a time with the digits that a reader wants."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.010 else f"{seconds * 1000:.2g} ms"


def plural(count: int, one: str, several: str = "") -> str:
    """Return a number with its noun."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"
