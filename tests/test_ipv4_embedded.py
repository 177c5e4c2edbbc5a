"""IPv4-embedded IPv6 addresses: the examples of RFC 6052, every length, there and back."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._ipv4_embedded import PREFIX_LENGTHS, embed, extract, has_reserved_bits

# RFC 6052 section 2.4, tables 1 and 2, all of 192.0.2.33.
EXAMPLES = {
    "2001:db8::/32": "2001:db8:c000:221::",
    "2001:db8:100::/40": "2001:db8:1c0:2:21::",
    "2001:db8:122::/48": "2001:db8:122:c000:2:2100::",
    "2001:db8:122:300::/56": "2001:db8:122:3c0:0:221::",
    "2001:db8:122:344::/64": "2001:db8:122:344:c0:2:2100::",
    "2001:db8:122:344::/96": "2001:db8:122:344::192.0.2.33",
    "64:ff9b::/96": "64:ff9b::192.0.2.33",
}


@pytest.mark.parametrize(("prefix", "address"), EXAMPLES.items())
def test_the_examples_of_rfc_6052(prefix, address):
    network, ipv4 = IPv6Network(prefix), int(IPv4Address("192.0.2.33"))
    assert IPv6Address(embed(int(network.network_address), network.prefixlen, ipv4)) == IPv6Address(address)
    assert extract(int(IPv6Address(address)), network.prefixlen) == ipv4


def test_there_is_an_example_of_each_length():
    assert {IPv6Network(prefix).prefixlen for prefix in EXAMPLES} == set(PREFIX_LENGTHS)


@given(st.sampled_from(PREFIX_LENGTHS), st.ip_addresses(v=6), st.ip_addresses(v=4))
def test_there_and_back_for_every_length(length, somewhere, ipv4):
    prefix = int(IPv6Network((int(somewhere), length), strict=False).network_address)
    number = embed(prefix, length, int(ipv4))
    assert number >> (128 - length) == prefix >> (128 - length)
    assert extract(number, length) == int(ipv4)
    assert not has_reserved_bits(number, length)


@given(st.sampled_from(PREFIX_LENGTHS), st.ip_addresses(v=6), st.integers(1, 255))
def test_the_reserved_octet_carries_nothing(length, somewhere, octet):
    number = int(somewhere) & ~(0xFF << 56)
    marked = number | octet << 56
    assert has_reserved_bits(marked, length) is (length < 96)
    if length < 96:
        assert extract(marked, length) == extract(number, length)
