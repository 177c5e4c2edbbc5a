"""Kernel sockets whose connect(2) answers what a test says, and the passes of Trio's loop counted."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from trio_connect._engine.spinning import CREDIT
from trio_connect._net import attempt
from trio_connect._net.reactor import attempt as reactor_attempt
from trio_connect._net.sockets import open as open_module
from trio_connect._net.sockets import raw_socket as raw

IN_PROGRESS, ALREADY = errno.EINPROGRESS, errno.EALREADY

_passes = 0


class _Passes(trio.abc.Instrument):
    def before_io_wait(self, timeout: float) -> None:
        global _passes  # noqa: PLW0603
        _passes += 1


@contextmanager
def passes() -> Iterator[Callable[[], int]]:
    """Count the passes of the loop from here on."""
    global _passes  # noqa: PLW0603
    _passes = 0
    instrument = _Passes()
    trio.lowlevel.add_instrument(instrument)
    try:
        yield lambda: _passes
    finally:
        trio.lowlevel.remove_instrument(instrument)


class ScriptedSocket:
    """What a test knows of one socket: connect(2) answers `codes` in turn, the last one for ever.

    The socket itself is never connected, so it polls as writable at once.
    """

    def __init__(self, codes: list[int]) -> None:
        self.codes = codes
        self.asked_at: list[int] = []
        """The pass, counted by `passes`, in which connect(2) was called each time."""
        self.on_connect: Callable[[], object] = lambda: None
        """Called by the first connect(2)."""
        self.made: Any = None

    def fileno(self) -> int:
        """Return the descriptor of the socket that was made by this script."""
        fd: int = self.made.fileno()
        return fd

    def connect_ex(self) -> int:
        self.asked_at.append(_passes)
        if len(self.asked_at) == 1:
            self.on_connect()
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]


class _Socket(raw.CSocket):  # type: ignore[misc, valid-type]
    script: ScriptedSocket

    def connect_ex(self, _address: Any) -> int:
        return self.script.connect_ex()


def script(monkeypatch: pytest.MonkeyPatch, *scripts: list[int], spins: bool = True) -> list[ScriptedSocket]:
    """Have the sockets that are made from here on follow these scripts in turn.

    Args:
      scripts: what connect(2) answers, for each socket.
      spins: whether connects give the loop a pass before they look, as after passes that were enough.
    """
    monkeypatch.setattr(attempt.spinning, "credit", CREDIT if spins else 0)
    monkeypatch.setattr(attempt.spinning, "untried", 0)
    monkeypatch.setattr(reactor_attempt.at_once, "credit", 0)
    monkeypatch.setattr(reactor_attempt.at_once, "untried", 0)
    given = [ScriptedSocket(codes) for codes in scripts]
    left = iter(given)

    def make(family: int) -> Any:
        sock = _Socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        sock.script = next(left)
        sock.script.made = sock
        return sock

    monkeypatch.setattr(attempt, "new_socket", make)
    monkeypatch.setattr(open_module, "new_socket", make)
    return given
