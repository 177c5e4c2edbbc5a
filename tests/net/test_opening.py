"""The first instant of a race: whatever goes wrong in it, the socket is closed."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from tests.support import faults
from tests.support.leaks import no_leaks
from trio_connect import ConnectFailed, Endpoint, connectx, now
from trio_connect._net import connectx as module
from trio_connect._net.raw import RawSocket

WITHOUT_SUCH_A_ZONE = Endpoint("fe80::1%nosuch0", 9)


class Bug(BaseException):
    pass


def interrupted(*_: Any) -> Any:
    raise Bug


async def interrupted_pass() -> None:
    raise Bug


@pytest.mark.parametrize(
    ("where", "name", "replacement"),
    [
        (RawSocket, "begin", interrupted),
        (module, "cancel_shielded_checkpoint", interrupted_pass),
        (RawSocket, "look", interrupted),
        (module, "settle", interrupted),
        (module, "TcpStream", interrupted),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_interrupt_in_any_step_of_the_first_instant_closes_the_socket(monkeypatch, where, name, replacement):
    async with faults.echoing() as peer:
        monkeypatch.setattr(where, name, replacement)
        async with no_leaks():
            with pytest.raises(Bug):
                await connectx([peer.address.pair])


async def test_a_zone_that_names_no_interface_fails_the_attempt_and_closes_its_socket():
    async with faults.echoing() as peer:
        async with no_leaks():
            stream = await connectx([WITHOUT_SUCH_A_ZONE, peer.address.pair])
            failed, won = stream.report.attempts
            assert (failed.outcome, failed.phase, failed.errno) == ("failed", "socket", errno.ENODEV)
            assert (won.outcome, won.cause) == ("won", "failure")
            stream.abort()
        async with no_leaks():
            with pytest.raises(ConnectFailed, match="no such device") as caught:
                await connectx([WITHOUT_SUCH_A_ZONE], now() + 1_000)
            assert caught.value.errno == errno.ENODEV
            del caught


@pytest.mark.parametrize("past", [0, 1], ids=["0", "past"])
async def test_now_or_never_hears_a_refusal_and_goes_on(past):
    with faults.refusing() as nobody:
        async with faults.echoing() as peer, no_leaks():
            stream = await connectx([nobody.pair, peer.address.pair], past)
            assert [attempt.outcome for attempt in stream.report.attempts] == ["failed", "won"]
            stream.abort()
