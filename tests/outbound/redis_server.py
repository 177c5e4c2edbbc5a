"""A redis-server of a test's own, on a unix-domain socket, that can be killed, stopped and started again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

# Processes and a server of their own have no virtual clock.
pause = threading.Event().wait

PROGRAM = shutil.which("redis-server")


class RedisServer:
    """Keeps its files in a folder; its snapshot is taken only by `save`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert PROGRAM is not None
        self.socket.unlink(missing_ok=True)
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""]
        self._process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while True:
            try:
                if self.command("PING") == b"+PONG\r\n":
                    return
            except OSError:
                if time.monotonic() > until:
                    raise
            pause(0.005)

    def command(self, *words: str) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(20)
            sock.connect(str(self.socket))
            sock.sendall((" ".join(words) + "\r\n").encode())
            return sock.recv(65536)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Have it start empty next time."""
        (self.folder / "dump.rdb").unlink(missing_ok=True)

    def save(self) -> None:
        """Take a snapshot, with which it starts next time."""
        assert self.command("SAVE") == b"+OK\r\n"
