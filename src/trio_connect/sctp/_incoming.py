"""What comes from the socket of an association: messages in pieces, what happens to its paths, its end."""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from typing import TYPE_CHECKING, Final, final

from .._messages import strerror
from ._reassembly import MessageTooLong, Reassembly
from ._socket import Piece, SctpSocket
from ._values import AssociationEvent, Message, PathEvent
from ._wire import Notification, PartialDeliveryAborted, Status

if TYPE_CHECKING:
    from ._telling import Teller

_MOST_EVENTS: Final = 256
_LOST: Final = {
    errno.ECONNRESET: "the peer aborted it",
    errno.ETIMEDOUT: "the peer cannot be reached any more",
}


@final
class Incoming:
    """What has come to one association.

    Args:
      sock: of the association.
      status: as it was when the association came up; None when it had ended before.
      peer: who it is with, for messages.
      teller: is told of events.
    """

    end: str | None = None
    """Why the association has ended: "" for a shutdown, else the text of an error."""

    def __init__(self, sock: SctpSocket, status: Status | None, peer: str, teller: Teller) -> None:
        self.status = status
        self.path_events: deque[PathEvent] = deque(maxlen=_MOST_EVENTS)
        self._socket = sock
        self._peer = peer
        self._teller = teller
        self._reassembly = Reassembly()
        self._code = 0

    def error(self) -> OSError | None:
        """Return what has ended the association; None for a shutdown."""
        return OSError(self._code, self.end) if self.end else None

    def read_one(self) -> Message | None:
        """Take the next piece or notification from the socket. Return a message if it completes one.

        Raises:
          BlockingIOError: there is nothing, and more may come.
        """
        try:
            found = self._socket.receive()
        except BlockingIOError:
            if self.end is not None:
                return None
            raise
        except OSError as exc:
            if self.end is None:
                code = exc.errno or errno.EIO
                self._fail(code, _LOST.get(code) or strerror(code))
            return None
        if isinstance(found, Piece):
            return self._add(found)
        self._note(found)
        return None

    def _note(self, found: Notification) -> None:
        if isinstance(found, PathEvent):
            self.path_events.append(found)
            self._teller.tell(found)
        elif isinstance(found, AssociationEvent):
            self._take_state(found)
            self._teller.tell(found)
        elif isinstance(found, PartialDeliveryAborted):
            self._reassembly.forget()
        # Of the rest, a peer's shutdown is followed by "shut down" when all that was under way has been received.

    def _add(self, piece: Piece) -> Message | None:
        if piece.info is None:
            if not piece.data and self.end is None:
                self.end = ""
            return None
        try:
            return self._reassembly.add(piece.data, piece.info, end=piece.end)
        except MessageTooLong as exc:
            self._socket.abort()
            self._fail(errno.EMSGSIZE, f"it sent a message of {exc}, and the association was aborted")
            return None

    def _take_state(self, event: AssociationEvent) -> None:
        if event.state == "restarted":
            self._reassembly.forget()
            with contextlib.suppress(OSError):
                self.status = self._socket.status()
        elif self.end is not None:
            return
        elif event.state == "shut down":
            self.end = ""
        elif event.state == "lost":
            if event.error:
                self._fail(errno.ECONNRESET, f"{_LOST[errno.ECONNRESET]}, cause {event.error}")
            else:
                # Either an abort without a cause or a peer that does not answer: the socket's error, which comes next,
                # tells them apart.
                code = self._take_error() or errno.ECONNRESET
                self._fail(code, _LOST.get(code) or strerror(code))

    def _take_error(self) -> int | None:
        try:
            self._socket.receive()
        except BlockingIOError:
            return None
        except OSError as exc:
            return exc.errno
        return None

    def _fail(self, code: int, why: str) -> None:
        self._code = code
        self.end = f"the association with {self._peer} is lost: {why}"
