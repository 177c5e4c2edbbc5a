from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.hosts_file import HostsFile

FILE = b"""# 192.0.2.1 commented.test
127.0.0.1\tlocalhost
::1 localhost ip6-localhost # loopback.test
  192.0.2.7   API.test api   api-2.test
192.0.2.8 other.test#192.0.2.9 api.test
2001:DB8::7 api.test
192.0.2.7 api.test
192.0.2.7
192.0.2.300 broken.test
fe80::1%eth0 zone.test
::ffff:192.0.2.1 mapped.test
0x7f.1 hex.test
\xff\xfe latin.test
api.test 192.0.2.66
192.0.2.10 last.test"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"localhost", ("127.0.0.1", "::1")),
        (b"LocalHost", ("127.0.0.1", "::1")),
        (b"api.test", ("192.0.2.7", "2001:db8::7")),
        (b"api", ("192.0.2.7",)),
        (b"pi", ()),
        (b"api.tes", ()),
        (b"api.test.", ()),
        (b"192.0.2.7", ()),
        (b"commented.test", ()),
        (b"loopback.test", ()),
        (b"broken.test", ()),
        (b"zone.test", ()),
        (b"hex.test", ()),
        (b"latin.test", ()),
        (b"nowhere.test", ()),
        (b"192.0.2.66", ()),
        (b"last.test", ("192.0.2.10",)),
    ],
)
def test_what_a_file_says(name, expected):
    assert HostsFile(FILE).addresses(name) == expected


def test_a_mapped_address_stays_ipv6():
    (found,) = HostsFile(FILE).addresses(b"mapped.test")
    assert ipaddress.ip_address(found) == ipaddress.ip_address("::ffff:192.0.2.1")


def test_an_empty_file_has_nothing():
    assert HostsFile(b"").addresses(b"localhost") == ()


NAMES = st.sampled_from(["a", "b", "ab", "a.b", "A", "b.a"])
LINES = st.lists(
    st.tuples(
        st.sampled_from(["", " ", "#", "\t"]),
        st.sampled_from(["192.0.2.1", "2001:db8::1", "a", "", "b"]),
        st.lists(NAMES, max_size=3),
        st.sampled_from(["", "#", " # a", "#b a"]),
    ),
    max_size=6,
)


@given(LINES, NAMES, st.booleans())
def test_any_file_against_a_parser_of_lines(lines, name, closed):
    text = "\n".join(f"{lead}{address} {' '.join(names)}{tail}" for lead, address, names, tail in lines)
    expected: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words and words[0] in ("192.0.2.1", "2001:db8::1") and name.lower() in map(str.lower, words[1:]):
            expected += [word for word in words[:1] if word not in expected]
    found = HostsFile((text + "\n" * closed).encode()).addresses(name.encode())
    assert list(found) == expected
