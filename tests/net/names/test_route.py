from __future__ import annotations

import errno
import os
import socket
from contextlib import closing
from socket import AF_INET, AF_INET6, SOCK_DGRAM

import pytest

from trio_connect._endpoint import Endpoint, Source
from trio_connect._net.names import route
from trio_connect._net.names.route import look_up_route, look_up_routes
from trio_connect._net.sockets.raw_socket import new_datagram_socket

V6 = Endpoint("2001:db8::1", 443)
V4 = Endpoint("192.0.2.1", 443)


class Kernel:
    """Stands in for sockets of the kernel: says what each destination would be reached from."""

    def __init__(self, monkeypatch):
        self.sources = {}
        self.errors = {}
        self.log = []
        self.open = 0
        monkeypatch.setattr(route, "new_datagram_socket", self.make)

    def make(self, family):
        if (code := self.errors.get(family)) is not None:
            raise OSError(code, "no socket")
        return KernelSocket(self, family)


class KernelSocket:
    def __init__(self, kernel, family):
        self.kernel = kernel
        self.peer = self.bound = None
        kernel.log.append(("socket", family))
        kernel.open += 1

    def close(self):
        self.kernel.open -= 1

    def bind(self, address):
        self.kernel.log.append(("bind", address))
        self.bound = address

    def connect(self, address):
        self.kernel.log.append(("connect", address))
        self.peer = address
        source = self.kernel.sources.get(address[0], errno.ENETUNREACH)
        if isinstance(source, int):
            raise OSError(source, "no route")
        self.source = source

    def getsockname(self):
        return (self.bound or (self.source,))[0], 50000


@pytest.fixture
def kernel(monkeypatch):
    fake = Kernel(monkeypatch)
    yield fake
    assert fake.open == 0


def test_the_source_is_that_of_a_connected_datagram_socket(kernel):
    kernel.sources["2001:db8::1"] = "2001:db8::9"
    assert look_up_route(V6) == "2001:db8::9"
    assert kernel.log == [("socket", AF_INET6), ("connect", ("2001:db8::1", 443, 0, 0))]


@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EACCES])
def test_rule_1_no_route_is_no_source(kernel, code):
    kernel.sources["192.0.2.1"] = code
    assert look_up_route(V4) is None


def test_rule_1_a_family_that_the_kernel_does_not_have_is_no_source(kernel):
    kernel.errors[AF_INET6] = errno.EAFNOSUPPORT
    assert look_up_route(V6) is None


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_shortage_here_makes_the_source_unknown(kernel, code):
    kernel.errors[AF_INET] = code
    kernel.sources["2001:db8::1"] = "2001:db8::9"
    with pytest.raises(OSError, match="no socket"):
        look_up_route(V4)
    assert look_up_routes([V4, V6]) == {V6: "2001:db8::9"}


def test_a_port_is_only_made_up_where_there_is_none(kernel):
    kernel.sources["192.0.2.1"] = "192.0.2.9"
    look_up_route(V4)
    look_up_route(Endpoint("192.0.2.1", 0))
    assert [entry[1] for entry in kernel.log if entry[0] == "connect"] == [("192.0.2.1", 443), ("192.0.2.1", 9)]


def test_line_41_zone_and_flow_go_to_the_kernel(kernel, monkeypatch):
    kernel.sources["fe80::1"] = "fe80::9"
    monkeypatch.setattr(socket, "if_nametoindex", {"eth7": 7}.get)
    look_up_route(Endpoint("fe80::1", 443, 3, 5))
    look_up_route(Endpoint("fe80::1", 443, "eth7", 5))
    assert [entry[1] for entry in kernel.log if entry[0] == "connect"] == [
        ("fe80::1", 443, 5, 3),
        ("fe80::1", 443, 5, 7),
    ]


def test_a_zone_that_is_not_there_is_no_source():
    assert look_up_route(Endpoint("fe80::1", 443, "nowhere0")) is None


def test_a_source_binds_first_without_its_port(kernel):
    kernel.sources["192.0.2.1"] = "192.0.2.9"
    kernel.sources["2001:db8::1"] = "2001:db8::9"
    source = Source(ipv4="192.0.2.77", port=5000)
    assert look_up_route(V4, source) == "192.0.2.77"
    assert ("bind", ("192.0.2.77", 0)) in kernel.log
    assert look_up_route(V6, Source()) == "2001:db8::9"


def test_a_source_sends_through_its_interface(kernel, monkeypatch):
    interfaces = []
    monkeypatch.setattr(route, "bind_to_interface", lambda _sock, name: interfaces.append(name))
    kernel.sources["192.0.2.1"] = "192.0.2.9"
    assert look_up_route(V4, Source(interface="eth7")) == "192.0.2.9"
    assert interfaces == ["eth7"]


def test_the_first_source_that_serves_an_endpoint_counts(kernel):
    kernel.sources["192.0.2.1"] = kernel.sources["2001:db8::1"] = "unused"
    sources = [Source(ipv4="192.0.2.7"), Source(ipv4="192.0.2.8", ipv6="2001:db8::8")]
    assert look_up_routes([V6, V4], iter(sources)) == {
        V6: "2001:db8::8",
        V4: "192.0.2.7",
    }


def test_line_81_an_endpoint_that_no_source_serves_has_no_way(kernel):
    assert look_up_routes([V6], [Source(ipv4="192.0.2.7")]) == {V6: None}
    assert kernel.log == []


def test_on_a_real_kernel_loopback_is_its_own_source_and_nothing_is_sent():
    with socket.socket(AF_INET, SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        endpoint = Endpoint("127.0.0.1", receiver.getsockname()[1])
        assert look_up_routes([endpoint]) == {endpoint: "127.0.0.1"}
        with pytest.raises(BlockingIOError):
            receiver.recv(1)
    with closing(new_datagram_socket(AF_INET6)) as asking:
        assert (asking.type, asking.getblocking(), os.get_inheritable(asking.fileno())) == (SOCK_DGRAM, False, False)
    # An address that is not ours cannot be bound, so nothing can start there.
    assert look_up_route(endpoint, Source(ipv4="198.51.100.7")) is None
