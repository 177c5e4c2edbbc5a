"""`connect_each`: many peers, one socket each, results in the order of completion.

A feeder takes endpoints from the caller's iterable while there is room. The reactor connects them, or a task each where
there is no reactor to be had or none can help: socket factories, proxies, systems without epoll. What has completed
stands in a queue until the caller's loop takes it, and only then its place is free again.
"""

# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false
# Users see the object that the block gives, and of it only what iterates.

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from math import inf
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias, cast, final

import trio
from trio import CancelScope, current_time
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, enable_ki_protection

from .._check import check_size
from .._deadline import to_seconds
from .._endpoint import Endpoint, EndpointLike, Source, as_endpoint, check_connectable
from .._options import DEFAULT_OPTIONS, SocketOptions, check_options
from .._policy import DEFAULT_ATTEMPT_TIMEOUT, RacePolicy
from .._text import shown
from .attempt import Attempt, load_reports
from .race.attempts import took_too_long
from .race.candidates import close_generator
from .race.errors import out_of_a_block, out_of_the_group
from .reactor.attempt import ReactorAttempt
from .reactor.reactor import Reactor
from .sockets.open import factory_installed
from .streams.tcp_stream import TcpStream
from .tcp import tcp_connect
from .waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["connect_each"]

Outcome: TypeAlias = "TcpStream | OSError"
Result: TypeAlias = "tuple[Endpoint, Outcome]"

_NOTHING: Final[Mapping[Any, str]] = MappingProxyType({})
"""What was skipped of a connect that had one candidate; a dict for each stream would be one more to be collected."""
_SHARE: Final = 64
"""So many endpoints are taken, or sockets closed, before other tasks have their turn."""


def connect_each(
    endpoints: Iterable[EndpointLike] | AsyncIterable[EndpointLike],
    deadline: int = -1,
    *,
    limit: int = 1000,
    attempt_timeout: float = DEFAULT_ATTEMPT_TIMEOUT,
    source: Source | None = None,
    options: SocketOptions = DEFAULT_OPTIONS,
) -> AbstractAsyncContextManager[AsyncIterator[tuple[Endpoint, TcpStream | OSError]]]:
    """Connect to many peers, each once, and go through the results in the order of completion::

        async with connect_each(endpoints, limit=500) as each:
            async for endpoint, outcome in each:
                print(endpoint, "closed" if isinstance(outcome, OSError) else "open")

    Every endpoint that is taken from `endpoints` has one result. A stream that was handed out is the caller's. Leaving
    the block ends what is pending, and closes what was not handed out.

    Args:
      endpoints: numeric addresses; any iterable or async iterable, also one without an end. An endpoint is taken when
        there is room for its connect, so a loop that is slow holds up the connects, and nothing piles up. An async
        generator is closed at the end; a channel stays open, and what was not taken from it is still there.
      deadline: milliseconds on the clock of `now()`, for every connect; -1 for none. What has no result by then has a
        `DeadlineExceeded`, and what begins later has one too, without a packet. With 0 each is one try.
      limit: how many connects may be under way or not handed out.
      attempt_timeout: how many seconds one connect may take; its outcome is then a `TimeoutError`. `math.inf` leaves it
        to the kernel and the deadline.
      source: the address, interface or port to connect from, or the proxy to connect through, see `Source`.
      options: what to set on each socket before it connects.

    Returns:
      An async context manager; what it gives is an async iterator, for one task, of endpoints and their outcomes: a
      `TcpStream`, or the `OSError` that `tcp_connect` would have raised.

    Raises:
      ImportError: from the loop: the source has a proxy, and python-socks is not installed.
      TypeError: an argument has the wrong type; from the loop, what is no endpoint.
      ValueError: a number is out of range; from the loop, an endpoint that is a name, is malformed or has port 0, or
        of whose family the source has no address.
      trio.BusyResourceError: from the loop: another task is in it.
      trio.ClosedResourceError: from the loop: the block has been left, or cancelled.
      Exception: from the loop: what the iterable raised.
    """
    if isinstance(endpoints, str | bytes | Endpoint) or not isinstance(endpoints, Iterable | AsyncIterable):
        raise TypeError(f"endpoints must be an iterable of Endpoint or (host, port), got {shown(endpoints)}")
    until = to_seconds(deadline)
    check_size(limit, "limit", 1)
    RacePolicy(attempt_timeout=attempt_timeout)  # which says what is wrong with it
    if source is not None and not isinstance(source, Source):
        raise TypeError(f"source must be a Source, got {shown(source)}")
    check_options(options)
    load_reports()
    each = ConnectEach(until, deadline, limit, attempt_timeout, source, options)
    return _opened(each, endpoints)


@asynccontextmanager
@enable_ki_protection  # Ctrl-C must not come between the end of the tasks and the closing of what they left
async def _opened(each: ConnectEach, endpoints: Any) -> AsyncGenerator[AsyncIterator[Result], None]:
    body: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            each._start(nursery)
            nursery.start_soon(each._feed, endpoints)
            try:
                yield each
            except BaseException as exc:  # noqa: BLE001 - raised again below: the nursery would wrap it in a group
                body = exc
            each._leave()
            nursery.cancel_scope.cancel()
    except BaseException as exc:  # noqa: BLE001 - likewise
        body = out_of_a_block(body, out_of_the_group(exc))
    finally:
        with CancelScope(shield=True):
            await each._close()
    if body is not None:
        try:
            raise body
        finally:
            del body


@final
class ConnectEach(AsyncIterator["Result"]):
    """The results of one `connect_each`."""

    def __init__(
        self,
        until: float,
        deadline: int,
        limit: int,
        attempt_timeout: float,
        source: Source | None,
        options: SocketOptions,
    ) -> None:
        self._until = until
        self._attempt_timeout = attempt_timeout
        self._source = source
        self._options = options
        self._deadline = deadline
        self._limit = limit
        # With room for a few only the feeder is left alone: to wake it for each would cost as much as half a connect.
        self._batch = max(1, min(_SHARE, limit // 16))
        self._reactor: Reactor | None = None
        self._nursery: trio.Nursery | None = None
        self._pending: set[EachAttempt] = set()
        self._results: deque[Result] = deque()
        self._taken = 0
        """How many were taken from the iterable and not handed out."""
        self._exhausted = self._closed = False
        self._error: Exception | None = None
        self._feeder = Waiter()
        self._reader = Waiter()
        self._is_read = False
        """Whether a task is in `__anext__`, parked or on its way."""

    # ------------------------------------------------------------------ the caller's loop

    @enable_ki_protection  # Ctrl-C cannot come between taking a result and handing it out
    async def __anext__(self) -> Result:
        """Return the oldest result that was not handed out. A call that is cancelled has taken nothing."""
        if self._is_closed():
            await self._refuse()
        if self._is_read:
            raise trio.BusyResourceError("another task waits for the results of this connect_each")
        self._is_read = True
        try:
            if self._results or self._has_something():
                await checkpoint()
            while not (self._results or self._is_closed() or self._has_something()):
                await self._reader.park(inf)
        finally:
            self._is_read = False
        if self._is_closed():
            await self._refuse()
        if self._results:
            result = self._results.popleft()
            self._taken -= 1
            if self._feeder.task is not None and self._limit - self._taken >= self._batch:
                self._feeder.wake()
            return result
        if self._error is not None:
            error, self._error = self._error, None
            try:
                raise error
            finally:
                del error
        raise StopAsyncIteration

    def _has_something(self) -> bool:
        return bool(self._results) or self._error is not None or (self._exhausted and not self._taken)

    def _is_closed(self) -> bool:
        return self._closed

    async def _refuse(self) -> NoReturn:
        await checkpoint()  # where a loop that is cancelled together with its block hears of that
        raise trio.ClosedResourceError("the block of this connect_each has been left or cancelled")

    # ------------------------------------------------------------------ taking endpoints

    @enable_ki_protection  # or Ctrl-C could come between opening a descriptor and the code that closes it
    def _start(self, nursery: trio.Nursery) -> None:
        """Have a reactor, if there is one to be had and it can help."""
        self._nursery = nursery
        if not factory_installed() and (self._source is None or self._source.proxy is None):
            self._reactor = Reactor.open()
        nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        """Run the reactor. A cancel from outside leaves the block for a loop that goes on under a shield of its own."""
        try:
            if self._reactor is not None:
                await self._reactor.run()
            await trio.sleep_forever()
        finally:
            self._leave()

    async def _feed(self, endpoints: Any) -> None:
        """Take endpoints while there is room, and begin to connect to them."""
        try:
            if isinstance(endpoints, AsyncIterable):
                await self._feed_async(cast("AsyncIterable[EndpointLike]", endpoints))
            else:
                await self._feed_sync(cast("Iterable[EndpointLike]", endpoints))
        except Exception as exc:  # noqa: BLE001 - the caller's iterable raised it, and the caller's loop raises it
            self._error = exc
        self._exhausted = True
        if self._has_something():
            self._reader.wake()

    async def _feed_sync(self, endpoints: Iterable[EndpointLike]) -> None:
        iterator = iter(endpoints)
        for number in count(1):
            if self._taken >= self._limit:
                await self._room()
            if not number % _SHARE:
                await checkpoint()
            try:
                item = next(iterator)
            except StopIteration:
                return
            self._begin(item)

    async def _feed_async(self, endpoints: AsyncIterable[EndpointLike]) -> None:
        iterator = aiter(endpoints)
        try:
            await self._room()
            async for item in iterator:
                self._begin(item)
                await self._room()
        finally:
            await close_generator(iterator)

    async def _room(self) -> None:
        while self._taken >= self._limit:
            await self._feeder.park(inf)

    @enable_ki_protection
    def _begin(self, item: EndpointLike) -> None:
        endpoint = item if isinstance(item, Endpoint) else as_endpoint(item)
        if not endpoint.port:
            check_connectable(endpoint)
        if self._source is not None:
            self._source.check(endpoint)
        self._taken += 1
        reactor = self._reactor
        if reactor is None:
            self._connect_in_task(endpoint)
        else:
            attempt = EachAttempt(endpoint, reactor, self)
            self._pending.add(attempt)
            reactor.begin_soon(attempt)

    # ------------------------------------------------------------------ connecting

    def _connect_in_task(self, endpoint: Endpoint) -> None:
        """Connect where no reactor can wait for it."""
        assert self._nursery is not None
        self._nursery.start_soon(self._connect, endpoint)

    @enable_ki_protection  # Ctrl-C cannot come between a stream and the results
    async def _connect(self, endpoint: Endpoint) -> None:
        started = current_time()
        outcome: Outcome | None = None
        limit = started + self._attempt_timeout
        try:
            # At the same instant the deadline counts, as over a reactor and in a race.
            with CancelScope(deadline=limit if limit < self._until else inf):
                outcome = await tcp_connect(endpoint, self._deadline, source=self._source, options=self._options)
        except OSError as exc:
            exc.__traceback__ = exc.__context__ = None  # they would keep all that this task had
            outcome = exc
        except Exception as exc:  # noqa: BLE001 - an ImportError of an optional dependency, for the caller's loop
            self._error = exc
            self._taken -= 1
            self._feeder.wake()
            self._reader.wake()
            return
        if outcome is None:
            outcome = took_too_long(Attempt(endpoint, self._source, started), current_time())
        self._completed(endpoint, outcome)

    def _completed(self, endpoint: Endpoint, outcome: Outcome) -> None:
        """Note a result."""
        self._results.append((endpoint, outcome))
        self._reader.wake()

    # ------------------------------------------------------------------ leaving

    def _leave(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        self._reader.wake()

    @enable_ki_protection
    async def _close(self) -> None:
        """Close everything that was not handed out. No task may be left."""
        closed = 0
        error: BaseException | None = None
        while self._pending or self._results:
            # The other sockets have to be closed too, whatever a factory's socket raises.
            try:
                if self._pending:
                    self._pending.pop().stop()
                else:
                    _, outcome = self._results.popleft()
                    if isinstance(outcome, TcpStream):
                        outcome._close_now()  # as the race does
            except BaseException as exc:  # noqa: BLE001 - raised when everything is closed
                error = error or exc
            closed += 1
            if not closed % _SHARE:
                await cancel_shielded_checkpoint()
        if self._reactor is not None:
            self._reactor.close()
            self._reactor = None
        if error is not None:
            try:
                raise error
            finally:
                del error


@final
class EachAttempt(ReactorAttempt):
    """One connect of a `connect_each`, over its reactor."""

    __slots__ = ("_each", "timeout")

    def __init__(self, endpoint: Endpoint, reactor: Reactor, each: ConnectEach) -> None:
        super().__init__(endpoint, each._source, each._until, each._options, reactor)
        self.timeout = each._attempt_timeout
        self._each = each

    def connected(self) -> None:
        each = self._each
        each._pending.discard(self)
        sock = self.sock
        assert sock is not None
        if self.watched >= 0:  # from here on it is an ordinary stream, which Trio waits for
            self._reactor.unwatch(self.watched)
        options = each._options
        multipath = None if options is DEFAULT_OPTIONS else self.multipath_info(options)
        endpoint = self.endpoint
        facts = ((self.source, endpoint),), _NOTHING, self.started, self._reactor.clock(), multipath
        each._completed(endpoint, TcpStream(sock, endpoint, facts))

    def failed(self, error: OSError) -> None:
        self._each._pending.discard(self)
        self._each._completed(self.endpoint, error)

    def too_late(self) -> OSError:
        if self.until < self._each._until:
            return took_too_long(self, current_time())
        return super().too_late()

    def needs_task(self) -> None:
        self._each._pending.discard(self)
        self._each._connect_in_task(self.endpoint)
