"""The names that mean this machine (RFC 6761 section 6.3): they are loopback, and no server is to be asked for them."""

from __future__ import annotations

from typing import Final

from ..._answer import Answer

__all__ = ["LOOPBACK", "is_localhost"]

LOOPBACK: Final = Answer(("::1", "127.0.0.1"))


def is_localhost(name: bytes) -> bool:
    """Say whether a name, encoded, is ``localhost`` or ends in it."""
    lower = name.lower().removesuffix(b".")
    return lower == b"localhost" or lower.endswith(b".localhost")
