"""The hosts of a connect: one name, or several of one service, each with a port, checked before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Final, TypeAlias, cast

import attrs

from ..._endpoint import MAX_PORT, Endpoint, check_port
from ..._engine.race import MAX_RACED
from ..._text import printable, shown
from .resolve import check_host, encoded, numeric, old_spelling

__all__ = ["Host", "HostLike", "check_hosts", "target_of"]

HostLike: TypeAlias = str | tuple[str, int]
"""A name or numeric address, alone or with a port of its own."""

_LONGEST: Final = 64
"""A numeric address with a zone is no longer (RFC 4291 section 2.2, IF_NAMESIZE), and nothing longer is remembered."""

_MOST_NAMED: Final = 4
"""How many hosts the messages of one connect name."""


@attrs.frozen
class Host:
    """One host of a connect."""

    name: str
    port: int
    literal: Endpoint | None
    """What a numeric host is; None for a name."""

    @property
    def spelled(self) -> Endpoint | None:
        """What the host is in any spelling of an address that a resolver would read as one; None for a name."""
        if self.literal is not None:
            return self.literal
        name = encoded(self.name)
        address = numeric(name.decode()) or old_spelling(name)
        return None if address is None else Endpoint(address, self.port)

    def __str__(self) -> str:
        return f"{self.name}:{self.port}" if self.literal is None else str(self.literal)


def endpoint_of(address: str, port: int) -> Endpoint:
    """Return the endpoint of an address that a resolver has found."""
    return _endpoint(address, port) if len(address) <= _LONGEST else Endpoint(address, port)


# A program connects to the same few over and over, and to read an address takes as long as a system call.
_endpoint: Final = lru_cache(maxsize=1024)(Endpoint)


def check_hosts(hosts: object, port: int) -> tuple[Host, ...]:
    """Return the hosts of a connect, each once, or say what is wrong with them; nothing is looked up.

    Args:
      hosts: one, or an iterable, of which no more are read than one race can try.
      port: for those that have none of their own; checked before.

    Raises:
      TypeError: one is no str, and no pair of a str and an int; or they are a mapping, whose values would be lost.
      ValueError: they are empty, one cannot be a name, or a port is out of range.
    """
    if isinstance(hosts, str | bytes) or not isinstance(hosts, Iterable):
        return (_host(hosts, port),)
    if isinstance(hosts, Mapping):
        raise TypeError("several hosts are names and pairs (name, port), got a mapping: pass its items()")
    found = dict.fromkeys(_item(item, port) for item in islice(cast("Iterable[object]", hosts), MAX_RACED))
    if not found:
        raise ValueError("connect needs at least one host, got none")
    return tuple(found)


def _item(item: object, port: int) -> Host:
    if isinstance(item, str):
        return _host(item, port)
    pair = cast("tuple[object, ...]", item) if isinstance(item, tuple) else ()
    if len(pair) != 2:
        text = shown(item)  # pyright: ignore[reportUnknownArgumentType]
        raise TypeError(f"each of several hosts is a name or a pair (name, port), got {text}")
    host, own_port = cast("tuple[object, int]", pair)
    return _host(host, check_connect_port(own_port, host))


def _host(host: object, port: int) -> Host:
    if type(host) is str and port.__class__ is int and len(host) <= _LONGEST:
        return _remembered_host(host, port)
    return _checked_host(host, port)


def _checked_host(host: object, port: int) -> Host:
    name = check_host(host)
    is_numeric = len(name) <= _LONGEST and numeric(name) is not None
    return Host(name, port, Endpoint(name, port) if is_numeric else None)


# To read a text costs a quarter of a connect.
_remembered_host: Final = lru_cache(maxsize=1024)(_checked_host)


def check_connect_port(port: int, host: object) -> int:
    """Return a port that can be connected to.

    Raises:
      TypeError: it is not an int.
      ValueError: it is not in 1 to 65535.
    """
    if port.__class__ is int and 0 < port <= MAX_PORT:
        return port
    if check_port(port) == 0:
        where = printable(host) if isinstance(host, str) else "the hosts"
        raise ValueError(f"cannot connect to port 0 of {where}: a port is 1 to 65535")
    return port


def target_of(hosts: tuple[Host, ...]) -> str:
    """Return where a connect goes, for messages."""
    if len(hosts) == 1:
        return str(hosts[0])
    more = len(hosts) - _MOST_NAMED
    return ", ".join(map(str, hosts[:_MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
