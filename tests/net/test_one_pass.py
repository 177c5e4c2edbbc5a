"""Deadline 0 gives every task that is ready one turn, and then looks once more."""

from __future__ import annotations

import trio

from trio_connect import IMMEDIATE, tcp_connect, tcp_listen


async def test_what_a_ready_task_does_in_its_turn_is_seen(sockets):
    async with (
        await tcp_listen(("127.0.0.1", 0)) as listener,
        await tcp_connect(listener.endpoint) as client,
        await listener.accept() as server,
    ):
        for _ in range(20):  # Trio shuffles
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send_all, b"x")
                assert await server.receive_exactly(1, IMMEDIATE) == b"x"
