"""One attempt: make a socket, bind it, connect it, say what happened. Nothing else calls connect(2).

Every attempt has a socket of its own. A socket whose connect failed cannot be used for another one: Linux reports
ECONNABORTED to the next connect() after a failure was read, and starts a new attempt in silence at the one after.
"""

from __future__ import annotations

import errno
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from trio import current_time
from trio.lowlevel import cancel_shielded_checkpoint

from .._engine.spinning import CREDIT, Spinning
from .._messages import connect_error, local_reason, own_words, strerror
from .._options import DEFAULT_OPTIONS
from .sockets.address import bind_to_source, sockaddr_of, source_address
from .sockets.kernel_socket import KernelSocket
from .sockets.local_ports import local_ports
from .sockets.open import open_stream_socket, set_options
from .sockets.options import DEFAULT_PLAN, connecting
from .sockets.raw_socket import new_socket
from .sockets.stream_socket import LocalFailure, errno_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._endpoint import Endpoint, Source
    from .._options import SocketOptions
    from .._report import Phase
    from .sockets.stream_socket import StreamSocket

PENDING: Final = errno.EALREADY
"""The handshake goes on, or it is over and connect(2) has not been asked again."""

NOT_EMITTED: Final = frozenset(
    {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM, errno.EINVAL}
)
"""No packet left if connect(2) says this at once, so the floor between two starts of a race protects nobody."""

# Seconds: longer than a factory's object takes to fail by itself, and shorter than most networks take to answer.
_AT_ONCE: Final = 0.001

spinning: Final = Spinning()
"""Whether a pass comes before the first poll, learnt by the whole process."""


@lru_cache(maxsize=1)
def load_reports() -> object:
    """Load and return what reports are made of, once, while there is a descriptor left to read it with.

    Reports are looked at when something is wrong, and then no descriptor may be left.
    """
    try:
        from . import reports
    except OSError:  # whoever looks at a report tries again
        return None
    return reports


class AnyAttempt(Protocol):
    """What a race and `tcp_connect` ask of an attempt: an `Attempt`, or one through a proxy."""

    endpoint: Endpoint
    started: float
    phase: Phase
    sock: StreamSocket | None
    yielded: bool

    def begin(self, options: SocketOptions, *, factory: bool) -> int: ...
    def begin_and_poll(self, options: SocketOptions, *, factory: bool) -> int: ...
    def poll(self) -> int: ...
    def descriptor(self) -> int: ...
    async def first_poll(self, *, may_spin: bool) -> int: ...
    async def finish(self, until: float) -> int: ...
    def asks_for_multipath(self, options: SocketOptions) -> bool: ...
    def multipath_info(self, options: SocketOptions) -> bytes | None: ...
    def may_have_sent(self, code: int) -> bool: ...
    def reason(self, code: int) -> str: ...
    def error(self, code: int, elapsed: float | None = None) -> OSError: ...
    def origin(self) -> str: ...
    def close(self) -> None: ...


OpenAttempt: TypeAlias = "Callable[[Endpoint, Source | None, float], AnyAttempt]"
"""Makes an attempt that has not begun, at an endpoint, from a source, starting at a point in Trio time."""


class Cancellable(Protocol):
    """What may be cancelled other than by a scope."""

    @property
    def cancelled(self) -> bool:
        """Whether it was."""
        ...


class Attempt:
    """One socket that tries one pair of source and endpoint, once.

    `begin` it, ask it with `first_poll`, `poll` or `finish` as long as the answer is `PENDING`, then take `sock` or
    `close`. Every answer is 0 for connected, `PENDING`, or an errno, of which `error` makes the exception. Whoever
    calls any of them closes the attempt after an errno and after an exception.
    """

    _address: Any
    _detail: str
    """What the errno does not say of trouble on this machine. Not there unless the phase is socket or bind."""

    __slots__ = ("_address", "_detail", "endpoint", "phase", "sock", "source", "started", "yielded")

    def __init__(self, endpoint: Endpoint, source: Source | None, started: float) -> None:
        """Make an attempt that has not begun.

        Args:
          endpoint: where to; checked before.
          source: where from, None for the kernel's choice; checked before.
          started: when it begins, in Trio time.
        """
        self.endpoint = endpoint
        self.source = source
        self.started = started
        self.phase: Phase = "connect"
        """How far it came."""
        self.sock: StreamSocket | None = None
        """Its socket, from `begin` on, unless the system gave no socket."""
        self.yielded = False
        """Whether Trio's loop has run since connect(2). What is heard later is an answer, and to get one, something
        must have been sent."""

    # ------------------------------------------------------------------ connecting

    def begin(self, options: SocketOptions, *, factory: bool) -> int:
        """Make a socket, with its options set and bound to its source, and start connecting it.

        Args:
          options: what to set before connecting.
          factory: whether this run has a socket factory.

        Returns:
          `PENDING` may mean that the answer has come and has not been asked for.
        """
        endpoint = self.endpoint
        if (
            factory
            or self.source is not None
            or options is not DEFAULT_OPTIONS
            or endpoint.scope_id.__class__ is not int
        ):
            if code := self._open(options, factory=factory):
                return code
            sock = self.sock
            assert sock is not None
        else:
            # What _open does for nearly every connect there is, in a third of the time.
            raw = None
            try:
                raw = new_socket(endpoint.family)
                for level, option, value in DEFAULT_PLAN:
                    raw.setsockopt(level, option, value)
            except OSError as exc:
                if raw is not None:
                    raw.close()
                return self._failed(exc, "socket")
            self.sock = sock = KernelSocket(raw)
            self._address = endpoint.sockaddr
        return sock.begin(self._address) or self._reject_self_connect()

    def begin_and_poll(self, options: SocketOptions, *, factory: bool) -> int:
        """Begin, and poll at once: a refusal that is known now lets a race make its next start in this very instant."""
        code = self.begin(options, factory=factory)
        if code == PENDING:
            assert self.sock is not None
            code = self.sock.poll(self._address) or self._reject_self_connect()
        return code

    def begin_over(self, sock: StreamSocket) -> int:
        """Start connecting a socket that the caller has made and bound; from here on it is this attempt's."""
        self.sock = sock
        try:
            self._address = sockaddr_of(self.endpoint)
        except OSError as exc:
            return self._failed(exc, "socket")
        return sock.begin(self._address) or self._reject_self_connect()

    def _open(self, options: SocketOptions, *, factory: bool) -> int:
        endpoint = self.endpoint
        phase: Phase = "socket"
        try:
            self._address = sockaddr_of(endpoint)
            source = self.source
            local = None if source is None else source_address(source, endpoint.family)
            sock = open_stream_socket(endpoint.family, factory=factory, multipath=options.multipath)
            try:
                set_options(sock, connecting(options, endpoint.family), options)
                if source is not None:
                    phase = "bind"
                    bind_to_source(sock, source, local)
            except BaseException:  # written out, for a context manager costs a twentieth of a connect
                sock.close()
                raise
        except OSError as exc:
            return self._failed(exc, phase)
        self.sock = sock
        return 0

    def _failed(self, exc: OSError, phase: Phase) -> int:
        self.phase = phase
        self._detail = own_words(exc)
        return errno_of(exc)

    def poll(self) -> int:
        """Ask a pending connect, without waiting, in a later pass of the loop."""
        sock = self.sock
        assert sock is not None
        self.yielded = True
        code = sock.poll(self._address)
        # What _reject_self_connect asks first, mostly without its call.
        if code == 0 and (self.source is not None or not sock.in_kernel or self.endpoint.port in local_ports()):
            return self._reject_self_connect()
        return code

    def descriptor(self) -> int:
        """Return what becomes writable when a pending connect is to be polled; -1 where only `finish` can wait."""
        sock = self.sock
        return sock.fileno() if sock is not None and sock.in_kernel else -1

    async def first_poll(self, *, may_spin: bool, operation: Cancellable | None = None) -> int:
        """Ask a connect that has just begun, before it is waited for; perhaps after a pass of Trio's loop.

        Every call must yield to Trio's loop once. Yielding before the first poll is free and may let the handshake
        finish, which saves the wait: see `spinning`. Polled first, the socket may be connected already, as on plain
        loopback, where the handshake is over when connect(2) returns. docs/evidence/performance.md has the figures.

        Rejected: always a pass first, which costs a connect to a far peer a sixth more when nothing else is to be done;
        always a poll first, which costs twice as much where a pass would have been enough.

        Args:
          may_spin: whether a pass may come first. Not where the caller's deadline asks for a single try.
          operation: cancelled in that pass, it leaves the socket unasked.
        """
        sock = self.sock
        assert sock is not None
        # Two calls mostly spared: with credit the answer is known, and success with all of it teaches nothing.
        if may_spin and (spinning.credit or spinning.is_worthwhile()):
            await cancel_shielded_checkpoint()
            self.yielded = True
            if operation is not None and operation.cancelled:
                return PENDING
            code = sock.poll(self._address)
            if code == PENDING or spinning.credit != CREDIT:
                spinning.learn(enough=code != PENDING)
        else:
            code = sock.poll(self._address)
        # What _reject_self_connect asks first, mostly without its call.
        if code == 0 and (self.source is not None or self.endpoint.port in local_ports()):
            return self._reject_self_connect()
        return code

    async def finish(self, until: float) -> int:
        """Wait for a pending connect.

        Args:
          until: when to give up, in Trio time.

        Raises:
          Expired: `until` came first.
        """
        assert self.sock is not None
        self.yielded = True
        try:
            code = await self.sock.finish(self._address, until)
        except LocalFailure as exc:
            self.phase = exc.phase
            self._detail = exc.detail
            return exc.code
        return code or self._reject_self_connect()

    def _reject_self_connect(self) -> int:
        """Return 0, or ECONNREFUSED after closing a socket that connected to itself.

        Connecting to a port of this machine that nobody listens on, from the same port by chance, is TCP's simultaneous
        open (RFC 9293 section 3.5): the kernel reports success, everything sent comes back, and the real server can no
        longer bind its port.
        """
        sock = self.sock
        port = self.endpoint.port
        assert sock is not None
        # Only a local port of those that the kernel picks from, or one that was asked for, can be the destination's.
        if port not in local_ports() and sock.in_kernel and (self.source is None or self.source.port != port):
            return 0
        try:
            name = sock.getsockname()
            # The peer is asked only where the ports agree: an address has several spellings (v4-mapped ones), and a
            # wildcard stands for another one.
            if name[1] != port or name[:2] != sock.getpeername()[:2]:
                return 0
        except (OSError, NotImplementedError):
            return 0
        # With RST: an ordinary close would leave the port in TIME_WAIT, closed to the server that it belongs to.
        sock.abort()
        return errno.ECONNREFUSED

    # ------------------------------------------------------------------ what came of it

    def asks_for_multipath(self, options: SocketOptions) -> bool:
        """Say whether its SYN asks for MPTCP, False where this system has none."""
        return options.multipath and self.sock is not None and self.sock.is_multipath

    def multipath_info(self, options: SocketOptions) -> bytes | None:
        """Return what an attempt that has connected got of MPTCP, as bytes: a report reads them when somebody looks."""
        return self.sock.multipath_info() if options.multipath and self.sock is not None else None

    def may_have_sent(self, code: int) -> bool:
        """Say whether a packet may have left this machine, of an attempt that has just failed."""
        if self.phase in ("socket", "bind"):
            return False
        if self.phase != "connect" or code not in NOT_EMITTED:
            return True
        if self.sock is None or self.sock.in_kernel:
            return self.yielded
        # Over a factory every attempt is waited for. What fails at once there failed inside connect(2).
        return current_time() - self.started >= _AT_ONCE

    def reason(self, code: int) -> str:
        """Return why it failed, in one line, for the report."""
        return local_reason(code, self._detail) if self.phase in ("socket", "bind") else strerror(code)

    def error(self, code: int, elapsed: float | None = None) -> OSError:
        """Return the exception of a failure.

        Args:
          code: the errno.
          elapsed: seconds that it took; None for those until now.
        """
        if elapsed is None:
            elapsed = current_time() - self.started
        return connect_error(code, self.phase, self.endpoint, self.origin(), elapsed, self._words())

    def _words(self) -> str:
        return self._detail if self.phase in ("socket", "bind") else ""

    def origin(self) -> str:
        """Say where it comes from: what the caller asked for, else the address that the kernel has chosen."""
        if self.source is not None:
            return self.source.describe(self.endpoint.family)
        if self.sock is not None:
            try:
                host = self.sock.getsockname()[0]
            except (OSError, NotImplementedError, LookupError):
                return "any address"
            if host not in ("0.0.0.0", "::", ""):
                return str(host)
        return "any address"

    def close(self) -> None:
        """Close its socket, if there is one."""
        if self.sock is not None:
            self.sock.close()
