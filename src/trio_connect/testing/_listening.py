"""Something that a socket or a test has bound to a port, and the queue of connections that wait to be accepted."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from ._tcp import End
from ._trace import Connection

DEFAULT_BUFFER: Final = 64 * 1024
WILDCARDS: Final = ("0.0.0.0", "::")


def _nothing() -> None:
    pass


@attrs.define(eq=False)
class Listening:
    """A binding; `active` once it listens. One made by `Host.listen` has no address: the node's verdicts find it."""

    address: str = ""
    port: int = 0
    serve: Callable[[End, Connection], None] | None = None
    """Takes each connection at once; None puts it into the queue for a program's accept."""
    v6only: bool = False
    reuse_address: bool = False
    reuse_port: bool = False
    active: bool = False
    backlog: int = 128
    send_buffer: int = DEFAULT_BUFFER
    receive_buffer: int = DEFAULT_BUFFER
    queue: deque[End] = attrs.field(factory=deque[End], init=False)
    half_open: set[End] = attrs.field(factory=set[End], init=False)
    on_ready: Callable[[], None] = attrs.field(default=_nothing, init=False)

    @property
    def has_room(self) -> bool:
        """Whether a SYN is answered. Linux admits one connection more than the backlog says (sk_acceptq_is_full)."""
        if self.serve is not None:
            return True
        # A half-open connection holds its place here. Linux counts it only when its last ACK comes, and may then leave
        # a client that believes to be connected; a test would not want to tell the two apart.
        return len(self.queue) + len(self.half_open) <= self.backlog

    def accepts(self, address: str, port: int, *, exact: bool) -> bool:
        """Say whether a SYN for this address and port is for us, by its exact address or by a wildcard."""
        if not self.active or port != self.port:
            return False
        if exact:
            return address == self.address
        return self.address == ("::" if ":" in address else "0.0.0.0") or (self.address == "::" and not self.v6only)

    def conflicts(self, other: Listening) -> bool:
        """Say whether both cannot be bound at once."""
        if self.port != other.port or not self._overlaps(other):
            return False
        if self.reuse_port and other.reuse_port:
            return False
        return not (self.reuse_address and other.reuse_address) or self.active or other.active

    def _overlaps(self, other: Listening) -> bool:
        def covers(wide: Listening, narrow: Listening) -> bool:
            if wide.address not in WILDCARDS:
                return wide.address == narrow.address
            if ipaddress.ip_address(wide.address).version == ipaddress.ip_address(narrow.address).version:
                return True
            return wide.address == "::" and not wide.v6only

        return covers(self, other) or covers(other, self)

    def close(self) -> None:
        """Stop listening: who waited to be accepted is reset, as Linux does."""
        self.active = False
        for end in [*self.queue]:
            end.abort()
        for end in self.half_open:
            end.die(0)
        self.queue.clear()
        self.half_open.clear()
