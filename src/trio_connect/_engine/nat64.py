"""NAT64: from an IPv4 address to the IPv6 address by which a network without IPv4 reaches it, and back.

Theory of operation
===================

A network that has only IPv6 may have a translator, a NAT64 (RFC 6146). What is sent to an IPv6 address that carries an
IPv4 address behind the translator's *prefix* goes on over IPv4. A program learns the prefix from its operator, or by
asking for the IPv6 addresses of a name that has none (RFC 7050): where a DNS64 makes some up, they carry the two IPv4
addresses that the name is known to have.

Each endpoint of a call has two forms (happy-eyeballs v3, "Handling NAT64 Networks"):

- its *plain* form. An IPv6 address that carries an IPv4 address behind a known prefix is that IPv4 address; any other
  is as it came. By it endpoints are grouped, sorted, routed and told apart: a DNS64 answers with an IPv6 address for
  each IPv4 address, and a host would be tried twice over one translator.
- its *wire* form, the endpoint that is connected to. It is the plain form, but for an IPv4 address to which there is no
  route: that one is synthesised. The address that a DNS64 has made is kept where there is one.

Without a prefix an IPv4 address that has no route is held back until it is known whether there is one.

Four blocks of IPv4 "are scoped to a given host or network and do not require synthesis". They are not recognised in an
IPv6 address either: 127.0.0.1 at the translator is another host than 127.0.0.1 here.

Rejected: to leave out private addresses behind the well-known prefix, which RFC 6052 section 3.1 forbids. They are what
such networks have beside the Internet, translators translate them (draft-ietf-v6ops-nat64-wkp-1918 lifts the ban), and
the only other choice is an address that cannot be reached.

Rejected: one endpoint for each of several prefixes. They lead to the same host, and the operator's order says which is
to be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, AF_INET6
from types import MappingProxyType
from typing import Final, final

from .._endpoint import Endpoint
from .._ipv4_embedded import PREFIX_LENGTHS, embed, extract, has_reserved_bits

__all__ = ["WELL_KNOWN_PREFIX", "Translation", "carried_by", "find_prefixes", "synthesise"]

WELL_KNOWN_PREFIX: Final = IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1
_WELL_KNOWN_ADDRESSES: Final = frozenset({0xC00000AA, 0xC00000AB})
"""192.0.0.170 and 192.0.0.171, RFC 7050 section 8.1."""

_NOT_SYNTHESISED: Final = tuple(map(IPv4Network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "255.255.255.255/32")))


def _is_scoped(address: IPv4Address) -> bool:
    return any(address in block for block in _NOT_SYNTHESISED)


def synthesise(address: str, prefix: IPv6Network) -> str:
    """Return the IPv6 address that leads to an IPv4 address through a NAT64.

    Args:
      address: of IPv4.
      prefix: the translator's, of a length that RFC 6052 has.
    """
    return str(IPv6Address(embed(int(prefix.network_address), prefix.prefixlen, int(IPv4Address(address)))))


def carried_by(address: str, prefixes: Iterable[IPv6Network]) -> str | None:
    """Return the IPv4 address that an IPv6 address carries behind one of some prefixes; None where it carries none.

    Args:
      address: of IPv6; perhaps with a zone.
      prefixes: the longest that it has counts.
    """
    ipv6 = IPv6Address(address)
    lengths = [prefix.prefixlen for prefix in prefixes if ipv6 in prefix]
    if not lengths or has_reserved_bits(int(ipv6), max(lengths)):
        return None
    ipv4 = IPv4Address(extract(int(ipv6), max(lengths)))
    return None if _is_scoped(ipv4) else str(ipv4)


def find_prefixes(addresses: Iterable[str]) -> tuple[IPv6Network, ...]:
    """Return the prefixes in the IPv6 addresses of `IPV4_ONLY_NAME`, in the order of the addresses, each once.

    RFC 7050 section 3: a node looks for the well-known addresses at each of the six places. Other bits may look like
    one of them by chance; behind the true prefix there are both. Where no prefix has both the longest counts.

    Args:
      addresses: of IPv6; what carries none of the well-known addresses is skipped.
    """
    places: list[list[IPv6Network]] = []
    seen: dict[IPv6Network, set[int]] = {}
    for number in (int(IPv6Address(address)) for address in addresses):
        mine: list[IPv6Network] = []
        for length in reversed(PREFIX_LENGTHS):
            ipv4 = extract(number, length)
            if ipv4 in _WELL_KNOWN_ADDRESSES and not has_reserved_bits(number, length):
                prefix = IPv6Network((number >> (128 - length) << (128 - length), length))
                seen.setdefault(prefix, set()).add(ipv4)
                mine.append(prefix)
        places.append(mine)
    best = (max(mine, key=lambda prefix: (len(seen[prefix]), prefix.prefixlen)) for mine in places if mine)
    return tuple(dict.fromkeys(best))


@final
class Translation:
    """The endpoints of one call, in both forms.

    Args:
      prefixes: those that are known, the best first; empty while that is to be found out.
    """

    __slots__ = ("_as_given", "_carried", "_prefixes", "_wires")

    def __init__(self, prefixes: Iterable[IPv6Network] = ()) -> None:
        self._prefixes: tuple[IPv6Network, ...] | None = tuple(prefixes) or None
        """None while they are to be found out; empty where the network has no prefix."""
        self._as_given: dict[Endpoint, Endpoint] = {}
        self._wires: dict[Endpoint, Endpoint] = {}
        self._carried: dict[Endpoint, Endpoint] = {}

    @property
    def carried(self) -> Mapping[Endpoint, Endpoint]:
        """Which IPv4 endpoint each wire form carries that is another than its plain form."""
        return MappingProxyType(self._carried)

    def learn(self, prefixes: Iterable[IPv6Network]) -> None:
        """Learn the prefixes; an empty sequence says that the network has no prefix."""
        self._prefixes = tuple(prefixes)

    def plain(self, endpoint: Endpoint) -> Endpoint:
        """Return the plain form of an endpoint.

        Args:
          endpoint: as it came.
        """
        if endpoint.family != AF_INET6:
            return endpoint
        address = carried_by(endpoint.host, self._prefixes or ())
        if address is None:
            return endpoint
        plain = Endpoint(address, endpoint.port)
        self._as_given.setdefault(plain, endpoint)
        return plain

    def wire(self, plain: Endpoint, *, has_route: bool) -> Endpoint | None:
        """Return the wire form of an endpoint; None while it is held back.

        Args:
          plain: its plain form.
          has_route: whether that can be reached as it is; of IPv6 it does not matter.
        """
        if plain.family != AF_INET or has_route or _is_scoped(IPv4Address(plain.host)):
            return plain
        if self._prefixes is None:
            return None
        if not self._prefixes:
            return plain
        if plain not in self._wires:
            made = self._as_given.get(plain)
            wire = Endpoint(synthesise(plain.host, self._prefixes[0]), plain.port) if made is None else made
            self._wires[plain] = wire
            self._carried[wire] = plain
        return self._wires[plain]
