"""The gate: when the addresses found so far are enough to begin connecting.

Theory of operation
===================

One gate belongs to one host of the caller's, its *authority*. Questions go out side by side, and answers come back one
by one. Connecting should wait for the preferred answers, but not for long. Facts go in together with the time; `state`
is the result, and `deadline` is when the gate needs a `tick`.

States:

- *asking*: no address is known, and some answer is still out.
- *waiting*: there are addresses, but not all that is preferred is known: the resolution delay runs.
- *open*: connecting may begin. It never closes again; later answers join the race.
- *empty*: every question has its answer, and there is no address.
- *cancelled*: the caller does not need the answer any more.

The gate opens (RFC 8305 section 3, in the words of happy-eyeballs v3)
as soon as one address is known and either

- the services are known, and of one host of theirs the preferred family and an address, or
- the resolution delay has passed since the *first answer with addresses*.

**Services.** Where the caller asks for service records (HTTPS, SVCB), they are known when no such question is pending.
An alias is not an answer to the caller: the question about its target goes out before the alias is told, so one is
pending still. Service records name *targets*, whose addresses are asked for in their turn. Without usable records the
only host is the authority; it is also the one that counts when no target has any address.

**Hints.** Address hints in service records, and expired answers that a resolver still has, count as addresses until
the answer to the same question comes, which replaces them. An error replaces nothing.

The preferred family is IPv6, or IPv4 where the gate is told so; when its question was not asked it is the other one.
The caller does not ask for a family that no connection can start from. A hint of the preferred family counts like an
answer: connecting to it begins at once.

An answer without addresses is negative and ends the wait for that question. So does an error, as happy-eyeballs v3
has it: a resolver that gave up will not answer later. A slow answer is neither.

Every pair of state and fact is in `GATE_FACTS` and `QUESTION_FACTS`. An illegal pair raises `IllegalFact` and
changes nothing. **Late facts** are ignored by name:

- an answer, hint, error or tick after the cancel: its task had finished before the cancel, and ran after it;
- a tick in *open* or *empty*: the timer fired in the pass in which an answer made it pointless;
- a cancel after *empty*: the call is over already.

A follow-up question is to be asked before the answer that leads to it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, isnan
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, final

from .._answer import LookupKind
from .._text import shown
from .facts import ILLEGAL, LATE, Illegal, IllegalFact, Late

__all__ = ["GATE_FACTS", "QUESTION_FACTS", "Gate"]

IPV6_FIRST: Final[tuple[LookupKind, ...]] = ("AAAA", "A")
IPV4_FIRST: Final[tuple[LookupKind, ...]] = ("A", "AAAA")
"""The first of these that was asked is the preferred family's question."""


Judge: TypeAlias = Literal["judge"]
JUDGE: Final = "judge"

GateState: TypeAlias = Literal["asking", "waiting", "open", "empty", "cancelled"]
GateFact: TypeAlias = Literal["asked", "hinted", "answered", "served", "failed", "tick", "cancel"]

GATE_FACTS: Final[Mapping[GateState, Mapping[GateFact, GateState | Judge | Late | Illegal]]] = {
    "asking": {
        "asked": "asking", "hinted": JUDGE, "answered": JUDGE, "served": JUDGE, "failed": JUDGE, "tick": JUDGE,
        "cancel": "cancelled",
    },
    "waiting": {
        "asked": "waiting", "hinted": JUDGE, "answered": JUDGE, "served": JUDGE, "failed": JUDGE, "tick": JUDGE,
        "cancel": "cancelled",
    },
    "open": {
        "asked": "open", "hinted": "open", "answered": "open", "served": "open", "failed": "open", "tick": LATE,
        "cancel": "cancelled",
    },
    "empty": {
        "asked": ILLEGAL, "hinted": ILLEGAL, "answered": ILLEGAL, "served": ILLEGAL, "failed": ILLEGAL, "tick": LATE,
        "cancel": LATE,
    },
    "cancelled": {
        "asked": ILLEGAL, "hinted": LATE, "answered": LATE, "served": LATE, "failed": LATE, "tick": LATE,
        "cancel": LATE,
    },
}  # fmt: skip
"""The next state of the gate; "judge" means that answers and time decide."""

QuestionState: TypeAlias = Literal["unasked", "pending", "answered", "failed"]
QuestionFact: TypeAlias = Literal["asked", "hinted", "answered", "failed"]

QUESTION_FACTS: Final[Mapping[QuestionState, Mapping[QuestionFact, QuestionState | Illegal]]] = {
    "unasked": {"asked": "pending", "hinted": ILLEGAL, "answered": ILLEGAL, "failed": ILLEGAL},
    "pending": {"asked": ILLEGAL, "hinted": "pending", "answered": "answered", "failed": "failed"},
    # A question is asked once, and its first answer is its last.
    "answered": {"asked": ILLEGAL, "hinted": "answered", "answered": ILLEGAL, "failed": ILLEGAL},
    "failed": {"asked": ILLEGAL, "hinted": "failed", "answered": ILLEGAL, "failed": ILLEGAL},
}
"""The next state of one question, unless the fact is late for the whole gate."""

_Question: TypeAlias = tuple[str, LookupKind]
"""About whom, the authority being "", and what."""

AUTHORITY: Final = ""


@final
class Gate:
    """When connecting to one host may begin.

    Args:
      resolution_delay: seconds that known addresses wait for the preferred family's answer. RFC 8305 section 8:
        "Recommended to be 50 milliseconds". `math.inf` waits for the answer itself.
      ipv4_first: the preferred family is IPv4.

    Raises:
      ValueError: the delay is negative or not a number.
    """

    __slots__ = (
        "_delay", "_first_positive", "_hints", "_known", "_preference", "_questions", "_state", "_targets",
        "_unanswered", "_unserved",
    )  # fmt: skip

    def __init__(self, resolution_delay: float, *, ipv4_first: bool = False) -> None:
        if isnan(resolution_delay) or resolution_delay < 0:
            raise ValueError(f"resolution_delay must be 0 seconds or more, got {shown(resolution_delay)}")
        self._delay = resolution_delay
        self._preference = IPV4_FIRST if ipv4_first else IPV6_FIRST
        self._state: GateState = "asking"
        self._questions: dict[_Question, QuestionState] = {}
        self._known: dict[_Question, tuple[str, ...]] = {}
        self._hints: dict[_Question, tuple[str, ...]] = {}
        self._targets: tuple[str, ...] = ()
        self._first_positive: float | None = None
        self._unanswered = 0
        self._unserved = 0

    # ------------------------------------------------------------------ what follows

    @property
    def state(self) -> GateState:
        """The state of the gate; see the module's text."""
        return self._state

    @property
    def open(self) -> bool:
        """Whether connecting may begin."""
        return self._state == "open"

    @property
    def deadline(self) -> float:
        """When the gate needs a `tick`; `math.inf` when only facts can change it."""
        return self.waits_until if self._state == "waiting" else inf

    @property
    def waits_until(self) -> float:
        """When its first address has waited for the resolution delay; `math.inf` without an address."""
        return inf if self._first_positive is None else self._first_positive + self._delay

    @property
    def preferred(self) -> LookupKind | None:
        """The question about the authority that the gate waits for: the preferred family's."""
        return self._preferred(AUTHORITY)

    @property
    def pending(self) -> tuple[LookupKind, ...]:
        """What is asked and not answered, about whomever, in the order of the questions."""
        return tuple(kind for (_, kind), state in self._questions.items() if state == "pending")

    @property
    def is_pending(self) -> bool:
        """Whether any question is: whether `pending` has anything, for those who need no more."""
        return self._unanswered > 0

    @property
    def known(self) -> Mapping[LookupKind, tuple[str, ...]]:
        """The addresses of the authority, see `known_of`."""
        return self.known_of(AUTHORITY)

    def known_of(self, name: str) -> Mapping[LookupKind, tuple[str, ...]]:
        """Return the addresses of a host, or its hints, by question, in the order the questions were asked."""
        mine = [question for question in self._questions if question[0] == name]
        return MappingProxyType({question[1]: texts for question in mine if (texts := self._found(question))})

    def addresses_of(self, name: str) -> tuple[str, ...]:
        """Return what `known_of` has, without saying which question it answers."""
        found: tuple[str, ...] = ()
        for question in self._questions:
            if question[0] == name:
                found += self._found(question)
        return found

    def is_asked(self, kind: LookupKind, name: str = AUTHORITY) -> bool:
        """Say whether a question has gone out."""
        return (name, kind) in self._questions

    # ------------------------------------------------------------------ facts

    def asked(self, kind: LookupKind, name: str = AUTHORITY) -> None:
        """Learn that a question goes out. Questions that go out together are told before the first answer.

        Args:
          kind: what is asked.
          name: about which target; by default about the authority.
        """
        self._check_gate("asked")
        self._questions[name, kind] = self._check_question(name, kind, "asked")
        self._unanswered += 1
        self._unserved += kind == "HTTPS"

    def hinted(self, kind: LookupKind, addresses: Iterable[str], now: float, name: str = AUTHORITY) -> None:
        """Learn addresses to begin with, until the answer to the question comes. Hints add up."""
        found = tuple(addresses)
        if self._check_gate("hinted") is None:
            return
        state = self._check_question(name, kind, "hinted")
        if state != "answered":
            self._hints[name, kind] = tuple(dict.fromkeys((*self._hints.get((name, kind), ()), *found)))
            self._has_addresses(found, now)
        self._move("hinted", now)

    def answered(self, kind: LookupKind, addresses: Iterable[str], now: float, name: str = AUTHORITY) -> None:
        """Learn the answer to a question, in place of hints. One without addresses is negative."""
        found = tuple(addresses)
        if self._check_gate("answered") is None:
            return
        self._end(name, kind, "answered")
        self._known[name, kind] = found
        self._has_addresses(found, now)
        self._move("answered", now)

    def served(self, targets: Iterable[str], now: float, name: str = AUTHORITY) -> None:
        """Learn the answer to a question for services: the hosts that have them.

        Args:
          targets: what the authority is called by "" here too.
          now: the time.
          name: about whom was asked.
        """
        found = tuple(targets)
        if self._check_gate("served") is None:
            return
        self._end(name, "HTTPS", "answered")
        self._targets = found
        self._move("served", now)

    def failed(self, kind: LookupKind, now: float, name: str = AUTHORITY) -> None:
        """Learn that there will be no answer, which counts as a negative one."""
        if self._check_gate("failed") is None:
            return
        self._end(name, kind, "failed")
        self._move("failed", now)

    def tick(self, now: float) -> None:
        """Learn the time."""
        if self._check_gate("tick") is not None:
            self._move("tick", now)

    def cancel(self) -> None:
        """Learn that the caller does not need the answer any more."""
        if self._check_gate("cancel") is not None:
            self._state = "cancelled"

    # ------------------------------------------------------------------ decisions

    def _check_gate(self, fact: GateFact) -> GateState | Judge | None:
        """Return the effect of a fact on the gate, None when it is late."""
        entry = GATE_FACTS[self._state][fact]
        if entry == ILLEGAL:
            raise IllegalFact(f"{fact!r} in a gate that is {self._state}")
        return None if entry == LATE else entry

    def _check_question(self, name: str, kind: LookupKind, fact: QuestionFact) -> QuestionState:
        state = self._questions.get((name, kind), "unasked")
        entry = QUESTION_FACTS[state][fact]
        if entry == ILLEGAL:
            raise IllegalFact(f"{fact!r} for the question {kind!r}, which is {state}")
        return entry

    def _end(self, name: str, kind: LookupKind, fact: Literal["answered", "failed"]) -> None:
        self._questions[name, kind] = self._check_question(name, kind, fact)
        self._unanswered -= 1
        self._unserved -= kind == "HTTPS"

    def _found(self, question: _Question) -> tuple[str, ...]:
        known = self._known.get(question)
        return self._hints.get(question, ()) if known is None else known

    def _has_addresses(self, found: tuple[str, ...], now: float) -> None:
        """Note that these addresses are the first, or that an answer has taken the last hints back."""
        if found and self._first_positive is None:
            self._first_positive = now
        elif self._hints and not any(map(self._found, self._questions)):
            self._first_positive = None

    def _move(self, fact: GateFact, now: float) -> None:
        if GATE_FACTS[self._state][fact] == JUDGE:
            self._state = self._judge(now)

    def _judge(self, now: float) -> GateState:
        if self._first_positive is None:
            return "asking" if self._unanswered or not self._questions else "empty"
        return "open" if self._is_enough() or now >= self.waits_until else "waiting"

    def _is_enough(self) -> bool:
        """Say whether services are known, and of one of their hosts the preferred family and an address."""
        if self._unserved:
            return False
        if not self._targets:
            return self._is_ready(AUTHORITY)
        if any(map(self._is_ready, self._targets)):
            return True
        nothing_to_come = all(not self._is_known(name) and self._is_settled(name) for name in self._targets)
        return nothing_to_come and self._is_ready(AUTHORITY)

    def _is_ready(self, name: str) -> bool:
        preferred = self._preferred(name)
        if preferred is not None and self._questions[name, preferred] == "pending":
            return bool(self._hints.get((name, preferred)))
        return self._is_known(name)

    def _is_known(self, name: str) -> bool:
        return bool(self.addresses_of(name))

    def _is_settled(self, name: str) -> bool:
        return not any(state == "pending" for (host, _), state in self._questions.items() if host == name)

    def _preferred(self, name: str) -> LookupKind | None:
        for kind in self._preference:
            if (name, kind) in self._questions:
                return kind
        return None
