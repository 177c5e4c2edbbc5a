"""One question to one server: over UDP, and over TCP when the answer does not fit into a datagram (RFC 7766)."""

from __future__ import annotations

from errno import ECONNRESET
from math import inf
from typing import TYPE_CHECKING, final

from trio import BrokenResourceError, current_time

from ..._options import DEFAULT_OPTIONS
from ..._policy import DEFAULT_POLICY
from ..race.driver import run_race
from ..race.plan import RacePlan
from ..sockets.address import sockaddr_of
from ..sockets.datagram import DatagramSocket
from ..sockets.open import factory_installed
from .dns_wire import Reply

if TYPE_CHECKING:
    from ..._endpoint import Endpoint
    from ..streams.tcp_stream import TcpStream
    from .dns_wire import Question

__all__ = ["Exchange"]

_MOST = 0xFFFF


@final
class Exchange:
    """What goes on between us and one server. Whoever waits may go, and another may take its place: see `reply`.

    A socket for each question to each server: the kernel gives it a port that nobody can guess (RFC 5452 section 9.2),
    lets no other sender through, and says at once when nobody listens there.

    Args:
      server: where to.
      question: what is asked.
    """

    __slots__ = ("_over_tcp", "_question", "_sent", "_sock", "server")

    def __init__(self, server: Endpoint, question: Question) -> None:
        self.server = server
        self._question = question
        self._sock: DatagramSocket | None = None
        self._sent = False
        self._over_tcp = False

    async def reply(self) -> Reply:
        """Send the question if that is still to be done, and wait for the answer to it.

        A cancel leaves the question out: call this again, from any task, to go on waiting. Only what goes over TCP is
        begun anew.

        Raises:
          OSError: the server cannot be reached, or this machine is short of something.
        """
        if not self._over_tcp:
            if self._sock is None:
                self._sock = await self._open()
            if not self._sent:
                await self.send()
            reply = await self._receive(self._sock)
            if not reply.is_truncated:
                return reply
            self._over_tcp = True
        return await self._ask_over_tcp()

    async def _open(self) -> DatagramSocket:
        sock = DatagramSocket(self.server.family)
        try:
            await sock.connect(sockaddr_of(self.server))
        except BaseException:
            sock.close()  # whoever goes on after a cancel opens another one
            raise
        return sock

    async def send(self) -> None:
        """Send the question, for the first time or again; nothing when it has gone over to TCP.

        Raises:
          OSError: the server cannot be reached.
        """
        if self._sock is not None and not self._over_tcp:
            await self._sock.send(self._question.wire)
            self._sent = True

    async def _receive(self, sock: DatagramSocket) -> Reply:
        while True:
            data, _, _ = await sock.receive(_MOST)
            reply = self._question.read(data)
            if reply is not None:
                return reply

    async def _ask_over_tcp(self) -> Reply:
        wire = self._question.wire
        async with await self._connect() as stream:
            try:
                await stream.send_all(len(wire).to_bytes(2, "big") + wire)
                while True:
                    length = int.from_bytes(await stream.receive_exactly(2), "big")
                    reply = self._question.read(await stream.receive_exactly(length))
                    if reply is not None:
                        # Nothing is left to ask by, and what was cut off is no negative answer.
                        return Reply(error="an answer that is cut off over TCP too") if reply.is_truncated else reply
            except BrokenResourceError as exc:
                raise ConnectionResetError(ECONNRESET, f"{self.server} has closed the connection") from exc

    async def _connect(self) -> TcpStream:
        # A race of one, and not tcp_connect. That stands above, because the name of a proxy has to be looked up.
        plan = RacePlan(
            policy=DEFAULT_POLICY, sources=(), options=DEFAULT_OPTIONS, establish=None, observer=None,
            until=inf, started=current_time(), factory=factory_installed(),
        )  # fmt: skip
        stream: TcpStream = await run_race(plan, [(None, self.server)])
        return stream

    def close(self) -> None:
        """Close the socket. A task in `reply` has to be cancelled first."""
        if self._sock is not None:
            self._sock.close()
