"""Which name server is asked when: one question goes to one server after the other, until one of them answers.

A question's servers have their turns in order. A server that has not answered when its turn ends is still listened to:
its answer counts whenever it comes. A turn ends early when every server of it has failed. After the last server the
first one is asked again, and turns are twice as long. After `LIFETIME` seconds the question has failed.

`ServerMemory` lasts longer than a question. A server that let its turn pass in silence is *silent*, and goes behind the
others. So a dead server costs its turn once, and not in every question. When `RECHECK_AFTER` seconds have passed it is
asked again, in one turn with the best of the others: when it is still dead, that costs nobody any time.

A server that answers with an error is alive and keeps its place. The operator's order says which server is to be
preferred, and an error is no reason to leave it for other names.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from math import inf
from typing import Final, Generic, TypeVar, final

__all__ = ["LIFETIME", "RECHECK_AFTER", "TURN", "ServerMemory", "Tries"]

TURN: Final = 1.0
"""Seconds until the next server is asked. resolv.conf(5) has 5 by default, from a time of slower networks."""
LIFETIME: Final = 10.0
"""Seconds for one question: what resolv.conf(5) allows by default, two rounds of 5."""
ENOUGH: Final = 0.25
"""Seconds after which a server counts as silent when nobody waits for its answer any longer."""
RECHECK_AFTER: Final = 30.0
"""Seconds until a silent server is tried again."""

S = TypeVar("S", bound=Hashable)


@final
class ServerMemory(Generic[S]):
    """What earlier questions have shown about name servers."""

    __slots__ = ("_silent",)

    def __init__(self) -> None:
        self._silent: dict[S, float] = {}

    def turns(self, servers: Iterable[S], now: float) -> tuple[tuple[S, ...], ...]:
        """Return the turns of a new question. The servers of one turn are asked together.

        Args:
          servers: in the operator's order, each once.
          now: the time.
        """
        servers = tuple(servers)
        good = [server for server in servers if server not in self._silent]
        if not good:
            return tuple((server,) for server in servers)
        due = [server for server in servers if self._silent.get(server, inf) <= now]
        others = [server for server in servers if server in self._silent and server not in due]
        for server in due:
            self._silent[server] = now + RECHECK_AFTER  # one question tries it, not all of this time
        return ((good[0], *due), *((server,) for server in (*good[1:], *others)))

    def answered(self, server: S) -> None:
        """Learn that a server is alive."""
        self._silent.pop(server, None)

    def was_silent(self, server: S, now: float) -> None:
        """Learn that a server did not answer in its turn, or cannot be reached."""
        self._silent[server] = now + RECHECK_AFTER


@final
class Tries(Generic[S]):
    """The tries of one question.

    Args:
      memory: what is known of the servers, and learns from this question.
      servers: in the operator's order, each once, at least one.
      now: the time.
    """

    __slots__ = ("_at", "_began", "_ends", "_failed", "_memory", "_next", "_pending", "_turn", "_turns")

    def __init__(self, memory: ServerMemory[S], servers: Sequence[S], now: float) -> None:
        self._memory = memory
        self._turns = memory.turns(servers, now)
        self._failed: set[S] = set()
        self._pending: set[S] = set()
        """Those of the turn that goes on which have not failed."""
        self._at = 0
        self._turn = TURN
        self._next = self._began = now
        self._ends = now + LIFETIME

    @property
    def deadline(self) -> float:
        """When `due` is to be asked again."""
        return min(self._next, self._ends)

    def is_over(self, now: float) -> bool:
        """Say whether the question has failed: every server has, or its time is up."""
        return now >= self._ends or self._failed.issuperset(server for turn in self._turns for server in turn)

    def due(self, now: float) -> tuple[S, ...]:
        """Return the servers that are to be sent the question now, for the first time or again."""
        if now < self._next or self.is_over(now):
            return ()
        self._note_silence(now)
        self._began = now
        while True:
            turn = [server for server in self._turns[self._at] if server not in self._failed]
            self._next = now + self._turn
            self._at += 1
            if self._at == len(self._turns):
                self._at = 0
                self._turn *= 2
            if turn:
                self._pending = set(turn)
                return tuple(turn)

    def answered(self, server: S) -> None:
        """Learn that a server has answered the question, which ends it."""
        self._memory.answered(server)

    def failed(self, server: S, now: float, *, silent: bool) -> None:
        """Learn that a server will not answer this question; it is not asked again.

        Args:
          server: one that was asked.
          now: the time.
          silent: there is no server: the network says that it cannot be reached. Otherwise it answered with an error.
        """
        if silent:
            self._memory.was_silent(server, now)
        else:
            self._memory.answered(server)
        self._failed.add(server)
        self._pending.discard(server)
        if not self._pending:
            self._next = min(self._next, now)

    def expired(self, now: float) -> None:
        """Learn that the question's time is up."""
        self._note_silence(now)

    def abandoned(self, now: float) -> None:
        """Learn that nobody waits any longer.

        A caller with a deadline of half a second would otherwise find a dead server dead again and again.
        """
        if now >= self._began + ENOUGH:
            self._note_silence(now)

    def _note_silence(self, now: float) -> None:
        for server in self._pending:
            self._memory.was_silent(server, now)
