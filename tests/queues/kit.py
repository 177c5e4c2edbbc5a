"""What the tests of queue sets share."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from trio_connect import Endpoint
from trio_connect.queues import Accepted, Connected, IOQueue, Popped, QResult, QToken, QueueSet

LOOPBACK = ("127.0.0.1", 0)


@contextlib.contextmanager
def refused(code: int) -> Iterator[None]:
    """A submission or a wait that raises an OSError with this errno, which names itself in the text."""
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == code, caught.value
    assert f"[Errno {code}]" in str(caught.value)


def failed(result: QResult[Any], code: int) -> bool:
    """Whether an operation's error is data with this errno."""
    assert result.error is not None, result
    assert result.value is None
    assert not result.ok
    assert result.errno == code, result.error
    return True


def where(queue: IOQueue) -> Any:
    """A queue's local address, for which a type checker would ask whether there is one."""
    return queue.local


async def listening(qs: QueueSet, address: Any = LOOPBACK, backlog: int = 16) -> IOQueue:
    queue = qs.stream()
    await queue.bind(address)
    await queue.listen(backlog)
    return queue


async def pair(qs: QueueSet, address: Any = LOOPBACK) -> tuple[IOQueue, IOQueue]:
    """The connecting queue and the accepted one; nothing stays in flight."""
    listener = await listening(qs, address)
    accept, connect = listener.accept(), qs.stream().connect(where(listener))
    near, far = await qs.wait(connect), await qs.wait(accept)
    assert isinstance(near.value, Connected)
    assert isinstance(far.value, Accepted)
    await listener.aclose()
    return near.queue, far.value.queue


async def passes(count: int = 10) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


class Switch:
    """Operations that complete when a test says so: each is a pop, on a datagram queue of its own.

    A datagram comes after some passes of the loop, and no wait with a deadline is needed for it.
    """

    def __init__(self, qs: QueueSet) -> None:
        self._qs = qs

    async def token(self) -> QToken[Popped]:
        queue = self._qs.datagram()
        await queue.bind(LOOPBACK)
        return queue.pop()

    async def complete(self, *tokens: QToken[Any]) -> None:
        """Let these complete, in this order, and wait until they have."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for token in tokens:
                local = token.queue.local
                assert isinstance(local, Endpoint)
                sender.sendto(b"done", local.sockaddr)
                while not token.done:
                    await trio.lowlevel.checkpoint()
