"""Three API endpoints behind one destination, each with a key and its limits, asked by an httpx2 client.

The client keeps its pool of connections, which are ours, so that its errors name the endpoint. It asks for leave before
each request: `permit` says which endpoint may be asked now, under the limits of its key. The endpoints count for
themselves, and answer 429 to a key that is over its limit, which must not happen. One of them answers 429 to its first
request all the same, with a Retry-After. Then nobody asks before that time is over.

It needs `pip install httpx2`.

Prints:
  in the way after the 429: any source is suspended (429 from key-3)
  30 requests: 30 answers
  key-1: ... answers, at most 3 at once, over its limit 0 times
  key-2: ... answers, at most 2 at once, over its limit 0 times
  key-3: ... answers, at most 1 at once, over its limit 0 times
  asked before the Retry-After was over: 0 times
"""

from functools import partial

import attrs
import httpx2
import trio

from trio_connect import Endpoint, TcpStream, tcp_listen
from trio_connect.adapters.httpx2 import transport
from trio_connect.outbound import Candidate, Destination, Overloaded, Rate, open_outbound


@attrs.define(eq=False)
class Client:
    """Whoever has questions: a client of httpx2, the destination, and a key for each endpoint."""

    http: httpx2.AsyncClient
    destination: Destination
    keys: dict[Endpoint, str]
    answers: list[str] = attrs.field(factory=list[str])
    granted: list[float] = attrs.field(factory=list[float])
    paused: list[tuple[float, float]] = attrs.field(factory=list[tuple[float, float]])

    async def ask(self, question: int) -> None:
        """Ask whichever endpoint may be asked, until there is an answer."""
        while True:
            try:
                async with self.destination.permit() as permit:
                    assert permit.candidate is not None
                    endpoint = permit.candidate.endpoint
                    self.granted.append(trio.current_time())
                    headers = {"Authorization": f"Bearer {self.keys[endpoint]}"}
                    response = await self.http.get(f"http://{endpoint}/{question}", headers=headers)
                    if response.status_code == 429:
                        seconds = float(response.headers["Retry-After"])
                        self.paused.append((trio.current_time(), trio.current_time() + seconds))
                        raise Overloaded(seconds, f"429 from {self.keys[endpoint]}")
                    response.raise_for_status()
                    self.answers.append(response.text)
                    return
            except Overloaded:
                # The next permit comes when that is over.
                print(f"in the way after the 429: {self.destination.snapshot().binding}")


# --- the endpoints ----------------------------------------------------------------------------------------------------


@attrs.define(eq=False)
class Api:
    """An endpoint that answers after a while, and counts what its key does."""

    key: str
    limit: int
    is_grumpy: bool = False
    answered: int = 0
    refused: int = 0
    open: int = 0
    most: int = 0

    async def serve(self, stream: TcpStream) -> None:
        """Serve one connection, which may ask again and again."""
        async with stream:
            while await stream.fill():
                head = await stream.receive_until(b"\r\n\r\n", 10_000)
                assert f"authorization: bearer {self.key}" in head.decode().lower()
                await stream.send_all(await self.answer())

    async def answer(self) -> bytes:
        """Answer one request."""
        if self.is_grumpy or self.open == self.limit:
            self.refused += not self.is_grumpy
            self.is_grumpy = False
            return b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
        self.open += 1
        self.most = max(self.most, self.open)
        await trio.sleep(0.030)
        self.open -= 1
        self.answered += 1
        return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def main() -> None:
    """Start the endpoints and ask them."""
    apis = [Api("key-1", 3), Api("key-2", 2), Api("key-3", 1, is_grumpy=True)]
    keys: dict[Endpoint, str] = {}
    candidates: list[Candidate] = []
    async with trio.open_nursery() as nursery:
        for api in apis:
            listener = await tcp_listen(("127.0.0.1", 0))
            nursery.start_soon(partial(trio.serve_listeners, api.serve, [listener]))
            keys[listener.endpoint] = api.key
            # Each key may be used so often at once, and begin 50 requests a second, 3 of them at once.
            candidates.append(Candidate(listener.endpoint, max_connections=api.limit, rate=Rate(50, burst=3)))
        async with open_outbound() as out, httpx2.AsyncClient(transport=transport()) as http:
            client = Client(http, out.destination("api", candidates=candidates), keys)
            async with trio.open_nursery() as questions:
                for question in range(30):
                    questions.start_soon(client.ask, question)
        nursery.cancel_scope.cancel()

    print(f"30 requests: {client.answers.count('ok')} answers")
    for api in apis:
        print(f"{api.key}: {api.answered} answers, at most {api.most} at once, over its limit {api.refused} times")
    early = sum(began < at < ended for at in client.granted for began, ended in client.paused)
    print(f"asked before the Retry-After was over: {early} times")


if __name__ == "__main__":
    trio.run(main)
