"""A client and a server with two cables between them, whose kernels speak SCTP: hosts of the guest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from socket import AddressFamily

from tests.lab.netlab import Host, cable
from tests.sctp.nets import Net
from trio_connect import sctp
from trio_connect.sctp._socket import KernelSctpSocket


class GuestNet(Net):
    """Two network namespaces. The thread of a test stands on the client."""

    client_hosts = ("10.9.0.1", "10.9.1.1")
    server_hosts = ("10.9.0.2", "10.9.1.2")
    dead_hosts = ("10.9.0.99", "10.9.1.98", "10.9.1.99")
    closed_hosts = ("10.9.0.3", "10.9.1.3")

    def __init__(self, client: Host, server: Host) -> None:
        self.client = client
        self.server = server
        for number, host in enumerate(self.closed_hosts):
            server.ip(f"addr add {host}/24 dev s{number}")
        self._cut: set[int] = set()

    def on_client(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def on_server(self) -> Iterator[None]:
        def make(family: AddressFamily) -> sctp.SctpSocket:
            with self.server.inside():
                return KernelSctpSocket.make(family)

        before = sctp.set_socket_factory(make)
        try:
            yield
        finally:
            sctp.set_socket_factory(before)

    def cut(self, cable: int) -> None:
        for host, link in ((self.client, f"c{cable}"), (self.server, f"s{cable}")):
            host.run("tc", "qdisc", "add", "dev", link, "root", "netem", "loss", "100%")
        self._cut.add(cable)

    def heal(self, cable: int) -> None:
        for host, link in ((self.client, f"c{cable}"), (self.server, f"s{cable}")):
            host.run("tc", "qdisc", "del", "dev", link, "root")
        self._cut.discard(cable)

    def heal_all(self) -> None:
        for cable_number in sorted(self._cut):
            self.heal(cable_number)

    def associations(self, *, of_client: bool = True, of_server: bool = True) -> list[str]:
        """The lines of /proc/net/sctp/assocs."""
        lines: list[str] = []
        for host in [self.client] * of_client + [self.server] * of_server:
            with host.inside(), open("/proc/thread-self/net/sctp/assocs", encoding="ascii") as file:
                lines += file.read().splitlines()[1:]
        return lines


@contextlib.contextmanager
def guest_net() -> Iterator[GuestNet]:
    with Host() as client, Host() as server:
        for number in (0, 1):
            cable(client, server, number)
        yield GuestNet(client, server)
