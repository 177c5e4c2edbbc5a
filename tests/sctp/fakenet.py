"""The same two hosts on the fake of `trio_connect.testing`."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

from tests.sctp.nets import Net
from trio_connect.testing import SctpNetwork


class FakeNet(Net):
    """A network that was entered; its time is virtual."""

    client_hosts = ("10.9.0.1", "10.9.1.1")
    server_hosts = ("10.9.0.2", "10.9.1.2")
    dead_hosts = ("10.9.0.99", "10.9.1.98", "10.9.1.99")
    closed_hosts = ("10.9.0.3", "10.9.1.3")

    def __init__(self, net: SctpNetwork) -> None:
        self.network = net
        self.client = net.host(*self.client_hosts)
        self.server = net.host(*self.server_hosts, *self.closed_hosts)

    def on_server(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def on_client(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    def _cable(self, cable: int) -> tuple[str, ...]:
        return self.client_hosts[cable], self.server_hosts[cable], self.closed_hosts[cable]

    def cut(self, cable: int) -> None:
        self.network.cut(*self._cable(cable))

    def heal(self, cable: int) -> None:
        self.network.heal(*self._cable(cable))

    def associations(self, *, of_client: bool = True, of_server: bool = True) -> list[str]:
        return ["an association"] * (self.client.associations * of_client + self.server.associations * of_server)
