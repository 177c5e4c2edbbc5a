"""What the parts of one virtual network share: time, the trace, nodes, partitions, open sockets, and failures.

Hosts, dials, names and sockets refer to the fabric. The fabric refers only to nodes. `VirtualNetwork` is its public
side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import count
from typing import Final, TypeVar

import trio

from ._address import is_loopback, numeric
from ._errors import UnknownHost, VirtualNetworkError
from ._node import Node
from ._timeline import Timeline
from ._trace import Connection, Recorder, TraceEvent

E = TypeVar("E", bound=VirtualNetworkError)

_FIRST_FILENO: Final = 2_000_000_000
"""Above the largest number of descriptors that Linux can be configured for (2**30), below 2**31 as a C int wants."""

current_node: Final[ContextVar[Node | None]] = ContextVar("trio_connect.testing: where this task runs", default=None)
"""The node that the sockets of this task belong to; None for the fabric's `local`."""


class Fabric:
    """The inner side of a virtual network.

    Args:
      seed: where random draws begin.
      local: the addresses of the node that the program under test lives on.
    """

    def __init__(self, seed: int, local: Sequence[str]) -> None:
        self.seed = seed
        self.recorder = Recorder()
        self.failures: list[BaseException] = []
        self.timeline = Timeline()
        self.active = False
        self.origin = 0.0
        """Trio's time when the network was installed."""
        self.refusal: VirtualNetworkError | None = None
        """What is wrong with the run that the network was installed in."""
        self.lossless = True
        """Whether no packet can have been lost so far, because no host was cut off, black-holed or flapping."""
        self.sockets: dict[int, tuple[Node, trio.socket.SocketType]] = {}
        self._filenos = count(_FIRST_FILENO)
        self._nodes: dict[str, Node] = {}
        self._cuts: set[frozenset[Node]] = set()
        self._ordinals: Counter[tuple[Node, str, int]] = Counter()
        self.local = Node()
        self.node(local)

    # ---- Nodes ----

    def find(self, address: str) -> Node | None:
        """Return the node of a canonical address; `local` for a loopback address."""
        return self._nodes.get(address, self.local if is_loopback(address) else None)

    def node(self, addresses: Sequence[str]) -> Node:
        """Return the node with these addresses, made when it is new.

        Raises:
          ValueError: no address, one that is not numeric, or addresses of two different nodes.
        """
        if not addresses:
            raise ValueError("a host needs at least one address")
        names = [numeric(address) for address in addresses]
        known = {node: None for name in names if (node := self.find(name)) is not None and node.addresses}
        if len(known) > 1:
            raise ValueError(f"{', '.join(addresses)} belong to different hosts")
        node = next(iter(known)) if known else Node() if self.local.addresses else self.local
        for name in names:
            if name not in self._nodes and not (known and is_loopback(name)):
                self._nodes[name] = node
                node.addresses.append(name)
        return node

    def __len__(self) -> int:
        return len(set(self._nodes.values()))

    def count(self, source: Node, address: str, port: int) -> int:
        """Return the ordinal of one more connect."""
        key = (source, address, port)
        ordinal = self._ordinals[key]
        self._ordinals[key] += 1
        return ordinal

    # ---- Partitions ----

    def cut(self, a: Node, b: Node) -> None:
        """Lose every packet between two nodes."""
        self._cuts.add(frozenset((a, b)))
        self.lossless = False

    def mend(self, a: Node, b: Node) -> None:
        """End a partition."""
        self._cuts.discard(frozenset((a, b)))

    def parted(self, a: Node, b: Node) -> bool:
        """Say whether a partition separates two nodes."""
        return bool(self._cuts) and frozenset((a, b)) in self._cuts

    # ---- Sockets ----

    def opened(self, node: Node, sock: trio.socket.SocketType) -> int:
        """Count a new socket, and return its number."""
        fileno = next(self._filenos)
        self.sockets[fileno] = (node, sock)
        return fileno

    def forget(self, fileno: int) -> None:
        """Forget a closed socket."""
        del self.sockets[fileno]

    # ---- The trace ----

    def elapsed(self) -> float:
        """Return the seconds since the network was installed, as the trace rounds them."""
        return round(self.timeline.now() - self.origin, 9)

    def note(self, event: TraceEvent) -> None:
        """Add to the trace."""
        self.recorder.add(event)

    def was_reset(self, record: Connection, node: Node) -> None:
        """Learn that an end of a connection, on `node`, was told that its peer is gone."""
        self.note(TraceEvent(self.elapsed(), "reset", record.host, record.port, record.ordinal, node.name))

    # ---- Failures ----

    def failed(self, error: E) -> E:
        """Remember a failure, and give it back to be raised."""
        self.failures.append(error)
        return error

    def unknown(self, name: str, remedy: str) -> UnknownHost:
        """Return the failure for an address or a name that the test does not mention, noted and remembered."""
        self.note(TraceEvent(self.elapsed(), "unknown", name, 0, 0, self.local.name))
        return self.failed(UnknownHost(name, remedy))

    def check_usable(self) -> None:
        """Raise what is wrong with the run that this network was installed in: its clock, or that it is the second."""
        if self.refusal is not None:
            raise self.refusal
