r"""The greet server of libdill's tutorial, line by line, with two clients.

What is C's here and Python's there: an error is an exception instead of -1, `go` and `bundle` are a nursery, the
channel is Trio's. libdill's `suffix_attach(s, "\r\n", 2)` is not built yet, so `msend` and `mrecv` below do what it
does, reading byte by byte as it does too.

Prints:
    Alice: What's your name?
    Alice: Hello, Alice!
    Bob: What's your name?
    Bob: (left without a word)
    total: 2, active: 0, failed: 1
"""

from __future__ import annotations

from functools import partial

import trio

from trio_connect.libdill import (
    IPADDR_IPV4,
    brecv,
    bsend,
    hclose,
    ipaddr,
    ipaddr_local,
    ipaddr_port,
    ipaddr_remote,
    now,
    tcp_accept,
    tcp_close,
    tcp_connect,
    tcp_listen,
)

CONN_ESTABLISHED, CONN_SUCCEEDED, CONN_FAILED = 1, 2, 3


async def msend(s: int, message: bytes, deadline: int) -> None:
    await bsend(s, message + b"\r\n", len(message) + 2, deadline)


async def mrecv(s: int, size: int, deadline: int) -> bytes:
    line, byte = b"", bytearray(1)
    while not line.endswith(b"\r\n"):
        if len(line) == size + 2:
            raise OSError("the line is too long")
        await brecv(s, byte, 1, deadline)
        line += byte
    return line[:-2]


async def dialogue(s: int, ch: trio.MemorySendChannel[int]) -> None:
    op = CONN_ESTABLISHED
    await ch.send(op)

    deadline = now() + 10_000
    try:
        await msend(s, b"What's your name?", deadline)
        name = await mrecv(s, 256, deadline)
        await msend(s, b"Hello, " + name + b"!", deadline)
        await tcp_close(s, deadline)
        op = CONN_SUCCEEDED
    except OSError:
        try:
            hclose(s)
        except OSError:  # EBADF: it was tcp_close that failed, and the handle is gone
            pass
        op = CONN_FAILED

    await ch.send(op)


async def statistics(ch: trio.MemoryReceiveChannel[int]) -> None:
    total = active = failed = 0
    async for op in ch:
        if op == CONN_ESTABLISHED:
            total, active = total + 1, active + 1
        else:
            active -= 1
        if op == CONN_FAILED:
            failed += 1
    print(f"total: {total}, active: {active}, failed: {failed}")


async def server(
    n: int, ch: trio.MemorySendChannel[int], *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    addr = ipaddr()
    ipaddr_local(addr, "127.0.0.1", 0, IPADDR_IPV4)
    ls = await tcp_listen(addr, 10)
    task_status.started(ipaddr_port(addr))

    async with ch, trio.open_nursery() as b:  # int b = bundle();
        for _ in range(n):
            s = await tcp_accept(ls, None, -1)
            b.start_soon(dialogue, s, ch)  # bundle_go(b, dialogue(s, ch));
    hclose(ls)  # bundle_wait(b, -1) was the end of the block


async def client(port: int, name: str, *, polite: bool) -> None:
    deadline = now() + 10_000
    addr = ipaddr()
    await ipaddr_remote(addr, "127.0.0.1", port, IPADDR_IPV4, deadline)
    s = await tcp_connect(addr, deadline)
    print(f"{name}: {(await mrecv(s, 256, deadline)).decode()}")
    if polite:
        await msend(s, name.encode(), deadline)
        print(f"{name}: {(await mrecv(s, 256, deadline)).decode()}")
        await tcp_close(s, deadline)
    else:
        print(f"{name}: (left without a word)")
        hclose(s)


async def main() -> None:
    ch_s, ch_r = trio.open_memory_channel[int](0)  # chmake(ch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(statistics, ch_r)
        port: int = await nursery.start(partial(server, 2, ch_s))
        await client(port, "Alice", polite=True)
        await client(port, "Bob", polite=False)


trio.run(main)
