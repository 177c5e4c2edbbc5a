"""Handlers for common tests."""

from __future__ import annotations

import trio


async def echo(stream: trio.abc.Stream) -> None:
    """Send back what comes in, until the peer ends its side.

    Args:
      stream: the connection.

    Raises:
      trio.BrokenResourceError: the peer went away.
    """
    async for chunk in stream:
        await stream.send_all(chunk)


async def discard(stream: trio.abc.ReceiveStream) -> None:
    """Read everything, and send nothing.

    Args:
      stream: the connection.

    Raises:
      trio.BrokenResourceError: the peer went away.
    """
    async for _ in stream:
        pass
