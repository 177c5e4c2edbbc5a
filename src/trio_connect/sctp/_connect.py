"""`connectx`: one association out of many addresses of one peer.

The kernel's sctp_connectx() sends INIT to the first address, and to the next one after the retransmission time-out,
3 s by default. That time-out is set to the attempt delay until the association is up. Two things more are done here: a
refusal by one address ends the kernel's whole attempt, so the rest is tried again without it; and how it went is read
from notifications, because a soft error of a losing path stands in SO_ERROR also when the association is up.

Rejected: two associations at once, each beginning with another address, as TCP's race would do it. It was no faster
than one with a short time-out (253 ms against 259), and the server sees a second association.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterable
from socket import AddressFamily
from typing import Final, TypeAlias

import attrs
import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled, enable_ki_protection

from .._check import check_range
from .._deadline import is_late, to_seconds
from .._endpoint import Endpoint, EndpointLike, as_endpoint, check_connectable
from .._messages import connect_error, strerror
from .._net.callbacks import check_observer
from .._net.sockets.waiting import park
from .._race_messages import race_exceeded, race_failed, race_late
from .._report import Attempt, Cause, ConnectReport, Outcome
from .._text import shown
from .._trace import RaceFinished
from ._addresses import distinct, is_refusal, is_same_address, one_port, refuser
from ._association import Association, check_ppid
from ._availability import availability
from ._socket import SctpSocket, factory_installed, family_of, open_socket
from ._telling import SctpObserver, Teller
from ._values import DEFAULT_TUNING, AssociationEvent, PathEvent, SctpTuning, check_seconds
from ._wire import Status

LocalAddresses: TypeAlias = Iterable[str | EndpointLike]

_NO_SCTP: Final = frozenset({errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.ENOPROTOOPT})
# The bounds of `RacePolicy.attempt_delay`: RFC 8305 section 5 has the least; more than the greatest are milliseconds.
_LEAST_DELAY: Final = 0.010
_LONGEST_DELAY: Final = 30.0


async def connectx(
    endpoints: Iterable[EndpointLike],
    deadline: int = -1,
    *,
    local: LocalAddresses = (),
    attempt_delay: float = 0.25,
    streams: int = 10,
    ppid: int = 0,
    tuning: SctpTuning = DEFAULT_TUNING,
    observer: SctpObserver | None = None,
) -> Association:
    """Make one association with a peer that has several addresses.

    INIT goes to the first address, and to the next after each `attempt_delay`; the first answer makes the association,
    which then uses all addresses that the peer lists. An address that refuses is dropped and the rest is tried.

    Args:
      endpoints: the peer's numeric addresses, best first, all with one port; duplicates are dropped.
      deadline: milliseconds on the clock of `now()`; -1 for none. Without one the kernel gives up by itself after a
        minute or two: it sends INIT to each address nine times (net.sctp.max_init_retransmits), ever more slowly.
      local: addresses of this machine to offer to the peer: hosts or endpoints of one port. With none, the kernel
        offers every address of every interface, also those that the peer cannot reach: give them.
      attempt_delay: seconds between the INIT to one address and that to the next, 0.010 to 30.
      streams: how many to ask for, to send on; 1 to 65,535.
      ppid: payload protocol identifier of messages that are sent without one.
      tuning: timers once the association is up.
      observer: called with each `PathEvent` and `AssociationEvent`, and with one `RaceFinished`.

    Returns:
      The association; its `report` says which address answered.

    Raises:
      ConnectFailed: every address refused, or the kernel gave up; the text names each, ``__cause__`` groups the errors.
      DeadlineExceeded: the deadline came first; the text names each address.
      OSError: this machine has no SCTP, and the text says what is missing; or a local address cannot be used.
      TypeError: an argument has the wrong type.
      ValueError: there are no endpoints, one is a name, ports differ, or a number is out of range.

    See RFC 6458 section 9.9 and sctp_connectx(3).
    """
    peers = _peers(endpoints)
    mine = local_endpoints(local)
    delay = check_seconds(attempt_delay, "attempt_delay", _LEAST_DELAY, _LONGEST_DELAY)
    check_range(streams, "streams", 1, 0xFFFF)
    check_ppid(ppid)
    check_tuning(tuning)
    check_observer(observer)
    until = to_seconds(deadline)
    call = _Connecting(peers, mine, until=until, delay=delay, streams=streams, tuning=tuning)
    return await _connect(call, Teller(observer, call.where), ppid=ppid, tuning=tuning)


@enable_ki_protection  # Ctrl-C cannot come between a socket and what would close it
async def _connect(call: _Connecting, teller: Teller, *, ppid: int, tuning: SctpTuning) -> Association:
    await checkpoint_if_cancelled()
    try:
        sock, status = await call.run(teller)
    except BaseException:
        teller.tell(RaceFinished(call.report(), trio.current_time()))
        raise
    report = call.report()
    try:
        teller.tell(RaceFinished(report, trio.current_time()))
    except BaseException:  # an interrupt: the caller will not get the association
        sock.abort()
        raise
    return Association(
        sock, status, peer=str(status.primary.endpoint), ppid=ppid, tuning=tuning, report=report, teller=teller
    )


@attrs.define(eq=False)
class _Try:
    """One address of the peer, and the outcome of trying it."""

    endpoint: Endpoint
    cause: Cause | None = None
    started: float | None = None
    ended: float | None = None
    outcome: Outcome = "not tried"
    errno: int | None = None

    def begin(self, at: float, cause: Cause) -> None:
        """Note its first INIT."""
        if self.started is None:
            self.started, self.cause = at, cause

    def end(self, outcome: Outcome, code: int | None = None) -> None:
        """Note how it ended, if it was tried."""
        if self.started is not None:
            self.ended, self.outcome, self.errno = trio.current_time(), outcome, code


class _Connecting:
    """One call: socket after socket, until one is up or no address is left."""

    def __init__(
        self,
        peers: tuple[Endpoint, ...],
        local: tuple[Endpoint, ...],
        *,
        until: float,
        delay: float,
        streams: int,
        tuning: SctpTuning,
    ) -> None:
        self.where = ", ".join(map(str, peers))
        self._tries = [_Try(peer) for peer in peers]
        self._left = list(self._tries)
        """Those that have not failed, in the order in which the next socket tries them."""
        self._local = local
        self._until = until
        self._delay = delay
        self._streams = streams
        self._tuning = tuning
        self._started = trio.current_time()
        self._errors: list[Exception] = []

    async def run(self, teller: Teller) -> tuple[SctpSocket, Status]:
        """Return the socket of an association that is up, and how it stands."""
        if is_late(self._until):
            await checkpoint()
            raise race_late("", self.report(), self._started - self._until)
        while True:
            sock = self._open()
            started = trio.current_time()
            try:
                code = await self._attempt(sock, teller)
                self._note_turns(started)
                if not code:
                    sock.set_timers(self._tuning)
                    status = sock.status()
                    self._note_win(status.primary.endpoint)
                    return sock, status
            except BaseException:
                sock.abort()
                self._note_turns(started)
                for each in self._left:
                    each.end("cancelled")
                raise
            sock.abort()
            self._note_failure(started, code)
            if not self._left:
                raise race_failed("", self.report(), self._errors)

    def _open(self) -> SctpSocket:
        family = family_of((*(each.endpoint for each in self._tries), *self._local))
        sock = open_sctp_socket(family, self.where)
        try:
            if self._local:
                bind(sock, self._local, self.where)
            sock.prepare(
                streams=self._streams,
                attempt_delay=self._delay,
                rounds=len(self._left) if self._until == math.inf else None,
                tuning=self._tuning,
            )
        except BaseException:
            sock.abort()
            raise
        return sock

    async def _attempt(self, sock: SctpSocket, teller: Teller) -> int:
        """Return 0 when the association is up, else the errno of its failure.

        Raises:
          DeadlineExceeded: there was no answer by the deadline.
        """
        started = trio.current_time()
        try:
            sock.connect(tuple(each.endpoint for each in self._left))
        except OSError as exc:
            await cancel_shielded_checkpoint()
            return exc.errno or errno.EIO
        in_time = True
        while True:
            code = self._read_fate(sock, teller)
            if code is not None:
                await cancel_shielded_checkpoint()
                return code
            if not in_time:
                self._note_turns(started)
                for each in self._left:
                    each.end("cancelled")
                raise race_exceeded("", self.report()) from None
            in_time = await park(lambda _: sock.wait_readable(), 0, self._until)

    def _read_fate(self, sock: SctpSocket, teller: Teller) -> int | None:
        """Read what has happened: 0, an errno, or None for nothing yet."""
        failed = None
        while True:
            try:
                found = sock.receive()
            except BlockingIOError:
                return failed
            except OSError as exc:
                # Notifications come before the error that belongs to them. Alone it is the ICMP error of one path, of
                # an association that is still under way.
                return failed and (exc.errno or failed)
            if isinstance(found, AssociationEvent):
                teller.tell(found)
                if found.state == "up":
                    return 0
                if found.state in ("cannot start", "lost"):
                    failed = errno.ECONNREFUSED  # unless the error that follows says something else
            elif isinstance(found, PathEvent):
                teller.tell(found)

    # ------------------------------------------------------------------ the report

    def _note_turns(self, started: float) -> None:
        """Note whose turn has come since a socket began: INIT goes to one address after the other."""
        now = trio.current_time()
        for turn, each in enumerate(self._left):
            at = started + turn * self._delay
            if at <= now or not turn:
                each.begin(at, ("failure" if self._errors else "first") if not turn else "delay")

    def _note_failure(self, started: float, code: int) -> None:
        """Charge a refusal to one address, and any other failure to all of them.

        Those whose turn had not come are tried first from now on.
        """
        now = trio.current_time()
        if is_refusal(code):
            turn = refuser(tuple(each.endpoint for each in self._left), now - started, self._delay)
            blamed = [self._left[turn]]
            self._left = self._left[turn + 1 :] + self._left[:turn]
        else:
            blamed, self._left = self._left, []
        for each in blamed:
            each.begin(now, "delay")
            each.end("failed", code)
            elapsed = now - (now if each.started is None else each.started)
            self._errors.append(connect_error(code, "connect", each.endpoint, self._source(), elapsed))

    def _note_win(self, primary: Endpoint) -> None:
        for each in self._left:
            won = is_same_address(each.endpoint, primary)
            if won:
                each.begin(trio.current_time(), "delay")
            each.end("won" if won else "lost")

    def _source(self) -> str:
        return ", ".join(each.host for each in self._local) or "any address"

    def report(self) -> ConnectReport:
        """Return the report of the attempts by now."""
        winner = next((each.endpoint for each in self._tries if each.outcome == "won"), None)
        attempts = tuple(
            Attempt(
                endpoint=each.endpoint,
                cause=each.cause,
                started=None if each.started is None else each.started - self._started,
                ended=None if each.ended is None else each.ended - self._started,
                outcome=each.outcome,
                errno=each.errno,
                reason=None if each.errno is None else strerror(each.errno),
                beaten_by=winner if each.outcome == "lost" else None,
            )
            for each in self._tries
        )
        return ConnectReport(attempts=attempts, started_at=self._started, elapsed=trio.current_time() - self._started)


# ---------------------------------------------------------------------------------------------------------- arguments


def open_sctp_socket(family: AddressFamily, what: str) -> SctpSocket:
    """Make a socket, or say what this machine lacks.

    Raises:
      OSError: EPROTONOSUPPORT or ESOCKTNOSUPPORT, there is no SCTP here; any other errno, there is no socket.
    """
    try:
        return open_socket(family)
    except OSError as exc:
        code = exc.errno or errno.EIO
        reason = strerror(code)
        if code in _NO_SCTP and not factory_installed():
            reason = availability().reason or reason
        raise OSError(code, f"local: SCTP socket for {what}: {reason}") from None


def bind(sock: SctpSocket, local: tuple[Endpoint, ...], what: str) -> None:
    """Bind a socket to the addresses of this end.

    Raises:
      OSError: one of them cannot be used.
    """
    try:
        sock.bind(local)
    except OSError as exc:
        names = ", ".join(map(str, local))
        raise OSError(exc.errno, f"local: bind for {what}: {strerror(exc.errno or errno.EIO)} (from {names})") from None


def _peers(endpoints: Iterable[EndpointLike]) -> tuple[Endpoint, ...]:
    if isinstance(endpoints, (str, bytes, Endpoint)) or not isinstance(endpoints, Iterable):
        raise TypeError(f"endpoints must be an iterable of Endpoint or (host, port), got {shown(endpoints)}")
    peers = distinct(map(as_endpoint, endpoints))
    if not peers:
        raise ValueError("sctp.connectx needs at least one endpoint, got none")
    one_port(peers)
    check_connectable(peers[0])
    return peers


def local_endpoints(local: LocalAddresses) -> tuple[Endpoint, ...]:
    """Return the addresses of this end: hosts have port 0, which asks for any."""
    if isinstance(local, (str, bytes, Endpoint)) or not isinstance(local, Iterable):
        raise TypeError(f"local must be an iterable of hosts or endpoints, got {shown(local)}")
    mine = distinct(Endpoint(each, 0) if isinstance(each, str) else as_endpoint(each) for each in local)
    if mine:
        one_port(mine)
    return mine


def check_tuning(value: object) -> None:
    """Refuse what is not a tuning."""
    if not isinstance(value, SctpTuning):
        raise TypeError(f"tuning must be an SctpTuning, got {shown(value)}")
