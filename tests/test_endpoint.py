"""Endpoint and Source: one text for one address, and no value that a socket could misread."""

from __future__ import annotations

import copy
import ipaddress
import pickle
import socket
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect import Endpoint, Source
from trio_connect._endpoint import as_endpoint, check_connectable, sends_names

ports = st.integers(0, 65535)
zones = st.one_of(
    st.integers(1, 0xFFFFFFFF),
    st.from_regex(r"[a-z][a-z0-9._:-]{0,14}", fullmatch=True),
)
ipv4_endpoints = st.builds(Endpoint, st.ip_addresses(v=4).map(str), ports)
ipv6_endpoints = st.builds(
    Endpoint, st.ip_addresses(v=6).map(str), ports, st.one_of(st.just(0), zones), st.integers(0, 0xFFFFF)
)
endpoints = st.one_of(ipv4_endpoints, ipv6_endpoints)


# --- reading and writing ----------------------------------------------------------------------------------------------


@given(endpoints)
def test_text_is_read_back(endpoint: Endpoint) -> None:
    again = Endpoint.parse(str(endpoint))
    # The flow label has no place in the text (RFC 3986 section 3.2.2).
    assert again == Endpoint(endpoint.host, endpoint.port, endpoint.scope_id)
    assert str(again) == str(endpoint)


@given(endpoints)
def test_repr_pickle_and_copy_give_the_same_value(endpoint: Endpoint) -> None:
    twins = [
        eval(repr(endpoint), {"Endpoint": Endpoint}),
        pickle.loads(pickle.dumps(endpoint)),
        copy.deepcopy(endpoint),
    ]
    for twin in twins:
        assert twin == endpoint
        assert hash(twin) == hash(endpoint)
        assert (twin.sockaddr, twin.family) == (endpoint.sockaddr, endpoint.family)


@given(st.text())
def test_parse_says_endpoint_or_value_error(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except ValueError:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint


@given(st.ip_addresses(), ports)
def test_the_kernels_tuple_is_read_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    endpoint = Endpoint(str(address), port)
    assert as_endpoint(endpoint.sockaddr) == endpoint
    assert endpoint.family == (socket.AF_INET if address.version == 4 else socket.AF_INET6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1:443", Endpoint("192.0.2.1", 443)),
        ("0.0.0.0:0", Endpoint("0.0.0.0", 0)),
        ("[2001:db8::1]:443", Endpoint("2001:db8::1", 443)),
        ("[2001:DB8:0:0::1]:0443", Endpoint("2001:db8::1", 443)),
        ("[fe80::1%eth0]:1", Endpoint("fe80::1", 1, "eth0")),
        ("[fe80::1%2]:1", Endpoint("fe80::1", 1, 2)),
        ("[::ffff:192.0.2.1]:1", Endpoint("::ffff:c000:201", 1)),
    ],
)
def test_parse(text: str, expected: Endpoint) -> None:
    assert Endpoint.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", ":", ":80", "80", "192.0.2.1", "192.0.2.1:", "192.0.2.1:http", "192.0.2.1:-1", "192.0.2.1:+80",
        "192.0.2.1: 80", "192.0.2.1:80 ", " 192.0.2.1:80", "192.0.2.1:8_0", "192.0.2.1:٨٠", "192.0.2.1:65536",
        "192.0.2.1:99999999999999999999", "2001:db8::1", "2001:db8::1:80", "2001:db8::1]:80", "[2001:db8::1:80",
        "[2001:db8::1]80", "[2001:db8::1]:", "[]:80", "[192.0.2.1]:80", "[[2001:db8::1]]:80", "[fe80::1%]:80",
        "[fe80::1%a%b]:80", "example.org:80", "localhost:80", "1.2.3:80", "1:80", "0x7f.0.0.1:80", "127.0.0.01:80",
        "192.0.2.1\0:80", "192.0.2.1%eth0:80",
    ],
)  # fmt: skip
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"got|different"):
        Endpoint.parse(text)


@pytest.mark.parametrize("value", [b"192.0.2.1:80", None, 80, ("192.0.2.1", 80)])
def test_parse_reads_only_text(value: object) -> None:
    with pytest.raises(TypeError, match="an endpoint is parsed from a str"):
        Endpoint.parse(value)  # type: ignore[arg-type]


# --- what a port and a host may be ------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["80", 80.0, True, False, None, b"80"], ids=repr)
def test_a_port_of_another_type(port: object) -> None:
    with pytest.raises(TypeError, match="port must be an int, got") as caught:
        Endpoint("192.0.2.1", port)  # type: ignore[arg-type]
    assert repr(port) in str(caught.value)


@pytest.mark.parametrize("port", [-1, 65536, 10**30])
def test_a_port_out_of_range(port: int) -> None:
    with pytest.raises(ValueError, match=f"port must be between 0 and 65535, got {port}"):
        Endpoint("192.0.2.1", port)


@pytest.mark.parametrize("host", [None, 1, b"192.0.2.1", ipaddress.ip_address("192.0.2.1")])
def test_a_host_of_another_type(host: object) -> None:
    with pytest.raises(TypeError, match="host must be a str with a numeric IP address"):
        Endpoint(host, 80)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host", ["", " ", "a b", "1.2.3", "1.2.3.4.5", "256.0.0.1", "192.0.2.1\0", "::1\0", "localhost", "example.org",
             "[::1]", "::1::", "12345::", "0177.0.0.1", "1", "192.0.2.1/32"]
)  # fmt: skip
def test_a_host_that_is_a_name_or_malformed_points_to_connect(host: str) -> None:
    with pytest.raises(ValueError, match=r"trio_connect\.connect\(\)") as caught:
        Endpoint(host, 80)
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize("scope", ["", "a b", "a%b", "a/b", "a\0", "a]b", -1, 1 << 32, "4294967296"], ids=repr)
def test_a_scope_out_of_range(scope: int | str) -> None:
    with pytest.raises(ValueError, match="scope_id must be"):
        Endpoint("fe80::1", 80, scope)


@pytest.mark.parametrize("scope", [True, None, 1.0, b"eth0"])
def test_a_scope_of_another_type(scope: object) -> None:
    with pytest.raises(TypeError, match="scope_id must be an int"):
        Endpoint("fe80::1", 80, scope)  # type: ignore[arg-type]


@pytest.mark.parametrize(("flow", "error"), [(-1, ValueError), (0x100000, ValueError), (True, TypeError)])
def test_a_flow_label_out_of_range(flow: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="flowinfo must be"):
        Endpoint("2001:db8::1", 80, 0, flow)


@pytest.mark.parametrize("extra", [(1,), ("eth0",), (0, 1)])
def test_ipv4_has_no_scope_and_no_flow_label(extra: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="belong to IPv6"):
        Endpoint("192.0.2.1", 80, *extra)


def test_a_zone_is_said_once_or_twice_the_same() -> None:
    assert Endpoint("fe80::1%eth0", 80) == Endpoint("fe80::1", 80, "eth0") == Endpoint("fe80::1%eth0", 80, "eth0")
    assert Endpoint("fe80::1%3", 80, 3) == Endpoint("fe80::1", 80, "3")
    with pytest.raises(ValueError, match="different zones"):
        Endpoint("fe80::1%eth0", 80, "eth1")


def test_a_zone_name_stays_text_and_stands_in_the_socket_address() -> None:
    assert Endpoint("fe80::1", 80, "eth0").sockaddr == ("fe80::1%eth0", 80, 0, 0)
    assert Endpoint("fe80::1", 80, 2, 5).sockaddr == ("fe80::1", 80, 5, 2)


def test_repr_says_what_is_not_default() -> None:
    assert repr(Endpoint("192.0.2.1", 80)) == "Endpoint('192.0.2.1', 80)"
    assert repr(Endpoint("fe80::1", 80, "eth0", 7)) == "Endpoint('fe80::1', 80, 'eth0', flowinfo=7)"


def test_an_endpoint_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Endpoint("192.0.2.1", 80).port = 1  # type: ignore[misc]


# --- what is taken for an endpoint ------------------------------------------------------------------------------------


def test_as_endpoint_reads_the_socket_modules_order() -> None:
    endpoint = Endpoint("fe80::1", 80, 2, 5)
    assert as_endpoint(endpoint) is endpoint
    assert as_endpoint(("192.0.2.1", 80)) == Endpoint("192.0.2.1", 80)
    assert as_endpoint(("fe80::1", 80, 5, 2)) == endpoint


@pytest.mark.parametrize(
    "value", [None, "192.0.2.1:80", ["192.0.2.1", 80], 80, (), ("192.0.2.1",), ("::1", 80, 0), ("::1", 80, 0, 0, 0)]
)
def test_as_endpoint_refuses_other_shapes(value: object) -> None:
    with pytest.raises(TypeError, match="an endpoint"):
        as_endpoint(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ("192.0.2.1", "host and port are one tuple, and where several endpoints are taken it stands in a list"),
        ("2001:db8::1", "host and port are one tuple, and where several endpoints are taken it stands in a list"),
        ("192.0.2.1:443", r"text: Endpoint.parse\(\)"),
        (80, r"text: Endpoint.parse\(\)"),
    ],
)
def test_a_host_that_stands_alone_is_told_where_its_port_goes(value: Any, advice: str) -> None:
    with pytest.raises(TypeError, match=rf"got {value!r}; {advice}"):
        as_endpoint(value)


def test_port_0_is_for_listening_only() -> None:
    check_connectable(Endpoint("192.0.2.1", 1))
    with pytest.raises(ValueError, match=r"cannot connect to port 0 of 192\.0\.2\.1"):
        check_connectable(Endpoint("192.0.2.1", 0))


# --- sources ----------------------------------------------------------------------------------------------------------

BOTH = Source(ipv4="192.0.2.1", ipv6="2001:db8::1", interface="eth0", port=7)


def test_an_interface_in_the_place_of_an_address_is_told_where_it_goes() -> None:
    with pytest.raises(ValueError, match=r"the IPv4 source address must be .*, got 'eth0'; an interface is interface="):
        Source("eth0")


def test_a_source_serves_the_families_it_has_or_both() -> None:
    four, six = socket.AF_INET, socket.AF_INET6
    assert Source().serves(four)
    assert Source().serves(six)
    assert Source(interface="eth0", port=1).serves(six)
    assert BOTH.serves(four)
    assert Source(ipv4="192.0.2.1").serves(four)
    assert not Source(ipv4="192.0.2.1").serves(six)
    assert not Source(ipv6="2001:db8::1").serves(four)


def test_a_source_refuses_an_endpoint_of_another_family() -> None:
    BOTH.check(Endpoint("2001:db8::2", 1))
    with pytest.raises(ValueError, match=r"source 192\.0\.2\.1 has no address of the family of \[2001:db8::2\]:1"):
        Source(ipv4="192.0.2.1").check(Endpoint("2001:db8::2", 1))


def test_a_source_describes_itself() -> None:
    assert BOTH.describe(socket.AF_INET) == "192.0.2.1, port 7, interface eth0"
    assert BOTH.describe(socket.AF_INET6) == "2001:db8::1, port 7, interface eth0"
    assert Source().describe(socket.AF_INET) == str(Source()) == "any"
    assert str(BOTH) == "192.0.2.1, 2001:db8::1, port 7, interface eth0"


def test_a_proxy_serves_both_families_whatever_the_addresses() -> None:
    source = Source(ipv4="192.0.2.1", proxy="socks5://user:word@proxy.test:1080")
    assert source.serves(socket.AF_INET6)
    assert source.serves(socket.AF_INET)
    source.check(Endpoint("2001:db8::2", 1))
    with pytest.raises(
        ValueError, match=r"cannot reach \[fe80::1%eth0\]:1: a proxy knows nothing of this machine's zones"
    ):
        source.check(Endpoint("fe80::1%eth0", 1))


@pytest.mark.parametrize(
    ("source", "sends"),
    [
        (Source(), False),
        (Source(proxy="socks5://p:1"), False),
        (Source(proxy="http://p:1"), False),
        (Source(proxy="http://p:1", proxy_resolves=True), True),
        (Source(proxy="socks5h://p:1"), True),
        (Source(proxy="socks5h://p:1", proxy_resolves=True), True),
    ],
)
def test_which_sources_send_names_to_their_proxy(source: Source, sends: bool) -> None:
    assert sends_names(source) is sends


def test_a_source_shows_its_proxy_and_never_the_password() -> None:
    source = Source(ipv4="192.0.2.1", proxy="socks5h://user:word@proxy.test:1080", proxy_resolves=True)
    assert source.describe(socket.AF_INET) == str(source) == "192.0.2.1, proxy socks5h://***@proxy.test:1080"
    assert source.describe(socket.AF_INET6) == "proxy socks5h://***@proxy.test:1080"
    shown = "Source(ipv4='192.0.2.1', proxy='socks5h://***@proxy.test:1080', proxy_resolves=True)"
    assert repr(source) == shown
    for twin in (pickle.loads(pickle.dumps(source)), copy.deepcopy(source), attrs.evolve(source, weight=1)):
        assert twin == source
        assert repr(twin) == shown
    assert source != attrs.evolve(source, proxy="socks5h://user:other@proxy.test:1080")


def test_source_addresses_are_normalised() -> None:
    assert Source(ipv6="2001:DB8::0:1") == Source(ipv6="2001:db8::1")
    assert Source(ipv6="fe80::1%eth0").ipv6 == "fe80::1%eth0"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"ipv4": "2001:db8::1"}, ValueError, "the IPv4 source address must be IPv4, got '2001:db8::1'"),
        ({"ipv6": "192.0.2.1"}, ValueError, "the IPv6 source address must be IPv6, got '192.0.2.1'"),
        ({"ipv4": "localhost"}, ValueError, "the IPv4 source address must be a numeric"),
        ({"ipv4": 1}, TypeError, "the IPv4 source address must be a str"),
        ({"interface": ""}, ValueError, "interface must be the name of an interface"),
        ({"interface": "x" * 16}, ValueError, "at most 15 bytes"),
        ({"interface": "é" * 8}, ValueError, "at most 15 bytes"),
        ({"interface": "a b"}, ValueError, "interface must be the name"),
        ({"interface": "eth0\0"}, ValueError, "interface must be the name"),
        ({"interface": b"eth0"}, TypeError, "interface must be a str, got b'eth0'"),
        ({"name": 7}, TypeError, "the name of a source must be a str, got 7"),
        ({"proxy": 7}, TypeError, "proxy must be a str such as"),
        ({"proxy": "proxy.test:1080"}, ValueError, "its scheme is socks5, socks5h or http"),
        ({"proxy_resolves": 1}, TypeError, "proxy_resolves must be a bool, got 1"),
        ({"proxy_resolves": True}, ValueError, "cannot be said of a source without a proxy"),
        ({"proxy": "socks5://p:1", "proxy_resolves": True}, ValueError, "cannot be said of socks5: write socks5h"),
        ({"port": -1}, ValueError, "port must be between"),
        ({"port": 65536}, ValueError, "port must be between"),
        ({"port": True}, TypeError, "port must be an int, got True"),
        ({"port": "80"}, TypeError, "port must be an int, got '80'"),
    ],
)  # fmt: skip
def test_a_source_refuses(arguments: dict[str, object], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Source(**arguments)  # type: ignore[arg-type]
