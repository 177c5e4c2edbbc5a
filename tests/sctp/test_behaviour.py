"""How associations behave: on the fake, wherever this runs, and on a kernel, in the guest of `make sctp`.

On the fake the time is virtual. Bounds are for the kernel, whose timers have ticks of 10 ms.
"""

from __future__ import annotations

import errno
import re
from typing import Any

import pytest
import trio
import trio.testing

from tests.sctp.nets import DELAY, FAST, PORT, Net, echo
from tests.support.sweep import sweep
from trio_connect import ConnectFailed, DeadlineExceeded, RaceFinished, now, sctp


def names(caught: pytest.ExceptionInfo[BaseException], *hosts: str) -> None:
    for host in hosts:
        assert f"{host}:{PORT}" in str(caught.value)


# --- setting up -------------------------------------------------------------------------------------------------------


async def test_messages_go_both_ways_over_an_association_with_all_addresses(net: Net, clock: object) -> None:
    async with net.pair(ppid=sctp.Ppid.NGAP, streams=7) as (client, server):
        assert client.id != 0 != server.id
        assert client.outbound_streams == 7 == server.inbound_streams
        assert [path.endpoint for path in client.paths()] == net.peers()
        assert {path.state for path in client.paths()} == {"active"}
        assert client.primary == net.peers()[0]
        assert [each.host for each in client.local] == list(net.client_hosts)
        assert [each.host for each in server.local] == list(net.server_hosts)
        await client.send(b"setup", stream=3)
        message = await server.receive(now() + 1000)
        assert message == sctp.Message(b"setup", stream=3, ppid=60, unordered=False, tsn=message.tsn)
        await server.send(bytearray(b"answer"), ppid=0x01020304, unordered=True)
        message = await client.receive(now() + 1000)
        assert (message.data, message.ppid, message.unordered) == (b"answer", 0x01020304, True)
        assert server.report.attempts == ()
    await net.no_association()


async def test_the_first_address_is_dead_and_costs_one_attempt_delay(net: Net, clock: object) -> None:
    async with net.listening():
        started = trio.current_time()
        async with await net.connected(net.dead_hosts[0], net.server_hosts[0]) as client:
            assert DELAY <= trio.current_time() - started < DELAY + 0.15
            assert client.primary.host == net.server_hosts[0]
            lost, won = client.report.attempts
            assert (lost.outcome, lost.cause, won.outcome, won.cause) == ("lost", "first", "won", "delay")
            assert lost.beaten_by == won.endpoint


async def test_three_are_dead_and_the_fourth_is_good(net: Net, clock: object) -> None:
    async with net.listening():
        started = trio.current_time()
        async with await net.connected(*net.dead_hosts, net.server_hosts[1]) as client:
            assert 3 * DELAY <= trio.current_time() - started < 3 * DELAY + 0.15
            assert client.primary.host == net.server_hosts[1]


async def test_all_are_dead_and_the_deadline_names_each(net: Net, clock: object) -> None:
    started = trio.current_time()
    with pytest.raises(DeadlineExceeded) as caught:
        await net.connected(*net.dead_hosts, within=0.5)
    assert 0.5 <= trio.current_time() - started < 0.65
    names(caught, *net.dead_hosts)
    assert caught.value.report is not None
    assert [each.outcome for each in caught.value.report.attempts] == ["cancelled"] * 3
    await net.no_association()


async def test_all_refuse_and_the_error_names_each(net: Net, clock: object) -> None:
    with pytest.raises(ConnectFailed, match=r"all 2 attempts to .* failed in .* \(refused: 2\)") as caught:
        await net.connected(*net.closed_hosts)
    names(caught, *net.closed_hosts)
    assert caught.value.errno == errno.ECONNREFUSED
    assert len(caught.value.errors) == 2
    assert all(isinstance(error, ConnectionRefusedError) for error in caught.value.errors)


async def test_an_address_that_refuses_is_dropped_and_the_rest_is_tried(net: Net, clock: object) -> None:
    async with net.listening():
        started = trio.current_time()
        async with await net.connected(net.closed_hosts[0], net.server_hosts[1]) as client:
            assert trio.current_time() - started < 0.15
            assert client.primary.host == net.server_hosts[1]
            first, second = client.report.attempts
            assert (first.outcome, first.errno, first.cause) == ("failed", errno.ECONNREFUSED, "first")
            assert (second.outcome, second.cause) == ("won", "failure")


async def test_after_a_refusal_those_that_were_not_tried_go_first(net: Net, clock: object) -> None:
    async with net.listening():
        started = trio.current_time()
        async with await net.connected(net.dead_hosts[0], net.closed_hosts[1], net.server_hosts[1]) as client:
            assert DELAY <= trio.current_time() - started < DELAY + 0.15
            assert [each.outcome for each in client.report.attempts] == ["lost", "failed", "won"]


async def test_an_address_that_the_peer_does_not_list_is_discarded(net: Net, clock: object) -> None:
    async with (
        net.listening(net.server_hosts[0]),
        await net.connected(net.server_hosts[0], net.dead_hosts[2]) as client,
    ):
        assert [path.endpoint.host for path in client.paths()] == [net.server_hosts[0]]


async def test_an_address_that_only_the_peer_lists_is_added_and_confirmed(net: Net, clock: object) -> None:
    async with net.pair(net.server_hosts[0], tuning=FAST) as (client, _):
        states = {path.endpoint.host: path.state for path in client.paths()}
        assert states == {net.server_hosts[0]: "active", net.server_hosts[1]: "unconfirmed"}
        with pytest.raises(DeadlineExceeded):
            await client.receive(now() + 2500)
        assert sctp.PathEvent(net.peers()[1], "confirmed") in client.path_events
        assert {path.state for path in client.paths()} == {"active"}


async def test_an_address_twice_is_once(net: Net, clock: object) -> None:
    async with net.listening(), await net.connected(net.server_hosts[0], net.server_hosts[0]) as client:
        assert len(client.report.attempts) == 1


@pytest.mark.parametrize(
    ("endpoints", "error", "text"),
    [
        ([], ValueError, "needs at least one endpoint, got none"),
        ([("192.0.2.1", 1), ("192.0.2.2", 2)], ValueError, "one SCTP peer have one port, got 1, 2"),
        ([("db.test", 1)], ValueError, "numeric IPv4 or IPv6 address"),
        ([("192.0.2.1", 0)], ValueError, "cannot connect to port 0"),
        ("192.0.2.1", TypeError, "must be an iterable of Endpoint"),
        (5, TypeError, "must be an iterable of Endpoint"),
    ],
    ids=["empty", "mixed port", "name", "port 0", "str", "int"],
)  # fmt: skip
async def test_what_cannot_be_addresses_is_refused(
    net: Net, clock: object, endpoints: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        await sctp.connectx(endpoints)


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ({"attempt_delay": 250}, ValueError),
        ({"attempt_delay": "1"}, TypeError),
        ({"streams": 0}, ValueError),
        ({"streams": True}, TypeError),
        ({"ppid": -1}, ValueError),
        ({"tuning": 3}, TypeError),
        ({"observer": 3}, TypeError),
        ({"local": "192.0.2.1"}, TypeError),
        ({"deadline": 5}, ValueError),
    ],
    ids=str,
)
async def test_options_that_cannot_be_are_refused(
    net: Net, clock: object, option: dict[str, Any], error: type[Exception]
) -> None:
    (name,) = option
    with pytest.raises(error, match=name):
        await sctp.connectx(net.peers(), **option)


async def test_an_address_of_another_family_than_the_local_one_is_an_error_of_this_machine(
    net: Net, clock: object
) -> None:
    with net.on_client(), pytest.raises((OSError, ConnectFailed)):
        await sctp.connectx(net.peers(), now() + 300, local=["2001:db8::77"])


async def test_a_local_address_that_is_not_ours(net: Net, clock: object) -> None:
    stranger = net.dead_hosts[0]
    with (
        net.on_client(),
        pytest.raises(OSError, match=rf"local: bind for {net.peers()[0]}, .* \(from {stranger}:0\)") as caught,
    ):
        await sctp.connectx(net.peers(), local=[stranger])
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_a_call_at_or_after_its_deadline_does_nothing(net: Net, clock: object) -> None:
    async with net.pair() as (client, server), net.listening(port=PORT + 1) as listener:
        await server.send(b"there")
        await trio.sleep(0.1)
        late = now()
        for call in (client.receive, listener.accept):
            with pytest.raises(DeadlineExceeded, match="did not begin: its deadline came"):
                await call(late)
        with pytest.raises(DeadlineExceeded, match="did not begin"):
            await client.send(b"x", late)
        with net.on_client(), pytest.raises(DeadlineExceeded, match="did not begin") as caught:
            await sctp.connectx(net.peers(), late, local=net.client_hosts)
        assert caught.value.report is not None
        assert [each.outcome for each in caught.value.report.attempts] == ["not tried"] * 2
        assert (await client.receive(0)).data == b"there"
        with pytest.raises(DeadlineExceeded, match="had no result by its deadline"):
            await client.receive(0)


async def test_an_observer_is_told_of_the_race_the_association_and_the_paths(net: Net, clock: object) -> None:
    seen: list[object] = []
    async with net.pair(tuning=FAST, observer=seen.append) as (client, server):
        assert [type(each) for each in seen] == [sctp.AssociationEvent, RaceFinished]
        net.cut(1)
        with pytest.raises(DeadlineExceeded):
            await client.receive(now() + 3000)
        assert sctp.PathEvent(net.peers()[1], "unreachable") in seen
        await server.abort()
        with pytest.raises(ConnectionResetError):
            await client.receive(now() + 1000)
        assert isinstance(seen[-1], sctp.AssociationEvent)
        assert (seen[-1].state, seen[-1].error) == ("lost", 12)


async def test_an_observer_that_raises_is_told_no_more(
    net: Net, clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[object] = []

    def broken(event: object) -> None:
        calls.append(event)
        raise ValueError("broken")

    async with net.pair(observer=broken):
        assert len(calls) == 1
    assert "an observer raised and is told no more" in caplog.text


async def test_the_path_that_answered_is_the_primary_one_and_fit_for_use(net: Net, clock: object) -> None:
    async with net.listening() as listener:
        net.cut(0)
        started = trio.current_time()
        async with await net.connected() as client, await listener.accept(now() + 1000) as server:
            assert DELAY <= trio.current_time() - started < DELAY + 0.15
            assert client.primary == net.peers()[1]
            assert len(client.paths()) == 2
            started = trio.current_time()
            await client.send(b"x")
            await server.send((await server.receive(now() + 1000)).data)
            await client.receive(now() + 1000)
            assert trio.current_time() - started < 0.1
            await client.abort()
            await server.abort()


# --- talking ----------------------------------------------------------------------------------------------------------


async def test_a_message_larger_than_64_kib_is_one_message(net: Net, clock: object) -> None:
    async with net.pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(echo, server)
        data = bytes(range(256)) * 700  # 179,200 bytes, received 65,536 at a time
        await client.send(data, stream=2)
        message = await client.receive(now() + 3000)
        assert (message.data, message.stream) == (data, 2)
        await client.aclose()


async def test_what_cannot_be_sent_says_why(net: Net, clock: object) -> None:
    async with net.pair(streams=2) as (client, _):
        with pytest.raises(
            OSError, match=r"message of 4000000 bytes to .* does not fit into the send buffer"
        ) as caught:
            await client.send(bytes(4_000_000))
        assert caught.value.errno == errno.EMSGSIZE
        with pytest.raises(OSError, match=rf"no stream 2 towards {net.peers()[0]}: there are 2") as caught:
            await client.send(b"x", stream=2)
        assert caught.value.errno == errno.EINVAL
        for wrong in (b"", "text"):
            with pytest.raises((TypeError, ValueError), match="data must"):
                await client.send(wrong)  # type: ignore[arg-type]
        for option in ({"ttl": 0}, {"stream": -1}, {"ppid": 1 << 32}):
            with pytest.raises(ValueError, match=next(iter(option))):
                await client.send(b"x", **option)  # type: ignore[arg-type]


async def test_a_full_buffer_makes_senders_wait_in_their_order(net: Net, clock: object) -> None:
    async with net.pair() as (client, server):
        with pytest.raises(DeadlineExceeded, match=rf"send to {net.peers()[0]} had no result by its deadline"):
            while True:
                await client.send(bytes(50_000), now() + 200)
        order: list[int] = []

        async def send(number: int) -> None:
            await client.send(bytes(50_000) + bytes([number]))
            order.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(send, number)
                await trio.testing.wait_all_tasks_blocked(0.01)
            seen: list[int] = []
            while len(seen) < 5:
                message = await server.receive(now() + 3000)
                seen += message.data[50_000:]
        assert order == seen == [0, 1, 2, 3, 4]
        await server.abort()


async def test_failover_while_sending(net: Net, clock: object) -> None:
    async with net.pair(tuning=FAST) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(echo, server)
        longest = 0.0
        for number in range(60):
            if number == 20:
                net.cut(0)
            started = trio.current_time()
            await client.send(b"%d" % number)
            assert (await client.receive(now() + 5000)).data == b"%d" % number
            longest = max(longest, trio.current_time() - started)
            await trio.sleep(0.02)
        states = {path.endpoint: path.state for path in client.paths()}
        assert states[net.peers()[0]] != "active"
        # No more than that is promised: on a busy machine a heartbeat may find out before any message does.
        assert longest < 1.0
        with pytest.raises(DeadlineExceeded):
            await client.receive(now() + 1500)
        assert sctp.PathEvent(net.peers()[0], "unreachable") in client.path_events
        net.heal(0)
        with pytest.raises(DeadlineExceeded):
            await client.receive(now() + 1500)
        assert client.path_events[-1] == sctp.PathEvent(net.peers()[0], "available")
        await client.aclose()


async def test_a_message_that_is_not_delivered_in_its_time_is_dropped_and_holds_up_no_other(
    net: Net, clock: object
) -> None:
    # Ten time-outs in a row end an association: on a loaded machine healing takes longer than ten of FAST's.
    tuning = sctp.SctpTuning(rto_initial=0.3, rto_min=0.3, rto_max=1.0)
    async with net.pair(tuning=tuning) as (client, server):
        net.cut(0)
        net.cut(1)
        await client.send(b"stale", ttl=0.1)
        await client.send(b"fresh")
        await trio.sleep(0.3)
        net.heal(0)
        net.heal(1)
        assert (await server.receive(now() + 5000)).data == b"fresh"


async def test_the_primary_path_can_be_chosen_among_those_of_the_peer(net: Net, clock: object) -> None:
    async with net.pair() as (client, _):
        client.set_primary(net.peers()[1])
        assert client.primary == net.peers()[1]
        client.set_primary((net.server_hosts[0], PORT))
        assert client.primary == net.peers()[0]
        with pytest.raises(OSError, match=r"has no address .*: paths\(\) lists them") as caught:
            client.set_primary((net.dead_hosts[0], PORT))
        assert caught.value.errno == errno.EINVAL


async def test_a_receive_that_times_out_or_is_cancelled_loses_nothing(net: Net, clock: object) -> None:
    async with net.pair() as (client, server):
        with pytest.raises(DeadlineExceeded, match=rf"receive from {net.peers()[0]} had no result by its deadline"):
            await client.receive(now() + 30)
        with trio.move_on_after(0.03) as scope:
            await client.receive()
        assert scope.cancelled_caught
        await server.send(b"kept")
        assert (await client.receive(now() + 1000)).data == b"kept"


# --- ending -----------------------------------------------------------------------------------------------------------


async def test_a_graceful_end_delivers_everything_and_ends_the_iteration(net: Net, clock: object) -> None:
    async with net.pair() as (client, server):
        for number in range(20):
            await client.send(b"%d" % number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            assert [message.data async for message in server] == [b"%d" % number for number in range(20)]
            with pytest.raises(trio.EndOfChannel):
                await server.receive()
            with pytest.raises(OSError, match="has been shut down") as caught:
                await server.send(b"late")
            assert caught.value.errno == errno.EPIPE
            await server.aclose()
    await net.no_association()


async def test_an_abort_is_a_reset_and_what_is_asked_afterwards_says_so(net: Net, clock: object) -> None:
    async with net.pair() as (client, server):
        await client.abort()
        lost = "is lost: the peer aborted it, cause 12"
        for _ in range(2):
            with pytest.raises(ConnectionResetError, match=lost):
                await server.receive(now() + 1000)
        for ask in (server.paths, lambda: server.primary, lambda: server.set_primary((net.client_hosts[0], 1))):
            with pytest.raises(OSError, match=lost) as caught:
                ask()
            assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(BrokenPipeError, match=lost):
            await server.send(b"late")
        for closed in (client.paths, lambda: client.local, lambda: client.primary):
            with pytest.raises(trio.ClosedResourceError):
                closed()
        with pytest.raises(trio.ClosedResourceError):
            await client.receive()
        with pytest.raises(trio.ClosedResourceError):
            await client.send(b"x")
    await net.no_association()


async def test_paths_after_a_graceful_end_say_so(net: Net, clock: object) -> None:
    async with net.pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        with pytest.raises(trio.EndOfChannel):
            await server.receive(now() + 1000)
        await trio.sleep(0.05)
        with pytest.raises(OSError, match=r"the association with .* has ended") as caught:
            server.paths()
        assert caught.value.errno == errno.ENOTCONN


async def test_a_peer_that_vanishes_holds_up_no_close(net: Net, clock: object) -> None:
    async with net.pair(tuning=sctp.SctpTuning(shutdown=0.3)) as (client, server):
        net.cut(0)
        net.cut(1)
        await client.send(b"never comes")
        started = trio.current_time()
        await client.aclose()
        assert 0.3 <= trio.current_time() - started < 0.5
        await net.no_association(of_server=False)
        await server.abort()


async def test_a_peer_that_does_not_answer_any_more_is_a_time_out_and_no_reset(net: Net, clock: object) -> None:
    async with net.pair(tuning=FAST) as (client, server):
        net.cut(0)
        net.cut(1)
        await client.send(b"never comes")
        with pytest.raises(TimeoutError, match="is lost: the peer cannot be reached any more") as caught:
            await client.receive(now() + 10_000)
        assert not isinstance(caught.value, DeadlineExceeded)
        assert caught.value.errno == errno.ETIMEDOUT
        with pytest.raises(OSError, match="cannot be reached any more"):
            client.paths()
        await server.abort()


async def test_an_abort_ends_a_close_that_waits(net: Net, clock: object) -> None:
    async with net.pair(tuning=sctp.SctpTuning(shutdown=5)) as (client, server):
        net.cut(0)
        net.cut(1)
        await client.send(b"never comes")
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.aclose)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await client.abort()
        assert trio.current_time() - started < 0.2
        await net.no_association(of_server=False)
        await server.abort()


async def test_closing_wakes_who_waits(net: Net, clock: object) -> None:
    async with net.pair() as (_, server):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(trio.ClosedResourceError, match="was closed here"):
                    await server.receive()

            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(trio.BusyResourceError):
                await server.receive()
            await server.aclose()
        await server.aclose()


async def test_closing_wakes_who_waits_at_once_and_not_when_the_peer_has_answered(net: Net, clock: object) -> None:
    async with net.pair(tuning=sctp.SctpTuning(shutdown=0.5)) as (client, server), trio.open_nursery() as nursery:
        net.cut(0)
        net.cut(1)
        started = trio.current_time()

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(trio.ClosedResourceError, match="was closed here"):
                await client.receive()
            assert trio.current_time() - started < 0.3

        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.aclose()
        await server.abort()


async def test_closing_wakes_senders_too(net: Net, clock: object) -> None:
    async with net.pair(tuning=sctp.SctpTuning(shutdown=0.1)) as (client, server):

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError, match="was closed here"):
                while True:
                    await client.send(bytes(100_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await client.aclose()
        await server.abort()


async def test_a_listener_that_is_closed_or_waits_too_long(net: Net, clock: object) -> None:
    async with net.listening() as listener:
        with pytest.raises(DeadlineExceeded, match=re.escape("accept on " + ", ".join(map(str, net.peers())))):
            await listener.accept(now() + 30)
        assert listener.endpoints == tuple(net.peers())
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with pytest.raises(trio.ClosedResourceError, match="the listener was closed"):
                    await listener.accept()

            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(trio.BusyResourceError):
                await listener.accept()
            await listener.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await listener.accept()


async def test_a_listener_on_any_port_has_one_port_at_all_addresses(net: Net, clock: object) -> None:
    async with net.listening(port=0) as listener:
        (port,) = {each.port for each in listener.endpoints}
        assert port
        with net.on_client():
            client = await sctp.connectx(listener.endpoints, now() + 1000, local=net.client_hosts)
        async with client:
            assert len(client.paths()) == 2


async def test_a_server_starts_again_while_an_association_of_the_one_before_ends(net: Net, clock: object) -> None:
    async with net.pair(tuning=sctp.SctpTuning(shutdown=5)) as (client, server), trio.open_nursery() as nursery:
        net.cut(0)
        net.cut(1)
        await server.send(b"never comes")
        nursery.start_soon(server.aclose)
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with net.listening(net.closed_hosts[0]):
            pass
        await server.abort()
        await client.abort()


async def test_a_port_that_somebody_listens_on_is_in_use(net: Net, clock: object) -> None:
    async with net.listening():
        with pytest.raises(OSError, match="local: ") as caught:
            async with net.listening():
                pass
        assert caught.value.errno == errno.EADDRINUSE


async def test_a_peer_that_has_gone_before_it_was_accepted(net: Net, clock: object) -> None:
    async with net.listening() as listener:
        client = await net.connected()
        await client.send(b"last words")
        await client.abort()
        async with await listener.accept(now() + 1000) as server:
            with pytest.raises(ConnectionResetError):
                while True:
                    await server.receive(now() + 1000)


# --- cancellation -----------------------------------------------------------------------------------------------------


async def test_a_connect_that_is_cancelled_at_any_step_leaves_nothing(net: Net, clock: object) -> None:
    # The peer may keep one until its next heartbeat: Linux sends no ABORT while a COOKIE ECHO is under way
    # (sctp_sf_cookie_echoed_prm_abort).
    counters = {"associations of the client": lambda: len(net.associations(of_server=False))}
    async with net.listening(backlog=1000):
        for hosts in (net.server_hosts, net.dead_hosts, (net.closed_hosts[0], net.server_hosts[1])):

            async def connect(hosts: tuple[str, ...] = hosts) -> None:
                association = await net.connected(*hosts, within=None)
                await association.abort()

            await sweep(connect, rounds=1, counters=counters)

    async def listen() -> None:
        async with net.listening():
            pass

    await sweep(listen, rounds=1, modes=("before", "deadline"), counters=counters)
    await net.no_association(of_server=False)


async def test_sending_receiving_accepting_and_closing_can_be_cancelled_at_any_step(net: Net, clock: object) -> None:
    counters = {"associations of the client": lambda: len(net.associations(of_server=False))}

    async def talk() -> None:
        async with net.listening() as listener:
            client = await net.connected()
            try:
                async with await listener.accept() as server:
                    await client.send(b"x")
                    await server.receive()
                    await server.send(b"y")
                await client.receive()
                await client.aclose()
            finally:
                with trio.CancelScope(shield=True):
                    await client.abort()

    await sweep(talk, rounds=1, modes=("after", "neighbour"), counters=counters)
