"""Ctrl-C: the first ends what is under way, so that what is known can be written; the second ends the command."""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager

import trio


class Interrupt:
    """The first SIGINT: ends the scope that is entered, and every later one."""

    def __init__(self) -> None:
        self.happened = False
        self._scope: trio.CancelScope | None = None

    def __call__(self) -> None:
        """Take note of a SIGINT."""
        self.happened = True
        if self._scope is not None:
            self._scope.cancel()

    @contextmanager
    def scope(self) -> Generator[trio.CancelScope]:
        """Enter a scope that SIGINT ends."""
        with trio.CancelScope() as self._scope:
            if self.happened:
                self._scope.cancel()
            yield self._scope


@contextmanager
def interruptible() -> Generator[Interrupt]:
    """Have SIGINT end the scopes of what is given out. A second one is Trio's: it raises KeyboardInterrupt."""
    # Not open_signal_receiver: it needs a task, and a second Ctrl-C has to end the command whatever its tasks do.
    interrupt = Interrupt()
    token = trio.lowlevel.current_trio_token()

    def first(_signal: int, _frame: object) -> None:
        # A shell starts what runs in the background with SIGINT ignored.
        signal.signal(signal.SIGINT, before if callable(before) else signal.default_int_handler)
        token.run_sync_soon(interrupt)

    before = signal.signal(signal.SIGINT, first)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
