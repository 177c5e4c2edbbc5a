"""The lookups of one host: they run side by side, their answers go to the gate, and the report gets their records.

The caller opens the nursery, waits for the gate and then for later answers::

    lookups = Lookups("example.org", served_families(sources), SYSTEM_RESOLVER, resolution_delay=0.050)
    async with trio.open_nursery() as nursery:
        lookups.start(nursery)
        while await lookups.more():
            ...  # order everything in lookups.found again; the first endpoint that is not started goes next
        nursery.cancel_scope.cancel()
    lookups.records  # one for each question, also after a cancel

With a resolver that offers services the host's service records are asked for too, and then the addresses of the hosts
that these name, see `_engine.services`.

The lookups are the nursery's children, so they end with it. What they raise is not: an `OSError` belongs to its
lookup, any other exception comes out of `Lookups.more`, as itself and in no group.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from math import inf
from random import Random
from socket import AF_INET, AF_INET6, AddressFamily
from typing import Final, TypeAlias, final

import attrs
import trio
from trio.lowlevel import (
    ParkingLot,
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    disable_ki_protection,
)

from ..._answer import FAMILY_OF_KIND, KIND_OF_FAMILY, Answer, Lookup, LookupKind, ServiceRecord
from ..._engine.gate import AUTHORITY, Gate
from ..._engine.services import Place, Services
from ..._engine.several_names import next_release, released
from ..resolver import failure_in, without_frames
from .resolve import AnswersNow, Resolver, as_service_resolver, as_stale_resolver, cleaned, cleaned_services
from .system import SystemLookup, SystemResolver

__all__ = ["Found", "Lookups", "wait_for_more"]

_Question: TypeAlias = tuple[str, LookupKind]
"""About whom, the host being "", and what."""

_NO_SERVICES: Final = (Place(AUTHORITY),)
_RANDOM: Final = Random()  # noqa: S311 - it spreads clients over servers of one priority


async def _nothing() -> None:
    pass


@attrs.frozen
class Found:
    """Addresses of one service."""

    addresses: tuple[str, ...]
    port: int | None
    """Where it is; None for the port of the authority."""


@attrs.define
class _Outcome:
    """What came of one question. Without anything it was cancelled."""

    ended: float
    answer: Answer | None = None
    services: tuple[ServiceRecord, ...] | None = None
    error: OSError | None = None


@final
class Lookups:
    """The questions about one host, and their outcomes.

    Args:
      host: a name that `check_host` has passed; numeric hosts need no lookup.
      families: which to ask for, see `served_families`.
      resolver: the resolver to ask.
      resolution_delay: seconds, see `Gate`.
      port: of the authority, where services are to be asked for if the resolver offers that.
      ipv4_first: likewise.
      on_start: told about each question as it goes out: whom it is about, its kind and the time.
      on_end: told about each record as it is made.
      origin: the point in Trio time that every time in records and hooks counts from; by default that of creation.
      lot: where to wait for answers; names that are waited for together share one.
      then: run by the task of each lookup, at its end.

    The two hooks must not raise.
    """

    __slots__ = (
        "_asked", "_lot", "_of_services", "_on_end", "_on_start", "_outcomes", "_port", "_records", "_resolver",
        "_seen", "_services", "_stale", "_system", "_then",
        "changes", "crash", "families", "found", "gate", "host", "origin",
    )  # fmt: skip

    def __init__(
        self,
        host: str,
        families: Iterable[AddressFamily],
        resolver: Resolver,
        *,
        resolution_delay: float,
        port: int = 0,
        ipv4_first: bool = False,
        on_start: Callable[[str, LookupKind, float], None] | None = None,
        on_end: Callable[[Lookup], None] | None = None,
        origin: float | None = None,
        lot: ParkingLot | None = None,
        then: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.host = host
        self.families = tuple(families)
        self._resolver = resolver
        # The families have more in common than an answer: see `system`.
        self._system = SystemLookup(resolver, host) if isinstance(resolver, SystemResolver) else None
        self._port = port
        self._of_services = as_service_resolver(resolver) if port else None
        self._services = None if self._of_services is None else Services(host, _RANDOM)
        self._stale = as_stale_resolver(resolver)
        self.gate = Gate(resolution_delay, ipv4_first=ipv4_first)
        self.origin = trio.current_time() if origin is None else origin
        self._on_start = on_start
        self._on_end = on_end
        self._then = then
        self._asked: dict[_Question, float] = {}
        self._outcomes: dict[_Question, _Outcome] = {}
        self._records: dict[_Question, Lookup] = {}
        self.crash: Exception | None = None
        """What a lookup raised that is not an `OSError`: it ends the whole call."""
        self.found: tuple[Found, ...] = ()
        """Every address known by now, by service in the order to try them in; of each the families as asked for."""
        self.changes = 0
        """How often `found` has changed."""
        self._seen = 0
        self._lot = ParkingLot() if lot is None else lot  # an empty one is false

    @property
    def resolver_installed(self) -> bool | None:
        """Whether this run has a hostname resolver; None where that has not been asked."""
        return None if self._system is None else self._system.custom is not None

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address known by now."""
        return tuple(dict.fromkeys(chain.from_iterable(each.addresses for each in self.found)))

    @property
    def records(self) -> tuple[Lookup, ...]:
        """The lookups that have ended, in the order they were asked; once the nursery is closed, all of them."""
        return tuple(self._record_of(question) for question in self._asked if question in self._outcomes)

    def start(self, nursery: trio.Nursery) -> None:
        """Send every question out in this instant, none waiting for another (RFC 8305 section 3)."""
        self._send(nursery, self._first_questions())

    def start_but_one(self, nursery: trio.Nursery) -> Callable[[], Awaitable[None]]:
        """Send every question out but the first, which the caller's own task asks: that spares a task.

        The caller is in the block of that nursery, so scopes and nurseries that a resolver opens end before that one
        does.

        Rejected: to ask both in this task, a step of each in turn. Each would find the scopes of the other around its
        own, and nobody can see from outside whether a coroutine that has yielded has opened any.

        Returns:
          What asks the first question, to be awaited in this instant.
        """
        questions = self._first_questions()
        return partial(self._ask, nursery, self._send(nursery, questions, but_one=True)) if questions else _nothing

    def _first_questions(self) -> list[_Question]:
        questions: list[_Question] = [] if self._services is None or not self.families else [(AUTHORITY, "HTTPS")]
        for family in self.families:
            questions.append((AUTHORITY, KIND_OF_FAMILY[family]))  # noqa: PERF401 - a frame less
        return questions

    async def more(self) -> bool:
        """Wait until `found` has changed since the last call, and connecting may begin.

        Returns:
          False when nothing will change any more: after the last answer, or at once when nothing was asked.

        Raises:
          Exception: a lookup raised something that is not an `OSError`, or a resolver did not return an answer.
        """
        found = await wait_for_more((self,), self._lot, self._seen)
        if found is None:
            return False
        self._seen = found
        return True

    def detach(self) -> None:
        """Let go of what the task of each lookup was to run at its end; all have ended."""
        self._then = None

    def know(self, address: str) -> None:
        """Take a numeric host as its own answer. Nothing is asked, so `families` has to be empty."""
        kind: LookupKind = "AAAA" if ":" in address else "A"
        self.gate.asked(kind)
        self.gate.answered(kind, (address,), self.origin)
        self._look()

    def _address_questions(self, name: str) -> list[_Question]:
        questions: list[_Question] = [(name, KIND_OF_FAMILY[family]) for family in self.families]
        return [(host, kind) for host, kind in questions if not self.gate.is_asked(kind, host)]

    def _send(
        self, nursery: trio.Nursery, questions: Sequence[_Question], *, but_one: bool = False
    ) -> Iterator[_Question]:
        now = trio.current_time()
        for name, kind in questions:
            self.gate.asked(kind, name)
            if kind != "HTTPS" and self._stale is not None:
                family = FAMILY_OF_KIND[kind]
                old = self._stale.stale(name or self.host, family)
                if old is not None:
                    self.gate.hinted(kind, cleaned(old, family).addresses, now, name)
        # Trio runs the tasks of one pass in any order. The first that runs takes the first question: RFC 8305 section 3
        # wants AAAA sent before A.
        queue = iter(questions)
        for _ in questions[but_one:]:
            nursery.start_soon(self._ask, nursery, queue, name=f"lookup of {self.host}")
        if self._stale is not None:
            self._look()
        return queue

    def _look(self) -> None:
        """See what is found by now."""
        places = _NO_SERVICES if self._services is None else self._services.places
        found: list[Found] = []
        for place in places:
            addresses = self.gate.addresses_of(place.name)
            if addresses:
                found.append(Found(addresses, place.port))
        if tuple(found) != self.found:
            self.found = tuple(found)
            self.changes += 1

    async def _ask(self, nursery: trio.Nursery, queue: Iterator[_Question]) -> None:
        name, kind = question = next(queue)
        host = name or self.host
        started = self._asked[question] = trio.current_time()
        if self._on_start is not None:
            self._on_start(host, kind, started - self.origin)
        answer: Answer | None = None
        services: tuple[ServiceRecord, ...] | None = None
        error: OSError | None = None
        try:
            if kind == "HTTPS":
                services = await self._find_services(name, host)
            else:
                answer = await self._find_addresses(name, host, FAMILY_OF_KIND[kind])
        except OSError as exc:
            error = without_frames(exc)
        except BaseExceptionGroup as exc:
            error = failure_in(exc)
            cancelled, rest = exc.split(trio.Cancelled)
            if error is None and isinstance(exc, ExceptionGroup):
                self.crash = exc
            elif error is None and rest is not None:
                raise
            if cancelled is not None:
                self.gate.cancel()
                try:
                    raise cancelled from None
                finally:
                    del cancelled, rest  # its traceback holds this frame
        except trio.Cancelled:
            self.gate.cancel()
            raise
        except Exception as exc:  # noqa: BLE001 - raised again by more(), outside of the nursery's group
            self.crash = exc
        finally:
            now = trio.current_time()
            self._end(question, _Outcome(now, answer, services, error))
            if answer is not None:
                self.gate.answered(kind, answer.addresses, now, name)
            elif services is not None:
                self._serve(nursery, services, now, name)
            elif error is not None:
                self.gate.failed(kind, now, name)
            self._look()
            if self._lot:
                self._lot.unpark_all()
        if self._then is not None:
            await self._then()

    def _end(self, question: _Question, outcome: _Outcome) -> None:
        if question in self._outcomes:
            return  # given up
        self._outcomes[question] = outcome
        if self._on_end is not None:
            self._on_end(self._record_of(question))

    def _record_of(self, question: _Question) -> Lookup:
        # Made when somebody looks: most reports are never read.
        if question not in self._records:
            outcome = self._outcomes[question]
            self._records[question] = Lookup(
                host=question[0] or self.host,
                kind=question[1],
                started=self._asked[question] - self.origin,
                ended=outcome.ended - self.origin,
                answer=outcome.answer,
                records=outcome.services,
                error=outcome.error,
            )
        return self._records[question]

    def give_up(self) -> None:
        """Record what is pending as cancelled: nobody waits for it any more."""
        now = trio.current_time()
        for question in self._asked:
            self._end(question, _Outcome(now))
        self.gate.cancel()

    def answer_now(self) -> bool:
        """Take the answers of a resolver that needs nobody for them. Where it has none, nothing has happened.

        Returns:
          Whether every question has its answer.
        """
        answers: Mapping[AddressFamily, Answer] | None = None
        if self._system is not None:
            answers = self._system.answers_now()
        elif self._of_services is None and isinstance(self._resolver, AnswersNow):
            answers = self._resolver._answers_now(self.host)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        if answers is None:
            return not self.families
        now = trio.current_time()
        for family in self.families:
            self.gate.asked(KIND_OF_FAMILY[family])
        for family in self.families:
            question = AUTHORITY, KIND_OF_FAMILY[family]
            self._asked[question] = now
            self._end(question, _Outcome(now, answers[family]))
            self.gate.answered(question[1], answers[family].addresses, now)
        self._look()
        return True

    # The task that asks may be that of a call which is protected. What the caller gave us to call is not.
    @disable_ki_protection
    async def _find_addresses(self, name: str, host: str, family: AddressFamily) -> Answer:
        if self._system is not None and name == AUTHORITY:
            return await self._system.addresses(family)  # cleaned
        return cleaned(await self._resolver.addresses(host, family), family)

    @disable_ki_protection
    async def _find_services(self, name: str, host: str) -> tuple[ServiceRecord, ...]:
        resolver = self._of_services
        assert resolver is not None
        # RFC 9460 section 3: the target of an alias is asked for as it is, whatever the port of the authority.
        return cleaned_services(await resolver.services(host, self._port if name == AUTHORITY else 0))

    def _serve(self, nursery: trio.Nursery, records: Sequence[ServiceRecord], now: float, name: str) -> None:
        """Ask what service records lead to, and tell the gate."""
        assert self._services is not None
        if self.gate.state == "cancelled":
            return
        follow = self._services.answered(records)
        questions: list[_Question] = [] if follow.alias is None else [(follow.alias, "HTTPS")]
        for target in follow.names:
            questions += self._address_questions(target)
        self._send(nursery, questions)
        for target, record in follow.hints:
            for family, hints in ((AF_INET6, record.ipv6hint), (AF_INET, record.ipv4hint)):
                if family in self.families:
                    self.gate.hinted(KIND_OF_FAMILY[family], hints, now, target)
        self.gate.served(() if follow.alias is not None else follow.names, now, name)


async def wait_for_more(names: Sequence[Lookups], lot: ParkingLot, seen: int) -> int | None:
    """Wait until there are other addresses of names that are released, see `several_names`.

    Args:
      names: in the order of their addresses.
      lot: theirs.
      seen: what the last such call has said.

    Returns:
      How many changes the addresses of the released names have gone through; None when no further one will come: after
      the last answer, or at once when nothing was asked.

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
        if sum(each.changes for each in names[:count]) > seen:
            # Answers of this pass belong to the same instant, and are sorted together.
            await cancel_shielded_checkpoint()
            count = released(gates, trio.current_time())
            return sum(each.changes for each in names[:count])
        if all(not gate.is_pending or gate.state == "cancelled" for gate in gates):
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
