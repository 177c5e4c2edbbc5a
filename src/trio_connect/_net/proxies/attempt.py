"""One attempt through a proxy: a race for the proxy's own addresses, and the tunnel from there to the target.

A race, and `tcp_connect`, use it as they use an `Attempt` with a socket. Its phase says whom a failure is to be charged
to: "bind" until the proxy has been asked for the target, because until then nothing but the source can be at fault,
and then "connect".
"""

from __future__ import annotations

import errno
from math import inf
from typing import TYPE_CHECKING, final

import attrs
from trio import current_time
from trio.lowlevel import enable_ki_protection

from ..._durations import milliseconds
from ..._engine.shortage import SHORTAGE
from ..._errors import ConnectFailed, ResolveFailed
from ..._policy import DEFAULT_POLICY
from ..._text import one_line
from ..attempt import PENDING
from ..host_of import HostOfEndpoint
from ..names.candidates import AddressesOfHosts
from ..names.hosts import check_hosts
from ..names.resolve import check_host
from ..names.system import SYSTEM_RESOLVER
from ..race.candidates import pair_up
from ..race.driver import run_race
from ..race.plan import RacePlan
from ..sockets.waiting import within
from .tunnel import check_installed, open_tunnel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..._endpoint import Endpoint, Source
    from ..._options import SocketOptions
    from ..._proxy import Proxy
    from ..._report import Phase
    from ..attempt import AnyAttempt, OpenAttempt
    from ..sockets.stream_socket import StreamSocket
    from ..streams.tcp_stream import TcpStream


def proxied_attempts(sources: Iterable[Source]) -> OpenAttempt:
    """Return what makes the attempts through the proxies of these sources.

    Raises:
      ImportError: python-socks is not installed.
      ValueError: the host of a proxy is no possible name.
    """
    check_installed()
    for source in sources:
        if source.proxy is not None:
            check_host(source.proxy.host)
    return _open_attempt


def _open_attempt(endpoint: Endpoint, source: Source | None, started: float) -> AnyAttempt:
    assert source is not None
    assert source.proxy is not None
    return ProxiedAttempt(endpoint, source, source.proxy, started)


@final
class ProxiedAttempt:
    """An attempt at one endpoint through one proxy. See `Attempt` for what each method does."""

    _options: SocketOptions
    _factory: bool

    def __init__(self, endpoint: Endpoint, source: Source, proxy: Proxy, started: float) -> None:
        self.endpoint = endpoint
        self.source = source
        self.started = started
        self.phase: Phase = "bind"
        self.sock: StreamSocket | None = None
        """That of the connection to the proxy, as soon as there is one."""
        self.yielded = True
        self._proxy = proxy
        self._stream: TcpStream | None = None
        self._words = ""

    def begin(self, options: SocketOptions, *, factory: bool) -> int:
        """Nothing is begun before somebody waits for it, because reaching a proxy takes a task."""
        # With TCP fast open the first address would always win, unanswered (RFC 7413).
        self._options = attrs.evolve(options, fast_open=False) if options.fast_open else options
        self._factory = factory
        return PENDING

    begin_and_poll = begin

    def poll(self) -> int:
        """Nothing is known before `finish` returns."""
        return PENDING

    def descriptor(self) -> int:
        """Only `finish` can wait, for what it waits for changes."""
        return -1

    async def first_poll(self, *, may_spin: bool) -> int:  # noqa: ARG002 - as Attempt
        """Nothing is known before `finish` returns."""
        return PENDING

    async def finish(self, until: float) -> int:
        """Reach the proxy, and ask it for the tunnel.

        Raises:
          Expired: `until` came first.
        """
        return await within(until, self._connect)

    @enable_ki_protection  # an interrupt must not come between the win of the race and the code that closes its socket
    async def _connect(self) -> int:
        try:
            stream = await self._reach()
        except ConnectFailed as exc:
            code = exc.errno
            if code is None or isinstance(exc, ResolveFailed):  # whose numbers are the resolver's
                code = errno.EHOSTUNREACH
            if code in SHORTAGE:
                self.phase = "socket"
            return self._failed(code, f"the proxy cannot be reached: {exc.strerror}")
        self._stream = stream
        self.sock = stream._sock  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - for the stream to the target
        try:
            failure = await open_tunnel(stream, self._proxy, self.endpoint, self._asked)
        except BaseException:
            # The race for the proxy may have been won in the pass in which the attempt was ended, and closed.
            # Nobody else will close what came later.
            self.close()
            raise
        if failure is None:
            return 0
        self.phase = failure.phase
        return self._failed(failure.code, failure.words)

    def _asked(self) -> None:
        self.phase = "connect"

    def _failed(self, code: int, words: str) -> int:
        self._words = words
        return code

    async def _reach(self) -> TcpStream:
        """Connect to the proxy, by a race of its own."""
        proxy = self._proxy
        local = attrs.evolve(self.source, proxy=None, proxy_resolves=False)
        plan = RacePlan(
            policy=DEFAULT_POLICY, sources=(local,), options=self._options, establish=None, observer=None,
            until=inf, started=current_time(), factory=self._factory, target=f"{proxy.host}:{proxy.port}",
        )  # fmt: skip
        hosts = check_hosts(proxy.host, proxy.port)
        literal = hosts[0].literal
        stream: TcpStream
        if literal is None:
            candidates = AddressesOfHosts(hosts, SYSTEM_RESOLVER, plan, HostOfEndpoint(), None)
            stream = await run_race(plan, candidates=candidates)
        else:
            stream = await run_race(plan, *pair_up((literal,), plan.sources, None))
        return stream

    def asks_for_multipath(self, options: SocketOptions) -> bool:  # noqa: ARG002 - as Attempt
        """The proxy's own race falls back to plain TCP, so there is nothing that another attempt could do."""
        return False

    def multipath_info(self, options: SocketOptions) -> bytes | None:
        """Return what the connection to the proxy got of MPTCP."""
        return self.sock.multipath_info() if options.multipath and self.sock is not None else None

    def may_have_sent(self, code: int) -> bool:  # noqa: ARG002 - as Attempt
        """Say that a packet may have left, unless there was no socket."""
        return self.phase != "socket"

    def reason(self, code: int) -> str:  # noqa: ARG002 - as Attempt
        """Return why it failed, in one line, for the report."""
        return f"{one_line(self._words)} (proxy {self._proxy})"

    def error(self, code: int, elapsed: float | None = None) -> OSError:
        """Return the exception of a failure."""
        if elapsed is None:
            elapsed = current_time() - self.started
        blamed = {"socket": "local: ", "bind": "proxy: "}.get(self.phase, "")
        return OSError(
            code,
            f"{blamed}connect to {self.endpoint} through {self._proxy} failed after {milliseconds(elapsed)}: "
            f"{self._words}",
        )

    def origin(self) -> str:
        """Say where it comes from."""
        return str(self.source)

    def close(self) -> None:
        """Close the connection to the proxy, if there is one."""
        if self._stream is not None:
            self._stream._close_now()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - as the race does
