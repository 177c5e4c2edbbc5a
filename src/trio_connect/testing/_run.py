"""Running a program on a virtual network without pytest, and inside Hypothesis."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from ._network import VirtualNetwork

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


def run(main: Callable[[VirtualNetwork, *Ts], Awaitable[T]], *args: *Ts, seed: int = 0) -> T:
    """Run `main(net, *args)` in virtual time, on a new network, in a Trio run of its own.

    Every call has its own clock that begins at 0, so it may be called once per Hypothesis example.

    Args:
      main: an async function; its first argument is the `VirtualNetwork`.
      args: its other arguments.
      seed: the network's seed.

    Returns:
      What `main` returns.

    Raises:
      VirtualNetworkError: the program left the network that the test describes, even if it swallowed the exception.
      BaseException: what `main` or a handler raised. Whatever is raised has the seed and the waterfall as a note.
    """
    # Not at the top: where pytest is installed Trio imports it here, and importing us should cost neither.
    from trio.testing import MockClock

    net = VirtualNetwork(seed)
    try:
        result: T = trio.run(main, net, *args, clock=MockClock(autojump_threshold=0), instruments=[net])
        net.verify()
    except BaseException as error:
        error.add_note(net.report())
        raise
    return result
