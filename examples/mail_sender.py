"""A small mail sender: MX records, two sources, limits, and decisions that are honoured.

Four domains get mail. Their servers are aiosmtpd in threads of this program, and each is told how to behave: one takes
everything, one says 421 to the first connection of each source, one refuses every connection, one takes no mail at all.
The greeting and EHLO are the `establish`, so a server that connects and then says 421 has not been reached. SMTP itself
is smtpproto, which does no I/O, over a `TcpStream`. A message that cannot be sent waits until the time of its decision.

It needs `pip install aiosmtpd smtpproto`, and the sources 127.0.0.1 and 127.0.0.2, which every Linux machine has.

Prints:
  up.test takes everything: 8 sent, 0 returned, at most ... connections at once
  busy.test says 421 to each source once: 3 sent, 0 returned, nobody was back before the time
    SourceSuspended: busy.test: ... is suspended (421 4.3.2 too busy); again in ... s
  dead.test refuses: 0 sent, 2 returned
    RequeueOne: dead.test: every address failed (connection refused); again with this one in ... s
    DestinationDelayed: dead.test: has failed too often (connection refused); nothing to it before ... s
  none.test has a null MX: 0 sent, 1 returned
    DestinationRejected: none.test: the domain takes no mail (null MX, RFC 7505); give up what is for it
  every decision is what the servers were told to cause
"""

import asyncio
import socket
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from email.message import EmailMessage
from typing import Any

import attrs
import trio
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from smtpproto.protocol import SMTPClientProtocol

from trio_connect import DeadlineExceeded, EstablishFailed, MailRecord, Source, StaticResolver, TcpStream, now
from trio_connect.outbound import (
    Backoff,
    Destination,
    DestinationFailed,
    DestinationRejected,
    NotAdmitted,
    Outbound,
    OutboundPolicy,
    Overloaded,
    open_outbound,
)

SOURCES = [Source("127.0.0.1", name="first"), Source("127.0.0.2", name="second")]
PAUSE = 0.4
"""For how long a source stays away that was told 421. RFC 5321 section 3.8 has no number; real senders take minutes."""
POLICY = OutboundPolicy(
    max_connections=2,  # from each source to each provider
    failures_to_delay=2,
    max_connecting=4,
    delay=Backoff(initial=0.2, multiplier=2.0, jitter=0.0),
    address_cooldown=Backoff(initial=0.1, jitter=0.0),
)
TIME_TO_LIVE = 2.9
"""After so many seconds a message is returned to its sender. Real mail gets days."""


# --- sending ----------------------------------------------------------------------------------------------------------


class MailSession:
    """SMTP over a stream: smtpproto says what to send, and what a reply means."""

    def __init__(self, stream: TcpStream) -> None:
        self.stream = stream
        self.protocol = SMTPClientProtocol()

    async def reply(self) -> str:
        """Send what is to be sent, and return the reply to it."""
        if data := self.protocol.get_outgoing_data():
            await self.stream.send_all(data)
        while True:
            line = await self.stream.receive_until(b"\r\n", 1000)
            if line.startswith(b"421"):  # may be the reply to any command (RFC 5321 section 3.8)
                raise Overloaded(PAUSE, line.decode("ascii", "replace"))
            response = self.protocol.feed_bytes(line + b"\r\n")
            if response is not None and response.is_error():
                raise EstablishFailed(f"{response.code} {response.message}")
            if response is not None:
                return response.message

    async def send(self, message: EmailMessage) -> None:
        """Send one message."""
        protocol = self.protocol
        protocol.mail(message["From"])
        await self.reply()
        protocol.recipient(message["To"])
        await self.reply()
        protocol.start_data()
        await self.reply()
        protocol.data(message)
        await self.reply()
        protocol.quit()
        await self.reply()


async def greet(stream: TcpStream) -> MailSession:
    """Wait for the greeting and exchange EHLO: only then is a mail server reached."""
    session = MailSession(stream)
    await session.reply()
    session.protocol.send_greeting("sender.test")
    await session.reply()
    return session


@attrs.define
class Queue:
    """The messages for a domain, and what became of them."""

    messages: list[EmailMessage]
    sent: int = 0
    returned: int = 0
    decisions: dict[str, str] = attrs.field(factory=dict[str, str])
    """The first of each kind, as text."""

    def report(self, title: str, *more: str) -> None:
        """Print what became of the messages."""
        print(", ".join([f"{title}: {self.sent} sent", f"{self.returned} returned", *more]))
        for kind, text in self.decisions.items():
            print(f"  {kind}: {text}")


async def work(queue: Queue, destination: Destination) -> None:
    """Send what is in the queue, one message after the other."""
    while queue.messages:
        await deliver(queue.messages.pop(), queue, destination)


async def deliver(message: EmailMessage, queue: Queue, destination: Destination) -> None:
    """Send one message, or return it to its sender."""
    give_up = now() + round(TIME_TO_LIVE * 1000)
    while True:
        try:
            async with destination.try_connect(give_up, establish=greet) as connection:
                try:
                    await connection.result.send(message)
                except Overloaded as exc:
                    connection.overloaded(exc.seconds, exc.reason)
                    continue
            queue.sent += 1
        except (NotAdmitted, DestinationFailed) as exc:
            decision = exc.decision
            queue.decisions.setdefault(type(decision).__name__, str(decision))
            if not isinstance(decision, DestinationRejected) and decision.until < give_up:
                await trio.sleep(decision.seconds)  # it is complete: nothing is multiplied onto it
                continue
            queue.returned += 1
        except DeadlineExceeded:
            queue.returned += 1
        return


# --- the servers ------------------------------------------------------------------------------------------------------


class MailServer(Controller):
    """A mail server in a thread, which counts its connections, and says 421 to each source once if it is told to."""

    def __init__(self, address: str, port: int, *, is_busy: bool = False) -> None:
        super().__init__(self, hostname=address, port=port)  # pyright: ignore[reportUnknownMemberType]
        self.is_busy = is_busy
        self.told: dict[str, float] = {}
        self.came_back_early = False
        self.open = self.most = self.taken = 0

    def factory(self) -> SMTP:
        """Make the protocol of one connection."""
        return _CountingSMTP(self)

    async def handle_EHLO(  # noqa: N802
        self, _server: SMTP, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Greet, or say that there is too much to do."""
        address = str(session.peer[0]) if session.peer else ""
        moment = time.monotonic()
        if self.is_busy and address not in self.told:
            self.told[address] = moment
            return ["421 4.3.2 too busy"]
        self.came_back_early |= self.is_busy and moment < self.told[address] + PAUSE
        session.host_name = hostname
        return responses

    async def handle_DATA(self, _server: SMTP, _session: Session, _envelope: Envelope) -> str:  # noqa: N802
        """Take a message, with some work."""
        await asyncio.sleep(0.02)
        self.taken += 1
        return "250 2.0.0 taken"


class _CountingSMTP(SMTP):
    def __init__(self, server: MailServer) -> None:
        super().__init__(server, hostname="server.test")
        self.mail_server = server

    def connection_made(self, transport: Any) -> None:
        self.mail_server.open += 1
        self.mail_server.most = max(self.mail_server.most, self.mail_server.open)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.mail_server.open -= 1
        super().connection_lost(error)


@contextmanager
def running(server: MailServer) -> Generator[MailServer, None, None]:
    """Run a server in its thread."""
    server.start()
    server.most = 0  # starting connects to itself
    try:
        yield server
    finally:
        server.stop()


# --- all together -----------------------------------------------------------------------------------------------------


def letters(domain: str, count: int) -> list[EmailMessage]:
    """Make some mail."""
    messages: list[EmailMessage] = []
    for number in range(1, count + 1):
        message = EmailMessage()
        message["From"] = "me@sender.test"
        message["To"] = f"you@{domain}"
        message["Subject"] = f"letter {number}"
        message.set_content("Hello.\n")
        messages.append(message)
    return messages


async def send_all(out: Outbound, port: int) -> dict[str, Queue]:
    """Send mail to all domains side by side."""
    queues = {
        "up.test": Queue(letters("up.test", 8)),
        "busy.test": Queue(letters("busy.test", 3)),
        "dead.test": Queue(letters("dead.test", 2)),
        "none.test": Queue(letters("none.test", 1)),
    }
    async with trio.open_nursery() as nursery:
        for domain, queue in queues.items():
            for _ in range(6 if domain == "up.test" else 1):
                nursery.start_soon(work, queue, out.mx(domain, port=port))
    return queues


async def main() -> None:
    """Start the servers, send the mail, and compare."""
    with ExitStack() as stack:
        dead = stack.enter_context(socket.socket())
        dead.bind(("127.0.0.13", 0))  # and does not listen
        port = dead.getsockname()[1]
        up = stack.enter_context(running(MailServer("127.0.0.11", port)))
        busy = stack.enter_context(running(MailServer("127.0.0.12", port, is_busy=True)))
        resolver = StaticResolver(
            {"mx1.up.test": "127.0.0.13", "mx2.up.test": "127.0.0.11", "mx.busy.test": "127.0.0.12"}
            | {"mx.dead.test": "127.0.0.13"},
            mx={
                "up.test": [MailRecord("mx1.up.test", 10), MailRecord("mx2.up.test", 20)],  # the first one is dead
                "busy.test": [MailRecord("mx.busy.test", 10)],
                "dead.test": [MailRecord("mx.dead.test", 10)],
                "none.test": [MailRecord(".", 0)],
            },
        )
        async with open_outbound(policy=POLICY, sources=SOURCES, resolver=resolver) as out:
            queues = await send_all(out, port)

    queues["up.test"].report("up.test takes everything", f"at most {up.most} connections at once")
    early = "somebody" if busy.came_back_early else "nobody"
    queues["busy.test"].report("busy.test says 421 to each source once", f"{early} was back before the time")
    queues["dead.test"].report("dead.test refuses")
    queues["none.test"].report("none.test has a null MX")
    caused = {
        "up.test": {"RetryAt"},  # six workers, four places
        "busy.test": {"SourceSuspended"},
        "dead.test": {"RequeueOne", "DestinationDelayed"},
        "none.test": {"DestinationRejected"},
    }
    is_as_told = (
        {domain: set(queue.decisions) for domain, queue in queues.items()} == caused
        and (up.taken, busy.taken, len(busy.told)) == (8, 3, len(SOURCES))
        and up.most <= len(SOURCES) * POLICY.max_connections
        and not busy.came_back_early
    )
    print(f"every decision is {'' if is_as_told else 'NOT '}what the servers were told to cause")


if __name__ == "__main__":
    trio.run(main)
