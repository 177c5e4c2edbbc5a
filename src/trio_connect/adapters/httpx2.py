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
    """What `transport` takes: how to connect, and whatever `httpx2.AsyncHTTPTransport` takes."""

    limits: httpx2.Limits
    """How many connections the pool has."""
    proxy: httpx2.Proxy | httpx2.URL | str | None
    """A proxy, which our back end then connects to. Not together with an `address_filter`."""


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
