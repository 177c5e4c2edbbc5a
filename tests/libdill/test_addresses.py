"""ipaddr_*."""

from __future__ import annotations

import copy
import errno
import socket
import sys

import attrs
import pytest
import trio
import trio.testing

from tests.libdill.kit import fails, loopback
from trio_connect import DeadlineExceeded, Endpoint
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
    from trio_connect.libdill import _addresses

    table = tmp_path / "if_inet6"
    table.write_text(
        "fe800000000000000000000000000001 07 40 20 80     eth7\n"
        "20010db8000000000000000000000002 07 40 00 80     eth7\n"
        "fe800000000000000000000000000003 08 40 20 80     eth8\n"
        "00000000000000000000000000000001 01 80 10 80       lo\n"
    )
    monkeypatch.setattr(_addresses, "_INET6_TABLE", str(table))
    assert local("eth7", dill.IPADDR_IPV6) == "2001:db8::2"
    assert local("eth7", dill.IPADDR_PREF_IPV4) == "2001:db8::2"  # it has no IPv4 address
    assert local("lo", dill.IPADDR_IPV6) == "::1"
    addr = dill.ipaddr()
    dill.ipaddr_local(addr, "eth8", 80, dill.IPADDR_IPV6)
    assert dill.ipaddr_sockaddr(addr) == ("fe80::3", 80, 0, 8)
    with fails(errno.ENODEV):
        local("eth9", dill.IPADDR_IPV6)
    monkeypatch.setattr(_addresses, "_INET6_TABLE", str(tmp_path / "a kernel without IPv6"))
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


# --- remote -----------------------------------------------------------------------------------------------------------


@attrs.define
class Names(trio.abc.HostnameResolver):
    """Answers per family: hosts, an exception, or an event that never comes."""

    v4: tuple[str, ...] | Exception | None
    v6: tuple[str, ...] | Exception | None
    asked: list[int] = attrs.field(factory=list)
    together: int = 0

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        assert (host, type) == (b"name.test", socket.SOCK_STREAM)
        self.asked.append(family)
        await trio.lowlevel.checkpoint()
        self.together = max(self.together, len(self.asked))
        answer = self.v4 if family == V4 else self.v6
        if answer is None:
            await trio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        assert answer is not None
        found = [(V6 if ":" in host else V4, type, 6, "", (host, port)) for host in answer]
        # Twice, and with something of the other family, as real ones do now and then.
        return [*found, *found, (V4 if family == V6 else V6, type, 6, "", ("192.0.2.66", port))]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@pytest.fixture
def names():
    def install(v4=(), v6=()):
        resolver = Names(v4, v6)
        trio.socket.set_custom_hostname_resolver(resolver)
        return resolver

    return install


async def remote(mode: int, deadline: int = -1) -> str:
    addr = dill.ipaddr()
    assert await dill.ipaddr_remote(addr, "name.test", 80, mode, deadline) == 0
    assert dill.ipaddr_port(addr) == 80
    return dill.ipaddr_str(addr)


async def remotes(mode: int, n: int = 10, deadline: int = -1) -> list[str]:
    addrs = [dill.ipaddr() for _ in range(10)]
    count = await dill.ipaddr_remotes(addrs, n, "name.test", 80, mode, deadline)
    assert all(addr.endpoint is None for addr in addrs[count:])
    return [dill.ipaddr_str(addr) for addr in addrs[:count]]


FOUR, SIX = ("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")
NO_NAME = socket.gaierror(socket.EAI_NONAME, "no name")
AGAIN = socket.gaierror(socket.EAI_AGAIN, "try again")


@pytest.mark.parametrize(
    ("mode", "first", "all_of_them"),
    [
        (0, FOUR[0], FOUR + SIX),
        (dill.IPADDR_IPV4, FOUR[0], FOUR),
        (dill.IPADDR_IPV6, SIX[0], SIX),
        (dill.IPADDR_PREF_IPV4, FOUR[0], FOUR + SIX),
        (dill.IPADDR_PREF_IPV6, SIX[0], SIX + FOUR),
    ],
)
async def test_modes(names, mode, first, all_of_them):
    resolver = names(FOUR, SIX)
    assert await remote(mode) == first
    assert await remotes(mode) == list(all_of_them)
    assert await remotes(mode, 1) == [first]
    asked = {dill.IPADDR_IPV4: {V4}, dill.IPADDR_IPV6: {V6}}.get(mode, {V4, V6})
    assert set(resolver.asked) == asked


async def test_both_families_are_asked_at_the_same_time(names):
    resolver = names(FOUR, SIX)
    await remotes(0)
    assert resolver.together == 2


@pytest.mark.parametrize("v6", [AGAIN, NO_NAME, OSError(errno.EIO, "broken"), ()])
async def test_what_one_family_fails_with_does_not_spoil_the_others_answer(names, v6):
    """libdill asks one after the other, and an error of either fails the call."""
    names(FOUR, v6)
    for mode in (dill.IPADDR_PREF_IPV4, dill.IPADDR_PREF_IPV6):
        assert await remote(mode) == FOUR[0]
        assert await remotes(mode) == list(FOUR)


async def test_one_family_that_never_answers_does_not_turn_the_others_answer_into_a_timeout(names, autojump_clock):
    names(FOUR, None)
    assert await remote(dill.IPADDR_PREF_IPV4) == FOUR[0]
    deadline = dill.now() + 500
    assert await remote(dill.IPADDR_PREF_IPV6, deadline) == FOUR[0]
    assert dill.now() == deadline
    assert await remotes(0, deadline=dill.now() + 500) == list(FOUR)
    with fails(errno.ETIMEDOUT) as caught:
        await remote(dill.IPADDR_IPV6, dill.now() + 500)
    assert isinstance(caught.value, DeadlineExceeded)


async def test_no_answer_in_time(names, autojump_clock):
    names(None, None)
    for deadline in (0, 1, dill.now() + 500):
        with fails(errno.ETIMEDOUT):
            await remote(0, deadline)
        with fails(errno.ETIMEDOUT):
            await remotes(0, deadline=deadline)


async def test_an_answer_at_once_is_in_time_for_any_deadline(names):
    names(FOUR, SIX)
    for deadline in (0, 1):
        assert await remote(0, deadline) == FOUR[0]


async def test_no_address_is_eaddrnotavail_for_one_and_none_for_several(names):
    names(NO_NAME, ())
    for mode in range(5):
        with fails(errno.EADDRNOTAVAIL):
            await remote(mode)
        assert await remotes(mode) == []


async def test_a_failed_lookup_says_what_failed(names):
    names(AGAIN, NO_NAME)
    for call in (remote, remotes):
        with fails(errno.EADDRNOTAVAIL) as caught:
            await call(0)
        assert caught.value.__cause__ is AGAIN


async def test_a_resolver_with_a_bug_is_not_hidden(names):
    names(ZeroDivisionError(), ())
    with pytest.raises(ZeroDivisionError):
        await remote(0)


async def test_a_literal_needs_no_resolver_and_no_time(names):
    resolver = names(None, None)
    addr = dill.ipaddr()
    for deadline in (0, 1, -1):
        with trio.testing.assert_checkpoints():
            await dill.ipaddr_remote(addr, "fe80::1%lo", 80, 0, deadline)
        assert addr.endpoint == Endpoint("fe80::1", 80, "lo")
    assert await dill.ipaddr_remotes([addr], 1, "192.0.2.1", 80, dill.IPADDR_IPV6, 0) == 0
    with fails(errno.EADDRNOTAVAIL):
        await dill.ipaddr_remote(addr, "192.0.2.1", 80, dill.IPADDR_IPV6, 0)
    assert resolver.asked == []


async def test_the_systems_resolver():
    addr = dill.ipaddr()
    assert await dill.ipaddr_remote(addr, "localhost", 80, 0, dill.now() + 5000) == 0
    assert dill.ipaddr_str(addr) == "127.0.0.1"
    # libdill crashes at the second lookup.
    assert await dill.ipaddr_remote(addr, "localhost", 80, dill.IPADDR_IPV4, dill.now() + 5000) == 0
    for name in ("", "a" * 64 + ".test"):
        with fails(errno.EADDRNOTAVAIL):
            await dill.ipaddr_remote(addr, name, 80, 0, dill.now() + 5000)


async def test_wrong_arguments():
    addr = dill.ipaddr()
    for arguments in (
        (None, 1, "x", 80, 0, -1),
        ([addr], 1, None, 80, 0, -1),
        ([addr], 0, "x", 80, 0, -1),
        ([addr], 2, "x", 80, 0, -1),
        ([None], 1, "x", 80, 0, -1),
        ([addr], 1, "x", 65536, 0, -1),  # libdill aborts
        ([addr], 1, "x", -1, 0, -1),
        ([addr], 1, "x", 80, 5, -1),
        ([addr], 1, "x", 80, 0, -2),
        ([addr], 1, "x\0y", 80, 0, -1),
    ):
        with fails(errno.EINVAL):
            await dill.ipaddr_remotes(*arguments)
    for wrong in (
        ([addr], "1", "x", 80, 0, -1),
        (["addr"], 1, "x", 80, 0, -1),
        ([addr], 1, b"x", 80, 0, -1),
        ([addr], 1, "x", 80.0, 0, -1),
        ([addr], 1, "x", 80, 0, None),
    ):
        with pytest.raises(TypeError):
            await dill.ipaddr_remotes(*wrong)
    with fails(errno.EINVAL):
        await dill.ipaddr_remote(None, "x", 80, 0, -1)  # type: ignore[arg-type]
