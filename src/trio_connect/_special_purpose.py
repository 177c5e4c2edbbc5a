"""Which addresses the whole Internet can reach: IANA's registries of address blocks, as data.

The standard library's `ipaddress.is_global` follows the Python version that runs, and leaves out what no row says in so
many words: multicast, what was never allocated, an IPv4 address inside an IPv6 one. So the rows stand here, each with
its source, and `_filter` says what follows from them.

To bring them up to date, compare with the registries named below and move the dates.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["ALLOCATED", "METADATA_SERVICES", "NOT_UNICAST", "SPECIAL_PURPOSE", "Block"]


@attrs.frozen
class Block:
    """One block of addresses.

    Args:
      network: in the notation of CIDR.
      name: what the registry calls it.
      source: the RFC that asked for it.
      is_public: whether everybody on the Internet can reach it.
    """

    network: str
    name: str
    source: str
    is_public: bool = False


# iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry, both as of 2025-10-09. The last column
# is "Globally Reachable". Where it says "N/A" (Teredo and 6to4 are judged by what they embed) or nothing (the block was
# given back) the block is not public. Of two rows that cover an address the more specific one counts. That is what the
# footnotes say: "Unless allowed by a more specific allocation".
SPECIAL_PURPOSE: Final = (
    Block("0.0.0.0/8", "this network", "RFC 791 section 3.2"),
    Block("0.0.0.0/32", "this host on this network", "RFC 1122 section 3.2.1.3"),
    Block("10.0.0.0/8", "private use", "RFC 1918"),
    Block("100.64.0.0/10", "shared address space", "RFC 6598"),
    Block("127.0.0.0/8", "loopback", "RFC 1122 section 3.2.1.3"),
    Block("169.254.0.0/16", "link-local", "RFC 3927"),
    Block("172.16.0.0/12", "private use", "RFC 1918"),
    Block("192.0.0.0/24", "IETF protocol assignments", "RFC 6890 section 2.1"),
    Block("192.0.0.0/29", "IPv4 service continuity prefix", "RFC 7335"),
    Block("192.0.0.8/32", "IPv4 dummy address", "RFC 7600"),
    Block("192.0.0.9/32", "Port Control Protocol anycast", "RFC 7723", is_public=True),
    Block("192.0.0.10/32", "TURN anycast", "RFC 8155", is_public=True),
    Block("192.0.0.170/32", "NAT64/DNS64 discovery", "RFC 8880"),
    Block("192.0.0.171/32", "NAT64/DNS64 discovery", "RFC 8880"),
    Block("192.0.2.0/24", "documentation", "RFC 5737"),
    Block("192.31.196.0/24", "AS112", "RFC 7535", is_public=True),
    Block("192.52.193.0/24", "AMT", "RFC 7450", is_public=True),
    Block("192.88.99.0/24", "6to4 relay anycast, given back", "RFC 7526"),
    Block("192.88.99.2/32", "6a44 relay anycast", "RFC 6751"),
    Block("192.168.0.0/16", "private use", "RFC 1918"),
    Block("192.175.48.0/24", "direct delegation of AS112", "RFC 7534", is_public=True),
    Block("198.18.0.0/15", "benchmarking", "RFC 2544"),
    Block("198.51.100.0/24", "documentation", "RFC 5737"),
    Block("203.0.113.0/24", "documentation", "RFC 5737"),
    Block("240.0.0.0/4", "reserved", "RFC 1112 section 4"),
    Block("255.255.255.255/32", "limited broadcast", "RFC 919 section 7"),
    Block("::1/128", "loopback", "RFC 4291"),
    Block("::/128", "unspecified", "RFC 4291"),
    Block("64:ff9b::/96", "IPv4-IPv6 translation", "RFC 6052", is_public=True),
    Block("64:ff9b:1::/48", "local IPv4-IPv6 translation", "RFC 8215"),
    Block("100::/64", "discard-only", "RFC 6666"),
    Block("100:0:0:1::/64", "dummy prefix", "RFC 9780"),
    Block("2001::/23", "IETF protocol assignments", "RFC 2928"),
    Block("2001::/32", "Teredo", "RFC 4380"),
    Block("2001:1::1/128", "Port Control Protocol anycast", "RFC 7723", is_public=True),
    Block("2001:1::2/128", "TURN anycast", "RFC 8155", is_public=True),
    Block("2001:1::3/128", "DNS-SD service registration anycast", "RFC 9665", is_public=True),
    Block("2001:2::/48", "benchmarking", "RFC 5180"),
    Block("2001:3::/32", "AMT", "RFC 7450", is_public=True),
    Block("2001:4:112::/48", "AS112", "RFC 7535", is_public=True),
    Block("2001:10::/28", "ORCHID, given back", "RFC 4843"),
    Block("2001:20::/28", "ORCHIDv2", "RFC 7343", is_public=True),
    Block("2001:30::/28", "drone remote ID entity tags", "RFC 9374", is_public=True),
    Block("2001:db8::/32", "documentation", "RFC 3849"),
    Block("2002::/16", "6to4", "RFC 3056"),
    Block("2620:4f:8000::/48", "direct delegation of AS112", "RFC 7534", is_public=True),
    Block("3fff::/20", "documentation", "RFC 9637"),
    Block("5f00::/16", "segment routing SIDs", "RFC 9602"),
    Block("fc00::/7", "unique local", "RFC 4193"),
    Block("fe80::/10", "link-local", "RFC 4291"),
)
"""IANA's special-purpose registries, without IPv4-mapped addresses (::ffff:0:0/96): these are IPv4 here."""

# These have registries of their own.
NOT_UNICAST: Final = (
    Block("224.0.0.0/4", "multicast", "RFC 5771"),
    Block("fec0::/10", "site-local, given up", "RFC 3879"),
    Block("ff00::/8", "multicast", "RFC 4291"),
)
"""Blocks that are special and in neither of the two registries."""

# iana.org/assignments/ipv6-unicast-address-assignments, as of 2024-11-01, the day of its last addition (2410::/12). Of
# IPv4 every block that is not special has been allocated since 2011.
ALLOCATED: Final = tuple(
    Block(network, "allocated", registry, is_public=True)
    for registry, networks in (
        ("IPv4", "0.0.0.0/0"),
        ("AFRINIC", "2001:4200::/23 2c00::/12"),
        (
            "APNIC",
            "2001:200::/23 2001:c00::/23 2001:e00::/23 2001:4400::/23 2001:8000::/19 2001:a000::/20 2001:b000::/20",
        ),
        ("APNIC", "2400::/12 2410::/12"),
        ("ARIN", "2001:400::/23 2001:1800::/23 2001:4800::/23 2600::/12 2610::/23 2620::/23 2630::/12"),
        ("LACNIC", "2001:1200::/23 2800::/12"),
        ("RIPE NCC", "2001:600::/23 2001:800::/22 2001:1400::/22 2001:1a00::/23 2001:1c00::/22 2001:2000::/19"),
        ("RIPE NCC", "2001:4000::/23 2001:4600::/23 2001:4a00::/23 2001:4c00::/23 2001:5000::/20 2003::/18"),
        ("RIPE NCC", "2a00::/12 2a10::/12"),
    )
    for network in networks.split()
)
"""What IANA has given to the regional registries. What is in no such block belongs to nobody."""

# Microsoft Learn, "What is IP address 168.63.129.16?": it is the same in every region. The services of other clouds are
# link-local (169.254.169.254), shared (100.100.100.200), in 192.0.0.0/24 or unique local (fd00:ec2::254), so the rows
# above cover them.
METADATA_SERVICES: Final = (Block("168.63.129.16/32", "metadata service", "Azure"),)
"""Services of clouds that trust whoever reaches them, at addresses that look public."""
