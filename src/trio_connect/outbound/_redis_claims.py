"""What a process has of the limits in a `RedisStore`, and what it wants: time and answers in, questions out.

A call that wants places makes a `Claim`, one for each set of limits. The shell asks the server for it, and the answer
is kept until the call comes back: places for a moment (`_KEPT`), a refusal until it is worth asking again. A claim
keeps its lease id until it is answered, so a question whose answer was lost takes nothing twice.

**Fencing.** A lease runs out one TTL after the server has given it. The holder counts from before it asked, by its own
clock, so it knows before the server does. It looks at no other clock, and takes nobody's word for the time.

**Away.** While the server gives no answer, nothing is asked for a call. With `strict` nothing is admitted, and a lease
ends before it can run out: `lapsed`. Else this process admits its own share of each limit, by the number of processes
that it has last heard of, and its own share of each rate, from a limiter that counted all starts before. What it holds
lives on, and is counted again when the server is back.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Final, final

import attrs

from .._engine.limits import Cap, Pace, Place
from .._engine.moments import has_come
from .._outbound_values import MICROSECONDS
from ._redis_claim import EPOCH_KEY, PEERS_KEY, Claim, Key, Question, Turn, cap_key, pace_key, wanted_key
from ._store import CLOSED, Later

__all__ = ["Claims", "Held"]

_KEPT: Final = 0.1
"""Seconds for which granted places are kept for the call. It is woken at once; it may have been cancelled meanwhile."""
_SHORTEST_POLL: Final = 0.050
_LONGEST_POLL: Final = 1.0
_POLLS: Final = 0.050
"""Seconds between two polls of all processes together, about: more of them poll less often."""
_TURN: Final = 0.5
"""Seconds for which a process may take the place at once that is over when each has its share, while others want it.
Then it asks like those that have none, after a pause in which one of them may poll. Rejected: a queue in the server,
whose head has to be waited for, also when that was killed."""
_PATIENCE: Final = 10.0
"""Seconds after which a refusal is forgotten that nobody has asked about again."""
_LATE: Final = 0.020
"""Seconds by which processes spread out that were told the same moment."""
_MARGIN: Final = 0.1
"""The part of a TTL by which a lease ends early, for whoever has to be told."""
_LOOKS: Final = 3
"""How often in a TTL leases are prolonged, and looked for that end."""
_MOST_RELEASES: Final = 500
"""How many leases are given back with one question: a script holds everybody up."""


@attrs.define(eq=False)
class Held:
    """A place under one limit. A `Place`."""

    _claims: Claims
    key: str
    id: str
    fence: float
    is_lost: bool = attrs.field(default=False, init=False)

    def release(self) -> None:
        """Give it back."""
        self._claims.release(self)


@final
class Claims:
    """The claims and places of one process.

    Args:
      process: an id that no other process has, now or later.
      ttl: seconds after which a lease runs out that was not renewed.
      strict: whether nothing is held without a lease.
      draw: returns a random number from 0 to 1, for jitter.
      wake: called when a place was given back.
    """

    def __init__(
        self, process: str, ttl: float, *, strict: bool, draw: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self.process = process
        self.strict = strict
        self.away = ""
        """Why nothing is asked of the server, as what is said of it; "" while it answers."""
        self.processes = 0
        """How many there are, as far as is known."""
        self.is_over = False
        """Whether nothing more is asked."""
        self._ttl = ttl
        self._draw = draw
        self._wake = wake
        self._made = 0
        self._claims: dict[Key, Claim] = {}
        self._new: deque[Claim] = deque()
        self._blocked: dict[str, set[Claim]] = {}
        self._held: dict[Held, None] = {}
        self._count: Counter[str] = Counter()
        self._releases: deque[tuple[str, str, float]] = deque()
        self._leaving: dict[tuple[str, str], float] = {}
        """Leases that are being given back, and when each runs out: whether the server has heard of it is unknown."""
        self._turns: dict[str, Turn] = {}
        """By limit. Rejected: by claim. Those of many sources or destinations have a limit in common, and each its own
        turn, so that one of them asks while another one rests."""
        self._due: dict[str, int] = {}
        """By rate, when this process's own next start would be due if it had only its share, in microseconds."""

    # What calls want

    def acquire(self, caps: Sequence[Cap], paces: Sequence[Pace], now: float) -> dict[Cap, Place] | Later:
        """Return the places of a call if they are there, or when to ask for them again."""
        if not caps and not paces:
            return {}
        if self.is_over:
            return CLOSED
        key = tuple(map(cap_key, caps)), tuple(map(pace_key, paces))
        claim = self._claims.get(key)
        if claim is not None and claim.state == "granted":
            del self._claims[key]
            # One of which the end were near could end before the next look for such.
            if now < min(claim.until, claim.fence - self._margin - self.pause):
                return self._take(claim.id, claim.fence, caps, paces, now)
            self._give_up(claim, now)
            claim = None
        if self.away:
            return self._alone(caps, paces, now)
        if claim is None:
            claim = self._claims[key] = Claim(key, caps, paces, self._next_id())
            if not self._has_to_rest(claim, now, anew=True):
                self._new.append(claim)
        elif claim.state == "doubtful" or (
            claim.state == "refused"
            and has_come(claim.until, now)
            and not self._has_to_rest(claim, now, anew=claim.until == -inf and not has_come(claim.rest, now))
        ):
            self._unblock(claim)
            claim.state = "new"
            self._new.append(claim)
        if claim.state == "refused":
            assert claim.refusal is not None
            return attrs.evolve(claim.refusal, seconds=claim.until - now)
        # What it said last is worth more to whoever gives up now.
        cause = "the store has not answered yet" if claim.refusal is None else claim.refusal.cause
        return Later(cause, self._ttl, pending=True, is_answered=partial(self._has_news, claim))

    def release(self, held: Held) -> None:
        """Give a place back, and have those asked again whom its limit refuses."""
        if self._held.pop(held, self) is self:
            return
        self._count[held.key] -= 1
        if not self._count[held.key]:
            del self._count[held.key]
        self._releases.append((held.key, held.id, held.fence))
        for claim in self._blocked.pop(held.key, ()):
            claim.until = -inf
        self._wake()

    def forget(self, now: float) -> None:
        """Give back what nobody has come for, and forget old refusals."""
        for claim in tuple(self._claims.values()):
            patience = _PATIENCE if claim.state == "refused" else 0.0
            if not claim.is_pending and has_come(claim.until + patience, now):
                del self._claims[claim.key]
                self._unblock(claim)
                self._give_up(claim, now)
        while self._releases and self._releases[0][2] <= now:
            self._releases.popleft()
        in_use = {key for claim in self._claims.values() for key in claim.key[0]} | self._count.keys()
        for key in [key for key, turn in self._turns.items() if key not in in_use and has_come(turn.rest, now)]:
            del self._turns[key]
        for key in [key for key, due in self._due.items() if due <= now * MICROSECONDS]:
            del self._due[key]

    # What to ask, and what an answer means

    def question(self) -> Question | None:
        """Return what to ask next for a call."""
        if not self._new:
            return None
        claim = self._new.popleft()
        claim.state = "asked"
        claim.may_hold = True
        releases = self.releases()
        caps, paces = claim.key
        keys = [EPOCH_KEY, *caps, *map(wanted_key, caps), *paces, *(key for key, _ in releases)]
        numbers = [self._shown_ttl, claim.id, len(caps), len(paces), *(cap.limit for cap in claim.caps)]
        for pace in claim.paces:
            numbers += [pace.interval, pace.burst]
        return Question(claim, keys, [*map(str, numbers), *(each for _, each in releases)], releases)

    def answered(self, claim: Claim, answer: Sequence[object], asked: float, now: float) -> None:
        """Learn what the server has answered to a question that was asked at a time."""
        outcome = str(answer[0])
        if outcome == "granted":
            claim.state = "granted"
            claim.fence = asked + self._ttl
            claim.until = now + _KEPT
            for key, is_wanted in zip(claim.key[0], str(answer[1]), strict=False):
                if is_wanted == "1":
                    self._turns.setdefault(key, Turn(now))
                else:
                    self._turns.pop(key, None)
            return
        wait, index = int(str(answer[1])) / MICROSECONDS, int(str(answer[2])) - 1
        claim.state = "refused"
        claim.rest = inf
        claim.may_hold = False
        late = min(wait, _LATE) * self._draw()
        if outcome == "pause":
            cause = "the store was started again, and waits for those who hold something"
            claim.refusal = Later(cause, wait, known=True)
        elif outcome == "rate":
            claim.refusal = Later(f"the {claim.paces[index].name} is used up by all processes", wait, known=True)
        else:
            cap = claim.caps[index]
            claim.refusal = Later(
                f"all {cap.limit} {cap.name} are held, some by other processes", wait, blockers=(cap,)
            )
            longest = _LONGEST_POLL if not self.processes else min(self.processes * _POLLS, _LONGEST_POLL)
            claim.poll = min(max(2 * claim.poll, _SHORTEST_POLL), longest)
            wait, late = min(wait, claim.poll * (0.5 + self._draw()), _LONGEST_POLL), 0.0
            self._blocked.setdefault(claim.key[0][index], set()).add(claim)
        claim.until = now + wait + late

    def is_kept(self, claim: Claim) -> bool:
        """Say whether places were granted for which nobody has come yet."""
        return claim.state == "granted" and self._claims.get(claim.key) is claim

    def failed(self, claim: Claim) -> None:
        """Learn that a question was not answered."""
        claim.state = "doubtful"
        claim.until = -inf

    @property
    def is_asking(self) -> bool:
        """Whether a question is on its way."""
        return any(claim.state == "asked" for claim in self._claims.values())

    def releases(self) -> list[tuple[str, str]]:
        """Return leases to give back, at most some hundred, each by limit and id.

        Afterwards `released` or `unreleased` says what became of them.
        """
        count = min(len(self._releases), _MOST_RELEASES)
        leases = {(key, id_): fence for key, id_, fence in (self._releases.popleft() for _ in range(count))}
        self._leaving.update(leases)
        return list(leases)

    def released(self, leases: Iterable[tuple[str, str]]) -> None:
        """Learn that leases were given back."""
        for lease in leases:
            self._leaving.pop(lease, None)

    def unreleased(self, leases: Iterable[tuple[str, str]]) -> None:
        """Learn that the server could not be told of leases: they are given back once more, unless they run out first.

        Rejected: to let them run out. A place that nobody holds would be held for a TTL.
        """
        for lease in leases:
            fence = self._leaving.pop(lease, None)
            if fence is not None:
                self._releases.append((*lease, fence))

    def renewal(self, held: Sequence[Held]) -> tuple[list[str], list[str]]:
        """Return the keys and arguments to prolong the leases of places."""
        keys = [EPOCH_KEY, PEERS_KEY, *(each.key for each in held)]
        return keys, [self._shown_ttl, self.process, "0" if self.strict else "1", *(each.id for each in held)]

    def renewed(self, held: Sequence[Held], answer: Sequence[object], asked: float) -> list[Held]:
        """Learn which leases were prolonged, and return those that are lost."""
        heard = int(str(answer[0]))
        # Below 0 in the pause: not all have registered again, and the shares of too few would be too large.
        self.processes = heard if heard > 0 else max(self.processes, -heard)
        lost: list[Held] = []
        for each, flag in zip(held, answer[1:], strict=True):
            is_there = int(str(flag)) > 0
            if each not in self._held:
                if is_there:  # it was given back meanwhile, and the server may have heard of that first
                    self._releases.append((each.key, each.id, asked + self._ttl))
            elif is_there:
                each.fence = asked + self._ttl
            else:
                lost.append(each)
        self._lose(lost)
        return lost

    def unrenewed(self, held: Iterable[Held], asked: float) -> None:
        """Learn that there was no answer: what was given back meanwhile the server may have written once more."""
        self._releases += [(each.key, each.id, asked + self._ttl) for each in held if each not in self._held]

    def lapsed(self, now: float) -> list[Held]:
        """Return the places whose leases end now, with `strict`; they are not held any more."""
        if not self.strict:
            return []
        lost = [each for each in self._held if has_come(each.fence - self._margin, now)]
        self._lose(lost)
        return lost

    @property
    def next_lapse(self) -> float:
        """When `lapsed` is due, if nothing is renewed by then."""
        if not self.strict:
            return inf
        return min((each.fence for each in self._held), default=inf) - self._margin

    @property
    def held(self) -> list[Held]:
        """The places that this process holds."""
        return list(self._held)

    def stop(self) -> list[Held]:
        """Ask nothing more, and return the places of whoever outlives this; with `strict` they are lost."""
        self.is_over = True
        self._new.clear()
        lost = self.held if self.strict else []
        self._lose(lost)
        return lost

    def everything(self) -> list[tuple[str, str]]:
        """Return all leases that may be this process's, each by limit and id; nothing is held afterwards."""
        for each in self.held:
            self.release(each)
        for claim in self._claims.values():
            self._give_up(claim, -inf)
        self._claims.clear()
        self._blocked.clear()
        everything = [(key, id_) for key, id_, _ in self._releases]
        self._releases.clear()
        return [*everything, *self._leaving, (PEERS_KEY, self.process)]

    @property
    def has_work(self) -> bool:
        """Whether there is something to ask or to give back."""
        return bool(self._new or self._releases) and not self.away

    @property
    def pause(self) -> float:
        """Seconds between two times when leases are prolonged, or looked for that end."""
        return self._ttl / _LOOKS

    # Parts

    def _has_news(self, claim: Claim) -> bool:
        return not claim.is_pending or self.is_over or self.away != ""

    @property
    def _margin(self) -> float:
        return self._ttl * _MARGIN

    @property
    def _shown_ttl(self) -> str:
        return str(round(self._ttl * MICROSECONDS))

    def _has_to_rest(self, claim: Claim, now: float, *, anew: bool) -> bool:
        """Say whether others are to have a chance first, and have the claim wait for so long.

        Args:
          claim: what is to be asked for.
          now: the time.
          anew: whether a rest may begin, where it would ask at once. One that only comes back does not.
        """
        until = -inf
        for cap, key in zip(claim.caps, claim.key[0], strict=True):
            turn, longest = self._turns.get(key), self._longest_turn(cap)
            if turn is None or longest == inf:
                continue
            if anew and has_come(turn.rest, now) and has_come(turn.began + longest, now):
                turn.rest = now + 2 * _SHORTEST_POLL * (0.5 + self._draw())
                if longest:
                    turn.began = turn.rest
            if not has_come(turn.rest, now):
                until = max(until, turn.rest)
                if not longest:  # until it gives one back itself
                    self._blocked.setdefault(key, set()).add(claim)
        if until == -inf:
            return False
        claim.state = "refused"
        claim.until = claim.rest = until
        claim.refusal = Later("other processes want a place too", 0.0)
        return True

    def _longest_turn(self, cap: Cap) -> float:
        """Return for how many seconds this process may take a place at once that others want too.

        For ever up to its share, in turns what is over when each has its share, and never more than that.
        """
        share, rest = divmod(cap.limit, max(self.processes, 1))
        count = self._count[cap_key(cap)]
        if count < share:
            return inf
        return _TURN if count < share + (rest > 0) else 0.0

    def _next_id(self) -> str:
        self._made += 1
        return f"{self.process}:{self._made}"

    def _take(self, id_: str, fence: float, caps: Iterable[Cap], paces: Iterable[Pace], now: float) -> dict[Cap, Place]:
        for pace in paces:
            key = pace_key(pace)
            moment = round(now * MICROSECONDS)
            self._due[key] = max(self._due.get(key, moment), moment) + pace.interval * max(self.processes, 1)
        places: dict[Cap, Place] = {}
        for cap in caps:
            held = places[cap] = Held(self, cap_key(cap), id_, fence)
            self._held[held] = None
            self._count[held.key] += 1
        return places

    def _lose(self, held: Iterable[Held]) -> None:
        for each in held:
            each.is_lost = True
            self.release(each)

    def _give_up(self, claim: Claim, now: float) -> None:
        """Give back what the server may have given for a claim."""
        if claim.may_hold:
            self._releases.extend((key, claim.id, max(claim.fence, now + self._ttl)) for key in claim.key[0])

    def _unblock(self, claim: Claim) -> None:
        for key in claim.key[0]:
            blocked = self._blocked.get(key, set())
            blocked.discard(claim)
            if not blocked:
                self._blocked.pop(key, None)

    def _alone(self, caps: Sequence[Cap], paces: Sequence[Pace], now: float) -> dict[Cap, Place] | Later:
        """Admit a call from this process's own share, while the server is away."""
        away = f"the store {self.away}"
        if self.strict or not self.processes:
            return Later(away, _LONGEST_POLL)
        for cap in caps:
            share = cap.limit // self.processes
            if self._count[cap_key(cap)] >= share:
                return Later(f"{away}, and {share} of {cap.limit} {cap.name} are this process's share", _LONGEST_POLL,
                    blockers=(cap,))  # fmt: skip
        moment = round(now * MICROSECONDS)
        for pace in paces:
            early = (max(pace.burst // self.processes, 1) - 1) * pace.interval * self.processes
            wait = self._due.get(pace_key(pace), moment) - early - moment
            if wait > 0:
                return Later(f"{away}, and its share of the {pace.name} is used up", wait / MICROSECONDS)
        return self._take(self._next_id(), -inf, caps, paces, now)
