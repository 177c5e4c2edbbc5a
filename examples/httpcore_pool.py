"""A pool of httpcore2 that connects by races: an address that refuses costs nothing, and a failure says what was tried.

A pool has a public parameter for the back end that connects it, so nothing of httpcore2 is changed.

It needs `pip install httpcore2`.

Prints:
  200 b'hello', twice over one connection
    127.0.0.2: connection refused
    127.0.0.1: won
  httpcore2.ConnectError: ... all 2 attempts to gone.test:... failed in ... (refused: 2)
  2 attempts are in the report
"""

from typing import Any

import httpcore2
import trio

from trio_connect import ConnectReport, StaticResolver, TcpStream, tcp_listen
from trio_connect.adapters import failure_of
from trio_connect.adapters.httpcore import Backend

NAMES = StaticResolver({"api.test": ["127.0.0.2", "127.0.0.1"], "gone.test": ["127.0.0.2", "127.0.0.3"]})


async def serve(stream: TcpStream) -> None:
    """Answer each request on a connection."""
    async with stream:
        while await stream.fill():
            await stream.receive_until(b"\r\n\r\n", 10_000)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")


def show(response: Any) -> None:
    """Print what became of each address."""
    report: ConnectReport = response.extensions["network_stream"].get_extra_info("report")
    for attempt in report.attempts:
        print(f"  {attempt.endpoint.host}: {attempt.reason or attempt.outcome}")


async def main() -> None:
    """Ask twice, and then somebody who is not there."""
    async with trio.open_nursery() as nursery, await tcp_listen(("127.0.0.1", 0)) as listener:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.endpoint.port
        async with httpcore2.AsyncConnectionPool(network_backend=Backend(resolver=NAMES)) as pool:
            await pool.request("GET", f"http://api.test:{port}/")
            response = await pool.request("GET", f"http://api.test:{port}/")
            assert len(pool.connections) == 1
            print(f"{response.status} {response.content!r}, twice over one connection")
            show(response)
            try:
                await pool.request("GET", f"http://gone.test:{port}/")
            except httpcore2.ConnectError as error:
                print(f"httpcore2.ConnectError: {error}")
                failure = failure_of(error)
                assert failure is not None
                assert failure.report is not None
                print(f"{len(failure.report.attempts)} attempts are in the report")
        nursery.cancel_scope.cancel()


trio.run(main)
