"""Race two uplinks: connect from whichever source address gets through first.

Each `Source` is a way out: an address, an interface, or both. Every endpoint is tried from each of them, best first. On
this machine two addresses of the loopback network stand for the uplinks, and the first of them is not plugged in.

Prints:
  from 198.51.100.7: failed, cannot assign requested address
  from 127.0.0.3: won
  the peer sees 127.0.0.3
  both up, the first one is used: 127.0.0.2
"""

import os

import trio

from trio_connect import Attempt, RacePolicy, Source, TcpStream, connectx, now, tcp_listen

UNPLUGGED = Source(ipv4="198.51.100.7")
CABLE = Source(ipv4="127.0.0.2")
MOBILE = Source(ipv4="127.0.0.3")
POLICY = RacePolicy(attempt_delay=0.100)


async def tell(stream: TcpStream) -> None:
    """Tell the client where it comes from."""
    async with stream:
        await stream.send_all(f"{stream.peer.host}\n".encode())


def outcome(attempt: Attempt) -> str:
    """Describe one row of the report."""
    reason = "" if attempt.errno is None else f", {os.strerror(attempt.errno).lower()}"
    return f"from {attempt.source}: {attempt.outcome}{reason}"


async def main() -> None:
    """Serve, and connect from two sources."""
    async with trio.open_nursery() as nursery:
        listener = await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, tell, [listener])

        sources = [UNPLUGGED, MOBILE]
        async with await connectx([listener.endpoint], now() + 2000, sources=sources, policy=POLICY) as stream:
            for attempt in stream.report.attempts:
                print(outcome(attempt))
            seen = await stream.receive_until(b"\n", 100)
            print("the peer sees", seen.decode())

        sources = [CABLE, MOBILE]
        async with await connectx([listener.endpoint], now() + 2000, sources=sources, policy=POLICY) as stream:
            print("both up, the first one is used:", stream.local.host)
        nursery.cancel_scope.cancel()


trio.run(main)
