"""What the tests share: leak detection, cancel sweeps, the two kinds of socket, faults on loopback."""

import os
from typing import Final

LONG: Final = os.environ.get("TRIO_CONNECT_LONG") == "1"
"""Whether this is `make test-long`, which takes more rounds and more examples of everything."""


def examples(quick: int, long: int) -> int:
    """Return how many examples Hypothesis is to draw: in `make test`, or in the long run."""
    return long if LONG else quick
