from __future__ import annotations

from ipaddress import ip_address
from socket import AF_INET, AF_INET6

import pytest
import trio.testing

from trio_connect._answer import Answer, MailRecord, SrvRecord
from trio_connect._net.names.resolve import (
    MailResolver,
    SrvResolver,
    StaticResolver,
    check_host,
    cleaned,
    numeric,
)
from trio_connect._text import shown

# ---------------------------------------------------------------------- hosts, before any lookup


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "example.org.",
        "EXAMPLE.org",
        "localhost",
        "a",
        "_sip._tcp.example.org",
        "a-b.example",
        "bücher.example",
        "a" * 63 + ".example",
        ".".join(["a" * 49] * 5) + ".abc",  # 253 bytes
        ".".join(["a" * 49] * 5) + ".abc.",
        "192.0.2.1",
        "2001:db8::1",
        "fe80::1%eth0",
        "127.1",
        "1.2.3.4.",
        "*.example",
        "under_score",
    ],
)
def test_good_hosts_come_back_unchanged(host):
    assert check_host(host) is host


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        (".", "1 to 63"),
        ("..", "1 to 63"),
        ("a..b", "1 to 63"),
        (".example", "1 to 63"),
        ("example..", "1 to 63"),
        ("a" * 64 + ".example", "1 to 63"),
        (".".join(["a" * 49] * 5) + ".abcd", "at most 253 bytes"),
        ("a\0b", "NUL"),
        ("a\x1b[31m", "control"),
        ("a\x7f", "control"),
        ("a" * 1000, "at most 253 bytes"),
        ("[2001:db8::1]", "without brackets"),
        ("example.org:443", "argument of its own"),
        ("2001:db8::zz", "numeric address"),
        ("☃.example", "IDNA"),
        ("\ud800.example", "IDNA"),
        ("ü" * 70, "IDNA"),
    ],
)
def test_bad_hosts_are_refused_naming_value_and_rule(host, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        check_host(host)
    assert shown(host) in str(caught.value)
    assert type(caught.value) is ValueError


@pytest.mark.parametrize("host", [b"example.org", None, 7, ("192.0.2.1", 80)])
def test_a_host_is_a_str(host):
    with pytest.raises(TypeError, match="a host is a str"):
        check_host(host)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        # inet_aton's other spellings are names here.
        ("127.1", None),
        ("0x7f.1", None),
        ("2130706433", None),
        ("192.0.2.01", None),
        ("example.org", None),
    ],
)
def test_numeric(host, text):
    found = numeric(host)
    assert found == text or (found is not None and ip_address(found) == ip_address(text))


# ---------------------------------------------------------------------- answers of any resolver


@pytest.mark.parametrize(
    ("addresses", "family", "expected"),
    [
        (("2001:db8::1", "192.0.2.1"), AF_INET6, ("2001:db8::1",)),
        (("2001:db8::1", "192.0.2.1"), AF_INET, ("192.0.2.1",)),
        (("2001:db8::2", "2001:DB8:0::2", "2001:db8::1", "2001:db8::2"), AF_INET6, ("2001:db8::2", "2001:db8::1")),
        (("fe80::1%2", "fe80::1%3", "fe80::1", "fe80::1%2"), AF_INET6, ("fe80::1%2", "fe80::1%3", "fe80::1")),
        ((), AF_INET, ()),
    ],
)
def test_answers_are_filtered_by_family_and_each_address_comes_once(addresses, family, expected):
    assert cleaned(Answer(addresses, 30.0), family) == Answer(expected, 30.0)


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_no_more_is_read_of_an_answer_than_is_ever_tried(family):
    hosts = tuple(f"2001:db8::{i + 1:x}" if family == AF_INET6 else f"192.0.2.{i}" for i in range(64))
    with pytest.raises(ValueError, match="numeric"):
        cleaned(Answer((*hosts[1:], "no:address", "no.address")), family)
    assert cleaned(Answer((*hosts, "no:address", "no.address")), family).addresses == hosts


def test_a_clean_answer_is_not_copied():
    answer = Answer(("192.0.2.1", "192.0.2.2"), 5)
    assert cleaned(answer, AF_INET) is answer
    assert cleaned(Answer(name_exists=False), AF_INET) == Answer(name_exists=False)


def test_a_resolver_that_answers_nonsense_is_told_so():
    with pytest.raises(ValueError, match=r"numeric addresses, got 'cname\.example'"):
        cleaned(Answer(("cname.example",)), AF_INET)
    with pytest.raises(TypeError, match="returns an Answer, got None"):
        cleaned(None, AF_INET)  # type: ignore[arg-type]


# ---------------------------------------------------------------------- a dict


async def test_static_answers():
    resolver = StaticResolver(
        {
            "Both.test.": ["2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.1"],
            "one.test": "192.0.2.7",
            "empty.test": (),
            "bücher.test": "192.0.2.8",
            "local.test": "fe80::1%eth0",
        }
    )
    for host, family, answer in [
        ("both.test", AF_INET6, Answer(("2001:db8::1", "2001:db8::2"))),
        ("BOTH.TEST", AF_INET, Answer(("192.0.2.1",))),
        ("both.test.", AF_INET, Answer(("192.0.2.1",))),
        ("one.test", AF_INET, Answer(("192.0.2.7",))),
        ("one.test", AF_INET6, Answer()),
        ("empty.test", AF_INET, Answer()),
        ("xn--bcher-kva.test", AF_INET, Answer(("192.0.2.8",))),
        ("BÜCHER.test", AF_INET, Answer(("192.0.2.8",))),
        ("local.test", AF_INET6, Answer(("fe80::1%eth0",))),
        ("other.test", AF_INET, Answer(name_exists=False)),
    ]:
        with trio.testing.assert_checkpoints():
            assert await resolver.addresses(host, family) == answer


@pytest.mark.parametrize(
    ("hosts", "error", "text"),
    [
        ([("a.test", "192.0.2.1")], TypeError, "mapping"),
        ({b"a.test": "192.0.2.1"}, TypeError, "a host is a str"),
        ({"a.test": [7]}, TypeError, "sequence of str"),
        ({"a.test": "b.test"}, ValueError, "numeric addresses, got 'b.test'"),
        ({"a..test": "192.0.2.1"}, ValueError, "1 to 63"),
        ({"192.0.2.9": "192.0.2.1"}, ValueError, "its own answer"),
        ({"a.test": (), "A.test.": ()}, ValueError, r"'A\.test\.' twice"),
    ],
)
def test_a_static_mapping_is_checked_at_once(hosts, error, text):
    with pytest.raises(error, match=text):
        StaticResolver(hosts)


async def test_a_static_resolver_keeps_its_own_copy():
    hosts = {"a.test": ["192.0.2.1"]}
    resolver = StaticResolver(hosts)
    hosts["a.test"].append("192.0.2.2")
    hosts["b.test"] = []
    assert await resolver.addresses("a.test", AF_INET) == Answer(("192.0.2.1",))
    assert await resolver.addresses("b.test", AF_INET) == Answer(name_exists=False)


async def test_a_static_resolver_knows_mail_hosts_and_services():
    mail, service = [MailRecord("mx.test", 10)], [SrvRecord("x.test", 5269)]
    resolver = StaticResolver({}, mx={"A.test": mail, "none.test": ()}, srv={"_xmpp._tcp.a.test.": service})
    assert await resolver.mx("a.TEST.") == tuple(mail)
    assert await resolver.mx("none.test") == await resolver.mx("b.test") == ()
    assert await resolver.srv("_XMPP._tcp.a.test") == tuple(service)
    assert await resolver.srv("a.test") == ()
    assert isinstance(resolver, MailResolver)
    assert isinstance(resolver, SrvResolver)
    with pytest.raises(ValueError, match="white space"):
        await resolver.mx("a b")
    with pytest.raises(ValueError, match="white space"):
        await resolver.srv("a b")


@pytest.mark.parametrize(
    ("records", "error", "text"),
    [
        ({"mx": [("a.test", [])]}, TypeError, "mx must be a mapping of names to sequences of MailRecord"),
        ({"mx": {"a.test": ["mx.test"]}}, TypeError, "sequences of MailRecord, got 'mx.test'"),
        ({"mx": {"a.test": [SrvRecord("x.test", 25)]}}, TypeError, "sequences of MailRecord, got SrvRecord"),
        ({"srv": {"a.test": [MailRecord("mx.test")]}}, TypeError, "sequences of SrvRecord, got MailRecord"),
        ({"srv": {"a.test": [], "A.test.": []}}, ValueError, r"srv names 'A\.test\.' twice"),
        ({"mx": {"a b": []}}, ValueError, "white space"),
    ],
)
def test_static_records_are_checked_at_once(records, error, text):
    with pytest.raises(error, match=text):
        StaticResolver({}, **records)
