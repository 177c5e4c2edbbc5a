"""The tasks that run handlers, one per accepted connection, and the handling of their exceptions."""

from __future__ import annotations

from typing import cast

import trio

from ._fabric import Fabric, current_node
from ._host import Handler
from ._node import Node
from ._trace import Connection, TraceEvent


class Serving:
    """Runs the handlers of one network."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._scopes: set[trio.CancelScope] = set()
        self.cancellable = False
        """The network may end before the run does, and its handlers with it."""

    def start(self, node: Node, handler: Handler, sock: trio.socket.SocketType, record: Connection) -> None:
        """Run a handler on a node, until it returns or the network ends."""
        trio.lowlevel.spawn_system_task(
            self._handle, node, handler, trio.SocketStream(sock), record,
            name=f"handler of {record.host} port {record.port}",
        )  # fmt: skip

    def end(self) -> None:
        """Cancel every handler that can be."""
        for scope in [*self._scopes]:
            scope.cancel(reason="the virtual network was closed")

    async def _handle(self, node: Node, handler: Handler, stream: trio.SocketStream, record: Connection) -> None:
        current_node.set(node)  # for good: a system task has a context of its own
        # A system task that raises takes the whole run down with TrioInternalError; this one hands over to verify().
        try:
            if self.cancellable:
                await self._cancellable(handler, stream)
            else:  # it ends with the run
                await handler(stream)
        except (trio.Cancelled, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001
            self._handler_failed(error, node, record)
        finally:
            stream.socket.close()

    async def _cancellable(self, handler: Handler, stream: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await handler(stream)
            finally:
                self._scopes.discard(scope)

    def _handler_failed(self, error: BaseException, node: Node, record: Connection) -> None:
        if not self._fabric.active:
            return
        rest = self._news(error)
        detail = "peer went away" if rest is None else f"raised {type(rest).__name__}"
        self._fabric.note(
            TraceEvent(self._fabric.elapsed(), "handler", record.host, record.port, record.ordinal, node.name, detail)
        )
        if rest is not None:
            rest.add_note(f"raised by the handler of {record.host} port {record.port} on the virtual network")
            self._fabric.failures.append(rest)

    def _news(self, error: BaseException) -> BaseException | None:
        """Return a handler's error without what only says that the peer went away, and what was recorded already."""

        def is_old(one: BaseException) -> bool:
            gone = isinstance(one, trio.BrokenResourceError | ConnectionError | trio.Cancelled)
            return gone or any(one is known for known in self._fabric.failures)

        if isinstance(error, BaseExceptionGroup):
            return cast("BaseExceptionGroup[BaseException]", error).split(is_old)[1]
        return None if is_old(error) else error
