from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.name_services import parse_name_services
from trio_connect._engine.search_list import NO_SEARCH, SearchList, parse_resolv_conf, questions

KUBERNETES = "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"


def parse(text, *, hostname="host", localdomain=None, res_options=None):
    return parse_resolv_conf(text, hostname=hostname, localdomain=localdomain, res_options=res_options)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", SearchList()),
        ("nameserver 192.0.2.53\n", SearchList()),
        ("search a.example b.example\n", SearchList((b"a.example", b"b.example"))),
        ("search a.example\nsearch\tb.example.", SearchList((b"b.example",))),
        ("domain a.example b.example\n", SearchList((b"a.example",))),
        ("search a.example\ndomain b.example\n", SearchList((b"b.example",))),
        ("search .\n", SearchList((b"",))),
        ("search\ndomain\n", SearchList()),
        ("#search a.example\n;search b.example\n search c.example\n", SearchList()),
        (KUBERNETES, SearchList((b"ns.svc.cluster.local", b"svc.cluster.local", b"cluster.local"), 5)),
        ("options edns0 ndots:2\noptions ndots:3 no-tld-query\n", SearchList((), 3, tld_query=False)),
        ("options ndots:99", SearchList((), 15)),
        ("options ndots:99999999999999999999999", SearchList((), 15)),
        ("options ndots:", SearchList((), 0)),
        ("options ndots:x", SearchList((), 0)),
        ("options ndots", SearchList()),
    ],
)
def test_what_a_file_says(text, expected):
    assert parse(text) == expected


def test_without_a_list_the_domain_of_this_machine_is_searched():
    assert parse("", hostname="db1.dev.example") == SearchList((b"dev.example",))
    assert parse("search a.example", hostname="db1.dev.example") == SearchList((b"a.example",))


def test_the_environment_amends():
    assert parse(KUBERNETES, localdomain="b.example c.example").domains == (b"b.example", b"c.example")
    assert parse(KUBERNETES, localdomain="").domains == ()
    assert parse(KUBERNETES, res_options="ndots:1").ndots == 1


@pytest.mark.parametrize(
    ("name", "search", "expected"),
    [
        (b"db", NO_SEARCH, [b"db"]),
        (b"db.", SearchList((b"a",)), [b"db."]),
        (b"db", SearchList((b"a", b"b")), [b"db.a.", b"db.b.", b"db."]),
        (b"db.x", SearchList((b"a", b"b")), [b"db.x.", b"db.x.a.", b"db.x.b."]),
        (b"db.x", SearchList((b"a",), 2), [b"db.x.a.", b"db.x."]),
        (b"db", SearchList((b"a",), 0), [b"db.", b"db.a."]),
        (b"db", SearchList((b"a",), tld_query=False), [b"db.a."]),
        (b"db.x", SearchList((b"a",), 2, tld_query=False), [b"db.x.a.", b"db.x."]),
        (b"db", SearchList((b"", b"a")), [b"db.", b"db.a."]),
        (b"x" * 60, SearchList((b"y" * 60 + b"." + b"z" * 132, b"a")), [b"x" * 60 + b".a.", b"x" * 60 + b"."]),
        (b"x" * 60, SearchList((b"y" * 193,), tld_query=False), [b"x" * 60 + b"."]),
        (b"db", SearchList((b"a..b", b"y" * 64, b"c")), [b"db.c.", b"db."]),
    ],
)
def test_candidates(name, search, expected):
    assert list(search.candidates(name)) == expected


@given(
    st.sampled_from([b"a", b"a.b", b"a.b.c", b"a.b."]),
    st.lists(st.sampled_from([b"", b"x", b"y.z", b"x" * 250]), max_size=4),
    st.integers(0, 4),
    st.booleans(),
)
def test_every_candidate_completes_the_name_and_comes_once(name, domains, ndots, tld_query):
    found = SearchList(tuple(domains), ndots, tld_query).candidates(name)
    assert found
    assert len(set(found)) == len(found)
    for candidate in found:
        assert candidate.startswith(name)
        assert len(candidate) <= 254
        assert candidate.endswith(b".") or found == (name,)
    if domains and not name.endswith(b".") and name.count(b".") >= ndots:
        assert found[0] == name + b"."


@pytest.mark.parametrize(
    ("line", "name", "expected"),
    [
        ("files dns", b"db", (b"db.a.", b"db.")),
        ("files resolve", b"db", (b"db.a.", b"db.")),
        ("files", b"db", (b"db",)),
        ("files ldap dns", b"db", ()),
        ("files mdns4_minimal [NOTFOUND=return] dns", b"printer.local", ()),
        ("files mdns4_minimal [NOTFOUND=return] dns", b"Printer.LOCAL.", ()),
        ("files mdns4_minimal [NOTFOUND=return] dns", b"db", (b"db.a.", b"db.")),
        ("files dns", b"x.local", (b"x.local.", b"x.local.a.")),
    ],
)
def test_questions(line, name, expected):
    assert questions(name, parse_name_services(f"hosts: {line}"), SearchList((b"a",))) == expected
