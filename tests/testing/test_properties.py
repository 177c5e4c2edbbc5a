"""Promises that hold whatever the network is like, and how Hypothesis and virtual time go together."""

from __future__ import annotations

import math

import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_connect.testing import VirtualNetwork, echo, run

A = "192.0.2.1"
seconds = st.floats(0, 2, allow_nan=False)


@given(
    rtt=seconds,
    jitter=seconds,
    bandwidth=st.one_of(st.just(math.inf), st.floats(1e3, 1e8)),
    sizes=st.tuples(st.integers(10, 3000), st.integers(10, 3000)),
    buffers=st.tuples(st.integers(1, 4000), st.integers(1, 4000), st.integers(10, 4000), st.integers(10, 4000)),
    cuts=st.lists(st.floats(0, 5), max_size=4),
    seed=st.integers(0, 2**32),
)
def test_bytes_arrive_in_order_and_complete_whatever_the_network_is_like(
    rtt: float,
    jitter: float,
    bandwidth: float,
    sizes: tuple[int, int],
    buffers: tuple[int, int, int, int],
    cuts: list[float],
    seed: int,
) -> None:
    payload = bytes(range(256)) * 8

    async def main(net: VirtualNetwork) -> None:
        net.host(A).listen(
            7, echo, rtt=rtt, jitter=jitter, bandwidth=bandwidth, send_buffer=buffers[2], receive_buffer=buffers[3]
        )
        sock = trio.socket.socket()
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_SNDBUF, buffers[0])
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, buffers[1])
        await sock.connect((A, 7))
        stream = trio.SocketStream(sock)
        received = bytearray()

        async def send() -> None:
            for start in range(0, len(payload), sizes[0]):
                await stream.send_all(payload[start : start + sizes[0]])
            await stream.send_eof()

        async def disturb() -> None:
            for pause in cuts:
                await trio.sleep(pause)
                net.partition(net.local, A)
                await trio.sleep(pause)
                net.heal(net.local, A)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(disturb)
            while chunk := await stream.receive_some(sizes[1]):
                received += chunk
        await stream.aclose()
        assert received == payload
        (connection,) = net.trace.connections
        assert connection.sent == connection.received == len(payload)
        assert net.open_sockets == ()

    run(main, seed=seed)


@given(
    fates=st.lists(
        st.tuples(st.sampled_from(["listen", "refuse", "blackhole", "reset"]), st.floats(0, 1)), min_size=1, max_size=8
    ),
    delay=st.floats(0.01, 1),
)
def test_a_race_ends_no_later_than_its_best_address_and_leaves_no_socket(
    fates: list[tuple[str, float]], delay: float
) -> None:
    async def main(net: VirtualNetwork) -> None:
        addresses = [f"192.0.2.{number}" for number in range(1, len(fates) + 1)]
        bound = 128.0
        for position, (address, (fate, after)) in enumerate(zip(addresses, fates, strict=True)):
            host = net.host(address)
            if fate == "listen":
                host.listen(443, echo, rtt=after)
                bound = min(bound, position * delay + after)
            elif fate == "refuse":
                host.refuse(after)
            elif fate == "blackhole":
                host.blackhole()
            else:
                host.reset(after, rtt=2.0)  # before the handshake is over: a refusal
        net.dns("api.test", addresses)
        try:
            stream = await trio.open_tcp_stream("api.test", 443, happy_eyeballs_delay=delay)
        except OSError:
            assert "listen" not in [fate for fate, _ in fates]
        else:
            assert trio.current_time() <= bound + 1e-6
            await stream.aclose()
        assert net.open_sockets == ()
        assert all(connection.ended is not None for connection in net.trace.connections)

    run(main)
