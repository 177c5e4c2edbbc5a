"""Connecting: a SYN, the other host's answer, and the SYN again when no answer comes.

A SYN that is lost is sent again after 1, 3, 7, 15, 31 and 63 seconds, and after 127 the connect fails with ETIMEDOUT,
all as Linux does with its default of six retries (TCP_SYNCNT changes the number). A full backlog loses SYNs; so does a
black hole, a partition and a host that is down.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

import attrs

from ._address import LOOPBACK, family_of, is_loopback
from ._fabric import Fabric
from ._listening import WILDCARDS, Listening
from ._node import Accept, Blackhole, Node, Refuse, Unreachable, Verdict
from ._path import Path, Wire
from ._tcp import End, fail
from ._timeline import Timer
from ._trace import Connection, Tally, TraceEvent, errno_name

_FIRST_EPHEMERAL: Final = 49152


def dial(
    fabric: Fabric,
    source: Node,
    local: tuple[str, int] | None,
    remote: tuple[str, int],
    *,
    send_buffer: int,
    receive_buffer: int,
    retries: int,
) -> Dial:
    """Prepare a connect from a node.

    Raises:
      OSError: the route does not exist: ENETUNREACH, EINVAL, EAFNOSUPPORT.
      UnknownHost: the test does not mention the address.
    """
    address, port = remote
    if address in WILDCARDS:
        address = LOOPBACK[family_of(address)]
    target = source if is_loopback(address) else fabric.find(address)
    if target is None:
        raise fabric.unknown(address, f"describe it with net.host({address!r})")
    here = None if local is None or local[0] in WILDCARDS else local[0]
    if here is None and is_loopback(address):
        here = LOOPBACK[family_of(address)]  # of all of 127.0.0.0/8, as in Linux's local table
    elif here is None:
        here = address if target is source else source.address_of(family_of(address)) or fail(errno.ENETUNREACH)
    if is_loopback(here) and target is not source:
        fail(errno.EINVAL)
    if family_of(here) != family_of(address):
        fail(errno.ENETUNREACH if ":" in here else errno.EAFNOSUPPORT)
    ordinal = fabric.count(source, address, port)
    # A port per destination, as Linux allocates them too: it does not depend on which task came first.
    own = local[1] if local is not None else _FIRST_EPHEMERAL + ordinal % (65536 - _FIRST_EPHEMERAL)
    tally = Tally()
    record = Connection(address, port, ordinal, source.name, fabric.elapsed(), tally=tally)
    path = Path() if target is source else source.path if target is fabric.local else target.path

    def passes() -> bool:
        # Read twice for every packet.
        if fabric.lossless:
            return True
        at = fabric.elapsed()
        return not (fabric.parted(source, target) or target.is_dark(port, at) or source.is_dark(0, at))

    client = End(
        timeline=fabric.timeline, place=(address, port, ordinal, source.name), path=path,
        wire=Wire(path, f"{fabric.seed} {source.name} {address} {port} {ordinal}"), passes=passes,
        local=(here, own), remote=(address, port), send_buffer=send_buffer, receive_buffer=receive_buffer,
        tally=tally,
    )  # fmt: skip
    client.on_reset = lambda: fabric.was_reset(record, source)
    return Dial(fabric, client, source, target, record, retries)


@attrs.define(eq=False)
class Dial:
    """One connect in progress."""

    fabric: Fabric
    client: End
    source: Node
    target: Node
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
        self.fabric.recorder.began(self.record)
        self._syn()

    def abandon(self) -> None:
        """Learn that the program has cancelled the connect."""
        if self.record.ended is None:
            self._over("abandoned")
            self._release()

    def _syn(self) -> None:
        self._sent = self.fabric.timeline.now()
        self._tries += 1
        if not self._lost():
            address, port = self.client.remote
            self._consider(self.target.verdict(address, port, self.fabric.elapsed()), arrived=False)
        if self.record.ended is None:
            self._again = self.fabric.timeline.at(
                self._sent + 2 ** (self._tries - 1), self.client.place, self._unanswered
            )

    def _unanswered(self) -> None:
        if self._tries > self.retries:
            self._release()
            self._fail(errno.ETIMEDOUT)
        elif self._waiting:
            # An answer is under way. A second SYN would change nothing that a program can see.
            self._tries += 1
            when = self.fabric.timeline.now() + 2 ** (self._tries - 1)
            self._again = self.fabric.timeline.at(when, self.client.place, self._unanswered)
        else:
            record = self.record
            self.fabric.note(
                TraceEvent(self.fabric.elapsed(), "retransmit", record.host, record.port, record.ordinal, record.source)
            )
            self._syn()

    def _lost(self) -> bool:
        fabric = self.fabric
        return not fabric.lossless and (
            fabric.parted(self.source, self.target) or self.source.is_dark(0, fabric.elapsed())
        )

    def _consider(self, verdict: Verdict, *, arrived: bool) -> None:
        now = self.fabric.timeline.now()
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
        self._consider(self.target.verdict(address, port, self.fabric.elapsed()), arrived=True)

    def _syn_is_welcome(self, verdict: Accept) -> None:
        listening, client = verdict.listening, self.client
        self._release()
        if not listening.has_room:
            self._waiting = False
            return
        server = End(
            timeline=client.timeline,
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
        server.on_reset = lambda: self.fabric.was_reset(self.record, self.target)
        self._half = (listening, server)
        listening.half_open.add(server)
        arrives = server.wire.arrival(self.fabric.timeline.now(), 0)
        self._later(arrives, lambda: self._syn_ack_arrives(verdict, server))

    def _syn_ack_arrives(self, verdict: Accept, server: End) -> None:
        if self._lost() or self.target.is_dark(self.client.remote[1], self.fabric.elapsed()):
            self._release()
            self._waiting = False
            return
        listening = verdict.listening
        self._half = None
        self._over("connected")

        def opened() -> None:
            listening.half_open.discard(server)
            self._accepted(listening, server, queue=verdict.reset is None)

        server.on_open = opened
        self.client.open(server)
        self.client.greet()
        if verdict.reset is not None:

            def break_off() -> None:
                server.die(0)
                if self.client.state == "open" and not self.client.orphan:
                    self.client.on_reset()
                    self.client.die(errno.ECONNRESET)

            self.fabric.timeline.at(self._sent + verdict.reset, self.client.place, break_off)

    def _accepted(self, listening: Listening, server: End, *, queue: bool) -> None:
        """Learn that the handshake is over for the listener's side too."""
        record, fabric = self.record, self.fabric
        fabric.note(
            TraceEvent(fabric.elapsed(), "accepted", record.host, record.port, record.ordinal, self.target.name)
        )
        if not queue or not fabric.active:
            return
        if listening.serve is None:
            listening.queue.append(server)
            listening.on_ready()
        else:
            listening.serve(server, record)

    def _fails_unless_lost(self, number: int) -> None:
        if self._lost():
            self._waiting = False
        else:
            self._fail(number)

    def _fail(self, number: int) -> None:
        self._over(errno_name(number))
        self.client.die(number)

    def _over(self, outcome: str) -> None:
        self.fabric.recorder.ended(self.record, self.fabric.elapsed(), outcome)
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
        if when <= self.fabric.timeline.now():
            action()
        else:
            self._reply = self.fabric.timeline.at(when, self.client.place, action)
