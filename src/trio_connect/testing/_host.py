"""A host of a virtual network: its addresses, what its ports do, and whether it is there at all.

The latest verb that names a port decides what that port does; a verb without `port` names all of them. A port that no
verb names belongs to the programs on the host, and one that nobody listens on refuses, as a real host does.
"""

from __future__ import annotations

import errno as errnos
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeAlias

import attrs
import trio

from ._listening import Listening
from ._path import Flap, FlapState, Path

if TYPE_CHECKING:
    from ._network import VirtualNetwork

Handler: TypeAlias = Callable[[trio.SocketStream], Awaitable[object]]


@attrs.frozen
class Accept:
    """Complete the handshake; `reset` seconds after the SYN was sent, break it off."""

    listening: Listening
    path: Path | None = None
    """None: whatever lies between the two hosts."""
    reset: float | None = None


@attrs.frozen
class Refuse:
    """Answer the SYN with RST, `after` seconds; None means after one round trip."""

    after: float | None = None


@attrs.frozen
class Unreachable:
    """Fail the connect with `errno`, `after` seconds."""

    errno: int
    after: float


@attrs.frozen
class Blackhole:
    """Drop every packet."""


Verdict: TypeAlias = Accept | Refuse | Unreachable | Blackhole


def _seconds(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number of seconds >= 0, not {value!r}")
    return value


@attrs.define(eq=False)
class Host:
    """One host; made and found with `VirtualNetwork.host`. Every verb returns the host, so that verbs chain.

    Attributes:
        addresses: The host's addresses, in the order in which they were given.
        path: What lies between this host and the others, where a listener does not say otherwise.
    """

    _network: VirtualNetwork = attrs.field(alias="network", repr=False)
    addresses: list[str]
    path: Path = attrs.field(factory=Path)
    _verdicts: list[tuple[int | None, Verdict]] = attrs.field(
        factory=list[tuple[int | None, Verdict]], init=False, alias="_verdicts", repr=False
    )
    _flap: Flap | None = attrs.field(default=None, init=False, alias="_flap", repr=False)
    bound: list[Listening] = attrs.field(factory=list[Listening], init=False, repr=False)
    """What programs on this host have bound; the network's own business."""
    next_port: int = attrs.field(default=32768, init=False, repr=False)

    @property
    def name(self) -> str:
        """The first address."""
        return self.addresses[0]

    def listen(
        self,
        port: int,
        handler: Handler | None,
        *,
        rtt: float | None = None,
        jitter: float | None = None,
        bandwidth: float | None = None,
        backlog: int | None = None,
        send_buffer: int | None = None,
        receive_buffer: int | None = None,
    ) -> Host:
        """Serve a port: every connection gets a task running `handler(stream)` on this host.

        The stream is closed when the handler returns. A handler that raises fails the test, unless what it raises only
        says that the peer went away (`trio.BrokenResourceError`, `ConnectionError`).

        Args:
            port: The port, 1 to 65535.
            handler: An async function of one `trio.SocketStream`; None never accepts, so that the backlog fills up.
            rtt: Round-trip time to this port, in seconds; None is the host's.
            jitter: Added to every one-way trip: evenly from 0 to this, in seconds; None is the host's.
            bandwidth: Of each direction of each connection, in bytes per second; None is the host's.
            backlog: How many connections may wait to be accepted; as on Linux one more fits. None is 128. A handler
                accepts at once, so this only matters without one.
            send_buffer: Of the server's sockets, in bytes; None is 64 KiB.
            receive_buffer: Likewise.
        """
        return self._serve(
            port, handler, self.path.changed(rtt, jitter, bandwidth), backlog, send_buffer, receive_buffer
        )

    def silent(
        self,
        port: int,
        *,
        rtt: float | None = None,
        jitter: float | None = None,
        bandwidth: float | None = None,
        receive_buffer: int | None = None,
    ) -> Host:
        """Put a middlebox on a port: it completes TCP, swallows what fits into its buffer, and never answers."""
        path = self.path.changed(rtt, jitter, bandwidth)
        return self._serve(port, None, path, 2**31, None, receive_buffer)

    def refuse(self, after: float | None = None, *, port: int | None = None) -> Host:
        """Answer connects with RST, `after` seconds (ECONNREFUSED); None means after one round trip."""
        return self._decide(port, Refuse(None if after is None else _seconds("after", after)))

    def blackhole(self, *, port: int | None = None) -> Host:
        """Drop every packet, of new and of established connections."""
        return self._decide(port, Blackhole())

    def unreachable(self, errno: int = errnos.EHOSTUNREACH, after: float = 0.0, *, port: int | None = None) -> Host:
        """Fail connects with `errno`, `after` seconds; 0 fails inside connect itself, as without a route.

        Established connections to the port stall, as those of a host that became unreachable do.
        """
        return self._decide(port, Unreachable(errno, _seconds("after", after)))

    def reset(self, after: float = 0.0, *, rtt: float | None = None, port: int | None = None) -> Host:
        """Send RST `after` seconds after the SYN left.

        Before the handshake is over, which takes `rtt` seconds (None: the host's), the program sees ECONNREFUSED; later
        the connection is established and then breaks with ECONNRESET.
        """
        _seconds("after", after)
        path = self.path.changed(rtt, None, None)
        if after < path.rtt:
            return self._decide(port, Refuse(after))
        return self._decide(port, Accept(self._network.listening(self, None), path, after))

    def flap(self, schedule: Sequence[tuple[float, FlapState]]) -> Host:
        """Take the host away ("down": every packet is dropped) and back ("up") at seconds of virtual time.

        Args:
            schedule: Such as `[(1.0, "down"), (5.0, "up")]`; the host is up before the first entry.

        Raises:
            ValueError: Times that do not ascend, or another state.
        """
        self._flap = Flap.of(schedule)
        self._network.lossless = False
        return self

    def recover(self) -> Host:
        """Take every fault back, flapping included; what listens stays."""
        self._flap = None
        self._verdicts = [row for row in self._verdicts if isinstance(row[1], Accept) and row[1].reset is None]
        return self

    def here(self) -> AbstractContextManager[None]:
        """Inside this `with`, sockets that the current task makes belong to this host instead of `network.local`."""
        return self._network.on(self)

    # ---- For the network ----

    def is_dark(self, port: int) -> bool:
        """Whether packets from and to `port` get lost now."""
        if self._flap is not None and self._is_down:
            return True
        return bool(self._verdicts) and isinstance(self._ruled(port), Blackhole | Unreachable)

    @property
    def _is_down(self) -> bool:
        return self._flap is not None and not self._flap.is_up(self._network.elapsed())

    def verdict(self, address: str, port: int) -> Verdict:
        """What becomes of a SYN that comes in for `address` and `port` now."""
        if self._is_down:
            return Blackhole()
        ruled = self._ruled(port)
        if ruled is not None:
            return ruled
        for exact in (True, False):
            for listening in self.bound:
                if listening.accepts(address, port, exact=exact):
                    return Accept(listening)
        return Refuse()

    def _ruled(self, port: int) -> Verdict | None:
        for number, verdict in reversed(self._verdicts):
            if number is None or number == port:
                return verdict
        return None

    def _decide(self, port: int | None, verdict: Verdict) -> Host:
        if port is not None and not 0 < port < 65536:
            raise ValueError(f"port must be 1 to 65535, not {port!r}")
        self._verdicts.append((port, verdict))
        if isinstance(verdict, Blackhole | Unreachable):
            self._network.lossless = False
        return self

    def _serve(
        self, port: int, handler: Handler | None, path: Path, backlog: int | None, send: int | None, receive: int | None
    ) -> Host:
        listening = self._network.listening(self, handler)
        if backlog is not None:
            if backlog < 0:
                raise ValueError(f"backlog must be >= 0, not {backlog!r}")
            listening.backlog = backlog
        listening.send_buffer = send or listening.send_buffer
        listening.receive_buffer = receive or listening.receive_buffer
        return self._decide(port, Accept(listening, path))
