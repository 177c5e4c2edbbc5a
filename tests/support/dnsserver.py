"""Name servers for tests: one zone with faults, in virtual time or on the sockets of loopback.

A zone is a dict: ``{"web.test A": ["192.0.2.1"], "web.test AAAA": fault(delay=1.0)}``. A name that it does not have
does not exist; a type that a name does not have is empty.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import attrs
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio


@attrs.frozen(kw_only=True)
class Fault:
    """What is wrong with the answers to a question."""

    records: Sequence[str] = ()
    ttl: int = 60
    delay: float = 0.0
    drop: bool = False
    rcode: str | None = None
    truncated: bool = False
    """Over UDP; the answer is there over TCP."""
    malformed: bool = False
    soa: bool = True
    """Whether a negative answer says for how long."""
    minimum: int = 60


def fault(*records: str, **kwargs: Any) -> Fault:
    return Fault(records=records, **kwargs)


@attrs.define(eq=False)
class Server:
    """One name server. `zone` and `down` may be changed at any time."""

    zone: Mapping[str, Any]
    down: bool = False
    """It swallows everything."""
    refused: bool = False
    """Nobody listens on its port."""
    asked: list[str] = attrs.field(factory=list)
    transports: list[str] = attrs.field(factory=list)

    def count(self, question: str) -> int:
        return self.asked.count(question)

    def answer(self, wire: bytes, transport: str) -> tuple[bytes, float] | None:
        """The answer and its delay; None for silence."""
        query = dns.message.from_wire(wire)
        name = query.question[0].name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        self.asked.append(f"{name} {kind}")
        self.transports.append(transport)
        if self.down:
            return None
        found = self.zone.get(f"{name} {kind}")
        how = found if isinstance(found, Fault) else Fault(records=found or ())
        if how.drop:
            return None
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA
        owner = query.question[0].name
        alias = self.zone.get(f"{name} CNAME")
        if alias is not None:
            reply.answer.append(dns.rrset.from_text(owner, 60, "IN", "CNAME", alias))
            owner = dns.name.from_text(alias)
            how = Fault(records=self.zone.get(f"{alias.removesuffix('.')} {kind}", ()))
        if how.rcode is not None:
            reply.set_rcode(dns.rcode.from_text(how.rcode))
        elif how.truncated and transport == "udp":
            reply.flags |= dns.flags.TC
        elif how.records:
            reply.answer.append(dns.rrset.from_text(owner, how.ttl, "IN", kind, *how.records))
        else:
            if alias is None and not any(key.split()[0] == name for key in self.zone):
                reply.set_rcode(dns.rcode.NXDOMAIN)
            if how.soa:
                soa = f"ns.test. root.test. 1 60 60 60 {how.minimum}"
                reply.authority.append(dns.rrset.from_text("test.", how.ttl, "IN", "SOA", soa))
        data = reply.to_wire()
        if how.malformed:
            data = data[:-2]  # the last record says that it is longer
        return data, how.delay


class _Datagrams:
    """A connected UDP socket in virtual time."""

    def __init__(self, net: VirtualDns, family: int) -> None:
        self._net = net
        self.family = family
        self._server: Server | None = None
        self._coming: list[tuple[float, bytes]] = []
        self._lot = trio.lowlevel.ParkingLot()
        self._closed = False
        net.open += 1

    def setsockopt(self, *args: Any) -> None:
        pass

    async def connect(self, address: Any) -> None:
        await trio.lowlevel.checkpoint()
        if address[0] not in self._net.servers:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        self._server = self._net.servers[address[0]]

    async def send(self, data: bytes) -> int:
        await trio.lowlevel.checkpoint()
        assert self._server is not None
        answer = None if self._server.refused else self._server.answer(bytes(data), "udp")
        if answer is not None:
            self._coming.append((trio.current_time() + answer[1], answer[0]))
            self._coming.sort()
            self._lot.unpark_all()
        return len(data)

    async def recvfrom(self, size: int) -> tuple[bytes, Any]:
        while True:
            if self._closed:
                raise trio.ClosedResourceError("another task closed this fd")
            if self._server is not None and self._server.refused:
                await trio.lowlevel.checkpoint()
                raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
            if self._coming and self._coming[0][0] <= trio.current_time():
                await trio.lowlevel.checkpoint()
                return self._coming.pop(0)[1][:size], None
            with trio.CancelScope(deadline=self._coming[0][0] if self._coming else trio.current_time() + 1e6):
                await self._lot.park()

    def close(self) -> None:
        self._net.open -= not self._closed
        self._closed = True
        self._lot.unpark_all()


class VirtualDns(trio.abc.SocketFactory):
    """Name servers by address, for a run in virtual time. Sockets that are not UDP are left to the factory before."""

    def __init__(self, servers: Mapping[str, Server]) -> None:
        self.servers = dict(servers)
        self.open = 0
        """Sockets that are not closed."""
        self._before: Any = None

    def socket(self, family: Any = socket.AF_INET, type: Any = socket.SOCK_STREAM, proto: int = 0) -> Any:
        if type == socket.SOCK_DGRAM:
            return _Datagrams(self, family)
        assert self._before is not None, "this test has no network for TCP"
        return self._before.socket(family, type, proto)

    @contextlib.contextmanager
    def installed(self) -> Iterator[VirtualDns]:
        self._before = trio.socket.set_custom_socket_factory(self)
        try:
            yield self
        finally:
            trio.socket.set_custom_socket_factory(self._before)


@contextlib.contextmanager
def virtual_dns(zone: Mapping[str, Any], *, address: str = "192.0.2.53") -> Iterator[Server]:
    """One name server in virtual time, see `VirtualDns`."""
    server = Server(zone)
    with VirtualDns({address: server}).installed():
        yield server


async def answer_over_tcp(server: Server, stream: trio.abc.Stream) -> None:
    """Serve one connection to a name server (RFC 1035 section 4.2.2)."""
    data = bytearray()
    async with stream:
        while chunk := await stream.receive_some():
            data += chunk
            while len(data) >= 2 and len(data) >= 2 + (length := int.from_bytes(data[:2], "big")):
                answer = server.answer(bytes(data[2 : 2 + length]), "tcp")
                del data[: 2 + length]
                if answer is not None:
                    await trio.sleep(answer[1])
                    await stream.send_all(len(answer[0]).to_bytes(2, "big") + answer[0])


@contextlib.asynccontextmanager
async def serving(
    zone: Mapping[str, Any], *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[tuple[Server, tuple[str, int]]]:
    """One name server on UDP and TCP of loopback; it, and where it is."""
    server = Server(zone)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with trio.socket.socket(family, socket.SOCK_DGRAM) as udp:
        # TCP chooses the port: of its ports many are taken by connections of other tests, of those of UDP hardly any.
        (listener,) = await trio.open_tcp_listeners(port, host=host)
        port = listener.socket.getsockname()[1]
        await udp.bind((host, port))

        async def datagrams() -> None:
            while True:
                wire, peer = await udp.recvfrom(4096)
                nursery.start_soon(respond, wire, peer)

        async def respond(wire: bytes, peer: Any) -> None:
            answer = server.answer(wire, "udp")
            if answer is not None:
                await trio.sleep(answer[1])
                await udp.sendto(answer[0], peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(datagrams)
            nursery.start_soon(trio.serve_listeners, lambda stream: answer_over_tcp(server, stream), [listener])
            yield server, (host, port)
            nursery.cancel_scope.cancel()
