"""A Diameter-like peer with its watchdog, RFC 3539 section 3.4: SCTP's heartbeats say that a host is there, this says
that the program on it still answers.

It runs on a network of the testing package, in virtual time. Where the kernel has SCTP, leave the network and the clock
out and put addresses of your own in.

Prints:
  at 0 s: connected
  at 30 s: nothing came, so ask
  at 30 s: the peer answers
  at 60 s: nothing came, so ask
  at 60 s: the peer answers
  at 90 s: nothing came, so ask
  at 120 s: no answer: [Errno 110] receive from 192.0.2.2:3868 had no result by its deadline, after 30000.0 ms
"""

import trio
import trio.testing

from trio_connect import DeadlineExceeded, deadline_after, now, sctp
from trio_connect.testing import SctpNetwork

SERVER = [("192.0.2.2", 3868), ("198.51.100.2", 3868)]
CLIENT = ["192.0.2.1", "198.51.100.1"]
WATCHDOG = 30.0  # Tw; RFC 3539 section 3.4.1 adds up to two seconds at random
REQUEST, ANSWER = b"Device-Watchdog-Request", b"Device-Watchdog-Answer"


def say(what: str) -> None:
    """Print it with the time."""
    print(f"at {trio.current_time():.0f} s: {what}")


async def serve(association: sctp.Association) -> None:
    """Answer twice, and then hang, as programs do. The kernel still acknowledges what comes."""
    async with association:
        for _ in range(2):
            request = await association.receive()
            assert request.data == REQUEST
            await association.send(ANSWER)
        await trio.sleep_forever()


async def watch(association: sctp.Association) -> None:
    """Receive, and ask when nothing has come for a while; end when there is no answer for as long again."""
    is_asked = False
    while True:
        try:
            message = await association.receive(deadline_after(WATCHDOG))
        except DeadlineExceeded as exc:
            if is_asked:
                say(f"no answer: {exc}")
                await association.abort()  # a peer that hangs would not take part in a graceful end
                return
            say("nothing came, so ask")
            await association.send(REQUEST)
            is_asked = True
        else:
            is_asked = False
            if message.data == ANSWER:
                say("the peer answers")


async def main() -> None:
    """Set up both ends, and watch."""
    with SctpNetwork() as net:
        net.host(*CLIENT)
        net.host(*(host for host, _ in SERVER))
        async with await sctp.listen(SERVER, ppid=sctp.Ppid.DIAMETER) as listener, trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            association = await sctp.connectx(SERVER, now() + 2000, local=CLIENT, ppid=sctp.Ppid.DIAMETER)
            async with association:
                say("connected")
                await watch(association)
            nursery.cancel_scope.cancel()


trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
