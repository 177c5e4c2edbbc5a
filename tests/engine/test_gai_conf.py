from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.gai_conf import parse_gai_conf
from trio_connect._engine.policy_table import DEFAULT_POLICY_TABLE, Policy, as_integer


def policy(text, host):
    row = parse_gai_conf(text).lookup(as_integer(host))
    return row.precedence, row.label


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# precedence ::ffff:0:0/96 100\n",
        "scopev4 ::ffff:0:0/96 14\nreload yes\n",
        "precedence ::ffff:0:0/96\nlabel\nPrecedence ::/0 1\n",
        "precedence 192.0.2.0/24 100\nprecedence fe80::%eth0/10 1\nprecedence ::/129 1\nprecedence ::/ 1\n",
        "precedence ::/ffff:: 1\nprecedence ::/-1 1\n",
        "label ::/0 -1\nlabel ::/0 0x1\nlabel ::/0 2147483648\nlabel ::/0 99999999999999999999\n",
    ],
)
def test_without_a_line_that_counts_the_table_is_that_of_rfc_6724(text):
    assert parse_gai_conf(text) is DEFAULT_POLICY_TABLE


def test_the_one_line_that_everybody_uncomments():
    text = "precedence ::ffff:0:0/96  100\n"
    assert policy(text, "192.0.2.1") == (100, 4)
    # The other precedences go with the default table: 40 is what the C library has for what no line covers.
    assert policy(text, "2001:db8::1") == (40, 1)
    assert policy(text, "::1") == (40, 0)
    assert policy(text, "fc00::1") == (40, 13)


def test_labels_replace_labels_only():
    text = "label 2001:db8::/32 7  # ours\nlabel 2001:db8::/32 8\nlabel ::1 5 rest\n"
    assert policy(text, "2001:db8::1") == (40, 7)
    assert policy(text, "::1") == (50, 5)
    assert policy(text, "192.0.2.1") == (35, 1)


def test_bits_beyond_the_prefix_do_not_count():
    assert policy("precedence 2001:db8::1/32 9\n", "2001:db8:ffff::") == (9, 1)


def test_a_default_row_may_be_given():
    text = "precedence ::/0 3\nlabel ::/0 2147483647\n"
    assert policy(text, "2001:db8::1") == (3, 2147483647)


PREFIXES = st.builds(
    lambda bits, length: IPv6Network((bits, length), strict=False),
    st.sampled_from([0, 1, 0xFFFF << 32, 0x20010DB8 << 96, 0xFC << 120]),
    st.sampled_from([0, 7, 32, 64, 96, 128]),
)


@given(
    st.lists(st.tuples(st.sampled_from(["label", "precedence"]), PREFIXES, st.integers(0, 99)), max_size=8),
    st.sampled_from([0, 1, (0xFFFF << 32) + 7, (0x20010DB8 << 96) + 9, 0xFD << 120, 0x3 << 125]),
)
def test_the_longest_prefix_of_each_kind_counts(lines, address):
    table = parse_gai_conf("".join(f"{keyword} {prefix} {number}\n" for keyword, prefix, number in lines))
    found = table.lookup(address)

    def expected(keyword, default, old):
        rows = [(prefix, number) for kind, prefix, number in lines if kind == keyword]
        if not rows:
            return old
        matching = [(p.prefixlen, -i, n) for i, (p, n) in enumerate(rows) if IPv6Address(address) in p]
        return max(matching)[2] if matching else default

    default: Policy = DEFAULT_POLICY_TABLE.lookup(address)
    assert found.precedence == expected("precedence", 40, default.precedence)
    assert found.label == expected("label", 1, default.label)
