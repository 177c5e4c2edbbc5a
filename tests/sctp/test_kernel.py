"""What only a real kernel can show: `make sctp` boots a guest that has SCTP and runs this file in it."""

from __future__ import annotations

import errno
import socket

import pytest
import trio
import trio.testing

from tests.sctp.guestnet import GuestNet
from tests.sctp.nets import DELAY
from trio_connect import DeadlineExceeded, now, sctp
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


async def test_a_peer_that_does_not_answer_any_more_is_no_reset(kernel: GuestNet) -> None:
    tuning = sctp.SctpTuning(rto_initial=0.1, rto_min=0.1, rto_max=0.1, path_max_retrans=2)
    for host in (kernel.client, kernel.server):
        host.run("sysctl", "-qw", "net.sctp.association_max_retrans=3")
    async with kernel.pair(tuning=tuning) as (client, server):
        kernel.cut(0)
        kernel.cut(1)
        await client.send(b"never comes")
        with pytest.raises(TimeoutError, match="is lost: the peer cannot be reached any more") as caught:
            await client.receive(now() + 5000)
        assert not isinstance(caught.value, DeadlineExceeded)
        assert caught.value.errno == errno.ETIMEDOUT
        with pytest.raises(OSError, match="cannot be reached any more"):
            client.paths()
        await server.abort()
