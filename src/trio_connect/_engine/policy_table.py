"""What RFC 6724 knows about an address by looking at it: scope, label, precedence, common prefix.

Every address is handled as a 128-bit integer; an IPv4 address takes its IPv4-mapped form, under which the table of
section 2.1 has it.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Final

import attrs

__all__ = ["DEFAULT_POLICY_TABLE", "Policy", "PolicyTable"]

# RFC 6724 section 3.1 gives unicast addresses the scopes of multicast ones (RFC 4291 section 2.7).
LINK_LOCAL: Final = 0x2
SITE_LOCAL: Final = 0x5
GLOBAL: Final = 0xE

_MAPPED: Final = 0xFFFF  # the upper 96 bits of ::ffff:0:0/96


# Late answers sort everything again, and source addresses are the same few over and over.
@lru_cache(maxsize=1024)
def as_integer(host: str) -> int:
    """Return a numeric address, zone or not, as 128 bits."""
    address = ip_address(host)
    return _MAPPED << 32 | int(address) if isinstance(address, IPv4Address) else int(address)


def is_ipv4(address: int) -> bool:
    """Say whether packets to an address travel over IPv4: an IPv4 or IPv4-mapped one (RFC 4291 section 2.5.5.2)."""
    return address >> 32 == _MAPPED


def scope_of(address: int) -> int:
    """Return the scope of an address, RFC 6724 sections 3.1 and 3.2: the smaller, the nearer."""
    if is_ipv4(address):
        # Section 3.2: 169.254/16 and 127/8 "are assigned link-local scope"; all others, the private ranges too,
        # "are assigned global scope".
        return LINK_LOCAL if (address >> 16) & 0xFFFF == 0xA9FE or (address >> 24) & 0xFF == 127 else GLOBAL
    if address >> 120 == 0xFF:
        return (address >> 112) & 0xF
    if address >> 118 == 0xFE80 >> 6 or address == 1:
        # Section 3.4: "The loopback address MUST be treated as having link-local scope".
        return LINK_LOCAL
    return SITE_LOCAL if address >> 118 == 0xFEC0 >> 6 else GLOBAL


def common_prefix_length(source: int, destination: int) -> int:
    """Return the number of leading bits that two addresses share, RFC 6724 section 2.2.

    It counts "up to the length of S's prefix (i.e., the portion of the address not including the interface ID)". The
    kernel does not say how long that is without a netlink socket, so IPv6 counts to 64 (RFC 4291 section 2.5.4: the
    interface ID of global unicast has 64 bits) and IPv4 to 32.
    """
    mapped = source >> 32 == destination >> 32 == _MAPPED
    same = 128 - (source ^ destination).bit_length()
    return same - 96 if mapped else min(same, 64)


@attrs.frozen
class Policy:
    """One row of a policy table, RFC 6724 section 2.1."""

    prefix: IPv6Network
    """Where the row applies; IPv4 prefixes are written as IPv4-mapped ones."""
    precedence: int
    """The higher, the sooner such a destination is tried (rule 6)."""
    label: int
    """Destinations are best reached from a source with the same label (rule 5)."""


@attrs.frozen(cache_hash=True)
class PolicyTable:
    """A policy table: the row with the longest matching prefix counts.

    Args:
      rows: in any order. A row for ``::/0`` must be among them, so that every address has a policy.

    Raises:
      ValueError: there is no row for ``::/0``, or a prefix has two rows.
    """

    rows: tuple[Policy, ...]
    _index: tuple[tuple[int, int, Policy], ...] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        prefixes = [row.prefix for row in self.rows]
        if IPv6Network("::/0") not in prefixes:
            raise ValueError("a policy table must have a row for ::/0")
        if len(set(prefixes)) < len(prefixes):
            raise ValueError("a policy table has one row for each prefix")
        longest_first = sorted(self.rows, key=lambda row: -row.prefix.prefixlen)
        index = tuple((int(row.prefix.network_address), int(row.prefix.netmask), row) for row in longest_first)
        object.__setattr__(self, "_index", index)

    def lookup(self, address: int) -> Policy:
        """Return the policy of an address of `as_integer`."""
        return next(row for network, mask, row in self._index if address & mask == network)


DEFAULT_POLICY_TABLE: Final = PolicyTable(
    # RFC 6724 section 2.1: the table that SHOULD be in force until an administrator gives another.
    tuple(
        Policy(IPv6Network(prefix), precedence, label)
        for prefix, precedence, label in (
            ("::1/128", 50, 0),
            ("::/0", 40, 1),
            ("::ffff:0:0/96", 35, 4),
            ("2002::/16", 30, 2),
            ("2001::/32", 5, 5),
            ("fc00::/7", 3, 13),
            ("::/96", 1, 3),
            ("fec0::/10", 1, 11),
            ("3ffe::/16", 1, 12),
        )
    )
)
