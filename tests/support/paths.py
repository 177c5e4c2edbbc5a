"""The ways in which many operations are waited for: by a reactor, and by a task each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from tests.support.sockets import Sockets
from trio_connect._net.reactor.reactor import Reactor

PATHS: Final = ("reactor", "tasks", "factory")
"""A reactor; tasks on the kernel's sockets, as on a system without epoll; tasks on those of a socket factory."""


def without_reactor(patch: pytest.MonkeyPatch) -> None:
    """Have no reactor from here on."""
    patch.setattr(Reactor, "open", lambda: None)


@contextmanager
def over(path: str, patch: pytest.MonkeyPatch) -> Iterator[Sockets]:
    """Have operations go over one of `PATHS`, inside."""
    if path == "tasks":
        without_reactor(patch)
    with Sockets.to("factory" if path == "factory" else "kernel").installed() as opened:
        yield opened
