"""The gate: when the addresses found so far are enough to begin connecting.

Theory of operation
===================

One gate belongs to one name. Questions go out side by side, and answers come back one by one. Connecting should wait
for the preferred answer, but not for long. Facts go in together with the time; `state` is the result, and `deadline`
is when the gate needs a `tick`.

States:

- *asking*: no address is known, and some answer is still out.
- *waiting*: there are addresses, but not those of the preferred family: the resolution delay runs.
- *open*: connecting may begin. It never closes again; later answers join the race.
- *empty*: every question has its answer, and none has an address.
- *cancelled*: the caller does not need the answer any more.

The gate opens (RFC 8305 section 3, in the words of happy-eyeballs v3)
as soon as one address is known and either

- the preferred family has answered, with addresses or without, or
- the resolution delay has passed since the *first answer with addresses*.

The preferred family is IPv6, or IPv4 where the gate is told so; when its question was not asked it is the other one.
The caller does not ask for a family that no connection can start from.

An answer without addresses is negative and ends the wait for that question. So does an error, as happy-eyeballs v3
has it: a resolver that gave up will not answer later. A slow answer is neither.

Every pair of state and fact is in `GATE_FACTS` and `QUESTION_FACTS`. An illegal pair raises `IllegalFact` and
changes nothing. **Late facts** are ignored by name:

- an answer, error or tick after the cancel: its task had finished before the cancel, and ran after it;
- a tick in *open* or *empty*: the timer fired in the pass in which an answer made it pointless;
- a cancel after *empty*: the call is over already.

Kinds of questions are not limited to A and AAAA. While one of another kind is pending the gate is not *empty*;
otherwise it does not count. A follow-up question is to be asked before the answer that leads to it is told.
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
GateFact: TypeAlias = Literal["asked", "answered", "failed", "tick", "cancel"]

GATE_FACTS: Final[Mapping[GateState, Mapping[GateFact, GateState | Judge | Late | Illegal]]] = {
    "asking": {"asked": "asking", "answered": JUDGE, "failed": JUDGE, "tick": JUDGE, "cancel": "cancelled"},
    "waiting": {"asked": "waiting", "answered": JUDGE, "failed": JUDGE, "tick": JUDGE, "cancel": "cancelled"},
    "open": {"asked": "open", "answered": "open", "failed": "open", "tick": LATE, "cancel": "cancelled"},
    "empty": {"asked": ILLEGAL, "answered": ILLEGAL, "failed": ILLEGAL, "tick": LATE, "cancel": LATE},
    "cancelled": {"asked": ILLEGAL, "answered": LATE, "failed": LATE, "tick": LATE, "cancel": LATE},
}
"""The next state of the gate; "judge" means that answers and time decide."""

QuestionState: TypeAlias = Literal["unasked", "pending", "answered", "failed"]
QuestionFact: TypeAlias = Literal["asked", "answered", "failed"]

QUESTION_FACTS: Final[Mapping[QuestionState, Mapping[QuestionFact, QuestionState | Illegal]]] = {
    "unasked": {"asked": "pending", "answered": ILLEGAL, "failed": ILLEGAL},
    "pending": {"asked": ILLEGAL, "answered": "answered", "failed": "failed"},
    # A question is asked once, and its first answer is its last.
    "answered": {"asked": ILLEGAL, "answered": ILLEGAL, "failed": ILLEGAL},
    "failed": {"asked": ILLEGAL, "answered": ILLEGAL, "failed": ILLEGAL},
}
"""The next state of one question, unless the fact is late for the whole gate."""


@final
class Gate:
    """When connecting to one name may begin.

    Args:
      resolution_delay: seconds that known addresses wait for the preferred family's answer. RFC 8305 section 8:
        "Recommended to be 50 milliseconds". `math.inf` waits for the answer itself.
      ipv4_first: the preferred family is IPv4.

    Raises:
      ValueError: the delay is negative or not a number.
    """

    __slots__ = ("_delay", "_first_positive", "_known", "_preference", "_questions", "_state")

    def __init__(self, resolution_delay: float, *, ipv4_first: bool = False) -> None:
        if isnan(resolution_delay) or resolution_delay < 0:
            raise ValueError(f"resolution_delay must be 0 seconds or more, got {shown(resolution_delay)}")
        self._delay = resolution_delay
        self._preference = IPV4_FIRST if ipv4_first else IPV6_FIRST
        self._state: GateState = "asking"
        self._questions: dict[LookupKind, QuestionState] = {}
        self._known: dict[LookupKind, tuple[str, ...]] = {}
        self._first_positive: float | None = None

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
        """The question that the gate waits for: the preferred family's."""
        return next((kind for kind in self._preference if kind in self._questions), None)

    @property
    def pending(self) -> tuple[LookupKind, ...]:
        """The questions without an answer, in the order they were asked."""
        return tuple(kind for kind, state in self._questions.items() if state == "pending")

    @property
    def known(self) -> Mapping[LookupKind, tuple[str, ...]]:
        """The addresses by question, in the order the questions were asked; questions without any are left out."""
        return MappingProxyType({kind: self._known[kind] for kind in self._questions if kind in self._known})

    # ------------------------------------------------------------------ facts

    def asked(self, kind: LookupKind) -> None:
        """Learn that a question goes out. Questions that go out together are told before the first answer."""
        self._check_gate("asked")
        self._questions[kind] = self._check_question(kind, "asked")

    def answered(self, kind: LookupKind, addresses: Iterable[str], now: float) -> None:
        """Learn the answer to a question. One without addresses is negative."""
        found = tuple(addresses)
        if self._check_gate("answered") is None:
            return
        self._questions[kind] = self._check_question(kind, "answered")
        if found:
            self._known[kind] = found
            if self._first_positive is None:
                self._first_positive = now
        self._move("answered", now)

    def failed(self, kind: LookupKind, now: float) -> None:
        """Learn that there will be no answer, which counts as a negative one."""
        if self._check_gate("failed") is None:
            return
        self._questions[kind] = self._check_question(kind, "failed")
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

    def _check_question(self, kind: LookupKind, fact: QuestionFact) -> QuestionState:
        state = self._questions.get(kind, "unasked")
        entry = QUESTION_FACTS[state][fact]
        if entry == ILLEGAL:
            raise IllegalFact(f"{fact!r} for the question {kind!r}, which is {state}")
        return entry

    def _move(self, fact: GateFact, now: float) -> None:
        entry = GATE_FACTS[self._state][fact]
        if entry == JUDGE:
            self._state = self._judge(now)

    def _judge(self, now: float) -> GateState:
        if self._first_positive is None:
            return "asking" if self.pending or not self._questions else "empty"
        preferred = self.preferred
        if preferred is None or self._questions[preferred] != "pending":
            return "open"
        return "open" if now >= self.waits_until else "waiting"
