"""An echo server in completion style: one loop, no task per connection, each completion submits the next operation.

For code that comes from io_uring, IOCP or Demikernel. In Trio a nursery with a task for each connection is shorter.

Prints:
  serving on 127.0.0.1:...
  client 1 got back: hello from 1
  client 2 got back: hello from 2
  client 3 got back: hello from 3
  served 3 connections
"""

import trio

from trio_connect import Endpoint, tcp_connect
from trio_connect.queues import Accepted, Popped, QueueSet, open_queue_set

CLIENTS = 3


async def echo(qs: QueueSet) -> None:
    """Serve until as many connections as there are clients have ended."""
    served = 0
    async for result in qs.completions():
        match result.value:
            case Accepted(queue):
                result.queue.accept()  # one connection for each token: ask for the next
                queue.pop()
            case Popped(data, eof=False):
                result.queue.push(data)
                result.queue.pop()
            case Popped(eof=True):
                result.queue.close()
                served += 1
            case None:
                print(f"{result.op} failed: {result.error}")
                result.queue.close()
            case _:  # a push or a close is done
                pass
        if served == CLIENTS:
            break
    print(f"served {served} connections")


async def clients(endpoint: Endpoint) -> None:
    """Send a line and read it back, a few times."""
    for number in range(1, CLIENTS + 1):
        async with await tcp_connect(endpoint) as stream:
            line = f"hello from {number}".encode()
            back = await stream.exchange(line, len(line))
            print(f"client {number} got back: {back.decode()}")


async def main() -> None:
    """Run the server and its clients in one program."""
    async with open_queue_set() as qs, trio.open_nursery() as nursery:
        listener = qs.stream()
        address = await listener.bind(("127.0.0.1", 0))
        assert isinstance(address, Endpoint)
        await listener.listen(128)
        listener.accept()
        print(f"serving on {address}")
        nursery.start_soon(clients, address)
        await echo(qs)


trio.run(main)
