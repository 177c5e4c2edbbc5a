"""How attempts of a race begin: what is heard at once or after a pass, and that no socket stays when it goes wrong."""

from __future__ import annotations

import errno
from typing import Any

import pytest
import trio

from tests.support import faults
from tests.support.leaks import no_leaks
from tests.support.scripted import IN_PROGRESS, passes, script
from tests.support.streams import in_time
from trio_connect import ConnectFailed, Endpoint, connectx, now
from trio_connect._engine.spinning import Spinning
from trio_connect._net import attempt as attempt_module
from trio_connect._net.attempt import Attempt
from trio_connect._net.race import alone as module
from trio_connect._net.sockets.kernel_socket import KernelSocket

AWAY = [("192.0.2.1", 443), ("192.0.2.2", 443)]
WITHOUT_SUCH_A_ZONE = Endpoint("fe80::1%nosuch0", 9)


class Interruption(BaseException):
    pass


def interrupt(*_: Any) -> Any:
    raise Interruption


async def interrupt_pass() -> None:
    raise Interruption


@pytest.mark.parametrize(
    ("where", "name", "replacement"),
    [
        (KernelSocket, "begin", interrupt),
        (module, "cancel_shielded_checkpoint", interrupt_pass),
        (attempt_module, "cancel_shielded_checkpoint", interrupt_pass),
        (KernelSocket, "poll", interrupt),
        (Attempt, "_reject_self_connect", interrupt),
        (module, "TcpStream", interrupt),
    ],
    ids=["begin", "pass after the poll", "pass before the poll", "poll", "reject_self_connect", "TcpStream"],
)
async def test_an_interrupt_in_any_step_of_the_first_instant_closes_the_socket(monkeypatch, where, name, replacement):
    async with faults.echoing() as peer:
        # What other tests have taught the process about passes must not decide who makes the pass here.
        monkeypatch.setattr(attempt_module, "spinning", Spinning())
        monkeypatch.setattr(attempt_module.spinning, "credit", int(where is attempt_module))
        monkeypatch.setattr(where, name, replacement)
        async with no_leaks():
            with pytest.raises(Interruption):
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


async def test_now_or_never_hears_a_refusal_and_goes_on():
    with faults.refusing() as nobody:
        async with faults.echoing() as peer, no_leaks():
            stream = await in_time(lambda: connectx([nobody.pair, peer.address.pair], 0))
            assert [attempt.outcome for attempt in stream.report.attempts] == ["failed", "won"]
            stream.abort()


@pytest.mark.parametrize(
    ("where", "name"),
    [(KernelSocket, "begin"), (KernelSocket, "poll"), (Attempt, "_reject_self_connect")],
    ids=["begin", "poll", "reject_self_connect"],
)
async def test_an_interrupt_in_any_step_of_a_later_start_closes_its_socket(monkeypatch, where, name):
    calls = 0
    step = getattr(where, name)

    def interrupt_the_second(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Interruption
        return step(*args)

    with faults.refusing() as nobody:
        async with faults.echoing() as peer:
            monkeypatch.setattr(where, name, interrupt_the_second)
            if where is Attempt:  # the first attempt was refused, and so is not asked about itself
                calls = 1
            async with no_leaks():
                with pytest.raises(Interruption):
                    await connectx([nobody.pair, peer.address.pair])
    assert calls == 2


@pytest.mark.parametrize(
    ("codes", "floor"),
    [
        ([errno.ENETUNREACH], False),  # connect(2) itself: no packet left
        ([IN_PROGRESS, errno.ENETUNREACH], True),  # a router said so of a packet that had left
        ([IN_PROGRESS, errno.ECONNREFUSED], True),
    ],
)
async def test_what_is_heard_after_the_pass_is_an_answer_and_arms_the_floor(monkeypatch, codes, floor):
    script(monkeypatch, codes, [0])
    stream = await connectx(AWAY)
    failed, won = stream.report.attempts
    assert (failed.errno, won.cause) == (codes[-1], "failure")
    assert won.started is not None
    assert (won.started >= 0.010) is floor
    stream.abort()


async def test_a_failure_that_connect_itself_reports_starts_the_next_attempt_in_that_instant(monkeypatch):
    scripts = script(monkeypatch, [errno.ENETUNREACH], [0])
    with passes():
        stream = await connectx(AWAY)
    assert [each.asked_at for each in scripts] == [[0], [0]]
    stream.abort()


async def test_a_cancel_in_the_pass_after_which_a_refusal_is_heard_stops_the_next_attempt(monkeypatch):
    first, second = script(monkeypatch, [IN_PROGRESS, errno.ECONNREFUSED], [0])
    async with no_leaks():
        with trio.CancelScope() as scope:
            first.on_connect = scope.cancel
            await connectx([("127.0.0.1", 9), ("127.0.0.2", 9)])  # where no floor delays the next start
        assert scope.cancelled_caught
    assert second.made is None
