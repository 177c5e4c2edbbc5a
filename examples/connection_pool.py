"""A pool of connections to a server that is started again in between.

An idle connection is asked whether it is dead before it is lent out. Connecting is done by an outbound destination:
never more than the limit, with a greeting that the server has to answer. When the server is away, every caller comes
back when the decision says, within its own deadline. A connection that comes back in the middle of a conversation is
closed.

Prints:
  20 answers over 2 connections
  the server is started again
  20 answers over 2 new connections; 2 idle ones were dead, and ... times the server was away
  a conversation that is broken off costs its connection: 1 is idle
"""

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import trio

from trio_connect import DeadlineExceeded, Endpoint, EstablishFailed, IncompleteRead, TcpStream, now, tcp_listen
from trio_connect.outbound import (
    Backoff,
    Destination,
    DestinationFailed,
    DestinationRejected,
    NotAdmitted,
    OutboundPolicy,
    open_outbound,
)

POLICY = OutboundPolicy(max_connections=2, failures_to_delay=1, delay=Backoff(initial=0.03, jitter=0.0))


@attrs.frozen
class Idle:
    """A connection, and what closes it and gives its place under the limits back."""

    stream: TcpStream
    block: AsyncExitStack

    async def discard(self) -> None:
        self.stream.abort()
        with trio.CancelScope(shield=True):  # it has been closed, so this waits for nobody
            await self.block.aclose()


class Pool:
    """Lends connections to a destination out, the one that was used last first."""

    def __init__(self, destination: Destination, size: int) -> None:
        self.idle: deque[Idle] = deque()
        self.made = self.dead = self.away = 0
        self._destination = destination
        self._turns = trio.CapacityLimiter(size)

    @asynccontextmanager
    async def connection(self, deadline: int) -> AsyncGenerator[TcpStream, None]:
        """Lend a connection out for the block."""
        async with self._turns:
            lent = await self._lend(deadline)
            try:
                yield lent.stream
            except BaseException:
                await lent.discard()  # nobody knows what it will receive next
                raise
            self.idle.append(lent)

    async def aclose(self) -> None:
        """Close what is idle."""
        while self.idle:
            await self.idle.pop().discard()

    async def _lend(self, deadline: int) -> Idle:
        while self.idle:
            each = self.idle.pop()
            if not each.stream.is_dead():
                return each
            self.dead += 1
            await each.discard()
        while True:
            try:
                async with AsyncExitStack() as block:
                    connecting = self._destination.connect(deadline, establish=greet)
                    connection = await block.enter_async_context(connecting)
                    self.made += 1
                    return Idle(connection.stream, block.pop_all())
            except DestinationRejected:
                raise
            except (NotAdmitted, DestinationFailed) as exc:
                if exc.decision.misses_deadline:
                    raise
                self.away += 1
                await trio.sleep(exc.decision.seconds)


async def greet(stream: TcpStream) -> None:
    """Take a connection only when the server answers on it."""
    if (answer := await ask(stream, b"hello", now() + 1_000)) != b"hello":
        raise EstablishFailed(f"the server said {answer!r}")


async def ask(stream: TcpStream, question: bytes, deadline: int) -> bytes:
    """Send a line, and return the one that comes back."""
    await stream.send_all(question + b"\n", deadline)
    return await stream.receive_until(b"\n", 1_000, deadline)


async def answer_lines(stream: TcpStream) -> None:
    """Send each line back, until the client ends."""
    try:
        while True:
            await stream.send_all(await stream.receive_until(b"\n", 1_000) + b"\n")
    except (IncompleteRead, trio.BrokenResourceError):
        pass


async def serve(endpoint: Endpoint, *, task_status: trio.TaskStatus[tuple[Endpoint, trio.CancelScope]]) -> None:
    """Be a server until the scope is cancelled; its connections end with it."""
    with trio.CancelScope() as scope:
        async with await tcp_listen(endpoint) as listener:
            task_status.started((listener.endpoint, scope))
            await trio.serve_listeners(answer_lines, [listener])


async def use(pool: Pool) -> int:
    """Ask 20 questions, up to five at once, and return how many were answered."""
    answers: list[bytes] = []

    async def user(number: int) -> None:
        for each in range(4):
            question = b"%d of %d" % (each, number)
            deadline = now() + 5_000  # for the wait, the connect and the conversation
            async with pool.connection(deadline) as stream:
                answer = await ask(stream, question, deadline)
            assert answer == question
            answers.append(answer)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(user, number)
    return len(answers)


async def main() -> None:
    async with trio.open_nursery() as nursery, open_outbound(policy=POLICY) as out:
        endpoint, server = await nursery.start(serve, Endpoint("127.0.0.1", 0))
        pool = Pool(out.destination("lines", candidates=[endpoint]), size=2)
        print(f"{await use(pool)} answers over {pool.made} connections")

        server.cancel()
        while not all(each.stream.is_dead() for each in pool.idle):  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.001)
        print("the server is started again")

        async def start_again() -> None:
            await trio.sleep(0.1)
            await nursery.start(serve, endpoint)

        nursery.start_soon(start_again)
        before = pool.made
        answers = await use(pool)
        print(
            f"{answers} answers over {pool.made - before} new connections; "
            f"{pool.dead} idle ones were dead, and {pool.away} times the server was away"
        )

        try:
            async with pool.connection(now() + 5_000) as stream:
                await stream.send_all(b"half a line")
                await stream.receive_until(b"\n", 1_000, now() + 20)
        except DeadlineExceeded:
            print(f"a conversation that is broken off costs its connection: {len(pool.idle)} is idle")
        await pool.aclose()
        nursery.cancel_scope.cancel()


trio.run(main)
