"""The first attempt of a race, as far as it was run before anything was built for a race.

Most races end with their first attempt, so the call makes it in its own task. A handshake over TLS belongs to that: a
nursery, a task and the driver cost a quarter of what connecting over TLS costs at all. A handshake stops where the next
attempt is due, and goes on in a task of the race. No other establish can be stopped and go on in another task.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, cast

import attrs
from trio import current_time

from ..attempt import PENDING
from ..sockets.waiting import Expired
from ..streams.tcp_stream import TcpStream, TlsStream
from .errors import fails_an_attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..._policy import RacePolicy
    from ..._report import ConnectReport
    from ..attempt import AnyAttempt
    from ..streams.handshake import Handshake
    from .establishing import OverTls


@attrs.define(eq=False)
class First:
    """An attempt that has begun already, when the call did."""

    attempt: AnyAttempt
    code: int
    """0 when TCP is up, `PENDING` when there was no answer by the race's first deadline, else the errno of its failure.
    After a failure it is closed."""
    stream: TcpStream | None = None
    """The connection, if it is being established."""
    connected: float = 0.0
    """When TCP was up, in Trio time."""
    handshake: Handshake | None = None
    """What is to go on, if it is being established."""
    error: Exception | None = None
    """Why establishing has failed; then the connection is closed."""

    @property
    def has_failed(self) -> bool:
        """Whether it is over."""
        return self.error is not None or self.code not in (0, PENDING)

    async def secure(self, over_tls: OverTls, policy: RacePolicy, until: float, *, others: bool) -> TlsStream | None:
        """Establish over TLS what has connected; None when that failed, or is to go on beside others.

        Args:
          over_tls: how.
          policy: of the race.
          until: the caller's deadline, in Trio time.
          others: whether there is another attempt to make.
        """
        attempt = self.attempt
        assert attempt.sock is not None
        self.stream = stream = TcpStream(attempt.sock, attempt.endpoint)
        self.connected = now = current_time()
        attempt.phase = "establish"
        self.handshake = over_tls.begin(stream)
        until = min(until, attempt.started + policy.attempt_timeout)
        if others:
            # As the schedule of a race has it: postponed by as long as the handshake of TCP took.
            delay = cast("float", policy.attempt_delay)  # one that learns has a history, and no first attempt alone
            until = min(until, attempt.started + delay + min(now - attempt.started, delay))
        try:
            return TlsStream(await self.handshake.advance(until), stream)
        except Expired:
            return None
        except Exception as exc:
            if not fails_an_attempt(exc):
                raise
            self.error = exc
            return None

    async def go_on(self, stream: TcpStream) -> TlsStream:
        """Go on with what had to stop, as the establish of this attempt."""
        assert self.handshake is not None
        return TlsStream(await self.handshake.advance(inf), stream)

    def set_report(self, make: Callable[[], ConnectReport]) -> None:
        """Give what has won without a race its report, which is made when somebody looks."""
        assert self.stream is not None
        self.stream._set_report(make)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
