"""The NAT64 of a call, without a network: which addresses carry IPv4, which prefix a network has, what is synthesised.

Lines are those of docs/evidence/conformance.md.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_ipv4_embedded import EXAMPLES
from trio_connect._endpoint import Endpoint
from trio_connect._engine.nat64 import (
    WELL_KNOWN_PREFIX,
    Translation,
    carried_by,
    find_prefixes,
    synthesise,
)
from trio_connect._ipv4_embedded import PREFIX_LENGTHS

OWN = IPv6Network("2001:db8:64::/96")
OTHER = IPv6Network("2001:db8:65::/96")
SCOPED = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "169.254.169.254", "255.255.255.255"]
BESIDE = ["1.0.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "255.255.255.254", "10.0.0.1"]
KNOWN = ["192.0.0.170", "192.0.0.171"]
V4, V6 = Endpoint("192.0.2.33", 443), Endpoint("2001:db8::1", 443)


def translatable(ipv4: Any) -> bool:
    blocks = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "255.255.255.255/32")
    return not any(ipv4 in IPv4Network(block) for block in blocks)


@st.composite
def prefixes(draw: Any) -> IPv6Network:
    length = draw(st.sampled_from(PREFIX_LENGTHS))
    number = int(draw(st.ip_addresses(v=6)))
    if length == 96:  # "bits 64 to 71 ... MUST be set to zero" (RFC 6052 section 2.2) holds of such a prefix as well
        number &= ~(0xFF << 56)
    return IPv6Network((number, length), strict=False)


# --- one address ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prefix", "address"), EXAMPLES.items())
def test_line_70_an_ipv4_address_is_synthesised_behind_a_prefix_of_each_length(prefix, address):
    assert IPv6Address(synthesise("192.0.2.33", IPv6Network(prefix))) == IPv6Address(address)


@pytest.mark.parametrize(("prefix", "address"), EXAMPLES.items())
def test_line_69_an_ipv6_address_behind_a_known_prefix_is_an_ipv4_address(prefix, address):
    assert carried_by(address, [IPv6Network("2001:db8:ffff::/96"), IPv6Network(prefix)]) == "192.0.2.33"
    assert carried_by(address, [IPv6Network("2001:db8:ffff::/96")]) is None
    assert carried_by(address, []) is None


@given(prefixes(), st.ip_addresses(v=4))
def test_lines_69_and_70_there_and_back_for_every_prefix(prefix, ipv4):
    address = synthesise(str(ipv4), prefix)
    assert IPv6Address(address) in prefix
    assert carried_by(address, [prefix]) == (str(ipv4) if translatable(ipv4) else None)


def test_of_several_prefixes_the_longest_that_an_address_has_counts():
    around, inner = IPv6Network("2001:db8::/32"), IPv6Network("2001:db8:122:344::/64")
    for known in ([around, inner], [inner, around]):
        assert carried_by("2001:db8:122:344:c0:2:2100::", known) == "192.0.2.33"


def test_an_address_with_bits_where_none_may_be_carries_nothing():
    inner = IPv6Network("2001:db8:122:344::/64")
    assert carried_by("2001:db8:122:344:1c0:2:2100::", [inner]) is None
    assert carried_by("2001:db8:122:344:c0:2:2100:1", [inner]) == "192.0.2.33"  # a suffix is "reserved for future use"


@pytest.mark.parametrize("ipv4", SCOPED)
def test_line_72_the_four_blocks_are_not_recognised_either(ipv4):
    assert carried_by(synthesise(ipv4, OWN), [OWN]) is None


@pytest.mark.parametrize("ipv4", BESIDE)
def test_line_72_what_lies_beside_them_is(ipv4):
    assert carried_by(synthesise(ipv4, OWN), [OWN]) == ipv4


# --- the prefix of the network ----------------------------------------------------------------------------------------


@given(prefixes())
def test_line_68_a_prefix_of_any_length_is_found_in_what_a_dns64_answers(prefix):
    answers = [synthesise(ipv4, prefix) for ipv4 in KNOWN]
    found = find_prefixes(answers)
    if find_prefixes([answers[0]]) == find_prefixes([answers[1]]):  # it has no well-known address in it by chance
        assert found == (prefix,)


def test_line_68_one_answer_is_enough_and_each_prefix_is_found_once():
    assert find_prefixes([synthesise(KNOWN[1], OWN)]) == (OWN,)
    answers = [synthesise(ipv4, prefix) for ipv4 in KNOWN for prefix in (OTHER, WELL_KNOWN_PREFIX)]
    assert find_prefixes(answers) == (OTHER, WELL_KNOWN_PREFIX)


def test_line_68_what_looks_like_a_well_known_address_by_chance_does_not_mislead():
    # The suffix of each has 192.0.0.170 as well, so that a prefix of 96 bits could be read there; it would be another
    # one in each answer.
    prefix = IPv6Network("2001:db8::/32")
    answers = [str(IPv6Address(int(IPv6Address(synthesise(ipv4, prefix))) | 0xC00000AA)) for ipv4 in KNOWN]
    assert find_prefixes(answers) == (prefix,)


@pytest.mark.parametrize("answers", [[], ["2001:db8::1"], [synthesise("192.0.0.172", OWN)]])
def test_line_68_an_answer_without_the_well_known_addresses_has_no_prefix(answers):
    assert find_prefixes(answers) == ()


def test_bits_where_none_may_be_are_no_prefix():
    address = int(IPv6Address(synthesise(KNOWN[0], IPv6Network("2001:db8:122:344::/64")))) | 1 << 56
    assert find_prefixes([str(IPv6Address(address))]) == ()


def test_bits_of_the_prefix_itself_may_be_set_where_others_may_not():
    prefix = IPv6Network("2001:db8:0:0:100::/96")
    address = synthesise(KNOWN[0], prefix)
    assert find_prefixes([address]) == (prefix,)
    assert carried_by(synthesise("192.0.2.33", prefix), [prefix]) == "192.0.2.33"


# --- the endpoints of a call ------------------------------------------------------------------------------------------


def wires(translation: Translation, *endpoints: Endpoint, has_route: bool = False) -> list[Endpoint | None]:
    return [translation.wire(translation.plain(endpoint), has_route=has_route) for endpoint in endpoints]


@pytest.mark.parametrize("prefix", EXAMPLES)
def test_line_70_an_ipv4_endpoint_without_a_route_becomes_one_behind_the_prefix(prefix):
    translation = Translation([IPv6Network(prefix), OTHER])
    made = Endpoint(EXAMPLES[prefix], 443)
    assert wires(translation, V4) == [made]
    assert translation.carried == {made: V4}


def test_an_ipv4_endpoint_with_a_route_stays():
    translation = Translation([OWN])
    assert wires(translation, V4, V6, has_route=True) == [V4, V6]
    assert translation.carried == {}


def test_line_69_what_a_dns64_has_made_is_the_same_endpoint_and_keeps_its_address():
    translation = Translation([WELL_KNOWN_PREFIX, OWN])
    made = Endpoint(synthesise("192.0.2.33", OWN), 443)
    assert translation.plain(made) == translation.plain(V4) == V4
    assert wires(translation, made, V4) == [made, made]
    assert translation.carried == {made: V4}


def test_line_69_where_there_is_a_route_to_ipv4_it_takes_the_place_of_what_a_dns64_has_made():
    translation = Translation([OWN])
    assert wires(translation, Endpoint(synthesise("192.0.2.33", OWN), 443), has_route=True) == [V4]


def test_an_endpoint_keeps_its_port_and_what_it_became():
    translation = Translation([OWN])
    (first,) = wires(translation, V4)
    made = Endpoint(synthesise("192.0.2.33", IPv6Network("2001:db8:64::/96")), 443)
    assert wires(translation, made, V4, Endpoint(V4.host, 8443)) == [first, first, Endpoint(made.host, 8443)]


def test_other_ipv6_endpoints_are_as_they_came():
    scoped = Endpoint("fe80::1", 443, "eth0", 5)
    translation = Translation([OWN])
    assert wires(translation, V6, scoped) == [V6, scoped]


def test_line_68_without_a_prefix_an_endpoint_is_held_back_until_there_is_one():
    translation = Translation()
    made = Endpoint(synthesise("192.0.2.33", OWN), 443)
    assert wires(translation, V4, V6, made) == [None, V6, made]
    translation.learn([OWN])
    assert wires(translation, made, V4) == [made, made]


def test_line_68_or_until_it_is_known_that_there_is_none():
    translation = Translation()
    assert wires(translation, V4) == [None]
    translation.learn([])
    assert wires(translation, V4) == [V4]
    assert translation.carried == {}


@pytest.mark.parametrize("ipv4", SCOPED)
@pytest.mark.parametrize("known", [[], [OWN]])
def test_line_72_the_four_blocks_are_never_synthesised_nor_held_back(ipv4, known):
    endpoint = Endpoint(ipv4, 443)
    assert wires(Translation(known), endpoint) == [endpoint]


@pytest.mark.parametrize("ipv4", BESIDE)
def test_line_72_what_lies_beside_them_is_synthesised(ipv4):
    assert wires(Translation([OWN]), Endpoint(ipv4, 443)) == [Endpoint(synthesise(ipv4, OWN), 443)]


@given(st.lists(st.ip_addresses(v=4).filter(translatable), max_size=6), prefixes(), st.randoms(use_true_random=False))
def test_line_69_an_address_is_one_endpoint_in_whichever_form_it_comes(addresses, prefix, random):
    translation = Translation([prefix])
    plains = [Endpoint(str(address), 443) for address in addresses]
    made = [Endpoint(synthesise(plain.host, prefix), 443) for plain in plains]
    both = [*plains, *made]
    random.shuffle(both)
    assert set(wires(translation, *both)) == set(made)
    assert set(translation.carried.values()) == set(plains)
