"""What ends a graceful close."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from tests.support import faults
from trio_connect import tcp_connect, tcp_listen


async def test_a_reset_while_waiting_for_the_peer_is_broken_not_closed(sockets):
    async with await tcp_listen(("127.0.0.1", 0)) as listener:
        client, server = await tcp_connect(listener.endpoint), await listener.accept()

    async def close() -> None:
        with pytest.raises(trio.BrokenResourceError, match="graceful close") as caught:
            await client.close_gracefully()
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.__cause__.errno == errno.ECONNRESET

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        await trio.testing.wait_all_tasks_blocked()
        server.abort()


async def test_a_reset_before_it_is_broken_too(sockets):
    async with faults.resetting() as peer:
        client = await tcp_connect(peer.address.pair)
        while not peer.ended:
            await trio.lowlevel.checkpoint()
        with pytest.raises(trio.BrokenResourceError):
            await client.close_gracefully()
    with pytest.raises(trio.ClosedResourceError):
        await client.receive_some()
