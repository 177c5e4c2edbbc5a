"""What the words of a command line mean: targets, sources, resolvers. Nothing here does any I/O."""

from __future__ import annotations

import argparse
import ipaddress
import ssl
from collections.abc import Sequence
from typing import Final, TypeAlias

import attrs

from trio_connect import RacePolicy, Resolver, Source, StaticResolver

DEFAULT_PORT: Final = 443

ANY_IPV4: Final = "0.0.0.0"
ANY_IPV6: Final = "::"

Place: TypeAlias = tuple[str, int]


@attrs.frozen
class Target:
    """Who is to be reached, by the words of the command line."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen(kw_only=True)
class Settings:
    """How targets are probed."""

    deadline: float
    """Seconds; of each connection by itself."""
    each: bool = False
    tls: bool | None = None
    """Whether to speak TLS; None for port 443 alone."""
    context: ssl.SSLContext | None = None
    policy: RacePolicy = attrs.field(factory=RacePolicy)
    sources: tuple[Source, ...] = ()
    resolve: dict[Place, tuple[str, ...]] = attrs.field(factory=dict[Place, tuple[str, ...]])
    connect_to: tuple[tuple[str, int | None, str, int | None], ...] = ()

    def wants_tls(self, target: Target) -> bool:
        """Say whether a target is to be asked for TLS."""
        return target.port == DEFAULT_PORT if self.tls is None else self.tls

    def place(self, target: Target) -> Place:
        """Return the host and port that a connection for a target really goes to, see ``--connect-to``."""
        for host, port, other_host, other_port in self.connect_to:
            if host in ("", target.host) and port in (None, target.port):
                return other_host or target.host, other_port or target.port
        return target.host, target.port

    def resolver(self, place: Place) -> Resolver | None:
        """Return what looks a host up; None for the system."""
        addresses = self.resolve.get(place)
        return None if addresses is None else StaticResolver({place[0]: addresses})


def parse_target(text: str) -> Target:
    """Read ``HOST``, ``HOST:PORT``, ``[IPV6]:PORT`` or an IPv6 address alone.

    Raises:
      ArgumentTypeError: it is something else.
    """
    host, colon, port = text.rpartition(":")
    if text.count(":") > 1 and not (text.startswith("[") and host.endswith("]")):
        host, colon, port = text, "", ""
    elif not colon:
        host = text
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in host:
        raise argparse.ArgumentTypeError(f"a target is HOST, HOST:PORT or [IPV6]:PORT, got {text!r}")
    return Target(host, parse_port(port) if colon else DEFAULT_PORT)


def parse_port(text: str) -> int:
    """Read a port.

    Raises:
      ArgumentTypeError: it is not one.
    """
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 0xFFFF):
        raise argparse.ArgumentTypeError(f"a port is 1 to 65535, got {text!r}")
    return int(text)


def parse_seconds(text: str) -> float:
    """Read a number of seconds.

    Raises:
      ArgumentTypeError: it is not one, or it is not above 0.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"seconds above 0 are needed, got {text!r}")
    return seconds


def parse_protocols(text: str) -> list[str]:
    """Read the names of protocols for TLS, ``NAME[,NAME]...``.

    Raises:
      ArgumentTypeError: one is not 1 to 255 characters of ASCII, RFC 7301 section 3.1.
    """
    names = text.split(",")
    for name in names:
        if not name.isascii() or not 1 <= len(name) <= 255:
            raise argparse.ArgumentTypeError(f"a protocol has a name of 1 to 255 ASCII characters, got {text!r}")
    return names


def parse_resolve(text: str) -> tuple[Place, tuple[str, ...]]:
    """Read curl's ``HOST:PORT:ADDRESS[,ADDRESS]...``.

    Raises:
      ArgumentTypeError: it is something else.
    """
    parts = text.split(":", 2)
    if len(parts) != 3 or not parts[0] or not parts[2]:
        raise argparse.ArgumentTypeError(f"HOST:PORT:ADDRESS[,ADDRESS]... is needed, got {text!r}")
    addresses = tuple(address.removeprefix("[").removesuffix("]") for address in parts[2].split(","))
    for address in addresses:
        parse_address(address)
    return (parts[0], parse_port(parts[1])), addresses


def parse_connect_to(text: str) -> tuple[str, int | None, str, int | None]:
    """Read curl's ``HOST1:PORT1:HOST2:PORT2``, of which each part may be empty.

    Raises:
      ArgumentTypeError: it is something else.
    """
    parts = [""]
    depth = 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == ":" and not depth:
            parts.append("")
        else:
            parts[-1] += character
    if len(parts) != 4:
        raise argparse.ArgumentTypeError(f"HOST1:PORT1:HOST2:PORT2 is needed, got {text!r}")
    host, port, other_host, other_port = (part.removeprefix("[").removesuffix("]") for part in parts)
    return (
        host,
        parse_port(port) if port else None,
        other_host,
        parse_port(other_port) if other_port else None,
    )


def parse_address(text: str) -> str:
    """Read a numeric address.

    Raises:
      ArgumentTypeError: it is not one.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a numeric IPv4 or IPv6 address is needed, got {text!r}") from None


def make_sources(
    addresses: Sequence[str], *, family: int | None, interface: str | None, proxy: str | None
) -> tuple[Source, ...]:
    """Return where connections may start.

    A source with an address of one family leaves the other family alone, and looks nothing up for it. So does the
    wildcard address, which is how ``-4`` and ``-6`` are said.

    Args:
      addresses: numeric ones.
      family: 4, 6, or None for both.
      interface: the name of one, or None.
      proxy: its URL, or None.

    Raises:
      ValueError: the interface or the proxy is not one, or no address is left.
    """
    kept = [text for text in addresses if family is None or ipaddress.ip_address(text).version == family]
    if addresses and not kept:
        raise ValueError(f"no --source is an IPv{family} address")
    if not addresses and family is not None:
        kept = [ANY_IPV4 if family == 4 else ANY_IPV6]
    if not kept:
        return () if interface is None and proxy is None else (Source(interface=interface, proxy=proxy),)
    return tuple(
        Source(ipv6=text, interface=interface, proxy=proxy)
        if ":" in text
        else Source(ipv4=text, interface=interface, proxy=proxy)
        for text in kept
    )


def shown_source(source: Source | None) -> Source | None:
    """Return a source as a report shows it: the wildcard address says nothing that the family does not."""
    if source is None or (source.ipv4 != ANY_IPV4 and source.ipv6 != ANY_IPV6):
        return source
    return None if source.interface is None else Source(interface=source.interface)
