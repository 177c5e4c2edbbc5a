"""Momentum's `initiate_connection` over `trio_connect.outbound`: connections by callback.

Momentum opens a connection for a (domain, binding) pair, and never for a message. A program written for it can be
transliterated line by line: the domain record is a `Destination`, the binding is a `Source`, and what Momentum returns
as a code with action flags is an exception: the decision. The failures that a caller of Momentum counts by itself
(MX_Failures_To_Delay) are counted here.

Each connection is a task of the outbound's block, so nothing outlives the block. A new program reads better with
`Destination.connect`: there the callbacks are the lines after it.

What differs and why is on the documentation page "Momentum".
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ETIMEDOUT
from functools import partial
from math import inf
from typing import Any, TypeAlias, final

import trio
from trio import current_effective_deadline
from trio.lowlevel import disable_ki_protection, enable_ki_protection

from . import ConnectFailed, Source
from ._net.callbacks import check_not_async
from ._text import shown
from .outbound import Connection, Destination, Outbound
from .outbound._start import Start

__all__ = ["Callback", "ConnectionHandle", "initiate_connection"]

Callback: TypeAlias = "Callable[[ConnectionHandle, Any], object]"
"""Called with the handle and the caller's `user_data`. It must not block; what it returns is ignored.

An exception that leaves it ends the outbound's block, as that of any background task does.
"""


@final
class ConnectionHandle:
    """A connection that was initiated. Made by `initiate_connection`.

    Attributes:
      destination: the destination.
      source: the source that was asked for; None for any.
      user_data: the caller's own.
      connection: the connection, from `finish_connect` on. It holds its place under every limit until `close`.
      error: why there is no connection, from either callback on. A `DestinationFailed` when something was tried, else a
        `NotAdmitted`. The `decision` of both says what to do, and its `until` when. Any other exception comes from a
        resolver, or from the caller's own function for candidates.
    """

    destination: Destination
    source: Source | None
    user_data: Any
    connection: Connection[None] | None
    error: Exception | None

    def __init__(
        self, dest: Destination, source: Source | None, finish: Callback, timeout: Callback, user_data: Any
    ) -> None:
        self.destination = dest
        self.source = source
        self.user_data = user_data
        self.connection = None
        self.error = None
        self._finish = finish
        self._timeout = timeout
        self._scope = trio.CancelScope()
        self._is_told = False

    def __repr__(self) -> str:
        if self.error is not None:
            state = "failed"
        elif self.connection is not None:
            state = "connected"
        else:
            state = "given up" if self._scope.cancel_called else "connecting"
        return f"<trio_connect.momentum.ConnectionHandle to {self.destination.name}, {state}>"

    def cancel(self) -> None:
        """Give up a connect that is under way: no callback comes, and nothing is counted.

        After a callback this does nothing.
        """
        if not self._is_told:
            self._scope.cancel("the handle was cancelled")

    def close(self) -> None:
        """Close the connection and give back its places, or give up what is under way. May be called again.

        The stream is closed when the outbound's task has run. To wait for that, or to send the end of the stream first,
        close `connection.stream` before.
        """
        self._scope.cancel("the handle was closed")

    @enable_ki_protection  # Ctrl-C must not come between the lines of the accounting
    async def _run(self, start: Start) -> None:
        failure: Exception | None = None
        with self._scope:
            try:
                try:
                    run, connection = await start.connect()
                except Exception as exc:  # noqa: BLE001 - there is nobody else to raise it to
                    failure = exc
                else:
                    try:
                        async with connection.stream:
                            self._tell(self._finish, connection=connection)
                            if self._is_told:
                                start.live_on(self._scope)
                            await trio.sleep_forever()
                    finally:
                        run.close()
            finally:
                start.leave()
            assert failure is not None, "a connection ends by a cancel alone"
            # All places are free again, so that the callback can initiate the next connection.
            timed_out = isinstance(failure, ConnectFailed) and failure.errno == ETIMEDOUT
            self._tell(self._timeout if timed_out else self._finish, error=failure)

    def _tell(
        self, callback: Callback, *, connection: Connection[None] | None = None, error: Exception | None = None
    ) -> None:
        # The task may have been rescheduled with a result before the cancel.
        if current_effective_deadline() > -inf:
            self._is_told = True
            self.connection = connection
            self.error = error
            _call(callback, self, self.user_data)


@disable_ki_protection  # the caller's callback may block
def _call(callback: Callback, handle: ConnectionHandle, user_data: Any) -> None:
    callback(handle, user_data)


@enable_ki_protection
def initiate_connection(
    out: Outbound,
    dest: Destination,
    source: Source | None,
    finish_connect: Callback,
    timeout_func: Callback,
    user_data: Any,
) -> ConnectionHandle:
    """Initiate a connection, and call back once: `finish_connect` or `timeout_func`, never both, never here.

    Never waits for admission: a limit that is used up is a decision at once. Where the addresses of a destination are
    not known, or too old, they are looked up first. What is decided after that is an error of the handle, and so is
    every failure of a connect that is under way.

    The connection is closed by `ConnectionHandle.close`, and when the outbound's block is left. No callback comes then.

    Args:
      out: the outbound, in whose block the connection lives.
      dest: whom to connect to, with all its addresses: the domain record.
      source: the source to connect from, one of the outbound's: the binding. None for any that may be used.
      finish_connect: called with the handle and `user_data` when it is connected, or has failed in another way than by
        time: `handle.connection` or `handle.error` is set.
      timeout_func: called with the handle and `user_data` when it failed by time, be it that of its attempts or
        `connect_timeout`: `handle.error` has the errno ETIMEDOUT.
      user_data: the caller's own.

    Returns:
      The handle.

    Raises:
      NotAdmitted: it cannot be started now, and no attempt was made; the subclass and `until` say what to do.
      RuntimeError: the outbound's block has been left.
      TypeError: an argument has the wrong type.
      ValueError: the outbound does not have this destination or this source, or the destination has no candidates.
    """
    for what, value, kind in (("out", out, Outbound), ("dest", dest, Destination)):
        if not isinstance(value, kind):
            raise TypeError(f"{what} must be {kind.__name__}, got {shown(value)}")
    if source is not None and not isinstance(source, Source):
        raise TypeError(f"source must be a Source or None, got {shown(source)}")
    for what, callback in (("finish_connect", finish_connect), ("timeout_func", timeout_func)):
        if not callable(callback):
            raise TypeError(f"{what} must be callable, got {shown(callback)}")
        check_not_async(callback, what)
    start = Start(out, dest, source)
    handle = ConnectionHandle(dest, source, finish_connect, timeout_func, user_data)
    start.spawn(partial(handle._run, start), f"initiate_connection to {dest.name}")  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    return handle
