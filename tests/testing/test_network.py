"""How the network gets under a run, what it does not let pass, and that it leaves nothing behind."""

from __future__ import annotations

import errno
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

import trio_connect.testing
from trio_connect.testing import (
    NotOnVirtualNetwork,
    NotVirtualTime,
    RealSocketUsed,
    UnknownHost,
    VirtualNetwork,
    VirtualNetworkError,
    echo,
    run,
)

A = "192.0.2.1"


def clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


def tasks(nursery: trio.Nursery) -> Iterator[str]:
    for task in nursery.child_tasks:
        yield task.name
        for child in task.child_nurseries:
            yield from tasks(child)


def every_task() -> list[str]:
    root = trio.lowlevel.current_root_task()
    assert root is not None
    return sorted(name for nursery in root.child_nurseries for name in tasks(nursery))


async def talk() -> None:
    async with await trio.open_tcp_stream(A, 7) as stream:
        await stream.send_all(b"hello")
        assert await stream.receive_some() == b"hello"


def test_as_an_instrument_of_a_run() -> None:
    net = VirtualNetwork()
    net.host(A).listen(7, echo)
    trio.run(talk, clock=clock(), instruments=[net])
    assert not net.active
    net.verify()


def test_as_a_context_manager_inside_a_run() -> None:
    async def main() -> None:
        before = every_task()
        net = VirtualNetwork()
        net.host(A).listen(7, echo, rtt=0.1)
        await trio.sleep(5)
        with net:
            assert net.active
            await talk()
            assert net.trace.starts == {A: 0.0}
        assert not net.active
        await trio.testing.wait_all_tasks_blocked()
        assert every_task() == before
        with trio.socket.socket() as real:
            assert real.fileno() < 2**20
        net.verify()

    trio.run(main, clock=clock())


def test_leaving_it_ends_its_handlers_and_wakes_who_waits_on_its_sockets() -> None:
    async def main() -> None:
        before = every_task()
        net = VirtualNetwork()
        ended: list[str] = []

        async def wait(stream: trio.SocketStream) -> None:
            try:
                await stream.receive_some()
            except trio.Cancelled:
                ended.append("handler")
                raise

        net.host(A).listen(7, wait, rtt=0.1)
        net.host("192.0.2.2").blackhole()

        async def read(stream: trio.SocketStream) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()
            ended.append("reader")

        async def connect() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await trio.socket.socket().connect(("192.0.2.2", 7))
            ended.append("connect")

        async with trio.open_nursery() as nursery:
            with net:
                nursery.start_soon(read, await trio.open_tcp_stream(A, 7))
                nursery.start_soon(connect)
                await trio.sleep(1)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(ended) == ["connect", "handler", "reader"]
        assert every_task() == before
        assert net.open_sockets == ()
        net.verify()

    trio.run(main, clock=clock())


def test_it_puts_back_what_was_installed_before() -> None:
    async def main() -> None:
        with VirtualNetwork() as outer:
            outer.host(A).listen(7, echo)
            with VirtualNetwork() as inner:
                inner.host(A).refuse()
                with pytest.raises(OSError, match="all attempts"):
                    await talk()
            await talk()

    trio.run(main, clock=clock())


def test_one_network_serves_one_run() -> None:
    net = VirtualNetwork()
    net.host(A).listen(7, echo)
    trio.run(talk, clock=clock(), instruments=[net])

    async def again() -> None:
        with pytest.raises(VirtualNetworkError, match="one run"):
            trio.socket.socket()
        with pytest.raises(VirtualNetworkError, match="one run"), net:
            pass

    trio.run(again, clock=clock(), instruments=[net])
    with pytest.raises(BaseExceptionGroup) as group:
        net.verify()
    assert group.group_contains(VirtualNetworkError, match="one run")


def test_a_real_clock_is_refused_at_every_use_and_remembered() -> None:
    net = VirtualNetwork()
    net.dns("api.test", [A])

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(NotVirtualTime, match="autojump_clock"):
                trio.socket.socket()
            with pytest.raises(NotVirtualTime):
                await trio.socket.getaddrinfo("api.test", 80)
            with pytest.raises(NotVirtualTime):
                await trio.socket.getnameinfo((A, 80), 0)

    trio.run(main, instruments=[net])
    with pytest.raises(NotVirtualTime):
        net.verify()

    async def within() -> None:
        with pytest.raises(NotVirtualTime), VirtualNetwork():
            pass

    trio.run(within)


def test_an_unknown_address_is_no_oserror_and_cannot_be_swallowed() -> None:
    async def main(net: VirtualNetwork) -> None:
        for address in ("198.51.100.7", "2001:db8::77"):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with trio.socket.socket(family) as sock, pytest.raises(UnknownHost) as caught:
                await sock.connect((address, 443))
            assert caught.value.name == address
            assert not isinstance(caught.value, OSError)
        assert "unknown host" in net.trace.waterfall()
        assert net.trace.starts == {}

    with pytest.raises(BaseExceptionGroup) as group:
        run(main)
    assert group.group_contains(UnknownHost, match=r"198\.51\.100\.7")
    assert group.group_contains(UnknownHost, match="2001:db8::77")


def test_failures_survive_pickling_for_xdist() -> None:
    error = pickle.loads(pickle.dumps(UnknownHost("api.test", "describe it")))
    assert (type(error), error.name, str(error)) == (UnknownHost, "api.test", "unknown host api.test: describe it")


@pytest.mark.parametrize("address", [("127.0.0.1", 9), (A, 9)])
def test_a_real_socket_may_not_connect_from_this_thread(address: tuple[str, int]) -> None:
    async def main(net: VirtualNetwork) -> None:
        with socket.socket() as sock, pytest.raises(RealSocketUsed, match=address[0]):
            sock.connect(address)
        with socket.socket() as sock, pytest.raises(RealSocketUsed):
            sock.connect_ex(address)
        with trio.socket.from_stdlib_socket(socket.socket()) as real, pytest.raises(RealSocketUsed):
            await real.connect(address)

    with pytest.raises(BaseExceptionGroup) as group:
        run(main)
    assert group.group_contains(RealSocketUsed)


def test_unix_sockets_other_threads_and_other_times_are_left_alone(tmp_path: object) -> None:
    async def main(net: VirtualNetwork) -> None:
        with socket.socket(socket.AF_UNIX) as sock, pytest.raises(FileNotFoundError):
            sock.connect(f"{tmp_path}/nobody")
        outcome: list[object] = []

        def elsewhere() -> None:
            with socket.socket() as sock:
                outcome.append(sock.connect_ex(("127.0.0.1", 9)))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert outcome == [errno.ECONNREFUSED]
        a, b = trio.socket.socketpair()
        with a, b:
            await a.send(b"x")

    run(main)
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", 9)) == errno.ECONNREFUSED


IMPOSSIBLE: dict[str, Callable[[], object]] = {
    "unix": lambda: trio.socket.socket(socket.AF_UNIX),
    "datagrams": lambda: trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "detach": lambda: trio.socket.socket().detach(),
    "dup": lambda: trio.socket.socket().dup(),
    "inheritance": lambda: trio.socket.socket().set_inheritable(True),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_it_does_not_have_it_says_loudly(what: str) -> None:
    async def main(net: VirtualNetwork) -> None:
        with pytest.raises(NotImplementedError, match="virtual"):
            IMPOSSIBLE[what]()

    with pytest.raises(NotOnVirtualNetwork):
        run(main)


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ((socket.AF_INET, socket.SOCK_STREAM, 262), errno.EPROTONOSUPPORT),  # MPTCP
        ((socket.AF_INET, socket.SOCK_STREAM, 132), errno.EPROTONOSUPPORT),  # SCTP
        ((getattr(socket, "AF_VSOCK", 40),), errno.EAFNOSUPPORT),
    ],
)
def test_what_a_kernel_may_lack_is_an_oserror(arguments: tuple[int, ...], number: int) -> None:
    async def main(net: VirtualNetwork) -> None:
        with pytest.raises(OSError) as caught:
            trio.socket.socket(*arguments)
        assert caught.value.errno == number

    run(main)


class Oops(Exception):
    pass


def test_a_handlers_error_fails_the_test_as_itself_and_names_the_handler() -> None:
    async def fail(stream: trio.SocketStream) -> None:
        raise Oops

    async def main(net: VirtualNetwork) -> str:
        net.host(A).listen(7, fail)
        async with await trio.open_tcp_stream(A, 7) as stream:
            assert await stream.receive_some() == b""
        return "done"

    with pytest.raises(Oops) as caught:
        run(main)
    assert any(A in note for note in caught.value.__notes__)


def test_even_a_handler_that_fails_badly_does_not_take_the_run_down() -> None:
    async def fail(stream: trio.SocketStream) -> None:
        pytest.fail("an assertion of the test")

    async def main(net: VirtualNetwork) -> None:
        net.host(A).listen(7, fail)
        async with await trio.open_tcp_stream(A, 7) as stream:
            await stream.receive_some()

    with pytest.raises(pytest.fail.Exception, match="an assertion"):
        run(main)


def test_a_handler_whose_peer_went_away_is_no_failure() -> None:
    async def babble(stream: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, b"x" * 1_000_000)

    async def main(net: VirtualNetwork) -> None:
        net.host(A).listen(7, babble)
        await (await trio.open_tcp_stream(A, 7)).aclose()
        await trio.sleep(1)
        assert [event.detail for event in net.trace.events if event.kind == "handler"] == ["peer went away"]

    run(main)


def test_a_handler_is_over_when_the_run_is() -> None:
    async def main(net: VirtualNetwork) -> trio.SocketStream:
        net.host(A).listen(7, echo)
        return await trio.open_tcp_stream(A, 7)

    stream = run(main)
    assert stream.socket.fileno() > 2**30


def test_run_passes_arguments_results_and_exceptions() -> None:
    async def main(net: VirtualNetwork, left: int, right: str) -> tuple[int, int, str]:
        return net.seed, left, right

    assert run(main, 1, "two", seed=9) == (9, 1, "two")

    async def fail(net: VirtualNetwork) -> None:
        raise Oops

    with pytest.raises(Oops) as caught:
        run(fail, seed=5)
    assert "seed 5" in caught.value.__notes__[0]


def test_open_sockets_are_those_that_the_program_forgot() -> None:
    async def main(net: VirtualNetwork) -> None:
        net.host(A).listen(7, echo)
        stream = await trio.open_tcp_stream(A, 7)
        assert list(net.open_sockets) == [stream.socket]
        await stream.aclose()
        assert net.open_sockets == ()

    run(main)


def test_public_names_say_where_they_are_imported_from() -> None:
    for name in vars(trio_connect.testing)["__all__"]:
        assert getattr(getattr(trio_connect.testing, name), "__module__", "trio_connect.testing") in (
            "trio_connect.testing",
            "collections.abc",
            "typing",
        )


def test_a_handler_that_leaves_the_network_fails_the_test_once() -> None:
    async def wander(stream: trio.SocketStream) -> None:
        await trio.open_tcp_stream("198.51.100.1", 80)

    async def main(net: VirtualNetwork) -> None:
        net.host(A).listen(7, wander)
        async with await trio.open_tcp_stream(A, 7) as stream:
            assert await stream.receive_some() == b""

    with pytest.raises(UnknownHost):
        run(main)


def test_importing_it_does_not_import_pytest() -> None:
    program = "import sys, trio_connect.testing; sys.exit('pytest' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(Path(trio_connect.testing.__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
