"""A DSN with several hosts, as libpq has them: connect to whichever is the primary.

The names are looked up side by side, and their addresses are raced in the order of the DSN. A name that is unknown
fails alone. `establish` asks each server that answers what it is. A standby is not an error, it is the wrong server:
`EstablishFailed` says so, and the race goes on.

Prints:
  db2.test: standby
  db3.test: primary
  writing to db3.test
  nothing to write to: db1.test, db2.test
"""

from functools import partial
from urllib.parse import parse_qs, urlsplit

import trio

from trio_connect import ConnectFailed, EstablishFailed, StaticResolver, TcpStream, connect, now, tcp_listen


async def ask(wanted: str, stream: TcpStream) -> TcpStream:
    """Find out what a server is."""
    await stream.send_all(b"SHOW role\n")
    name, role = (await stream.receive_until(b"\n", 100)).decode().split()
    print(f"{name}: {role}")
    if wanted == "read-write" and role != "primary":
        raise EstablishFailed(f"{name} is a {role}")
    return stream


async def connect_to(dsn: str, resolver: StaticResolver) -> TcpStream:
    """Connect as a DSN says; what follows is the protocol's."""
    parts = urlsplit(dsn)
    hosts = [(host, int(port or 5432)) for host, _, port in (part.partition(":") for part in parts.netloc.split(","))]
    wanted = parse_qs(parts.query)["target_session_attrs"][0]
    return await connect(hosts, 5432, now() + 2000, resolver=resolver, establish=partial(ask, wanted))


async def serve(answer: bytes, stream: TcpStream) -> None:
    """Say who this is, once."""
    async with stream:
        await stream.receive_until(b"\n", 100)
        await stream.send_all(answer)
        await stream.receive_some()


async def main() -> None:
    """Make a standby and a primary, and look for the latter."""
    async with trio.open_nursery() as nursery:
        db2, db3 = await tcp_listen(("127.0.0.1", 0)), await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, partial(serve, b"db2.test standby\n"), [db2])
        nursery.start_soon(trio.serve_listeners, partial(serve, b"db3.test primary\n"), [db3])
        resolver = StaticResolver({"db2.test": "127.0.0.1", "db3.test": "127.0.0.1"})

        hosts = f"db1.test,db2.test:{db2.endpoint.port},db3.test:{db3.endpoint.port}"
        async with await connect_to(f"db://{hosts}/shop?target_session_attrs=read-write", resolver) as stream:
            winner = stream.report.winner
            print("writing to", winner and winner.host)
        try:
            hosts = hosts.rpartition(",")[0]
            await connect_to(f"db://{hosts}/shop?target_session_attrs=read-write", resolver)
        except ConnectFailed as exc:
            print("nothing to write to:", ", ".join(dict.fromkeys(lookup.host for lookup in exc.report.lookups)))
        nursery.cancel_scope.cancel()


trio.run(main)
