"""The public values of SCTP: messages, paths, events and timers."""

from __future__ import annotations

import enum
from typing import Final, Literal, TypeAlias

import attrs

from .._check import check_float, check_range
from .._endpoint import Endpoint
from .._text import shown

AssociationState: TypeAlias = Literal["up", "lost", "restarted", "shut down", "cannot start"]
"""What happened to an association: enum sctp_sac_state, RFC 6458 section 6.1.1."""

PathState: TypeAlias = Literal["inactive", "potentially failed", "active", "unconfirmed", "unknown"]
"""The state of a path: enum sctp_spinfo_state, RFC 6458 section 8.2.2 and RFC 7829."""

PathEventState: TypeAlias = Literal[
    "available", "unreachable", "removed", "added", "primary", "confirmed", "potentially failed"
]
"""What happened to a path: enum sctp_spc_state, RFC 6458 section 6.1.2 and RFC 7829."""


class Ppid(enum.IntEnum):
    """Payload protocol identifiers that are often used: IANA's registry "SCTP Payload Protocol Identifiers".

    Plain ints: any number from 0 to 2**32 - 1 will do where one of these does. The byte order in the packet is seen to.
    """

    UNSPECIFIED = 0
    M3UA = 3
    SUA = 4
    M2PA = 5
    S1AP = 18
    X2AP = 27
    DIAMETER = 46
    DIAMETER_DTLS = 47
    NGAP = 60
    XNAP = 61
    F1AP = 62
    E1AP = 64


@attrs.frozen
class Message:
    """One message, whole.

    Args:
      data: its bytes.
      stream: the number of the stream that it came on.
      ppid: payload protocol identifier: what the bytes are, see `Ppid`.
      unordered: whether it may have overtaken others of its stream.
      tsn: its transmission sequence number (of its last piece), RFC 9260 section 3.3.1.
    """

    data: bytes
    stream: int = 0
    ppid: int = 0
    unordered: bool = False
    tsn: int = 0


@attrs.frozen
class Path:
    """How one path to the peer stands.

    Args:
      endpoint: the peer's address.
      state: "active" is fit for use; "unconfirmed" has not answered a heartbeat yet, RFC 9260 section 5.4.
      srtt: smoothed round-trip time, in seconds; 0.0 before the first measurement.
      rto: retransmission time-out, in seconds.
      mtu: how many bytes a packet may have.
    """

    endpoint: Endpoint
    state: PathState
    srtt: float = 0.0
    rto: float = 0.0
    mtu: int = 0


@attrs.frozen
class PathEvent:
    """Something happened to a path to the peer.

    Args:
      endpoint: the peer's address.
      state: what happened: it became "unreachable", or was "added" by the peer, for example.
    """

    endpoint: Endpoint
    state: PathEventState


@attrs.frozen
class AssociationEvent:
    """Something happened to the association.

    Args:
      state: "up", "lost" (the peer aborted it, or cannot be reached any more), "restarted" by the peer (what was under
        way is lost), "shut down" by both ends, or "cannot start".
      error: the cause that the peer gave for an abort, RFC 9260 section 3.3.10; else 0.
      outbound: how many streams there are to send on.
      inbound: how many streams the peer may send on.
    """

    state: AssociationState
    error: int = 0
    outbound: int = 0
    inbound: int = 0


_LONGEST: Final = 86_400.0
"""Seconds that a timer may have: a day. The kernel counts milliseconds in 32 bits, and more are a mistake."""


def check_seconds(value: object, name: str, lowest: float, highest: float) -> float:
    """Return a number of seconds between two others, these included.

    Raises:
      TypeError: it is not a number.
      ValueError: it is NaN, too small or too large.
    """
    number = check_float(value, name, "a number of seconds")
    if not lowest <= number <= highest:
        raise ValueError(f"{name} must be {lowest:g} to {highest:g} seconds, got {shown(value)}")
    return number


def _timer(_instance: object, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None:
        check_seconds(value, attribute.name, 0.001, _LONGEST)


def _bound(_instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    check_seconds(value, attribute.name, 0, _LONGEST)


def _retransmissions(_instance: object, attribute: attrs.Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check_range(value, attribute.name, 1, 0xFFFF)


@attrs.frozen(kw_only=True)
class SctpTuning:
    """The timers of an association once it is up. None leaves the system's value (net.sctp.*).

    A path fails over after some `rto` of silence, and counts as failed after `path_max_retrans` of them in a row, each
    twice the one before and at most `rto_max`. A peer may delay an acknowledgement by 200 ms (RFC 9260 section 6.2):
    with `rto_min` below some 0.25 s a healthy path is suspected now and then.

    Args:
      rto_initial: seconds until the first retransmission on a path that was never measured; 3 by default. While
        connecting, the attempt delay stands in its place.
      rto_min: the least retransmission time-out, in seconds; 1 by default, or `rto_max` if that is less.
      rto_max: the greatest, in seconds; 60 by default, or `rto_min` if that is more.
      heartbeat: seconds between heartbeats on an idle path, to which the path's rto is added; 30 by default.
      path_max_retrans: how many retransmissions in a row may fail before a path is unreachable; 5 by default.
      shutdown: seconds that `Association.aclose` waits for the peer to take everything; then it aborts. 0 to 86,400.

    Raises:
      TypeError: an argument has the wrong type.
      ValueError: a number is out of range, or `rto_min` is above `rto_max`.
    """

    rto_initial: float | None = attrs.field(default=None, validator=_timer)
    rto_min: float | None = attrs.field(default=None, validator=_timer)
    rto_max: float | None = attrs.field(default=None, validator=_timer)
    heartbeat: float | None = attrs.field(default=None, validator=_timer)
    path_max_retrans: int | None = attrs.field(default=None, validator=_retransmissions)
    shutdown: float = attrs.field(default=2.0, validator=_bound)

    def __attrs_post_init__(self) -> None:
        if self.rto_min is not None and self.rto_max is not None and self.rto_min > self.rto_max:
            raise ValueError(f"rto_min must not be above rto_max, got {self.rto_min!r} and {self.rto_max!r}")


DEFAULT_TUNING: Final = SctpTuning()


@attrs.frozen
class Availability:
    """Whether SCTP can be used here.

    Args:
      ok: whether it can.
      reason: what is missing, and the command that mends it; "" when nothing is.
    """

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok
