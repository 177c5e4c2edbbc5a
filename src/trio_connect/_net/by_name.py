"""A connect by name for which no race is built unless something races.

The lookups are the children of a nursery that ends with them. When all have answered before connecting may begin, as
they mostly have, the addresses are those of a list, and the first attempt is made as `connectx` makes it. Where
connecting is to begin while a lookup is pending, the race runs in a task beside the lookups.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, final

import trio
from trio import Cancelled, current_time
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled, enable_ki_protection

from .._race_messages import race_exceeded
from .._report import ConnectReport
from .host_of import with_hosts
from .race.alone import first_then_race
from .race.driver import run_race
from .race.errors import out_of_the_group
from .reports import untried

if TYPE_CHECKING:
    from .._errors import DeadlineExceeded
    from .names.candidates import AddressesOfHosts
    from .race.plan import RacePlan
    from .streams.tcp_stream import TcpStream, TlsStream


@final
class ConnectByName:
    """One such call.

    Args:
      plan: of the call, which has begun before its deadline; nobody observes it, and it has no establish but TLS.
      addresses: those of its hosts; nothing has been asked.
    """

    __slots__ = ("_addresses", "_error", "_nursery", "_plan", "_stream", "_watched")

    _nursery: trio.Nursery

    def __init__(self, plan: RacePlan, addresses: AddressesOfHosts) -> None:
        self._plan = plan
        self._addresses = addresses
        self._watched = False
        self._stream: TcpStream | TlsStream | None = None
        self._error: BaseException | None = None

    @enable_ki_protection
    async def run(self) -> Any:
        """Return the stream.

        Raises:
          ConnectFailed: see `run_race`; likewise for others.
        """
        plan, addresses = self._plan, self._addresses
        await checkpoint_if_cancelled()
        addresses.prepare(then=self._watch)
        try:
            waits = not addresses.answer_now()
            if waits:
                await self._look_up()
        finally:
            addresses.detach()
        if self._stream is not None:
            stream, self._stream = self._stream, None
            return stream
        pairs, skipped = addresses.all_in_order()
        if current_time() >= plan.until:
            raise self._exceeded()
        return await first_then_race(
            pairs, skipped, policy=plan.policy, sources=plan.sources, options=plan.options, establish=plan.establish,
            observer=None, history=plan.history, until=plan.until, plan=plan, looked_up=addresses.records,
            yielded=waits,
        )  # fmt: skip

    async def _look_up(self) -> None:
        """Ask, and wait for every answer, or for the end of the race that has begun before."""
        plan, addresses = self._plan, self._addresses
        error: BaseException | None = None
        scope: trio.CancelScope | None = None
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                scope = nursery.cancel_scope
                nursery.cancel_scope.deadline = plan.until
                ask_first = addresses.start_but_one(nursery)
                if addresses.found:  # numeric hosts and expired answers, which wait for other names and answers
                    nursery.start_soon(self._watch)
                await ask_first()
        except BaseException as exc:  # noqa: BLE001 - raised below, out of the nursery's group
            error = out_of_the_group(exc)
        # As in every race, a winner is not lost to a cancel that comes in the pass of the win.
        if self._stream is not None and (error is None or isinstance(error, Cancelled)):
            return
        try:
            if self._stream is not None:
                self._stream.abort()
            error = error or self._error or addresses.crash
            if error is not None:
                raise error
            if scope is not None and scope.cancelled_caught:
                raise self._exceeded()
        finally:
            self._stream = self._error = error = None

    async def _watch(self) -> None:
        """Begin the race when that is due, unless every lookup ends before.

        Run by the task of each lookup, at its end.
        """
        addresses = self._addresses
        if addresses.crash is not None:
            self._nursery.cancel_scope.cancel()
        elif addresses.is_waiting() and addresses.found and not self._watched:
            self._watched = True
            # Answers that are there already come in these passes, and need nobody who waits for them. Tasks that ask
            # have begun a pass later than the first question.
            for _ in range(2):
                await cancel_shielded_checkpoint()
                if not addresses.is_waiting():
                    return
            await addresses.released()
            if addresses.is_waiting():
                self._nursery.start_soon(self._race, name=f"connect to {self._plan.target}")

    @enable_ki_protection
    async def _race(self) -> None:
        self._nursery.cancel_scope.deadline = inf  # which the race keeps by itself
        try:
            self._stream = await run_race(self._plan, candidates=self._addresses)
        except Cancelled:
            raise
        except BaseException as exc:  # noqa: BLE001 - raised by the task of the call
            self._error = exc
        finally:
            self._nursery.cancel_scope.cancel()

    def _exceeded(self) -> DeadlineExceeded:
        plan, addresses = self._plan, self._addresses
        elapsed = current_time() - plan.started
        attempts = with_hosts(untried(*addresses.all_in_order()), plan.host_of)
        report = ConnectReport(lookups=addresses.lookups, attempts=attempts, started_at=plan.started, elapsed=elapsed)
        return race_exceeded(plan.target, report)
