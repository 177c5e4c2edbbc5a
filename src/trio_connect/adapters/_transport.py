"""What `adapters.httpx2` and `adapters.httpx` have in common: a stock transport with our back end inside."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from . import ConnectOptions
from .httpcore import Backend, SocketOption

T = TypeVar("T")

WHERE: Final = ("_pool", "_network_backend")
"""Where a stock transport has the back end that its pool connects by. No parameter of its leads there, which makes this
the one place where we reach into somebody else's object; docs/how-to/http-clients.md has the parameter to ask for."""


class StockOptions(ConnectOptions, total=False):
    """What httpx2 and httpx call alike among the parameters of their `AsyncHTTPTransport`; see there."""

    verify: ssl.SSLContext | str | bool
    """The context for TLS, or whether to verify."""
    cert: str | tuple[str, str] | tuple[str, str, str]
    """The client's own certificate."""
    trust_env: bool
    """Whether SSL_CERT_FILE and SSL_CERT_DIR count."""
    http1: bool
    """Whether to offer HTTP/1.1."""
    http2: bool
    """Whether to offer HTTP/2."""
    uds: str | None
    """The path of a unix-domain socket to connect to in place of any host."""
    local_address: str | None
    """The numeric address to connect from."""
    retries: int
    """How often a failed connect is tried again."""
    socket_options: Iterable[SocketOption] | None
    """What to set on each connected socket."""


def make(stock: type[T], kind: type, options: Any) -> T:
    """Make a stock transport, and have it connect by our back end.

    Args:
      stock: the class of the transport.
      kind: what its back end is, in the client's own words.
      options: those of ours and those of the stock transport.

    Raises:
      RuntimeError: this version of the client has its back end elsewhere.
      TypeError: there is no option of this name.
      ValueError: two options contradict one another.
    """
    options = dict(options)
    ours: Any = {name: options.pop(name) for name in ConnectOptions.__optional_keys__ & options.keys()}
    if options.get("proxy") is not None and ours.get("address_filter") is not None:
        raise ValueError(
            "address_filter cannot be combined with proxy, which looks names up by itself, so that nobody could judge "
            "the addresses; give the proxy as a source: sources=[Source(proxy='socks5://...')]"
        )
    if options.get("local_address") is not None and ours.get("sources"):
        raise ValueError("give sources or local_address, not both")
    backend = Backend(**ours)
    made = stock(**options)
    pool, name = getattr(made, WHERE[0], None), WHERE[1]
    if not isinstance(getattr(pool, name, None), kind):
        raise RuntimeError(  # noqa: TRY004 - no argument is wrong
            f"{stock.__module__.split('.')[0]} has no back end at {stock.__name__}.{'.'.join(WHERE)} in this version; "
            "make a pool of httpcore with network_backend= instead, and please report this"
        )
    setattr(pool, name, backend)
    return made
