"""Whom a failure is charged to, and whether a call has shown that its destination is down.

A source that cannot bind, a process without descriptors, a kernel without ports and a network without a route fail in
the same call as a peer that is down, and with similar errnos. A program that counts them against the peer stops sending
to a healthy peer because of trouble on its own side.

| charged to | what for | then |
|---|---|---|
| source | its address, interface or proxy cannot be used | it is suspended; another source goes on |
| process | no descriptors, no memory | nothing is suspended; the call is to be repeated later |
| path | no local port is left from this source to this address | the path is in cooldown; another source goes on |
| route | no route from this source's family | likewise; when every usable source agrees it counts as the address's |
| address | refused, silent, reset, not established | the address is in cooldown, and has been tried |
| nobody | it lost, was cancelled, was never started | nothing |
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from .shortage import SHORTAGE

if TYPE_CHECKING:
    from .._endpoint import Endpoint, Source
    from .._report import Outcome, Phase

__all__ = ["CHARGES", "Charge", "Trial", "Verdict", "charge"]

Charge: TypeAlias = Literal["source", "process", "path", "route", "address", "nobody"]
"""Whom a failed attempt is charged to."""

CHARGES: Final[dict[Phase, dict[int | None, Charge]]] = {
    # None stands for every other errno.
    # socket(2): EAFNOSUPPORT where the kernel has no such family, which means that there is no route.
    "socket": {errno.ENODEV: "source", None: "route"},
    # bind(2) says EADDRNOTAVAIL for an address that is not on this machine, EACCES for a port that needs more rights.
    "bind": {None: "source"},
    "connect": {
        # connect(2): "all port numbers in the ephemeral port range are currently in use"; it depends on both ends.
        errno.EADDRNOTAVAIL: "path",
        errno.ENETUNREACH: "route",
        errno.EHOSTUNREACH: "route",
        errno.ENETDOWN: "route",
        # connect(2): a local firewall rule, which may apply to one source only.
        errno.EACCES: "route",
        errno.EPERM: "route",
        None: "address",
    },
    "establish": {None: "address"},
}


def charge(phase: Phase, outcome: Outcome, code: int | None) -> Charge:
    """Return whom an attempt is charged to.

    Args:
      phase: the phase in which it ended.
      outcome: how it ended, see `Attempt`.
      code: its errno; None when it has none.
    """
    if outcome not in ("failed", "timed out"):
        return "nobody"
    if code in SHORTAGE:  # in every phase: an establish may open files of its own
        return "process"
    charges = CHARGES[phase]
    return charges.get(code, charges[None])


Verdict: TypeAlias = Literal["exhausted", "local"]
"""Exhausted: the destination cannot be reached. Local: this side could not try every address."""


class Trial:
    """The outcomes of one call: who was charged for each address of its plan, from one source after the other.

    Args:
      endpoints: the addresses of the plan.
    """

    __slots__ = ("_charges", "_endpoints")

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._charges: dict[Endpoint, dict[Source | None, Charge]] = {}

    def add(self, source: Source | None, endpoint: Endpoint, charged: Charge) -> None:
        """Record the charge of an attempt. The last one from a source to an address counts."""
        if charged != "nobody":
            self._charges.setdefault(endpoint, {})[source] = charged

    def remaining(self) -> list[Endpoint]:
        """Return the addresses that have not failed themselves: so far only sources have."""
        return [endpoint for endpoint in self._endpoints if "address" not in self._charged(endpoint)]

    def verdict(self, *, every_source: bool) -> Verdict:
        """Return the verdict on the destination, once no other source can go on.

        Every address that was tried has to have failed by itself, or to be unreachable from every usable source.

        Args:
          every_source: whether each usable source was tried. One that was full may have had a route.
        """
        tried = [charges for endpoint in self._endpoints if (charges := self._charged(endpoint))]
        if not tried:
            return "local"
        for charges in tried:
            if "address" in charges:
                continue
            if not every_source or any(charged != "route" for charged in charges):
                return "local"
        return "exhausted"

    def _charged(self, endpoint: Endpoint) -> list[Charge]:
        return list(self._charges.get(endpoint, {}).values())
