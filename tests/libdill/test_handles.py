"""Handles: numbers, kinds, closing; and the rules that hold for every call with a handle or a deadline."""

from __future__ import annotations

import errno
import gc
import socket
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

import trio_connect
from tests.libdill.kit import connected, counters, fails, ipc_pair, listen, loopback, receive, send, tcp_pair
from tests.support import faults
from tests.support.leaks import no_leaks
from trio_connect import libdill as dill

PIECE = dill.iolist(bytearray(1), 1)
# Every call that takes a handle and a deadline.
CALLS: dict[str, Callable[..., Awaitable[object]]] = {
    "bsend": lambda h, d=-1: dill.bsend(h, b"x", 1, d),
    "brecv": lambda h, d=-1: dill.brecv(h, bytearray(1), 1, d),
    "bsendl": lambda h, d=-1: dill.bsendl(h, PIECE, PIECE, d),
    "brecvl": lambda h, d=-1: dill.brecvl(h, PIECE, PIECE, d),
    "tcp_accept": lambda h, d=-1: dill.tcp_accept(h, None, d),
    "tcp_done": dill.tcp_done,
    "tcp_close": dill.tcp_close,
    "ipc_accept": dill.ipc_accept,
    "ipc_done": dill.ipc_done,
    "ipc_close": dill.ipc_close,
    "ipc_sendfd": lambda h, d=-1: dill.ipc_sendfd(h, 0, d),
    "ipc_recvfd": dill.ipc_recvfd,
}
STREAM = {"bsend", "brecv", "bsendl", "brecvl"}
FITS = {
    "tcp connection": STREAM | {"tcp_done", "tcp_close"},
    "tcp listener": {"tcp_accept", "tcp_close"},
    "ipc connection": STREAM | {"ipc_done", "ipc_close", "ipc_sendfd", "ipc_recvfd"},
    "ipc listener": {"ipc_accept", "ipc_close"},
}


async def make(kind: str, tmp_path) -> tuple[int, ...]:
    if kind == "tcp connection":
        return await tcp_pair()
    if kind == "tcp listener":
        return ((await listen())[0],)
    if kind == "ipc connection":
        return ipc_pair()
    return (await dill.ipc_listen(tmp_path / "s", 10),)


def test_every_name_is_listed_and_says_where_it_is_from():
    listed = {name for name in vars(dill) if not name.startswith("_")}
    assert set(vars(dill)["__all__"]) == listed - {"annotations"}
    for name in listed:
        module = getattr(getattr(dill, name), "__module__", "trio_connect.libdill")
        assert module == ("trio_connect" if name == "now" else "trio_connect.libdill")
    assert dill.now is trio_connect.now


@pytest.mark.parametrize("name", CALLS)
async def test_an_unknown_handle_is_ebadf(name):
    for handle in (-1, 5, 1 << 40):
        with trio.testing.assert_checkpoints(), fails(errno.EBADF):
            await CALLS[name](handle, -1)
        with fails(errno.EBADF):
            dill.hclose(handle)
    for wrong in (True, "1", None, 1.0):
        with pytest.raises(TypeError):
            await CALLS[name](wrong, -1)


@pytest.mark.parametrize("kind", FITS)
async def test_the_wrong_kind_is_enotsup_and_does_no_harm(kind, tmp_path):
    handles = await make(kind, tmp_path)
    for name in CALLS.keys() - FITS[kind]:
        with trio.testing.assert_checkpoints(), fails(errno.ENOTSUP):
            await CALLS[name](handles[0], 0)
    for handle in handles:
        assert dill.hclose(handle) == 0


@pytest.mark.parametrize("kind", FITS)
async def test_a_negative_deadline_other_than_minus_one_is_einval(kind, tmp_path):
    handles = await make(kind, tmp_path)
    for name in FITS[kind]:
        for deadline in (-2, -(1 << 63)):
            with fails(errno.EINVAL):
                await CALLS[name](handles[0], deadline)
        for wrong in (True, 1.5, None):
            with pytest.raises(TypeError):
                await CALLS[name](handles[0], wrong)
    for handle in handles:
        assert dill.hclose(handle) == 0


async def test_a_negative_deadline_without_a_handle_is_einval(tmp_path):
    reading, writing = socket.socketpair()
    with reading, writing:
        for call in (
            lambda d: dill.tcp_connect(loopback(1), d),
            lambda d: dill.ipc_connect(tmp_path / "s", d),
            dill.msleep,
            lambda d: dill.fdin(reading.fileno(), d),
            lambda d: dill.fdout(reading.fileno(), d),
            lambda d: dill.ipaddr_remote(dill.ipaddr(), "127.0.0.1", 1, 0, d),
            lambda d: dill.ipaddr_remotes([dill.ipaddr()], 1, "127.0.0.1", 1, 0, d),
        ):
            with fails(errno.EINVAL):
                await call(-2)


async def test_six_hundred_closed_connections_leave_no_handle():
    """libdill: `tcp_close` leaks the number, and 600 connections reach handle 1300."""
    listener, addr = await listen()
    async with no_leaks(counters=counters()):
        highest = 0
        for _ in range(600):
            client = await dill.tcp_connect(addr, -1)
            server = await dill.tcp_accept(listener, None, -1)
            highest = max(highest, client, server)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dill.tcp_close, client, -1)
                nursery.start_soon(dill.tcp_close, server, -1)
    assert highest < 256
    dill.hclose(listener)


async def test_numbers_are_reused_late_and_a_stale_one_is_ebadf():
    first = ipc_pair()
    for handle in first:
        dill.hclose(handle)
    for _ in range(100):
        for handle in (pair := ipc_pair()):
            dill.hclose(handle)
        assert not set(pair) & set(first)
    with fails(errno.EBADF):
        dill.hclose(first[0])
    many = [handle for _ in range(150) for handle in ipc_pair()]
    assert len(set(many)) == 300
    for handle in many:
        dill.hclose(handle)


def test_handles_mean_nothing_in_another_run():
    async def leave_one() -> None:
        one, other = ipc_pair()
        dill.hclose(other)
        leaked.append(one)

    async def look(handle: int) -> None:
        with fails(errno.EBADF):
            dill.hclose(handle)

    leaked: list[int] = []

    def run_and_collect() -> None:
        trio.run(leave_one)
        gc.collect()

    with pytest.warns(ResourceWarning):
        run_and_collect()
    trio.run(look, leaked[0])


async def test_hown_gives_a_new_number_and_ends_the_old():
    async with connected() as (client, server):
        new = dill.hown(client)
        assert new != client
        with fails(errno.EBADF):
            await dill.bsend(client, b"x", 1, -1)
        await send(new, b"x")
        assert await receive(server, 1) == b"x"
        dill.hclose(new)
        with fails(errno.EBADF):
            dill.hown(new)


async def test_hclose_resets(sockets):
    async with connected() as (client, server):
        dill.hclose(client)
        with fails(errno.ECONNRESET):
            await receive(server, 1)
        with fails(errno.EBADF):
            dill.hclose(client)


@pytest.mark.parametrize("name", ["bsend", "brecv", "tcp_accept", "ipc_sendfd", "ipc_recvfd", "ipc_accept"])
async def test_closing_a_handle_in_use_wakes_its_user_with_ebadf(sockets, tmp_path, name):
    """libdill aborts the process."""
    async with no_leaks(counters=counters(sockets)):
        if name.endswith("accept"):
            handles = await make(f"{name[:3]} listener", tmp_path)
        elif name.startswith("ipc"):
            listener = await dill.ipc_listen(tmp_path / "s", 1)
            handles = (await dill.ipc_connect(tmp_path / "s", -1), await dill.ipc_accept(listener, -1))
            dill.hclose(listener)
        else:
            handles = await tcp_pair()
        call = CALLS[name]
        if name == "bsend":
            # Not of one byte when there is no room: over TCP the kernel finds room again, some time later.
            data = bytes(faults.more_than_fits())
            call = lambda h, d=-1: dill.bsend(h, data, len(data), d)  # noqa: E731
        elif name == "ipc_sendfd":
            with fails(errno.ETIMEDOUT):
                while True:
                    await send(handles[0], bytes(1 << 20), 0)

        async def use() -> None:
            with fails(errno.EBADF):
                await call(handles[0], -1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await trio.testing.wait_all_tasks_blocked()
            with fails(errno.EBUSY):
                await call(handles[0], -1)
            for handle in handles:
                dill.hclose(handle)
