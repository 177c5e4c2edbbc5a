"""The first instant of an attempt, before anything is waited for. Most races end here."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from trio import current_time

from .attempt import PENDING, Door, connect_address, settle, start
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
    """Make a socket and start connecting it; after an error nothing stays open. `started` is the time by now.

    `PENDING` may mean that the answer has come and has not been asked for: `look_again`.
    """
    try:
        door, _, code = start(endpoint, source, options, factory=factory)
    except LocalFailure as exc:
        return None, _failure(exc.code, exc.phase, endpoint, source, started)
    return _kept(door, code, endpoint, source, started)


def look_again(opening: Opening, endpoint: Endpoint, source: Source | None, started: float) -> Opening:
    """Return how an attempt stands by now; after an error nothing stays open."""
    door, code = opening
    if door is None or code != PENDING:
        return opening
    try:
        code = door.look(connect_address(endpoint))
    except BaseException:
        door.close()
        raise
    return opening if code == PENDING else _kept(door, code, endpoint, source, started)


def _kept(door: Door, code: int, endpoint: Endpoint, source: Source | None, started: float) -> Opening:
    if code != PENDING:
        try:
            code = settle(code, door, endpoint, source)
        except BaseException:
            door.close()
            raise
        if code:
            door.close()
            return None, _failure(code, "connect", endpoint, source, started)
    return door, code


def _failure(code: int, phase: Phase, endpoint: Endpoint, source: Source | None, started: float) -> Failure:
    # Loaded by the first failure: its class takes as long to define as it takes to connect a dozen times.
    from .failure import Failure

    return Failure(code, phase, endpoint, source, current_time() - started)
