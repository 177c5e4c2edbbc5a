from __future__ import annotations

from random import Random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._answer import ServiceRecord
from trio_connect._engine.services import (
    MOST_ALIASES,
    MOST_RECORDS,
    FollowUp,
    Place,
    Services,
    best,
    grouped,
    usable,
    with_protocols,
)

H2, H1, H3 = ("h2",), ("http/1.1",), ("h3",)


def record(priority=1, target="alt.test", **kwargs) -> ServiceRecord:
    return ServiceRecord(priority=priority, target=target, **kwargs)


def services(host="api.test", seed=0) -> Services:
    return Services(host, Random(seed))


def places(known: Services) -> list[Place]:
    return list(known.places)


def test_of_a_large_answer_what_can_be_used_is_kept():
    hints = [f"192.0.2.{n}" for n in range(200)]
    last = record(40, alpn=["a", "b"], ipv4hint=hints[:3], ipv6hint=["2001:db8::1"])
    large = record(2, alpn=[f"p{n}" for n in range(63)], ipv4hint=hints, mandatory=["port", *"abcdefg"])
    kept = best([record(50), last, large, *(record(n) for n in range(5, 18)), record(0, "b.test")])
    assert [each.priority for each in kept] == [0, 2, *range(5, 18), 40]
    assert (len(kept[1].alpn), len(kept[1].ipv4hint)) == (63, 64)
    assert (kept[-1].alpn, kept[-1].ipv4hint, kept[-1].ipv6hint) == (("a",), (), ("2001:db8::1",))
    assert len(kept[1].mandatory) == 6
    assert usable(kept[:2]) == (record(0, "b.test"),)
    assert best([last]) == (last,)


def test_a_record_that_demands_more_than_is_understood_is_not_used():
    good = [record(), record(mandatory=["alpn", "no-default-alpn", "port", "ipv4hint", "ipv6hint"])]
    bad = [record(mandatory=["port", "key667"]), record(mandatory=["ech"]), record(port=0)]
    assert usable([*bad, *good]) == tuple(good)


def test_line_61_records_without_a_protocol_of_ours_are_left_out():
    records = [record(alpn=[*H3, *H2, *H1]), record(alpn=H3), record(alpn=[]), record(0, "alias.test")]
    assert with_protocols(records, ["http/1.1", "h2"]) == (record(alpn=["http/1.1", "h2"]), record(0, "alias.test"))


def test_line_28_groups_go_by_ascending_priority():
    records = [record(3, "c.test"), record(1, "a.test"), record(2, "b.test")]
    assert [each.target for each in grouped(records, Random(0))] == ["a.test", "b.test", "c.test"]


def test_line_26_distinct_protocols_form_distinct_groups():
    records = [record(1, "a.test", alpn=H2), record(2, "b.test", alpn=H1), record(3, "c.test", alpn=H2)]
    assert [each.target for each in grouped(records, Random(0))] == ["a.test", "c.test", "b.test"]


def test_line_27_other_properties_form_none():
    records = [
        record(1, "a.test", alpn=[*H2, *H1], port=8443),
        record(2, "b.test", alpn=[*H1, *H2], ipv4hint=["192.0.2.1"]),
        record(3, "c.test", alpn=[*H2, *H1], mandatory=["alpn"]),
    ]
    assert [each.target for each in grouped(records, Random(0))] == ["a.test", "b.test", "c.test"]


def test_line_29_records_of_one_priority_are_shuffled_by_the_given_generator():
    records = [record(1, f"{name}.test") for name in "abc"]
    orders = [tuple(each.target for each in grouped(records, Random(seed))) for seed in range(50)]
    assert len(set(orders)) == 6
    assert orders == [tuple(each.target for each in grouped(records, Random(seed))) for seed in range(50)]


def test_line_30_the_authority_itself_comes_last():
    known = services()
    assert places(known) == [Place("")]
    follow = known.answered([record(2, "b.test", port=8443), record(1, "a.test")])
    assert follow.names == ("a.test", "b.test")
    assert follow.alias is None
    assert places(known) == [Place("a.test"), Place("b.test", 8443), Place("")]


def test_the_owner_and_the_authority_are_the_same_host():
    known = services("Api.Test")
    follow = known.answered([record(1, "."), record(2, "API.test.", port=8443), record(3, "B.test.")])
    assert follow.names == ("", "b.test.")
    assert places(known) == [Place(""), Place("", 8443), Place("b.test.")]


def test_line_14_hints_are_about_their_targets_which_are_asked_for_all_the_same():
    one, two = record(1, ".", ipv4hint=["192.0.2.1"]), record(2, "alt.test", ipv6hint=["2001:db8::1"])
    follow = services().answered([one, two])
    assert follow == FollowUp(names=("", "alt.test"), hints=(("", one), ("alt.test", two)))


def test_line_18_an_alias_is_followed():
    known = services()
    follow = known.answered([record(0, "cdn.test"), record(1, "ignored.test")])
    assert follow == FollowUp(alias="cdn.test", names=("cdn.test",))
    assert places(known) == [Place("cdn.test"), Place("")]
    known.answered([record(1, "."), record(2, "alt.test", port=1)])
    assert places(known) == [Place("cdn.test"), Place("alt.test", 1), Place("")]


def test_of_several_aliases_one_is_taken():
    taken = {services(seed=seed).answered([record(0, "a.test"), record(0, "b.test")]).alias for seed in range(20)}
    assert taken == {"a.test", "b.test"}


def test_an_alias_to_nothing_says_nothing():
    known = services()
    assert known.answered([record(0, ".")]) == FollowUp()
    assert places(known) == [Place("")]


def test_eight_aliases_are_followed_and_no_more():
    assert MOST_ALIASES == 8  # RFC 9460 section 2.4.2
    known = services()
    for number in range(MOST_ALIASES):
        assert known.answered([record(0, f"a{number}.test")]).alias == f"a{number}.test"
    assert places(known) == [Place(f"a{MOST_ALIASES - 1}.test"), Place("")]
    assert known.answered([record(0, "more.test")]) == FollowUp()
    assert places(known) == [Place("")]


@pytest.mark.parametrize("back", ["api.test.", "A.test"])
def test_an_alias_that_leads_back_ends_the_chain(back):
    known = services()
    known.answered([record(0, "a.test")])
    assert known.answered([record(0, back)]) == FollowUp()
    assert places(known) == [Place("")]


def test_the_owner_of_a_zone_does_not_choose_how_much_is_asked():
    known = services()
    follow = known.answered([record(i, f"t{i}.test") for i in range(1, 100)])
    assert follow.names == tuple(f"t{i}.test" for i in range(1, MOST_RECORDS + 1))
    assert len(known.places) == 16 + 1


some_records = st.lists(
    st.builds(
        ServiceRecord,
        priority=st.integers(1, 3),
        target=st.sampled_from([".", "a.test", "b.test"]),
        port=st.sampled_from([None, 1, 2]),
        alpn=st.sampled_from([H2, H1, [*H2, *H1]]),
        mandatory=st.sampled_from([(), ("key667",)]),
    ),
    max_size=8,
)


@given(some_records, st.integers(0, 5))
def test_the_order_keeps_every_rule(records, seed):
    in_order = grouped(records, Random(seed))
    assert sorted(in_order, key=repr) == sorted(records, key=repr)
    protocols = [frozenset(each.alpn) for each in in_order]
    # Each group is whole, and within it priorities ascend; groups go by their best.
    groups = [[each.priority for each in in_order if frozenset(each.alpn) == kind] for kind in dict.fromkeys(protocols)]
    assert protocols == [kind for kind in dict.fromkeys(protocols) for _ in range(protocols.count(kind))]
    assert all(group == sorted(group) for group in groups)
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)


@given(some_records, st.integers(0, 5))
def test_every_usable_record_has_its_place_and_the_authority_the_last(records, seed):
    known = services(seed=seed)
    follow = known.answered(records)
    good = [each for each in records if not each.mandatory]
    wanted = {Place("" if each.target == "." else each.target, each.port) for each in good}
    assert set(known.places) == wanted | {Place("")}
    assert len(set(known.places)) == len(known.places)
    assert set(follow.names) == {place.name for place in wanted}
    if Place("") not in wanted:
        assert known.places[-1] == Place("")
    assert attrs.evolve(follow) == follow
