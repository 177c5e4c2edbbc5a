"""Unix-domain connects: each errno of the kernel's, and the full backlog that is no success."""

from __future__ import annotations

import errno
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.sockets import Sockets
from trio_connect import DeadlineExceeded, UnixListener, UnixStream, now, unix_connect, unix_listen
from trio_connect._net.listeners.unix_listener import listen_on_path
from trio_connect._net.sockets.kernel_socket import KernelSocket


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        (None, TypeError, "path must be a str, bytes or path object, got None"),
        (3, TypeError, "path must be a str, bytes or path object, got 3"),
        ("", ValueError, "path must not be empty"),
        (b"", ValueError, "path must not be empty"),
        ("a\0b", ValueError, r"path must not contain NUL, except first for an abstract name, got 'a\x00b'"),
    ],
    ids=repr,
)
async def test_bad_paths_meet_no_socket(sockets: Sockets, path: Any, error: type[Exception], text: str) -> None:
    async with no_leaks(counters=sockets.counters):
        for call in (unix_connect, unix_listen):
            with pytest.raises(error, match=re.escape(text)):
                await call(path)
    assert sockets.factory is None or sockets.factory.created == 0


async def test_a_platform_without_them_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    for call in (unix_connect, unix_listen):
        with pytest.raises(OSError, match="local: socket for") as caught:
            await call(tmp_path / "x")
        assert caught.value.errno == errno.EAFNOSUPPORT


@pytest.fixture
def faulty(tmp_path: Path) -> dict[str, Path]:
    """A path for each errno that a unix-domain connect can meet."""
    regular = tmp_path / "regular"
    regular.touch()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.fspath(stale))
    return {
        "missing": tmp_path / "missing",
        "no folder": regular / "x",
        "loop": loop / "x",
        "stale": stale,
        "regular": regular,
        "long": tmp_path / ("x" * 108),
    }


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("missing", errno.ENOENT, r"failed \(no such file or directory\)"),
        ("no folder", errno.ENOTDIR, r"failed \(not a directory\)"),
        ("loop", errno.ELOOP, r"failed \(too many levels of symbolic links\)"),
        ("stale", errno.ECONNREFUSED, "refused"),
        ("regular", errno.ECONNREFUSED, "refused"),
        ("long", errno.ENAMETOOLONG, r"failed \(file name too long\)"),
    ],
)
async def test_errnos_of_paths(sockets: Sockets, faulty: dict[str, Path], name: str, code: int, words: str) -> None:
    async with no_leaks(counters=sockets.counters):
        for path in (faulty[name], os.fsencode(faulty[name])):
            with trio.testing.assert_checkpoints(), pytest.raises(OSError, match="connect to") as caught:
                await unix_connect(path)
            assert caught.value.errno == code
            assert type(caught.value) is type(OSError(code, ""))
            shape = rf"\[Errno {code}\] connect to {re.escape(str(faulty[name]))} from this machine {words} after .* ms"
            assert re.fullmatch(shape, str(caught.value))
            del caught


async def test_a_socket_of_another_type(sockets: Sockets, tmp_path: Path) -> None:
    async with no_leaks(counters=sockets.counters):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(os.fspath(tmp_path / "datagram"))
            with pytest.raises(OSError, match="wrong type") as caught:
                await unix_connect(tmp_path / "datagram")
            assert caught.value.errno == errno.EPROTOTYPE
            del caught


async def test_an_absent_abstract_name(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        with pytest.raises(ConnectionRefusedError, match="connect to @trio-connect-absent from this machine refused"):
            await unix_connect("\0trio-connect-absent")


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="permissions do not bind root")
async def test_a_path_without_permission(sockets: Sockets, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    path = folder / "socket"
    async with no_leaks(counters=sockets.counters):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(os.fspath(path))
            sock.listen()
            folder.chmod(0)
            root = os.geteuid() == 0
            if root:
                os.seteuid(65534)  # nobody
            try:
                with pytest.raises(PermissionError, match=r"failed \(permission denied\)") as caught:
                    await unix_connect(path)
            finally:
                if root:
                    os.seteuid(0)
                folder.chmod(0o700)
            assert caught.value.errno == errno.EACCES
            del caught


async def test_no_free_descriptor(sockets: Sockets, tmp_path: Path) -> None:
    async with no_leaks(counters=sockets.counters):
        for call in (unix_connect, unix_listen):
            with faults.descriptors_exhausted(), pytest.raises(OSError, match=r"local: socket for .*: too many open"):
                await call(tmp_path / "x")


# --- a full backlog ---------------------------------------------------------------------------------------------------


async def test_a_full_backlog_is_waited_for(sockets: Sockets, tmp_path: Path) -> None:
    async with no_leaks(counters=sockets.counters):
        listener = await unix_listen(tmp_path / "socket", backlog=0)
        first = await unix_connect(listener.path)
        got: list[UnixStream] = []
        async with trio.open_nursery() as nursery:

            async def connecting() -> None:
                got.append(await unix_connect(listener.path, now() + 10_000))

            nursery.start_soon(connecting)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert not got
            accepted = [await listener.accept()]
            accepted.append(await listener.accept(now() + 5000))
        await got[0].send_all(b"x")
        assert await accepted[1].receive_some() == b"x"
        for stream in (first, *got, *accepted):
            await stream.aclose()
        await listener.aclose()


async def test_waiting_for_room_is_no_busy_loop(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    begin = KernelSocket.begin

    def counted(self: KernelSocket, address: Any) -> int:
        nonlocal tries
        tries += 1
        return begin(self, address)

    monkeypatch.setattr(KernelSocket, "begin", counted)
    async with no_leaks():
        with faults.full_unix_backlog() as path, pytest.raises(DeadlineExceeded, match="whose backlog is full"):
            await unix_connect(path, now() + 200)
    assert 8 <= tries <= 14


async def test_a_connect_that_begins_after_its_deadline_has_done_nothing(sockets: Sockets) -> None:
    with pytest.raises(DeadlineExceeded, match="connect to /nowhere did not begin") as caught:
        await unix_connect("/nowhere", now() - 1)
    assert caught.value.report is not None
    assert caught.value.report.attempts == ()


async def test_a_listener_that_goes_while_its_backlog_is_waited_for(sockets: Sockets) -> None:
    async with no_leaks(counters=sockets.counters):
        with faults.full_unix_backlog() as path:
            os.unlink(path)
            with pytest.raises(FileNotFoundError):
                await unix_connect(path, now() + 5000)


# --- addresses and paths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "bytes", "path", "abstract"])
async def test_each_kind_of_path(sockets: Sockets, tmp_path: Path, kind: str) -> None:
    path: Any = {
        "text": str(tmp_path / "socket"),
        "bytes": os.fsencode(tmp_path / "socket"),
        "path": tmp_path / "socket",
        "abstract": f"\0trio-connect-{os.getpid()}",
    }[kind]
    async with no_leaks(counters=sockets.counters):
        listener = await unix_listen(path)
        assert isinstance(listener, UnixListener)
        near = await unix_connect(path, 0)
        far = await listener.accept(0)
        assert (near.peer, listener.path) == (os.fspath(path), os.fspath(path))
        assert near.local in ("", b"")
        assert far.peer in ("", b"")
        assert near.report.attempts == ()
        await near.send_all(b"x")
        assert await far.receive_some() == b"x"
        for resource in (near, far, listener):
            await resource.aclose()
        assert not os.listdir(tmp_path)


@pytest.mark.parametrize("length", [107, 108])
async def test_the_longest_path(sockets: Sockets, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, length: int) -> None:
    monkeypatch.chdir(tmp_path)
    # An abstract name is everybody's on this machine, and the other kind of socket may have its turn in another worker.
    name = f"{os.getpid()}-".ljust(length, "x")
    async with no_leaks(counters=sockets.counters):
        if length == 107:
            async with await unix_listen(name):
                await (await unix_connect(name)).aclose()
            async with await unix_listen("\0" + name):
                await (await unix_connect("\0" + name)).aclose()
        for call, path in ((unix_connect, name), (unix_listen, name), (unix_listen, "\0" + name)):
            if length == 108:
                with pytest.raises(OSError, match="file name too long") as caught:
                    await call(path)
                assert caught.value.errno == errno.ENAMETOOLONG
                del caught


async def test_a_path_that_exists_is_left_alone(sockets: Sockets, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with no_leaks(counters=sockets.counters):
        listener = await unix_listen(path)
        with pytest.raises(OSError, match=r"local: bind for .*: address already in use") as caught:
            await unix_listen(path)
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(FileNotFoundError, match="local: bind for"):
            await unix_listen(tmp_path / "missing" / "socket")
        assert path.exists()
        await listener.aclose()
        assert not path.exists()
        del caught


async def test_closing_removes_no_successors_path(sockets: Sockets, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with no_leaks(counters=sockets.counters):
        first = await unix_listen(path)
        path.unlink()
        second = await unix_listen(path)
        await first.aclose()
        await (await unix_connect(path)).aclose()
        path.unlink()
        await second.aclose()
        kept = await listen_on_path(path, None, remove=False)
        await kept.aclose()
        assert path.exists()


async def test_a_cancelled_listen_leaves_no_path(sockets: Sockets, tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await unix_listen(tmp_path / "socket")
    assert scope.cancelled_caught
    assert not os.listdir(tmp_path)


async def test_a_client_that_has_no_name_is_named_by_where_it_came(sockets: Sockets, tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    client = f"a client of {path}"
    async with await unix_listen(path) as listener, await unix_connect(path) as near:
        async with await listener.accept() as far:
            assert far.peer == ""
            assert repr(far) == f"<UnixStream to {client}>"
            with pytest.raises(DeadlineExceeded, match=f"^.*receive from {client} had no result by its deadline"):
                await far.receive_some(1, 0)
            await near.send_all(b"abc")
            with pytest.raises(OSError, match=f"within 2 bytes from {client}$"):
                await far.receive_until(b"x", 2)
            await near.send_eof()
            with pytest.raises(trio.BrokenResourceError, match=f"^{client} ended the stream before 4 bytes"):
                await far.receive_exactly(4)
            await near.aclose()
            with pytest.raises(trio.BrokenResourceError, match=f"^send: connection with {client} broke"):
                await far.send_all(b"x")
        with pytest.raises(trio.ClosedResourceError, match=f"^the stream with {client} is closed$"):
            await far.receive_some()


async def test_neither_end_of_a_pair_has_a_name() -> None:
    left, right = socket.socketpair()
    async with UnixStream.from_socket(left) as near, UnixStream.from_socket(right):
        assert repr(near) == "<UnixStream to a peer without a name>"
        with pytest.raises(DeadlineExceeded, match="receive from a peer without a name had no result"):
            await near.receive_some(1, 0)
