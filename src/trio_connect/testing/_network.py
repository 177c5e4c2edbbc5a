"""The virtual network: hosts, names, partitions and the trace, and how they get under a Trio run.

Installed as an instrument it serves a whole run; as a context manager, the block inside a run. Either way Trio's socket
factory and hostname resolver are this network's, and the programs in the run cannot tell.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import Counter
from collections.abc import Generator, Iterable
from contextvars import ContextVar
from itertools import count
from types import TracebackType
from typing import Final, Self, TypeVar, cast

import trio

from . import _guard
from ._address import LOOPBACK, canonical, family_of, is_loopback
from ._dial import Dial
from ._dns import Name, Names
from ._errors import NotOnVirtualNetwork, NotVirtualTime, UnknownHost, VirtualNetworkError
from ._host import Handler, Host
from ._listening import WILDCARDS, Listening
from ._options import Options
from ._path import Path, Wire
from ._socket import VirtualSocket
from ._tcp import End, fail
from ._timeline import Timeline
from ._trace import Connection, Trace, TraceEvent

E = TypeVar("E", bound=VirtualNetworkError)

LOCAL: Final = ("192.0.2.254", "2001:db8::fe")
_FIRST_FILENO: Final = 2_000_000_000
"""Above the largest number of descriptors that Linux can be configured for (2**30), below 2**31 as a C int wants."""
_FIRST_EPHEMERAL: Final = 49152
_here: ContextVar[Host | None] = ContextVar("trio_connect.testing: the host that this task runs on", default=None)


class _Factory(trio.abc.SocketFactory):
    def __init__(self, network: VirtualNetwork) -> None:
        self._network = network

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> VirtualSocket:
        return self._network.socket(family, type, proto)


class VirtualNetwork(trio.abc.Instrument):
    """A deterministic TCP network and DNS in virtual time.

    Use it as an instrument of one run (`trio.run(main, clock=MockClock(...), instruments=[net])`, or through the pytest
    fixture `vnet`), or as a context manager inside one. One network serves one run, once.

    Attributes:
        seed: Where random draws begin; the same seed gives the same draws.
        local: The host that the program under test lives on.
        trace: What happened so far.
        failures: What must fail the test even if the program swallowed it; `verify` raises it.
    """

    def __init__(self, seed: int = 0, *, local: Iterable[str] = LOCAL) -> None:
        self.seed = seed
        self.trace = Trace()
        self.failures: list[BaseException] = []
        self.timeline = Timeline()
        self._hosts: dict[str, Host] = {}
        self._cuts: set[frozenset[int]] = set()
        self._names = Names(self)
        self._factory = _Factory(self)
        self._ordinals: Counter[tuple[int, str, int]] = Counter()
        self._filenos = count(_FIRST_FILENO)
        self._sockets: dict[int, VirtualSocket] = {}
        self._handlers: set[trio.CancelScope] = set()
        self._within_run = False
        self.lossless = True
        """No packet has got lost so far, because nothing was cut, dark or flapping. Most networks stay so."""
        self._origin = 0.0
        self._refusal: VirtualNetworkError | None = None
        self._used = False
        self._active = False
        self._previous: tuple[trio.abc.SocketFactory | None, trio.abc.HostnameResolver | None] = (None, None)
        self.local = self.host(*local)

    def __repr__(self) -> str:
        return f"<VirtualNetwork seed={self.seed} hosts={len(set(self._hosts.values()))}>"

    # ---- Describing the network ----

    def host(
        self,
        *addresses: str,
        rtt: float | None = None,
        jitter: float | None = None,
        bandwidth: float | None = None,
    ) -> Host:
        """The host with these addresses, made when it is new. Loopback addresses mean `local`.

        Args:
            addresses: One or more numeric addresses of one host.
            rtt: Round-trip time to the host from now on, in seconds; None leaves it.
            jitter: Added to every one-way trip: evenly from 0 to this, in seconds; None leaves it.
            bandwidth: Of each direction of each connection, in bytes per second; None leaves it.

        Raises:
            ValueError: No address, one that is not numeric, or addresses of two different hosts.
        """
        if not addresses:
            raise ValueError("a host needs at least one address")
        names = [canonical(address) for address in addresses]
        known = {id(host): host for name in names if (host := self._find(name)) is not None}
        if len(known) > 1:
            raise ValueError(f"{', '.join(addresses)} belong to different hosts")
        host = next(iter(known.values())) if known else Host(self, [])
        for name in names:
            if name not in self._hosts and not (known and is_loopback(name)):
                self._hosts[name] = host
                host.addresses.append(name)
        host.path = host.path.changed(rtt, jitter, bandwidth)
        return host

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
            name: The name; case and a final dot do not matter.
            addresses: Addresses of both families, in the order in which `getaddrinfo` gives them.
            a: IPv4 addresses.
            aaaa: IPv6 addresses; they come first.
            a_delay: Seconds until the IPv4 family is answered; `math.inf` is never.
            aaaa_delay: Likewise for IPv6.
            a_error: Fail the IPv4 family with `socket.gaierror` of this EAI number, or with this exception.
            aaaa_error: Likewise for IPv6.
        """
        self._names.set(name, Name.of(addresses, a, aaaa, a_delay, aaaa_delay, a_error, aaaa_error))

    def partition(self, a: Host | str, b: Host | str) -> None:
        """Lose every packet between two hosts until they are healed. Nothing breaks at once: TCP retransmits."""
        self._cuts.add(self._pair(a, b))
        self.lossless = False

    def heal(self, a: Host | str, b: Host | str) -> None:
        """End a partition. What is waiting goes through with its next retransmission."""
        self._cuts.discard(self._pair(a, b))

    def _pair(self, a: Host | str, b: Host | str) -> frozenset[int]:
        return frozenset(id(self.host(one) if isinstance(one, str) else one) for one in (a, b))

    @contextlib.contextmanager
    def on(self, host: Host) -> Generator[None, None, None]:
        """Inside this `with`, sockets that the current task makes belong to `host`."""
        before = _here.get()
        _here.set(host)
        try:
            yield
        finally:
            _here.set(before)

    # ---- Installing it ----

    def before_run(self) -> None:
        """Install this network in the run that begins; Trio calls it."""
        # Trio would log and drop an exception raised here; so every use of the network raises it instead. Installed it
        # is all the same: the program must not reach the real network.
        self._refusal = self._objection()
        if self._refusal is not None:
            self.failed(self._refusal)
        self._install()

    def after_run(self) -> None:
        """End with the run; Trio calls it."""
        self._close()

    def __enter__(self) -> Self:
        objection = self._objection()
        if objection is not None:
            raise self.failed(objection)
        self._within_run = True
        self._install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        trio.socket.set_custom_socket_factory(self._previous[0])
        trio.socket.set_custom_hostname_resolver(self._previous[1])
        self._close()
        # Handlers first: one that is cancelled does not notice that its socket goes away as well.
        for scope in [*self._handlers]:
            scope.cancel(reason="the virtual network was closed")
        for sock in [*self._sockets.values()]:
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
        self._used = self._active = True
        self._origin = self.timeline.now()
        self._previous = (
            trio.socket.set_custom_socket_factory(self._factory),
            trio.socket.set_custom_hostname_resolver(self._names),
        )
        _guard.activate(self)

    def _close(self) -> None:
        self._active = False
        _guard.deactivate(self)
        self.timeline.close()

    @property
    def active(self) -> bool:
        """Whether it is installed now."""
        return self._active

    @property
    def open_sockets(self) -> tuple[trio.socket.SocketType, ...]:
        """The sockets of `local` that the program has not closed: what a leak test looks at."""
        return tuple(sock for sock in self._sockets.values() if sock.host is self.local)

    def verify(self) -> None:
        """Raise what must fail the test: one failure as itself, several as a group."""
        if len(self.failures) == 1:
            raise self.failures[0]
        if self.failures:
            raise BaseExceptionGroup("the virtual network recorded several failures", self.failures)

    def report(self) -> str:
        """The seed and the waterfall, for people who look at a failed test."""
        return f"virtual network, seed {self.seed}\n{self.trace.waterfall()}"

    def failed(self, error: E) -> E:
        """Remember a failure, and give it back to be raised."""
        self.failures.append(error)
        return error

    def unknown(self, name: str, remedy: str) -> UnknownHost:
        """The failure for an address or a name that the test does not mention, noted and remembered."""
        self.trace.add(TraceEvent(self.elapsed(), "unknown", name, 0, 0, self.local.name))
        return self.failed(UnknownHost(name, remedy))

    def check_usable(self) -> None:
        """Raise what is wrong with the run that this network was installed in: its clock, or that it is the second."""
        if self._refusal is not None:
            raise self._refusal

    # ---- For sockets, hosts and names ----

    def elapsed(self) -> float:
        """Seconds since the network was installed, as the trace rounds them."""
        return round(self.timeline.now() - self._origin, 9)

    def note(self, event: TraceEvent) -> None:
        """Add to the trace."""
        self.trace.add(event)

    def socket(self, family: int, type: int, proto: int) -> VirtualSocket:
        """Make a socket for the task that asks.

        Raises:
            OSError: A family or protocol that a kernel may lack: EAFNOSUPPORT, EPROTONOSUPPORT.
            NotOnVirtualNetwork: Anything else that is not TCP.
        """
        self.check_usable()
        kind = type & ~(getattr(socket, "SOCK_NONBLOCK", 0) | getattr(socket, "SOCK_CLOEXEC", 0))
        if family == getattr(socket, "AF_UNIX", None):
            raise self.failed(
                NotOnVirtualNetwork(
                    "a virtual network has no AF_UNIX sockets: listen on 127.0.0.1, or take the real thing with "
                    "trio.socket.from_stdlib_socket() or socketpair(), outside virtual time"
                )
            )
        if family not in (socket.AF_INET, socket.AF_INET6):
            fail(errno.EAFNOSUPPORT)
        if kind != socket.SOCK_STREAM:
            raise self.failed(NotOnVirtualNetwork(f"a virtual network has TCP only, not {socket.SocketKind(kind)!r}"))
        if proto not in (0, socket.IPPROTO_TCP):
            fail(errno.EPROTONOSUPPORT)
        return self._open(_here.get() or self.local, family)

    def _open(self, host: Host, family: int) -> VirtualSocket:
        sock = VirtualSocket(self, host, family, next(self._filenos))
        self._sockets[sock.fileno()] = sock
        return sock

    def forget(self, fileno: int) -> None:
        """A socket was closed."""
        del self._sockets[fileno]

    def adopt(self, host: Host, family: int, end: End, options: Options | None) -> VirtualSocket:
        """Make the socket of an accepted connection."""
        sock = self._open(host, family)
        sock.adopt(end, options)
        return sock

    def listening(self, host: Host, handler: Handler | None) -> Listening:
        """A binding that a test makes rather than a program."""
        return Listening(host, handler=handler, active=True)

    def parted(self, a: Host, b: Host) -> bool:
        """Whether a partition separates two hosts."""
        return bool(self._cuts) and frozenset((id(a), id(b))) in self._cuts

    def dial(
        self,
        source: Host,
        local: tuple[str, int] | None,
        remote: tuple[str, int],
        *,
        send_buffer: int,
        receive_buffer: int,
        retries: int,
    ) -> tuple[Dial, Connection]:
        """Prepare a connect from a host.

        Raises:
            OSError: The route does not exist: ENETUNREACH, EINVAL.
            UnknownHost: The test does not mention the address.
        """
        address, port = remote
        if address in WILDCARDS:
            address = LOOPBACK[family_of(address)]
        target = source if is_loopback(address) else self._find(address)
        if target is None:
            raise self.unknown(address, f"describe it with net.host({address!r})")
        bound = None if local is None or local[0] in WILDCARDS else local[0]
        here = bound or self._source_address(source, target, address)
        if is_loopback(here) and target is not source:
            fail(errno.EINVAL)
        if family_of(here) != family_of(address):
            fail(errno.ENETUNREACH)
        key = (id(source), address, port)
        ordinal = self._ordinals[key]
        self._ordinals[key] += 1
        # A port per destination, as Linux allocates them too: it does not depend on which task came first.
        own = local[1] if local is not None else _FIRST_EPHEMERAL + ordinal % (65536 - _FIRST_EPHEMERAL)
        record = Connection(address, port, ordinal, source.name, self.elapsed())
        path = Path() if target is source else source.path if target is self.local else target.path

        def passes() -> bool:
            # Asked twice for every packet.
            return self.lossless or not (self.parted(source, target) or target.is_dark(port) or source.is_dark(0))

        client = End(
            fabric=self, place=(address, port, ordinal, source.name), path=path,
            wire=Wire(path, f"{self.seed} {source.name} {address} {port} {ordinal}"), passes=passes,
            local=(here, own), remote=(address, port), send_buffer=send_buffer, receive_buffer=receive_buffer,
            tally=record.tally,
        )  # fmt: skip
        client.on_reset = lambda: self.was_reset(record, source)
        return Dial(self, client, source, target, record, retries), record

    def was_reset(self, record: Connection, host: Host) -> None:
        """An end of a connection, on `host`, was told that its peer is gone."""
        self.note(TraceEvent(self.elapsed(), "reset", record.host, record.port, record.ordinal, host.name))

    def _source_address(self, source: Host, target: Host, address: str) -> str:
        if target is source:
            return address
        for own in source.addresses:
            if family_of(own) == family_of(address):
                return own
        return fail(errno.ENETUNREACH)

    def _find(self, address: str) -> Host | None:
        if is_loopback(address):
            return self._hosts.get(address, getattr(self, "local", None))
        return self._hosts.get(address)

    def accepted(self, listening: Listening, end: End, record: Connection, *, queue: bool) -> None:
        """A handshake is over for the listener's side too."""
        name = listening.host.name
        self.note(TraceEvent(self.elapsed(), "accepted", record.host, record.port, record.ordinal, name))
        if not queue or not self._active:
            return
        if listening.handler is None:
            listening.queue.append(end)
            listening.on_ready()
            return
        sock = self.adopt(listening.host, family_of(end.local[0]), end, None)
        trio.lowlevel.spawn_system_task(
            self._handle, listening.host, listening.handler, trio.SocketStream(sock), record,
            name=f"handler of {record.host} port {record.port}",
        )  # fmt: skip

    async def _handle(self, host: Host, handler: Handler, stream: trio.SocketStream, record: Connection) -> None:
        _here.set(host)  # for good: a system task has a context of its own
        # A system task that raises takes the whole run down with TrioInternalError; this one hands over to verify().
        try:
            if self._within_run:
                await self._cancellable(handler, stream)
            else:  # it ends with the run
                await handler(stream)
        except (trio.Cancelled, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001
            self._handler_failed(error, host, record)
        finally:
            stream.socket.close()

    async def _cancellable(self, handler: Handler, stream: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._handlers.add(scope)
            try:
                await handler(stream)
            finally:
                self._handlers.discard(scope)

    def _handler_failed(self, error: BaseException, host: Host, record: Connection) -> None:
        if not self._active:
            return
        rest = self._news(error)
        detail = "peer went away" if rest is None else f"raised {type(rest).__name__}"
        self.note(TraceEvent(self.elapsed(), "handler", record.host, record.port, record.ordinal, host.name, detail))
        if rest is not None:
            rest.add_note(f"raised by the handler of {record.host} port {record.port} on the virtual network")
            self.failures.append(rest)

    def _news(self, error: BaseException) -> BaseException | None:
        """What is left of a handler's error without what says only that the peer went away, or was recorded already."""

        def is_old(one: BaseException) -> bool:
            gone = isinstance(one, trio.BrokenResourceError | ConnectionError | trio.Cancelled)
            return gone or any(one is known for known in self.failures)

        if isinstance(error, BaseExceptionGroup):
            return cast("BaseExceptionGroup[BaseException]", error).split(is_old)[1]
        return None if is_old(error) else error

    def closes(self, host: Host, end: End, record: Connection | None) -> None:
        """A program closes its end of a connection."""
        if end.state == "connecting" or end.peer is None:
            return
        address, port, ordinal, _ = end.place
        if record is not None:
            record.closed = self.elapsed()
        self.note(TraceEvent(self.elapsed(), "closed", address, port, ordinal, host.name, str(end.tally)))
