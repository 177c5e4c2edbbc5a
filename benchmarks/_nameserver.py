"""A name server, on a core of its own: ``_nameserver.py CORE ADDRESS``.

Every name has one IPv4 address, 127.0.0.1, and no IPv6 address; the ttl is a minute. It prints how many questions it
has been asked whenever a line comes on stdin, and ends with it.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading

A, AAAA = 1, 28
SOA = b"\xc0\x0c" + struct.pack("!HHIH", 6, 1, 60, 22) + b"\0\0" + struct.pack("!5I", 1, 60, 60, 60, 60)


def main() -> None:
    core, address = int(sys.argv[1]), sys.argv[2]
    if core >= 0:
        os.sched_setaffinity(0, {core})
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.bind((address, 53))
    asked = 0

    def serve() -> None:
        nonlocal asked
        while True:
            wire, peer = sock.recvfrom(512)
            asked += 1
            end = wire.index(b"\0", 12) + 5
            (kind,) = struct.unpack_from("!H", wire, end - 4)
            question = wire[12:end]
            if kind == A:
                record = b"\xc0\x0c" + struct.pack("!HHIH", A, 1, 60, 4) + socket.inet_aton("127.0.0.1")
                reply = struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + question + record
            else:
                reply = struct.pack("!HHHHH", 0x8180, 1, 0, 1, 0) + question + SOA
            sock.sendto(wire[:2] + reply, peer)

    threading.Thread(target=serve, daemon=True).start()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(asked, flush=True)
        asked = 0
    os._exit(0)


if __name__ == "__main__":
    main()
