"""The names of a virtual network: answers, delays, empty answers, errors and silence, per family."""

from __future__ import annotations

import math
import socket
from typing import Any

import pytest
import trio

from trio_connect.testing import UnknownHost, VirtualNetwork, run

A, B = "192.0.2.1", "192.0.2.2"
V6 = "2001:db8::1"


async def lookup(name: str, family: int = 0, **more: Any) -> list[str]:
    found = await trio.socket.getaddrinfo(name, 443, family, type=socket.SOCK_STREAM, **more)
    return [str(entry[4][0]) for entry in found]


def test_answers_by_family_and_in_the_order_given() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.dns("by.family.test", a=[A, B], aaaa=[V6])
        net.dns("in.order.test", [A, V6, B])
        assert await lookup("by.family.test") == [V6, A, B]
        assert await lookup("IN.order.test.") == [A, V6, B]
        assert await lookup("in.order.test", socket.AF_INET) == [A, B]
        assert await lookup("in.order.test", socket.AF_INET6) == [V6]
        assert await lookup("localhost") == ["::1", "127.0.0.1"]
        assert await lookup("192.0.2.99") == ["192.0.2.99"]
        assert [(row.name, row.kind, row.outcome) for row in net.trace.lookups][:2] == [
            ("by.family.test", "A", f"{A} {B}"),
            ("by.family.test", "AAAA", V6),
        ]

    run(main)


def test_both_families_are_asked_at_once_and_the_slower_one_decides() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.dns("api.test", aaaa=[V6], a=[A], aaaa_delay=1.0, a_delay=0.4)
        assert await lookup("api.test") == [V6, A]
        assert trio.current_time() == 1.0
        assert {row.kind: row.ended for row in net.trace.lookups} == {"AAAA": 1.0, "A": 0.4}
        assert await lookup("api.test", socket.AF_INET) == [A]
        assert trio.current_time() == 1.4

    run(main)


def test_what_does_not_exist_and_what_is_empty() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.dns("gone.test")
        net.dns("four.test", a=[A])
        for name, family, number in (
            ("gone.test", 0, socket.EAI_NONAME),
            ("four.test", socket.AF_INET6, socket.EAI_NODATA),
        ):
            with pytest.raises(socket.gaierror) as caught:
                await lookup(name, family)
            assert caught.value.errno == number
        assert [row.outcome for row in net.trace.lookups] == ["empty", "empty", "empty"]
        assert await lookup("four.test", socket.AF_INET6, flags=socket.AI_V4MAPPED) == [f"::ffff:{A}"]

    run(main)


def test_an_error_of_one_family_does_not_hide_the_other() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.dns("half.test", a=[A], aaaa_error=socket.EAI_FAIL)
        net.dns("broken.test", a_error=socket.EAI_AGAIN, aaaa_error=socket.EAI_AGAIN, a_delay=0.5)
        net.dns("odd.test", aaaa_error=RuntimeError("a resolver of yours failed"))
        assert await lookup("half.test") == [A]
        with pytest.raises(socket.gaierror, match="Temporary failure") as caught:
            await lookup("broken.test")
        assert caught.value.errno == socket.EAI_AGAIN
        assert trio.current_time() == 0.5
        with pytest.raises(RuntimeError, match="of yours"):
            await lookup("odd.test", socket.AF_INET6)
        assert {row.outcome for row in net.trace.lookups} >= {"EAI_FAIL", "EAI_AGAIN", "RuntimeError", A}

    run(main)


def test_a_name_that_is_never_answered() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.dns("slow.test", a=[A], aaaa=[V6], aaaa_delay=math.inf)
        with trio.move_on_after(30) as scope:
            await lookup("slow.test")
        assert scope.cancelled_caught
        assert {row.kind: (row.ended, row.outcome) for row in net.trace.lookups} == {
            "A": (0.0, A),
            "AAAA": (30.0, "cancelled"),
        }
        assert await lookup("slow.test", socket.AF_INET) == [A]

    run(main)


def test_services_types_and_canonical_names() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.dns("api.test", [A])
        assert await trio.socket.getaddrinfo("api.test", "https", type=socket.SOCK_STREAM) == [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (A, 443))
        ]
        every = await trio.socket.getaddrinfo("api.test", b"53", flags=socket.AI_CANONNAME)
        assert [(entry[1], entry[3]) for entry in every] == [
            (socket.SOCK_STREAM, "api.test"),
            (socket.SOCK_DGRAM, "api.test"),
            (socket.SOCK_RAW, "api.test"),
        ]
        with pytest.raises(socket.gaierror):
            await trio.socket.getaddrinfo("api.test", "no-such-service")
        # What is numeric needs no name server, also where the port is the name of a service.
        for host in (A, B, "::1", None):
            found = await trio.socket.getaddrinfo(host, "https", type=socket.SOCK_STREAM)
            assert found == socket.getaddrinfo(host, "https", type=socket.SOCK_STREAM)
        for host in (A, "api.test"):
            with pytest.raises(socket.gaierror) as caught:
                await trio.socket.getaddrinfo(host, "https", flags=socket.AI_NUMERICSERV)
            assert caught.value.errno == socket.EAI_NONAME
        assert await trio.socket.getnameinfo((A, 443), 0) == ("api.test", "https")
        assert await trio.socket.getnameinfo((B, 1), socket.NI_NUMERICSERV) == (B, "1")
        with pytest.raises(socket.gaierror):
            await trio.socket.getnameinfo((B, 1), socket.NI_NAMEREQD)

    run(main)


def test_an_answer_may_change_and_sockets_resolve_names_too() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.host(A).refuse()
        net.dns("api.test", [B])
        net.dns("api.test", [A])
        sock = trio.socket.socket()
        with pytest.raises(ConnectionRefusedError):
            await sock.connect(("api.test", 80))
        sock.close()

    run(main)


def test_an_unknown_name_fails_the_test_even_when_it_is_swallowed() -> None:
    async def main(net: VirtualNetwork) -> None:
        with pytest.raises(UnknownHost):
            await lookup("typo.test")

    with pytest.raises(UnknownHost, match=r"typo\.test") as caught:
        run(main)
    assert caught.value.name == "typo.test"
    assert not isinstance(caught.value, OSError)
    (note,) = caught.value.__notes__
    assert "seed 0" in note
    assert "typo.test" in note.partition("\n")[2]


def test_small_print() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.dns("api.test", [A])
        with pytest.raises(socket.gaierror):
            await lookup("api.test", flags=socket.AI_NUMERICHOST)
        assert await trio.socket.getnameinfo((A, 5), socket.NI_NUMERICHOST) == (A, "5")

    run(main)
