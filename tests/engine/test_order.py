from __future__ import annotations

import ipaddress
from ipaddress import IPv6Network, ip_address
from socket import AF_INET, AF_INET6

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import examples
from trio_connect._endpoint import Endpoint, Source
from trio_connect._engine.order import (
    Knowledge,
    has_good_source,
    interleave,
    leading,
    order,
    served_families,
    sort,
)
from trio_connect._engine.policy_table import DEFAULT_POLICY_TABLE, Policy, PolicyTable


def ep(text: str) -> Endpoint:
    return Endpoint(text, 443)


def eps(*texts: str) -> list[Endpoint]:
    return [ep(text) for text in texts]


def hosts(endpoints) -> list[str]:
    return [f"{e.host}%{e.scope_id}" if e.scope_id else e.host for e in endpoints]


def known(pairs, **kwargs) -> Knowledge:
    sources = {}
    for destination, source in pairs:
        sources[ep(destination)] = source
    return Knowledge(sources=sources, **kwargs)


def both_ways(first, second, knowledge=None):
    """Assert that the first goes before the second however they came."""
    knowledge = knowledge or Knowledge()
    for given_order in ((first, second), (second, first)):
        assert hosts(sort(eps(*given_order), knowledge)) == [first, second]


def tied(one, other, knowledge=None):
    knowledge = knowledge or Knowledge()
    for given_order in ((one, other), (other, one)):
        assert hosts(sort(eps(*given_order), knowledge)) == list(given_order)


# ---------------------------------------------------------------------- what earlier connects say


class Remembered:
    """What a memory says: round-trip times, levels, and who is to be tried first for once."""

    def __init__(self, rtts=(), levels=(), first=()):
        self.rtts, self.levels, self.first = dict(rtts), dict(levels), set(first)

    def level(self, endpoint):
        return self.levels.get(endpoint.host, 0)

    def preference(self, endpoint):
        rtt = self.rtts.get(endpoint.host)
        return (2, 0.0) if rtt is None else (0, rtt)

    def to_try_first(self, tied):
        return next((endpoint for endpoint in tied if endpoint.host in self.first), None)


def remembered(**facts) -> Knowledge:
    return Knowledge(history=Remembered(**facts))  # type: ignore[arg-type]


def test_line_32_the_round_trip_stands_between_the_rules_8_and_9():
    near, one, other = everything = eps("2001:db8:1::8", "2001:db8:2::1", "2001:db8:2::2")
    sources = dict.fromkeys(everything, "2001:db8:1::9")
    assert sort([one, near, other], Knowledge(sources=sources)) == (near, one, other)
    knowledge = Knowledge(sources=sources, history=Remembered({other.host: 0.01}))  # type: ignore[arg-type]
    assert sort([one, near, other], knowledge) == (other, near, one)


def test_line_37_one_is_tried_first_for_once_among_those_that_the_rules_do_not_tell_apart():
    knowledge = remembered(rtts={"192.0.2.1": 0.01}, first=["192.0.2.3", "2001:db8::2"])
    everything = eps("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2")
    assert hosts(sort(everything, knowledge)) == [
        "2001:db8::2", "2001:db8::1", "192.0.2.3", "192.0.2.1", "192.0.2.2",
    ]  # fmt: skip


def test_levels_come_after_each_other_each_with_its_families_in_turn():
    knowledge = remembered(levels={"2001:db8::1": 2, "2001:db8::2": 1, "192.0.2.1": 1, "192.0.2.2": 1})
    everything = eps("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2", "192.0.2.3")
    assert hosts(order(iter(everything), knowledge)) == [
        "2001:db8::3", "192.0.2.3", "2001:db8::2", "192.0.2.1", "192.0.2.2", "2001:db8::1",
    ]  # fmt: skip
    assert hosts(order(everything, knowledge, first_family=AF_INET))[:2] == ["192.0.2.3", "2001:db8::3"]
    assert hosts(order(eps("2001:db8::3", "2001:db8::4", "192.0.2.3"), knowledge, preferred_family_count=2)) == [
        "2001:db8::3", "2001:db8::4", "192.0.2.3",
    ]  # fmt: skip


# ---------------------------------------------------------------------- line 31: RFC 6724

SECTION_10_2 = [
    ("2001:db8:1::1", "2001:db8:1::2", "198.51.100.121", "169.254.13.78", "matching scope"),
    ("198.51.100.121", "198.51.100.117", "2001:db8:1::1", "fe80::1", "matching scope"),
    ("2001:db8:1::1", "2001:db8:1::2", "10.1.2.3", "10.1.2.4", "higher precedence"),
    ("fe80::1", "fe80::2", "2001:db8:1::1", "2001:db8:1::2", "smaller scope"),
    ("2001:db8:1::1", "2001:db8:1::2", "2001:db8:3ffe::1", "2001:db8:3f44::2", "longest matching prefix"),
    ("2002:c633:6401::1", "2002:c633:6401::2", "2001:db8:1::1", "2002:c633:6401::2", "matching label"),
    ("2001:db8:1::1", "2001:db8:1::2", "2002:c633:6401::1", "2002:c633:6401::2", "higher precedence"),
]


@pytest.mark.parametrize("row", SECTION_10_2, ids=[f"{i}: {row[4]}" for i, row in enumerate(SECTION_10_2, 1)])
def test_line_31_rfc6724_section_10_2_examples(row):
    first, first_source, second, second_source, _ = row
    both_ways(first, second, known([(first, first_source), (second, second_source)]))


def table_with(**rows: tuple[int, int]) -> PolicyTable:
    changed = {IPv6Network(prefix): Policy(IPv6Network(prefix), *values) for prefix, values in rows.items()}
    kept = tuple(row for row in DEFAULT_POLICY_TABLE.rows if row.prefix not in changed)
    return PolicyTable((*kept, *changed.values()))


def test_line_31_rfc6724_section_10_3_prefers_ipv4_by_table():
    table = table_with(**{"::ffff:0:0/96": (100, 4)})
    both_ways(
        "10.1.2.3", "2001:db8:1::1", known([("2001:db8:1::1", "2001:db8::2"), ("10.1.2.3", "10.1.2.4")], table=table)
    )
    # Rule 2 comes before the table.
    unscoped = known([("2001:db8:1::1", "2001:db8::2"), ("198.51.100.121", "169.254.13.78")], table=table)
    both_ways("2001:db8:1::1", "198.51.100.121", unscoped)


def test_line_31_rfc6724_section_10_6_prefers_a_site_by_label():
    # A site that prefers its ULA destinations gives them precedence and a label of their own.
    table = table_with(**{"fd11:1111:1111::/48": (45, 14)})
    pairs = [("fd11:1111:1111:1::1", "fd11:1111:1111:1::2"), ("2001:db8::1", "2001:db8::2")]
    both_ways("fd11:1111:1111:1::1", "2001:db8::1", known(pairs, table=table))
    both_ways("2001:db8::1", "fd11:1111:1111:1::1", known(pairs))


def test_line_31_rfc6724_rule_1_avoid_unusable():
    both_ways("192.0.2.1", "2001:db8::1", known([("2001:db8::1", None), ("192.0.2.1", "192.0.2.9")]))
    # Even when all else speaks for the unusable one.
    both_ways("192.0.2.1", "::1", known([("::1", None), ("192.0.2.1", "169.254.0.1")]))
    # Two unusable ones: the rules without a source decide.
    both_ways("2001:db8::1", "192.0.2.1", known([("2001:db8::1", None), ("192.0.2.1", None)]))


def test_line_31_rfc6724_rule_2_prefer_matching_scope():
    both_ways("2001:db8::1", "2001:db8::2", known([("2001:db8::1", "2001:db8::9"), ("2001:db8::2", "fe80::9")]))
    both_ways("fe80::1", "fe80::2", known([("fe80::1", "fe80::9"), ("fe80::2", "2001:db8::9")]))
    both_ways("127.0.0.1", "127.0.0.2", known([("127.0.0.1", "127.0.0.1"), ("127.0.0.2", "192.0.2.9")]))


def test_line_31_rfc6724_rule_5_prefer_matching_label():
    # ULA to ULA beats global to ULA-sourced, although precedence says otherwise.
    both_ways("fd00::1", "2001:db8::1", known([("fd00::1", "fd00::9"), ("2001:db8::1", "fd00::9")]))
    # The case that IPv6 with a Teredo source is made for: native IPv4 goes first.
    both_ways("192.0.2.1", "2001:db8::1", known([("192.0.2.1", "192.0.2.9"), ("2001:db8::1", "2001::9")]))


def test_line_31_rfc6724_rule_6_prefer_higher_precedence():
    for better, worse in zip(
        ["::1", "2001:db8::1", "192.0.2.1", "2002::1", "2001::1", "fd00::1"],
        ["2001:db8::1", "192.0.2.1", "2002::1", "2001::1", "fd00::1", "fec0::1"],
        strict=True,
    ):
        both_ways(better, worse)


def test_line_31_rfc6724_rule_8_prefer_smaller_scope():
    both_ways("fe80::1", "2001:db8::1")
    both_ways("169.254.1.1", "192.0.2.1")
    both_ways("ff02::1", "ff05::1")


def test_line_31_rfc6724_rule_9_longest_matching_prefix():
    pairs = [("2001:db8:1::1", "2001:db8:1::9"), ("2001:db8:2::1", "2001:db8:1::9")]
    both_ways("2001:db8:1::1", "2001:db8:2::1", known(pairs))
    # Not beyond the interface ID.
    tied(
        "2001:db8::1:1",
        "2001:db8::2:1",
        known([("2001:db8::1:1", "2001:db8::1:9"), ("2001:db8::2:1", "2001:db8::1:9")]),
    )


def test_line_31_rfc6724_rule_9_is_off_for_ipv4():
    tied("192.0.2.200", "192.0.2.2", known([("192.0.2.200", "192.0.2.1"), ("192.0.2.2", "192.0.2.1")]))


def test_line_31_rfc6724_rule_9_leaves_ties_between_families_alone():
    table = PolicyTable((Policy(IPv6Network("::/0"), 40, 1),))
    pairs = [
        ("2001:db8:f::1", "2001:db8:1::9"),
        ("192.0.2.1", "192.0.2.9"),
        ("2001:db8:1::1", "2001:db8:1::9"),
        ("192.0.2.2", "192.0.2.9"),
    ]
    result = sort(eps(*[destination for destination, _ in pairs]), known(pairs, table=table))
    assert hosts(result) == ["2001:db8:1::1", "192.0.2.1", "2001:db8:f::1", "192.0.2.2"]


def test_line_31_rfc6724_rule_10_leaves_the_rest_alone():
    tied("2001:db8::1", "2001:db8::2")
    tied("192.0.2.1", "192.0.2.2")
    tied("10.0.0.1", "192.0.2.1")


def test_an_unknown_source_has_nothing_against_it():
    # Only one of the two is known, and all is well with it: only the rules without a source decide.
    tied("2001:db8::1", "2001:db8::2", known([("2001:db8::1", "2001:db8::9")]))
    both_ways("2001:db8::2", "2001:db8::1", known([("2001:db8::1", "fe80::9")]))


# ---------------------------------------------------------------------- lines 38 and 39: families in turn

V6 = [f"2001:db8::{i}" for i in range(1, 6)]
V4 = [f"192.0.2.{i}" for i in range(1, 6)]


@pytest.mark.parametrize(
    ("count", "given_order", "expected"),
    [
        (1, V6[:3] + V4[:3], [V6[0], V4[0], V6[1], V4[1], V6[2], V4[2]]),
        (2, V6[:3] + V4[:3], [V6[0], V6[1], V4[0], V6[2], V4[1], V4[2]]),
        (1, V6[:4] + V4[:1], [V6[0], V4[0], V6[1], V6[2], V6[3]]),
        (1, V6[:1] + V4[:3], [V6[0], V4[0], V4[1], V4[2]]),
        (3, V6[:1] + V4[:3], [V6[0], V4[0], V4[1], V4[2]]),
        (9, V6[:3] + V4[:2], [*V6[:3], *V4[:2]]),
        (1, V4[:2] + V6[:2], [V4[0], V6[0], V4[1], V6[1]]),
        (1, V6[:3], V6[:3]),
        (1, [], []),
    ],
)
def test_lines_38_and_39_families_take_turns(count, given_order, expected):
    assert hosts(interleave(eps(*given_order), count)) == expected
    if count == 1:
        assert hosts(interleave(eps(*given_order))) == expected


def test_line_38_the_preferred_family_is_that_of_the_first_sorted_endpoint():
    assert hosts(order(eps(*V4[:2], *V6[:2]))) == [V6[0], V4[0], V6[1], V4[1]]
    no_v6 = known([(V6[0], None), (V6[1], None), (V4[0], "192.0.2.9"), (V4[1], "192.0.2.9")])
    assert hosts(order(eps(*V6[:2], *V4[:2]), no_v6)) == [V4[0], V6[0], V4[1], V6[1]]


def test_line_10_a_late_family_goes_ahead_of_what_has_not_started():
    a, aaaa = eps(*V4[:3]), eps(*V6[:2])
    assert order(a)[0] == a[0]
    merged = order([*a, *aaaa])
    assert hosts(merged) == [V6[0], V4[0], V6[1], V4[1], V4[2]]
    assert next(endpoint for endpoint in merged if endpoint != a[0]) == aaaa[0]


# ---------------------------------------------------------------------- line 41


def test_line_41_scope_flow_and_port_survive():
    given_order = [
        Endpoint("192.0.2.1", 80),
        Endpoint("fe80::1", 443, "eth1", 5),
        Endpoint("fe80::1", 443, "eth0", 7),
        Endpoint("fe80::1", 443, 3),
        Endpoint("fe80::1", 8443, 3),
    ]
    result = order(given_order)
    assert result == (given_order[1], given_order[0], *given_order[2:])
    assert [(e.port, e.scope_id, e.flowinfo) for e in result] == [
        (443, "eth1", 5),
        (80, 0, 0),
        (443, "eth0", 7),
        (443, 3, 0),
        (8443, 3, 0),
    ]


# ---------------------------------------------------------------------- line 81: sources of one family

BOTH = Source(ipv4="192.0.2.9", ipv6="2001:db8::9")
ONLY_4 = Source(ipv4="192.0.2.9")
ONLY_6 = Source(ipv6="2001:db8::9")


@pytest.mark.parametrize(
    ("sources", "families"),
    [
        ([], (AF_INET6, AF_INET)),
        ([Source()], (AF_INET6, AF_INET)),
        ([Source(interface="eth0")], (AF_INET6, AF_INET)),
        ([BOTH], (AF_INET6, AF_INET)),
        ([ONLY_4], (AF_INET,)),
        ([ONLY_6], (AF_INET6,)),
        ([ONLY_4, ONLY_6], (AF_INET6, AF_INET)),
    ],
)
def test_line_21_and_81_families_of_the_sources(sources, families):
    assert served_families(iter(sources)) == families


# ---------------------------------------------------------------------- line 40: properties

V6_DESTINATIONS = [
    "::1", "fe80::1", "fe80::2", "fec0::1", "fd00::1", "2001:db8:1::1", "2001:db8:1::2", "2001:db8:3ffe::1",
    "2002:c000:201::1", "2001::1", "3ffe::1", "ff02::1",
]  # fmt: skip
V4_DESTINATIONS = ["127.0.0.1", "169.254.1.1", "10.0.0.1", "10.0.0.200", "192.0.2.1", "198.51.100.1"]
V6_SOURCES = [
    "::1",
    "fe80::9",
    "fec0::9",
    "fd00::9",
    "2001:db8:1::9",
    "2001:db8:3f44::9",
    "2002:c000:201::9",
    "2001::9",
]
V4_SOURCES = ["127.0.0.1", "169.254.1.9", "10.0.0.9", "192.0.2.9"]


def a_source(choices):
    return st.none() | st.sampled_from(choices)


@st.composite
def situations(draw):
    destinations = draw(
        st.lists(st.sampled_from(V6_DESTINATIONS + V4_DESTINATIONS), min_size=0, max_size=8, unique=True)
    )
    sources = {}
    for destination in eps(*destinations):
        sources[destination] = draw(a_source(V6_SOURCES if destination.family == AF_INET6 else V4_SOURCES))
    return eps(*destinations), Knowledge(sources=sources)


def oracle_scope(address) -> int:
    if isinstance(address, ipaddress.IPv4Address):
        return 2 if address.is_loopback or address.is_link_local else 14
    if address.is_multicast:
        return int(address.exploded[3], 16)
    if address.is_loopback or address.is_link_local:
        return 2
    return 5 if address.is_site_local else 14


def oracle_policy(address) -> tuple[int, int]:
    if isinstance(address, ipaddress.IPv4Address):
        address = ipaddress.IPv6Address(f"::ffff:{address}")
    row = max((row for row in DEFAULT_POLICY_TABLE.rows if address in row.prefix), key=lambda row: row.prefix.prefixlen)
    return row.precedence, row.label


def oracle_prefix(source, destination) -> int:
    limit = 32 if destination.version == 4 else 64
    bits = [format(int(a), "032b" if a.version == 4 else "0128b") for a in (source, destination)]
    return next((i for i in range(limit) if bits[0][i] != bits[1][i]), limit)


def oracle_prefers(da, db, knowledge):
    """Say whether section 6 prefers DA over DB, rule by rule as it is written."""
    source_da, source_db = knowledge.sources[da], knowledge.sources[db]
    a, b = ip_address(da.host), ip_address(db.host)
    if (source_da is None) != (source_db is None):
        return source_da is not None
    if source_da is not None and source_db is not None:
        sa, sb = ip_address(source_da), ip_address(source_db)
        match_a, match_b = oracle_scope(a) == oracle_scope(sa), oracle_scope(b) == oracle_scope(sb)
        if match_a != match_b:
            return match_a
        match_a, match_b = (oracle_policy(x)[1] == oracle_policy(sx)[1] for x, sx in ((a, sa), (b, sb)))
        if match_a != match_b:
            return match_a
    if oracle_policy(a)[0] != oracle_policy(b)[0]:
        return oracle_policy(a)[0] > oracle_policy(b)[0]
    if oracle_scope(a) != oracle_scope(b):
        return oracle_scope(a) < oracle_scope(b)
    if a.version == b.version == 6 and source_da and source_db:
        return oracle_prefix(ip_address(source_da), a) > oracle_prefix(ip_address(source_db), b)
    return False


def oracle_sort(endpoints, knowledge):
    """Bubble sort: slow, and certain to respect every pair."""
    result = list(endpoints)
    for _ in result:
        for i in range(len(result) - 1):
            if oracle_prefers(result[i + 1], result[i], knowledge):
                result[i], result[i + 1] = result[i + 1], result[i]
    return tuple(result)


@given(situations())
@settings(max_examples=examples(100, 1000))
def test_line_31_rfc6724_agrees_with_a_slow_pairwise_reading(situation):
    endpoints, knowledge = situation
    assert sort(endpoints, knowledge) == oracle_sort(endpoints, knowledge)


@given(situations(), st.randoms(use_true_random=False))
def test_line_40_the_order_of_arrival_decides_ties_only(situation, random):
    endpoints, knowledge = situation
    first = sort(endpoints, knowledge)
    shuffled = list(endpoints)
    random.shuffle(shuffled)
    second = sort(shuffled, knowledge)
    assert sorted(map(str, first)) == sorted(map(str, second))
    for one, other in zip(first, second, strict=True):
        assert not oracle_prefers(one, other, knowledge)
        assert not oracle_prefers(other, one, knowledge)


@given(situations(), st.integers(1, 4))
def test_line_40_order_is_a_stable_deterministic_permutation(situation, count):
    endpoints, knowledge = situation
    once = order(endpoints + endpoints, knowledge, preferred_family_count=count)
    assert once == order(list(endpoints), knowledge, preferred_family_count=count)
    assert set(once) == set(endpoints)
    assert len(once) == len(endpoints)
    # Sorting what is sorted changes nothing, and interleaving keeps the order inside each family.
    assert sort(sort(endpoints, knowledge), knowledge) == sort(endpoints, knowledge)
    for family in (AF_INET, AF_INET6):
        assert [e for e in once if e.family == family] == [e for e in sort(endpoints, knowledge) if e.family == family]


@given(st.lists(st.sampled_from([*V6, *V4]), unique=True), st.integers(1, 6))
def test_lines_38_and_39_shape_of_every_interleaving(texts, count):
    result = interleave(eps(*texts), count)
    families = [endpoint.family for endpoint in result]
    lead = sum(1 for endpoint in result if endpoint.family == families[0]) if result else 0
    others = len(result) - lead
    leading_run = next((i for i, family in enumerate(families) if family != families[0]), len(families))
    assert leading_run == (min(count, lead) if others else lead)
    # After the run no family comes twice while the other has something left.
    for i in range(leading_run, len(families) - 1):
        if families[i] == families[i + 1]:
            assert len(set(families[i:])) == 1


@given(st.lists(st.sampled_from([*V6, *V4]), unique=True), st.integers(1, 6), st.sampled_from([AF_INET, AF_INET6]))
def test_a_first_family_only_decides_who_begins(texts, count, family):
    result = interleave(eps(*texts), count, first_family=family)
    one = [endpoint for endpoint in eps(*texts) if endpoint.family == family]
    rest = [endpoint for endpoint in eps(*texts) if endpoint.family != family]
    # As if the endpoints of that family had been given first.
    assert result == interleave([*one, *rest], count)
    assert (
        order(eps(*texts), preferred_family_count=count, first_family=family)[: len(one[:1])] == result[: len(one[:1])]
    )


def test_mapped_addresses_are_ipv4():
    mapped = Endpoint("::ffff:192.0.2.9", 443)
    (v6,) = eps(V6[0])
    (v4,) = eps(V4[0])
    assert interleave([v4, mapped, v6]) == (v4, v6, mapped)
    assert interleave([mapped, v4, v6]) == (mapped, v6, v4)


# ---------------------------------------------------------------------- one route where one is enough


ADDRESSES = st.sampled_from(
    ["2001:db8::1", "::1", "fe80::1", "fec0::1", "2002::1", "fc00::1", "::ffff:192.0.2.1", "ff02::1",
     "192.0.2.1", "127.0.0.1", "169.254.1.1", "10.0.0.1"]
)  # fmt: skip


@given(ADDRESSES, ADDRESSES, st.none() | ADDRESSES, st.none() | ADDRESSES)
def test_what_leads_with_a_good_source_goes_first_whatever_the_other_source_is(one, other, source, other_source):
    endpoints = eps(one, other)
    leader = leading(endpoints, DEFAULT_POLICY_TABLE)
    if leader is None or not has_good_source(leader, source, DEFAULT_POLICY_TABLE):
        return
    follower = endpoints[leader is endpoints[0]]
    known = Knowledge(sources={leader: source, follower: other_source})
    assert order(endpoints, known) == order(endpoints[::-1], known) == (leader, follower)


def test_which_of_two_leads():
    six, four = eps("2001:db8::1", "192.0.2.1")
    assert leading([six, four], DEFAULT_POLICY_TABLE) == leading([four, six], DEFAULT_POLICY_TABLE) == six
    assert leading(eps("2001:db8::1", "2001:db8::2"), DEFAULT_POLICY_TABLE) is None
    assert leading(eps("192.0.2.1", "::ffff:192.0.2.2"), DEFAULT_POLICY_TABLE) is None
    assert leading([six], DEFAULT_POLICY_TABLE) is None
    even = PolicyTable((Policy(IPv6Network("::/0"), 40, 1),))
    assert leading([six, four], even) is None
    assert has_good_source(six, "2001:db8::9", DEFAULT_POLICY_TABLE)
    assert not has_good_source(six, None, DEFAULT_POLICY_TABLE)  # rule 1
    assert not has_good_source(six, "fe80::9", DEFAULT_POLICY_TABLE)  # rule 2
    assert not has_good_source(six, "2002::9", DEFAULT_POLICY_TABLE)  # rule 5
