"""Names: both families side by side, libdill's modes, no thread of the program's."""

from __future__ import annotations

import errno
import socket
import threading

import attrs
import pytest
import trio
import trio.testing

from tests.libdill.kit import fails
from trio_connect import DeadlineExceeded, Endpoint
from trio_connect import libdill as dill

V4, V6 = socket.AF_INET, socket.AF_INET6


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
    for name in ("", "a b", "a" * 64 + ".test", "fe80::1%a b", "::1%99999999999", "fe80::1%" + "9" * 5000):
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


async def test_a_lookup_takes_no_thread_of_those_that_the_program_reads_files_with(monkeypatch):
    release = threading.Event()

    def swallowed(*_args: object) -> None:
        release.wait(10)
        raise NO_NAME

    monkeypatch.setattr(socket, "getaddrinfo", swallowed)
    try:
        with fails(errno.ETIMEDOUT):
            await remote(0, dill.now() + 20)
        assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    finally:
        release.set()
