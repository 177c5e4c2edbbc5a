"""Trio's own conformance suite, on streams across the virtual network, with and without distance and TLS."""

from __future__ import annotations

import ssl

import pytest
import trio
import trio.testing
import trustme

from trio_connect.testing import VirtualNetwork, run

HOST = "192.0.2.1"


class Makers:
    """Stream pairs: the program's end, and the end that a handler of the host was given."""

    def __init__(self, net: VirtualNetwork, *, rtt: float, jitter: float) -> None:
        self.net = net
        self.accepted, self._arrivals = trio.open_memory_channel[trio.SocketStream](10)
        net.host(HOST).listen(443, self._hand_over, rtt=rtt, jitter=jitter)

    async def _hand_over(self, stream: trio.SocketStream) -> None:
        await self.accepted.send(stream)
        await trio.sleep_forever()

    async def pair(self) -> tuple[trio.SocketStream, trio.SocketStream]:
        client = await trio.open_tcp_stream(HOST, 443)
        return client, await self._arrivals.receive()

    async def clogged(self) -> tuple[trio.SocketStream, trio.SocketStream]:
        both = await self.pair()
        await clog(*both)
        return both


async def clog(*streams: trio.abc.SendStream) -> None:
    """Fill every direction until a send has to wait."""
    async with trio.open_nursery() as nursery:
        for stream in streams:
            nursery.start_soon(stream.send_all, b"x" * 1_000_000)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("rtt", "jitter"), [(0.0, 0.0), (0.04, 0.0), (0.04, 0.02)])
def test_streams_across_the_network_pass_trios_conformance_suite(rtt: float, jitter: float) -> None:
    async def main(net: VirtualNetwork) -> None:
        makers = Makers(net, rtt=rtt, jitter=jitter)
        await trio.testing.check_half_closeable_stream(makers.pair, makers.clogged)

    run(main)


def test_a_program_connected_to_itself_passes_it_too() -> None:
    async def main(net: VirtualNetwork) -> None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def pair() -> tuple[trio.SocketStream, trio.SocketStream]:
            return await trio.testing.open_stream_to_socket_listener(listener), await listener.accept()

        async def clogged() -> tuple[trio.SocketStream, trio.SocketStream]:
            both = await pair()
            await clog(*both)
            return both

        await trio.testing.check_half_closeable_stream(pair, clogged)

    run(main)


@pytest.mark.parametrize("rtt", [0.0, 0.04])
def test_tls_across_the_network_passes_it(rtt: float) -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.test").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    async def main(net: VirtualNetwork) -> None:
        makers = Makers(net, rtt=rtt, jitter=0.0)

        async def pair() -> tuple[trio.SSLStream[trio.SocketStream], trio.SSLStream[trio.SocketStream]]:
            client, server = await makers.pair()
            secure = trio.SSLStream(client, client_context, server_hostname="api.test")
            return secure, trio.SSLStream(server, server_context, server_side=True)

        # No clogged maker: a TLS stream is broken by the cancelled send that clogging takes.
        await trio.testing.check_two_way_stream(pair, None)

    run(main)
