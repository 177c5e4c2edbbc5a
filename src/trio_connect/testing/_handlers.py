"""Handlers that every second test needs."""

from __future__ import annotations

import trio


async def echo(stream: trio.abc.Stream) -> None:
    """Send back what comes in, until the peer has no more to say.

    Args:
      stream: the connection.

    Raises:
      trio.BrokenResourceError: the peer went away.
    """
    async for chunk in stream:
        await stream.send_all(chunk)


async def discard(stream: trio.abc.ReceiveStream) -> None:
    """Read everything, answer nothing.

    Args:
      stream: the connection.

    Raises:
      trio.BrokenResourceError: the peer went away.
    """
    async for _ in stream:
        pass
