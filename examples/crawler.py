"""A polite crawler: for each host a rate, a cap on connections, and a delay when it is down.

All pages are asked for at once. Each host has a destination, which lets them through as its limits allow: 20 a second,
two at a time. A host that is down is tried twice. After that its pages are not even tried, and the crawler hears when
to come back. The servers of this program note what they see, and that is compared with the limits.

Prints:
  fast.test: 10 of 10 pages, at most ... connections at once, never faster than the rate
  slow.test: 6 of 6 pages, at most 2 connections at once, never faster than the rate
  down.test: 0 of 5 pages, 2 connects
    later: down.test: has failed too often (connection refused); nothing to it before ... s, which is after the deadline
  fast.test was done before slow.test: one host does not wait for another
"""

from functools import partial
from itertools import pairwise

import attrs
import trio

from trio_connect import Endpoint, StaticResolver, TcpStream, now, tcp_listen
from trio_connect.outbound import (
    Backoff,
    Destination,
    DestinationFailed,
    NotAdmitted,
    OutboundEvent,
    OutboundPolicy,
    Rate,
    open_outbound,
)

POLITE = OutboundPolicy(
    rate=Rate(20, per=1.0),
    max_connections=2,
    failures_to_delay=2,
    delay=Backoff(initial=600.0, maximum=86_400.0),
)


@attrs.define
class Visit:
    """What became of the pages of a host."""

    pages: int
    fetched: int = 0
    connects: int = 0
    ended: float = 0.0
    later: str = ""


async def fetch(destination: Destination, path: str, visit: Visit) -> None:
    """Fetch one page, when it may be."""
    try:
        async with destination.connect(now() + 20_000) as connection:
            request = f"GET {path} HTTP/1.0\r\nHost: {destination.name}\r\n\r\n"
            await connection.stream.send_all(request.encode())
            status = await connection.stream.receive_until(b"\r\n", 1000)
            while await connection.stream.receive_some():
                pass
            visit.fetched += status.startswith(b"HTTP/1.0 200")
    except (NotAdmitted, DestinationFailed) as exc:
        # A crawler keeps the page for then: exc.decision.until.
        visit.later = str(exc.decision)
    visit.ended = trio.current_time()


# --- the hosts --------------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class WebServer:
    """A host that takes a while for each page, and notes when it was asked and how often at once."""

    seconds: float
    asked: list[float] = attrs.field(factory=list[float])
    open: int = 0
    most: int = 0

    async def serve(self, stream: TcpStream) -> None:
        """Serve one page."""
        async with stream:
            self.open += 1
            self.most = max(self.most, self.open)
            self.asked.append(trio.current_time())
            await stream.receive_until(b"\r\n\r\n", 10_000)
            await trio.sleep(self.seconds)
            self.open -= 1
            await stream.send_all(b"HTTP/1.0 200 OK\r\n\r\n<p>Hello.</p>\n")

    def kept_its_rate(self) -> bool:
        """Say whether requests came 50 ms apart on average, but for a first one that a busy machine served late."""
        gaps = [later - earlier for earlier, later in pairwise(self.asked)]
        return sum(gaps) >= 0.6 * 0.050 * len(gaps)


async def main() -> None:
    """Start the hosts and crawl them."""
    servers = {"fast.test": WebServer(0.005), "slow.test": WebServer(0.500)}
    visits = {"fast.test": Visit(10), "slow.test": Visit(6), "down.test": Visit(5)}

    def watch(event: OutboundEvent) -> None:
        visits[event.destination].connects += event.what == "admitted"

    async with trio.open_nursery() as nursery:
        ports: dict[str, int] = {}
        for host, server in servers.items():
            listener = await tcp_listen(("127.0.0.1", 0))
            ports[host] = listener.endpoint.port
            nursery.start_soon(partial(trio.serve_listeners, server.serve, [listener]))
        with trio.socket.socket() as down:
            await down.bind(("127.0.0.1", 0))  # and does not listen
            ports["down.test"] = Endpoint(*down.getsockname()).port
            resolver = StaticResolver(dict.fromkeys(ports, "127.0.0.1"))
            async with (
                open_outbound(policy=POLITE, resolver=resolver, observer=watch) as out,
                trio.open_nursery() as crawl,
            ):
                for host, visit in visits.items():
                    destination = out.destination(host, port=ports[host])
                    for number in range(visit.pages):
                        crawl.start_soon(fetch, destination, f"/{number}", visit)
        nursery.cancel_scope.cancel()

    for host, visit in visits.items():
        text = f"{host}: {visit.fetched} of {visit.pages} pages"
        if host in servers:
            pace = "never faster than the rate" if servers[host].kept_its_rate() else "FASTER THAN THE RATE"
            print(f"{text}, at most {servers[host].most} connections at once, {pace}")
        else:
            print(f"{text}, {visit.connects} connects\n  later: {visit.later}")
    if visits["fast.test"].ended < visits["slow.test"].ended:
        print("fast.test was done before slow.test: one host does not wait for another")


if __name__ == "__main__":
    trio.run(main)
