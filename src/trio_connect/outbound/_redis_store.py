"""Limits that the processes of several machines share, in a Redis or a Valkey."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from math import inf
from os import getpid
from random import random
from secrets import token_hex
from types import TracebackType
from typing import Any, Final, final

import trio
from trio import current_time
from trio.lowlevel import ParkingLot, checkpoint, enable_ki_protection

from .._check import SIZE_LIMIT, check_float
from .._engine.limits import Cap, Pace, Place
from .._text import shown
from ._redis import Dropped, Refused, Server, ServerError, check_url, hidden
from ._redis_claim import Question
from ._redis_claims import Claims, Held
from ._redis_scripts import ACQUIRE, RELEASE, RENEW
from ._store import CLOSED, Later

__all__ = ["RedisStore"]

_LEAST_TTL: Final = 0.5
_LONGEST_ANSWER: Final = 1.0
"""Seconds after which an answer is not waited for any more."""
_PROBE: Final = 0.2
"""Seconds between two looks whether the server is back, about."""
_FAREWELL: Final = 0.5
"""Seconds that giving everything back may take at the end."""
_MOST_ASKED: Final = 64
"""How many questions are under way at once. Each costs this process a millisecond or less, and all of them together
must be answered long before `_LONGEST_ANSWER`: else many calls at once would look like a server that is away."""
_CHUNK: Final = 500
"""How many leases one script prolongs: it holds everybody up."""


@final
class RedisStore:
    """Limits that all processes share which name the same database of a Redis or Valkey server. Needs `coredis`.

    A connection holds a lease, which the store renews. The leases of a process that was killed run out. Waiting calls
    ask again from time to time: in one process they are admitted in their order, between processes there is no order,
    but each has its share.

    A server that was started again, is new, or has taken over grants nothing for one TTL, until those who hold
    something have registered again.

    While the server is away, connections live on, and each process admits its own share of the limits: by the number of
    processes that it has last heard of. So as many may be there as the limit and these shares together, at most twice
    the limit. With `strict` there are never more than the limit. Nothing is admitted then, and what is held is given
    up before its lease can run out: the stream of a connection is closed, and the block of a permit is cancelled and
    raises `LeaseLost`.

    Args:
      url: ``redis://``, ``rediss://`` or ``unix://``, as coredis takes it. Its password is never shown.
      ttl: seconds, at least 0.5, after which a lease runs out that was not renewed. The same in all processes.
      strict: whether nothing is held without a lease, nor by what outlives the block of the outbound.

    Raises:
      ImportError: coredis is not installed.
      OSError: a file with certificates that the URL names cannot be read.
      TypeError: an argument has the wrong type.
      ValueError: the URL is not one of a server, or the TTL is too short, not finite, or as large as a deadline.
    """

    def __init__(self, url: str, *, ttl: float = 10.0, strict: bool = False) -> None:
        if not _LEAST_TTL <= check_float(ttl, "ttl", "a number of seconds") < inf:
            raise ValueError(f"ttl must be at least {_LEAST_TTL} seconds, and finite, got {shown(ttl)}")
        if ttl >= SIZE_LIMIT:
            raise ValueError(f"ttl must be below 2**40 seconds, got {shown(ttl)}: a deadline?")
        given: object = strict
        if not isinstance(given, bool):
            raise TypeError(f"strict must be a bool, got {shown(strict)}")
        self._url = check_url(url)
        self._ttl = float(ttl)
        self._strict = strict
        self._patience = min(self._ttl / 4, _LONGEST_ANSWER)
        self._claims: Claims | None = None
        self._nursery: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._shields: list[trio.CancelScope] = []
        """Of the tasks, each of its own."""
        self._server: Server | None = None
        self._calls = 0
        """How many scripts are under way."""
        self._asking = 0
        """How many tasks ask or give back."""
        self._unreachable: Callable[[], ServerError] | None = None
        """Makes the error of the last try to connect, if that has failed."""
        self._is_refusing = False
        """Whether what made it away was an error for an answer."""
        self._broken = trio.Event()
        self._news = ParkingLot()
        self._work = trio.Event()
        self._answered = trio.Event()
        self._probe = trio.Event()
        self._changed: Callable[[str, str], None] = _nobody
        self._lost: Callable[[], None] = _nobody

    def __repr__(self) -> str:
        return f"RedisStore({hidden(self._url)!r}, ttl={self._ttl:g}, strict={self._strict})"

    async def __aenter__(self) -> RedisStore:
        if self._claims is not None:
            raise ValueError(f"{self!r} is in use by another outbound: each has one of its own")
        process = f"{getpid()}-{token_hex(8)}"
        self._unreachable = None
        self._asking = 0
        self._claims = Claims(process, self._ttl, strict=self._strict, draw=random, wake=self._set_to_work)
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        self._shields = []
        for task in (self._connect, self._ask, self._tell_of_answers, self._renew, self._watch):
            self._shields.append(trio.CancelScope(shield=True))
            nursery.start_soon(self._run, task, self._shields[-1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None:
        claims, manager = self._claims, self._nursery
        assert claims is not None
        assert manager is not None
        try:
            self._lose(claims.stop())
            # Those who wait outlive the block. Nothing else would tell them.
            self._tell()
            self._changed = _nobody
            self._lost = _nobody
            with trio.CancelScope(deadline=current_time() + min(_FAREWELL, self._patience), shield=True):
                # The server may hear of two calls in any order. So what takes or prolongs a lease has ended before.
                while claims.is_asking or self._calls:
                    await self._news.park()
                await self._give_back(claims.everything())
        finally:
            for shield in self._shields:
                shield.cancel("the store is closed")
            try:
                # What left the block goes its own way: the nursery would wrap it in a group.
                await manager.__aexit__(None, None, None)
            finally:
                self._claims = self._nursery = None

    # The seam

    @property
    def may_lose(self) -> bool:
        """Whether a place may be lost before it is given back."""
        return self._strict

    def bind(self, changed: Callable[[str, str], None], lost: Callable[[], None]) -> None:
        """Have waiting calls try again when there is an answer, and holders hear of what is lost; for outbounds.

        Args:
          changed: called with what has happened to the store and why, "" for both when calls were answered.
          lost: called when places are lost.
        """
        self._changed, self._lost = changed, lost

    def register(self, caps: Sequence[Cap], paces: Sequence[Pace]) -> None:
        """Do nothing: limits with other numbers are other limits here; for outbounds.

        Args:
          caps: limits on how many at once.
          paces: rates.
        """

    def acquire(self, caps: Sequence[Cap], paces: Sequence[Pace]) -> dict[Cap, Place] | Later:
        """Return the places of a call when the server has given them, else ask it; for outbounds.

        Args:
          caps: limits on how many at once.
          paces: rates.

        Returns:
          the places, or why there is not one and when to ask again.
        """
        if self._claims is None:
            return CLOSED
        outcome = self._claims.acquire(caps, paces, current_time())
        self._set_to_work()
        return outcome

    @property
    def _opened(self) -> Claims:
        assert self._claims is not None, "an outbound enters its store"
        return self._claims

    # Tasks

    # Ctrl-C is for the task that is in the block: between the lines of these it would lose a place that was just given.

    @enable_ki_protection
    async def _run(self, task: Callable[[], Awaitable[None]], shield: trio.CancelScope) -> None:
        """Run a task until the block is left, also after a cancel from outside.

        What is in the block may clean up for long behind a shield of its own. What it holds by then is renewed, and
        lost when it cannot be. What it has no more is given back.
        """
        with shield:
            await task()

    async def _connect(self) -> None:
        """Keep a pool of connections, and make another one when it breaks."""
        while True:
            self._broken = trio.Event()
            try:
                async with Server.opened(self._url) as server:
                    self._server, self._unreachable = server, None
                    self._news.unpark_all()
                    await self._broken.wait()
            except* KeyboardInterrupt:
                # It came into a task of the library's, from which nothing keeps it. Connect anew, to give back what is
                # held, and have Trio take it to the main task.
                signal.raise_signal(signal.SIGINT)
            except* Exception as failures:  # noqa: BLE001 - whatever a library raises, the limits go on
                self._unreachable = _like_the_first(failures)
            finally:
                self._server = None
                self._news.unpark_all()
            if self._unreachable is not None:
                await trio.sleep(_PROBE)

    async def _ask(self) -> None:
        """Ask for the claims of calls, each in a task, and give leases back."""
        claims = self._opened
        async with trio.open_nursery() as nursery:
            while True:
                self._work = trio.Event()
                while claims.has_work and self._asking < _MOST_ASKED:
                    self._asking += 1
                    question = claims.question()
                    nursery.start_soon(self._take_turn, question, claims.releases() if question is None else [])
                await self._work.wait()

    @enable_ki_protection
    async def _take_turn(self, question: Question | None, leases: list[tuple[str, str]]) -> None:
        """Ask a question, or give leases back where there is not one."""
        try:
            await (self._give_back(leases) if question is None else self._claim(question))
        finally:
            self._asking -= 1
            self._set_to_work()
        if question is not None and self._opened.is_kept(question.claim):
            # Whoever has wanted it may have gone.
            await trio.sleep(max(question.claim.until - current_time(), 0.0))
            self._forget()

    async def _claim(self, question: Question) -> None:
        claims, claim = self._opened, question.claim
        asked = current_time()
        try:
            answer = await self._call(ACQUIRE, question.keys, question.arguments)
        except ServerError as exc:
            claims.unreleased(question.releases)
            claims.failed(claim)
            self._is_away(exc)
            return
        except BaseException:
            claims.failed(claim)
            raise
        claims.released(question.releases)
        claims.answered(claim, answer, asked, current_time())
        self._answered.set()

    async def _tell_of_answers(self) -> None:
        """Have waiting calls try again, once for all answers that come in one pass: all of them try each time."""
        while True:
            await self._answered.wait()
            self._answered = trio.Event()
            self._tell()

    async def _give_back(self, leases: list[tuple[str, str]]) -> None:
        try:
            await self._call(RELEASE, [key for key, _ in leases], [id_ for _, id_ in leases])
        except ServerError as exc:
            self._opened.unreleased(leases)
            self._is_away(exc)
        else:
            self._opened.released(leases)

    async def _renew(self) -> None:
        """Prolong every lease three times in a TTL, and find out whether the server is there."""
        claims = self._opened
        while not claims.is_over:
            pause = claims.pause * (1 - 0.1 * random())  # noqa: S311 - jitter
            try:
                await self._renew_all()
            except ServerError as exc:
                self._is_away(exc)
                pause = _PROBE * (0.5 + random())  # noqa: S311 - jitter
            else:
                self._is_back()
            self._forget()
            if claims.away:
                pause = min(pause, _PROBE * 1.5)
            self._probe = trio.Event()
            with trio.move_on_after(pause):
                await self._probe.wait()
                if self._is_refusing:
                    # It may answer this and nothing else. Then both would go on without end, as fast as they can.
                    await trio.sleep(_PROBE * (0.5 + random()))  # noqa: S311 - jitter

    async def _renew_all(self) -> None:
        claims = self._opened
        held = claims.held
        for start in range(0, max(len(held), 1), _CHUNK):
            if claims.is_over:
                return  # leaving waits for this
            part = held[start : start + _CHUNK]
            asked = current_time()
            try:
                answer = await self._call(RENEW, *claims.renewal(part))
            except ServerError:
                claims.unrenewed(part, asked)
                raise
            self._lose(claims.renewed(part, answer, asked))

    async def _watch(self) -> None:
        """End leases that could not be renewed before they run out."""
        claims = self._opened
        while self._strict:
            # A lease is given for so long that this finds it before it ends.
            await trio.sleep_until(min(claims.next_lapse, current_time() + claims.pause))
            self._lose(claims.lapsed(current_time()))

    # Parts

    async def _call(self, script: str, keys: Sequence[str], arguments: Sequence[str]) -> list[Any]:
        """Run a script. Once more when the connection was lost: the server may have been started again meanwhile.

        Raises:
          ServerError: there is no answer for now.
        """
        self._calls += 1
        server: Server | None = None
        try:
            with trio.move_on_after(self._patience):
                for is_last in (False, True):
                    # A checkpoint in any case: a pool that has lost a connection needs one to notice.
                    await checkpoint()
                    while (server := self._server) is None:
                        if self._unreachable is not None:
                            raise self._unreachable()
                        await self._news.park()
                    try:
                        return await server.call(script, keys, arguments)
                    except Dropped:
                        self._drop(server)
                        if is_last:
                            raise
        finally:
            self._calls -= 1
            self._news.unpark_all()
        self._drop(server)
        raise ServerError(f"no answer within {self._patience:g} s")

    def _drop(self, server: Server | None) -> None:
        """Have the server connected to anew: a connection that gives no answer may never give another."""
        if server is not None and server is self._server:
            self._server = None
            self._broken.set()

    @enable_ki_protection
    def _tell(self, what: str = "", cause: str = "") -> None:
        self._changed(what, cause)
        self._set_to_work()

    def _is_away(self, cause: ServerError) -> None:
        was_there = not self._opened.away
        self._is_refusing = isinstance(cause, Refused)
        words = f"{'answers with an error' if self._is_refusing else 'cannot be reached'} ({cause})"
        self._opened.away = f"{hidden(self._url)} {words}"
        if was_there:
            self._probe.set()
            self._tell("store away", f"{self!r} {words}")

    def _is_back(self) -> None:
        if self._opened.away:
            self._opened.away = ""
            self._tell("store back", f"{self!r} answers again")

    @enable_ki_protection
    def _lose(self, places: list[Held]) -> None:
        if places:
            self._lost()

    def _forget(self) -> None:
        claims = self._opened
        claims.forget(current_time())
        self._set_to_work()

    def _set_to_work(self) -> None:
        if self._claims is not None and self._claims.has_work:
            self._work.set()


def _like_the_first(failures: BaseExceptionGroup[Exception]) -> Callable[[], ServerError]:
    """Return what makes an error like the first one of a group; one that was raised again would grow each time."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return partial(Refused if isinstance(failure, Refused) else Dropped, str(failure) or type(failure).__name__)


def _nobody(*_: object) -> None:
    pass
