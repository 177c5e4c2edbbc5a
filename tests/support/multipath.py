"""Have the tests of TCP run over MPTCP: every `tcp_connect` and `tcp_listen` of theirs then asks for it.

Switched on by the variable TRIO_CONNECT_MULTIPATH of the environment, which the laboratory sets for the suites that
must hold for both. Test modules import the two names after this has replaced them.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any, Final

import attrs

import trio_connect
from trio_connect import SocketOptions

SWITCHED_ON: Final = bool(os.environ.get("TRIO_CONNECT_MULTIPATH"))

IPPROTO_MPTCP: Final = 262  # linux/in.h


def available() -> bool:
    """Say whether this kernel makes MPTCP sockets."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP).close()
    except OSError:
        return False
    return True


def ask_for_multipath() -> None:
    """Replace the public `tcp_connect` and `tcp_listen` by ones that ask for MPTCP."""

    async def asking(call: Any, *args: Any, options: SocketOptions | None = None, **kwargs: Any) -> Any:
        options = attrs.evolve(options or SocketOptions(), multipath=True)
        return await call(*args, options=options, **kwargs)

    for name in ("tcp_connect", "tcp_listen"):
        setattr(trio_connect, name, partial(asking, getattr(trio_connect, name)))
