"""A program to be traced: ``strace -o FILE _traced.py KIND TIMES``. It connects and aborts between two getppid().

Kinds, by the port that is connected to and by when the handshake ends:

  outside  outside the range of local ports, within a pass of the loop
  inside   inside that range, within a pass: a connection to itself is possible there and has to be excluded
  pending  outside the range, a second later: the first SYN finds the backlog full and is dropped
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import trio

from trio_connect import Endpoint, now, tcp_connect

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def listen(kind: str) -> socket.socket:
    low, high = map(int, RANGE.read_text().split())
    # Outside: below the range, above the ports that need a privilege.
    ports = range(1) if kind == "inside" else (p for p in range(1025, 65536) if not low <= p <= high)
    for port in ports:
        sock = socket.socket()
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            sock.close()
            continue
        sock.listen(0 if kind == "pending" else 100)
        return sock
    raise SystemExit("no free port")


def accept_one(listener: socket.socket) -> None:
    listener.accept()[0].close()


async def main(kind: str, times: int) -> None:
    # The first connection of a process reads the range of local ports; what it costs is no part of the others.
    with listen("outside") as listener:
        (await tcp_connect(Endpoint(*listener.getsockname()))).abort()
    with listen(kind) as listener:
        endpoint = Endpoint(*listener.getsockname())
        for _ in range(times):
            filler = socket.socket()
            if kind == "pending":
                filler.connect(endpoint.sockaddr)
                threading.Timer(0.1, accept_one, [listener]).start()
            deadline = now() + 10_000
            os.getppid()
            stream = await tcp_connect(endpoint, deadline)
            stream.abort()
            os.getppid()
            filler.close()
            if kind == "pending":
                accept_one(listener)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
