"""The verdict on a report in words, and what follows from it. Pure: a report in, text out.

Each family is judged by itself, because a client that takes the first address, or prefers a family, meets one of them
alone. What a race has cut short is never called silent: it had not answered *when another had*.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from socket import AF_INET, AF_INET6
from typing import Final, Literal, TypeAlias

import attrs

from trio_connect import Attempt, ConnectReport, Lookup

from .words import in_words

Kind: TypeAlias = Literal[
    "works", "silent", "slower", "refused", "unreachable", "mute", "tls", "local", "failed", "skipped", "idle"
]
"""What became of an address: "mute" accepts and then says nothing, "slower" lost a race, "idle" was not tried."""

_SLOW: Final = 1.0
"""Seconds after which an answer is called slow: the first SYN is sent again after one (RFC 6298 section 2.1)."""

_RESOLUTION_DELAY: Final = 0.05
"""Seconds after which clients begin without the other family's answer (RFC 8305 section 3)."""

_FAMILIES: Final = {AF_INET6: "IPv6", AF_INET: "IPv4"}

_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})


@attrs.frozen
class Verdict:
    """What was found, and what follows from it for whoever has to act."""

    finding: str
    advice: str

    def __str__(self) -> str:
        return f"{self.finding}: {self.advice}"


@attrs.frozen
class _Judgement:
    kind: Kind
    one: str
    several: str


def judge(report: ConnectReport, *, port: int, tls: bool = False, interrupted: bool = False) -> Verdict:
    """Return the verdict on a report.

    Args:
      report: of a race, or of addresses that were tried by themselves.
      port: of the target, for the advice.
      tls: whether the establish was a TLS handshake.
      interrupted: whether the probe was ended before its time.
    """
    if not report.tried:
        return _without_attempts(report, interrupted=interrupted)
    won = any(attempt.outcome == "won" for attempt in report.attempts)
    groups: dict[str, list[Attempt]] = {}
    sources = {attempt.source for attempt in report.attempts}
    for attempt in report.attempts:
        family = _FAMILIES.get(attempt.endpoint.family, "the way through the proxy")
        name = family if len(sources) == 1 else f"{family} from {attempt.source or 'any address'}"
        groups.setdefault(name, []).append(attempt)
    clauses: list[tuple[bool, str]] = []
    kinds: dict[Kind, int] = {}
    for name, attempts in groups.items():
        for judgement, these in _sorted_out(attempts, tls=tls).items():
            kinds[judgement.kind] = kinds.get(judgement.kind, 0) + len(these)
            # In a race most addresses need not be tried, which says nothing about them.
            if judgement.kind != "idle" or not won:
                clauses.append((judgement.kind == "works", _clause(name, judgement, these, len(attempts))))
    clauses.sort(key=lambda clause: not clause[0])
    said = [text for _, text in clauses] + [_lookup_clause(lookup) for lookup in report.lookups if _is_bad(lookup)]
    kinds.pop("idle", None)
    advice = _beside_a_winner(kinds, report) if won else _of_failure(kinds, port)
    if interrupted and not won:
        advice = "interrupted before its end, so this is what is known"
    return Verdict("; ".join(said), advice)


def _sorted_out(attempts: Iterable[Attempt], *, tls: bool) -> dict[_Judgement, list[Attempt]]:
    sorted_out: dict[_Judgement, list[Attempt]] = {}
    for attempt in attempts:
        sorted_out.setdefault(_judgement(attempt, tls=tls), []).append(attempt)
    return sorted_out


def _judgement(attempt: Attempt, *, tls: bool) -> _Judgement:
    reason = attempt.reason or ("" if attempt.errno is None else errno.errorcode.get(attempt.errno, ""))
    why = f" ({reason})" if reason else ""
    match attempt.outcome:
        case "won":
            return _Judgement("works", "works", "work")
        case "not tried":
            return _Judgement("idle", "was not tried", "were not tried")
        case "skipped":
            return _Judgement("skipped", f"was skipped{why}", f"were skipped{why}")
        case "lost" if attempt.phase == "establish":
            what = "had connected and not answered" + (" in TLS" if tls else "")
            return _Judgement("slower", what, what)
        case "lost":
            return _Judgement("slower", "had not answered", "had not answered")
        case "failed" if attempt.errno != errno.ETIMEDOUT or attempt.phase != "connect":
            return _failure(attempt, reason or "no reason given", tls=tls)
        case _ if attempt.phase == "establish":
            what = "accepts and then says nothing" if not tls else "accepts and then says nothing in TLS"
            return _Judgement("mute", what, what.replace("accepts", "accept").replace("says", "say"))
        case _:
            return _Judgement("silent", "is silent", "are silent")


def _failure(attempt: Attempt, reason: str, *, tls: bool) -> _Judgement:
    if attempt.phase == "establish":
        what = "in TLS" if tls else "after connecting"
        return _Judgement("tls", f"fails {what} ({reason})", f"fail {what} ({reason})")
    if attempt.phase in ("socket", "bind"):
        return _Judgement("local", f"cannot be tried from here ({reason})", f"cannot be tried from here ({reason})")
    if attempt.errno == errno.ECONNREFUSED:
        return _Judgement("refused", "refuses", "refuse")
    if attempt.errno in _UNREACHABLE:
        return _Judgement("unreachable", f"is unreachable ({reason})", f"are unreachable ({reason})")
    if attempt.errno in _FORBIDDEN:
        return _Judgement("local", f"is forbidden here ({reason})", f"are forbidden here ({reason})")
    return _Judgement("failed", f"fails ({reason})", f"fail ({reason})")


def _clause(name: str, judgement: _Judgement, these: list[Attempt], total: int) -> str:
    count = len(these)
    one = count == 1
    if judgement.kind == "works":
        times = sorted(_took(attempt) for attempt in these)
        first, last = in_words(times[0]), in_words(times[-1])
        slowly = ", but slowly:" if times[0] >= _SLOW else ""
        span = first if first == last else f"{first} to {last}"
        subject = name if one else _subject(name, count, total)
        return f"{subject} {judgement.one if one else judgement.several}{slowly} in {span}"
    text = f"{_subject(name, count, total)} {judgement.one if one else judgement.several}"
    if judgement.kind == "slower":
        return f"{text} after {in_words(min(_took(attempt) for attempt in these))}"
    return text


def _subject(name: str, count: int, total: int) -> str:
    family, _, source = name.partition(" from ")
    origin = f" from {source}" if source else ""
    if family not in _FAMILIES.values():
        return name
    if count < total:
        return f"{count} of {total} {family} addresses{origin}"
    if total == 1:
        return f"the {family} address{origin}"
    return f"both {family} addresses{origin}" if total == 2 else f"all {total} {family} addresses{origin}"


def _took(attempt: Attempt) -> float:
    if attempt.started is None or attempt.ended is None:
        return 0.0
    return attempt.ended - attempt.started


def _beside_a_winner(kinds: dict[Kind, int], report: ConnectReport) -> str:
    slow = all(_took(attempt) >= _SLOW for attempt in report.attempts if attempt.outcome == "won")
    # Whoever lost to a slow winner need not be slower: it began later.
    if slow and set(kinds) <= {"works", "slower"}:
        return "that is as long as a lost packet that was sent again, so look for loss on the way"
    broken = sum(count for kind, count in kinds.items() if kind != "works")
    them = "it" if broken == 1 else "them"
    for kind, text in (
        ("silent", f"every client without racing waits for {them}"),
        ("mute", f"every client that takes the first address that connects hangs on {them}"),
        ("tls", f"every client that takes the first address that connects fails on {them}"),
        ("refused", f"every client that does not go on to the next address fails on {them}"),
        ("unreachable", f"every client that does not go on to the next address fails on {them}"),
        ("failed", f"every client that does not go on to the next address fails on {them}"),
        ("slower", f"a client without racing waits for {them}, and --each shows whether an answer ever comes"),
        ("local", f"what this machine does not send says nothing about {them}"),
        ("skipped", f"what was not tried says nothing about {them}"),
    ):
        if kind in kinds:
            return text
    if any(_is_bad(lookup) for lookup in report.lookups):
        return "every client that waits for both lookups is held up or fails"
    return "nothing is wrong"


def _of_failure(kinds: dict[Kind, int], port: int) -> str:
    for kind, text in (
        ("tls", "the way there is fine, what answers is not what clients want"),
        ("mute", "something accepts connections, and the program behind it is stuck or speaks another protocol"),
        ("local", "the trouble is on this machine"),
        ("failed", "no connection from here"),
    ):
        if kind in kinds:
            return text
    mixed = len(kinds) > 1
    if "silent" in kinds:
        return "no client gets in" if mixed else "a filter drops what is sent there, or nobody has the address"
    if "refused" in kinds:
        alone = f"the machine is up, and nothing listens on port {port} or a filter rejects"
        return "no client gets in" if mixed else alone
    if "unreachable" in kinds:
        return "no route leads there from here"
    return "no connection from here"


def _without_attempts(report: ConnectReport, *, interrupted: bool) -> Verdict:
    answers = [lookup.answer for lookup in report.lookups]
    if answers and not any(answer is None or answer.name_exists for answer in answers):
        return Verdict(f"there is no name {report.lookups[0].host}", "look for a typing mistake, or in the zone")
    said = [_lookup_clause(lookup) for lookup in report.lookups]
    reasons = dict.fromkeys(attempt.reason or attempt.outcome for attempt in report.attempts)
    said += [f"no address was tried ({'; '.join(reasons)})"] if reasons else []
    finding = "; ".join(said) or "nothing was tried"
    if interrupted:
        return Verdict(finding, "interrupted before its end, so this is what is known")
    if report.attempts:
        return Verdict(finding, "nothing is known about the addresses")
    if any(lookup.answer is None and lookup.error is None for lookup in report.lookups):
        return Verdict(finding, "the name servers are silent, or out of reach from here")
    if any(lookup.answer is not None and lookup.answer.name_exists for lookup in report.lookups):
        return Verdict(finding, "the name is there and has no address of that kind")
    if any(lookup.error is not None for lookup in report.lookups):
        return Verdict(finding, "without an address there is nothing to connect to")
    return Verdict(finding, "nothing was asked")


def _is_bad(lookup: Lookup) -> bool:
    # What has no answer is bad only where a client had to begin without it.
    open_end = lookup.answer is None and lookup.records is None
    return lookup.error is not None or lookup.ended - lookup.started >= (_RESOLUTION_DELAY if open_end else _SLOW)


def _lookup_clause(lookup: Lookup) -> str:
    took = in_words(lookup.ended - lookup.started)
    if lookup.error is not None:
        why = " ".join(str(lookup.error.strerror or lookup.error).split())
        return f"the {lookup.kind} lookup of {lookup.host} failed after {took} ({why})"
    if lookup.answer is None:
        return f"the {lookup.kind} lookup of {lookup.host} had no answer after {took}"
    if not lookup.answer.addresses:
        return f"{lookup.host} has no {lookup.kind} record"
    return f"the {lookup.kind} lookup of {lookup.host} took {took}"
