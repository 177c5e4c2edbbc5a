"""The first instant of an attempt, before anything is waited for. Most races end here."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs
from trio import current_time

from .._endpoint import Endpoint, Source
from .._errors import connect_error
from .._report import Phase
from .attempt import PENDING, Door, begin, describe_source, open_socket
from .factory import LocalFailure

if TYPE_CHECKING:
    from .._options import SocketOptions

Opening: TypeAlias = "tuple[Door, int] | tuple[None, Failure]"
"""The first instant of an attempt: a socket that is up (0) or `PENDING`, or no socket and why."""


@attrs.frozen
class Failure:
    """Why an attempt could not go on."""

    code: int
    phase: Phase
    endpoint: Endpoint
    source: Source | None
    elapsed: float

    def to_error(self) -> OSError:
        """Return it as the error of the attempt; a race that is won never needs the text."""
        source = describe_source(None, self.endpoint, self.source)
        return connect_error(self.code, self.phase, self.endpoint, source, self.elapsed)


def open_attempt(
    endpoint: Endpoint, source: Source | None, options: SocketOptions, started: float, *, factory: bool
) -> Opening:
    """Make a socket and start connecting it; after an error nothing stays open. `started` is the time by now."""
    door: Door | None = None
    phase: Phase = "connect"
    try:
        door = open_socket(endpoint, source, options, factory=factory)
        code = begin(door, endpoint, source)
    except LocalFailure as exc:
        code, phase = exc.code, exc.phase
    except BaseException:
        if door is not None:
            door.close()
        raise
    if code in (0, PENDING):
        assert door is not None
        return door, code
    if door is not None:
        door.close()
    return None, Failure(code, phase, endpoint, source, current_time() - started)
