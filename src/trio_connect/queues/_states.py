"""The states of an I/O queue, and every pair of state and operation, listed.

Two rules. What a caller may do is decided when it is submitted, from the state of that moment alone: `SUBMIT` gives the
next state, or the errno that the submission raises. How an operation ended is an event, and `EVENTS` gives the state
after it. An event that finds the queue closing or closed is late: it changes nothing, and is listed as such.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

__all__ = ["EVENTS", "SUBMIT", "Event", "Kind", "State", "Submission", "refusal_text"]

Kind: TypeAlias = Literal["stream", "datagram"]

State: TypeAlias = Literal["unbound", "binding", "bound", "listening", "connecting", "connected", "closing", "closed"]
"""The state of a queue. "binding" lasts only where the bind of a socket factory has to wait."""

Submission: TypeAlias = Literal["bind", "listen", "accept", "connect", "push", "push_to", "pop", "close"]
"""What a caller may submit."""

Event: TypeAlias = Literal["bound", "bind failed", "connected", "connect failed", "closed"]
"""How an operation has ended, as far as it matters to the state."""

Row: TypeAlias = Mapping[Submission, State | int]

# Linux gives both names one number, POSIX and the BSDs do not; sockets answer EOPNOTSUPP.
_NO: Final = errno.EOPNOTSUPP

_BUSY: Final[Row] = {
    "bind": errno.EBUSY,
    "listen": errno.EBUSY,
    "accept": errno.EBUSY,
    "connect": errno.EBUSY,
    "push": errno.EBUSY,
    "push_to": errno.EBUSY,
    "pop": errno.EBUSY,
    "close": "closing",
}
_GONE: Final[Row] = {
    "bind": errno.EBADF,
    "listen": errno.EBADF,
    "accept": errno.EBADF,
    "connect": errno.EBADF,
    "push": errno.EBADF,
    "push_to": errno.EBADF,
    "pop": errno.EBADF,
    "close": errno.EBADF,
}

_STREAM: Final[Mapping[State, Row]] = {
    "unbound": {
        "bind": "binding",
        "listen": errno.EDESTADDRREQ,
        "accept": errno.EINVAL,
        "connect": "connecting",
        "push": errno.ENOTCONN,
        "push_to": _NO,
        "pop": errno.ENOTCONN,
        "close": "closing",
    },
    "binding": _BUSY,
    "bound": {
        "bind": errno.EINVAL,
        "listen": "listening",
        "accept": errno.EINVAL,
        "connect": "connecting",
        "push": errno.ENOTCONN,
        "push_to": _NO,
        "pop": errno.ENOTCONN,
        "close": "closing",
    },
    "listening": {
        "bind": errno.EINVAL,
        "listen": errno.EADDRINUSE,
        "accept": "listening",
        "connect": _NO,
        "push": errno.ENOTCONN,
        "push_to": _NO,
        "pop": errno.ENOTCONN,
        "close": "closing",
    },
    "connecting": {
        "bind": errno.EINVAL,
        "listen": errno.EADDRINUSE,
        "accept": errno.EINVAL,
        "connect": errno.EINPROGRESS,
        "push": errno.ENOTCONN,
        "push_to": _NO,
        "pop": errno.ENOTCONN,
        "close": "closing",
    },
    "connected": {
        "bind": errno.EISCONN,
        "listen": errno.EISCONN,
        "accept": errno.EINVAL,
        "connect": errno.EISCONN,
        "push": "connected",
        "push_to": _NO,
        "pop": "connected",
        "close": "closing",
    },
    "closing": _GONE,
    "closed": _GONE,
}

_DATAGRAM: Final[Mapping[State, Row]] = {
    "unbound": {
        "bind": "binding",
        "listen": _NO,
        "accept": _NO,
        "connect": "connecting",
        "push": errno.ENOTCONN,
        # The kernel binds the socket to a free port as it sends, udp(7).
        "push_to": "bound",
        "pop": errno.EDESTADDRREQ,
        "close": "closing",
    },
    "binding": _BUSY,
    "bound": {
        "bind": errno.EINVAL,
        "listen": _NO,
        "accept": _NO,
        "connect": "connecting",
        "push": errno.ENOTCONN,
        "push_to": "bound",
        "pop": "bound",
        "close": "closing",
    },
    # A datagram queue never listens; the row completes the table.
    "listening": _BUSY,
    "connecting": {
        "bind": errno.EINVAL,
        "listen": _NO,
        "accept": _NO,
        "connect": errno.EINPROGRESS,
        "push": errno.ENOTCONN,
        "push_to": errno.EINPROGRESS,
        "pop": errno.ENOTCONN,
        "close": "closing",
    },
    "connected": {
        "bind": errno.EISCONN,
        "listen": _NO,
        "accept": _NO,
        "connect": errno.EISCONN,
        "push": "connected",
        # Linux would send it, macOS would not, sendto(2).
        "push_to": errno.EISCONN,
        "pop": "connected",
        "close": "closing",
    },
    "closing": _GONE,
    "closed": _GONE,
}

SUBMIT: Final[Mapping[Kind, Mapping[State, Row]]] = {"stream": _STREAM, "datagram": _DATAGRAM}
"""The next state, or the errno of the refusal."""

EVENTS: Final[Mapping[Event, Mapping[State, State]]] = {
    "bound": {"binding": "bound", "closing": "closing", "closed": "closed"},
    "bind failed": {"binding": "unbound", "closing": "closing", "closed": "closed"},
    "connected": {"connecting": "connected", "closing": "closing", "closed": "closed"},
    # The socket is closed with its failure, because Linux would answer the next connect() on it with ECONNABORTED.
    "connect failed": {"connecting": "unbound", "closing": "closing", "closed": "closed"},
    "closed": {"closing": "closed"},
}
"""The state after an event; a pair that is not here cannot happen."""

_WORDS: Final[Mapping[int, str]] = {
    errno.EADDRINUSE: "it has its address in use already",
    errno.EBADF: "it has been closed",
    errno.EBUSY: "another operation has to end first",
    errno.EDESTADDRREQ: "bind it first",
    errno.EINPROGRESS: "wait for the connect that is under way",
    errno.EINVAL: "the state does not allow it",
    errno.EISCONN: "it is connected already",
    errno.ENOTCONN: "connect it first",
    _NO: "this kind of queue cannot do that here",
}


def refusal_text(kind: Kind, state: State, submission: Submission, code: int) -> str:
    """Return the text for a submission that is refused."""
    return f"{submission} on a {kind} queue that is {state}: {_WORDS[code]}"
