"""Number 13 of the field reports on a network: what an `aclose` must discard does not fit a constant."""

from __future__ import annotations

import socket
import struct
import sys
import threading

import pytest
import trio

from tests.lab.netlab import Host
from trio_connect import now, tcp_connect

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's"),
]

MIB = 1 << 20
REPLY = 300_000


class Sender(threading.Thread):
    """Sends until nothing more fits, half-closes, and reads when told to."""

    def __init__(self, listener: socket.socket) -> None:
        super().__init__()
        self.listener = listener
        self.full = threading.Event()
        self.go_on = threading.Event()
        self.sent = self.received = 0
        self.error: OSError | None = None

    def run(self) -> None:
        sock, _ = self.listener.accept()
        with sock:
            try:
                sock.settimeout(0.5)
                try:
                    while True:
                        self.sent += sock.send(bytes(MIB))
                except TimeoutError:
                    pass
                sock.settimeout(20)
                sock.shutdown(socket.SHUT_WR)
                self.full.set()
                self.go_on.wait(20)
                while data := sock.recv(65536):
                    self.received += len(data)
            except OSError as exc:
                self.error = exc
            finally:
                self.full.set()


def test_field_13_a_reply_survives_what_waits_unread(network: tuple[Host, Host]) -> None:
    """`aclose` delivers a reply also where far more than 16 MiB of the peer's wait unread."""
    client, server = network
    # Where Linux's own tuning can take a receive buffer, in one step.
    client.sysctl("net.ipv4.tcp_rmem", "4096 67108864 67108864")
    server.sysctl("net.ipv4.tcp_wmem", "4096 4194304 4194304")
    listener = server.listener("10.9.0.2")
    sender = Sender(listener)
    sender.start()

    async def main() -> int:
        stream = await tcp_connect(listener.getsockname())
        await trio.to_thread.run_sync(sender.full.wait)
        # FIONREAD, without a helper of ours.
        import fcntl
        import termios

        (unread,) = struct.unpack("i", fcntl.ioctl(stream.fileno(), termios.FIONREAD, bytes(4)))
        await stream.send_all(bytes(REPLY), now() + 5000)
        with trio.fail_after(20):
            await stream.aclose()
        sender.go_on.set()
        return int(unread)

    try:
        unread = client.trio(main)
    finally:
        sender.go_on.set()
        sender.join()
        listener.close()
    assert unread > 20 * MIB
    assert (sender.received, sender.error) == (REPLY, None)
