"""Waiting up to a point in time, with the rules of the project's deadlines.

An operation is tried before its deadline is looked at, and ready beats expired: whoever waits here must look once
more after a `False` before it gives up. A deadline that has already passed still grants one pass of Trio's loop.
"""

from __future__ import annotations

import os
import select
import sys
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, cast

from trio import Cancelled, CancelScope, current_time, open_nursery
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# A call through a socket factory's objects takes several passes of the loop even when nothing has to be waited for:
# the child task starts (1), Trio's own socket checks for cancellation (2), retries (3); fakes take a few more.
PASSES: Final = 8


if sys.platform == "win32":

    def is_readable(fd: int) -> bool:
        """Say whether a read would not wait: there is input, or the end of the stream, or an error."""
        return bool(select.select([fd], [], [], 0)[0])

    def yield_processor() -> float:
        """Do nothing: Windows delivers over loopback without a thread that has to wait for its turn."""
        return 0.0

else:

    def is_readable(fd: int) -> bool:
        """Say whether a read would not wait: there is input, or the end of the stream, or an error.

        Reading with MSG_PEEK would take a pending error away from whoever reads next.
        """
        poller = select.poll()  # select(2) knows no descriptor from 1024 on
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(0))

    def yield_processor() -> float:
        """Let the kernel's threads have their turn on this processor, if they wait for it; return the seconds it took.

        What is sent over loopback is mostly there when send(2) returns. After much of it Linux leaves the rest to
        ksoftirqd, a thread like any other, and a process that is busy looks before that has run. See sched_yield(2).
        """
        began = perf_counter()
        os.sched_yield()
        return perf_counter() - began


class Expired(Exception):
    """Our own deadline came first. Never reaches a user: front doors turn it into `DeadlineExceeded`."""


async def park(wait: Callable[[int], Awaitable[None]], fd: int, until: float) -> bool:
    """Wait for an fd; return False when `until` (Trio time) came first.

    A scope is opened for every finite `until`, also under an enclosing scope that expires earlier: that one's
    deadline may be moved, and then ours must still hold. At the same instant the enclosing scope wins, because Trio
    lets a `Cancelled` pass through every scope inside the outermost cancelled one.
    """
    if until == inf:
        await wait(fd)
        return True
    if current_time() >= until:
        await one_pass()
        return False
    with CancelScope(deadline=until) as scope:
        await wait(fd)
    return not scope.cancelled_caught


async def one_pass() -> None:
    """Let every task that is ready have its turn.

    Trio shuffles each batch: after one checkpoint perhaps nobody but this task has run, at the next one everybody has.
    """
    await checkpoint()
    await cancel_shielded_checkpoint()


async def within(until: float, call: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run a cancellable call that cannot be split into "try" and "wait".

    Raises:
      Expired: `until` came first. Past or minus infinity: the call had `PASSES` passes of the loop.
    """
    if until == inf:
        return await call(*args)
    if current_time() < until:
        with CancelScope(deadline=until):
            return await call(*args)
        raise Expired
    return await _for_some_passes(call, *args)


async def _for_some_passes(call: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    # All that follows is shielded, but the call is to be a checkpoint.
    await checkpoint_if_cancelled()
    value: T | None = None
    error: BaseException | None = None
    done = False

    async def child() -> None:
        nonlocal value, error, done
        try:
            value = await call(*args)
        except Cancelled:
            return  # ours, or raised again below: a nursery would wrap it in a group
        except BaseException as exc:  # noqa: BLE001 - carried out of the nursery for the same reason
            error = exc
        done = True

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        # Shielded: an enclosing cancellation reaches the child by itself, and here it could throw away a value
        # that the child has just got.
        for _ in range(PASSES):
            await cancel_shielded_checkpoint()
            if done:
                break
        nursery.cancel_scope.cancel()
    if error is not None:
        try:
            raise error
        finally:
            del error
    if not done:
        await checkpoint_if_cancelled()
        raise Expired
    return cast("T", value)
