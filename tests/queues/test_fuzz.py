"""Random operations against a slow model: bytes in lists, one queue after the other, and no event is ever needed.

The peers are plain sockets in this thread. After each burst of operations the loop runs until everything has completed
that the model says must, and each result is held against what the model says may be. What is cancelled may have been
faster; then its bytes are in their place in the stream.
"""

from __future__ import annotations

import contextlib
import errno
import random
import select
import socket
import struct
from collections import Counter, deque
from typing import Any

import attrs
import pytest
import trio

from tests.queues.kit import LOOPBACK
from tests.support import faults
from tests.support.leaks import no_leaks
from trio_connect import now
from trio_connect.queues import Accepted, IOQueue, Popped, Pushed, QResult, QToken, QueueSet, open_queue_set

LIMIT = 300
QUEUES = 24
HUGE = 300_000
HEADER = 8
RESET = {errno.ECONNRESET, errno.EPIPE}


@attrs.define(eq=False)
class Push:
    """What was pushed: a header that no filler looks like, so that it is seen where a push was cut."""

    token: QToken[Pushed]
    content: bytes
    outcome: str = "pending"


@attrs.define(eq=False)
class Link:
    """A connected queue, the peer's socket, and what should be seen of either."""

    queue: IOQueue
    peer: socket.socket | None
    unread: bytearray = attrs.field(factory=bytearray)
    """What the peer has sent and no pop has brought."""
    ended: str = ""
    """How the peer has ended: "eof", "reset" or not."""
    pops: deque[QToken[Popped]] = attrs.field(factory=deque[QToken[Popped]])
    pushes: deque[Push] = attrs.field(factory=deque[Push])
    received: bytearray = attrs.field(factory=bytearray)
    """What the peer has got of the pushes above."""
    deaf: bool = False
    """The peer does not read any more: what it gets is not known."""

    def take(self) -> None:
        """Have the peer read all there is."""
        if self.peer is None or self.deaf:
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self.peer.recv(1 << 20):
                self.received += data

    def match(self) -> None:
        """Hold what has come against the pushes, each whole, or cut off where it was cancelled."""
        while self.pushes and not self.deaf:
            push = self.pushes[0]
            if push.outcome == "pending" and push.token.done:
                return  # its result has not been claimed
            size = min(len(push.content), len(self.received))
            if push.outcome == "cut":
                head = min(size, HEADER)
                is_own = self.received[:head] == push.content[:head]
                end = self.received.find(b"\0", 1) if is_own else 0
                if end < 0 or head < HEADER:
                    return  # the rest is still on its way, if there is one
                size = end
            assert self.received[:size] == push.content[:size]
            if push.outcome == "pending" or (push.outcome == "pushed" and size < len(push.content)):
                return
            del self.received[:size]
            self.pushes.popleft()
        assert self.deaf or not self.received, "bytes that nobody has pushed"


def until_readable(sock: socket.socket) -> None:
    """Wait for what is on its way: on a busy machine the kernel may leave it to ksoftirqd."""
    assert select.select([sock], [], [], 20)[0]


class Fuzz:
    """One set, its queues, and the model."""

    def __init__(self, qs: QueueSet, seed: int, nowhere: faults.Address, closed: faults.Address) -> None:
        self.qs = qs
        self.random = random.Random(seed)
        self.nowhere = nowhere
        self.closed = closed
        self.serial = 0
        self.counts: Counter[str] = Counter()
        self.links: list[Link] = []
        self.idle: list[IOQueue] = []
        """Stream queues that may connect."""
        self.waiting: dict[QToken[Any], Any] = {}
        """What is submitted and not claimed, and what it belongs to."""
        self.cancelled: set[QToken[Any]] = set()
        self.must: set[QToken[Any]] = set()
        """What has to complete by itself."""
        self.listener: IOQueue
        self.clients: deque[socket.socket] = deque()
        """Connected to our listener, not accepted yet, in their order."""
        self.accepts: deque[QToken[Accepted]] = deque()
        self.server = socket.create_server(LOOPBACK, backlog=4096)
        self.server.setblocking(False)
        self.peers: dict[Any, socket.socket] = {}
        self.mail: IOQueue
        self.postman = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.postman.bind(LOOPBACK)
        self.postman.setblocking(False)
        self.letters: deque[bytes] = deque()
        self.mail_pops: deque[QToken[Popped]] = deque()

    async def open(self) -> None:
        self.listener, self.mail = self.qs.stream(), self.qs.datagram()
        await self.listener.bind(LOOPBACK)
        await self.listener.listen(1000)
        await self.mail.bind(LOOPBACK)

    def close_peers(self) -> None:
        for sock in (self.server, self.postman, *self.clients, *self.peers.values()):
            sock.close()
        for link in self.links:
            if link.peer is not None:
                link.peer.close()

    # ------------------------------------------------------------------ what is done

    async def act(self) -> None:
        names = (
            ["connect"] * 6 + ["push"] * 14 + ["pop"] * 14 + ["send"] * 12 + ["accept"] * 3 + ["client"] * 3
            + ["cancel"] * 8 + ["letter"] * 4 + ["mail_pop"] * 4 + ["reply"] * 2 + ["eof"] + ["reset"] + ["close"] * 2
            + ["aclose", "pause", "churn", "claim"]
        )  # fmt: skip
        name = self.random.choice(names)
        if self.qs.in_flight > LIMIT:
            name = "claim"
        self.counts[name] += 1
        await getattr(self, name)()

    def link(self) -> Link | None:
        return self.random.choice(self.links) if self.links else None

    async def connect(self) -> None:
        if len(self.links) + len(self.idle) > QUEUES and not self.idle:
            return
        queue = self.idle.pop() if self.idle and self.random.random() < 0.7 else self.qs.stream()
        kind = self.random.choices(["server", "closed", "nowhere", "late"], [8, 2, 1, 1])[0]
        if kind == "server":
            token = queue.connect(self.server.getsockname(), now() + 60_000)
        elif kind == "closed":
            token = queue.connect(self.closed.pair)
        elif kind == "nowhere":
            token = queue.connect(self.nowhere.pair, now() + self.random.randint(1, 5))
        else:
            token = queue.connect(self.nowhere.pair, now() - 1)
        self.waiting[token] = kind
        self.must.add(token)

    async def push(self) -> None:
        link = self.link()
        if link is None:
            return
        self.serial += 1
        size = HUGE if self.random.random() < 0.01 else self.random.randint(0, 200)
        content = b"\0%07d" % self.serial + b"\xff" * size
        push = Push(link.queue.push(bytearray(content) if self.random.random() < 0.3 else content), content)
        link.pushes.append(push)
        self.waiting[push.token] = link, push

    async def pop(self) -> None:
        link = self.link()
        if link is not None:
            token = link.queue.pop(self.random.choice([1, 7, 100, None]))
            link.pops.append(token)
            self.waiting[token] = link

    async def send(self) -> None:
        link = self.link()
        if link is None or link.peer is None or link.ended:
            return
        data = self.random.randbytes(self.random.choice([1, 5, 50, 5_000]))
        with contextlib.suppress(BlockingIOError):
            link.unread += data[: link.peer.send(data)]
        if self.random.random() < 0.1:
            await self.eof(link)

    async def eof(self, link: Link | None = None) -> None:
        link = link or self.link()
        if link is not None and link.peer is not None and not link.ended:
            link.peer.shutdown(socket.SHUT_WR)
            link.ended = "eof"

    async def reset(self) -> None:
        link = self.link()
        if link is not None and link.peer is not None:
            link.take()
            link.match()
            link.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.peer.close()
            link.peer, link.ended, link.deaf = None, "reset", True

    async def accept(self) -> None:
        token = self.listener.accept()
        self.accepts.append(token)
        self.waiting[token] = "accept"

    async def client(self) -> None:
        if len(self.clients) + len(self.links) < QUEUES:
            local = self.listener.local
            assert local is not None
            self.clients.append(socket.create_connection(("127.0.0.1", local.sockaddr[1])))  # type: ignore[union-attr]
            self.clients[-1].setblocking(False)

    async def cancel(self) -> None:
        pending = [token for token in self.waiting if not token.done]
        if pending:
            token = self.random.choice(pending)
            token.cancel()
            self.cancelled.add(token)
            self.must.discard(token)

    async def letter(self) -> None:
        if len(self.letters) < 20:
            self.serial += 1
            self.letters.append(b"%d" % self.serial * self.random.randint(0, 3))
            local = self.mail.local
            assert local is not None
            self.postman.sendto(self.letters[-1], local.sockaddr)  # type: ignore[union-attr]

    async def mail_pop(self) -> None:
        token = self.mail.pop(2000)
        self.mail_pops.append(token)
        self.waiting[token] = "mail"

    async def reply(self) -> None:
        token = self.mail.push_to(b"reply", self.postman.getsockname())
        self.waiting[token] = "reply"
        self.must.add(token)

    def leave(self) -> Link | None:
        """Take a link out of the model, whose queue is about to be closed."""
        link = self.link()
        if link is not None:
            self.links.remove(link)
            for token in (*link.pops, *(push.token for push in link.pushes)):
                if not token.done:
                    self.cancelled.add(token)
            if link.peer is not None:
                link.peer.close()  # whatever is still on its way is of no interest
            link.deaf = True
        return link

    async def close(self) -> None:
        link = self.leave()
        if link is not None:
            token = link.queue.close()
            self.waiting[token] = "close"
            self.must.add(token)

    async def aclose(self) -> None:
        link = self.leave()
        if link is not None:
            await link.queue.aclose()

    async def pause(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            await trio.lowlevel.checkpoint()

    async def churn(self) -> None:
        """Numbers of descriptors go round."""
        socks = [socket.socket() for _ in range(self.random.randint(1, 4))]
        await trio.lowlevel.checkpoint()
        for sock in socks:
            sock.close()

    async def claim(self) -> None:
        # Those whose results the model takes in the order of completion are not claimed by name.
        pending = [token for token in self.waiting if token.done and token.op not in ("pop", "accept")]
        if pending and self.random.random() < 0.3:
            token = self.random.choice(pending)
            self.check(await self.qs.wait(token))
        else:
            for result in await self.qs.wait_next(self.random.choice([1, 5, 500]), 0):
                self.check(result)

    # ------------------------------------------------------------------ what must come of it

    async def settle(self) -> None:
        with trio.fail_after(30):
            while not self.is_settled():
                for link in self.links:
                    link.take()
                await trio.lowlevel.checkpoint()
                if not self.is_settled() and self.random.random() < 0.2:
                    await trio.sleep(0.001)
        for result in await self.qs.wait_next(2 * LIMIT, 0):
            self.check(result)
        for link in self.links:
            link.take()
            link.match()

    def is_settled(self) -> bool:
        if any(not token.done for token in self.must):
            return False
        if any(not token.done for token in list(self.accepts)[: len(self.clients)]):
            return False
        if any(not token.done for token in list(self.mail_pops)[: len(self.letters)]):
            return False
        for link in self.links:
            if link.pops and (link.unread or link.ended) and not link.pops[0].done:
                return False
            if any(not push.token.done for push in link.pushes):
                return False
        return True

    def check(self, result: QResult[Any]) -> None:
        token = result.token
        about = self.waiting.pop(token)
        self.must.discard(token)
        if result.errno == errno.ECANCELED:
            assert token in self.cancelled, f"{token} was cancelled by nobody"
        self.cancelled.discard(token)
        getattr(self, f"check_{token.op}")(result, about)

    def check_connect(self, result: QResult[Any], kind: str) -> None:
        if result.errno == errno.ECANCELED:
            self.idle.append(result.queue)
        elif kind == "server":
            local = result.unwrap().local
            while local not in self.peers:
                until_readable(self.server)
                peer, name = self.server.accept()
                peer.setblocking(False)
                self.peers[type(local)(*name)] = peer
            self.links.append(Link(result.queue, self.peers.pop(local)))
        else:
            assert result.errno == {"closed": errno.ECONNREFUSED}.get(kind, errno.ETIMEDOUT), result
            assert result.queue.state == "unbound"
            self.idle.append(result.queue)

    def check_push(self, result: QResult[Any], about: tuple[Link, Push]) -> None:
        link, push = about
        assert push.outcome == "pending"
        if result.ok:
            assert result.value == Pushed(len(push.content))
            push.outcome = "pushed"
            # Never before one that was submitted earlier.
            earlier = list(link.pushes)[: list(link.pushes).index(push)] if push in link.pushes else []
            assert all(other.token.done for other in earlier)
        else:
            assert result.errno == errno.ECANCELED or (link.ended and result.errno in RESET), result
            push.outcome = "cut"

    def check_pop(self, result: QResult[Any], about: Any) -> None:
        if about == "mail":
            self.mail_pops.remove(result.token)
            if result.errno != errno.ECANCELED:
                assert result.unwrap().data == self.letters.popleft()
            return
        link: Link = about
        if result.errno == errno.ECANCELED:
            link.pops.remove(result.token)
            return
        assert all(token.done for token in list(link.pops)[: list(link.pops).index(result.token)])
        link.pops.remove(result.token)
        if result.ok:
            value = result.unwrap()
            assert link.unread.startswith(value.data)
            assert value.eof == (not value.data)
            del link.unread[: len(value.data)]
            assert not value.eof or (link.ended and not (link.unread and link.ended == "eof"))
        else:
            assert link.ended == "reset" and result.errno in RESET, result  # noqa: PT018

    def check_accept(self, result: QResult[Any], _: str) -> None:
        self.accepts.remove(result.token)
        if result.errno != errno.ECANCELED:
            client = self.clients.popleft()
            value = result.unwrap()
            assert value.peer.sockaddr == client.getsockname()
            self.links.append(Link(value.queue, client))

    def check_push_to(self, result: QResult[Any], _: str) -> None:
        if result.errno != errno.ECANCELED:
            assert result.value == Pushed(5)
            until_readable(self.postman)
            assert self.postman.recv(100) == b"reply"

    def check_close(self, result: QResult[Any], _: str) -> None:
        assert result.ok
        assert result.queue.state == "closed"


async def run(seed: int, operations: int) -> Counter[str]:
    with faults.black_hole() as nowhere, faults.refusing() as closed:
        async with open_queue_set(2 * LIMIT) as qs:
            fuzz = Fuzz(qs, seed, nowhere, closed)
            done = 0
            try:
                await fuzz.open()
                while done < operations:
                    burst = fuzz.random.randint(1, 40)
                    for _ in range(burst):
                        await fuzz.act()
                    done += burst
                    await fuzz.settle()
            except BaseException:
                print(f"seed {seed}, after {done} operations")
                raise
            finally:
                fuzz.close_peers()
    return fuzz.counts


@pytest.mark.parametrize("seed", range(2))
async def test_random_operations_do_what_the_model_says(seed):
    async with no_leaks():
        counts = await run(seed, 1_000)
    assert len(counts) > 12


@pytest.mark.slow
@pytest.mark.timeout(300)  # a minute on two cores that others share
async def test_100_000_random_operations_do_what_the_model_says():
    total: Counter[str] = Counter()
    for seed in range(100, 120):
        async with no_leaks():
            total += await run(seed, 5_000)
    assert total.total() >= 100_000
