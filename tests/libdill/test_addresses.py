"""ipaddr_*."""

from __future__ import annotations

import copy
import errno
import socket
import sys

import pytest

from tests.libdill.kit import fails, loopback
from trio_connect import Endpoint
from trio_connect import libdill as dill

V4, V6 = socket.AF_INET, socket.AF_INET6


def local(name: str | None, mode: int, port: int = 80) -> str:
    addr = dill.ipaddr()
    assert dill.ipaddr_local(addr, name, port, mode) == 0
    assert dill.ipaddr_port(addr) == port
    return dill.ipaddr_str(addr)


# --- local ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        (None, 0, "0.0.0.0"),
        (None, dill.IPADDR_IPV4, "0.0.0.0"),
        (None, dill.IPADDR_PREF_IPV4, "0.0.0.0"),
        (None, dill.IPADDR_IPV6, "::"),
        (None, dill.IPADDR_PREF_IPV6, "::"),
        ("192.0.2.1", 0, "192.0.2.1"),
        ("192.0.2.1", dill.IPADDR_PREF_IPV6, "192.0.2.1"),
        ("2001:db8::1", 0, "2001:db8::1"),
        ("2001:db8::1", dill.IPADDR_IPV6, "2001:db8::1"),
        ("lo", 0, "127.0.0.1"),
        ("lo", dill.IPADDR_PREF_IPV4, "127.0.0.1"),
    ],
)
def test_local(name, mode, expected):
    assert local(name, mode) == expected


def test_the_modes_are_libdills_numbers():
    assert [dill.IPADDR_IPV4, dill.IPADDR_IPV6, dill.IPADDR_PREF_IPV4, dill.IPADDR_PREF_IPV6] == [1, 2, 3, 4]
    assert dill.IPADDR_MAXSTRLEN == 46


@pytest.mark.parametrize(
    ("name", "port", "mode", "code"),
    [
        (None, -1, 0, errno.EINVAL),
        (None, 65536, 0, errno.EINVAL),
        ("192.0.2.1", 65536, 0, errno.EINVAL),  # libdill: ENODEV
        (None, 80, 5, errno.EINVAL),  # libdill aborts
        (None, 80, -1, errno.EINVAL),
        ("192.0.2.1", 80, dill.IPADDR_IPV6, errno.ENODEV),
        ("2001:db8::1", 80, dill.IPADDR_IPV4, errno.ENODEV),
        ("", 80, 0, errno.ENODEV),
        ("1.2.3", 80, 0, errno.ENODEV),
        ("no-such-device", 80, 0, errno.ENODEV),
        ("a-name-that-is-too-long", 80, 0, errno.ENODEV),
        ("l\0o", 80, 0, errno.ENODEV),
    ],
)
def test_local_refuses(name, port, mode, code):
    addr = loopback(1)
    with fails(code):
        dill.ipaddr_local(addr, name, port, mode)
    assert dill.ipaddr_str(addr) == "127.0.0.1"


def test_wrong_types():
    with fails(errno.EINVAL):
        dill.ipaddr_local(None, None, 80, 0)  # type: ignore[arg-type]
    for arguments in (("addr", None, 80, 0), (dill.ipaddr(), 5, 80, 0), (dill.ipaddr(), None, "80", 0),
                      (dill.ipaddr(), None, 80, True)):  # fmt: skip
        with pytest.raises(TypeError):
            dill.ipaddr_local(*arguments)
    with pytest.raises(TypeError):
        dill.ipaddr("127.0.0.1")  # type: ignore[arg-type]


def test_the_ipv6_address_of_an_interface(tmp_path, monkeypatch):
    from trio_connect.libdill import _interfaces

    table = tmp_path / "if_inet6"
    table.write_text(
        "fe800000000000000000000000000001 07 40 20 80     eth7\n"
        "20010db8000000000000000000000002 07 40 00 80     eth7\n"
        "fe800000000000000000000000000003 08 40 20 80     eth8\n"
        "00000000000000000000000000000001 01 80 10 80       lo\n"
    )
    monkeypatch.setattr(_interfaces, "_INET6_TABLE", str(table))
    assert local("eth7", dill.IPADDR_IPV6) == "2001:db8::2"
    assert local("eth7", dill.IPADDR_PREF_IPV4) == "2001:db8::2"  # it has no IPv4 address
    assert local("lo", dill.IPADDR_IPV6) == "::1"
    addr = dill.ipaddr()
    dill.ipaddr_local(addr, "eth8", 80, dill.IPADDR_IPV6)
    assert dill.ipaddr_sockaddr(addr) == ("fe80::3", 80, 0, 8)
    with fails(errno.ENODEV):
        local("eth9", dill.IPADDR_IPV6)
    monkeypatch.setattr(_interfaces, "_INET6_TABLE", str(tmp_path / "a kernel without IPv6"))
    with fails(errno.ENODEV):
        local("lo", dill.IPADDR_IPV6)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_real_table_can_be_read():
    try:
        found = local("lo", dill.IPADDR_IPV6)
    except OSError:
        pytest.skip("the loopback interface has no IPv6 address here")
    assert found == "::1"


# --- accessors --------------------------------------------------------------------------------------------------------


def test_accessors():
    four, six = loopback(80), loopback(80, "fe80::1%lo")
    assert (dill.ipaddr_family(four), dill.ipaddr_len(four)) == (V4, 16)
    assert (dill.ipaddr_family(six), dill.ipaddr_len(six)) == (V6, 28)
    assert dill.ipaddr_sockaddr(four) == ("127.0.0.1", 80)
    dill.ipaddr_setport(six, 443)
    assert six.endpoint == Endpoint("fe80::1", 443, "lo")
    buffer = bytearray(b"x" * dill.IPADDR_MAXSTRLEN)
    assert dill.ipaddr_str(six, buffer) == "fe80::1"
    assert buffer.startswith(b"fe80::1\0x")
    assert len(buffer) == dill.IPADDR_MAXSTRLEN
    with fails(errno.EINVAL):
        dill.ipaddr_str(six, bytearray(45))
    with pytest.raises(TypeError):
        dill.ipaddr_str(six, b"")  # type: ignore[arg-type]
    for port in (-1, 65536):
        with fails(errno.EINVAL):
            dill.ipaddr_setport(four, port)


def test_equal():
    assert dill.ipaddr_equal(loopback(80), loopback(80), 0) == 1
    assert dill.ipaddr_equal(loopback(80), loopback(81), 0) == 0
    assert dill.ipaddr_equal(loopback(80), loopback(81), 1) == 1
    assert dill.ipaddr_equal(loopback(80), loopback(80, "::1"), 1) == 0
    assert dill.ipaddr_equal(loopback(80, "fe80::1%lo"), loopback(80, "fe80::1"), 0) == 1
    assert dill.ipaddr_equal(dill.ipaddr(), dill.ipaddr(), 0) == 1
    assert dill.ipaddr_equal(dill.ipaddr(), loopback(80), 1) == 0


def test_an_address_that_was_never_written():
    empty = dill.ipaddr()
    assert dill.ipaddr_family(empty) == socket.AF_UNSPEC
    for call in (dill.ipaddr_len, dill.ipaddr_port, dill.ipaddr_str, dill.ipaddr_sockaddr):
        with fails(errno.EAFNOSUPPORT):
            call(empty)
        with fails(errno.EINVAL):
            call(None)  # type: ignore[arg-type]
    with fails(errno.EAFNOSUPPORT):
        dill.ipaddr_setport(empty, 80)


def test_a_copy_is_a_copy():
    one = loopback(80)
    other = copy.copy(one)
    dill.ipaddr_setport(one, 81)
    assert dill.ipaddr_port(other) == 80
    assert "127.0.0.1" in repr(one)
