"""Two hosts with two cables between them, on which the same tests run: a kernel's, and those of the fake."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Any

import trio

from trio_connect import Endpoint, deadline_after, now, sctp

PORT = 3868
DELAY = 0.2
FAST = sctp.SctpTuning(rto_initial=0.2, rto_min=0.1, rto_max=0.3, heartbeat=0.2, path_max_retrans=2)


class Net(ABC):
    """A client and a server; cable 0 joins their first addresses, cable 1 their second ones."""

    client_hosts: tuple[str, str]
    server_hosts: tuple[str, str]
    dead_hosts: tuple[str, str, str]
    """Nobody has these addresses."""
    closed_hosts: tuple[str, str]
    """The server has these as well, and nobody listens there."""

    @abstractmethod
    def on_server(self) -> AbstractContextManager[object]:
        """Make sockets on the server. Sockets stay where they were made."""

    @abstractmethod
    def on_client(self) -> AbstractContextManager[object]:
        """Make sockets on the client."""

    @abstractmethod
    def cut(self, cable: int) -> None:
        """Lose every packet of a cable, both ways."""

    @abstractmethod
    def heal(self, cable: int) -> None:
        """Undo a cut."""

    @abstractmethod
    def associations(self, *, of_client: bool = True, of_server: bool = True) -> list[str]:
        """The associations that there are, whoever knows of them: a line of text each."""

    def peers(self, *hosts: str, port: int = PORT) -> list[Endpoint]:
        return [Endpoint(host, port) for host in hosts or self.server_hosts]

    @contextlib.asynccontextmanager
    async def listening(self, *hosts: str, port: int = PORT, **options: Any) -> AsyncIterator[sctp.SctpListener]:
        with self.on_server():
            listener = await sctp.listen(self.peers(*hosts, port=port), **options)
        async with listener:
            yield listener

    async def connected(self, *hosts: str, within: float | None = 3.0, **options: Any) -> sctp.Association:
        """Connect to these addresses of the server, by default to all of them, from both of the client's."""
        wanted: dict[str, Any] = {"local": self.client_hosts, "attempt_delay": DELAY} | options
        with self.on_client():
            return await sctp.connectx(self.peers(*hosts), deadline_after(within), **wanted)

    @contextlib.asynccontextmanager
    async def pair(self, *hosts: str, **options: Any) -> AsyncIterator[tuple[sctp.Association, sctp.Association]]:
        """The two ends of an association."""
        tuning = options.get("tuning", sctp.SctpTuning())
        async with (
            self.listening(tuning=tuning) as listener,
            await self.connected(*hosts, **options) as client,
            await listener.accept(now() + 1000) as server,
        ):
            yield client, server

    async def no_association(self, *, of_server: bool = True) -> None:
        """Wait until there is no association any more: the last packets are the kernel's own."""
        with trio.move_on_after(1):
            while self.associations(of_server=of_server):  # noqa: ASYNC110 - the kernel tells nobody
                await trio.sleep(0.02)
        assert self.associations(of_server=of_server) == []


async def echo(association: sctp.Association) -> None:
    async with association:
        async for message in association:
            await association.send(message.data, stream=message.stream, ppid=message.ppid)
