"""Out of descriptors in a process that has had no error before: what it gets is its error, not that of an import."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, socket, sys
import trio
from trio_connect import connectx, now, tcp_connect

async def connected():
    # Not tcp_listen, which loads what reports are made of as well.
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, await tcp_connect(listener.getsockname())

async def main(what):
    listener, stream = await connected()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        pass
    try:
        if what == "receive":
            await stream.receive_some(None, now() + 10)
        elif what == "now or never":
            await stream.receive_exactly(5, 0)
        elif what == "report":
            result = str(stream.report.winner.outcome)
        else:
            await connectx([listener.getsockname()])
    except Exception as exc:
        result = f"{type(exc).__name__}: {exc}"
    for fd in held:
        os.close(fd)
    print(result.replace(str(stream.peer.port), "PORT"))
    listener.close()
    stream.abort()

trio.run(main, sys.argv[1])
"""


@pytest.mark.parametrize(
    ("what", "result"),
    [
        ("receive", "DeadlineExceeded: [Errno 110] receive from 127.0.0.1:PORT"),
        ("now or never", "DeadlineExceeded: [Errno 110] receive from 127.0.0.1:PORT"),
        ("report", "won"),
        ("race", "ConnectFailed: [Errno 24] the only attempt to 127.0.0.1:PORT failed"),
    ],
)
def test_an_error_needs_no_descriptor(what, result):
    command = [sys.executable, "-c", PROGRAM, what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith(result), done.stdout
