"""The state of a host: its addresses, what its ports do, and whether it is up.

The latest verdict that names a port decides what that port does; a verdict without a port is for all of them. A port
without any verdict is left to the programs on the host, and refuses when no program listens, as on a real host.
"""

from __future__ import annotations

import socket
from typing import TypeAlias

import attrs

from ._address import family_of
from ._listening import Listening
from ._path import Flap, Path


@attrs.frozen
class Accept:
    """Complete the handshake; `reset` seconds after the SYN was sent, break it off."""

    listening: Listening
    path: Path | None = None
    """None for the path between the two hosts."""
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


@attrs.define(eq=False)
class Node:
    """The state of one host; times are seconds since the network was installed."""

    addresses: list[str] = attrs.field(factory=list[str])
    path: Path = attrs.field(factory=Path)
    """The path between this node and the others, unless a listener has its own."""
    interfaces: tuple[str, ...] = ("lo", "eth0")
    """What its sockets may be bound to with SO_BINDTODEVICE."""
    verdicts: list[tuple[int | None, Verdict]] = attrs.field(factory=list[tuple[int | None, Verdict]], init=False)
    flap: Flap | None = attrs.field(default=None, init=False)
    bound: list[Listening] = attrs.field(factory=list[Listening], init=False)
    """What programs on this node have bound."""
    next_port: int = attrs.field(default=32768, init=False)

    @property
    def name(self) -> str:
        """The first address."""
        return self.addresses[0]

    def address_of(self, family: socket.AddressFamily) -> str | None:
        """Return the first address of a family, None without one."""
        return next((address for address in self.addresses if family_of(address) == family), None)

    def is_dark(self, port: int, at: float) -> bool:
        """Say whether packets from and to `port` get lost at `at`."""
        if self._is_down(at):
            return True
        return bool(self.verdicts) and isinstance(self._ruled(port), Blackhole | Unreachable)

    def verdict(self, address: str, port: int, at: float) -> Verdict:
        """Return the verdict on a SYN for `address` and `port` at `at`."""
        if self._is_down(at):
            return Blackhole()
        ruled = self._ruled(port)
        if ruled is not None:
            return ruled
        for exact in (True, False):
            for listening in self.bound:
                if listening.accepts(address, port, exact=exact):
                    return Accept(listening)
        return Refuse()

    def _is_down(self, at: float) -> bool:
        return self.flap is not None and not self.flap.is_up(at)

    def _ruled(self, port: int) -> Verdict | None:
        for number, verdict in reversed(self.verdicts):
            if number is None or number == port:
                return verdict
        return None
