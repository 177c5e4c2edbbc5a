"""The other end, on a core of its own: ``_server.py CORE LOWEST HIGHEST``.

Prints one line of JSON, the ports it found between LOWEST and HIGHEST, and serves until its stdin ends.

  accept   accepts and closes, in batches, so that it wakes seldom while somebody connects in a row
  accept6  likewise, over IPv6 and on the same port; absent where this system has none
  echo     sends back what comes
  sink     reads and forgets
  source   sends without end
  lines    likewise, lines of 16 MiB
  drops    likewise, in pieces of 256 bytes, each with a segment of its own
  multipath  as accept, over MPTCP; absent where this system has none
  full     listens and never accepts, its backlog already full: whoever connects stays pending
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable

BACKLOG = 65535
SIZE = 1 << 20
LINE = bytes(16 << 20) + b"\n"
DROP = 256
IPPROTO_MPTCP = 262  # linux/in.h


def listen(
    ports: range, backlog: int = BACKLOG, proto: int = 0, family: socket.AddressFamily = socket.AF_INET
) -> socket.socket:
    for port in ports:
        sock = socket.socket(family, socket.SOCK_STREAM, proto)
        # All addresses of 127.0.0.0/8: a client that spreads over many of them never runs out of local ports.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("" if family == socket.AF_INET else "::", port))
            sock.listen(backlog)
        except OSError:
            sock.close()
        else:
            return sock
    raise SystemExit(f"no free port in {ports}")


def accept_and_close(listener: socket.socket) -> None:
    listener.setblocking(False)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    while True:
        poll.poll()
        time.sleep(0.0003)
        try:
            while True:
                fd, _ = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - without a socket object
                os.close(fd)
        except OSError:
            pass


def echo(sock: socket.socket) -> None:
    while data := sock.recv(1 << 18):
        sock.sendall(data)


def sink(sock: socket.socket) -> None:
    buffer = bytearray(SIZE)
    while sock.recv_into(buffer):
        pass


def source(sock: socket.socket) -> None:
    data = bytes(SIZE)
    while True:
        sock.sendall(data)


def lines(sock: socket.socket) -> None:
    while True:
        sock.sendall(LINE)


def drops(sock: socket.socket) -> None:
    view = memoryview(LINE)
    while True:
        for start in range(0, len(LINE), DROP):
            sock.sendall(view[start : start + DROP])


def serve(listener: socket.socket, handler: Callable[[socket.socket], None]) -> None:
    def guarded(sock: socket.socket) -> None:
        with sock:
            try:
                handler(sock)
            except OSError:
                pass

    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=guarded, args=(sock,), daemon=True).start()


def main() -> None:
    core, lowest, highest = map(int, sys.argv[1:])
    if core >= 0:
        os.sched_setaffinity(0, {core})
    ports = range(lowest, highest + 1)
    listeners = {name: listen(ports) for name in ("accept", "echo", "sink", "source", "lines", "drops")}
    try:
        listeners["multipath"] = listen(ports, proto=IPPROTO_MPTCP)
    except OSError:
        pass
    port = listeners["accept"].getsockname()[1]
    try:
        listeners["accept6"] = listen(range(port, port + 1), family=socket.AF_INET6)
    except OSError:
        pass
    full = listeners["full"] = listen(ports, 0)
    filler = socket.socket()  # kept: a backlog of 0 has room for one
    filler.connect(("127.0.0.1", full.getsockname()[1]))
    handlers = {"echo": echo, "sink": sink, "source": source, "lines": lines, "drops": drops}
    for name, handler in handlers.items():
        threading.Thread(target=serve, args=(listeners[name], handler), daemon=True).start()
    for name in listeners.keys() & {"accept", "accept6", "multipath"}:
        threading.Thread(target=accept_and_close, args=(listeners[name],), daemon=True).start()
    print(json.dumps({name: sock.getsockname()[1] for name, sock in listeners.items()}), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
