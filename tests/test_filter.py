"""NetworkFilter: every spelling of an address gets the same answer, and the answer is that of the registries."""

from __future__ import annotations

import copy
import ipaddress
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import trio_connect
from tests.support.pace import PacedClock, least
from trio_connect import Endpoint, NetworkFilter
from trio_connect._special_purpose import ALLOCATED, METADATA_SERVICES, NOT_UNICAST, SPECIAL_PURPOSE

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PUBLIC = NetworkFilter.public_only()


def endpoint(host: object) -> Endpoint:
    return Endpoint(str(host), 443)


# --- an oracle --------------------------------------------------------------------------------------------------------
# Slow, over bytes and whole lists of networks, where the filter shifts numbers and searches a table.


def carried_addresses(address: Address, nat64: list[str]) -> tuple[list[ipaddress.IPv4Address], bool]:
    """The IPv4 addresses in an address, and whether the address is nothing else than these."""
    if address.version == 4:
        return [], False
    if address.ipv4_mapped is not None:  # it travels over IPv4, where no NAT64 of ::/32 sees it
        return [address.ipv4_mapped], True
    octets = address.packed
    found: list[bytes] = []
    if octets[:12] == bytes(12) and octets[12:] > bytes([0, 0, 0, 1]):
        found.append(octets[12:])
    if octets[:12] == bytes.fromhex("0064ff9b") + bytes(8):
        found.append(octets[12:])
    if octets[:2] == b"\x20\x02":
        found.append(octets[2:6])
    if octets[:4] == b"\x20\x01\x00\x00":
        found += [octets[4:8], bytes(255 - octet for octet in octets[12:])]
    for prefix in map(ipaddress.IPv6Network, nat64):
        if address in prefix:
            place = prefix.prefixlen // 8
            found.append(octets[12:] if place == 12 else (octets[:8] + octets[9:])[place : place + 4])
    alone = bool(found)
    if octets[8] & 0xFC == 0 and octets[9:12] == b"\x00\x5e\xfe":
        found.append(octets[12:])
    if octets[:12] == bytes(8) + b"\xff\xff\x00\x00":
        found.append(octets[12:])
    return [ipaddress.IPv4Address(four) for four in found], alone


def covers(networks: list[str], address: Address) -> bool:
    return any(address in ipaddress.ip_network(network) for network in networks)


def is_public(address: Address) -> bool:
    blocks = [
        (ipaddress.ip_network(block.network), block.is_public) for block in (*ALLOCATED, *NOT_UNICAST, *SPECIAL_PURPOSE)
    ]
    around = [(network.prefixlen, public) for network, public in blocks if address in network]
    return bool(around) and max(around)[1]


def oracle(address: Address, allow: list[str] | None, deny: list[str], nat64: list[str], *, public: bool) -> bool:
    carried, alone = carried_addresses(address, nat64)
    is_mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    itself: list[Address] = [] if is_mapped else [address]
    if any(covers(deny, one) for one in [*itself, *carried]):
        return False
    judged = [*([] if alone else itself), *carried]
    if public:
        metadata = [block.network for block in METADATA_SERVICES]
        return all(is_public(one) and not covers(metadata, one) for one in judged)
    return allow is None or all(covers(allow, one) for one in judged)


# --- spellings --------------------------------------------------------------------------------------------------------


def ipv6(*parts: bytes) -> ipaddress.IPv6Address:
    octets = b"".join(parts)
    assert len(octets) == 16
    return ipaddress.IPv6Address(octets)


def translated(prefix: str, ipv4: ipaddress.IPv4Address, tail: bytes = b"") -> ipaddress.IPv6Address:
    """An address of a NAT64, as RFC 6052 section 2.2 draws it."""
    network = ipaddress.IPv6Network(prefix)
    start = network.network_address.packed[: network.prefixlen // 8]
    if len(start) == 12:
        return ipv6(start, ipv4.packed)
    together = start + ipv4.packed
    octets = together[:8] + b"\0" + together[8:] + tail
    return ipv6(octets[:16].ljust(16, b"\0"))


SITE = bytes.fromhex("2a001450") + bytes(4)  # an allocated block
NAT64 = [
    "2606:4700::/32", "2a01:4f8:5500::/40", "fd00:64:7::/48", "64:ff9b:1:ab00::/56", "2001:db8:0:1::/64", "fd00:96::/96"
]  # fmt: skip

SPELLINGS: dict[str, Callable[[ipaddress.IPv4Address], ipaddress.IPv6Address]] = {
    "mapped": lambda ipv4: ipv6(bytes(10), b"\xff\xff", ipv4.packed),
    "compatible": lambda ipv4: ipv6(bytes(12), ipv4.packed),
    "nat64": lambda ipv4: translated("64:ff9b::/96", ipv4),
    "6to4": lambda ipv4: ipv6(b"\x20\x02", ipv4.packed, bytes(9), b"\x01"),
    "teredo server": lambda ipv4: ipv6(b"\x20\x01\0\0", ipv4.packed, bytes(4), bytes([247, 247, 247, 247])),
    "teredo client": lambda ipv4: ipv6(
        b"\x20\x01\0\0", b"\x08" * 4, bytes(4), bytes(255 - byte for byte in ipv4.packed)
    ),
    "isatap": lambda ipv4: ipv6(SITE, b"\0\0\x5e\xfe", ipv4.packed),
    "isatap global": lambda ipv4: ipv6(SITE, b"\x02\0\x5e\xfe", ipv4.packed),
    "isatap group": lambda ipv4: ipv6(SITE, b"\x01\0\x5e\xfe", ipv4.packed),
    "isatap in 6to4": lambda ipv4: ipv6(b"\x20\x02\x08\x08\x08\x08\0\0\0\0\x5e\xfe", ipv4.packed),
    # The client of that Teredo address is another one: what the last 32 bits are when each is inverted.
    "isatap in teredo": lambda ipv4: ipv6(b"\x20\x01\0\0", b"\x08" * 4, b"\0\0\x5e\xfe", ipv4.packed),
    "isatap in nat64": lambda ipv4: ipv6(bytes.fromhex("2606470008080808"), b"\0\0\x5e\xfe", ipv4.packed),
    **{f"nat64 {prefix}": partial(translated, prefix) for prefix in NAT64},
}


def edges(network: str) -> list[Address]:
    """The first and last addresses of a block, and the neighbours of these outside."""
    block = ipaddress.ip_network(network)
    kind = type(block.network_address)
    first, last = int(block.network_address), int(block.broadcast_address)
    numbers = {first - 1, first, first + 1, (first + last) // 2, last - 1, last, last + 1}
    return [kind(number) for number in sorted(numbers) if 0 <= number < 1 << block.max_prefixlen]


BLOCKS = [block.network for block in (*SPECIAL_PURPOSE, *NOT_UNICAST, *ALLOCATED, *METADATA_SERVICES)]
IPV4_EDGES = sorted({edge for network in BLOCKS for edge in edges(network) if isinstance(edge, ipaddress.IPv4Address)})
IPV6_EDGES = sorted({edge for network in BLOCKS for edge in edges(network) if isinstance(edge, ipaddress.IPv6Address)})

ipv4_addresses = st.one_of(st.sampled_from(IPV4_EDGES), st.ip_addresses(v=4))
plain_ipv6 = st.one_of(st.sampled_from(IPV6_EDGES), st.ip_addresses(v=6))
spelled = st.builds(lambda spell, ipv4: spell(ipv4), st.sampled_from(list(SPELLINGS.values())), ipv4_addresses)
addresses = st.one_of(ipv4_addresses, plain_ipv6, spelled)


@st.composite
def networks(draw):
    """A network around an address of interest, never of IPv4-mapped addresses: a test of its own has those."""
    address = draw(addresses)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    length = draw(st.integers(0, address.max_prefixlen))
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False))


@st.composite
def nat64_prefixes(draw):
    length = draw(st.sampled_from([32, 40, 48, 56, 64, 96]))
    return str(ipaddress.IPv6Network(f"{draw(plain_ipv6)}/{length}", strict=False))


some_networks = st.lists(networks(), max_size=4)
some_prefixes = st.lists(st.one_of(nat64_prefixes(), st.sampled_from(NAT64)), max_size=3)


# --- what is public ---------------------------------------------------------------------------------------------------


@given(addresses, st.lists(networks(), max_size=2), some_prefixes)
def test_public_only_agrees_with_the_oracle(address, deny, nat64):
    judged = NetworkFilter.public_only(deny=deny, nat64_prefixes=nat64)
    expected = oracle(address, None, deny, nat64, public=True)
    assert judged(endpoint(address)) is expected
    assert (judged.refusal(endpoint(address)) is None) is expected


@pytest.mark.parametrize("network", BLOCKS)
def test_public_only_at_the_edges_of_each_block(network):
    named = NetworkFilter.public_only(nat64_prefixes=NAT64)
    for address in edges(network):
        assert PUBLIC(endpoint(address)) is oracle(address, None, [], [], public=True), address
        if isinstance(address, ipaddress.IPv4Address):
            for name, spell in SPELLINGS.items():
                written = spell(address)
                assert named(endpoint(written)) is oracle(written, None, [], NAT64, public=True), (name, written)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_leads_to_an_internal_address(spelling):
    named = NetworkFilter.public_only(nat64_prefixes=NAT64)
    internal = [block.network for block in (*SPECIAL_PURPOSE, *NOT_UNICAST, *METADATA_SERVICES) if not block.is_public]
    for address in (edge for network in internal for edge in edges(network)):
        if isinstance(address, ipaddress.IPv4Address) and not is_public(address):
            assert not named(endpoint(SPELLINGS[spelling](address))), address
    # Public however it is read: its bits inverted are 154.153.152.151.
    assert named(endpoint(SPELLINGS[spelling](ipaddress.IPv4Address("101.102.103.104"))))
    assert not named(endpoint(SPELLINGS[spelling](ipaddress.IPv4Address("168.63.129.16"))))


@pytest.mark.parametrize(
    ("host", "public"),
    [
        # What ipaddress.is_global takes for public in Python 3.11.
        ("::127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::7f00:1", False),
        ("2002:7f00:1::", False),
        ("2606:4700::5efe:7f00:1", False),
        ("2606:4700::200:5efe:7f00:1", False),
        ("fec0::1", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("224.0.0.1", False),
        ("ff0e::1", False),
        ("192.88.99.1", False),
        # Nobody's.
        ("2d00::1", False),
        ("3ffe::1", False),
        ("2001:1000::1", False),
        ("4000::1", False),
        ("::ffff:0:8.8.8.8", False),
        # Metadata services.
        ("169.254.169.254", False),
        ("fd00:ec2::254", False),
        ("100.100.100.200", False),
        ("192.0.0.192", False),
        ("168.63.129.16", False),
        ("168.63.129.15", True),
        ("168.63.129.17", True),
        # Everybody's.
        ("8.8.8.8", True),
        ("::ffff:8.8.8.8", True),
        ("::8.8.8.8", True),
        ("2606:4700:4700::1111", True),
        ("2620:fe::fe", True),
        ("2410::1", True),
        ("64:ff9b::808:808", True),
        ("2002:808:808::1", True),
        # Rows within rows.
        ("192.0.0.8", False),
        ("192.0.0.9", True),
        ("2001:1::4", False),
        ("2001:1::3", True),
    ],
)
def test_public_only_by_example(host, public):
    assert PUBLIC(endpoint(host)) is public


@given(ipv4_addresses, st.none() | some_networks, some_networks)
def test_what_was_ipv4_translated_agrees_with_the_oracle(ipv4, allow, deny):
    """RFC 2765 section 2.1: a block that nobody has any more, so what it carries is judged beside it."""
    address = ipv6(bytes(8), b"\xff\xff\0\0", ipv4.packed)
    expected = oracle(address, allow, deny, [], public=False)
    assert NetworkFilter(allow=allow, deny=deny)(endpoint(address)) is expected


def test_a_network_that_is_denied_is_not_reached_as_ipv4_translated():
    judged = NetworkFilter(deny=["10.0.0.0/8"])
    assert judged.refusal(endpoint("::ffff:0:10.0.0.1")) == "carries 10.0.0.1, which is in 10.0.0.0/8 (denied)"
    assert judged(endpoint("::ffff:0:192.0.2.1"))
    assert not NetworkFilter(allow=["10.0.0.0/8"])(endpoint("::ffff:0:10.0.0.1"))


# --- networks of one's own --------------------------------------------------------------------------------------------


@given(addresses, st.none() | some_networks, some_networks, some_prefixes)
def test_allow_and_deny_agree_with_the_oracle(address, allow, deny, nat64):
    judged = NetworkFilter(allow=allow, deny=deny, nat64_prefixes=nat64)
    expected = oracle(address, allow, deny, nat64, public=False)
    assert judged(endpoint(address)) is expected
    assert (judged.refusal(endpoint(address)) is None) is expected


@given(networks(), some_networks)
def test_deny_wins(network, more):
    judged = NetworkFilter(allow=[network, *more], deny=[network])
    assert not judged(endpoint(ipaddress.ip_network(network).network_address))


@given(addresses)
def test_a_filter_without_rules_allows_everything_and_one_without_networks_nothing(address):
    assert NetworkFilter()(endpoint(address))
    assert not NetworkFilter(allow=[])(endpoint(address))


@given(st.ip_addresses(v=4), st.integers(96, 128))
def test_a_network_of_mapped_addresses_is_that_ipv4_network(address, length):
    judged = NetworkFilter(deny=[ipaddress.IPv6Network(f"::ffff:{address}/{length}", strict=False)])
    assert not judged(endpoint(address))
    assert not judged(endpoint(f"::ffff:{address}"))


def test_ipv6_networks_do_not_cover_ipv4():
    assert NetworkFilter(deny=["::/0"])(endpoint("192.0.2.1"))
    assert NetworkFilter(deny=["::/0"])(endpoint("::ffff:192.0.2.1"))
    assert not NetworkFilter(allow=["::/0"])(endpoint("::ffff:192.0.2.1"))
    assert not NetworkFilter(deny=["::/0"])(endpoint("::1"))


def test_loopback_of_ipv6_embeds_nothing():
    assert NetworkFilter(allow=["::1"])(endpoint("::1"))
    assert NetworkFilter(allow=["::"])(endpoint("::"))
    assert not NetworkFilter(allow=["::2"])(endpoint("::2"))


def test_a_zone_makes_no_difference():
    asked = Endpoint("fe80::1%eth0", 443)
    assert NetworkFilter(allow=["fe80::/10"])(asked)
    assert not PUBLIC(asked)


def test_networks_come_in_every_form():
    forms = ["10.0.0.0/8", "192.0.2.1", ipaddress.ip_network("fc00::/7"), ipaddress.ip_address("2001:db8::1")]
    judged = NetworkFilter(deny=iter(forms))
    assert [str(network) for network in judged.deny] == ["10.0.0.0/8", "192.0.2.1/32", "fc00::/7", "2001:db8::1/128"]
    assert not any(judged(endpoint(host)) for host in ("10.1.2.3", "192.0.2.1", "fd00::1", "2001:db8::1"))
    assert judged(endpoint("192.0.2.2"))


@pytest.mark.parametrize("length", [32, 40, 48, 56, 64, 96])
@given(st.ip_addresses(v=4), st.ip_addresses(v=6), st.binary(min_size=9, max_size=9))
def test_nat64_prefixes_of_every_length(length, ipv4, around, rest):
    """The reserved bits and those behind the IPv4 address change nothing, for a translator may ignore them."""
    prefix = str(ipaddress.IPv6Network(f"{around}/{length}", strict=False))
    octets = bytearray(translated(prefix, ipv4, rest).packed)
    if length < 96:
        octets[8] = rest[-1]
    judged = NetworkFilter(allow=[ipv4], nat64_prefixes=[prefix])
    written = ipaddress.IPv6Address(bytes(octets))
    # In ::/64 and its like, one of them is also an IPv4 address, to which its packets then go.
    assume(written.ipv4_mapped is None)
    assert not NetworkFilter(deny=[ipv4], nat64_prefixes=[prefix])(endpoint(written))
    # Unless the prefix is of a kind that carries another IPv4 address as well.
    assert judged(endpoint(written)) is oracle(written, [str(ipv4)], [], [prefix], public=False)


# --- why not ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judged", "host", "why"),
    [
        (PUBLIC, "8.8.8.8", None),
        (PUBLIC, "127.0.0.1", "in 127.0.0.0/8 (loopback, RFC 1122 section 3.2.1.3)"),
        (PUBLIC, "::ffff:10.0.0.1", "in 10.0.0.0/8 (private use, RFC 1918)"),
        (PUBLIC, "64:ff9b::a00:1", "carries 10.0.0.1, which is in 10.0.0.0/8 (private use, RFC 1918)"),
        (PUBLIC, "168.63.129.16", "in 168.63.129.16/32 (metadata service, Azure)"),
        (PUBLIC, "4000::1", "in no block that is allocated for the Internet"),
        (NetworkFilter(deny=["fc00::/7"]), "fd00::1", "in fc00::/7 (denied)"),
        (NetworkFilter(deny=["10.0.0.0/8"]), "2002:a00:1::", "carries 10.0.0.1, which is in 10.0.0.0/8 (denied)"),
        (NetworkFilter(deny=["127.0.0.0/8"]), "0.0.0.0", "leads to 127.0.0.1, which is in 127.0.0.0/8 (denied)"),
        (NetworkFilter(deny=["127.0.0.0/8"]), "::ffff:0:0", "leads to 127.0.0.1, which is in 127.0.0.0/8 (denied)"),
        (NetworkFilter(deny=["::1"]), "::", "leads to ::1, which is in ::1/128 (denied)"),
        (NetworkFilter(allow=["0.0.0.0"]), "0.0.0.0", None),
        (NetworkFilter(allow=["::/127"], deny=["127.0.0.0/8"]), "::", None),
        (NetworkFilter(allow=["10.0.0.0/8"]), "11.0.0.1", "in no network that is allowed"),
        (
            NetworkFilter(allow=["10.0.0.0/8"]),
            "2002:b00:1::",
            "carries 11.0.0.1, which is in no network that is allowed",
        ),
        (NetworkFilter(allow=["10.0.0.0/8"]), "2001:db8::1", "in no network that is allowed"),
        (
            NetworkFilter(deny=["2001:db8::/32"], nat64_prefixes=["fd00:64::/96"]),
            "2001:db8::1",
            "in 2001:db8::/32 (denied)",
        ),
    ],
)
def test_refusals_say_why(judged, host, why):
    assert judged.refusal(endpoint(host)) == why
    assert judged(endpoint(host)) is (why is None)


@given(addresses)
def test_a_refusal_is_one_line(address):
    why = PUBLIC.refusal(endpoint(address))
    assert why is None or why.isprintable()


# --- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["allow", "deny", "nat64_prefixes"])
@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("10.0.0.0/8", TypeError, "{} must be an iterable of networks such as ['10.0.0.0/8'], got '10.0.0.0/8'"),
        (b"10.0.0.0/8", TypeError, "{} must be an iterable of networks such as ['10.0.0.0/8'], got b'10.0.0.0/8'"),
        (10, TypeError, "{} must be an iterable of networks such as ['10.0.0.0/8'], got 10"),
        (ipaddress.ip_network("192.0.2.0/24"), TypeError, "{} must be an iterable of networks such as ['10.0.0.0/8']"),
        (ipaddress.ip_network("2001:db8::/112"), TypeError, "{} must be an iterable of networks such as ['10.0.0.0/"),
        ([10], TypeError, "{} takes networks such as '10.0.0.0/8', got 10"),
        ([b"\0\0\0\0"], TypeError, "{} takes networks such as '10.0.0.0/8', got b'"),
        (["10.0.0.1/8"], ValueError, "got '10.0.0.1/8': 10.0.0.1/8 has host bits set"),
        (["example.org"], ValueError, "{} takes networks such as '10.0.0.0/8' or 'fc00::/7', got 'example.org': "),
        (["fe80::1%eth0"], ValueError, "{} takes networks without a zone, got 'fe80::1%eth0': a filter does not look"),
    ],
)
def test_bad_networks_are_refused(name, value, error, text):
    with pytest.raises(error) as caught:
        NetworkFilter(**{name: value})
    assert text.format(name) in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("prefix", ["64:ff9b::/95", "2001:db8::/33", "2001:db8::/128", "10.0.0.0/32"])
def test_bad_nat64_prefixes_are_refused(prefix):
    with pytest.raises(ValueError) as caught:
        NetworkFilter.public_only(nat64_prefixes=[prefix])
    assert str(caught.value) == (
        f"a NAT64 prefix is an IPv6 network of 32, 40, 48, 56, 64 or 96 bits (RFC 6052 section 2.2), got '{prefix}'"
    )


@pytest.mark.parametrize("asked", ["192.0.2.1", ("192.0.2.1", 443), ipaddress.ip_address("192.0.2.1")])
def test_a_filter_is_asked_for_an_endpoint(asked):
    with pytest.raises(TypeError, match="a filter is asked for an Endpoint, got "):
        NetworkFilter()(asked)


def test_arguments_are_named():
    with pytest.raises(TypeError):
        NetworkFilter(["10.0.0.0/8"])  # type: ignore[call-arg]


# --- as a value -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("judged", "text"),
    [
        (NetworkFilter(), "NetworkFilter()"),
        (NetworkFilter(allow=[], deny=[]), "NetworkFilter(allow=[])"),
        (
            NetworkFilter(allow=["10.0.0.0/8"], deny=["10.0.0.1"], nat64_prefixes=["fd00:64::/96"]),
            "NetworkFilter(allow=['10.0.0.0/8'], deny=['10.0.0.1/32'], nat64_prefixes=['fd00:64::/96'])",
        ),
        (PUBLIC, "NetworkFilter.public_only()"),
        (NetworkFilter.public_only(deny=["8.8.8.8"]), "NetworkFilter.public_only(deny=['8.8.8.8/32'])"),
    ],
)
def test_repr_pickle_and_copy_give_the_same_filter(judged, text):
    assert repr(judged) == text
    twins = [eval(text, {"NetworkFilter": NetworkFilter}), copy.deepcopy(judged)]
    twins.append(pickle.loads(pickle.dumps(judged)))
    for twin in twins:
        assert twin == judged
        assert hash(twin) == hash(judged)
        for host in ("10.0.0.1", "10.0.0.2", "8.8.8.8", "fd00:64::a00:1"):
            assert twin(endpoint(host)) is judged(endpoint(host))


def test_filters_differ_by_what_they_say():
    filters = [
        NetworkFilter(),
        NetworkFilter(allow=[]),
        NetworkFilter(deny=["10.0.0.0/8"]),
        NetworkFilter(allow=["10.0.0.0/8"]),
        NetworkFilter(nat64_prefixes=["fd00:64::/96"]),
        PUBLIC,
    ]
    assert len(set(filters)) == len(filters)
    assert NetworkFilter.public_only() == PUBLIC
    with pytest.raises(AttributeError):
        PUBLIC.deny = ()  # type: ignore[misc]


# --- what it costs ----------------------------------------------------------------------------------------------------

ROUNDS = 500
COSTLY = (
    "8.8.8.8 127.0.0.1 ::ffff:127.0.0.1 2606:4700:4700::1111 2001:0:808:808:0:0:80ff:fffe 64:ff9b::808:808 "
    "2606:4700:1234:5678:0:5efe:808:808 2a01:4f8:5508:808:8:800:0:0 3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
)


@pytest.mark.alone
@pytest.mark.parametrize("question", ["__call__", "refusal"])
def test_an_address_takes_at_most_20_microseconds(question):
    # In a process of its own: what measures coverage here would measure itself.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    places = Path(trio_connect.__file__).parents[1], Path(__file__).parents[1]
    environment["PYTHONPATH"] = os.pathsep.join(map(str, places))
    command = [sys.executable, __file__, question]

    def cost() -> float:
        return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

    bound = 20.0
    assert least(cost, bound=bound, attempts=10) <= bound


def main() -> None:
    """Print the microseconds of the address that takes longest."""
    judged = NetworkFilter.public_only(deny=[f"10.{n}.0.0/16" for n in range(256)], nat64_prefixes=NAT64)
    ask = getattr(judged, sys.argv[1])
    costs = []
    for asked in map(endpoint, COSTLY.split()):
        clock = PacedClock()
        for _ in range(ROUNDS):
            ask(asked)
        clock.lap()
        costs.append(clock.seconds / ROUNDS * 1e6)
    print(max(costs))


if __name__ == "__main__":
    main()
