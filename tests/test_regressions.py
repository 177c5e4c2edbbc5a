"""Six ways in which connects go wrong elsewhere, each shown to go right here.

docs/evidence/regressions.md links to them.
Every name of a test carries the number of its finding.
"""

from __future__ import annotations

import ast
import errno
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import PassThroughFactory, PassThroughSocket, Sockets
from trio_connect import (
    DeadlineExceeded,
    Endpoint,
    Source,
    now,
    tcp_connect,
    tcp_listen,
    unix_connect,
)
from trio_connect._net import attempt
from trio_connect._net.sockets.local_ports import local_ports
from trio_connect._net.sockets.raw_socket import new_socket

PAGE = Path(__file__).parent.parent / "docs" / "evidence" / "regressions.md"


# --- 1: a full backlog is no connection -------------------------------------------------------------------------------


async def test_finding_1_a_full_unix_backlog_is_no_success(
    sockets: Sockets, autojump_clock: trio.testing.MockClock
) -> None:
    async with no_leaks(counters=sockets.counters):
        with faults.full_unix_backlog() as path:
            # The kernel's answer, which Python's class does not tell from "in progress".
            with socket.socket(socket.AF_UNIX) as sock:
                sock.setblocking(False)
                assert sock.connect_ex(str(path)) == errno.EAGAIN != errno.EINPROGRESS
            for deadline in (0, now() + 20):
                with pytest.raises(DeadlineExceeded, match="whose backlog is full"):
                    await unix_connect(path, deadline)


# --- 2 and 3: a socket is for one attempt -----------------------------------------------------------------------------


async def test_finding_2_a_connection_is_to_whom_it_was_asked_for(sockets: Sockets) -> None:
    async with (
        no_leaks(counters=sockets.counters),
        await tcp_listen(("127.0.0.1", 0)) as first,
        await tcp_listen(("127.0.0.1", 0)) as second,
    ):
        # What the kernel does: a second connect() on the connected socket says yes, and nothing has changed.
        with socket.socket() as sock:
            sock.setblocking(False)
            assert sock.connect_ex(first.endpoint.sockaddr) == errno.EINPROGRESS
            with trio.fail_after(5):
                await trio.lowlevel.wait_writable(sock)
            assert sock.connect_ex(second.endpoint.sockaddr) == 0
            assert sock.getpeername() == first.endpoint.sockaddr
        # Ours makes a socket for each, so both are what they say.
        for listener in (first, second):
            async with await tcp_connect(listener.endpoint) as stream:
                assert stream.socket.getpeername()[:2] == listener.endpoint.sockaddr
                assert stream.peer == listener.endpoint
                # And the stream's own socket is past that state: it says that it is connected.
                if sockets.name == "kernel":
                    with socket.socket(fileno=stream.fileno()) as look:
                        try:
                            assert look.connect_ex(second.endpoint.sockaddr) == errno.EISCONN
                        finally:
                            look.detach()


async def test_finding_3_a_retry_is_a_fresh_attempt(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        with faults.refusing() as closed:
            for _ in range(3):  # never ECONNABORTED, which the kernel gives to the next connect() of the same socket
                with pytest.raises(ConnectionRefusedError):
                    await tcp_connect(closed.pair)
        async with faults.echoing() as peer:
            await (await tcp_connect(peer.address.pair)).aclose()


# --- 4: nobody connects to himself ------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"])
@pytest.mark.parametrize("deadline", [-1, 0])
async def test_finding_4_a_socket_connected_to_itself_is_refused(sockets: Sockets, host: str, deadline: int) -> None:
    async with no_leaks(counters=sockets.counters):
        own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        with faults.reserved_port(own) as port:
            source = Source(ipv6=own, port=port) if ":" in host else Source(ipv4=own, port=port)
            with pytest.raises(ConnectionRefusedError, match="refused after"):
                await tcp_connect((host, port), deadline, source=source)
        # The port is free again, at once: a server can have it, even one without SO_REUSEADDR.
        assert is_free(own, port)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
async def test_finding_4_also_when_the_kernel_chose_the_port(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily
) -> None:
    host = faults.LOOPBACK[family]
    port = next(port for port in local_ports() if is_free(host, port))

    def narrowed(family: int) -> Any:
        sock = new_socket(family)
        faults.narrow_ports(sock, port)  # type: ignore[arg-type]
        return sock

    try:
        with socket.socket(family) as probe:
            faults.narrow_ports(probe, port)
    except OSError:
        pytest.skip("this kernel cannot narrow the ports of one socket (Linux 6.3)")
    monkeypatch.setattr(attempt, "new_socket", narrowed)
    async with no_leaks():
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError, match=f":{port} from .* refused after"):
                await tcp_connect((host, port), now() + 5000)


def is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        try:
            sock.bind((host, port))
        except OSError:
            return False
        return True


# --- 5: whoever waits on a socket that we close is woken --------------------------------------------------------------


async def test_finding_5_who_waits_on_a_socket_is_woken_when_its_connect_is_cancelled() -> None:
    made: list[PassThroughSocket] = []

    class Watched(PassThroughFactory):
        def socket(self, *kind: Any) -> PassThroughSocket:
            made.append(super().socket(*kind))
            return made[-1]

    with Sockets("factory", Watched()).installed(), faults.black_hole() as hole:
        async with no_leaks():
            with trio.fail_after(5):
                async with trio.open_nursery() as nursery:
                    scope = trio.CancelScope()

                    async def connecting() -> None:
                        with scope:
                            await tcp_connect(hole.pair)

                    async def watching() -> None:
                        with pytest.raises(trio.ClosedResourceError):
                            await made[0].recv(1)

                    nursery.start_soon(connecting)
                    await trio.testing.wait_all_tasks_blocked()
                    nursery.start_soon(watching)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()


async def test_finding_5_a_closed_stream_wakes_who_waits_on_its_descriptor(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters), await tcp_listen(("127.0.0.1", 0)) as listener:
        stream = await tcp_connect(listener.endpoint)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def waiting() -> None:
                    with pytest.raises(trio.ClosedResourceError):
                        await stream.receive_some()

                nursery.start_soon(waiting)
                await trio.testing.wait_all_tasks_blocked()
                stream.abort()


# --- 6: errors that say who, and with a number ------------------------------------------------------------------------


async def test_finding_6_every_error_has_its_errno_and_names_the_endpoint(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        with faults.refusing() as closed, faults.black_hole() as hole:
            cases: list[tuple[Any, int, Source | None, int]] = [
                (closed.pair, -1, None, errno.ECONNREFUSED),  # asynchronous
                (hole.pair, 0, None, errno.ETIMEDOUT),  # ours
                (("224.0.0.1", 9), -1, None, errno.ENETUNREACH),  # immediate
                (("fe80::1", 9), -1, None, errno.EINVAL),  # immediate
                (closed.pair, -1, Source(ipv4="192.0.2.1"), errno.EADDRNOTAVAIL),  # local
                (Endpoint("fe80::1", 9, "nosuch0"), -1, None, errno.ENODEV),  # local
            ]
            for target, deadline, source, code in cases:
                endpoint = target if isinstance(target, Endpoint) else Endpoint(*target)
                with pytest.raises(OSError, match=re.escape(str(endpoint))) as caught:
                    await tcp_connect(target, deadline, source=source)
                assert caught.value.errno == code
                assert re.match(rf"\[Errno {code}\] (connect to|local: \w+ for) ", str(caught.value))
                assert re.search(r"after \d+\.\d ms", str(caught.value))
                assert not isinstance(caught.value.__cause__, BaseExceptionGroup)
                del caught


# --- the page ---------------------------------------------------------------------------------------------------------


def finding_tests() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for node in ast.parse(Path(__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AsyncFunctionDef) and (match := re.match(r"test_finding_(\d+)_", node.name)):
            found.setdefault(int(match[1]), []).append(node.name)
    return found


def test_the_page_links_each_finding_to_its_tests() -> None:
    rows = re.findall(r"^\| (\d+) \|.*\| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    link = r"\[`(\w+)`\]\(\.\./\.\./tests/test_regressions\.py\)"
    linked = {int(number): re.findall(link, tests) for number, tests in rows}
    assert linked == finding_tests()
    assert set(linked) == {1, 2, 3, 4, 5, 6}
