"""Service records (SVCB and HTTPS, RFC 9460): which are usable, what is to be asked next, and in which order.

A program that asks for the services of an authority learns of *endpoints*: a host, the target, and perhaps a port. The
authority's own addresses and port are the last endpoint (RFC 9460 section 3), for when no record is usable, or none of
them leads to a connection.

An alias (priority 0) is not an endpoint. It says that the services are to be asked of another name. After the last
alias its name stands for the authority, at the authority's port. At most `MOST_ALIASES` are followed. A longer chain,
or one that is a circle, is as good as no answer. An alias to "." says nothing.

The endpoints are grouped and the groups are tried one after the other, as happy-eyeballs v3 has it:

- Level 1: by the protocols that an endpoint speaks. The group with the best priority goes first. Other parameters are
  no reason for a group.
- Level 2: by priority, lowest first. Records of one priority are in random order (RFC 9460 section 2.4.1).

Rejected: the client's preference between protocols before the priorities. Happy-eyeballs v3 leaves the order of the
level 1 groups to the client, but RFC 9460 says of priorities that clients try in their order, and only the owner of
the zone knows that one of its hosts is meant as a spare.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, final

import attrs

from .._answer import ServiceRecord
from .race import MAX_RACED

if TYPE_CHECKING:
    from random import Random

__all__ = [
    "MOST_ALIASES", "MOST_RECORDS", "FollowUp", "Place", "Services", "best", "grouped", "usable", "with_protocols",
]  # fmt: skip

MOST_ALIASES: Final = 8
"""RFC 9460 section 2.4.2: "at least eight" aliases may be in a chain, and clients bound the length."""

MOST_RECORDS: Final = 16
"""How many records are used. Each may lead to two more questions, and how many there are is the zone owner's choice."""

_UNDERSTOOD: Final = frozenset({"alpn", "no-default-alpn", "port", "ipv4hint", "ipv6hint"})


def best(records: Iterable[ServiceRecord]) -> tuple[ServiceRecord, ...]:
    """Return the records of the best priorities, no more than can be used: what is kept of an answer.

    The lists inside them are bounded for all of them together. One record has room for 16,000 hints.
    """
    kept: list[ServiceRecord] = []
    protocols = v4 = v6 = MAX_RACED
    for record in sorted(records, key=lambda record: record.priority)[:MOST_RECORDS]:
        short = attrs.evolve(
            record,
            alpn=record.alpn[:protocols],
            ipv4hint=record.ipv4hint[:v4],
            ipv6hint=record.ipv6hint[:v6],
            # A key is there once. So one of those that are left is not understood either, and the record not usable.
            mandatory=record.mandatory[: len(_UNDERSTOOD) + 1],
        )
        kept.append(short)
        protocols -= len(short.alpn)
        v4 -= len(short.ipv4hint)
        v6 -= len(short.ipv6hint)
    return tuple(kept)


def usable(records: Iterable[ServiceRecord]) -> tuple[ServiceRecord, ...]:
    """Return the records without those that demand more than is understood here (RFC 9460 section 8)."""
    return tuple(record for record in records if _UNDERSTOOD.issuperset(record.mandatory) and record.port != 0)


def with_protocols(records: Iterable[ServiceRecord], alpn: Sequence[str]) -> tuple[ServiceRecord, ...]:
    """Return the records that speak one of the caller's protocols, without the others' names; aliases as they are.

    Args:
      records: with what each of them speaks.
      alpn: what the caller speaks.
    """
    common = (
        record if record.priority == 0 else attrs.evolve(record, alpn=[each for each in alpn if each in record.alpn])
        for record in records
    )
    return tuple(record for record in common if record.priority == 0 or record.alpn)


def grouped(records: Sequence[ServiceRecord], random: Random) -> tuple[ServiceRecord, ...]:
    """Return the records in the order in which their addresses are tried, group after group.

    Args:
      records: without aliases.
      random: for the order of those that are equal.
    """
    shuffled = random.sample(records, len(records))
    best: dict[frozenset[str], int] = {}
    for record in shuffled:
        protocols = frozenset(record.alpn)
        best[protocols] = min(record.priority, best.get(protocols, record.priority))
    ranks = {protocols: rank for rank, protocols in enumerate(sorted(best, key=best.__getitem__))}
    return tuple(sorted(shuffled, key=lambda record: (ranks[frozenset(record.alpn)], record.priority)))


@attrs.frozen
class Place:
    """Where a service is: a host, "" being the authority, and its port if that is another one."""

    name: str
    port: int | None = None


@attrs.frozen
class FollowUp:
    """What an answer leads to."""

    alias: str | None = None
    """The name whose services are to be asked for."""
    names: tuple[str, ...] = ()
    """The names whose addresses are needed, of the alias or the services, each once; "" is the authority."""
    hints: tuple[tuple[str, ServiceRecord], ...] = ()
    """The records with address hints, and the host that they are about."""


@final
class Services:
    """What is known of the services of one authority.

    Args:
      host: the authority.
      random: for the order of what is equal.
    """

    __slots__ = ("_aliases", "_host", "_places", "_random")

    def __init__(self, host: str, random: Random) -> None:
        self._host = _canonical(host)
        self._random = random
        self._aliases: list[str] = []
        self._places: tuple[Place, ...] = ()

    @property
    def places(self) -> tuple[Place, ...]:
        """Where the service is, in the order to try: the records', then the last alias, then the authority itself."""
        last = [Place(name) for name in self._aliases[-1:]]
        return tuple(dict.fromkeys((*self._places, *last, Place(""))))

    def answered(self, records: Iterable[ServiceRecord]) -> FollowUp:
        """Learn the records of the authority, or of the last alias.

        Returns:
          What is to be asked next.
        """
        records = tuple(records)
        asked = self._aliases[-1] if self._aliases else ""
        aliases = [record for record in records if record.priority == 0]
        if aliases:
            # RFC 9460 section 2.4.1: beside an alias other records are ignored; of several aliases one is taken.
            return self._follow(self._random.choice(aliases))
        services = grouped(usable(records), self._random)[:MOST_RECORDS]
        targets = [asked if record.target == "." else self._name(record.target) for record in services]
        self._places = tuple(Place(name, record.port) for name, record in zip(targets, services, strict=True))
        return FollowUp(names=tuple(dict.fromkeys(targets)), hints=tuple(zip(targets, services, strict=True)))

    def _follow(self, record: ServiceRecord) -> FollowUp:
        if record.target == ".":
            return FollowUp()
        name = self._name(record.target)
        if not name or name in self._aliases or len(self._aliases) == MOST_ALIASES:
            self._aliases.clear()
            return FollowUp()
        self._aliases.append(name)
        return FollowUp(alias=name, names=(name,))

    def _name(self, target: str) -> str:
        """Return what a target is called here; one that closes with a dot keeps it, for it is complete."""
        return "" if _canonical(target) == self._host else target.lower()


def _canonical(name: str) -> str:
    return name.lower().removesuffix(".")
