"""httpx2's own transport, connecting by `trio_connect.connect`."""

from __future__ import annotations

from typing import Unpack

try:
    import httpcore2
    import httpx2
except ImportError as exc:
    raise ImportError("trio_connect.adapters.httpx2 needs httpx2: pip install httpx2") from exc

from . import _transport

__all__ = ["TransportOptions", "transport"]


class TransportOptions(_transport.StockOptions, total=False):
    """What `transport` takes: how to connect, and whatever `httpx2.AsyncHTTPTransport` takes.

    Attributes:
      policy, sources, history, address_filter, observer, options, nat64: see `trio_connect.TcpRaceOptions`.
      resolver: whom to ask for addresses; None for the system.
      verify, cert, trust_env, http1, http2, uds, retries, socket_options: see `httpx2.AsyncHTTPTransport`.
      local_address: the numeric address to connect from. Not together with `sources`.
      limits: how many connections the pool has.
      proxy: a proxy, which our back end then connects to. Not together with an `address_filter`.
    """

    limits: httpx2.Limits
    proxy: httpx2.Proxy | httpx2.URL | str | None


def transport(**options: Unpack[TransportOptions]) -> httpx2.AsyncHTTPTransport:
    """Make the transport of a client that connects by `trio_connect.connect`.

    A client that is given a transport takes no proxy from the environment. Its TLS begins after the connect, so only
    TCP is raced, see `trio_connect.adapters.httpcore.Backend`.

    Args:
      **options: see `TransportOptions`.

    Returns:
      A stock `httpx2.AsyncHTTPTransport`, for ``httpx2.AsyncClient(transport=...)``.

    Raises:
      ImportError: httpx2 is not installed. Importing this module raises it.
      RuntimeError: this version of httpx2 has its back end elsewhere.
      TypeError: there is no option of this name.
      ValueError: `address_filter` and `proxy` are given, or `sources` and `local_address`.
    """
    return _transport.make(httpx2.AsyncHTTPTransport, httpcore2.AsyncNetworkBackend, options)
