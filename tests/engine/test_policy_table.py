from ipaddress import IPv6Network

import pytest

from trio_connect._engine.policy_table import (
    DEFAULT_POLICY_TABLE,
    Policy,
    PolicyTable,
    as_integer,
    common_prefix_length,
    scope_of,
)


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        ("::1", 0x2),
        ("fe80::1", 0x2),
        ("fe80::1%eth0", 0x2),
        ("febf::1", 0x2),
        ("fec0::1", 0x5),
        ("feff::1", 0x5),
        ("fd00::1", 0xE),
        ("2001:db8::1", 0xE),
        ("2002:c633:6401::1", 0xE),
        ("::", 0xE),
        ("ff01::1", 0x1),
        ("ff02::1", 0x2),
        ("ff05::2", 0x5),
        ("ff0e::1", 0xE),
        ("127.0.0.1", 0x2),
        ("127.255.255.255", 0x2),
        ("::ffff:127.0.0.1", 0x2),
        ("169.254.13.78", 0x2),
        ("169.255.0.1", 0xE),
        ("126.0.0.1", 0xE),
        ("128.0.0.1", 0xE),
        # Section 3.2: private IPv4 addresses are global, whatever RFC 1918 routers do.
        ("10.1.2.3", 0xE),
        ("172.16.0.1", 0xE),
        ("192.168.0.1", 0xE),
        ("100.64.0.1", 0xE),
        ("192.0.2.1", 0xE),
    ],
)
def test_scope(host, scope):
    assert scope_of(as_integer(host)) == scope


@pytest.mark.parametrize(
    ("host", "precedence", "label"),
    [
        ("::1", 50, 0),
        ("2001:db8::1", 40, 1),
        ("192.0.2.1", 35, 4),
        ("::ffff:192.0.2.1", 35, 4),
        ("127.0.0.1", 35, 4),
        ("2002:c633:6401::1", 30, 2),
        ("2001::1", 5, 5),
        ("2001:0:ffff::", 5, 5),
        ("2001:1::", 40, 1),
        ("fc00::1", 3, 13),
        ("fdff::1", 3, 13),
        ("::192.0.2.1", 1, 3),
        ("::", 1, 3),
        ("fec0::1", 1, 11),
        ("3ffe::1", 1, 12),
        ("fe80::1", 40, 1),
    ],
)
def test_default_table_of_section_2_1(host, precedence, label):
    policy = DEFAULT_POLICY_TABLE.lookup(as_integer(host))
    assert (policy.precedence, policy.label) == (precedence, label)


def test_the_longest_prefix_counts_wherever_its_row_stands():
    near = Policy(IPv6Network("2001:db8:1::/48"), 1, 1)
    middle = Policy(IPv6Network("2001:db8::/32"), 2, 2)
    rest = Policy(IPv6Network("::/0"), 3, 3)
    for rows in ((near, middle, rest), (rest, middle, near), (middle, rest, near)):
        table = PolicyTable(rows)
        assert table.lookup(as_integer("2001:db8:1::1")) is near
        assert table.lookup(as_integer("2001:db8:2::1")) is middle
        assert table.lookup(as_integer("192.0.2.1")) is rest


def test_a_table_is_complete_and_unambiguous():
    rest = Policy(IPv6Network("::/0"), 40, 1)
    with pytest.raises(ValueError, match=r"^a policy table must have a row for ::/0$"):
        PolicyTable((Policy(IPv6Network("2001:db8::/32"), 1, 1),))
    with pytest.raises(ValueError, match=r"^a policy table has one row for each prefix$"):
        PolicyTable((rest, Policy(IPv6Network("::/0"), 1, 1)))


@pytest.mark.parametrize(
    ("source", "destination", "length"),
    [
        ("2001:db8:1::2", "2001:db8:1::1", 64),
        ("2001:db8:3f44::2", "2001:db8:3ffe::1", 40),
        ("2001:db8::1", "2001:db8::1", 64),
        ("::1", "8000::", 0),
        ("fe80::2%eth0", "fe80::1", 64),
        ("192.0.2.1", "192.0.2.1", 32),
        ("192.0.2.1", "192.0.2.3", 30),
        ("10.0.0.1", "192.0.2.1", 0),
        # Of two families nothing is in common that routing could know of; the bits are counted all the same.
        ("::ffff:0:0:1", "192.0.2.1", 64),
    ],
)
def test_common_prefix_length_of_section_2_2(source, destination, length):
    assert common_prefix_length(as_integer(source), as_integer(destination)) == length
