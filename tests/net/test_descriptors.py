"""Out of descriptors in a process that has had no error before: what it gets is its error, not that of an import."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, resource, socket, sys
import trio
from trio_connect import StaticResolver, connect, connectx, now, resolve, tcp_connect

NAMES = StaticResolver({"api.test": "127.0.0.1"})

async def connected():
    # Not tcp_listen, which loads what reports are made of as well.
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, await tcp_connect(listener.getsockname())

async def main(what):
    listener, stream = await connected()
    port = listener.getsockname()[1]
    if what.endswith("name"):
        # By name, and with nothing that an error needs.
        (await connect("api.test", port, resolver=NAMES)).abort()
        await resolve("api.test", port, resolver=NAMES)
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
        elif what == "a name":
            await connect("api.test", port, resolver=NAMES)
        elif what == "no name":
            await connect("nowhere.test", port, resolver=NAMES)
        elif what == "resolve no name":
            await resolve("nowhere.test", port, resolver=NAMES)
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
        ("a name", "ConnectFailed: [Errno 24] the only attempt to api.test:PORT (127.0.0.1:PORT) failed"),
        ("no name", "ResolveFailed: [Errno -2] no address to try for nowhere.test"),
        ("resolve no name", "ResolveFailed: [Errno -2] no address to try for nowhere.test"),
    ],
)
def test_an_error_needs_no_descriptor(what, result):
    command = [sys.executable, "-c", PROGRAM, what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith(result), done.stdout
