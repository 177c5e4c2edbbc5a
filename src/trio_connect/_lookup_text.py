"""What the messages of errors say of lookups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._answer import Lookup
    from ._report import ConnectReport

__all__ = ["beside_attempts", "each_lookup", "nothing_for"]


def beside_attempts(report: ConnectReport) -> str:
    """Return what is to be said of lookups beside attempts that failed: they may have had the better address.

    These are the lookups that failed and, of several names, those for which nothing was found in all, or not in time,
    and those that no attempt was made for, because each of their addresses was taken for another name.

    Args:
      report: the finished report.
    """
    told = [
        f"the {lookup.kind} lookup of {printable(lookup.host)} failed: {_outcome(lookup)}"
        for lookup in report.lookups
        if lookup.error is not None
    ]
    by_host = _by_host(report)
    for host, lookups in by_host.items() if len(by_host) > 1 else ():
        asked = [lookup for lookup in lookups if lookup.kind in ("AAAA", "A")]
        if asked and all(lookup.answer is not None and not lookup.answer.addresses for lookup in asked):
            told.append(nothing_for(host, lookups))
        elif all(_outcome(lookup) == "cancelled" for lookup in lookups):
            told.append(f"the lookup of {printable(host)} did not end")
        elif others := _taken_for(host, asked, report):
            told.append(
                f"every address of {printable(host)} was taken for one of {' or '.join(map(printable, others))}"
            )
    return "; ".join(told)


def nothing_for(host: str, lookups: Sequence[Lookup]) -> str:
    """Return what is to be said of a host without an address beside others.

    Args:
      host: its name.
      lookups: those of this host alone.
    """
    return f"nothing was found for {printable(host)} ({_outcomes(lookups)})"


def each_lookup(report: ConnectReport) -> list[str]:
    """Return the outcome of each lookup in a few words; of several names, that of each name.

    Args:
      report: the finished report.
    """
    by_host = _by_host(report)
    if len(by_host) > 1:
        return [f"{printable(host)}: {_outcomes(lookups)}" for host, lookups in by_host.items()]
    return [f"{lookup.kind}: {_outcome(lookup)}" for lookup in report.lookups]


def _taken_for(host: str, lookups: Sequence[Lookup], report: ConnectReport) -> list[str]:
    """Return the other names for which the addresses of a name are in the report, if all are and none is for itself."""
    if any(attempt.host == host for attempt in report.attempts):
        return []
    owners = {attempt.endpoint.host: attempt.host for attempt in report.attempts if attempt.host is not None}
    answers = [lookup.answer for lookup in lookups]
    addresses = [address for answer in answers if answer is not None for address in answer.addresses]
    if None in answers or not owners.keys() >= set(addresses):
        return []
    return list(dict.fromkeys(owners[address] for address in addresses))


def _by_host(report: ConnectReport) -> dict[str, list[Lookup]]:
    by_host: dict[str, list[Lookup]] = {}
    for lookup in report.lookups:
        by_host.setdefault(lookup.host, []).append(lookup)
    return by_host


def _outcomes(lookups: Sequence[Lookup]) -> str:
    """Return the outcome of each lookup of one name, or of all of them where they agree."""
    outcomes = {lookup.kind: _outcome(lookup) for lookup in lookups}
    agreed = set(outcomes.values())
    return agreed.pop() if len(agreed) == 1 else ", ".join(f"{kind}: {outcome}" for kind, outcome in outcomes.items())


def _outcome(lookup: Lookup) -> str:
    if lookup.error is not None:
        return printable(str(lookup.error))
    if lookup.records is not None:
        from ._answer import SrvRecord  # a connect to an endpoint, which knows no lookups, does without these classes

        if any(isinstance(record, SrvRecord) and record.target == "." for record in lookup.records):
            return "not offered there (target '.', RFC 2782)"
        return "found" if lookup.records else "no record"
    if lookup.answer is None:
        return "cancelled"
    return "no such name" if not lookup.answer.name_exists else "no address" if not lookup.answer.addresses else "found"
