"""What an MPTCP connection has."""

from __future__ import annotations

import attrs

__all__ = ["Multipath"]


@attrs.frozen(kw_only=True)
class Multipath:
    """A Multipath TCP connection (RFC 8684) as it was when it was asked about.

    Args:
      subflows: how many TCP connections carried it, the first one included. 0 when the last one is gone and none has
        taken its place.
    """

    subflows: int
    """How many TCP connections carried it, the first one included."""
