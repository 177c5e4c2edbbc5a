"""IPv4-embedded IPv6 addresses (RFC 6052 section 2.2): how a NAT64 has an IPv4 address written into an IPv6 one.

The IPv4 address stands behind the prefix. "Bits 64 to 71 of the address are reserved", so there it goes on one octet
later. Addresses are numbers here.
"""

from __future__ import annotations

from typing import Final

__all__ = ["PREFIX_LENGTHS", "embed", "extract", "has_reserved_bits"]

PREFIX_LENGTHS: Final = (32, 40, 48, 56, 64, 96)
"""RFC 6052 section 2.2: "Possible prefixes" end at these bits."""

_32_BITS: Final = (1 << 32) - 1
_56_BITS: Final = (1 << 56) - 1
_RESERVED: Final = 0xFF << 56


def embed(prefix: int, prefix_length: int, ipv4: int) -> int:
    """Return the IPv6 address of an IPv4 address behind a prefix, its suffix zero.

    Args:
      prefix: its bits, at the top of 128.
      prefix_length: one of `PREFIX_LENGTHS`.
      ipv4: the address.
    """
    if prefix_length == 96:
        return prefix | ipv4
    without_reserved = ipv4 << (88 - prefix_length)
    return prefix | without_reserved >> 56 << 64 | without_reserved & _56_BITS


def extract(number: int, prefix_length: int) -> int:
    """Return the IPv4 address in an IPv6 address that has a prefix of this length, whatever its reserved bits are."""
    if prefix_length == 96:
        return number & _32_BITS
    without_reserved = number >> 64 << 56 | number & _56_BITS
    return without_reserved >> (88 - prefix_length) & _32_BITS


def has_reserved_bits(number: int, prefix_length: int) -> bool:
    """Say whether bits are set that "MUST be set to zero" where they do not belong to the prefix."""
    return prefix_length < 96 and bool(number & _RESERVED)
