"""The public side of the virtual network: hosts, names, partitions, the trace, and its installation in a Trio run.

As an instrument it serves a whole run; as a context manager, a block inside a run. Either way it replaces Trio's socket
factory and hostname resolver, so programs in the run need no change.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

import trio

from . import _guard
from ._address import family_of, several
from ._arguments import check_int, shown
from ._dns import Name, Names
from ._errors import NotVirtualTime, VirtualNetworkError
from ._fabric import Fabric
from ._factory import Factory
from ._host import Handler, Host
from ._node import Node
from ._serving import Serving
from ._socket import VirtualSocket
from ._tcp import End
from ._trace import Connection, Trace

LOCAL: Final = ("192.0.2.254", "2001:db8::fe")


class VirtualNetwork(trio.abc.Instrument):
    """A deterministic TCP network and DNS in virtual time.

    Use it as an instrument of one run (`trio.run(main, clock=MockClock(...), instruments=[net])`, or through the pytest
    fixture `vnet`), or as a context manager inside one. One network serves one run, once.

    Attributes:
      seed: where random draws begin; the same seed gives the same draws.
      local: the host that the program under test lives on.
      trace: what happened so far.
      failures: what must fail the test even if the program swallowed it; `verify` raises it.
    """

    def __init__(self, seed: int = 0, *, local: Iterable[str] = LOCAL) -> None:
        check_int("seed", seed, -(2**128), 2**128)
        self._fabric = fabric = Fabric(seed, several("local", local))
        self._names = Names(fabric)
        self._factory = Factory(fabric)
        self._serving = Serving(fabric)
        self._hosts: dict[Node, Host] = {}
        self._used = False
        self._previous: tuple[trio.abc.SocketFactory | None, trio.abc.HostnameResolver | None] = (None, None)
        self.seed = seed
        self.trace = Trace(fabric.recorder)
        self.failures = fabric.failures
        self.local = self._host_of(fabric.local)

    def __repr__(self) -> str:
        return f"<VirtualNetwork seed={self.seed} hosts={len(self._fabric)}>"

    # ---- Describing the network ----

    def host(
        self,
        *addresses: str,
        rtt: float | None = None,
        jitter: float | None = None,
        bandwidth: float | None = None,
    ) -> Host:
        """Return the host with these addresses; it is made when it is new. Loopback addresses mean `local`.

        Args:
          addresses: one or more numeric addresses of one host.
          rtt: round-trip time to the host from now on, in seconds; None leaves it.
          jitter: added to every one-way trip: evenly from 0 to this, in seconds; None leaves it.
          bandwidth: of each direction of each connection, in bytes per second; None leaves it.

        Returns:
          The host.

        Raises:
          ValueError: no address, one that is not numeric, or addresses of two different hosts.
          TypeError: an argument has the wrong type.
        """
        node = self._fabric.node(addresses)
        node.path = node.path.changed(rtt, jitter, bandwidth)
        return self._host_of(node)

    def _host_of(self, node: Node) -> Host:
        if node not in self._hosts:
            self._hosts[node] = Host(self._fabric, node, self._start_handler)
        return self._hosts[node]

    def _start_handler(self, node: Node, handler: Handler, end: End, record: Connection) -> None:
        sock = VirtualSocket(self._fabric, node, family_of(end.local[0]), end)
        self._serving.start(node, handler, sock, record)

    def dns(
        self,
        name: str,
        addresses: Iterable[str] = (),
        *,
        a: Iterable[str] = (),
        aaaa: Iterable[str] = (),
        a_delay: float = 0.0,
        aaaa_delay: float = 0.0,
        a_error: int | BaseException | None = None,
        aaaa_error: int | BaseException | None = None,
    ) -> None:
        """Say what a name resolves to, from now on.

        A name with no addresses at all does not exist (EAI_NONAME); one with addresses of the other family only has an
        empty answer (EAI_NODATA). A name that was never given here is an `UnknownHost`.

        Args:
          name: the name; case and a final dot do not matter.
          addresses: addresses of both families, in the order in which `getaddrinfo` gives them.
          a: IPv4 addresses.
          aaaa: IPv6 addresses; they come first.
          a_delay: seconds until the IPv4 family is answered; `math.inf` is never.
          aaaa_delay: likewise for IPv6.
          a_error: fail the IPv4 family with `socket.gaierror` of this EAI number, or with this exception.
          aaaa_error: likewise for IPv6.

        Raises:
          TypeError: the name is not a str, or an address is not one.
          ValueError: a name that cannot be one, an address of the wrong family or not numeric, or a negative delay.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {shown(name)}")
        known = Name.of(addresses, a, aaaa, a_delay, aaaa_delay, a_error, aaaa_error)
        try:
            self._names.set(name, known)
        except UnicodeError as error:  # idna's own errors are among them
            raise ValueError(f"name must be a host name, not {shown(name)}: {error}") from None

    def partition(self, a: Host | str, b: Host | str) -> None:
        """Lose every packet between two hosts until they are healed. Nothing breaks at once: TCP retransmits.

        Args:
          a: a host, or one of its addresses.
          b: another one.

        Raises:
          TypeError: neither a `Host` nor a str.
          ValueError: a str that is not a numeric address.
        """
        self._fabric.cut(self._node_of(a), self._node_of(b))

    def heal(self, a: Host | str, b: Host | str) -> None:
        """End a partition. What is waiting goes through with its next retransmission.

        Args:
          a: a host, or one of its addresses.
          b: another one.

        Raises:
          TypeError: neither a `Host` nor a str.
          ValueError: a str that is not a numeric address.
        """
        self._fabric.mend(self._node_of(a), self._node_of(b))

    def _node_of(self, host: Host | str) -> Node:
        return self._fabric.node(host.addresses if isinstance(host, Host) else (host,))

    # ---- Installing it ----

    def before_run(self) -> None:
        """Install this network in the run that begins; Trio calls it."""
        # Trio would log and drop an exception raised here, so every use of the network raises it instead. The network
        # is installed all the same, so that the program cannot reach the real one.
        self._fabric.refusal = self._objection()
        if self._fabric.refusal is not None:
            self._fabric.failed(self._fabric.refusal)
        self._install()

    def after_run(self) -> None:
        """End with the run; Trio calls it."""
        self._close()

    def __enter__(self) -> Self:
        objection = self._objection()
        if objection is not None:
            raise self._fabric.failed(objection)
        self._serving.cancellable = True
        self._install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        trio.socket.set_custom_socket_factory(self._previous[0])
        trio.socket.set_custom_hostname_resolver(self._previous[1])
        self._close()
        # Handlers are cancelled first, so that none of them sees its socket closed.
        self._serving.end()
        for _, sock in [*self._fabric.sockets.values()]:
            sock.close()

    def _objection(self) -> VirtualNetworkError | None:
        from trio.testing import MockClock  # not at the top: see run()

        if self._used:
            return VirtualNetworkError("a VirtualNetwork serves one run, once: make a new one")
        if not isinstance(trio.lowlevel.current_clock(), MockClock):
            return NotVirtualTime(
                "a virtual network needs trio.testing.MockClock: ask for the fixture autojump_clock as well, or use "
                "trio_connect.testing.run()"
            )
        return None

    def _install(self) -> None:
        self._used = self._fabric.active = True
        self._fabric.origin = self._fabric.timeline.now()
        self._previous = (
            trio.socket.set_custom_socket_factory(self._factory),
            trio.socket.set_custom_hostname_resolver(self._names),
        )
        _guard.activate(self._fabric)

    def _close(self) -> None:
        self._fabric.active = False
        _guard.deactivate(self._fabric)
        self._fabric.timeline.close()

    @property
    def active(self) -> bool:
        """Whether the network is installed now."""
        return self._fabric.active

    @property
    def open_sockets(self) -> tuple[trio.socket.SocketType, ...]:
        """The sockets of `local` that the program has not closed, for tests of leaks."""
        return tuple(sock for node, sock in self._fabric.sockets.values() if node is self._fabric.local)

    def verify(self) -> None:
        """Raise what must fail the test, if there is anything.

        Raises:
          BaseException: what was recorded; several as a `BaseExceptionGroup`.
        """
        if len(self.failures) == 1:
            raise self.failures[0]
        if self.failures:
            raise BaseExceptionGroup("the virtual network recorded several failures", self.failures)

    def report(self) -> str:
        """Return the seed and the waterfall, for people who look at a failed test.

        Returns:
          Several lines of text.
        """
        return f"virtual network, seed {self.seed}\n{self.trace.waterfall()}"
