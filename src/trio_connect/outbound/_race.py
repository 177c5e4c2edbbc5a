"""One race over the candidates of a plan, from one source, by `connectx`.

Two things are added to `connectx`. A candidate with limits of its own takes its place under them only when its turn
comes, because a second address that is never needed would use up its rate each time. A peer that says "not now" ends
the race, with the report of what was tried by then.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import attrs
import trio

from .. import ConnectReport, Endpoint, RaceOptions, RacePolicy, Source, TcpStream, TlsStream, connectx
from .._endpoint import reaches
from .._net.race.establishing import over_tls
from .._net.reports import report_of
from .._outbound_values import Candidate
from .._trace import AttemptFinished, AttemptStarted, RaceFinished, TraceEvent
from ._decisions import Overloaded, overloaded_of

# It says of a stream what the race of a `connect` says of it, which knows names.
# ruff: noqa: SLF001
# pyright: reportPrivateUsage=false

if TYPE_CHECKING:
    import ssl
    from typing import Literal

__all__ = ["Establish", "NotNow", "Tls", "checked_tls", "race_candidates", "with_names"]

Establish = Callable[[Any], Awaitable[Any]]
"""The caller's own test of a connection, see `trio_connect.connectx`."""


@attrs.frozen
class Tls:
    """How a connection is made over TLS; checked."""

    context: ssl.SSLContext | Literal[True]
    server_hostname: str | None
    """The name to verify; None for the address."""


def checked_tls(tls: object, server_hostname: str | None) -> Tls | None:
    """Return how a connection is made over TLS; None for plain TCP.

    Raises:
      TypeError: an argument has the wrong type, or there is a name and no `tls`.
      ValueError: the name is not a possible host name, or the context is for servers.
    """
    if tls is None and server_hostname is None:
        return None
    context = cast("ssl.SSLContext | Literal[True]", tls)
    over_tls(context, server_hostname, None)
    return Tls(context, server_hostname)


class NotNow(Exception):
    """The peer said "not now" in a race."""

    def __init__(self, overloaded: Overloaded, report: ConnectReport) -> None:
        super().__init__(overloaded)
        self.overloaded = overloaded
        self.report = report


async def race_candidates(
    candidates: Sequence[Candidate],
    deadline: int,
    *,
    policy: RacePolicy,
    stagger: float,
    sources: Sequence[Source],
    establish: Establish | None,
    tls: Tls | None,
    acquire: Callable[[Candidate], Awaitable[bool]] | None,
    names: Mapping[Endpoint, str],
) -> tuple[TcpStream | TlsStream, Any]:
    """Return the stream that won, and what establish returned for it.

    Args:
      candidates: what to try, in order.
      deadline: in milliseconds.
      policy: the rules of the race.
      stagger: the seconds after which the next candidate may be tried.
      sources: where to connect from; empty when the kernel chooses.
      establish: the caller's own test.
      tls: how the race goes over TLS; None for plain TCP.
      acquire: takes the place of a candidate under its own limits, and returns False when there is not one; None when
        no candidate has such limits.
      names: the host whose address each is.

    Raises:
      NotNow: the peer said so.
      ConnectFailed: every candidate that could be tried has failed.
      DeadlineExceeded: the deadline came first.
    """
    endpoints: list[Endpoint] | AsyncIterator[Endpoint] = [each.endpoint for each in candidates]
    turns = None
    if acquire is not None:
        turns = _Turns(acquire, candidates, stagger, sources)
        endpoints = turns.endpoints()
    options = RaceOptions(policy=policy, sources=sources)
    if tls is not None:
        options["tls"] = tls.context
        options["server_hostname"] = tls.server_hostname
    if establish is None and turns is None:
        stream = await connectx(endpoints, deadline, **options)
        _name_report(stream, names)
        return stream, None
    watch = options["observer"] = _Watch(turns)
    test = _Test(establish, names)
    try:
        stream = await connectx(endpoints, deadline, establish=test, **options)
    except Overloaded as exc:
        raise NotNow(exc, watch.report) from None
    _name_report(stream, names)
    return stream, test.results.pop(stream)


def with_names(report: ConnectReport, names: Mapping[Endpoint, str]) -> ConnectReport:
    """Return a report whose attempts have the host that each was for. `connectx` knows of addresses only."""
    if not names:
        return report
    attempts = (attrs.evolve(each, host=names.get(each.endpoint)) for each in report.attempts)
    return attrs.evolve(report, attempts=tuple(attempts))


def _name_report(stream: TcpStream | TlsStream, names: Mapping[Endpoint, str]) -> None:
    """Have the report of a connection say for which host it is, when somebody looks."""
    if names:
        tcp = stream.tcp if isinstance(stream, TlsStream) else stream
        recorded = tcp._report
        tcp._set_report(lambda: with_names(report_of(recorded), names))


class _Test:
    """The caller's establish; keeps what it returned beside the stream."""

    def __init__(self, establish: Establish | None, names: Mapping[Endpoint, str]) -> None:
        self._establish = establish
        self._names = names
        self.results: dict[TcpStream | TlsStream, Any] = {}

    async def __call__(self, stream: TcpStream | TlsStream) -> TcpStream | TlsStream:
        tcp = stream.tcp if isinstance(stream, TlsStream) else stream
        tcp._set_host(self._names.get(tcp.peer))
        try:
            self.results[stream] = None if self._establish is None else await self._establish(stream)
        except ExceptionGroup as group:
            # A nursery in the establish has wrapped what its task raised.
            overloaded = overloaded_of(group)
            if overloaded is None:
                raise
            raise overloaded from None
        return stream


class _Watch:
    """An observer of one race: keeps its report, and tells `_Turns` of its attempts."""

    def __init__(self, turns: _Turns | None) -> None:
        self._turns = turns
        self.report = ConnectReport()

    def __call__(self, event: TraceEvent) -> None:
        if isinstance(event, RaceFinished):
            self.report = event.report
        elif self._turns is not None and isinstance(event, AttemptStarted | AttemptFinished):
            self._turns.happened(event)


class _Turns:
    """Offers the candidates of a plan to the race one by one, each when its turn comes."""

    def __init__(
        self,
        acquire: Callable[[Candidate], Awaitable[bool]],
        candidates: Sequence[Candidate],
        stagger: float,
        sources: Sequence[Source],
    ) -> None:
        self._acquire = acquire
        self._candidates = candidates
        self._stagger = stagger
        self._sources = sources
        self._event = trio.Event()
        self._started = False
        self._failed = False

    def happened(self, event: AttemptStarted | AttemptFinished) -> None:
        """Learn that an attempt was started, or has ended."""
        if isinstance(event, AttemptStarted):
            self._started = True
        elif event.outcome in ("failed", "timed out"):
            self._failed = True
        self._event.set()

    async def endpoints(self) -> AsyncIterator[Endpoint]:
        """Yield each address when it may be tried. An address without a place by then is left out."""
        is_due = True
        for candidate in self._candidates:
            if self._sources and not any(reaches(source, candidate.endpoint) for source in self._sources):
                # The race reports it as skipped and never starts it, so it needs neither a turn nor a place.
                yield candidate.endpoint
                continue
            if not is_due:
                await self._wait_for_turn()
                is_due = True
            if await self._acquire(candidate):
                self._started = self._failed = is_due = False
                yield candidate.endpoint

    async def _wait_for_turn(self) -> None:
        """Wait until the attempt before was started, and then for its delay or a failure."""
        while not self._started:
            self._event = trio.Event()
            await self._event.wait()
        with trio.move_on_after(self._stagger):
            while not self._failed:
                self._event = trio.Event()
                await self._event.wait()
