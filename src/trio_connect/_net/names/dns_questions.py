"""Questions to name servers: equal ones at one time are one question, and answers are kept.

Who does the work? We own no background task unless the caller opened a block that says so.

- Without a block, one of the callers that wait for an answer does it. When it is cancelled the next one goes on where
  it stopped, with the same sockets, and nothing is sent again. When the last one has gone the question is dropped.
- In a block, a task of the block does it. So an answer still fills the cache when nobody waits any longer, for `LINGER`
  seconds: the loser of a race between two lookups is worth knowing for the next connect.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs
import trio
from trio import current_time
from trio.lowlevel import ParkingLot, cancel_shielded_checkpoint, checkpoint_if_cancelled, enable_ki_protection

from ..._engine.dns_cache import CacheRules, DnsCache, Found
from ..._engine.dns_tries import LIFETIME, ServerMemory, Tries
from ..._engine.shortage import SHORTAGE
from ..._messages import local_lookup_error, strerror
from ..._text import printable
from ..race.errors import out_of_the_group
from .dns_exchange import Exchange

if TYPE_CHECKING:
    from ..._endpoint import Endpoint
    from .dns_wire import Question, RecordType, Reply, Wire

__all__ = ["LINGER", "Known", "Questions"]

LINGER: Final = 1.0
"""Seconds for which late answers are still read: happy-eyeballs v3 says "on the order of one second"."""
STALE_AFTER: Final = 1.8
"""RFC 8767 section 5: the client response timer, after which a stale answer is used, is best at 1.8 seconds."""

MALFORMED_KEPT: Final = 60.0
"""Seconds for which a malformed record counts: its owner will not have mended it sooner."""

_Key: TypeAlias = "tuple[bytes, RecordType]"


@attrs.frozen
class Known:
    """What is known about a question."""

    reply: Reply
    ttl: float
    """For how long from now."""


class _Pending:
    """A question that is under way."""

    __slots__ = ("exchanges", "forget_at", "is_run", "lot", "outcome", "question", "reasons", "tries", "waiting")

    def __init__(self, question: Question, tries: Tries[Endpoint]) -> None:
        self.question = question
        self.tries = tries
        self.exchanges: dict[Endpoint, Exchange] = {}
        self.reasons: dict[Endpoint, str] = {}
        self.outcome: Reply | OSError | str | None = None
        """An answer, an error of this machine, or why no server has answered."""
        self.lot = ParkingLot()
        self.waiting = 0
        self.is_run = False
        """Whether a task runs it."""
        self.forget_at = inf
        """When it is dropped, because nobody waits any longer."""

    def close(self) -> None:
        """Close every socket. No task may be listening any more."""
        for exchange in self.exchanges.values():
            exchange.close()


@final
class Questions:
    """The questions of one resolver in one run of Trio: times on the clock of one run mean nothing in another.

    Args:
      wire: makes questions.
      servers: says whom to ask, in order.
      rules: how long answers are kept.
    """

    def __init__(self, wire: Wire, servers: Callable[[], Sequence[Endpoint]], rules: CacheRules) -> None:
        self._wire = wire
        self._servers = servers
        self._cache = DnsCache["Reply"](rules)
        self._memory = ServerMemory["Endpoint"]()
        self._pending: dict[_Key, _Pending] = {}
        self.nursery: trio.Nursery | None = None
        """Where questions run; None when whoever waits runs them: outside of a block, and once it was cancelled."""

    def stale(self, name: bytes, kind: RecordType) -> Known | None:
        """Return an answer that has expired and may still be used; None when nothing is known, or a fresh one."""
        found = self._cache.find((name, kind), current_time())
        return None if found is None or found.is_fresh else _usable(found)

    def fresh(self, name: bytes, kind: RecordType) -> Known | None:
        """Return an answer that `ask` would return without asking anybody; None when it would have to ask."""
        found = self._cache.find((name, kind), current_time())
        return None if found is None or not found.is_fresh else _usable(found)

    @enable_ki_protection  # an interrupt must not come between a socket and who closes it
    async def ask(self, name: bytes, kind: RecordType) -> Known:
        """Return what servers say, or have said not long ago; an expired answer where no other is to be had.

        Args:
          name: encoded and complete, in lower case, without a closing dot.
          kind: the record type.

        Raises:
          socket.gaierror: EAI_AGAIN, no server has answered.
          OSError: this machine is short of something.
        """
        await checkpoint_if_cancelled()
        key = name, kind
        found = self._cache.find(key, current_time())
        old = None if found is None else _usable(found)
        if found is not None and (found.is_fresh or found.failure is not None):
            await cancel_shielded_checkpoint()
            if old is None:
                assert found.failure is not None
                raise _failure(name, kind, found.failure)
            return old
        pending = self._pending.get(key)
        if pending is None:
            now = current_time()
            tries = Tries(self._memory, self._servers(), now)
            pending = self._pending[key] = _Pending(self._wire.question(name, kind), tries)
        pending.waiting += 1
        pending.forget_at = inf
        try:
            with trio.move_on_after(inf if old is None else STALE_AFTER):
                await self._wait(key, pending)
        finally:
            pending.waiting -= 1
            if not pending.waiting and pending.outcome is None:
                self._leave_alone(key, pending)
        outcome = pending.outcome
        if isinstance(outcome, OSError):
            raise local_lookup_error(outcome.errno, name.decode()) from outcome
        if outcome is not None and not isinstance(outcome, str):
            return Known(outcome, self._cache.clamped(outcome.ttl, negative=not outcome.records))
        if old is None:
            assert outcome is not None
            raise _failure(name, kind, outcome)
        if outcome is None and self.nursery is None:
            # Nobody will hear the answer. Without this, the next call would wait as long again.
            self._cache.fail(key, f"no answer in {STALE_AFTER} s", current_time())
        return old

    def _leave_alone(self, key: _Key, pending: _Pending) -> None:
        """Nobody waits for a question any longer: drop it, or let a task of the block wait a little."""
        now = current_time()
        if self.nursery is not None and pending.is_run:
            pending.forget_at = now + LINGER
            pending.lot.unpark_all()  # its task has to look at the clock
        else:
            self._drop(key, pending)

    def _drop(self, key: _Key, pending: _Pending) -> None:
        pending.tries.abandoned(current_time())
        pending.close()
        del self._pending[key]

    async def _wait(self, key: _Key, pending: _Pending) -> None:
        while pending.outcome is None:
            if pending.is_run:
                await pending.lot.park()
                continue
            pending.is_run = True
            if self.nursery is not None:
                self.nursery.start_soon(self._run_in_block, key, pending, name=f"question for {key[0].decode()}")
                continue
            try:
                await self._run(key, pending)
            finally:
                pending.is_run = False
                pending.lot.unpark_all()  # when this was a cancel, another one goes on

    @enable_ki_protection
    async def _run_in_block(self, key: _Key, pending: _Pending) -> None:
        try:
            await self._run(key, pending)
        except trio.Cancelled:
            # The block ends, but perhaps not yet: a task that cleans up behind a shield of its own may hold it up.
            self.nursery = None
            raise
        finally:
            pending.is_run = False
            if pending.outcome is None and not pending.waiting and self._pending.get(key) is pending:
                self._drop(key, pending)
            pending.lot.unpark_all()  # when the block has been left, those who wait go on by themselves

    async def _run(self, key: _Key, pending: _Pending) -> None:
        """Run a question until it has an outcome, or nobody wants one."""
        error: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                for exchange in pending.exchanges.values():
                    nursery.start_soon(self._listen, key, pending, exchange)
                await self._ask_servers(key, pending, nursery)
                nursery.cancel_scope.cancel()
        except BaseException as exc:  # noqa: BLE001 - raised below, out of the nursery's group
            error = out_of_the_group(exc)
        if pending.outcome is not None:
            pending.close()
        if error is not None:
            try:
                raise error
            finally:
                del error

    async def _ask_servers(self, key: _Key, pending: _Pending, nursery: trio.Nursery) -> None:
        tries = pending.tries
        while pending.outcome is None:
            now = current_time()
            if pending.forget_at <= now:
                return
            for server in tries.due(now):
                exchange = pending.exchanges.get(server)
                if exchange is None:
                    exchange = pending.exchanges[server] = Exchange(server, pending.question)
                    nursery.start_soon(self._listen, key, pending, exchange)
                else:
                    nursery.start_soon(self._send_again, exchange)
            if tries.is_over(now):
                tries.expired(now)
                self._end(key, pending, self._why(pending))
                return
            with trio.CancelScope(deadline=min(tries.deadline, pending.forget_at)):
                await pending.lot.park()

    @enable_ki_protection
    async def _send_again(self, exchange: Exchange) -> None:
        try:
            await exchange.send()
        except OSError:
            pass  # the task that listens gets an error of its own, or an answer

    @enable_ki_protection
    async def _listen(self, key: _Key, pending: _Pending, exchange: Exchange) -> None:
        tries, server = pending.tries, exchange.server
        try:
            reply = await exchange.reply()
        except OSError as exc:
            if exc.errno in SHORTAGE:
                if pending.outcome is None:
                    self._end(key, pending, exc)
                return
            pending.reasons[server] = strerror(exc.errno) if exc.errno else str(exc)
            tries.failed(server, current_time(), silent=True)
        else:
            if reply.error is None:
                tries.answered(server)
                if pending.outcome is None:  # two answers may come in one pass of the loop
                    self._end(key, pending, reply)
                return
            pending.reasons[server] = reply.error
            tries.failed(server, current_time(), silent=False)
            if reply.is_final and pending.outcome is None:
                self._cache.fail(key, f"{server} has {reply.error}", current_time(), kept=MALFORMED_KEPT)
                self._finish(key, pending, f"{server} has {reply.error}")
        pending.lot.unpark_all()

    def _end(self, key: _Key, pending: _Pending, outcome: Reply | OSError | str) -> None:
        now = current_time()
        if isinstance(outcome, str):
            self._cache.fail(key, outcome, now)
        elif not isinstance(outcome, OSError):
            self._cache.keep(key, outcome, outcome.ttl, now, negative=not outcome.records)
        self._finish(key, pending, outcome)

    def _finish(self, key: _Key, pending: _Pending, outcome: Reply | OSError | str) -> None:
        del self._pending[key]
        pending.outcome = outcome
        pending.lot.unpark_all()

    def _why(self, pending: _Pending) -> str:
        said = (f"{server}: {pending.reasons.get(server, 'no answer')}" for server in pending.exchanges)
        late = f" in {LIFETIME:g} s" if len(pending.reasons) < len(pending.exchanges) else ""
        return f"no name server has answered{late} ({', '.join(said)})"


def _usable(found: Found[Reply]) -> Known | None:
    return None if found.value is None else Known(found.value, found.ttl)


def _failure(name: bytes, kind: RecordType, why: str) -> socket.gaierror:
    return socket.gaierror(socket.EAI_AGAIN, f"{kind} of {printable(name.decode())}: {why}")
