"""A host as a test describes it: methods that say what its ports do, and whether the host is up.

The latest call that names a port decides what that port does. A call without `port` is about all ports. A port without
any call is left to the programs on the host, and refuses when no program listens, as on a real host.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

import attrs
import trio

from ._arguments import check_handler, check_int, check_seconds
from ._fabric import Fabric, current_node
from ._listening import Listening
from ._node import Accept, Blackhole, Node, Refuse, Unreachable, Verdict
from ._path import Flap, FlapState, Path
from ._tcp import End
from ._trace import Connection

Handler: TypeAlias = Callable[[trio.SocketStream], Awaitable[object]]
StartHandler: TypeAlias = Callable[[Node, Handler, End, Connection], None]
"""Runs a handler on a node, for one accepted connection."""


@attrs.define(eq=False, repr=False)
class Host:
    """One host; made and found with `VirtualNetwork.host`. Methods return the host, so that calls chain."""

    _fabric: Fabric = attrs.field(alias="fabric", repr=False)
    _node: Node = attrs.field(alias="node", repr=False)
    _start_handler: StartHandler = attrs.field(alias="start_handler", repr=False)

    @property
    def addresses(self) -> list[str]:
        """The host's addresses, in the order in which they were given."""
        return self._node.addresses.copy()

    @property
    def name(self) -> str:
        """The first address."""
        return self._node.name

    def __repr__(self) -> str:
        return f"Host(addresses={self._node.addresses!r})"

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
          port: the port, 1 to 65535.
          handler: an async function of one `trio.SocketStream`; None never accepts, so that the backlog fills up.
          rtt: round-trip time to this port, in seconds; None is the host's.
          jitter: added to every one-way trip: evenly from 0 to this, in seconds; None is the host's.
          bandwidth: of each direction of each connection, in bytes per second; None is the host's.
          backlog: how many connections may wait to be accepted; as on Linux one more fits. None is 128. A handler
            accepts at once, so this only matters without one.
          send_buffer: of the server's sockets, in bytes; None is 64 KiB.
          receive_buffer: likewise.

        Returns:
          This host.

        Raises:
          TypeError: an argument has the wrong type, or the handler is not callable.
          ValueError: the port is not 1 to 65535, a size or the backlog is negative, or a number is out of range.
        """
        return self._serve(
            port, handler, self._node.path.changed(rtt, jitter, bandwidth), backlog, send_buffer, receive_buffer
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
        """Put a middlebox on a port: it completes TCP, swallows what fits into its buffer, and never answers.

        Args:
          port: the port, 1 to 65535.
          rtt: round-trip time to this port, in seconds; None is the host's.
          jitter: added to every one-way trip: evenly from 0 to this, in seconds; None is the host's.
          bandwidth: of each direction of each connection, in bytes per second; None is the host's.
          receive_buffer: of the middlebox's sockets, in bytes; None is 64 KiB.

        Returns:
          This host.

        Raises:
          TypeError: an argument has the wrong type.
          ValueError: the port is not 1 to 65535, or a number is out of range.
        """
        path = self._node.path.changed(rtt, jitter, bandwidth)
        return self._serve(port, None, path, 2**31, None, receive_buffer)

    def refuse(self, after: float | None = None, *, port: int | None = None) -> Host:
        """Answer connects with RST, `after` seconds (ECONNREFUSED); None means after one round trip.

        Args:
          after: seconds until the answer arrives; None is one round trip.
          port: the port that this is about, 1 to 65535; None is every port.

        Returns:
          This host.

        Raises:
          TypeError: an argument has the wrong type.
          ValueError: `after` is negative or not finite, or the port is not 1 to 65535.
        """
        return self._decide(port, Refuse(None if after is None else check_seconds("after", after)))

    def blackhole(self, *, port: int | None = None) -> Host:
        """Drop every packet, of new and of established connections.

        Args:
          port: the port that this is about, 1 to 65535; None is every port.

        Returns:
          This host.

        Raises:
          TypeError: the port is not an int.
          ValueError: the port is not 1 to 65535.
        """
        return self._decide(port, Blackhole())

    def unreachable(self, errno: int = errnos.EHOSTUNREACH, after: float = 0.0, *, port: int | None = None) -> Host:
        """Fail connects with `errno`, `after` seconds; 0 fails inside connect itself, as without a route.

        Established connections to the port stall, as those of a host that became unreachable do.

        Args:
          errno: what connect fails with, such as `errno.EHOSTUNREACH` or `errno.ENETUNREACH`.
          after: seconds until it fails.
          port: the port that this is about, 1 to 65535; None is every port.

        Returns:
          This host.

        Raises:
          TypeError: an argument has the wrong type.
          ValueError: `errno` is not 1 to 4095, `after` is negative or not finite, or the port is not 1 to 65535.
        """
        return self._decide(port, Unreachable(check_int("errno", errno, 1, 4095), check_seconds("after", after)))

    def reset(self, after: float = 0.0, *, rtt: float | None = None, port: int | None = None) -> Host:
        """Send RST `after` seconds after the SYN left.

        Before the handshake is over, which takes `rtt` seconds (None: the host's), the program sees ECONNREFUSED; later
        the connection is established and then breaks with ECONNRESET.

        Args:
          after: seconds from the SYN to the RST.
          rtt: round-trip time to this port, in seconds; None is the host's.
          port: the port that this is about, 1 to 65535; None is every port.

        Returns:
          This host.

        Raises:
          TypeError: an argument has the wrong type.
          ValueError: a time is negative or not finite, or the port is not 1 to 65535.
        """
        check_seconds("after", after)
        path = self._node.path.changed(rtt, None, None)
        if after < path.rtt:
            return self._decide(port, Refuse(after))
        return self._decide(port, Accept(Listening(active=True), path, after))

    def flap(self, schedule: Sequence[tuple[float, FlapState]]) -> Host:
        """Take the host away ("down": every packet is dropped) and back ("up") at seconds of virtual time.

        Args:
          schedule: such as `[(1.0, "down"), (5.0, "up")]`; the host is up before the first entry.

        Returns:
          This host.

        Raises:
          ValueError: times that do not ascend, or another state.
        """
        self._node.flap = Flap.of(schedule)
        self._fabric.lossless = False
        return self

    def recover(self) -> Host:
        """Remove every fault, flapping included. Listeners stay.

        Returns:
          This host.
        """
        node = self._node
        node.flap = None
        node.verdicts = [row for row in node.verdicts if isinstance(row[1], Accept) and row[1].reset is None]
        return self

    @contextmanager
    def here(self) -> Generator[None, None, None]:
        """Inside this `with`, sockets that the current task makes belong to this host instead of `network.local`."""
        before = current_node.get()
        current_node.set(self._node)
        try:
            yield
        finally:
            current_node.set(before)

    def _decide(self, port: int | None, verdict: Verdict) -> Host:
        if port is not None:
            check_int("port", port, 1, 65535)
        self._node.verdicts.append((port, verdict))
        if isinstance(verdict, Blackhole | Unreachable):
            self._fabric.lossless = False
        return self

    def _serve(
        self, port: int, handler: Handler | None, path: Path, backlog: int | None, send: int | None, receive: int | None
    ) -> Host:
        check_handler(handler)
        serve = None if handler is None else partial(self._start_handler, self._node, handler)
        listening = Listening(serve=serve, active=True)
        if backlog is not None:
            listening.backlog = check_int("backlog", backlog, 0, 2**31)
        for name, size in (("send_buffer", send), ("receive_buffer", receive)):
            if size is not None:
                check_int(name, size, 0, 2**31)
        listening.send_buffer = send or listening.send_buffer
        listening.receive_buffer = receive or listening.receive_buffer
        return self._decide(port, Accept(listening, path))
