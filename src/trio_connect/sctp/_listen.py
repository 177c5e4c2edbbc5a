"""Listening for associations on several addresses of this machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import trio
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled, enable_ki_protection

from .._check import check_range
from .._deadline import is_late, to_seconds
from .._endpoint import Endpoint, EndpointLike
from .._messages import call_exceeded, call_late
from .._net.callbacks import check_observer
from .._net.sockets.stream_socket import CONNECTION_ERRORS
from .._net.sockets.waiting import Expired, park
from .._report import EMPTY_REPORT
from ._association import Association, check_ppid
from ._connect import bind, check_tuning, local_endpoints, open_sctp_socket
from ._socket import SctpSocket, family_of
from ._telling import SctpObserver, Teller
from ._values import DEFAULT_TUNING, SctpTuning


@final
class SctpListener(trio.abc.Listener[Association]):
    """Accepts associations. Made by `listen`."""

    def __init__(self, sock: SctpSocket, *, ppid: int, tuning: SctpTuning) -> None:
        if not isinstance(sock, SctpSocket):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("an SctpListener is made by sctp.listen(), not by its class")
        self._socket = sock
        self._ppid = ppid
        self._tuning = tuning
        self._closed = False
        self._accepting = False
        self._endpoints = sock.local_addresses()

    def __repr__(self) -> str:
        return f"<sctp.SctpListener on {self._where()}{', closed' if self._closed else ''}>"

    def _where(self) -> str:
        return ", ".join(map(str, self._endpoints))

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The addresses that it listens on, with the port that it has got."""
        return self._endpoints

    @enable_ki_protection  # Ctrl-C cannot come between an association and what would end it
    async def accept(self, deadline: int = -1, *, observer: SctpObserver | None = None) -> Association:
        """Return the next association that a peer makes.

        Args:
          deadline: milliseconds on the clock of `now()`; -1 for none.
          observer: told what happens to the association, as in `connectx`.

        Raises:
          DeadlineExceeded: the deadline came first.
          OSError: EMFILE, ENFILE, ENOBUFS or ENOMEM: `trio.serve_listeners` waits and goes on.
          TypeError: an argument has the wrong type.
          ValueError: the deadline is below -1.
          trio.BusyResourceError: another task accepts.
          trio.ClosedResourceError: it was closed.
        """
        until = to_seconds(deadline)
        check_observer(observer)
        self._check_open()
        if self._accepting:
            raise trio.BusyResourceError("another task is accepting from this listener")
        self._accepting = True
        try:
            await checkpoint_if_cancelled()
            started = trio.current_time()
            if is_late(until):
                await checkpoint()
                raise call_late(f"accept on {self._where()}", started - until)
            try:
                sock = await self._accept(until)
            except Expired:
                raise call_exceeded(f"accept on {self._where()}", trio.current_time() - started) from None
        finally:
            self._accepting = False
        await cancel_shielded_checkpoint()
        return self._made(sock, observer)

    async def _accept(self, until: float) -> SctpSocket:
        in_time = True
        while True:
            self._check_open()
            try:
                return self._socket.accept()
            except BlockingIOError:
                if not in_time:
                    raise Expired from None
                try:
                    in_time = await park(lambda _: self._socket.wait_readable(), 0, until)
                except trio.ClosedResourceError:
                    self._check_open()
                    raise
            except OSError as exc:
                if exc.errno not in CONNECTION_ERRORS:
                    raise
                await checkpoint()  # an error of the association, which had ended before it was accepted

    def _made(self, sock: SctpSocket, observer: SctpObserver | None) -> Association:
        try:
            status = sock.status()
            peer = str(status.primary.endpoint)
        except OSError:
            # It has ended already. What the peer had sent can still be received.
            status, peer = None, "a peer that has gone"
        teller = Teller(observer, peer)
        return Association(
            sock, status, peer=peer, ppid=self._ppid, tuning=self._tuning, report=EMPTY_REPORT, teller=teller
        )

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the listener was closed")

    async def aclose(self) -> None:
        """Accept no more. Associations that were accepted go on."""
        self._closed = True
        self._socket.close()
        await checkpoint()


async def listen(
    endpoints: Iterable[str | EndpointLike],
    *,
    backlog: int = 128,
    ppid: int = 0,
    tuning: SctpTuning = DEFAULT_TUNING,
) -> SctpListener:
    """Listen on addresses of this machine, all with one port.

    Args:
      endpoints: where; port 0 asks for any. Every association is told all of them, and uses them as paths.
      backlog: how many associations may wait to be accepted; when they do, further ones are refused (ABORT).
      ppid: payload protocol identifier of messages that are sent without one.
      tuning: timers of the associations.

    Returns:
      The listener.

    Raises:
      OSError: an address is in use or not of this machine, or there is no SCTP here, and the text says what is missing.
      TypeError: an argument has the wrong type.
      ValueError: there are no endpoints, ports differ, or a number is out of range.

    See listen(2) and RFC 6458 sections 3.1.3 and 9.1.
    """
    mine = local_endpoints(endpoints)
    if not mine:
        raise ValueError("sctp.listen needs at least one endpoint, got none")
    check_ppid(ppid)
    check_tuning(tuning)
    check_range(backlog, "backlog", 1, 0xFFFF)
    return await _listen(mine, backlog=backlog, ppid=ppid, tuning=tuning)


@enable_ki_protection  # what the caller gave to iterate over is not protected
async def _listen(mine: tuple[Endpoint, ...], *, backlog: int, ppid: int, tuning: SctpTuning) -> SctpListener:
    await checkpoint_if_cancelled()
    where = ", ".join(map(str, mine))
    sock = open_sctp_socket(family_of(mine), where)
    try:
        bind(sock, mine, where)
        # Before listening: an association that is there already keeps the pace of heartbeats that it began with.
        sock.set_timers(tuning)
        sock.listen(backlog)
        listener = SctpListener(sock, ppid=ppid, tuning=tuning)
    except BaseException:
        sock.close()
        raise
    await cancel_shielded_checkpoint()
    return listener
