"""The rows of IANA's registries, entered a second time: a slip in one of the two copies shows."""

from __future__ import annotations

import csv
import ipaddress
from itertools import pairwise

import pytest

from trio_connect._special_purpose import ALLOCATED, METADATA_SERVICES, NOT_UNICAST, SPECIAL_PURPOSE, Block

# Address block, name, source, globally reachable.
REGISTRIES = """\
0.0.0.0/8,this network,RFC 791 section 3.2,False
0.0.0.0/32,this host on this network,RFC 1122 section 3.2.1.3,False
10.0.0.0/8,private use,RFC 1918,False
100.64.0.0/10,shared address space,RFC 6598,False
127.0.0.0/8,loopback,RFC 1122 section 3.2.1.3,False
169.254.0.0/16,link-local,RFC 3927,False
172.16.0.0/12,private use,RFC 1918,False
192.0.0.0/24,IETF protocol assignments,RFC 6890 section 2.1,False
192.0.0.0/29,IPv4 service continuity prefix,RFC 7335,False
192.0.0.8/32,IPv4 dummy address,RFC 7600,False
192.0.0.9/32,Port Control Protocol anycast,RFC 7723,True
192.0.0.10/32,TURN anycast,RFC 8155,True
192.0.0.170/32,NAT64/DNS64 discovery,RFC 8880,False
192.0.0.171/32,NAT64/DNS64 discovery,RFC 8880,False
192.0.2.0/24,documentation,RFC 5737,False
192.31.196.0/24,AS112,RFC 7535,True
192.52.193.0/24,AMT,RFC 7450,True
192.88.99.0/24,"6to4 relay anycast, given back",RFC 7526,False
192.88.99.2/32,6a44 relay anycast,RFC 6751,False
192.168.0.0/16,private use,RFC 1918,False
192.175.48.0/24,direct delegation of AS112,RFC 7534,True
198.18.0.0/15,benchmarking,RFC 2544,False
198.51.100.0/24,documentation,RFC 5737,False
203.0.113.0/24,documentation,RFC 5737,False
240.0.0.0/4,reserved,RFC 1112 section 4,False
255.255.255.255/32,limited broadcast,RFC 919 section 7,False
::1/128,loopback,RFC 4291,False
::/128,unspecified,RFC 4291,False
64:ff9b::/96,IPv4-IPv6 translation,RFC 6052,True
64:ff9b:1::/48,local IPv4-IPv6 translation,RFC 8215,False
100::/64,discard-only,RFC 6666,False
100:0:0:1::/64,dummy prefix,RFC 9780,False
2001::/23,IETF protocol assignments,RFC 2928,False
2001::/32,Teredo,RFC 4380,False
2001:1::1/128,Port Control Protocol anycast,RFC 7723,True
2001:1::2/128,TURN anycast,RFC 8155,True
2001:1::3/128,DNS-SD service registration anycast,RFC 9665,True
2001:2::/48,benchmarking,RFC 5180,False
2001:3::/32,AMT,RFC 7450,True
2001:4:112::/48,AS112,RFC 7535,True
2001:10::/28,"ORCHID, given back",RFC 4843,False
2001:20::/28,ORCHIDv2,RFC 7343,True
2001:30::/28,drone remote ID entity tags,RFC 9374,True
2001:db8::/32,documentation,RFC 3849,False
2002::/16,6to4,RFC 3056,False
2620:4f:8000::/48,direct delegation of AS112,RFC 7534,True
3fff::/20,documentation,RFC 9637,False
5f00::/16,segment routing SIDs,RFC 9602,False
fc00::/7,unique local,RFC 4193,False
fe80::/10,link-local,RFC 4291,False
"""

# In the order of the numbers, as the registry of unicast assignments has them.
ALLOCATED_IPV6 = """\
2001:200::/23 APNIC, 2001:400::/23 ARIN, 2001:600::/23 RIPE NCC, 2001:800::/22 RIPE NCC, 2001:c00::/23 APNIC,
2001:e00::/23 APNIC, 2001:1200::/23 LACNIC, 2001:1400::/22 RIPE NCC, 2001:1800::/23 ARIN, 2001:1a00::/23 RIPE NCC,
2001:1c00::/22 RIPE NCC, 2001:2000::/19 RIPE NCC, 2001:4000::/23 RIPE NCC, 2001:4200::/23 AFRINIC,
2001:4400::/23 APNIC, 2001:4600::/23 RIPE NCC, 2001:4800::/23 ARIN, 2001:4a00::/23 RIPE NCC, 2001:4c00::/23 RIPE NCC,
2001:5000::/20 RIPE NCC, 2001:8000::/19 APNIC, 2001:a000::/20 APNIC, 2001:b000::/20 APNIC, 2003::/18 RIPE NCC,
2400::/12 APNIC, 2410::/12 APNIC, 2600::/12 ARIN, 2610::/23 ARIN, 2620::/23 ARIN, 2630::/12 ARIN, 2800::/12 LACNIC,
2a00::/12 RIPE NCC, 2a10::/12 RIPE NCC, 2c00::/12 AFRINIC
"""


def test_the_special_purpose_registries():
    rows = [
        Block(network, name, source, reachable == "True")
        for network, name, source, reachable in csv.reader(REGISTRIES.splitlines())
    ]
    assert list(SPECIAL_PURPOSE) == rows


def test_what_is_in_neither_of_the_two():
    assert [(block.network, block.name, block.source) for block in NOT_UNICAST] == [
        ("224.0.0.0/4", "multicast", "RFC 5771"),
        ("fec0::/10", "site-local, given up", "RFC 3879"),
        ("ff00::/8", "multicast", "RFC 4291"),
    ]
    assert [(block.network, block.name, block.source) for block in METADATA_SERVICES] == [
        ("168.63.129.16/32", "metadata service", "Azure")
    ]
    assert not any(block.is_public for block in (*NOT_UNICAST, *METADATA_SERVICES))


def test_the_allocated_blocks():
    rows = [entry.split(maxsplit=1) for entry in ALLOCATED_IPV6.replace("\n", " ").split(",")]
    assert len(ALLOCATED) == len(rows) + 1
    found = {(block.network, block.source) for block in ALLOCATED}
    assert found == {("0.0.0.0/0", "IPv4"), *((network, registry.strip()) for network, registry in rows)}
    assert all(block.is_public and block.name == "allocated" for block in ALLOCATED)


@pytest.mark.parametrize("block", [*SPECIAL_PURPOSE, *NOT_UNICAST, *ALLOCATED, *METADATA_SERVICES], ids=str)
def test_each_block_is_a_network_in_its_normal_form(block):
    assert str(ipaddress.ip_network(block.network)) == block.network


def test_allocated_ipv6_blocks_are_disjoint():
    networks = [ipaddress.ip_network(block.network) for block in ALLOCATED]
    ipv6 = sorted(network for network in networks if isinstance(network, ipaddress.IPv6Network))
    assert not any(first.overlaps(second) for first, second in pairwise(ipv6))
