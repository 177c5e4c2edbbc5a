"""Connecting: a SYN, what the other host makes of it, and the SYN again when nothing comes back.

A SYN that is lost is sent again after 1, 3, 7, 15, 31 and 63 seconds, and after 127 the connect fails with ETIMEDOUT,
all as Linux does with its default of six retries (TCP_SYNCNT changes the number). A full backlog loses SYNs; so does a
black hole, a partition and a host that is down.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from ._host import Accept, Blackhole, Host, Refuse, Unreachable, Verdict
from ._listening import Listening
from ._path import Wire
from ._tcp import End
from ._timeline import Timer
from ._trace import Connection, TraceEvent, errno_name

if TYPE_CHECKING:
    from ._network import VirtualNetwork


@attrs.define(eq=False)
class Dial:
    """One connect in progress."""

    network: VirtualNetwork
    client: End
    source: Host
    target: Host
    record: Connection
    retries: int
    _sent: float = attrs.field(default=0.0, init=False, alias="_sent")
    _tries: int = attrs.field(default=0, init=False, alias="_tries")
    _again: Timer | None = attrs.field(default=None, init=False, alias="_again")
    _reply: Timer | None = attrs.field(default=None, init=False, alias="_reply")
    _waiting: bool = attrs.field(default=False, init=False, alias="_waiting")
    _half: tuple[Listening, End] | None = attrs.field(default=None, init=False, alias="_half")

    def start(self) -> None:
        """Send the first SYN. Without latency everything may be over when this returns, as on real loopback."""
        self.network.trace.began(self.record)
        self._syn()

    def abandon(self) -> None:
        """The program lost interest."""
        if self.record.ended is None:
            self._over("abandoned")
            self._release()

    def _syn(self) -> None:
        self._sent = self.network.timeline.now()
        self._tries += 1
        if not self._lost():
            address, port = self.client.remote
            self._consider(self.target.verdict(address, port), arrived=False)
        if self.record.ended is None:
            self._again = self.network.timeline.at(
                self._sent + 2 ** (self._tries - 1), self.client.place, self._unanswered
            )

    def _unanswered(self) -> None:
        if self._tries > self.retries:
            self._release()
            self._fail(errno.ETIMEDOUT)
        elif self._waiting:
            # An answer is under way, only slow: what a second SYN would cause changes nothing that a program can see.
            self._tries += 1
            when = self.network.timeline.now() + 2 ** (self._tries - 1)
            self._again = self.network.timeline.at(when, self.client.place, self._unanswered)
        else:
            record = self.record
            self.network.note(
                TraceEvent(
                    self.network.elapsed(), "retransmit", record.host, record.port, record.ordinal, record.source
                )
            )
            self._syn()

    def _lost(self) -> bool:
        network = self.network
        return not network.lossless and (network.parted(self.source, self.target) or self.source.is_dark(0))

    def _consider(self, verdict: Verdict, *, arrived: bool) -> None:
        now = self.network.timeline.now()
        match verdict:
            case Blackhole():
                self._waiting = False
            case Refuse(after):
                when = self._sent + (self.client.path.rtt if after is None else after)
                self._later(max(now, when), lambda: self._fails_unless_lost(errno.ECONNREFUSED))
            case Unreachable(number, after):
                self._later(max(now, self._sent + after), lambda: self._fails_unless_lost(number))
            case Accept() if arrived:
                self._syn_is_welcome(verdict)
            case Accept(path=path):
                if path is not None and path is not self.client.path:
                    self.client.path, self.client.wire = path, Wire(path, self.client.wire.name)
                self._later(self.client.wire.arrival(now, 0), self._syn_arrives)

    def _syn_arrives(self) -> None:
        if self._lost():
            self._waiting = False
            return
        address, port = self.client.remote
        self._consider(self.target.verdict(address, port), arrived=True)

    def _syn_is_welcome(self, verdict: Accept) -> None:
        listening, client = verdict.listening, self.client
        self._release()
        if not listening.has_room:
            self._waiting = False
            return
        server = End(
            fabric=client.fabric,
            place=client.place,
            path=client.path,
            wire=Wire(client.path, client.wire.name + " back"),
            passes=client.passes,
            local=client.remote,
            remote=client.local,
            send_buffer=listening.send_buffer,
            receive_buffer=listening.receive_buffer,
            peer=client,
        )
        server.on_reset = lambda: self.network.was_reset(self.record, self.target)
        self._half = (listening, server)
        listening.half_open.add(server)
        arrives = server.wire.arrival(self.network.timeline.now(), 0)
        self._later(arrives, lambda: self._syn_ack_arrives(verdict, server))

    def _syn_ack_arrives(self, verdict: Accept, server: End) -> None:
        if self._lost() or self.target.is_dark(self.client.remote[1]):
            self._release()
            self._waiting = False
            return
        listening = verdict.listening
        self._half = None
        self._over("connected")

        def opened() -> None:
            listening.half_open.discard(server)
            self.network.accepted(listening, server, self.record, queue=verdict.reset is None)

        server.on_open = opened
        self.client.open(server)
        self.client.greet()
        if verdict.reset is not None:

            def break_off() -> None:
                server.die(0)
                if self.client.state == "open" and not self.client.orphan:
                    self.client.on_reset()
                    self.client.die(errno.ECONNRESET)

            self.network.timeline.at(self._sent + verdict.reset, self.client.place, break_off)

    def _fails_unless_lost(self, number: int) -> None:
        if self._lost():
            self._waiting = False
        else:
            self._fail(number)

    def _fail(self, number: int) -> None:
        self._over(errno_name(number))
        self.client.die(number)

    def _over(self, outcome: str) -> None:
        self.network.trace.ended(self.record, self.network.elapsed(), outcome)
        for timer in (self._again, self._reply):
            if timer is not None:
                timer.cancel()

    def _release(self) -> None:
        if self._half is not None:
            listening, server = self._half
            listening.half_open.discard(server)
            server.die(0)
            self._half = None

    def _later(self, when: float, action: Callable[[], None]) -> None:
        self._waiting = True
        if when <= self.network.timeline.now():
            action()
        else:
            self._reply = self.network.timeline.at(when, self.client.place, action)
