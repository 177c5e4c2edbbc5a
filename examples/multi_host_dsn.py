"""A DSN with several hosts, as libpq has them: connect to whichever is the primary.

The hosts are raced, and `establish` asks each that answers what it is. A standby is not an error, it is the wrong
server: `EstablishFailed` says so, and the race goes on.

Prints:
  127.0.0.1:...: standby
  127.0.0.1:...: primary
  writing to the primary: True
  nothing to write to: all 1 candidates are standbys
"""

from functools import partial
from urllib.parse import parse_qs, urlsplit

import trio

from trio_connect import ConnectFailed, Endpoint, EstablishFailed, TcpStream, connectx, now, tcp_listen


async def ask(wanted: str, stream: TcpStream) -> TcpStream:
    """Find out what a server is."""
    await stream.send_all(b"SHOW role\n")
    role = (await stream.receive_until(b"\n", 100)).decode()
    print(f"{stream.peer}: {role}")
    if wanted == "read-write" and role != "primary":
        raise EstablishFailed(f"{stream.peer} is a {role}")
    return stream


async def serve(role: bytes, stream: TcpStream) -> None:
    """Tell the role, once."""
    async with stream:
        await stream.receive_until(b"\n", 100)
        await stream.send_all(role + b"\n")
        await stream.receive_some()


async def main() -> None:
    """Make a standby and a primary and look for the latter."""
    async with trio.open_nursery() as nursery:
        standby, primary = await tcp_listen(("127.0.0.1", 0)), await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, partial(serve, b"standby"), [standby])
        nursery.start_soon(trio.serve_listeners, partial(serve, b"primary"), [primary])

        dsn = f"db://{standby.endpoint},{primary.endpoint}/shop?target_session_attrs=read-write"
        parts = urlsplit(dsn)
        hosts = [Endpoint.parse(host) for host in parts.netloc.split(",")]
        wanted = parse_qs(parts.query)["target_session_attrs"][0]
        async with await connectx(hosts, now() + 2000, establish=partial(ask, wanted)) as stream:
            print("writing to the primary:", stream.peer == primary.endpoint)
        try:
            await connectx(hosts[:1], now() + 2000, establish=partial(ask, wanted))
        except ConnectFailed as exc:
            print(f"nothing to write to: all {len(exc.attempts)} candidates are standbys")
        nursery.cancel_scope.cancel()


trio.run(main)
