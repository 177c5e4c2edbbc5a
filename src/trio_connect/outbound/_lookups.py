"""Where the addresses of a destination come from: lookups that waiting calls share, and whose answers are kept.

`Lookups` asks a resolver. Calls that ask the same at one time share one question. It runs as a task of the outbound's
nursery, so the cancel of one call does not take the answer from the others. When the last call has gone it is
cancelled. Answers are kept for their ttl, within the policy's bounds. When the resolver cannot find out, an expired
answer is used (RFC 8767): a broken name server is no reason to stop sending to a peer.

A `Finder` makes candidates of answers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from inspect import isawaitable
from itertools import islice
from math import inf
from socket import AF_INET, AF_INET6, AddressFamily
from typing import Any, TypeAlias, final

import attrs
import trio
from trio import current_time

from .. import (
    Answer,
    MailRecord,
    MailResolver,
    ResolveFailed,
    Resolver,
    SrvRecord,
    SrvResolver,
    SystemResolver,
    resolve,
)
from .._endpoint import Endpoint, EndpointLike
from .._engine.plan import Host
from .._engine.race import MAX_RACED
from .._lookup_text import nothing_for
from .._net.names.resolve import check_host, numeric
from .._net.resolver import failure_in
from .._outbound_values import Candidate, OutboundPolicy
from .._text import shown

__all__ = ["CandidateSource", "Finder", "Found", "Lookups", "Rejected"]

UNKNOWN_TTL = 30.0
"""How long an answer of unknown ttl is kept, in seconds. gRPC's clients wait as long between two lookups
("min_time_between_resolutions")."""

_MOST_TOLD = 4
"""How many hosts without an address a text names: a zone may have a great many."""

_LEFT = "the block of open_outbound has been left: nothing can be looked up any more"

CandidateSource: TypeAlias = Callable[[], Awaitable[Iterable[Candidate | EndpointLike]]]
"""The caller's own async function that finds the candidates of a destination."""


class Rejected(Exception):
    """The DNS says that the destination takes nothing, or that it does not exist."""


@attrs.frozen
class Found:
    """The addresses of a destination, as the last lookup found them."""

    hosts: tuple[Host, ...]
    group: str | None
    """The route group, where it follows from the answer; else None."""
    expires: float
    names: Mapping[Endpoint, str] = attrs.Factory(dict[Endpoint, str])
    """The host whose address each is, for those that were looked up."""
    without_address: tuple[str, ...] = ()
    """What is to be said of each host that was looked up beside others and left out."""


Finder: TypeAlias = Callable[[], Awaitable[Found]]


class _Flight:
    """A question that is under way, and the calls that wait for it."""

    __slots__ = ("done", "error", "scope", "value", "waiting")

    def __init__(self) -> None:
        self.done = trio.Event()
        # A cancel from outside ends whoever waits, and the last one this. Who cleans up behind a shield may wait on.
        self.scope = trio.CancelScope(shield=True)
        self.waiting = 0
        self.value: Any = None
        self.error: BaseException | None = None


@final
class Lookups:
    """A resolver that asks another one, and keeps its answers. Equal questions at one time are asked once.

    Args:
      resolver: the one to ask; None for the system's.
      policy: how long answers are kept.
      nursery: where questions run.
    """

    def __init__(self, resolver: Resolver | None, policy: OutboundPolicy, nursery: trio.Nursery) -> None:
        self.resolver = SystemResolver() if resolver is None else resolver
        self._policy = policy
        self._nursery = nursery
        self._answers: dict[Hashable, tuple[Any, float]] = {}
        self._flights: dict[Hashable, _Flight] = {}
        self._is_left = False

    def leave(self) -> None:
        """End all questions, for the block is left, and ask no more."""
        self._is_left = True
        for flight in self._flights.values():
            flight.scope.cancel("the outbound is closed")

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        """Return the addresses of one family, see `Resolver`."""
        answer: Answer = await self._ask(
            (family, host), lambda: self.resolver.addresses(host, family), lambda answer: answer.ttl
        )
        return answer

    async def mx(self, domain: str, /) -> Sequence[MailRecord]:
        """Return the mail hosts of a domain, see `MailResolver`."""
        resolver = self.resolver
        assert isinstance(resolver, MailResolver), "looked at when the destination was made"
        records: Sequence[MailRecord] = await self._ask(("mx", domain), lambda: resolver.mx(domain), _least_ttl)
        return records

    async def srv(self, name: str, /) -> Sequence[SrvRecord]:
        """Return the hosts of a service, see `SrvResolver`."""
        resolver = self.resolver
        assert isinstance(resolver, SrvResolver), "looked at when the destination was made"
        records: Sequence[SrvRecord] = await self._ask(("srv", name), lambda: resolver.srv(name), _least_ttl)
        return records

    async def candidates(self, key: Hashable, find: CandidateSource) -> tuple[Host, ...]:
        """Return what the caller's own function finds, asked and kept like an answer of unknown ttl."""

        async def question() -> tuple[Host, ...]:
            coming: object = find()
            if not isawaitable(coming):
                raise TypeError(f"candidates must be an async function, got {shown(find)}, which is not async")
            hosts = _hosts(await coming)
            if not hosts:
                raise OSError("the function that finds candidates found none")
            return hosts

        hosts: tuple[Host, ...] = await self._ask(key, question, lambda _hosts: None)
        return hosts

    def expiry(self, *keys: Hashable) -> float:
        """Return when the first of these answers expires. An expired one that is still used is asked for again soon."""
        soon = current_time() + self._policy.min_dns_ttl
        return max(soon, min((self._answers[key][1] for key in keys if key in self._answers), default=soon))

    async def _ask(
        self, key: Hashable, question: Callable[[], Awaitable[Any]], ttl: Callable[[Any], float | None]
    ) -> Any:
        known = self._answers.get(key)
        if known is not None and current_time() < known[1]:
            return known[0]
        flight = self._flights.get(key)
        if flight is None:
            if self._is_left:
                raise RuntimeError(_LEFT)
            flight = _Flight()
            self._nursery.start_soon(self._fly, key, flight, question, ttl)
            self._flights[key] = flight
        flight.waiting += 1
        try:
            await flight.done.wait()
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.done.is_set():
                # The next call asks anew.
                self._flights.pop(key)
                flight.scope.cancel()
        if flight.error is None:
            return flight.value
        known = self._answers.get(key)
        if isinstance(flight.error, OSError) and known and current_time() < known[1] + self._policy.stale_dns:
            return known[0]
        raise flight.error

    async def _fly(
        self,
        key: Hashable,
        flight: _Flight,
        question: Callable[[], Awaitable[Any]],
        ttl: Callable[[Any], float | None],
    ) -> None:
        with flight.scope:
            try:
                flight.value = await question()
                seconds = ttl(flight.value)
                kept = UNKNOWN_TTL if seconds is None else seconds
                kept = min(max(kept, self._policy.min_dns_ttl), self._policy.max_dns_ttl)
                self._remember(key, flight.value, current_time() + kept)
            except BaseExceptionGroup as exc:
                failure, cancelled = failure_in(exc), exc.split(trio.Cancelled)[0]
                flight.error = failure or exc
                if not isinstance(exc, ExceptionGroup):
                    flight.error = RuntimeError(_LEFT)
                    # What the resolver says of its end must not end the outbound.
                    raise (exc if failure is None or cancelled is None else cancelled) from None
            except Exception as exc:  # noqa: BLE001 - raised by whoever waits, as itself
                flight.error = exc
            except BaseException:
                # A call that waits in another nursery would wait for ever.
                flight.error = RuntimeError(_LEFT)
                raise
            finally:
                # The last waiting call may have gone in the tick of the answer, and another flight may have begun.
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.done.set()

    def _remember(self, key: Hashable, value: Any, expires: float) -> None:
        """Keep an answer, and drop those of the two oldest that cannot be used any more."""
        self._answers.pop(key, None)
        self._answers[key] = (value, expires)
        for old in [*islice(self._answers, 2)]:
            entry = self._answers.pop(old)
            if current_time() < entry[1] + self._policy.stale_dns:
                self._answers[old] = entry


def _least_ttl(records: Sequence[MailRecord] | Sequence[SrvRecord]) -> float | None:
    ttls = [record.ttl for record in records if record.ttl is not None]
    return min(ttls) if ttls else None


# ---------------------------------------------------------------------- from answers to candidates


def static(candidates: Iterable[Candidate | EndpointLike]) -> Finder:
    """Return a finder of the candidates that the caller has listed."""
    found = Found(_hosts(candidates), None, inf)
    if not found.hosts:
        raise ValueError("candidates must not be empty: without any, a destination gives permits only")

    async def find() -> Found:
        return found

    return find


def own(lookups: Lookups, function: CandidateSource) -> Finder:
    """Return a finder that calls the caller's function. Its result is kept like an answer of unknown ttl."""
    key = ("own", object())

    async def find() -> Found:
        hosts = await lookups.candidates(key, function)
        return Found(hosts, None, lookups.expiry(key))

    return find


def by_name(lookups: Lookups, host: str, port: int) -> Finder:
    """Return a finder of the addresses of a name."""

    async def find() -> Found:
        candidates = await _addresses(lookups, host, port, 0)
        names = dict.fromkeys([each.endpoint for each in candidates], host) if numeric(host) is None else {}
        return Found((Host(0, 1, candidates),), None, lookups.expiry((AF_INET, host), (AF_INET6, host)), names)

    return find


def by_mx(lookups: Lookups, domain: str, port: int) -> Finder:
    """Return a finder of the mail hosts of a domain (RFC 5321 section 5.1).

    Each host may be two questions, and the owner of the zone chooses how many there are: the best `MAX_RACED` count.
    """

    async def find() -> Found:
        records = sorted(await lookups.mx(domain), key=lambda record: record.preference)
        names = [(each.preference, _complete(each.host)) for each in records if _is_host(each.host)][:MAX_RACED]
        if records and not names:
            raise Rejected("no host can be called what its MX records say")
        if [name for _, name in names] == ["."]:
            raise Rejected("the domain takes no mail (null MX, RFC 7505)")
        # RFC 5321 section 5.1: without MX records the domain itself is its mail host.
        # Beside other records "." is not a host.
        names = [(preference, name) for preference, name in names if name != "."] or [(0, domain.lower())]
        wanted = [(preference, 1, name, port) for preference, name in dict.fromkeys(names)]
        hosts, keys, of, left_out = await _all_addresses(lookups, wanted)
        group = "mx " + " ".join(sorted({name.removesuffix(".") for _, name in names}))
        return Found(hosts, group, lookups.expiry(("mx", domain), *keys), of, left_out)

    return find


def by_srv(lookups: Lookups, service: str) -> Finder:
    """Return a finder of the hosts of a service (RFC 2782); as many as of mail, see `by_mx`."""

    async def find() -> Found:
        records = sorted(await lookups.srv(service), key=lambda record: record.priority)
        wanted = [
            (record.priority, record.weight, _complete(record.target), record.port)
            for record in records
            if record.target != "." and record.port and _is_host(record.target)
        ][:MAX_RACED]
        if not wanted:
            is_told = any(record.target == "." for record in records)
            why = (
                " (SRV target '.', RFC 2782)"
                if is_told
                else " (no SRV record has a host and a port)"
                if records
                else ""
            )
            raise Rejected(f"the service is not offered there{why}")
        hosts, keys, of, left_out = await _all_addresses(lookups, wanted)
        return Found(hosts, None, lookups.expiry(("srv", service), *keys), of, left_out)

    return find


def _is_host(name: str) -> bool:
    """Say whether a record's name can be that of a host, or is the "." that stands for no host.

    The owner of the zone chooses it, and resolvers differ in what they leave out.
    """
    try:
        return name == "." or bool(check_host(name))
    except ValueError:
        return False


def _complete(name: str) -> str:
    """Return a name in a record, which is complete, so that no search list adds to it."""
    return name.lower().removesuffix(".") + "."


def _hosts(candidates: Iterable[Candidate | EndpointLike]) -> tuple[Host, ...]:
    given: object = candidates
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"candidates must be an iterable of Candidate or (host, port), got {shown(candidates)}")
    made = (each if isinstance(each, Candidate) else Candidate(each) for each in candidates)
    return tuple(Host.of(each) for each in {each.endpoint: each for each in made}.values())


async def _addresses(lookups: Lookups, host: str, port: int, priority: int) -> tuple[Candidate, ...]:
    """Return the addresses of a host, in the order of RFC 6724.

    Raises:
      Rejected: there is no such name.
      ResolveFailed: the lookup failed, or the host has no addresses.
    """
    try:
        endpoints = await resolve(host, port, resolver=lookups)
    except ResolveFailed as exc:
        answers = [lookup.answer for lookup in exc.report.lookups]
        if answers and all(answer is not None and not answer.name_exists for answer in answers):
            raise Rejected(f"there is no such name: {host.removesuffix('.')}") from exc
        raise
    return tuple(Candidate(endpoint, priority) for endpoint in endpoints)


async def _all_addresses(
    lookups: Lookups, wanted: Sequence[tuple[int, int, str, int]]
) -> tuple[tuple[Host, ...], list[Hashable], dict[Endpoint, str], tuple[str, ...]]:
    """Look hosts up side by side. A host whose lookup fails is left out, unless all fail.

    Returns:
      The hosts, what their answers are kept by, the name of each address, and a text for each host that is left out.
    """
    found: dict[int, Host] = {}
    failures: dict[int, Exception] = {}

    async def look_up(index: int, priority: int, weight: int, name: str, port: int) -> None:
        try:
            candidates = await _addresses(lookups, name, port, priority)
        except Exception as exc:  # noqa: BLE001 - looked at below, outside of the nursery that would wrap it
            failures[index] = exc
        else:
            found[index] = Host(priority, weight, candidates)

    async with trio.open_nursery() as nursery:
        for index, each in enumerate(wanted):
            nursery.start_soon(look_up, index, *each)
    for exc in failures.values():
        if not isinstance(exc, OSError | Rejected):
            raise exc
    if not found:
        # The destination is rejected only if no host exists: a lookup that failed proves nothing.
        raise next((exc for exc in failures.values() if isinstance(exc, OSError)), None) or failures[0]
    keys: list[Hashable] = [(family, name) for _, _, name, _ in wanted for family in (AF_INET, AF_INET6)]
    order = sorted(found, key=lambda index: found[index].priority)
    names: dict[Endpoint, str] = {}
    for index in order:
        for candidate in found[index].candidates:
            names.setdefault(candidate.endpoint, wanted[index][2].removesuffix("."))
    left_out = [_left_out(wanted[index][2], failures[index]) for index in sorted(failures)]
    beyond = [f"nor for {len(left_out) - _MOST_TOLD} more hosts"] if len(left_out) > _MOST_TOLD else []
    return _without_duplicates([found[index] for index in order]), keys, names, (*left_out[:_MOST_TOLD], *beyond)


def _left_out(host: str, failure: Exception) -> str:
    """Return what is to be said of a host that has no address here."""
    host = host.removesuffix(".")
    behind = failure.__cause__ if isinstance(failure, Rejected) else failure
    return nothing_for(host, behind.report.lookups) if isinstance(behind, ResolveFailed) else f"{host}: {behind}"


def _without_duplicates(hosts: Sequence[Host]) -> tuple[Host, ...]:
    """Keep an address that several names have for the first of them only."""
    seen: set[Endpoint] = set()
    kept: list[Host] = []
    for host in hosts:
        candidates = tuple(each for each in host.candidates if each.endpoint not in seen)
        seen.update(each.endpoint for each in candidates)
        if candidates:
            kept.append(attrs.evolve(host, candidates=candidates))
    return tuple(kept)
