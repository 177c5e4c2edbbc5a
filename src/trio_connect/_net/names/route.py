"""Which local address the kernel would use towards an endpoint, for the rules of RFC 6724 that need to know.

Connecting a *UDP* socket is how to ask: connect(2) of a datagram socket looks the route up, fixes the source address
and sends nothing (udp(7)). No connection is attempted here; those are made by `attempt`, and only there.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..._endpoint import Endpoint, Source
from ..._engine.shortage import SHORTAGE
from ..sockets.address import sockaddr_of
from ..sockets.interface import bind_to_interface
from ..sockets.raw_socket import new_datagram_socket

__all__ = ["look_up_route", "look_up_routes"]


def look_up_route(endpoint: Endpoint, source: Source | None = None) -> str | None:
    """Return the source address towards an endpoint, numeric, or None when it has no route from here.

    Never waits and sends no packet. A policy route that tells TCP from UDP (``ip rule ... ipproto tcp``) is missed.

    Args:
      endpoint: where to; port 0 will do.
      source: where connections will be bound; its port does not matter. None leaves it to the kernel.

    Raises:
      OSError: the question could not be asked, for example because all file descriptors are in use.
    """
    bound = None if source is None else source.address(endpoint.family)
    try:
        sock = new_datagram_socket(endpoint.family)
        try:
            if source is not None and source.interface is not None:
                bind_to_interface(sock, source.interface)
            if bound is not None:
                sock.bind(sockaddr_of(Endpoint(bound, 0)))
            if endpoint.port == 0:
                # RFC 863, discard: macOS refuses to connect even a UDP socket to port 0.
                endpoint = Endpoint(endpoint.host, 9, endpoint.scope_id, endpoint.flowinfo)
            sock.connect(sockaddr_of(endpoint))
            return str(sock.getsockname()[0])
        finally:
            sock.close()
    except OSError as exc:
        if exc.errno in SHORTAGE:
            raise
        return None


def look_up_routes(endpoints: Iterable[Endpoint], sources: Iterable[Source] = ()) -> dict[Endpoint, str | None]:
    """Return the source address towards each endpoint, for `Knowledge`.

    Not to be called in a run with a socket factory or hostname resolver of its own: the kernel knows nothing
    of that network. An empty mapping stands for this.

    Args:
      endpoints: where to. Those whose route cannot be asked for are left out, which makes their source unknown.
      sources: where connections may start, in the order they are tried: the first that serves an endpoint counts.
    """
    sources = tuple(sources)
    routes: dict[Endpoint, str | None] = {}
    for endpoint in endpoints:
        source = next((source for source in sources if source.serves(endpoint.family)), None)
        if source is None and sources:
            routes[endpoint] = None
            continue
        if source is not None and source.proxy is not None:
            continue  # the packets of this machine go to the proxy
        try:
            routes[endpoint] = look_up_route(endpoint, source)
        except OSError:
            continue
    return routes
