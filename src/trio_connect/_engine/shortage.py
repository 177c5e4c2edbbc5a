"""What the system says when this process or machine is short of something: nothing about a peer or a name."""

from __future__ import annotations

from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Final

__all__ = ["SHORTAGE"]

SHORTAGE: Final = frozenset({EMFILE, ENFILE, ENOBUFS, ENOMEM})
"""socket(2): the limits on open files, and insufficient memory."""
