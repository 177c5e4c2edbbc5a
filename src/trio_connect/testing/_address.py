"""Addresses as sockets spell them, and their canonical texts.

The network has one text for each address, without a zone. Sockets add zones, flow labels and IPv4-mapped IPv6
addresses.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Iterable
from typing import Final, TypeAlias, cast

from ._arguments import shown

SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
WILDCARD: Final = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def numeric(value: object) -> str:
    """Return the canonical text of an address that a test gives.

    Raises:
      TypeError: not a str.
      ValueError: not a numeric address.
    """
    if not isinstance(value, str):
        raise TypeError(f"an address must be a str, not {shown(value)}")
    try:
        return canonical(value)
    except ValueError:
        raise ValueError(f"an address must be numeric, not {shown(value)}") from None


def several(name: str, values: object) -> list[str]:
    """Return the canonical texts of addresses that a test gives.

    Raises:
      TypeError: not an iterable of str; a lone str is not one.
      ValueError: one is not numeric.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be an iterable of addresses, not {shown(values)}")
    return [numeric(value) for value in cast("Iterable[object]", values)]


@functools.lru_cache(maxsize=4096)
def canonical(address: str) -> str:
    """Return the canonical text of an address: an IPv4-mapped one is its IPv4 address, and a zone is dropped.

    Raises:
      ValueError: not a numeric address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return str(parsed)


@functools.lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """Say whether a canonical address never leaves its host."""
    return ipaddress.ip_address(address).is_loopback


def family_of(address: str) -> socket.AddressFamily:
    """Return the family of a canonical address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def dressed(family: int, address: str, port: int, flow: int = 0, scope: int = 0) -> SocketAddress:
    """Return a canonical address as a socket of `family` spells it."""
    if family == socket.AF_INET:
        return (address, port)
    return (address if ":" in address else f"::ffff:{address}", port, flow, scope)
