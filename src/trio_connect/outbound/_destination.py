"""A destination as users see it: connect, permit, and what is known of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, final, overload

import trio
from trio import current_time
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled, enable_ki_protection

from .. import ConnectReport, DeadlineExceeded, Source, TcpStream, TlsStream
from .._check import check_callback, check_text
from .._deadline import IMMEDIATE, to_seconds
from .._messages import call_late
from .._text import shown
from ._block import Block
from ._connection import Connection, TlsConnection
from ._decisions import NotAdmitted
from ._events import Snapshot
from ._finding import Finding
from ._hold import hold
from ._lookups import Finder
from ._permit import Permit, PermitOutcome
from ._race import Establish, Tls, checked_tls
from ._running import Run
from ._snapshot import snapshot_of
from ._state import Admission, DestinationState
from ._waiting import Waiting

if TYPE_CHECKING:
    import ssl
    from typing import Literal

__all__ = ["Destination"]

T = TypeVar("T")


@final
class Destination:
    """Somewhere to connect to, with its candidates, its limits, and the memory of what went wrong.

    Made by `Outbound.destination`, `Outbound.mx` and `Outbound.srv`.
    """

    __slots__ = ("__weakref__", "_finding", "_remember", "_state", "_states", "_tls_name", "_waiting")

    def __init__(
        self,
        waiting: Waiting,
        state: DestinationState,
        find: Finder | None,
        states: Callable[[], list[DestinationState]],
        remember: Callable[[Destination], None],
        tls_name: str | None,
    ) -> None:
        self._waiting = waiting
        self._state = state
        self._finding = None if find is None else Finding(find, state, waiting)
        self._states = states
        self._remember = remember
        self._tls_name = tls_name

    @property
    def name(self) -> str:
        """What it is called."""
        return self._state.name

    def __repr__(self) -> str:
        return f"<trio_connect.outbound.Destination {self._state.name}>"

    # Using it

    # Not shared with `try_connect`, see `connectx`. Without an establish the result is None, which no type variable can
    # have as a default before Python 3.13: hence two for each kind of `tls`.
    @overload
    def connect(
        self, deadline: int = -1, *, establish: None = None, tls: None = None, server_hostname: None = None
    ) -> AbstractAsyncContextManager[Connection[None]]: ...

    @overload
    def connect(
        self,
        deadline: int = -1,
        *,
        establish: Callable[[TcpStream], Awaitable[T]],
        tls: None = None,
        server_hostname: None = None,
    ) -> AbstractAsyncContextManager[Connection[T]]: ...

    @overload
    def connect(
        self,
        deadline: int = -1,
        *,
        establish: None = None,
        tls: ssl.SSLContext | Literal[True],
        server_hostname: str | None = None,
    ) -> AbstractAsyncContextManager[TlsConnection[None]]: ...

    @overload
    def connect(
        self,
        deadline: int = -1,
        *,
        establish: Callable[[TlsStream], Awaitable[T]],
        tls: ssl.SSLContext | Literal[True],
        server_hostname: str | None = None,
    ) -> AbstractAsyncContextManager[TlsConnection[T]]: ...

    def connect(
        self,
        deadline: int = -1,
        *,
        establish: Callable[[Any], Awaitable[Any]] | None = None,
        tls: ssl.SSLContext | Literal[True] | None = None,
        server_hostname: str | None = None,
    ) -> AbstractAsyncContextManager[Connection[Any] | TlsConnection[Any]]:
        """Connect, after waiting for admission, and close the connection at the end of the block.

        Waits for limits, rates and the circuit while they may admit the call before its deadline and the scopes around
        it; else the decision is raised at once. One call is one plan: its addresses are raced, from one source after
        the other. A call counts at most once against the destination. A cancel and the caller's own deadline do not
        count.

        Args:
          deadline: milliseconds on the clock of `now()`, for waiting and connecting together; -1 for none.
          establish: the caller's own test of a connection, see `trio_connect.connectx`: the connection has succeeded,
            for the destination too, when this returns. It may raise `Overloaded`.
          tls: connect over TLS, with this context; True verifies by the authorities that the system trusts. A handshake
            that fails is the failure of its address, with its reason, and the next address is tried. An `establish` is
            given the `TlsStream`. STARTTLS is an `establish` that calls `TcpStream.start_tls`, without `tls`.
          server_hostname: the name that the peer has to prove. None for the one of the destination: the host where it
            has a port, the domain of an SRV service, and where it has candidates the address of each. What the
            DNS says changes nothing, so for the hosts of MX records there is no such name.

        Returns:
          An async context manager of a `Connection`, with `tls` of a `TlsConnection`.

        Raises:
          DestinationFailed: every address that could be tried has failed. A `ConnectFailed`; its `decision` says what
            to do.
          LeaseLost: a strict store took its place away while it connected.
          NotAdmitted: no attempt was made, or only this side was at fault; the subclass and `until` say what to do.
          DeadlineExceeded: the deadline came first.
          TypeError: an argument has the wrong type, or there is a `server_hostname` and no `tls`.
          ValueError: the deadline is below -1, the destination has no candidates at all, the context is for servers,
            the name is not a possible one, or there is `tls` without a name for hosts that MX records name.
        """
        return Block(self._connection(deadline, establish, self._checked_tls(tls, server_hostname), waits=True))

    @overload
    def try_connect(
        self, deadline: int = -1, *, establish: None = None, tls: None = None, server_hostname: None = None
    ) -> AbstractAsyncContextManager[Connection[None]]: ...

    @overload
    def try_connect(
        self,
        deadline: int = -1,
        *,
        establish: Callable[[TcpStream], Awaitable[T]],
        tls: None = None,
        server_hostname: None = None,
    ) -> AbstractAsyncContextManager[Connection[T]]: ...

    @overload
    def try_connect(
        self,
        deadline: int = -1,
        *,
        establish: None = None,
        tls: ssl.SSLContext | Literal[True],
        server_hostname: str | None = None,
    ) -> AbstractAsyncContextManager[TlsConnection[None]]: ...

    @overload
    def try_connect(
        self,
        deadline: int = -1,
        *,
        establish: Callable[[TlsStream], Awaitable[T]],
        tls: ssl.SSLContext | Literal[True],
        server_hostname: str | None = None,
    ) -> AbstractAsyncContextManager[TlsConnection[T]]: ...

    def try_connect(
        self,
        deadline: int = -1,
        *,
        establish: Callable[[Any], Awaitable[Any]] | None = None,
        tls: ssl.SSLContext | Literal[True] | None = None,
        server_hostname: str | None = None,
    ) -> AbstractAsyncContextManager[Connection[Any] | TlsConnection[Any]]:
        """Connect as `connect` does, but never wait for admission: raise the decision instead.

        Args:
          deadline: milliseconds on the clock of `now()`, for lookup and connecting; -1 for none.
          establish: see `connect`.
          tls: see `connect`.
          server_hostname: see `connect`.

        Returns:
          An async context manager of a `Connection`, with `tls` of a `TlsConnection`.

        Raises:
          DestinationFailed: see `connect`.
          NotAdmitted: see `connect`.
          DeadlineExceeded: see `connect`.
          TypeError: see `connect`.
          ValueError: see `connect`.
        """
        return Block(self._connection(deadline, establish, self._checked_tls(tls, server_hostname), waits=False))

    def _checked_tls(self, tls: ssl.SSLContext | Literal[True] | None, server_hostname: str | None) -> Tls | None:
        if tls is not None and server_hostname is None:
            server_hostname = self._tls_name
            if not server_hostname and server_hostname is not None:
                raise ValueError(
                    f"over TLS to the mail hosts of {self.name} say server_hostname=: MX records do not say whose "
                    "certificate is right; STARTTLS is an establish that calls stream.start_tls()"
                )
        return checked_tls(tls, server_hostname)

    def permit(self, deadline: int = -1) -> AbstractAsyncContextManager[Permit]:
        """Wait for admission, for a program with a client of its own, and keep the place until the block is left.

        A permit is under the same limits, rates, circuit and decisions as a connection, except `max_connecting`.

        Args:
          deadline: milliseconds on the clock of `now()`; -1 for none.

        Returns:
          An async context manager of a `Permit`.

        Raises:
          NotAdmitted: see `connect`.
          DeadlineExceeded: the deadline came while it waited.
          LeaseLost: a strict store took its place away; the block was cancelled.
          TypeError: the deadline is not an int.
          ValueError: the deadline is below -1.
        """
        return Block(self._permission(deadline))

    @asynccontextmanager
    async def _permission(self, deadline: int) -> AsyncGenerator[Permit, None]:
        self._enter()
        try:
            admission = await self._admit(deadline, connects=False, waits=True)
            outcome = PermitOutcome(self._waiting, self._state, admission)
            try:
                # Admission at once is a checkpoint too. A cancel was looked for before.
                await cancel_shielded_checkpoint()
                outcome.raise_interrupt()
                with hold(self._state.shared, self._state.name, lambda: (admission.lease, admission.first_lease)):
                    yield Permit(outcome, admission.source.source)
            except BaseException as exc:
                if not outcome.is_told:
                    outcome.raised(exc)
                raise
            else:
                if not outcome.is_told:
                    outcome.succeeded()
            finally:
                if admission.first_lease is not None:
                    self._waiting.release(admission.first_lease)
                self._waiting.release(admission.lease)
        finally:
            self._leave()
            self._state.shared.raise_interrupt()

    @asynccontextmanager
    async def _connection(
        self, deadline: int, establish: Establish | None, tls: Tls | None, *, waits: bool
    ) -> AsyncGenerator[Connection[Any] | TlsConnection[Any], None]:
        state = self._state
        if self._finding is None:
            raise ValueError(f"destination {state.name} has no candidates and no port: it gives permits only")
        check_callback(establish, "establish")
        self._enter()
        try:
            admission = await self._admit(deadline, connects=True, waits=waits)
            run = Run(self._waiting, state, admission, deadline, establish, tls)
            try:
                state.shared.raise_interrupt()
                stream, result, candidate = await run.connect()
                async with stream:
                    state.shared.raise_interrupt()
                    if isinstance(stream, TlsStream):
                        yield TlsConnection(stream, result, candidate, run)
                    else:
                        yield Connection(stream, result, candidate, run)
            finally:
                self._waiting.end(state, admission, "ended by its caller")
                run.close()
        finally:
            self._leave()
            state.shared.raise_interrupt()

    def _enter(self) -> None:
        self._state.busy += 1
        if self._waiting.join(self._state):
            self._remember(self)

    def _leave(self) -> None:
        self._state.busy -= 1
        self._state.used = current_time()

    async def _admit(self, deadline: int, *, connects: bool, waits: bool) -> Admission:
        began = current_time()
        try:
            return await self._admitted(deadline, connects=connects, waits=waits)
        except (NotAdmitted, DeadlineExceeded) as exc:
            if connects and isinstance(exc, DeadlineExceeded):
                exc.report = ConnectReport(started_at=began, elapsed=current_time() - began)
            # Whoever asks again and again must not keep all others from running.
            await cancel_shielded_checkpoint()
            raise

    async def _admitted(self, deadline: int, *, connects: bool, waits: bool) -> Admission:
        state = self._state
        until = to_seconds(deadline)
        moment = current_time()
        if deadline > IMMEDIATE and until <= moment:
            await checkpoint_if_cancelled()
            raise call_late(f"{'connect' if connects else 'admission'} to {state.name}", moment - until)
        await checkpoint_if_cancelled()
        refusal = state.refused_by_circuit(moment)
        if refusal is not None and refusal.known:
            # The open circuit refuses before any lookup.
            limit = min(max(until, moment), trio.current_effective_deadline())
            if not waits or refusal.timer > limit:
                raise state.refuse(refusal, limit)
        if self._finding is not None and self._finding.is_due(moment):
            await self._finding.look_up(until)
        return await self._waiting.admit(state, until, connects=connects, waits=waits)

    # What is known of it

    @enable_ki_protection
    def suspend(self, until: int, source: Source | None = None, *, reason: str = "suspended by hand") -> None:
        """Leave a source out for this destination until a time, by hand.

        Args:
          until: milliseconds on the clock of `now()`; -1 until `reset`.
          source: which; None for all.
          reason: what is told to those who are refused.

        Raises:
          TypeError: an argument has the wrong type.
          ValueError: `until` is not a time, or the outbound does not have this source.
        """
        at = to_seconds(until)
        if source is not None and not isinstance(source, Source):
            raise TypeError(f"source must be a Source or None, got {shown(source)}")
        check_text(reason, "reason")
        if until == IMMEDIATE:
            raise ValueError("a suspension ends at a time: now() + milliseconds, or -1 for none")
        state = self._state
        which = None if source is None else state.shared.source_state(source)
        state.suspend((state, which), at, reason, which)
        # Those who cannot wait for so long hear of it now.
        self._waiting.wake(state)
        state.shared.raise_interrupt()

    @enable_ki_protection
    def reset(self) -> None:
        """Start afresh: the network has come back, or somebody knows better.

        Closes the circuit, forgets the backoff and the cooldowns of its addresses, and lifts the suspensions of sources
        towards it. Waiting calls try at once. The outcomes of calls that are under way are ignored.
        """
        state = self._state
        shared = state.shared
        before = state.health()
        state.circuit.reset()
        for source in shared.sources:
            shared.suspensions.lift(state.suspension_keys(source))
            shared.suspensions.lift((source, family) for family in source.families)
        for candidate in state.candidates():
            shared.cooldowns.succeeded(candidate.endpoint)
            for source in shared.sources:
                shared.cooldowns.succeeded((source, candidate.endpoint))
        if self._finding is not None:
            self._finding.reset()
        state.tell("reset", before)
        # A lifted suspension of a source may let calls to other destinations go on, too.
        self._waiting.wake_all(self._states())
        shared.raise_interrupt()

    @enable_ki_protection
    def snapshot(self) -> Snapshot:
        """Return the state of the destination: its circuit, limits, rates, suspensions and last errors."""
        if self._waiting.join(self._state):
            self._remember(self)
        return snapshot_of(self._state, self._waiting.turns.waiting(self._state), current_time())
