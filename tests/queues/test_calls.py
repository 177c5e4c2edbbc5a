"""Call by call: what each does, the errno of each refusal, and failures as data. Over both kinds of socket."""

from __future__ import annotations

import errno
import gc
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.queues.kit import LOOPBACK, failed, listening, pair, passes, refused, where
from tests.support import faults
from tests.support.sockets import PassThroughSocket, Sockets
from trio_connect import DeadlineExceeded, Endpoint, RacePolicy, SocketOptions, now, queues, tcp_connect
from trio_connect._net.attempt import PENDING
from trio_connect._net.reactor.attempt import ReactorAttempt
from trio_connect.queues import (
    Accepted,
    Closed,
    Connected,
    IOQueue,
    Popped,
    Pushed,
    QResult,
    QToken,
    QueueSet,
    open_queue_set,
)
from trio_connect.queues._connecting import TcpConnect

# --- a queue of each kind ---------------------------------------------------------------------------------------------


async def test_a_new_queue_has_nothing_open(sockets: Sockets):
    async with open_queue_set() as qs:
        for queue in (qs.stream(), qs.datagram(), qs.unix()):
            assert (queue.state, queue.local, queue.peer) == ("unbound", None, None)
        assert sockets.factory is None or sockets.factory.created == 0


async def test_a_queue_carries_its_options(sockets: Sockets):
    async with open_queue_set() as qs:
        with pytest.raises(TypeError, match="SocketOptions"):
            qs.stream(options="fast")  # type: ignore[arg-type]
        queue = qs.stream(options=SocketOptions(keepalive_idle=7))
        await queue.bind(LOOPBACK)
        await queue.listen(5)
        async with await tcp_connect(where(queue)) as client:
            accepted = await qs.wait(queue.accept())
            assert accepted.ok
            assert client.peer == queue.local


def test_queues_and_sets_are_not_made_by_hand():
    with pytest.raises(TypeError, match="abstract class IOQueue"):
        IOQueue()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="open_queue_set"):
        QueueSet(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [True, 1.5, "1", None])
async def test_a_limit_is_an_int(limit):
    with pytest.raises(TypeError, match="max_in_flight must be an int"):
        async with open_queue_set(limit):
            pass


async def test_a_limit_is_at_least_1():
    with pytest.raises(ValueError, match="max_in_flight must be at least 1, got 0"):
        async with open_queue_set(0):
            pass


# --- bind -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [("127.0.0.1", 0), ("0.0.0.0", 0), ("::1", 0), ("::", 0)], ids=str)
@pytest.mark.parametrize("kind", ["stream", "datagram"])
async def test_bind_takes_wildcards_port_0_and_ipv6(sockets: Sockets, kind, address):
    async with open_queue_set() as qs:
        queue = getattr(qs, kind)()
        await queue.bind(address)
        assert queue.state == "bound"
        assert queue.local.host == address[0]
        assert queue.local.port > 0


@pytest.mark.parametrize("kind", ["stream", "datagram"])
async def test_bind_refusals(sockets: Sockets, kind):
    async with open_queue_set() as qs:
        queue = getattr(qs, kind)()
        await queue.bind(LOOPBACK)
        with refused(errno.EINVAL):
            await queue.bind(LOOPBACK)
        await queue.aclose()
        with refused(errno.EBADF):
            await queue.bind(LOOPBACK)
        near = (await pair(qs))[0]
        with refused(errno.EISCONN):
            await near.bind(LOOPBACK)


@pytest.mark.parametrize("kind", ["stream", "datagram"])
async def test_a_bind_that_fails_leaves_the_queue_unbound(sockets: Sockets, kind):
    async with open_queue_set() as qs:
        taken = getattr(qs, kind)()
        await taken.bind(LOOPBACK)
        if kind == "stream":
            await taken.listen(1)
        queue = getattr(qs, kind)()
        with refused(errno.EADDRINUSE):
            await queue.bind(taken.local)
        with refused(errno.EADDRNOTAVAIL):
            await queue.bind(("192.0.2.1", 0))
        assert (queue.state, queue.local) == ("unbound", None)
        await queue.bind(LOOPBACK)


async def test_bind_says_whose_fault_it_is(sockets: Sockets):
    async with open_queue_set() as qs:
        with pytest.raises(OSError, match=r"local: bind for 192\.0\.2\.1:0: "):
            await qs.stream().bind(("192.0.2.1", 0))


async def test_bind_without_descriptors():
    async with open_queue_set() as qs:
        queues = qs.stream(), qs.datagram()
        for queue in queues:
            with faults.descriptors_exhausted(), pytest.raises(OSError, match="local: socket for") as caught:
                await queue.bind(LOOPBACK)
            assert caught.value.errno == errno.EMFILE
            assert queue.state == "unbound"


@pytest.mark.parametrize(("address", "error"), [("localhost", TypeError), (("localhost", 1), ValueError)])
async def test_bind_takes_addresses_only(address, error):
    async with open_queue_set() as qs:
        for queue in (qs.stream(), qs.datagram()):
            with pytest.raises(error):
                await queue.bind(address)
            assert queue.state == "unbound"


# --- listen -----------------------------------------------------------------------------------------------------------


async def test_listen_refusals(sockets: Sockets):
    async with open_queue_set() as qs:
        queue = qs.stream()
        with refused(errno.EDESTADDRREQ):
            await queue.listen(1)
        await queue.bind(LOOPBACK)
        for backlog in (0, -1):
            with refused(errno.EINVAL):
                await queue.listen(backlog)
        for wrong in (True, 1.0, None):
            with pytest.raises(TypeError, match="backlog must be an int"):
                await queue.listen(wrong)  # type: ignore[arg-type]
        await queue.listen(1 << 40)  # more than the system allows is what the system allows
        with refused(errno.EADDRINUSE):
            await queue.listen(1)
        with refused(errno.EOPNOTSUPP):
            await qs.datagram().listen(1)
        near = (await pair(qs))[0]
        with refused(errno.EISCONN):
            await near.listen(1)
        await near.aclose()
        with refused(errno.EBADF):
            await near.listen(1)


async def test_listen_where_somebody_listens_already():
    """Both could bind, because both may reuse the address; only one can listen."""
    async with open_queue_set() as qs:
        first, second = qs.stream(), qs.stream()
        await first.bind(LOOPBACK)
        await second.bind(where(first))
        await first.listen(1)
        with pytest.raises(OSError, match=r"local: listen on 127\.0\.0\.1") as caught:
            await second.listen(1)
        assert caught.value.errno == errno.EADDRINUSE
        assert second.state == "bound"


async def test_listen_while_connecting(sockets: Sockets):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            queue = qs.stream()
            queue.connect(nowhere.pair)
            with refused(errno.EADDRINUSE):
                await queue.listen(1)
            with refused(errno.EINVAL):
                await queue.bind(LOOPBACK)


# --- accept -----------------------------------------------------------------------------------------------------------


async def test_accept_gives_one_connection_for_one_token(sockets: Sockets):
    async with open_queue_set() as qs:
        listener = await listening(qs)
        tokens = [listener.accept() for _ in range(3)]
        clients = [await qs.wait(qs.stream().connect(where(listener))) for _ in range(3)]
        accepted = [(await qs.wait(token)).unwrap() for token in tokens]
        # Served in the order of submission: the first token has the first connection.
        assert [each.peer for each in accepted] == [client.queue.local for client in clients]
        assert all(each.queue.state == "connected" for each in accepted)
        assert all(each.queue.local == listener.local for each in accepted)
        assert all(each.queue.peer == each.peer for each in accepted)


async def test_accept_refusals(sockets: Sockets):
    async with open_queue_set() as qs:
        queue = qs.stream()
        with refused(errno.EINVAL):
            queue.accept()
        await queue.bind(LOOPBACK)
        with refused(errno.EINVAL):
            queue.accept()
        near, _ = await pair(qs)
        with refused(errno.EINVAL):
            near.accept()
        with refused(errno.EOPNOTSUPP):
            qs.datagram().accept()
        await queue.aclose()
        with refused(errno.EBADF):
            queue.accept()


async def test_an_accept_without_descriptors_is_local_trouble_as_data():
    async with open_queue_set() as qs:
        listener = await listening(qs)
        client = socket.create_connection(where(listener).sockaddr)
        with client:
            with faults.descriptors_exhausted():
                result = await qs.wait(listener.accept())
            assert failed(result, errno.EMFILE)
            assert "local: accept on 127.0.0.1" in str(result.error)
            assert (await qs.wait(listener.accept())).ok  # nothing was lost


# --- connect ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_connect(sockets: Sockets, host):
    async with open_queue_set() as qs:
        listener = await listening(qs, (host, 0))
        queue = qs.stream()
        token = queue.connect(where(listener))
        assert (token.op, token.queue, queue.state) == ("connect", queue, "connecting")
        result = await qs.wait(token)
        value = result.unwrap()
        assert (result.op, result.queue, result.token, result.error) == ("connect", queue, token, None)
        assert (value.local, value.peer) == (queue.local, queue.peer) == (queue.local, listener.local)
        assert value.report.winner is not None
        assert value.report.winner.endpoint == listener.local
        assert 0 < result.elapsed < 10
        assert repr(value) == f"Connected(local={queue.local!r}, peer={listener.local!r})"


async def test_connect_refusals(sockets: Sockets):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            queue = qs.stream()
            queue.connect(nowhere.pair)
            with refused(errno.EINPROGRESS):
                queue.connect(nowhere.pair)
            for data_operation in (queue.pop, lambda: queue.push(b"x")):
                with refused(errno.ENOTCONN):
                    data_operation()
            near, _ = await pair(qs)
            with refused(errno.EISCONN):
                near.connect(nowhere.pair)
            with refused(errno.EOPNOTSUPP):
                (await listening(qs)).connect(nowhere.pair)
            await near.aclose()
            with refused(errno.EBADF):
                near.connect(nowhere.pair)


@pytest.mark.parametrize(
    ("address", "error"),
    [("x", TypeError), (("localhost", 1), ValueError), (("127.0.0.1", 0), ValueError), (None, TypeError)],
)
async def test_a_bad_address_raises_at_submission(address, error):
    async with open_queue_set() as qs:
        for queue in (qs.stream(), qs.datagram()):
            with pytest.raises(error):
                queue.connect(address)
            assert queue.state == "unbound"
        with pytest.raises(error):
            qs.datagram().push_to(b"x", address)
        with pytest.raises((TypeError, ValueError)):
            qs.unix().connect(("127.0.0.1", 1))
        assert qs.in_flight == 0


@pytest.mark.parametrize(("deadline", "error"), [(1.5, TypeError), (None, TypeError), (-2, ValueError)])
async def test_a_bad_deadline_raises_at_submission(deadline, error):
    async with open_queue_set() as qs:
        with pytest.raises(error):
            qs.stream().connect(("127.0.0.1", 1), deadline)
        with pytest.raises(error):
            qs.connectx([("127.0.0.1", 1)], deadline)
        assert qs.in_flight == 0


async def test_a_refused_connect_is_data_and_the_queue_may_connect_again(sockets: Sockets):
    with faults.refusing() as closed:
        async with open_queue_set() as qs, faults.echoing() as peer:
            queue = qs.stream()
            result = await qs.wait(queue.connect(closed.pair))
            assert failed(result, errno.ECONNREFUSED)
            assert isinstance(result.error, ConnectionRefusedError)
            assert f"connect to {closed.host}:{closed.port} from " in str(result.error)
            assert (result.op, result.queue, queue.state) == ("connect", queue, "unbound")
            with refused(errno.ENOTCONN):
                queue.push(b"x")
            # A fresh descriptor: Linux would answer the next connect() on the old one with ECONNABORTED.
            assert (await qs.wait(queue.connect(peer.address.pair))).ok


async def test_a_bound_queue_connects_from_where_it_is_bound(sockets: Sockets):
    async with open_queue_set() as qs, faults.echoing() as peer:
        queue = qs.stream()
        await queue.bind(LOOPBACK)
        bound = queue.local
        value = (await qs.wait(queue.connect(peer.address.pair))).unwrap()
        assert value.local == queue.local == bound
        assert value.report.attempts[0].source is not None
        wild = qs.stream()
        await wild.bind(("0.0.0.0", 0))
        port = where(wild).port
        value = (await qs.wait(wild.connect(peer.address.pair))).unwrap()
        assert value.local == wild.local == Endpoint("127.0.0.1", port)
        six = qs.stream()
        await six.bind(("::1", 0))
        with refused(errno.EAFNOSUPPORT):
            six.connect(peer.address.pair)
        assert six.state == "bound"


async def test_a_queue_bound_to_ipv6_connects(sockets: Sockets):
    async with open_queue_set() as qs:
        listener = await listening(qs, ("::1", 0))
        for host in ("::1", "::"):
            queue = qs.stream()
            await queue.bind((host, 0))
            port = where(queue).port
            value = (await qs.wait(queue.connect(where(listener)))).unwrap()
            assert value.local == Endpoint("::1", port)


async def test_an_option_that_the_platform_refuses_fails_the_bind(sockets: Sockets):
    async with open_queue_set() as qs:
        queue = qs.stream(options=SocketOptions(keepalive_idle=7))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(queues._stream_transports, "set_options", refuse_options)
            with refused(errno.ENOPROTOOPT):
                await queue.bind(LOOPBACK)
        assert queue.state == "unbound"


def refuse_options(*_: object) -> None:
    raise OSError(errno.ENOPROTOOPT, "refused")


async def test_a_bound_queue_that_fails_to_connect_is_unbound(sockets: Sockets):
    with faults.refusing() as closed:
        async with open_queue_set() as qs:
            queue = qs.stream()
            await queue.bind(LOOPBACK)
            bound = queue.local
            result = await qs.wait(queue.connect(closed.pair))
            assert failed(result, errno.ECONNREFUSED)
            assert (queue.state, queue.local) == ("unbound", None)
            await queue.bind(bound)  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", [False, True])
async def test_a_connect_with_a_deadline(sockets: Sockets, bound, autojump_clock):
    with faults.black_hole() as nowhere:
        async with open_queue_set() as qs:
            queue = qs.stream()
            if bound:
                await queue.bind(LOOPBACK)
            result = await qs.wait(queue.connect(nowhere.pair, now() + 20))
            assert isinstance(result.error, DeadlineExceeded)
            assert failed(result, errno.ETIMEDOUT)
            assert result.error.report is not None
            assert result.error.report.attempts[0].outcome == "cancelled"
            assert f"{nowhere.host}:{nowhere.port}" in str(result.error)
            assert queue.state == "unbound"


async def test_a_connect_without_descriptors():
    async with open_queue_set() as qs:
        with faults.refusing() as closed, faults.descriptors_exhausted():
            result = await qs.wait(qs.stream().connect(closed.pair))
        assert failed(result, errno.EMFILE)
        assert f"local: socket for {closed.host}" in str(result.error)


async def test_a_connection_with_oneself_is_refused():
    with faults.refusing() as address:
        own = address.pair
    async with open_queue_set() as qs:
        queue = qs.stream()
        await queue.bind(own)
        assert failed(await qs.wait(queue.connect(own)), errno.ECONNREFUSED)


# --- connectx ---------------------------------------------------------------------------------------------------------


async def test_a_race_is_one_token(sockets: Sockets):
    with faults.refusing() as closed:
        async with open_queue_set() as qs, faults.echoing() as peer:
            token = qs.connectx([closed.pair, peer.address.pair], policy=RacePolicy(attempt_delay=5.0))
            assert token.queue.state == "connecting"
            with refused(errno.EINPROGRESS):
                token.queue.connect(peer.address.pair)
            result = await qs.wait(token)
            assert (result.op, result.queue.state) == ("connectx", "connected")
            value = result.unwrap()
            assert value.peer == result.queue.peer == Endpoint(*peer.address.pair)
            assert value.local == result.queue.local
            assert [attempt.outcome for attempt in value.report.attempts] == ["failed", "won"]
            push = await qs.wait(result.queue.push(b"hello"))
            assert push.unwrap() == Pushed(5)
            pop = await qs.wait(result.queue.pop())
            assert pop.unwrap().data == b"hello"


async def test_a_connect_that_was_waited_for_leaves_its_registration_to_what_follows(monkeypatch):
    watched = set()
    poll = ReactorAttempt.poll

    def poll_later(attempt: ReactorAttempt) -> int:
        watched.add(attempt.watched)
        return PENDING if attempt.watched < 0 else poll(attempt)  # so that it waits for an event, whatever was learnt

    async with open_queue_set() as qs, faults.echoing() as peer:
        with monkeypatch.context() as patch:
            patch.setattr(ReactorAttempt, "poll", poll_later)
            result = await qs.wait(qs.stream().connect(peer.address.pair))
        assert result.ok
        assert len(watched) == (0 if qs._scheduler.reactor is None else 2)
        for token in (result.queue.push(b"hello"), result.queue.pop()):
            assert (await qs.wait(token)).ok


async def test_a_connect_that_was_waited_for_lives_no_longer_than_its_token_is_held(monkeypatch):
    poll = ReactorAttempt.poll

    def poll_later(attempt: ReactorAttempt) -> int:
        return PENDING if attempt.watched < 0 else poll(attempt)

    monkeypatch.setattr(ReactorAttempt, "poll", poll_later)
    gc.collect()
    gc.disable()  # what is gone then was counted, and in no cycle
    try:
        before = count_tokens()
        async with open_queue_set() as qs, faults.echoing() as peer:
            queue = qs.stream()
            assert (await qs.wait(queue.connect(peer.address.pair))).ok
            assert [each for each in gc.get_objects() if isinstance(each, TcpConnect)] == []
            assert count_tokens() == before
            for token in (queue.push(b"hello"), queue.pop()):
                assert (await qs.wait(token)).ok
    finally:
        gc.enable()


async def test_a_connect_at_the_origin_of_the_clock_has_its_report(sockets: Sockets, mock_clock):
    async with open_queue_set() as qs:
        result = await qs.wait(qs.stream().connect(where(await listening(qs))))
        assert trio.current_time() == 0
        assert isinstance(result.value, Connected)
        assert [attempt.outcome for attempt in result.value.report.attempts] == ["won"]


async def test_a_race_that_is_lost_is_data_with_a_report(sockets: Sockets):
    with faults.refusing() as closed:
        async with open_queue_set() as qs:
            result = await qs.wait(qs.connectx(iter([closed.pair])))
            assert failed(result, errno.ECONNREFUSED)
            assert len(result.error.report.attempts) == 1  # type: ignore[union-attr]
            assert result.queue.state == "unbound"
            with faults.black_hole() as nowhere:
                late = await qs.wait(qs.connectx([nowhere.pair], now() + 20))
            assert isinstance(late.error, DeadlineExceeded)


@pytest.mark.parametrize("kind", ["stream", "datagram", "unix"])
async def test_a_connect_that_begins_after_its_deadline_has_a_report(sockets: Sockets, kind: str):
    async with open_queue_set() as qs:
        target: Any = "/nowhere" if kind == "unix" else ("127.0.0.1", 9)
        late = await qs.wait(getattr(qs, kind)().connect(target, now() - 1))
        assert isinstance(late.error, DeadlineExceeded)
        assert late.error.report is not None
        assert late.error.report.tried == ()


async def test_a_race_takes_endpoints_as_they_come(sockets: Sockets):
    async with open_queue_set() as qs, faults.echoing() as peer:

        async def endpoints():
            await trio.lowlevel.checkpoint()
            yield peer.address.pair

        assert (await qs.wait(qs.connectx(endpoints()))).ok


async def test_a_race_closes_a_generator_and_leaves_a_channel_open(sockets: Sockets):
    closed = []
    async with open_queue_set() as qs, faults.echoing() as peer:

        async def endpoints():
            try:
                yield peer.address.pair
                await trio.sleep_forever()
            finally:
                closed.append(peer)

        assert (await qs.wait(qs.connectx(endpoints()))).ok
        assert closed == [peer]
        send, receive = trio.open_memory_channel[tuple[str, int]](1)
        for _ in range(2):
            send.send_nowait(peer.address.pair)
            assert (await qs.wait(qs.connectx(receive))).ok


@pytest.mark.parametrize(
    ("endpoints", "options", "error"),
    [
        ([], {}, ValueError),
        ([("localhost", 1)], {}, ValueError),
        ([("127.0.0.1", 0)], {}, ValueError),
        ("127.0.0.1:1", {}, TypeError),
        ([("127.0.0.1", 1)], {"policy": 1}, TypeError),
        ([("127.0.0.1", 1)], {"sources": 1}, TypeError),
        ([("127.0.0.1", 1)], {"observer": 1}, TypeError),
        ([("127.0.0.1", 1)], {"options": 1}, TypeError),
        ([("127.0.0.1", 1)], {"establish": print}, TypeError),
    ],
)
async def test_a_race_with_bad_arguments_raises_at_submission(endpoints, options, error):
    async with open_queue_set() as qs:
        with pytest.raises(error):
            qs.connectx(endpoints, **options)
        assert qs.in_flight == 0


# --- push and pop -----------------------------------------------------------------------------------------------------


async def test_push_and_pop(sockets: Sockets):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        push = await qs.wait(near.push(bytearray(b"hello")))
        assert (push.op, push.unwrap()) == ("push", Pushed(5))
        pop = await qs.wait(far.pop())
        assert pop.op == "pop"
        assert pop.unwrap() == Popped(b"hello", far.peer)  # type: ignore[arg-type]
        assert not pop.unwrap().eof


async def test_a_pop_takes_what_comes_and_leaves_the_rest(sockets: Sockets):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        await qs.wait(near.push(b"abcdef"))
        assert (await qs.wait(far.pop(4))).unwrap().data == b"abcd"
        assert (await qs.wait(far.pop(4))).unwrap().data == b"ef"


async def test_a_pop_of_nothing_is_the_orderly_end(sockets: Sockets):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        pop = far.pop()
        await near.aclose()
        value = (await qs.wait(pop)).unwrap()
        assert (value.data, value.eof) == (b"", True)
        assert (await qs.wait(far.pop())).unwrap().eof


async def test_pops_are_served_in_the_order_of_submission(sockets: Sockets):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        pops = [far.pop(1) for _ in range(4)]
        await qs.wait(near.push(b"abcd"))
        assert [(await qs.wait(pop)).unwrap().data for pop in pops] == [b"a", b"b", b"c", b"d"]


async def test_pushes_are_never_interleaved(sockets: Sockets):
    size = 300_000
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        pushes = [near.push(bytes([value]) * size) for value in b"abc"]
        received = bytearray()
        while len(received) < 3 * size:
            received += (await qs.wait(far.pop())).unwrap().data
        assert bytes(received) == b"a" * size + b"b" * size + b"c" * size
        order = [(await qs.wait_any(pushes))[0] for _ in range(1)]
        assert order == [0]


async def test_push_refusals(sockets: Sockets):
    async with open_queue_set() as qs:
        near, _ = await pair(qs)
        with refused(errno.EINVAL):
            near.push(b"")
        for wrong in ("text", None, 5):
            with pytest.raises(TypeError):
                near.push(wrong)  # type: ignore[arg-type]
        with refused(errno.EOPNOTSUPP):
            near.push_to(b"x", ("127.0.0.1", 1))
        for queue in (qs.stream(), qs.datagram(), qs.unix(), await listening(qs)):
            with refused(errno.ENOTCONN):
                queue.push(b"x")
        await near.aclose()
        with refused(errno.EBADF):
            near.push(b"x")


async def test_a_buffer_is_free_again_when_its_push_has_completed(sockets: Sockets):
    async with open_queue_set() as qs:
        near, _ = await pair(qs)
        data = bytearray(b"hello")
        token = near.push(data)
        with pytest.raises(BufferError):
            data += b"x"
        await qs.wait(token)
        data += b"x"


async def test_pushes_that_end_with_their_set_let_go_of_their_buffers(sockets: Sockets):
    buffers = [bytearray(1 << 24), bytearray(b"behind"), bytearray(b"not begun"), bytearray(b"behind that")]
    async with open_queue_set() as qs:
        near, _far = await pair(qs)
        pushes = [near.push(buffers[0]), near.push(buffers[1])]
        await trio.testing.wait_all_tasks_blocked(0.01)
        datagrams = qs.datagram()
        await datagrams.bind(LOOPBACK)
        pushes += [datagrams.push_to(buffer, where(datagrams)) for buffer in buffers[2:]]
        assert not any(push.done for push in pushes)
    for buffer in buffers:
        buffer.clear()  # a BufferError while anybody has a view of it


def count_tokens() -> int:
    return sum(isinstance(each, QToken) for each in gc.get_objects())


@pytest.mark.parametrize("how", ["by name", "any", "not at all"])
async def test_a_result_is_in_no_cycle_once_it_was_claimed_or_its_set_has_ended(sockets: Sockets, how: str):
    gc.collect()
    gc.disable()  # what is gone then was counted, and in no cycle
    try:
        before = count_tokens()
        async with open_queue_set() as qs:
            near, far = await pair(qs)
            assert count_tokens() == before
            token = near.push(b"x")
            if how == "by name":
                await qs.wait(token)
            elif how == "any":
                await qs.wait_next(1)
            else:
                while not token.done:
                    await trio.lowlevel.checkpoint()
            del token
            if how != "not at all":
                assert count_tokens() == before
        del near, far, qs
        await passes()
        if sys.version_info >= (3, 12):
            # There a nursery that has cancelled its tasks leaves the frames of its end in a cycle, with all they hold.
            gc.collect()
        assert count_tokens() == before
    finally:
        gc.enable()


async def test_pop_refusals(sockets: Sockets):
    async with open_queue_set() as qs:
        near, _ = await pair(qs)
        for size in (0, -1, 65537):
            with refused(errno.EINVAL):
                near.pop(size)
        for wrong in (True, 1.0, "1"):
            with pytest.raises(TypeError, match="size must be an int"):
                near.pop(wrong)  # type: ignore[arg-type]
        for queue in (qs.stream(), qs.unix(), await listening(qs)):
            with refused(errno.ENOTCONN):
                queue.pop()
        with refused(errno.EDESTADDRREQ):
            qs.datagram().pop()
        await near.aclose()
        with refused(errno.EBADF):
            near.pop()


async def test_a_reset_by_the_peer_is_data(sockets: Sockets):
    async with open_queue_set() as qs:
        listener = await listening(qs)
        client = socket.create_connection(where(listener).sockaddr)
        queue = (await qs.wait(listener.accept())).unwrap().queue
        pop = queue.pop()
        await passes()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        result = await qs.wait(pop)
        assert failed(result, errno.ECONNRESET)
        assert isinstance(result.error, ConnectionResetError)
        assert f"pop from {queue.peer!s}: " in str(result.error)
        push = await qs.wait(queue.push(b"x"))
        assert push.errno in {errno.EPIPE, errno.ECONNRESET}
        assert f"push to {queue.peer!s}: " in str(push.error)


async def test_a_reset_that_a_push_has_met_is_told_to_pops_too(sockets: Sockets):
    """Linux tells it once, and calls it the end of the stream from then on."""
    async with open_queue_set() as qs:
        listener = await listening(qs)
        client = socket.create_connection(where(listener).sockaddr)
        queue = (await qs.wait(listener.accept())).unwrap().queue
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert failed(await qs.wait(queue.push(b"x")), errno.ECONNRESET)
        for _ in range(2):
            pop = await qs.wait(queue.pop())
            assert failed(pop, errno.ECONNRESET)
            assert f"pop from {queue.peer!s}: " in str(pop.error)


async def test_after_a_broken_pipe_what_the_peer_had_sent_still_comes(sockets: Sockets):
    async with open_queue_set() as qs:
        listener = await listening(qs)
        client = socket.create_connection(where(listener).sockaddr)
        queue = (await qs.wait(listener.accept())).unwrap().queue
        client.sendall(b"bye")
        client.close()
        while (push := await qs.wait(queue.push(b"x"))).ok:
            pass
        assert failed(push, errno.EPIPE)
        assert (await qs.wait(queue.pop())).unwrap().data == b"bye"
        assert (await qs.wait(queue.pop())).unwrap().eof


async def test_a_push_that_was_cut_off_does_not_shorten_the_next(sockets: Sockets):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        huge = near.push(bytes(faults.more_than_fits()))
        behind = bytearray(b"behind")
        cut, last = near.push(behind), near.push(b"last")
        await passes(20)
        cut.cancel()
        assert failed(await qs.wait(cut), errno.ECANCELED)
        behind += b"its buffer is free again"
        huge.cancel()
        assert failed(await qs.wait(huge), errno.ECANCELED)
        tail = b""
        while not last.done or not tail.endswith(b"last"):
            tail = tail[-8:] + (await qs.wait(far.pop())).unwrap().data
        assert tail.endswith(b"\0last")


def exists_now(path: str) -> bool:
    return Path(path).exists()


# --- unix-domain queues -----------------------------------------------------------------------------------------------


async def test_what_waits_for_a_connect_says_whom_it_is_to(vnet, autojump_clock):
    vnet.host("192.0.2.1").blackhole()
    vnet.host("192.0.2.2").blackhole()
    one, two = ("192.0.2.1", 7), ("192.0.2.2", 7)
    async with open_queue_set() as qs:
        for submit, whom in (
            (lambda: qs.stream().connect(one), "connect to 192.0.2.1:7 on <IOQueue "),
            (lambda: qs.connectx([one]), "connectx to 192.0.2.1:7 on <IOQueue "),
            (lambda: qs.connectx([one, two]), "connectx to 2 endpoints on <IOQueue "),
        ):
            token: QToken[Any] = submit()
            with pytest.raises(DeadlineExceeded) as caught:
                await qs.wait(token, now() + 1000)
            assert f"the wait for <QToken {token.id}: {whom}" in str(caught.value)
            token.cancel()
            error = (await qs.wait(token)).error
            assert error is not None
            assert error.strerror is not None
            assert error.strerror.startswith(whom)


async def test_a_token_says_to_which_path_it_connects(tmp_path):
    async with open_queue_set() as qs:
        token = qs.unix().connect(str(tmp_path / "s"))
        assert f": connect to {tmp_path / 's'} on <IOQueue " in repr(token)
        await qs.wait(token)


async def test_a_unix_client_that_has_no_name_is_named_by_where_it_came(sockets: Sockets, tmp_path):
    path = str(tmp_path / "s")
    async with open_queue_set() as qs:
        listener = qs.unix()
        await listener.bind(path)
        await listener.listen(1)
        near = (await qs.wait(qs.unix().connect(path))).queue
        far = (await qs.wait(listener.accept())).unwrap().queue
        await near.aclose()
        result = await qs.wait(far.push(b"x"))
        assert failed(result, errno.EPIPE)
        assert f"push to a client of {path}: " in str(result.error)


async def test_bytes_with_gaps_between_them_are_refused_in_words():
    gaps = r"bytes that lie side by side, got <memory .+> with gaps$"
    async with open_queue_set() as qs:
        listener = await listening(qs)
        near = (await qs.wait(qs.stream().connect(where(listener)))).queue
        with pytest.raises(TypeError, match=f"^data must be {gaps}"):
            near.push(memoryview(b"abcd")[::2])
        async with await tcp_connect(where(listener)) as stream:
            with pytest.raises(TypeError, match=f"^send_all needs {gaps}"):
                await stream.send_all(memoryview(b"abcd")[::2])


async def test_unix(sockets: Sockets, tmp_path):
    path = str(tmp_path / "socket")
    async with open_queue_set() as qs:
        listener = qs.unix()
        await listener.bind(path)
        assert listener.local == path
        await listener.listen(1)
        accept = listener.accept()
        near = (await qs.wait(qs.unix().connect(path))).queue
        assert near.peer == path
        far = (await qs.wait(accept)).unwrap().queue
        await qs.wait(near.push(b"hello"))
        assert (await qs.wait(far.pop())).unwrap().data == b"hello"
        assert exists_now(path)
        await listener.aclose()
        assert not exists_now(path)


async def test_a_bound_unix_queue_connects_and_removes_its_path(sockets: Sockets, tmp_path):
    path, own = str(tmp_path / "socket"), str(tmp_path / "own")
    async with open_queue_set() as qs:
        listener = qs.unix()
        await listener.bind(path)
        await listener.listen(1)
        client = qs.unix()
        await client.bind(own)
        value = (await qs.wait(client.connect(path))).unwrap()
        assert (value.local, value.peer) == (own, path)
        assert (await qs.wait(listener.accept())).unwrap().peer == own
        await client.aclose()
        assert not exists_now(own)
        again = qs.unix()
        await again.bind(own)
        assert failed(await qs.wait(again.connect(str(tmp_path / "nobody"))), errno.ENOENT)
        assert not exists_now(own)
        assert again.state == "unbound"


async def test_unix_failures(sockets: Sockets, tmp_path):
    async with open_queue_set() as qs:
        missing = str(tmp_path / "missing")
        result = await qs.wait(qs.unix().connect(missing))
        assert failed(result, errno.ENOENT)
        assert missing in str(result.error)
        queue = qs.unix()
        with refused(errno.ENAMETOOLONG):
            await queue.bind("x" * 200)
        assert failed(await qs.wait(queue.connect("x" * 200)), errno.ENAMETOOLONG)
        (tmp_path / "file").touch()
        with refused(errno.EADDRINUSE):
            await queue.bind(tmp_path / "file")
        with pytest.raises(ValueError, match="path must not be empty"):
            await queue.bind("")
        with pytest.raises(TypeError):
            queue.connect(5)  # type: ignore[arg-type]


async def test_unix_without_descriptors(tmp_path):
    async with open_queue_set() as qs:
        with faults.descriptors_exhausted():
            result = await qs.wait(qs.unix().connect(str(tmp_path / "x")))
        assert failed(result, errno.EMFILE)


@pytest.mark.parametrize("bound", [False, True])
async def test_a_full_backlog_is_waited_for(sockets: Sockets, tmp_path, bound):
    with faults.full_unix_backlog() as path:
        async with open_queue_set() as qs:
            queue = qs.unix()
            if bound:
                await queue.bind(tmp_path / "own")
            result = await qs.wait(queue.connect(path, now() + 20))
            assert isinstance(result.error, DeadlineExceeded)
            token = queue.connect(path)
            with pytest.raises(DeadlineExceeded):
                await qs.wait(token, now() + 5)
            token.cancel()
            assert failed(await qs.wait(token), errno.ECANCELED)


# --- datagram queues --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_datagrams_carry_their_sender(sockets: Sockets, host):
    async with open_queue_set() as qs:
        server, client = qs.datagram(), qs.datagram()
        await server.bind((host, 0))
        assert client.local is None
        push = client.push_to(b"question", where(server))
        assert client.state == "bound"
        answer = client.pop()  # there is a socket to wait on as soon as the push_to was submitted
        result = await qs.wait(push)
        assert (result.op, result.unwrap()) == ("push_to", Pushed(8))
        question = (await qs.wait(server.pop())).unwrap()
        assert question.data == b"question"
        assert question.peer == Endpoint(host, where(client).port)
        await qs.wait(server.push_to(b"answer", question.peer))
        assert (await qs.wait(answer)).unwrap() == Popped(b"answer", where(server))


async def test_a_connected_datagram_queue(sockets: Sockets):
    async with open_queue_set() as qs:
        server, client = qs.datagram(), qs.datagram()
        await server.bind(LOOPBACK)
        value = (await qs.wait(client.connect(where(server)))).unwrap()
        assert (value.peer, value.local) == (server.local, client.local)
        assert value.report.attempts == ()
        assert (await qs.wait(client.push(b"x"))).unwrap() == Pushed(1)
        assert (await qs.wait(server.pop())).unwrap().peer == client.local
        with refused(errno.EISCONN):
            client.push_to(b"x", where(server))
        with refused(errno.EISCONN):
            client.connect(where(server))


async def test_an_empty_datagram_is_no_end(sockets: Sockets):
    async with open_queue_set() as qs:
        server = qs.datagram()
        await server.bind(LOOPBACK)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", where(server).sockaddr)
        value = (await qs.wait(server.pop())).unwrap()
        assert (value.data, value.eof) == (b"", False)


async def test_a_datagram_that_is_too_long_for_its_pop_is_cut(sockets: Sockets):
    async with open_queue_set() as qs:
        server, client = qs.datagram(), qs.datagram()
        await server.bind(LOOPBACK)
        for data in (b"abcdef", b"next"):
            await qs.wait(client.push_to(data, where(server)))
        cut = (await qs.wait(server.pop(3))).unwrap()
        assert (cut.data, cut.truncated) == (b"abc", True)
        whole = (await qs.wait(server.pop(4))).unwrap()
        assert (whole.data, whole.truncated) == (b"next", False)


async def test_datagram_failures_are_data(sockets: Sockets):
    with faults.refusing() as closed:
        async with open_queue_set() as qs:
            queue = qs.datagram()
            await qs.wait(queue.connect(closed.pair))
            await qs.wait(queue.push(b"x"))
            pop = await qs.wait(queue.pop())  # the ICMP answer of a port where no datagram socket is
            assert failed(pop, errno.ECONNREFUSED)
            assert f"pop from {closed.host}:{closed.port}" in str(pop.error)
            huge = await qs.wait(queue.push(bytes(70_000)))
            assert failed(huge, errno.EMSGSIZE)
            free = qs.datagram()
            assert failed(await qs.wait(free.push_to(bytes(70_000), closed.pair)), errno.EMSGSIZE)


async def test_datagram_refusals(sockets: Sockets):
    async with open_queue_set() as qs:
        queue = qs.datagram()
        await queue.bind(LOOPBACK)
        with refused(errno.EAFNOSUPPORT):
            queue.push_to(b"x", ("::1", 1))
        pop = queue.pop()
        with refused(errno.EBUSY):
            queue.connect(("127.0.0.1", 1))
        pop.cancel()
        assert failed(await qs.wait(pop), errno.ECANCELED)
        push = queue.push_to(b"x", ("127.0.0.1", 1))
        push.cancel()
        assert failed(await qs.wait(push), errno.ECANCELED)
        assert (await qs.wait(queue.connect(("127.0.0.1", 1)))).ok


async def test_a_datagram_socket_that_is_not_bound_yet_has_a_family_already(sockets: Sockets):
    async with open_queue_set() as qs:
        queue = qs.datagram()
        first = queue.push_to(b"x", ("127.0.0.1", 9))
        with refused(errno.EAFNOSUPPORT):
            queue.push_to(b"x", ("::1", 9))
        assert (await qs.wait(first)).value == Pushed(1)


async def test_a_datagram_connect_that_fails_leaves_the_queue_unbound():
    async with open_queue_set() as qs:
        queue = qs.datagram()
        result = await qs.wait(queue.connect(("127.255.255.255", 1)))  # needs SO_BROADCAST
        assert failed(result, errno.EACCES)
        assert "connect to 127.255.255.255:1" in str(result.error)
        assert (queue.state, queue.local) == ("unbound", None)
        token = queue.connect(("127.0.0.1", 1))
        token.cancel()
        assert failed(await qs.wait(token), errno.ECANCELED)
        assert queue.state == "unbound"


async def test_a_datagram_without_descriptors_is_refused_at_submission():
    async with open_queue_set() as qs:
        queue = qs.datagram()
        with faults.descriptors_exhausted(), refused(errno.EMFILE):
            queue.push_to(b"x", ("127.0.0.1", 1))
        assert (queue.state, qs.in_flight) == ("unbound", 0)


# --- close ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stream", "datagram", "unix"])
async def test_close_of_a_queue_that_was_never_used(sockets: Sockets, kind):
    async with open_queue_set() as qs:
        queue = getattr(qs, kind)()
        token = queue.close()
        assert queue.state == "closing"
        result = await qs.wait(token)
        assert (result.op, result.unwrap(), queue.state) == ("close", Closed(), "closed")
        with refused(errno.EBADF):
            queue.close()
        await queue.aclose()


async def test_what_was_pushed_is_delivered_after_a_close(sockets: Sockets):
    async with open_queue_set() as qs:
        near, far = await pair(qs)
        await qs.wait(far.push(b"unread"))  # unread input at the close must not turn into a reset
        await qs.wait(near.push(b"last words"))
        await qs.wait(near.close())
        assert (await qs.wait(far.pop())).unwrap().data == b"last words"
        assert (await qs.wait(far.pop())).unwrap().eof


async def test_addresses_outlive_a_close(sockets: Sockets):
    async with open_queue_set() as qs:
        listener = await listening(qs)
        result = await qs.wait(qs.stream().connect(where(listener)))
        await result.queue.aclose()
        value = result.unwrap()
        assert value.peer == listener.local
        assert value.local is not None
        accepted = (await qs.wait(listener.accept())).unwrap()
        await accepted.queue.aclose()
        assert accepted.queue.peer == accepted.peer == value.local


async def test_a_close_that_fails_is_data_and_lets_nobody_wait(monkeypatch):
    def close(sock: PassThroughSocket) -> None:
        real_close(sock)
        raise OSError(errno.EIO, "the last write failed")

    real_close = PassThroughSocket.close
    with Sockets.to("factory").installed():
        async with open_queue_set() as qs, trio.open_nursery() as nursery:
            queue = qs.datagram()
            await queue.bind(LOOPBACK)
            pop = queue.pop()
            await passes()
            with monkeypatch.context() as patch:
                patch.setattr(PassThroughSocket, "close", close)
                token = queue.close()
                nursery.start_soon(queue.aclose)
                assert failed(await qs.wait(token), errno.EIO)
            assert queue.state == "closed"
            assert failed(await qs.wait(pop), errno.ECANCELED)
            await queue.aclose()


async def test_a_bind_that_is_overtaken_by_a_close():
    """A factory's bind may take its time."""
    with Sockets.to("factory").installed() as sockets:
        assert sockets.factory is not None
        binding, go_on = trio.Event(), trio.Event()
        real = PassThroughSocket.bind

        async def slow(self: Any, address: Any) -> None:
            binding.set()
            await go_on.wait()
            await real(self, address)

        async def bind(queue: IOQueue) -> None:
            with refused(errno.ECANCELED):
                await queue.bind(LOOPBACK)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PassThroughSocket, "bind", slow)
            async with open_queue_set() as qs, trio.open_nursery() as nursery:
                for queue in (qs.stream(), qs.datagram()):
                    nursery.start_soon(bind, queue)
                    await binding.wait()
                    assert str(queue.state) == "binding"
                    with refused(errno.EBUSY):
                        queue.pop()
                    await queue.aclose()
                    go_on.set()
                    await passes(5)
                    assert queue.state == "closed"
                    binding, go_on = trio.Event(), trio.Event()


async def test_a_bind_that_is_overtaken_by_the_end_of_its_set():
    with Sockets.to("factory").installed() as sockets:
        assert sockets.factory is not None
        go_on = trio.Event()
        real = PassThroughSocket.bind

        async def slow(self: Any, address: Any) -> None:
            await go_on.wait()
            await real(self, address)

        async def bind(queue: IOQueue) -> None:
            with refused(errno.ECANCELED):
                await queue.bind(LOOPBACK)
            assert queue.state == "closed"

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PassThroughSocket, "bind", slow)
            async with trio.open_nursery() as nursery:
                async with open_queue_set() as qs:
                    nursery.start_soon(bind, qs.stream())
                    await passes()
                go_on.set()


# --- what one holds in one's hands ------------------------------------------------------------------------------------


async def test_values_are_frozen_and_readable(sockets: Sockets):
    async with open_queue_set() as qs:
        near, _ = await pair(qs)
        token: QToken[Any] = near.pop()
        assert f"{token!r}" == f"<QToken {token.id}: pop on <IOQueue stream connected {near.peer!s}>>"
        with pytest.raises(AttributeError):
            token.op = "push"  # type: ignore[misc]
        assert len({token, token}) == 1
        token.cancel()
        result: QResult[Any] = await qs.wait(token)
        assert repr(token).endswith("(done)>")
        with pytest.raises(AttributeError):
            result.value = 1  # type: ignore[misc]
        with pytest.raises(OSError, match="was cancelled") as caught:
            result.unwrap()
        assert caught.value is result.error
        assert repr(qs) == "<QueueSet 0 of 4096 in flight>"


async def test_an_error_as_data_has_no_history(sockets: Sockets):
    """Its frames would keep alive whatever the operation had in its hands."""
    with faults.refusing() as closed:
        async with open_queue_set() as qs:
            for token in (qs.stream().connect(closed.pair), qs.connectx([closed.pair])):
                error = (await qs.wait(token)).error
                assert error is not None
                assert (error.__traceback__, error.__context__) == (None, None)


async def test_results_match_patterns(sockets: Sockets):
    async with open_queue_set() as qs:
        listener = await listening(qs)
        listener.accept()
        qs.stream().connect(where(listener))
        seen = set()
        async for result in qs.completions():
            match result.value:
                case Connected(local, peer, report):
                    assert (local, peer, len(report.attempts)) == (result.queue.local, where(listener), 1)
                    seen.add("connected")
                case Accepted(queue, peer):
                    assert queue.peer == peer
                    seen.add("accepted")
        assert seen == {"connected", "accepted"}
