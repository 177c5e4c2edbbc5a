"""Queue sets: where tokens are waited for."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from math import inf
from typing import Any, Final, TypeVar, Unpack, cast, final

import trio
from trio.lowlevel import checkpoint, enable_ki_protection

from .._check import check_int, check_size
from .._deadline import NO_DEADLINE, check_deadline, to_seconds
from .._endpoint import EndpointLike
from .._net.race.candidates import checked, pair_up
from .._net.race.plan import TcpRaceOptions, check_fast_open, check_race_options
from .._options import DEFAULT_OPTIONS, SocketOptions, check_options
from .._policy import DEFAULT_POLICY
from .._text import shown
from ._datagram_transport import DatagramTransport
from ._interface import IOQueue, QResult, QToken
from ._queue import SocketQueue
from ._scheduler import Scheduler
from ._stream_transports import TcpTransport, UnixTransport
from ._values import Completion, Connected

V = TypeVar("V", bound=Completion)

DEFAULT_LIMIT: Final = 4096


@asynccontextmanager
@enable_ki_protection  # Ctrl-C must not come between the end of the tasks and the closing of what they left
async def open_queue_set(max_in_flight: int = DEFAULT_LIMIT) -> AsyncGenerator[QueueSet, None]:
    """Open a queue set: it owns the task that waits for its operations, and every socket of its queues.

    Leaving the context cancels what is pending and closes every queue, also those of accepted connections. Results that
    were not claimed are dropped, and their queues are closed.

    A cancel from outside completes what is pending with ECANCELED, and from then on submissions are EBADF, but for
    closes: so a clean-up of the body's, under a shield of its own, can claim results and close queues.

    An exception of the body comes out as it is, also when a cancel comes in the same pass. An operation that raises
    anything but an `OSError` is a bug, in this library or in an iterable or observer that it was given: it ends the
    set, cancels the body and comes out as it is. Only several exceptions at a time come out as a group.

    Args:
      max_in_flight: how many operations may be submitted and not claimed. One more is EAGAIN; `QueueSet.room` waits.

    Yields:
      The set.

    Raises:
      TypeError: `max_in_flight` is not an int.
      ValueError: it is below 1.
    """
    check_size(max_in_flight, "max_in_flight", 1)
    alone: BaseException | None = None
    body: BaseExceptionGroup[BaseException] | None = None
    scheduler: Scheduler | None = None
    try:
        async with trio.open_nursery() as nursery:
            scheduler = Scheduler(nursery, max_in_flight)
            scheduler.start()
            try:
                yield QueueSet(scheduler)
            except BaseExceptionGroup as group:
                body = group
                raise
            finally:
                scheduler.leave()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery's group is an implementation detail, so it is unwrapped. Cancellations are dropped when something
        # else happened in the same pass.
        alone, *others = [exc for exc in group.exceptions if not _only_cancelled(exc)] or group.exceptions[:1]
        if others:
            raise
        # A nursery copies the groups that pass through it, to take out what it cancelled itself.
        if body is not None and body.split(trio.Cancelled)[0] is None:
            alone = body
    finally:
        if scheduler is not None:
            with trio.CancelScope(shield=True):
                await scheduler.end()
    if alone is not None:
        try:
            raise alone
        finally:
            del alone, body


@final
class QueueSet:
    """Submit operations to queues and reap their results in the order of completion. Made by `open_queue_set`.

    A set, its queues and its tokens belong to one thread.
    """

    __slots__ = ("_scheduler",)

    def __init__(self, scheduler: Scheduler) -> None:
        if not isinstance(scheduler, Scheduler):
            raise TypeError("a QueueSet is made by open_queue_set(), not directly")
        self._scheduler = scheduler

    # ------------------------------------------------------------------ queues

    def stream(self, *, options: SocketOptions = DEFAULT_OPTIONS) -> IOQueue:
        """Return a new queue for TCP. Nothing is opened yet.

        Args:
          options: set on the socket once there is one; accepted connections have them too.

        Raises:
          OSError: EBADF, the set has ended.
          TypeError: `options` is not a `SocketOptions`.
        """
        if options is not DEFAULT_OPTIONS:
            check_options(options)
        scheduler = self._scheduler
        if scheduler.stopped:
            scheduler.check_running()
        return SocketQueue(scheduler, TcpTransport(options))

    def datagram(self) -> IOQueue:
        """Return a new queue for UDP. Nothing is opened yet.

        Raises:
          OSError: EBADF, the set has ended.
        """
        self._scheduler.check_running()
        return SocketQueue(self._scheduler, DatagramTransport())

    def unix(self) -> IOQueue:
        """Return a new queue for unix-domain streams. Nothing is opened yet.

        Raises:
          OSError: EBADF, the set has ended.
        """
        self._scheduler.check_running()
        return SocketQueue(self._scheduler, UnixTransport())

    def connectx(
        self,
        endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
        deadline: int = -1,
        *,
        data: object = None,
        **options: Unpack[TcpRaceOptions],
    ) -> QToken[Connected]:
        """Submit a race of connects to one peer, as `trio_connect.connectx` runs it: one token for all of it.

        Args:
          endpoints: numeric addresses of one peer, best first; those of an async iterable join as they come. An async
            generator is closed before there is a result; a channel stays open.
          deadline: milliseconds on the clock of `now()`; -1 for none. When it comes first the result's error is
            `DeadlineExceeded`.
          data: anything of the caller's; it is the result's `data`.
          **options: those of `trio_connect.connectx`.

        Returns:
          A token whose `queue`, like its result's, is a new queue that the race connects.

        Raises:
          OSError: EAGAIN, as many operations are submitted and not claimed as the set allows; EBADF, the set has ended.
          TypeError: an argument has the wrong type.
          ValueError: there are no endpoints, one is a name or has port 0, the delay is `Adaptive` without a `history`,
            there is an `address_filter` that cannot judge every address (see `trio_connect.connectx`), or the deadline
            is below -1.
        """
        check_deadline(deadline)
        check_race_options(
            options.get("policy", DEFAULT_POLICY),
            options.get("sources", ()),
            options.get("address_filter"),
            options.get("observer"),
            options.get("options", DEFAULT_OPTIONS),
            None,
            history=options.get("history"),
            nat64=options.get("nat64"),
        )
        unknown = options.keys() - TcpRaceOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"connectx() got unexpected keyword arguments: {', '.join(sorted(unknown))}")
        if not isinstance(endpoints, AsyncIterable):
            endpoints = checked(endpoints)
            if not endpoints:
                raise ValueError("connectx needs at least one endpoint, got none")
            # The race asks the filter, once for each endpoint.
            pairs, _ = pair_up(endpoints, options.get("sources", ()), None)
            candidates = float(len(set(pairs)))
        else:
            candidates = inf
        check_fast_open(options.get("options", DEFAULT_OPTIONS), None, candidates=candidates)
        self._scheduler.check_thread()
        self._scheduler.check_running()
        self._scheduler.check_room("connectx")
        queue = SocketQueue(self._scheduler, TcpTransport(), "connecting")
        # Not part of the interface: this new queue is the only one that a race is submitted to.
        return queue._submit_race(endpoints, deadline, options, data)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]

    # ------------------------------------------------------------------ waiting

    async def wait(self, token: QToken[V], deadline: int = -1) -> QResult[V]:
        """Claim the result of one operation, waiting for it if need be. Always a checkpoint.

        A wait that is cancelled or too late loses nothing: the operation goes on, and its result can be claimed later.

        Args:
          token: of this set, not claimed yet.
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 to look once, after one pass of the loop.

        Returns:
          The result, whose `error` is None for an operation that succeeded.

        Raises:
          DeadlineExceeded: the operation has not completed by then.
          OSError: EINVAL, the token was claimed already or belongs to another set; EBADF, the set has ended.
          RuntimeError: called from another thread than the set's.
          TypeError: not a token, or no deadline.
          trio.BusyResourceError: another task waits for this token.
          ValueError: the deadline is below -1.
        """
        until = to_seconds(deadline)
        if not isinstance(token, QToken):
            raise TypeError(f"a token is a QToken, got {shown(token)}")
        _, result = await self._scheduler.wait((token,), until)
        return cast("QResult[V]", result)

    async def wait_any(self, tokens: Iterable[QToken[V]], deadline: int = -1) -> tuple[int, QResult[V]]:
        """Claim the result of whichever of these operations completed first. Always a checkpoint.

        Each call checks every token. To reap many results, `wait_next` and `completions` are cheaper.

        Args:
          tokens: of this set, not claimed yet, each once.
          deadline: milliseconds on the clock of `now()`; -1 for none, 0 to look once, after one pass of the loop.

        Returns:
          The token's index in `tokens`, and its result. The other tokens are as they were.

        Raises:
          DeadlineExceeded: no operation has completed by then.
          OSError: EINVAL, there is no token, a token is named twice, was claimed already or belongs to another set;
            EBADF, the set has ended.
          RuntimeError: called from another thread than the set's.
          TypeError: not tokens, or no deadline.
          trio.BusyResourceError: another task waits for one of them.
          ValueError: the deadline is below -1.
        """
        until = to_seconds(deadline)
        listed = _check_tokens(tokens)
        token, result = await self._scheduler.wait(listed, until)
        return listed.index(token), cast("QResult[V]", result)

    async def wait_next(self, n: int, deadline: int = -1) -> list[QResult[Any]]:
        """Claim the results of the operations that completed first. Always a checkpoint.

        A token that a task waits for by name is left to that task.

        Args:
          n: how many to claim at most.
          deadline: when to stop waiting for all `n`, in milliseconds on the clock of `now()`; 0 takes what is there
            after one pass of the loop. With -1 this returns as soon as there is one result, so that a batch which
            cannot be filled does not wait for ever.

        Returns:
          The oldest completion first. Fewer than `n` at the deadline, or when everything submitted has completed;
          empty when there was nothing at the deadline.

        Raises:
          OSError: EINVAL, `n` is below 1; EBADF, the set has ended, or was cancelled and has nothing left to wait for.
          RuntimeError: called from another thread than the set's.
          TypeError: `n` or the deadline is not an int.
          ValueError: the deadline is below -1.
        """
        until = to_seconds(deadline)
        if check_int(n, "n") < 1:
            await checkpoint()
            raise OSError(errno.EINVAL, f"wait_next: n is at least 1, got {shown(n)}")
        check_size(n, "n", 1)
        want = 1 if deadline == NO_DEADLINE else n
        return await self._scheduler.reap(n, want, until, ends=False)

    def completions(self) -> AsyncIterator[QResult[Any]]:
        """Iterate over results in the order of completion, claiming each, until nothing is submitted and unclaimed.

        What the loop's body submits is reaped too. A token that a task waits for by name is left to that task.

        Returns:
          An iterator that waits for each result.

        Raises:
          OSError: EBADF, the set has ended.
          RuntimeError: used in another thread than the set's.
        """
        return _Completions(self._scheduler)

    async def room(self, n: int = 1) -> None:
        """Wait until `n` more submissions fit. Always a checkpoint.

        Nothing is reserved: submit before the next checkpoint. Several tasks that wait get their turns in order.

        Args:
          n: how many submissions are to fit; at least 1, at most `max_in_flight`.

        Raises:
          OSError: EBADF, the set has ended.
          RuntimeError: called from another thread than the set's.
          TypeError: `n` is not an int.
          ValueError: `n` is below 1, or more than the set ever takes.
        """
        check_size(n, "n", 1)
        if n > self.max_in_flight:
            raise ValueError(f"n is at most max_in_flight, {self.max_in_flight}, got {shown(n)}")
        await self._scheduler.room(n)

    # ------------------------------------------------------------------ numbers

    @property
    def in_flight(self) -> int:
        """How many operations are submitted and not claimed."""
        return self._scheduler.table.count

    @property
    def max_in_flight(self) -> int:
        """How many may be submitted and not claimed."""
        return self._scheduler.table.limit

    def __repr__(self) -> str:
        return f"<QueueSet {self.in_flight} of {self.max_in_flight} in flight>"


@final
class _Completions:
    """The iterator of `QueueSet.completions`; not a generator, so leaving it half-way needs no clean-up."""

    __slots__ = ("_scheduler",)

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def __aiter__(self) -> _Completions:
        return self

    async def __anext__(self) -> QResult[Any]:
        for result in await self._scheduler.reap(1, 1, inf, ends=True):
            return result
        raise StopAsyncIteration


def _only_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _check_tokens(tokens: object) -> Sequence[QToken[Any]]:
    given = tokens
    if isinstance(tokens, QToken) or not isinstance(tokens, Iterable):
        raise TypeError(f"tokens must be an iterable of QToken, got {shown(given)}")
    listed = list(cast("Iterable[QToken[Any]]", tokens))
    for token in listed:
        if not isinstance(token, QToken):
            raise TypeError(f"tokens must be an iterable of QToken, got {shown(token)} in it")
    return listed
