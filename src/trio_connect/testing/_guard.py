"""Refuses real connects: while a virtual network is active in a thread, no standard library socket connects from it.

A library that bypasses `trio.socket` would otherwise reach the real network from a test. An audit hook cannot be
removed, so there is one per process, installed with the first network. Unless a network is active it only reads a
thread-local list.
"""

from __future__ import annotations

import functools
import socket
import sys
import threading

from ._errors import RealSocketUsed
from ._fabric import Fabric


class _Active(threading.local):
    fabrics: tuple[Fabric, ...] = ()


_active = _Active()


def activate(fabric: Fabric) -> None:
    """Forbid real connects in this thread."""
    _install()
    _active.fabrics += (fabric,)


@functools.cache
def _install() -> None:
    sys.addaudithook(_hook)


def deactivate(fabric: Fabric) -> None:
    """Allow them again."""
    _active.fabrics = tuple(other for other in _active.fabrics if other is not fabric)


def _hook(event: str, arguments: tuple[object, ...]) -> None:  # pragma: no cover - Python does not trace audit hooks
    if event != "socket.connect" or not _active.fabrics:
        return
    real, address = arguments
    if getattr(real, "family", None) == getattr(socket, "AF_UNIX", -1):
        return
    raise _active.fabrics[-1].failed(
        RealSocketUsed(
            f"a standard library socket was about to connect to {address!r} while a virtual network was active: "
            "only sockets from trio.socket are virtual"
        )
    )
