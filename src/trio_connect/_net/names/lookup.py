"""The lookups of one name: they run side by side, their answers go to the gate, and the report gets their records.

The caller opens the nursery, waits for the gate and then for later answers::

    lookups = Lookups("example.org", served_families(sources), SYSTEM_RESOLVER, resolution_delay=0.050)
    async with trio.open_nursery() as nursery:
        lookups.start(nursery)
        while await lookups.more():
            ...  # order everything in lookups.addresses again; the first endpoint that is not started goes next
        nursery.cancel_scope.cancel()
    lookups.records  # one for each question, also after a cancel

The lookups are the nursery's children, so they end with it. What they raise is not: an `OSError` belongs to its
lookup, any other exception comes out of `Lookups.more`, as itself and in no group.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from math import inf
from socket import AddressFamily
from typing import final

import trio
from trio.lowlevel import ParkingLot, cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from ..._answer import KIND_OF_FAMILY, Answer, Lookup, LookupKind
from ..._engine.gate import Gate
from ..._engine.several_names import next_release, released
from ..._messages import first_leaf
from .resolve import Resolver, cleaned
from .system import SystemLookup, SystemResolver

__all__ = ["Lookups", "wait_for_more"]


def _without_frames(error: OSError) -> OSError:
    # A report lives as long as its stream, and the frames of a traceback would live as long as the report.
    link: BaseException | None = error
    while link is not None and link.__traceback__ is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


@final
class Lookups:
    """The questions about one name, and their outcomes.

    Args:
      host: a name that `check_host` has passed; numeric hosts need no lookup.
      families: which to ask for, see `served_families`.
      resolver: the resolver to ask.
      resolution_delay: seconds, see `Gate`.
      ipv4_first: likewise.
      on_start: told about each question as it goes out: its kind and the time.
      on_end: told about each record as it is made.
      origin: the point in Trio time that every time in records and hooks counts from; by default that of creation.
      lot: where to wait for answers; names that are waited for together share one.

    The two hooks must not raise.
    """

    __slots__ = (
        "_addresses",
        "_found",
        "_lot",
        "_on_end",
        "_on_start",
        "_records",
        "_seen",
        "addresses",
        "crash",
        "families",
        "gate",
        "host",
        "origin",
    )

    def __init__(
        self,
        host: str,
        families: Iterable[AddressFamily],
        resolver: Resolver,
        *,
        resolution_delay: float,
        ipv4_first: bool = False,
        on_start: Callable[[LookupKind, float], None] | None = None,
        on_end: Callable[[Lookup], None] | None = None,
        origin: float | None = None,
        lot: ParkingLot | None = None,
    ) -> None:
        self.host = host
        self.families = tuple(families)
        # The families have more in common than an answer: see `system`.
        self._addresses: Callable[[AddressFamily], Awaitable[Answer]] = (
            SystemLookup(resolver, host).addresses
            if isinstance(resolver, SystemResolver)
            else partial(resolver.addresses, host)
        )
        self.gate = Gate(resolution_delay, ipv4_first=ipv4_first)
        self.origin = trio.current_time() if origin is None else origin
        self._on_start = on_start
        self._on_end = on_end
        self._records: dict[LookupKind, Lookup] = {}
        self.crash: Exception | None = None
        """What a lookup raised that is not an `OSError`: it ends the whole call."""
        self._found: dict[AddressFamily, tuple[str, ...]] = {}
        self.addresses: tuple[str, ...] = ()
        """Every address known by now, in the order the families were asked for."""
        self._seen = 0
        self._lot = ParkingLot() if lot is None else lot  # an empty one is false

    @property
    def records(self) -> tuple[Lookup, ...]:
        """The lookups that have ended, in the order they were asked; once the nursery is closed, all of them."""
        return tuple(
            self._records[kind] for family in self.families if (kind := KIND_OF_FAMILY[family]) in self._records
        )

    def start(self, nursery: trio.Nursery) -> None:
        """Send every question out in this instant, none waiting for another (RFC 8305 section 3)."""
        for family in self.families:
            self.gate.asked(KIND_OF_FAMILY[family])
        if self.families:
            nursery.start_soon(self._ask, nursery, 0, name=f"lookup of {self.host}")

    async def more(self) -> bool:
        """Wait until there are addresses that no earlier call has reported, and connecting may begin.

        Returns:
          False when no further address will come: after the last answer, or at once when nothing was asked.

        Raises:
          Exception: a lookup raised something that is not an `OSError`, or a resolver did not return an answer.
        """
        found = await wait_for_more((self,), self._lot, self._seen)
        if found is None:
            return False
        self._seen = found
        return True

    def know(self, address: str) -> None:
        """Take a numeric host as its own answer. Nothing is asked, so `families` have to be none."""
        kind: LookupKind = "AAAA" if ":" in address else "A"
        self.gate.asked(kind)
        self.gate.answered(kind, (address,), self.origin)
        self.addresses = (address,)

    async def _ask(self, nursery: trio.Nursery, index: int) -> None:
        # Trio runs the tasks of one pass in any order. So each question's task sends the next one out, in the pass
        # after its own and still in this instant: RFC 8305 section 3 wants AAAA sent before A.
        if index + 1 < len(self.families):
            nursery.start_soon(self._ask, nursery, index + 1, name=f"lookup of {self.host}")
        family = self.families[index]
        kind = KIND_OF_FAMILY[family]
        started = trio.current_time()
        if self._on_start is not None:
            self._on_start(kind, started - self.origin)
        answer: Answer | None = None
        error: OSError | None = None
        try:
            answer = cleaned(await self._addresses(family), family)
        except OSError as exc:
            error = _without_frames(exc)
        except ExceptionGroup as exc:
            # A resolver that asks several servers from a nursery raises a group: of nothing but such errors it is one.
            leaf = first_leaf(exc)
            if isinstance(leaf, OSError) and exc.split(OSError)[1] is None:
                error = _without_frames(leaf)
            else:
                self.crash = exc
        except trio.Cancelled:
            self.gate.cancel()
            raise
        except Exception as exc:  # noqa: BLE001 - raised again by more(), outside of the nursery's group
            self.crash = exc
        finally:
            now = trio.current_time()
            record = Lookup(
                host=self.host,
                kind=kind,
                started=started - self.origin,
                ended=now - self.origin,
                answer=answer,
                error=error,
            )
            self._records[kind] = record
            if self._on_end is not None:
                self._on_end(record)
            if answer is not None:
                self._found[family] = answer.addresses
                self.addresses = tuple(chain.from_iterable(self._found.get(each, ()) for each in self.families))
                self.gate.answered(kind, answer.addresses, now)
            elif error is not None:
                self.gate.failed(kind, now)
            self._lot.unpark_all()


async def wait_for_more(names: Sequence[Lookups], lot: ParkingLot, seen: int) -> int | None:
    """Wait until there are more addresses of names that are released, see `several_names`.

    Args:
      names: in the order of their addresses.
      lot: theirs.
      seen: how many addresses the last such call has said.

    Returns:
      How many addresses the released names have now; None when no further one will come: after the last answer, or at
      once when nothing was asked.

    Raises:
      Exception: see `Lookups.more`.
    """
    await checkpoint_if_cancelled()
    gates = [each.gate for each in names]
    while True:
        for each in names:
            if each.crash is not None:
                raise each.crash
        count = released(gates, trio.current_time())
        if sum(len(each.addresses) for each in names[:count]) > seen:
            # Answers of this pass belong to the same instant, and are sorted together.
            await cancel_shielded_checkpoint()
            count = released(gates, trio.current_time())
            return sum(len(each.addresses) for each in names[:count])
        if all(not gate.pending or gate.state == "cancelled" for gate in gates):
            await cancel_shielded_checkpoint()
            return None
        await _next_fact(lot, next_release(gates, count))
        now = trio.current_time()
        for gate in gates:
            gate.tick(now)


async def _next_fact(lot: ParkingLot, deadline: float) -> None:
    if deadline == inf:
        await lot.park()
        return
    with trio.CancelScope(deadline=deadline):
        await lot.park()
        return
    # Both this scope's expiry and an answer may be due in one pass of the loop. One more pass lets the answer be
    # told first: ready beats expired, and which task the loop happened to run first must not decide.
    await checkpoint()
