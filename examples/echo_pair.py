"""A server that echoes and a client that talks to it, both under one deadline.

Prints:
  server listens on 127.0.0.1:...
  client sent 3 lines
  client got: ONE
  client got: TWO
  client got: THREE
  server saw the client's end
"""

from functools import partial

import trio

from trio_connect import IncompleteRead, TcpStream, now, tcp_connect, tcp_listen


async def shout(served: trio.Event, stream: TcpStream) -> None:
    """Answer each line in capitals until the client ends its half."""
    while True:
        try:
            line = await stream.receive_until(b"\n", max_bytes=1000)
        except IncompleteRead:
            break
        await stream.send_all([line.upper(), b"\n"])
    # The client stopped sending, not listening: what we sent still arrives.
    await stream.close_gracefully(now() + 1000)
    print("server saw the client's end")
    served.set()


async def main() -> None:
    """Run both ends in one program."""
    async with trio.open_nursery() as nursery:
        listener = await tcp_listen(("127.0.0.1", 0))
        served = trio.Event()
        nursery.start_soon(trio.serve_listeners, partial(shout, served), [listener])
        print(f"server listens on {listener.endpoint}")

        deadline = now() + 5000
        async with await tcp_connect(listener.endpoint, deadline) as stream:
            await stream.send_all(b"one\ntwo\nthree\n", deadline)
            await stream.send_eof()
            print("client sent 3 lines")
            for _ in range(3):
                line = await stream.receive_until(b"\n", 1000, deadline)
                print(f"client got: {line.decode()}")
            await stream.close_gracefully(deadline)
        await served.wait()
        nursery.cancel_scope.cancel()


trio.run(main)
