"""What TLS by argument costs: `connectx` and `connect` with ``tls=`` beside a `trio.SSLStream` over `tcp_connect`.

All go to one server on the other core, do a whole handshake of TLS 1.3 each time, and reset the connection. CPU time
of the client alone, handshake included: most of it is OpenSSL's on either side.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import trio
import trustme

from _harness import (
    Bound,
    Sample,
    cores,
    end,
    interleave,
    parser,
    pin_client,
    print_bounds,
    ratio,
    show,
    table,
    versions,
)
from trio_connect import Endpoint, StaticResolver, TcpStream, connect, connectx, now, tcp_connect

NAME = "service.test"
OURS, BY_HAND = "connectx(tls=)", "trio.SSLStream over tcp_connect"
ADDRESS, NAMED = "connect(address, tls=)", "connect(name, tls=)"
START_TLS, ESTABLISH = "tcp_connect, start_tls", "connectx, trio.SSLStream as its establish"


def serve(core: int, certificate: bytes, told: Connection) -> None:
    """Do handshakes for ever, in a process of its own."""
    pin_client(core)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate)
        file.flush()
        context.load_cert_chain(file.name)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        told.send(listener.getsockname()[1])
        while True:
            with contextlib.suppress(OSError), listener.accept()[0] as sock:
                sock.settimeout(5)
                with context.wrap_socket(sock, server_side=True) as secured:
                    secured.recv(1)


@contextlib.contextmanager
def running_server(core: int, authority: trustme.CA) -> Iterator[Endpoint]:
    processes = get_context("spawn")
    ours, theirs = processes.Pipe()
    certificate = authority.issue_cert(NAME).private_key_and_cert_chain_pem.bytes()
    server = processes.Process(target=serve, args=(core, certificate, theirs), daemon=True)
    server.start()
    try:
        yield Endpoint("127.0.0.1", ours.recv())
    finally:
        server.kill()
        server.join()


def contestants(endpoint: Endpoint, context: ssl.SSLContext, n: int) -> dict[str, Callable[[], Sample]]:
    async def ours() -> None:
        stream = await connectx((endpoint,), now() + 5_000, tls=context, server_hostname=NAME)
        stream.abort()

    async def address() -> None:
        stream = await connect(endpoint.host, endpoint.port, now() + 5_000, tls=context, server_hostname=NAME)
        stream.abort()

    names = StaticResolver({NAME: [endpoint.host]})

    async def named() -> None:
        stream = await connect(NAME, endpoint.port, now() + 5_000, resolver=names, tls=context)
        stream.abort()

    async def by_hand() -> None:
        stream = await tcp_connect(endpoint, now() + 5_000)
        with trio.fail_after(5):
            await trio.SSLStream(stream, context, server_hostname=NAME).do_handshake()
        stream.abort()

    async def start_tls() -> None:
        deadline = now() + 5_000
        stream = await tcp_connect(endpoint, deadline)
        await stream.start_tls(context, deadline, server_hostname=NAME)
        stream.abort()

    async def handshake(stream: TcpStream) -> None:
        await trio.SSLStream(stream, context, server_hostname=NAME).do_handshake()

    async def establish() -> None:
        stream = await connectx((endpoint,), now() + 5_000, establish=handshake)
        stream.abort()

    async def many(connect: Callable[[], Awaitable[None]]) -> Sample:
        for _ in range(20):
            await connect()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(n):
            await connect()
        return Sample((time.perf_counter() - wall) / n, (time.process_time() - cpu) / n)

    calls = {
        OURS: ours, ADDRESS: address, NAMED: named, BY_HAND: by_hand, START_TLS: start_tls, ESTABLISH: establish,
    }  # fmt: skip
    return {name: partial(trio.run, many, call) for name, call in calls.items()}


def main() -> None:
    given = parser(__doc__, rounds=15, n=200).parse_args()
    client_core, server_core = cores()
    pin_client(client_core)
    authority = trustme.CA()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with running_server(server_core, authority) as endpoint:
        samples = interleave(contestants(endpoint, context, given.n), given.rounds)
    print(f"# TLS\n\n{versions()}; {given.rounds} rounds of {given.n}\n")
    rows = [
        [name, show(min(sample.cpu for sample in taken) * 1e6, 0), show(ratio(samples, name, BY_HAND))]
        for name, taken in samples.items()
    ]
    print(table(["contestant", "us of CPU, least", "ratio"], rows))
    sys.stdout.flush()
    bounds = [
        Bound(f"{name} / {BY_HAND}", ratio(samples, name, BY_HAND), at_most=1.15) for name in (OURS, ADDRESS, NAMED)
    ]
    print_bounds(bounds)
    results: dict[str, Any] = {name: [[sample.wall, sample.cpu] for sample in taken] for name, taken in samples.items()}
    end(given, {"samples": results}, bounds)


if __name__ == "__main__":
    main()
