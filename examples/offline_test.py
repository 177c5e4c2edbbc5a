"""Test a program that connects, offline: one address swallows packets, the other is far away, and nobody waits.

With pytest this is a test with the fixture `vnet`; here `run` does without.

Prints:
  answered after 330 ms of virtual time
  [2001:db8::1]:7  =========...
  192.0.2.1:7  ...  at 250 ms: connected...
"""

import trio

from trio_connect.testing import VirtualNetwork, echo, run


async def ask(host: str) -> bytes:
    """The program under test, which knows nothing of virtual networks."""
    async with await trio.open_tcp_stream(host, 7) as stream:
        await stream.send_all(b"hello")
        return await stream.receive_some()


async def main(net: VirtualNetwork) -> None:
    """Describe a network, run the program on it, and look at what it did."""
    net.dns("api.test", ["2001:db8::1", "192.0.2.1"])
    net.host("2001:db8::1").blackhole()
    net.host("192.0.2.1").listen(7, echo, rtt=0.040)
    assert await ask("api.test") == b"hello"
    assert net.trace.starts == {"2001:db8::1": 0.0, "192.0.2.1": 0.25}
    print(f"answered after {trio.current_time() * 1000:.0f} ms of virtual time")
    print(net.trace.waterfall())


run(main)
