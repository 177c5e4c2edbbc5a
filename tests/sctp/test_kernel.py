"""What only a real kernel can show: `make sctp` boots a guest that has SCTP and runs this file in it."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from typing import Any

import pytest
import trio
import trio.testing

from tests.sctp.guestnet import GuestNet
from tests.sctp.nets import DELAY, PORT
from trio_connect import ConnectFailed, DeadlineExceeded, now, sctp
from trio_connect.sctp import _wire as wire
from trio_connect.sctp._socket import KernelSctpSocket

pytestmark = pytest.mark.sctp


def test_it_is_available_here() -> None:
    assert sctp.availability() == sctp.Availability(ok=True, reason="")


async def test_an_icmp_error_of_a_losing_path_stands_in_so_error_of_an_association_that_is_up(kernel: GuestNet) -> None:
    kernel.client.ip("route add 10.9.8.0/24 via 10.9.0.2")
    kernel.server.ip("route add unreachable 10.9.8.0/24")
    kernel.server.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    made: list[KernelSctpSocket] = []

    def make(family: socket.AddressFamily) -> sctp.SctpSocket:
        made.append(KernelSctpSocket.make(family))
        return made[-1]

    async with kernel.listening():
        # The trap itself: who decides by SO_ERROR throws an association away that is up.
        sock = KernelSctpSocket.make(socket.AF_INET)
        sock.prepare(streams=1, attempt_delay=DELAY, rounds=None, tuning=sctp.SctpTuning())
        sock.connect(tuple(kernel.peers("10.9.8.7", kernel.server_hosts[0])))
        await trio.sleep(2 * DELAY)
        code = sock._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        assert (code, sock.status().state) == (errno.EHOSTUNREACH, wire.ESTABLISHED)
        sock.abort()
        # And here nobody falls into it.
        async with await kernel.connected("10.9.8.7", kernel.server_hosts[0]) as client:
            assert client.primary.host == kernel.server_hosts[0]
            assert [each.outcome for each in client.report.attempts] == ["lost", "won"]


async def answer_protocol_unreachable(kernel: GuestNet, host: str) -> None:
    """Answer SCTP as a machine without it does. The server has it, so what it sends from this address is dropped."""
    kernel.server.ip("route add blackhole default table 77", f"rule add from {host} ipproto sctp table 77")
    with kernel.server.inside():
        incoming = socket.socket(socket.AF_INET, socket.SOCK_RAW, wire.SOL_SCTP)
        outgoing = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    with incoming, outgoing:
        incoming.setblocking(False)
        outgoing.bind((host, 0))
        while True:
            await trio.lowlevel.wait_readable(incoming)
            packet, (peer, _) = incoming.recvfrom(2048)
            if socket.inet_ntoa(packet[16:20]) == host:
                # RFC 792: type 3, code 2, and the beginning of the packet.
                body = struct.pack("!BBHI", 3, 2, 0, 0) + packet[:60]
                total = sum(struct.unpack("!34H", body))
                total = (total & 0xFFFF) + (total >> 16)
                checksum = struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
                outgoing.sendto(body[:2] + checksum + body[4:], (peer, 0))


async def test_a_host_without_sctp_is_dropped_like_one_that_refuses(kernel: GuestNet) -> None:
    async with kernel.listening(), trio.open_nursery() as nursery:
        nursery.start_soon(answer_protocol_unreachable, kernel, kernel.closed_hosts[0])
        await trio.testing.wait_all_tasks_blocked(0.01)
        started = trio.current_time()
        async with await kernel.connected(kernel.closed_hosts[0], kernel.server_hosts[1]) as client:
            assert trio.current_time() - started < 0.15
            first, second = client.report.attempts
            assert (first.outcome, first.errno, second.outcome) == ("failed", errno.ENOPROTOOPT, "won")
        kernel.server.ip(f"rule del from {kernel.closed_hosts[0]} ipproto sctp table 77")
        nursery.cancel_scope.cancel()


async def test_ipv6_beside_ipv4(kernel: GuestNet) -> None:
    # IPv4 first: to who came over IPv6 the kernel lists no private IPv4 address (net.sctp.addr_scope_policy).
    peers = kernel.peers(kernel.server_hosts[1], "fd00:0::2")
    async with (
        kernel.listening("fd00:0::2", kernel.server_hosts[1]) as listener,
        await sctp.connectx(peers, now() + 2000, local=("fd00:0::1", kernel.client_hosts[1])) as client,
        await listener.accept(now() + 1000) as server,
    ):
        assert {path.endpoint for path in client.paths()} == set(peers)
        await client.send(b"six")
        assert (await server.receive(now() + 1000)).data == b"six"


async def test_a_private_ipv4_address_is_not_listed_to_who_came_over_ipv6(kernel: GuestNet) -> None:
    peers = kernel.peers("fd00:0::2", kernel.server_hosts[1])
    async with (
        kernel.listening("fd00:0::2", kernel.server_hosts[1]),
        await sctp.connectx(peers, now() + 2000, local=("fd00:0::1", kernel.client_hosts[1])) as client,
    ):
        assert [path.endpoint.host for path in client.paths()] == ["fd00::2"]


async def test_an_unbound_client_offers_every_address_of_its_machine(kernel: GuestNet) -> None:
    async with (
        kernel.listening() as listener,
        await kernel.connected(local=()),
        await listener.accept(now() + 1000) as server,
    ):
        assert {path.endpoint.host for path in server.paths()} >= set(kernel.client_hosts)
    async with (
        kernel.listening() as listener,
        await kernel.connected(local=kernel.client_hosts[:1]),
        await listener.accept(now() + 1000) as server,
    ):
        assert [path.endpoint.host for path in server.paths()] == [kernel.client_hosts[0]]


async def test_a_sender_that_waits_does_not_spin(kernel: GuestNet) -> None:
    tries = 0
    plain = KernelSctpSocket.send

    def counted(self: KernelSctpSocket, data: bytes, **options: object) -> None:
        nonlocal tries
        tries += 1
        plain(self, data, **options)  # type: ignore[arg-type]

    async with kernel.pair() as (client, server):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(KernelSctpSocket, "send", counted)
            with pytest.raises(DeadlineExceeded):
                while True:
                    await client.send(bytes(30_000), now() + 200)
            before = tries
            with pytest.raises(DeadlineExceeded):
                await client.send(bytes(30_000), now() + 500)
            assert tries - before <= 3
        await server.abort()


@pytest.mark.parametrize("tuning", [{"rto_max": 0.3}, {"rto_min": 70}, {"rto_initial": 0.2}], ids=str)
async def test_one_time_out_may_be_set_alone(kernel: GuestNet, tuning: dict[str, float]) -> None:
    async with kernel.pair(tuning=sctp.SctpTuning(**tuning)) as (client, server):  # type: ignore[arg-type]
        await client.send(b"x")
        assert (await server.receive(now() + 1000)).data == b"x"


async def test_without_a_deadline_every_address_is_tried_as_often_as_one_would_be(kernel: GuestNet) -> None:
    kernel.client.run("sysctl", "-qw", "net.sctp.max_init_retransmits=2")
    try:
        started = trio.current_time()
        with pytest.raises(ConnectFailed, match="timed out in the kernel: 2") as caught:
            await kernel.connected(*kernel.dead_hosts[:2], within=None, attempt_delay=0.1)
        # Five INITs, and the pause doubles after each round: 0.1, 0.1, 0.2, 0.2, 0.4.
        assert 0.9 <= trio.current_time() - started < 1.3
        assert caught.value.errno == errno.ETIMEDOUT
    finally:
        kernel.client.run("sysctl", "-qw", "net.sctp.max_init_retransmits=8")


# --- with another implementation: pysctp's blocking sockets, in threads -----------------------------------------------


def pysctp() -> Any:
    return pytest.importorskip("sctp", reason="NOT RUN: pysctp has wheels for Linux on x86-64 only")


def prepared(sock: Any) -> Any:
    """Have a blocking socket give up after some seconds, and say what a message is."""
    sock.sock().setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 5, 0))
    sock.sock().setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.events.data_io = True
    sock.events.flush()
    return sock


def described(data: bytes, information: Any) -> tuple[bytes, int, int]:
    # pysctp turns the bytes of a payload protocol when it sends, and leaves them as they are when it receives.
    return data, socket.ntohl(information.ppid), information.stream


async def test_a_client_talks_to_a_server_of_pysctp(kernel: GuestNet) -> None:
    listening = trio.Event()
    got: list[tuple[bytes, int, int]] = []

    def serve() -> None:
        with kernel.server.inside():
            listener = prepared(pysctp().sctpsocket_tcp(socket.AF_INET))
        with contextlib.closing(listener):
            listener.bindx([(host, PORT) for host in kernel.server_hosts])
            listener.listen(5)
            trio.from_thread.run_sync(listening.set)
            accepted, _ = listener.accept()
            with contextlib.closing(prepared(accepted)):
                _, _, data, information = accepted.sctp_recv(65_536)
                got.append(described(data, information))
                accepted.sctp_send(b"from pysctp", ppid=60, stream=2)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, serve)
        await listening.wait()
        async with await kernel.connected(ppid=sctp.Ppid.NGAP) as client:
            assert {path.endpoint.host for path in client.paths()} == set(kernel.server_hosts)
            await client.send(b"from here", stream=3)
            message = await client.receive(now() + 3000)
            assert (message.data, message.ppid, message.stream) == (b"from pysctp", sctp.Ppid.NGAP, 2)
            with pytest.raises(trio.EndOfChannel):
                await client.receive(now() + 3000)
    assert got == [(b"from here", 60, 3)]


async def test_a_server_talks_to_a_client_of_pysctp(kernel: GuestNet) -> None:
    got: list[tuple[bytes, int, int]] = []

    def connect() -> None:
        with kernel.client.inside():
            sock = prepared(pysctp().sctpsocket_tcp(socket.AF_INET))
        with contextlib.closing(sock):
            sock.bindx([(host, 0) for host in kernel.client_hosts[:1]])
            sock.connectx([(host, PORT) for host in kernel.server_hosts])
            sock.sctp_send(b"from pysctp", ppid=46, stream=1)
            _, _, data, information = sock.sctp_recv(65_536)
            got.append(described(data, information))

    async with kernel.listening(ppid=sctp.Ppid.DIAMETER) as listener, trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, connect)
        async with await listener.accept(now() + 3000) as server:
            assert [path.endpoint.host for path in server.paths()] == [kernel.client_hosts[0]]
            message = await server.receive(now() + 3000)
            assert (message.data, message.ppid, message.stream) == (b"from pysctp", sctp.Ppid.DIAMETER, 1)
            await server.send(b"from here", stream=4)
            with pytest.raises(trio.EndOfChannel):
                await server.receive(now() + 3000)
    assert got == [(b"from here", 46, 4)]
