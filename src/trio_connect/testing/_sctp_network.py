"""Hosts with SCTP over several addresses, in virtual time, for programs that use `trio_connect.sctp`.

Whatever a program does through `trio_connect.sctp` while the network is entered happens here. A socket stands on the
host whose address it is bound to, and an unbound one on the first host, so client and server may run side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from socket import AddressFamily
from types import TracebackType
from typing import TYPE_CHECKING

from .. import Endpoint, sctp
from ._sctp_host import Fabric, SctpHost
from ._sctp_socket import FakeSctpSocket

if TYPE_CHECKING:
    from typing import Self


class SctpNetwork:
    """A network of hosts with several addresses each, for associations of `trio_connect.sctp`.

    Enter it inside of `trio.run`, best under a `trio.testing.MockClock`: its time is Trio's. While it is entered, a
    system task of its own moves the packets. An address that no host has is dead. One whose host does not listen at
    that port refuses.

    ::

        with SctpNetwork() as net:
            client = net.host("192.0.2.1", "198.51.100.1")
            server = net.host("192.0.2.2", "198.51.100.2", rtt=0.020)
            listener = await sctp.listen([("192.0.2.2", 38412), ("198.51.100.2", 38412)])
            ...
            net.cut("192.0.2.2")
    """

    def __init__(self) -> None:
        self._fabric = Fabric()
        self._before: Callable[[AddressFamily], sctp.SctpSocket] | None = None

    def __enter__(self) -> Self:
        """Have `trio_connect.sctp` make its sockets here."""
        self._before = sctp.set_socket_factory(self._make)
        self._fabric.later(0, lambda: None)  # the first use starts the task, which has to belong to this run
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the sockets of before, and forget every association."""
        sctp.set_socket_factory(self._before)
        self._fabric.timeline.close()

    def host(self, *addresses: str, rtt: float = 0.001) -> SctpHost:
        """Add a host.

        Args:
          addresses: IPv4 and IPv6 addresses. A packet leaves from the one that has most leading bits in common with
            where it goes.
          rtt: seconds that the way to and from this host adds to each round trip.

        Returns:
          The host, which says how many associations it has.

        Raises:
          ValueError: no address, one that is not an address, one that another host has; or a time below 0.
        """
        hosts = tuple(Endpoint(each, 0).host for each in addresses)
        if not hosts:
            raise ValueError("a host needs at least one address")
        if taken := [each for each in hosts if each in self._fabric.hosts]:
            raise ValueError(f"another host has {', '.join(taken)}")
        if not 0 <= rtt < math.inf:
            raise ValueError(f"rtt must be 0 or more seconds, got {rtt!r}")
        made = SctpHost(hosts, rtt)
        self._fabric.hosts |= dict.fromkeys(hosts, made)
        return made

    def cut(self, *addresses: str) -> None:
        """Lose every packet from and to these addresses, those included that are on their way.

        Args:
          addresses: as they were given to `host`.

        Raises:
          ValueError: no host has such an address.
        """
        self._fabric.down |= self._known(addresses)
        self._paths_changed()

    def heal(self, *addresses: str) -> None:
        """Undo a cut; the ends notice by their next heartbeat.

        Args:
          addresses: as they were given to `host`.

        Raises:
          ValueError: no host has such an address.
        """
        self._fabric.down -= self._known(addresses)
        self._paths_changed()

    def _known(self, addresses: tuple[str, ...]) -> set[str]:
        hosts = {Endpoint(each, 0).host for each in addresses}
        if strangers := hosts - self._fabric.hosts.keys():
            raise ValueError(f"no host has {', '.join(sorted(strangers))}")
        return hosts

    def _paths_changed(self) -> None:
        for host in dict.fromkeys(self._fabric.hosts.values()):
            for end in host.ends:
                end.schedule_heartbeats()

    def _make(self, family: AddressFamily) -> sctp.SctpSocket:
        return FakeSctpSocket(self._fabric, family)
