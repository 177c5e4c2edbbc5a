"""An NGAP-like client (a gNB) and its server (an AMF) over two paths, of which one fails while they talk.

It runs on a network of the testing package, so that it runs anywhere and the failure comes when it is wanted. Where the
kernel has SCTP, leave the network and the clock out and put addresses of your own in: the rest stays as it is.

Prints:
  set up over 192.0.2.2, 198.51.100.2
  answer 1 after 2 ms
  answer 2 after 2 ms
  the path to 192.0.2.2 is cut
  answer 3 after 252 ms
  answer 4 after 2 ms
  192.0.2.2 is unreachable
  the path to 192.0.2.2 is healed
  192.0.2.2 is available
  answer 5 after 2 ms
"""

import trio
import trio.testing

from trio_connect import DeadlineExceeded, RaceFinished, now, sctp
from trio_connect.testing import SctpNetwork

AMF = [("192.0.2.2", 38412), ("198.51.100.2", 38412)]
GNB = ["192.0.2.1", "198.51.100.1"]
# A path counts as failed after three time-outs of a quarter of a second, half and one second.
TUNING = sctp.SctpTuning(rto_initial=0.25, rto_min=0.25, rto_max=1.0, heartbeat=0.5, path_max_retrans=2)


async def amf(association: sctp.Association) -> None:
    """Answer each request on the stream that it came on."""
    async with association:
        async for message in association:
            await association.send(b"accepted: " + message.data, stream=message.stream)


def tell(event: sctp.PathEvent | sctp.AssociationEvent | RaceFinished) -> None:
    """Say what happens to the paths."""
    if isinstance(event, sctp.PathEvent):
        print(f"{event.endpoint.host} is {event.state}")


async def ask(association: sctp.Association, number: int) -> None:
    """Send a request and wait for its answer."""
    started = trio.current_time()
    await association.send(b"request %d" % number, now() + 1000, stream=1)
    answer = await association.receive(now() + 3000)
    assert answer.data == b"accepted: request %d" % number
    assert answer.ppid == sctp.Ppid.NGAP
    print(f"answer {number} after {(trio.current_time() - started) * 1000:.0f} ms")


async def listen_for(association: sctp.Association, seconds: float) -> None:
    """Receive what comes in some time, so that events are told: nothing does."""
    try:
        await association.receive(now() + round(seconds * 1000))
    except DeadlineExceeded:
        pass


async def gnb(association: sctp.Association, net: SctpNetwork) -> None:
    """Talk, while a path fails and comes back."""
    print("set up over", ", ".join(path.endpoint.host for path in association.paths()))
    await ask(association, 1)
    await ask(association, 2)
    net.cut("192.0.2.2")
    print("the path to 192.0.2.2 is cut")
    await ask(association, 3)
    await ask(association, 4)
    await listen_for(association, 10)
    net.heal("192.0.2.2")
    print("the path to 192.0.2.2 is healed")
    await listen_for(association, 10)
    await ask(association, 5)


async def main() -> None:
    """Set up both ends and let them talk."""
    with SctpNetwork() as net:
        net.host(*GNB, rtt=0)
        net.host(*(host for host, _ in AMF), rtt=0.002)
        async with (
            await sctp.listen(AMF, ppid=sctp.Ppid.NGAP, tuning=TUNING) as listener,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(trio.serve_listeners, amf, [listener])
            async with await sctp.connectx(
                AMF, now() + 2000, local=GNB, ppid=sctp.Ppid.NGAP, tuning=TUNING, observer=tell
            ) as association:
                await gnb(association, net)
            nursery.cancel_scope.cancel()


trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
