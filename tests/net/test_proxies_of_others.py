"""Connects through proxies that others have written: microsocks and tinyproxy."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.support.faults import own_host
from tests.support.proxies import serving
from trio_connect import ConnectFailed, Endpoint, Source, TcpStream, connectx, now, tcp_connect, tcp_listen
from trio_connect.testing import echo

GREETING = b"220 first\r\n"


def microsocks(place: Endpoint, _folder: Path) -> list[str]:
    return ["microsocks", "-i", place.host, "-p", str(place.port), "-u", "user", "-P", "word"]


def tinyproxy(place: Endpoint, folder: Path) -> list[str]:
    path = folder / "tinyproxy.conf"
    path.write_text(
        f"Port {place.port}\nListen {place.host}\nTimeout 30\nBasicAuth user word\n"
        f'LogFile "{folder}/log"\nPidFile "{folder}/pid"\n'
    )
    return ["tinyproxy", "-d", "-c", str(path)]


PROXIES: dict[str, Callable[[Endpoint, Path], list[str]]] = {
    "socks5": microsocks, "socks5h": microsocks, "http": tinyproxy,
}  # fmt: skip
proxies = pytest.mark.parametrize(
    "scheme",
    [
        pytest.param(
            scheme,
            marks=pytest.mark.skipif(
                shutil.which(command.__name__) is None,
                reason=f"{command.__name__} is not installed: only a proxy of the tests' own is tried",
            ),
        )
        for scheme, command in PROXIES.items()
    ],
)


async def unused() -> Endpoint:
    async with await tcp_listen((own_host(), 0)) as listener:
        return listener.endpoint


@asynccontextmanager
async def running(scheme: str, folder: Path) -> AsyncGenerator[Endpoint, None]:
    """Run a proxy until the block is left."""
    place = await unused()
    quiet = subprocess.DEVNULL
    program = await trio.lowlevel.open_process(PROXIES[scheme](place, folder), stdout=quiet, stderr=quiet)
    try:
        with trio.fail_after(10):
            while True:
                try:
                    (await tcp_connect(place)).abort()
                    break
                except ConnectionRefusedError:
                    await trio.sleep(0.01)
        yield place
    finally:
        program.kill()
        with trio.CancelScope(shield=True):
            await program.wait()


async def greet(stream: TcpStream) -> None:
    await stream.send_all(GREETING)
    await echo(stream)


@proxies
async def test_a_proxy_of_others(scheme: str, tmp_path: Path) -> None:
    """All bytes come through, those that the server sends first too; refusals are told apart from a bad password."""
    async with running(scheme, tmp_path) as place, serving(greet) as target:
        good = [Source(proxy=f"{scheme}://user:word@{place}")]
        async with await connectx([target], now() + 5_000, sources=good) as stream:
            assert await stream.receive_exactly(len(GREETING)) == GREETING
            payload = bytes(100_000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, payload)
                assert await stream.receive_exactly(len(payload)) == payload
        with pytest.raises(ConnectFailed) as refused:
            await connectx([await unused()], now() + 5_000, sources=good)
        assert refused.value.attempts[0].phase == "connect"
        assert refused.value.errno == (errno.EHOSTUNREACH if scheme == "http" else errno.ECONNREFUSED)
        with pytest.raises(ConnectFailed) as wrong:
            await connectx([target], now() + 5_000, sources=[Source(proxy=f"{scheme}://user:hunter2@{place}")])
        assert (wrong.value.attempts[0].phase, wrong.value.errno) == ("bind", errno.EACCES)
        assert "hunter2" not in str(wrong.value)
