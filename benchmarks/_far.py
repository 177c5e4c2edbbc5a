"""Hosts some way off: all of 198.51.100.0/24 answer a SYN after one round trip.

A tun device leads there, and ``_far CORE FD SECONDS`` is all that is behind it: a process that answers each SYN with
SYN and ACK, later, and each FIN with RST. At the far end there are no sockets, so what is measured is the client. The
process is in C, see `_far.c`. Where nothing can compile that, this module stands in: it answers late when hundreds ask
at once, and answers no FIN.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _harness import NotPermittedError, cores, enter_network
from _native import program

NEAR = "198.51.100.1"
HOSTS = [f"198.51.100.{n}" for n in range(2, 255)]
PORT = 443
DEVICE = b"far"

# linux/if_tun.h, linux/sockios.h, net/if.h
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCSIFADDR, SIOCSIFNETMASK, SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8916, 0x891C, 0x8913, 0x8914, 0x1
SIOCSIFTXQLEN, QUEUE = 0x8943, 20_000
# RFC 9293 section 3.1; the mask has FIN, SYN, RST and ACK.
SYN, SYN_ACK, MASK = 0x02, 0x12, 0x17
WINDOW = 65535
READY = b"ready\n"


@contextmanager
def far_network(seconds: float) -> Iterator[list[tuple[str, int]]]:
    """Move this process, which must have one thread, into a network of hosts some way off; gives their addresses.

    Args:
      seconds: the round trip to each of them.

    Raises:
      NotPermittedError: this machine lets us make no namespace or no tun device.
    """
    enter_network()
    try:
        tun = os.open("/dev/net/tun", os.O_RDWR)
    except OSError as exc:
        raise NotPermittedError(f"/dev/net/tun: {exc.strerror}") from exc
    try:
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", DEVICE, IFF_TUN | IFF_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for request, address in ((SIOCSIFADDR, NEAR), (SIOCSIFNETMASK, "255.255.255.0")):
                name = struct.pack("16sHH4s8x", DEVICE, socket.AF_INET, 0, socket.inet_aton(address))
                fcntl.ioctl(sock, request, name)
            flags = struct.unpack_from("h", fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh14x", DEVICE, 0)), 16)[0]
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", DEVICE, flags | IFF_UP))
        _lengthen_queue()
        native = program("_far")
        command = [native] if native is not None else [sys.executable, str(Path(__file__))]
        command += [str(cores()[1]), str(tun), str(seconds)]
        with subprocess.Popen(command, pass_fds=[tun], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                if process.stdout.readline() != READY:
                    sys.exit("the far network did not start")
                yield [(host, PORT) for host in HOSTS]
            finally:
                process.kill()
    finally:
        os.close(tun)


def _lengthen_queue() -> None:
    """Give the device a long queue: of 500 packets, which is the default, a thousand at once lose some."""
    request = struct.pack("16si12x", DEVICE, QUEUE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, SIOCSIFTXQLEN, request)


def checksum(data: bytes) -> int:
    """Return the Internet checksum of RFC 1071 of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def answer(packet: bytes) -> bytes | None:
    """Return the SYN and ACK that answers a SYN over IPv4, None for anything else."""
    size = (packet[0] & 0xF) * 4
    if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_TCP or packet[size + 13] & MASK != SYN:
        return None
    here, there = packet[12:16], packet[16:20]
    source, destination, sequence = struct.unpack_from("!HHI", packet, size)
    tcp = struct.pack(
        "!HHIIBBHHH", destination, source, 1, sequence + 1 & 0xFFFFFFFF, 5 << 4, SYN_ACK, WINDOW, 0, 0
    )  # fmt: skip
    pseudo = there + here + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, socket.IPPROTO_TCP, 0, there, here)
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp


def main() -> None:
    core, tun, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    if core >= 0:
        os.sched_setaffinity(0, {core})
    os.set_blocking(tun, False)
    os.write(1, READY)
    # One delay for all, so what comes first leaves first.
    waiting: deque[tuple[float, bytes]] = deque()
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        ready, _, _ = select.select([tun], [], [], timeout)
        now = time.monotonic()
        while ready:
            try:
                reply = answer(os.read(tun, 2048))
            except BlockingIOError:
                break
            if reply is not None:
                waiting.append((now + seconds, reply))
        while waiting and waiting[0][0] <= now:
            os.write(tun, waiting.popleft()[1])


if __name__ == "__main__":
    main()
