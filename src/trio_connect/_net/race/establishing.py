"""How a connection is established: the caller's own test, over TLS where that is asked for."""

from __future__ import annotations

from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, TypeVar, final

from trio.lowlevel import disable_ki_protection, enable_ki_protection

from ..._text import shown

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from typing import Literal

    from ..._endpoint import Endpoint
    from ..host_of import HostOfEndpoint
    from ..streams.handshake import Handshake
    from ..streams.tcp_stream import TcpStream, TlsStream

S = TypeVar("S")


@enable_ki_protection  # Ctrl-C must not come between the call and its await; what the caller gave us is not protected
async def call_establish(establish: Callable[[S], Awaitable[Any]], stream: S) -> Any:
    """Run the caller's establish, and return what it returned, or the stream if that was None."""
    awaitable = _call(establish, stream)
    if not isawaitable(awaitable):
        raise TypeError(f"establish must be an async function, got {shown(establish)}, which returned {awaitable!r}")
    try:
        value = await _wait_for(awaitable)
    finally:
        # An interrupt before its first step leaves a coroutine that nobody awaits; one that has ended stays as it is.
        if iscoroutine(awaitable):
            awaitable.close()
    return stream if value is None else value


@disable_ki_protection
def _call(establish: Callable[[S], Awaitable[Any]], stream: S) -> Awaitable[Any]:
    return establish(stream)


@disable_ki_protection
async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


@final
class OverTls:
    """An establish that does a TLS handshake, and then runs the caller's. Its arguments are checked: see `over_tls`.

    Args:
      context: what the handshake is done with.
      name_of: the name to verify at an endpoint; None for its address.
      test: the caller's own test of a connection over TLS, or None.
    """

    __slots__ = ("_context", "_name_of", "test")

    def __init__(
        self,
        context: ssl.SSLContext,
        name_of: Callable[[Endpoint], str | None],
        test: Callable[[TlsStream], Awaitable[Any]] | None,
    ) -> None:
        self._context = context
        self._name_of = name_of
        self.test = test

    @enable_ki_protection
    async def __call__(self, stream: TcpStream) -> Any:
        """Do the handshake and the test. Return what the test returned, or the stream over TLS without a test."""
        secured = await stream.start_tls(self._context, server_hostname=self._name_of(stream.peer))
        return secured if self.test is None else await call_establish(self.test, secured)

    def begin(self, stream: TcpStream) -> Handshake:
        """Return the handshake alone, which a deadline may interrupt."""
        from ..streams.handshake import Handshake

        name = self._name_of(stream.peer)
        return Handshake(stream, self._context, server_hostname=name, server_side=False)


def over_tls(
    tls: ssl.SSLContext | Literal[True] | None,
    server_hostname: str | None,
    test: Callable[[TlsStream], Awaitable[Any]] | None,
    *,
    host_of: HostOfEndpoint | None = None,
) -> OverTls:
    """Return the establish that does a TLS handshake, and then runs the caller's.

    Args:
      tls: the context, or True for the one that trusts the system's authorities.
      server_hostname: the name to verify; None for that of each attempt.
      test: the caller's own test of a connection over TLS, or None.
      host_of: for which name, of those that `check_hosts` has passed, each endpoint is tried. An attempt without one
        verifies its address.

    Raises:
      TypeError: an argument has the wrong type, or there is a name and no `tls`.
      ValueError: a name is not a possible host name, or the context is for servers.
    """
    if tls is None:
        raise TypeError(f"server_hostname is for TLS: pass tls=True or a context as well, got {shown(server_hostname)}")
    from ..streams.handshake import check_client, default_context

    context = default_context() if tls is True else tls
    check_client(context, server_hostname)
    if server_hostname is not None or host_of is None:
        return OverTls(context, lambda _endpoint: server_hostname, test)
    return OverTls(context, host_of, test)
