"""The network for programs that speak SCTP: what it refuses, its times, and what no kernel has to show."""

from __future__ import annotations

import errno

import pytest
import trio

from trio_connect import ConnectFailed, DeadlineExceeded, now, sctp
from trio_connect.testing import SctpHost, SctpNetwork

A, B = "192.0.2.1", "198.51.100.1"
C, D = "192.0.2.2", "198.51.100.2"


def two_hosts(net: SctpNetwork, rtt: float = 0.040) -> tuple[SctpHost, SctpHost]:
    return net.host(A, B, rtt=0), net.host(C, D, rtt=rtt)


async def test_a_connect_takes_two_round_trips_and_a_message_half_of_one(autojump_clock: object) -> None:
    with SctpNetwork() as net:
        two_hosts(net)
        async with await sctp.listen([(C, 1), (D, 1)]) as listener, await sctp.connectx([(C, 1)], local=[A]) as client:
            assert trio.current_time() == pytest.approx(0.080)
            async with await listener.accept() as server:
                await client.send(b"x")
                await server.receive()
                assert trio.current_time() == pytest.approx(0.100)
            started = trio.current_time()
        # SHUTDOWN of the server and the answer to it; the message was acknowledged meanwhile.
        assert trio.current_time() - started <= 0.041


async def test_on_a_real_clock_it_takes_its_time() -> None:
    with SctpNetwork() as net:
        two_hosts(net, rtt=0.010)
        started = trio.current_time()
        async with await sctp.listen([(C, 1)]), await sctp.connectx([(C, 1)], local=[A]):
            assert 0.020 <= trio.current_time() - started < 1


async def test_a_network_is_used_while_it_is_entered(autojump_clock: object) -> None:
    with SctpNetwork() as outer:
        two_hosts(outer)
        with SctpNetwork() as inner:
            inner.host("203.0.113.1")
            with pytest.raises(OSError, match="local: bind"):
                await sctp.listen([(C, 1)])
        await (await sctp.listen([(C, 1)])).aclose()


async def test_what_cannot_be_a_host_is_refused(autojump_clock: object) -> None:
    with SctpNetwork() as net:
        net.host(A)
        with pytest.raises(ValueError, match="at least one address"):
            net.host()
        with pytest.raises(ValueError, match=f"another host has {A}"):
            net.host(B, A)
        with pytest.raises(ValueError, match="numeric"):
            net.host("db.test")
        for rtt in (-1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="rtt must be 0 or more seconds"):
                net.host(B, rtt=rtt)
        for change in (net.cut, net.heal):
            with pytest.raises(ValueError, match=f"no host has {C}, {B}"):
                change(A, C, B)
        assert repr(net.host(B, D)) == f"<SctpHost {B}, {D}>"


async def test_an_unbound_client_stands_on_the_first_host_and_offers_all_its_addresses(autojump_clock: object) -> None:
    with SctpNetwork() as net:
        client_host, server_host = two_hosts(net)
        async with (
            await sctp.listen([(C, 1)]) as listener,
            await sctp.connectx([(C, 1)]) as client,
            await listener.accept() as server,
        ):
            assert [each.host for each in client.local] == [A, B]
            assert [path.endpoint.host for path in server.paths()] == [A, B]
            assert client_host.associations == server_host.associations == 1
        await trio.sleep(1)
        assert client_host.associations == server_host.associations == 0


async def test_addresses_of_two_hosts_are_no_address_of_one(autojump_clock: object) -> None:
    with SctpNetwork() as net:
        two_hosts(net)
        with pytest.raises(OSError, match="local: bind") as caught:
            await sctp.listen([(A, 1), (C, 1)])
        assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_without_hosts_there_is_nowhere_to_be(autojump_clock: object) -> None:
    with SctpNetwork(), pytest.raises(ConnectFailed, match="local"):
        await sctp.connectx([(C, 1)])


async def test_without_a_deadline_a_connect_to_nobody_gives_up_after_nine_inits(autojump_clock: object) -> None:
    with SctpNetwork() as net:
        two_hosts(net)
        with pytest.raises(ConnectFailed, match="timed out in the kernel"):
            await sctp.connectx([("192.0.2.99", 1)], local=[A])
        assert trio.current_time() == pytest.approx(0.25 * (2**9 - 1))


async def test_a_full_backlog_refuses(autojump_clock: object) -> None:
    with SctpNetwork() as net:
        two_hosts(net)
        async with await sctp.listen([(C, 1)], backlog=1):
            clients = [await sctp.connectx([(C, 1)], local=[A]) for _ in range(2)]
            with pytest.raises(ConnectFailed, match="refused"):
                await sctp.connectx([(C, 1)], local=[A])
        for client in clients:  # those who were not accepted were aborted with the listener
            with pytest.raises(ConnectionResetError):
                await client.receive(now() + 1000)
            await client.aclose()


async def test_who_has_no_association_any_more_answers_with_an_abort(autojump_clock: object) -> None:
    with SctpNetwork() as net:
        two_hosts(net)
        async with await sctp.listen([(C, 1)]) as listener:
            client = await sctp.connectx([(C, 1)], local=[A])
            server = await listener.accept()
            net.cut(C)
            await client.abort()  # never arrives
            await trio.sleep(1)
            net.heal(C)
            await server.send(b"still there?")
            with pytest.raises(ConnectionResetError, match=r"the peer aborted it$"):
                await server.receive(now() + 10_000)
            await server.aclose()


@pytest.mark.parametrize("step", range(8))
async def test_a_graceful_end_survives_the_loss_of_any_of_its_packets(step: int, autojump_clock: object) -> None:
    with SctpNetwork() as net:
        hosts = two_hosts(net)
        async with await sctp.listen([(C, 1)]) as listener:
            client = await sctp.connectx([(C, 1)], local=[A], tuning=sctp.SctpTuning(shutdown=60))
            server = await listener.accept()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.aclose)
                await trio.sleep(step * 0.010)
                net.cut(C)
                await trio.sleep(1)
                net.heal(C)
                with pytest.raises(trio.EndOfChannel):
                    await server.receive(now() + 60_000)
            await server.aclose()
        await trio.sleep(1)
        assert [host.associations for host in hosts] == [0, 0]


async def test_both_ends_may_close_at_once(autojump_clock: object) -> None:
    with SctpNetwork() as net:
        hosts = two_hosts(net)
        async with await sctp.listen([(C, 1)]) as listener:
            client = await sctp.connectx([(C, 1)], local=[A])
            server = await listener.accept()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.aclose)
                nursery.start_soon(server.aclose)
            assert trio.current_time() < 0.5
        assert [host.associations for host in hosts] == [0, 0]


async def test_messages_of_a_stream_keep_their_order_over_a_failover(autojump_clock: object) -> None:
    with SctpNetwork() as net:
        two_hosts(net)
        tuning = sctp.SctpTuning(rto_initial=0.2, rto_min=0.2, rto_max=0.5, path_max_retrans=2)
        async with (
            await sctp.listen([(C, 1), (D, 1)]) as listener,
            await sctp.connectx([(C, 1), (D, 1)], local=[A, B], tuning=tuning) as client,
            await listener.accept() as server,
        ):
            net.cut(C)
            await client.send(b"0")
            await trio.sleep(0.01)
            client.set_primary((D, 1))
            for number in range(1, 5):
                await client.send(b"%d" % number)
            await client.send(b"overtakes", unordered=True)
            got = [(await server.receive(now() + 3000)).data for _ in range(6)]
            assert got == [b"overtakes", b"0", b"1", b"2", b"3", b"4"]


async def test_an_idle_association_ends_when_no_path_leads_to_the_peer(autojump_clock: object) -> None:
    with SctpNetwork() as net:
        two_hosts(net)
        async with (
            await sctp.listen([(C, 1), (D, 1)]) as listener,
            await sctp.connectx([(C, 1), (D, 1)], local=[A, B]) as client,
        ):
            server = await listener.accept()
            net.cut(C, D)
            with pytest.raises(DeadlineExceeded):
                await client.receive(now() + 60_000)
            assert {path.state for path in client.paths()} == {"potentially failed"}
            with pytest.raises(TimeoutError, match="cannot be reached any more"):
                await client.receive()
            await server.abort()


async def test_a_run_without_a_network_is_the_kernels(autojump_clock: object) -> None:
    before = sctp.set_socket_factory(None)
    assert before is None
    with SctpNetwork():
        assert sctp.set_socket_factory(None) is not None
    assert sctp.set_socket_factory(None) is None
