"""How a connection is established: the caller's own test, over TLS where that is asked for."""

from __future__ import annotations

from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, TypeVar

from trio.lowlevel import disable_ki_protection, enable_ki_protection

from ..._text import shown

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable
    from typing import Literal

    from ..streams.tcp_stream import TcpStream, TlsStream
    from .plan import Establish

S = TypeVar("S")


@enable_ki_protection  # Ctrl-C must not come between the call and its await; what the caller gave us is not protected
async def call_establish(establish: Callable[[S], Awaitable[Any]], stream: S) -> Any:
    """Run the caller's establish: what it returned, or the stream where that was None."""
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


def over_tls(
    tls: ssl.SSLContext | Literal[True] | None,
    server_hostname: str | None,
    establish: Callable[[TlsStream], Awaitable[Any]] | None,
) -> Establish:
    """Return the establish that does a TLS handshake, and then runs the caller's.

    Args:
      tls: the context, or True for the one that trusts the system's authorities.
      server_hostname: the name to verify; None for the address of each attempt.
      establish: the caller's own test of a connection over TLS, or None.

    Raises:
      TypeError: an argument has the wrong type, or there is a name and no `tls`.
      ValueError: the name is not a possible host name, or the context is for servers.
    """
    if tls is None:
        raise TypeError(f"server_hostname is for TLS: pass tls=True or a context as well, got {shown(server_hostname)}")
    from ..streams.handshake import check_client, default_context

    context = default_context() if tls is True else tls
    check_client(context, server_hostname)

    @enable_ki_protection
    async def secure(stream: TcpStream) -> Any:
        secured = await stream.start_tls(context, server_hostname=server_hostname)
        return secured if establish is None else await call_establish(establish, secured)

    return secure
