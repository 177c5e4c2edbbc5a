"""The arguments of `DnsResolver`: what is wrong with one is said before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final, cast

from ..._check import check_float
from ..._endpoint import Endpoint, EndpointLike, as_endpoint, check_connectable
from ..._text import shown

__all__ = ["HTTPS", "protocols", "scheme_of", "seconds_of", "server_endpoints"]

DNS_PORT: Final = 53
HTTPS: Final = "https"
HTTP_1_1: Final = "http/1.1"


def scheme_of(services: object) -> str:
    if not isinstance(services, str):
        raise TypeError(f'services must be the scheme of a service, such as "https", or None, got {shown(services)}')
    if not (services.isascii() and services.isalnum() and services == services.lower()):
        raise ValueError(f'services must be the scheme of a service, such as "https", got {shown(services)}')
    if services in ("http", "ws", "wss"):
        raise ValueError(f'the records of http and ws are those of "https" (RFC 9460 section 9), got {shown(services)}')
    return services


def protocols(alpn: object, scheme: str | None) -> tuple[str, ...] | None:
    if alpn is None:
        return (HTTP_1_1,) if scheme == HTTPS else None
    if scheme is None:
        raise ValueError("alpn says which service records are of use: it needs services")
    given = cast("Iterable[object]", alpn)
    if isinstance(alpn, str) or not isinstance(alpn, Iterable):
        raise TypeError(f"alpn must be a sequence of protocol names, got {shown(given)}")
    names = tuple(given)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(f"alpn must be names of protocols, at least one, got {shown(given)}")
    return cast("tuple[str, ...]", names)


def seconds_of(value: float, name: str) -> float:
    seconds = check_float(value, name, "a number of seconds")
    if not 0 <= seconds < inf:
        raise ValueError(f"{name} must be at least 0 seconds and finite, got {shown(value)}")
    return seconds


def server_endpoints(servers: object) -> tuple[Endpoint, ...]:
    if isinstance(servers, str | bytes | Endpoint) or not isinstance(servers, Iterable):
        raise TypeError(f"servers must be a sequence of addresses or endpoints, got {shown(servers)}")
    found: dict[Endpoint, None] = {}
    for each in cast("Iterable[str | EndpointLike]", servers):
        endpoint = Endpoint(each, DNS_PORT) if isinstance(each, str) else as_endpoint(each)
        check_connectable(endpoint)
        found[endpoint] = None
    if not found:
        raise ValueError("servers must not be empty; None is for those of the system")
    return tuple(found)
