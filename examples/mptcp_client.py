"""Talk over Multipath TCP where it is to be had, and say what was got.

Client and server ask for MPTCP. With two networks the kernel adds the second path by itself (`ip mptcp endpoint add`),
and the connection survives the loss of one. A peer, a path or a system without MPTCP makes it a plain TCP connection,
and the client works all the same.

Prints:
  to a server with MPTCP: ...
  to a server without it: plain TCP
  echo: over as many paths as there are
"""

import trio

from trio_connect import SocketOptions, TcpStream, connectx, now, tcp_listen

MULTIPATH = SocketOptions(multipath=True)


async def echo(stream: TcpStream) -> None:
    """Send back what comes."""
    async for part in stream:
        await stream.send_all(part)


def describe(stream: TcpStream) -> str:
    """Say what a connection has of MPTCP now."""
    multipath = stream.multipath
    if multipath is None:
        return "plain TCP"
    return f"MPTCP, {multipath.subflows} subflow{'' if multipath.subflows == 1 else 's'}"


async def main() -> None:
    """Serve with MPTCP and without, and connect to both."""
    async with trio.open_nursery() as nursery:
        able = await tcp_listen(("127.0.0.1", 0), options=MULTIPATH)
        plain = await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, echo, [able, plain])

        # A race, so that a network that drops what asks for MPTCP costs a quarter of a second and not three.
        async with await connectx([able.endpoint], now() + 2000, options=MULTIPATH) as stream:
            print("to a server with MPTCP:", describe(stream))
            async with await connectx([plain.endpoint], now() + 2000, options=MULTIPATH) as other:
                print("to a server without it:", describe(other))
            # A peer that has gone without a word may be noticed late: every call has a deadline.
            line = b"over as many paths as there are"
            await stream.send_all(line, now() + 2000)
            print("echo:", (await stream.receive_exactly(len(line), now() + 2000)).decode())
        nursery.cancel_scope.cancel()


trio.run(main)
