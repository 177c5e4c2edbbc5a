"""How an attempt of a race begins: what is known of it before anybody waits for it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs
from trio import current_time

from ..._messages import connect_error, local_reason
from ..attempt import PENDING, describe_source, open_and_begin, reject_self_connect
from ..sockets.stream_socket import LocalFailure, StreamSocket

if TYPE_CHECKING:
    from ..._endpoint import Endpoint, Source
    from ..._options import SocketOptions
    from ..._report import Phase

NOT_EMITTED: Final = frozenset(
    {errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM, errno.EINVAL}
)
"""No packet left if connect(2) says this at once, so the floor between two starts protects nobody."""


@attrs.frozen
class Failure:
    """Why an attempt failed, before anybody asks for an error of it; `elapsed` in seconds."""

    code: int
    phase: Phase
    endpoint: Endpoint
    source: Source | None
    elapsed: float
    emitted: bool
    """Whether a packet had left."""
    detail: str = ""
    """More about trouble on this machine, in words."""

    @property
    def reason(self) -> str:
        """Why, in one line."""
        return local_reason(self.code, self.detail)

    def to_error(self) -> OSError:
        """Return it as the error of the attempt; a race that is won never needs the text."""
        source = describe_source(None, self.endpoint, self.source)
        return connect_error(self.code, self.phase, self.endpoint, source, self.elapsed, self.detail)


Opening: TypeAlias = "tuple[StreamSocket, int] | tuple[None, Failure]"
"""How an attempt stands when it has begun: a socket that is connected (0) or `PENDING`, or no socket and why."""


def open_attempt(
    endpoint: Endpoint, source: Source | None, options: SocketOptions, started: float, *, factory: bool
) -> Opening:
    """Make a socket, start connecting it, and poll it at once; after an error nothing stays open.

    At once: a refusal that is known now lets the next start of a race happen in this very instant.

    Args:
      endpoint: where to.
      source: where from, None for the kernel's choice.
      options: what to set before connecting.
      started: when the attempt began, in Trio time.
      factory: whether this run has a socket factory.
    """
    sock = None
    try:
        sock, address, code = open_and_begin(endpoint, source, options, factory=factory)
        if code == PENDING:
            code = sock.poll(address)
        code = reject_self_connect(code, sock, endpoint, source)
    except LocalFailure as exc:
        return opening_failed(exc, endpoint, source, started)
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    return opening_after(code, sock, endpoint, source, started, at_once=True)


def opening_after(
    code: int, sock: StreamSocket, endpoint: Endpoint, source: Source | None, started: float, *, at_once: bool
) -> Opening:
    """Return the opening that a connect makes of which this is known; after an error its socket is closed.

    Args:
      code: 0, `PENDING` or the errno.
      sock: its socket.
      endpoint: where it went.
      source: where from.
      started: when the attempt began, in Trio time.
      at_once: whether the code was known in the instant of connect(2), with no pass of the loop since. What was heard
        later is an answer, and to get one something must have been sent.
    """
    if code in (0, PENDING):
        return sock, code
    sock.close()
    emitted = not at_once or code not in NOT_EMITTED
    return None, Failure(code, "connect", endpoint, source, current_time() - started, emitted)


def opening_failed(exc: LocalFailure, endpoint: Endpoint, source: Source | None, started: float) -> Opening:
    """Return the opening of an attempt that ended before it could connect."""
    return None, Failure(exc.code, exc.phase, endpoint, source, current_time() - started, False, exc.detail)
