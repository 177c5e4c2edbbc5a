"""The first instant of an attempt, before anything is waited for. Most races end here."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from trio import current_time

from .attempt import PENDING, Door, settle, start
from .factory import LocalFailure

if TYPE_CHECKING:
    from .._endpoint import Endpoint, Source
    from .._options import SocketOptions
    from .._report import Phase
    from .failure import Failure

Opening: TypeAlias = "tuple[Door, int] | tuple[None, Failure]"
"""The first instant of an attempt: a socket that is up (0) or `PENDING`, or no socket and why."""


def open_attempt(
    endpoint: Endpoint, source: Source | None, options: SocketOptions, started: float, *, factory: bool
) -> Opening:
    """Make a socket, start connecting it, and look at once; after an error nothing stays open.

    At once: a refusal that is known now lets the next start of a race happen in this very instant.
    """
    door = None
    try:
        door, address, code = start(endpoint, source, options, factory=factory)
        if code == PENDING:
            code = door.look(address)
        code = settle(code, door, endpoint, source)
    except LocalFailure as exc:
        return None, local_failure(exc, endpoint, source, started)
    except BaseException:
        if door is not None:
            door.close()
        raise
    return opening_of(door, code, endpoint, source, started)


def opening_of(door: Door, code: int, endpoint: Endpoint, source: Source | None, started: float) -> Opening:
    """Return how an attempt stands; after an error it is closed."""
    if code in (0, PENDING):
        return door, code
    door.close()
    return None, _failure(code, "connect", endpoint, source, started)


def local_failure(exc: LocalFailure, endpoint: Endpoint, source: Source | None, started: float) -> Failure:
    """Return why an attempt ended before it began."""
    return _failure(exc.code, exc.phase, endpoint, source, started)


def _failure(code: int, phase: Phase, endpoint: Endpoint, source: Source | None, started: float) -> Failure:
    # Loaded by the first failure: its class takes as long to define as it takes to connect a dozen times.
    from .failure import Failure

    return Failure(code, phase, endpoint, source, current_time() - started)
