"""Which addresses a connect may go to.

Theory. A text that a stranger chose (a URL, a webhook, a redirect, the answer of a name server) leads a program to any
address that the program can reach, the internal network included: server-side request forgery. Looking at the name is
not enough, for the name may resolve to anything, and to something else a moment later. So the filter looks at each
address, after every lookup and before any packet, and all that pass are raced.

One address has many spellings. ``::ffff:127.0.0.1`` *is* an IPv4 address: packets to it leave as IPv4. Other IPv6
addresses carry an IPv4 address to which a translator or a tunnel hands the packets on. Both are judged here by the IPv4
address in them. Numbers, not texts, are compared: an IPv4 address is its 32 bits above the 128 of IPv6.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from collections.abc import Callable, Iterable
from functools import cache
from socket import AF_INET
from typing import Final, TypeAlias, cast, final

import attrs

from ._endpoint import Endpoint
from ._ipv4_embedded import PREFIX_LENGTHS, extract
from ._special_purpose import ALLOCATED, METADATA_SERVICES, NOT_UNICAST, SPECIAL_PURPOSE, Block
from ._text import shown

__all__ = ["AddressFilter", "NetworkFilter", "NetworkLike"]

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
NetworkLike: TypeAlias = str | IPAddress | IPNetwork
"""A network (``"10.0.0.0/8"``, ``"fc00::/7"``) or a single address, as text or as an object of `ipaddress`."""

AddressFilter: TypeAlias = Callable[[Endpoint], bool]
"""Says of an endpoint whether a connection may go there; a `NetworkFilter` is one."""

_IPV4: Final = 1 << 128
_32_BITS: Final = (1 << 32) - 1
_MAPPED: Final = 0xFFFF  # ::ffff:0:0/96, RFC 4291 section 2.5.5.2
_TRANSLATED: Final = 0xFFFF << 16  # ::ffff:0:0:0/96, RFC 2765 section 2.1
_WELL_KNOWN_PREFIX: Final = 0x64FF9B << 64  # 64:ff9b::/96, RFC 6052 section 2.1
_6TO4: Final = 0x2002  # 2002::/16, RFC 3056 section 2
_TEREDO: Final = 0x20010000  # 2001::/32, RFC 4380 section 4
_ISATAP: Final = 0x00005EFE  # RFC 5214 section 6.1: "000000ug00000000 0101111011111110"
_NOT_U_AND_G: Final = 0xFCFFFFFF
_LOOPBACK_BEHIND: Final = {0: (1,), _IPV4: (_IPV4 | 0x7F000001,)}
"""What is connected to the unspecified address goes to loopback, on Linux and the BSDs."""


def _number(address: IPAddress) -> int:
    number = int(address)
    if address.version == 4:
        return _IPV4 | number
    return _IPV4 | (number & _32_BITS) if number >> 32 == _MAPPED else number


def _embedded(number: int, nat64: Iterable[tuple[int, int]]) -> tuple[list[int], bool]:
    """Return the IPv4 addresses in an address, and whether they alone say where its packets go.

    They do where a block exists to carry IPv4 addresses. An ISATAP address is at the same time one of its site's block.
    An IPv4-translated one was given up (RFC 6145 section 1), so only a translator of old hands on what is sent there.
    """
    if number >= _IPV4:
        return [], False
    found: list[int] = []
    above_ipv4 = number >> 32
    if above_ipv4 == 0:
        # RFC 4291 section 2.5.5.1. The unspecified address and loopback are not IPv4 addresses.
        if number > 1:
            found.append(number)
    elif above_ipv4 == _WELL_KNOWN_PREFIX:
        found.append(number & _32_BITS)
    elif number >> 112 == _6TO4:
        found.append(number >> 80 & _32_BITS)
    elif number >> 96 == _TEREDO:
        # The server, and the client, each bit of which is inverted (RFC 4380 section 4).
        found += (number >> 64 & _32_BITS, number & _32_BITS ^ _32_BITS)
    found += [extract(number, length) for prefix, length in nat64 if number >> (128 - length) == prefix]
    alone = bool(found)
    if above_ipv4 & _32_BITS & _NOT_U_AND_G == _ISATAP or above_ipv4 == _TRANSLATED:
        found.append(number & _32_BITS)
    return [_IPV4 | address for address in found], alone


@final
class _Table:
    """Finds the most specific block that covers an address, in one binary search."""

    __slots__ = ("_blocks", "_starts")

    def __init__(self, blocks: Iterable[Block]) -> None:
        # Where one block ends, the one around it goes on. Of two that start at one number the inner one is found.
        self._starts: list[int] = []
        self._blocks: list[Block | None] = []
        around: list[tuple[int, Block]] = []
        for first, last, block in [*sorted(map(_bounds, blocks), key=lambda bounds: (bounds[0], -bounds[1])), _END]:
            while around and around[-1][0] < first:
                ended, _ = around.pop()
                self._starts.append(ended + 1)
                self._blocks.append(around[-1][1] if around else None)
            self._starts.append(first)
            self._blocks.append(block)
            around.append((last, block))

    def find(self, number: int) -> Block | None:
        place = bisect_right(self._starts, number)
        return self._blocks[place - 1] if place else None


def _bounds(block: Block) -> tuple[int, int, Block]:
    network = ipaddress.ip_network(block.network)
    first = _number(network.network_address)
    return first, first + network.num_addresses - 1, block


_END: Final = (_IPV4 << 1, _IPV4 << 1, Block("", "", ""))


@cache
def _public() -> _Table:
    return _Table([*ALLOCATED, *NOT_UNICAST, *SPECIAL_PURPOSE])


def _network(value: object, name: str) -> IPNetwork:
    if not isinstance(
        value, str | ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network
    ):
        raise TypeError(f"{name} takes networks such as '10.0.0.0/8', got {shown(value)}")
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(
            f"{name} takes networks such as '10.0.0.0/8' or 'fc00::/7', got {shown(value)}: {error}"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.scope_id is not None:
        raise ValueError(f"{name} takes networks without a zone, got {shown(value)}: a filter does not look at zones")
    return network


def _networks(values: object, name: str) -> tuple[IPNetwork, ...]:
    # One network is an iterable too: of its addresses, of which there may be more than there is memory.
    one = str | bytes | ipaddress.IPv4Network | ipaddress.IPv6Network
    if isinstance(values, one) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be an iterable of networks such as ['10.0.0.0/8'], got {shown(values)}")
    return tuple(_network(value, name) for value in cast("Iterable[object]", values))


def nat64_prefixes_of(values: object, name: str) -> tuple[ipaddress.IPv6Network, ...]:
    """Return the NAT64 prefixes that a caller names, or say what is wrong with them.

    Args:
      values: what the caller gave.
      name: of the argument.

    Raises:
      TypeError: it is not an iterable of networks.
      ValueError: one is not a network of IPv6, or its length is not one of RFC 6052.
    """
    prefixes: list[ipaddress.IPv6Network] = []
    for network in _networks(values, name):
        if not isinstance(network, ipaddress.IPv6Network) or network.prefixlen not in PREFIX_LENGTHS:
            raise ValueError(
                f"a NAT64 prefix is an IPv6 network of {', '.join(map(str, PREFIX_LENGTHS[:-1]))} or 96 bits "
                f"(RFC 6052 section 2.2), got {shown(str(network))}"
            )
        prefixes.append(network)
    return tuple(prefixes)


def _ruled(networks: Iterable[IPNetwork], name: str, *, is_public: bool) -> list[Block]:
    return [Block(str(network), name, "", is_public) for network in networks]


def _text(number: int) -> str:
    return str(ipaddress.IPv4Address(number & _32_BITS) if number >= _IPV4 else ipaddress.IPv6Address(number))


@final
@attrs.frozen(init=False, repr=False)
class NetworkFilter:
    """A filter of addresses by network, for `address_filter=` of `connect` and `connectx`.

    It is called with an `Endpoint` and says whether a connection may go there. The port does not matter.

    `deny` wins over `allow`. An IPv4 network covers IPv4-mapped addresses (``::ffff:10.0.0.1``) too, and a network of
    IPv4-mapped addresses is that IPv4 network. Every IPv4 address inside an IPv6 address must pass as well:
    IPv4-compatible (RFC 4291), NAT64 (RFC 6052), 6to4 (RFC 3056), the server and the client of Teredo (RFC 4380),
    ISATAP (RFC 5214), and IPv4-translated (RFC 2765). But for the last two, the address around them then need not be
    in `allow` itself. A connection to the unspecified address, 0.0.0.0 or ``::``, goes to loopback, so that a `deny`
    of 127.0.0.1 or ``::1`` covers it too.

    Args:
      allow: the only networks that are allowed. None allows everything, an empty list nothing.
      deny: the networks that are refused, whatever `allow` says.
      nat64_prefixes: the NAT64 prefixes of the networks that the program runs in, of any length that RFC 6052 section
        2.2 has. The well-known one, 64:ff9b::/96, need not be named.

    Raises:
      TypeError: an argument is not an iterable of networks.
      ValueError: a text is not a network, has bits set behind its length, or names a zone; a NAT64 prefix has a length
        that RFC 6052 does not have.
    """

    allow: tuple[IPNetwork, ...] | None
    deny: tuple[IPNetwork, ...]
    nat64_prefixes: tuple[ipaddress.IPv6Network, ...]
    _is_public_only: bool
    _allowed: _Table | None = attrs.field(eq=False)
    _denied: _Table = attrs.field(eq=False)
    _nat64: tuple[tuple[int, int], ...] = attrs.field(eq=False)

    def __init__(
        self,
        *,
        allow: Iterable[NetworkLike] | None = None,
        deny: Iterable[NetworkLike] = (),
        nat64_prefixes: Iterable[NetworkLike] = (),
    ) -> None:
        networks = None if allow is None else _networks(allow, "allow")
        allowed = None if networks is None else _Table(_ruled(networks, "allowed", is_public=True))
        self._set(networks, allowed, deny, nat64_prefixes, is_public_only=False)

    @classmethod
    def public_only(
        cls, *, deny: Iterable[NetworkLike] = (), nat64_prefixes: Iterable[NetworkLike] = ()
    ) -> NetworkFilter:
        """Return a filter that allows only what the whole Internet can reach.

        An address is public when IANA has allocated its block to a regional registry, and when no row of IANA's two
        special-purpose registries says that it is not globally reachable (RFC 6890, RFC 8190). Refused are loopback,
        private, shared and link-local addresses, multicast, documentation, everything unallocated, and the metadata
        services of clouds at public addresses (168.63.129.16).

        Args:
          deny: networks that are refused as well: your own public ones, say.
          nat64_prefixes: the NAT64 prefixes of the networks that the program runs in.

        Raises:
          TypeError: see the class.
          ValueError: see the class.
        """
        self = cls.__new__(cls)
        self._set(None, _public(), deny, nat64_prefixes, is_public_only=True)
        return self

    def _set(
        self,
        allow: tuple[IPNetwork, ...] | None,
        allowed: _Table | None,
        deny: Iterable[NetworkLike],
        nat64_prefixes: Iterable[NetworkLike],
        *,
        is_public_only: bool,
    ) -> None:
        denied = _networks(deny, "deny")
        prefixes = nat64_prefixes_of(nat64_prefixes, "nat64_prefixes")
        blocks = [*(METADATA_SERVICES if is_public_only else ()), *_ruled(denied, "denied", is_public=False)]
        for name, value in (
            ("allow", allow), ("deny", denied), ("nat64_prefixes", prefixes), ("_is_public_only", is_public_only),
            ("_allowed", allowed), ("_denied", _Table(blocks)),
            ("_nat64", tuple((int(net.network_address) >> (128 - net.prefixlen), net.prefixlen) for net in prefixes)),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def __call__(self, endpoint: Endpoint, /) -> bool:
        """Say whether a connection to an endpoint is allowed."""
        return self._refused(_number_of(endpoint)) is None

    def refusal(self, endpoint: Endpoint, /) -> str | None:
        """Return why a connection to an endpoint is not allowed, on one line, or None when it is.

        Args:
          endpoint: where it would go.
        """
        number = _number_of(endpoint)
        refused = self._refused(number)
        if refused is None:
            return None
        which, block = refused
        how = "leads to" if number in _LOOPBACK_BEHIND else "carries"
        carried = "" if which == number else f"{how} {_text(which)}, which is "
        if block is not None:
            return f"{carried}in {block.network} ({', '.join(filter(None, (block.name, block.source)))})"
        where = "no block that is allocated for the Internet" if self._is_public_only else "no network that is allowed"
        return f"{carried}in {where}"

    def _refused(self, number: int) -> tuple[int, Block | None] | None:
        embedded, alone = _embedded(number, self._nat64)
        for candidate in (number, *embedded, *_LOOPBACK_BEHIND.get(number, ())):
            block = self._denied.find(candidate)
            if block is not None:
                return candidate, block
        if self._allowed is None:
            return None
        for candidate in embedded if alone else (number, *embedded):
            block = self._allowed.find(candidate)
            if block is None or not block.is_public:
                return candidate, block
        return None

    def __repr__(self) -> str:
        given = {"allow": self.allow, "deny": self.deny or None, "nat64_prefixes": self.nat64_prefixes or None}
        arguments = ", ".join(
            f"{name}={[str(network) for network in networks]}"
            for name, networks in given.items()
            if networks is not None
        )
        return f"NetworkFilter{'.public_only' if self._is_public_only else ''}({arguments})"


def _number_of(endpoint: Endpoint) -> int:
    if not isinstance(endpoint, Endpoint):
        raise TypeError(f"a filter is asked for an Endpoint, got {shown(endpoint)}")
    # Both the class and the text are known, so nothing is tried: `ipaddress.ip_address` takes twice as long.
    return _number(
        ipaddress.IPv4Address(endpoint.host) if endpoint.family == AF_INET else ipaddress.IPv6Address(endpoint.host)
    )
