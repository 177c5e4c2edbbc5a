"""The structures of Linux's SCTP as bytes: addresses, options, control messages, notifications.

Theory. The kernel speaks of addresses as `sockaddr_in` and `sockaddr_in6`, packed back to back where a list is asked
for, and padded to `sockaddr_storage` where one is. Numbers are in the machine's byte order, except those that are a
socket address's own (port, flow label) and the payload protocol identifier: the kernel passes that one through
untouched, so RFC 6458 section 5.3.4 leaves its byte order to the two programs, and RFC 9260 section 14.4 lists the
values as big-endian numbers. Here it is a plain int on both sides, and big-endian in the packet.

Everything here is a function of its arguments. Bytes from the kernel, or from a test in its place,
are parsed or refused with `WireError`; nothing else is raised, whatever the bytes.

Layouts: linux/sctp.h. `sctp_paddrparams`, `sctp_paddrinfo` and `sctp_setprim` are packed, so that an address follows
its association id at once.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import attrs

from .._endpoint import Endpoint
from ._values import AssociationEvent, AssociationState, Path, PathEvent, PathEventState, PathState

SOL_SCTP: Final = 132
"""The level of every option here: IPPROTO_SCTP."""

# Options, linux/sctp.h.
RTOINFO: Final = 0
INITMSG: Final = 2
NODELAY: Final = 3
PRIMARY_ADDR: Final = 6
WANT_MAPPED_V4: Final = 12
PEER_ADDR_PARAMS: Final = 9
STATUS: Final = 14
GET_PEER_ADDR_INFO: Final = 15
RECVRCVINFO: Final = 32
BINDX_ADD: Final = 100
GET_PEER_ADDRS: Final = 108
GET_LOCAL_ADDRS: Final = 109
CONNECTX: Final = 110
EVENT: Final = 127

# Control messages: enum sctp_cmsg_type.
SNDINFO: Final = 2
RCVINFO: Final = 3
PRINFO: Final = 5

# enum sctp_sinfo_flags and the policies of RFC 7496.
UNORDERED: Final = 1
PR_TTL: Final = 0x0010

MSG_NOTIFICATION: Final = 0x8000

# enum sctp_sn_type.
ASSOC_CHANGE: Final = 0x8001
PEER_ADDR_CHANGE: Final = 0x8002
SHUTDOWN_EVENT: Final = 0x8005
PARTIAL_DELIVERY_EVENT: Final = 0x8006

_ASSOC_STATES: Final[tuple[AssociationState, ...]] = ("up", "lost", "restarted", "shut down", "cannot start")
_PATH_CHANGES: Final[tuple[PathEventState, ...]] = (
    "available", "unreachable", "removed", "added", "primary", "confirmed", "potentially failed",
)  # fmt: skip
_PATH_STATES: Final[dict[int, PathState]] = {
    0: "inactive", 1: "potentially failed", 2: "active", 3: "unconfirmed", 0xFFFF: "unknown",
}  # fmt: skip
ESTABLISHED: Final = 4
"""enum sctp_sstat_state: the association is up."""

_SOCKADDR_IN: Final = struct.Struct("=H2s4s8x")
_SOCKADDR_IN6: Final = struct.Struct("=H2s4s16sI")
STORAGE: Final = 128
"""sizeof(struct sockaddr_storage)."""

_RTOINFO: Final = struct.Struct("=iIII")
_INITMSG: Final = struct.Struct("=HHHH")
_EVENT: Final = struct.Struct("=iHBx")
_PADDRPARAMS: Final = struct.Struct(f"=i{STORAGE}sIHIIIIBx")
_SETPRIM: Final = struct.Struct(f"=i{STORAGE}s")
_PADDRINFO: Final = struct.Struct(f"=i{STORAGE}siIIII")
_STATUS: Final = struct.Struct("=iiIHHHHI")
_GETADDRS: Final = struct.Struct("=iI")
_SNDINFO: Final = struct.Struct("=HH4sIi")
_RCVINFO: Final = struct.Struct("=HHHxx4sIIIi")
_PRINFO: Final = struct.Struct("=HxxI")
_NOTIFICATION: Final = struct.Struct("=HHI")
_ASSOC_CHANGE: Final = struct.Struct("=H2sHHi")
_PADDR_CHANGE: Final = struct.Struct(f"={STORAGE}siii")
_PDAPI: Final = struct.Struct("=IiI")

STATUS_SIZE: Final = _STATUS.size + _PADDRINFO.size
PADDRINFO_SIZE: Final = _PADDRINFO.size
HEARTBEAT_ENABLE: Final = 1
"""SPP_HB_ENABLE, enum sctp_spp_flags."""


class WireError(ValueError):
    """Bytes that no kernel sends: too short, or an address of another family."""


# ---------------------------------------------------------------------------------------------------------- addresses


def pack_address(endpoint: Endpoint) -> bytes:
    """Return a `sockaddr_in` or `sockaddr_in6`.

    Args:
      endpoint: its zone must be an index, not a name: only the kernel knows which index a name has now.

    Raises:
      ValueError: the zone is a name.
    """
    port = endpoint.port.to_bytes(2, "big")
    if endpoint.family == socket.AF_INET:
        return _SOCKADDR_IN.pack(socket.AF_INET, port, ipaddress.IPv4Address(endpoint.host).packed)
    if isinstance(endpoint.scope_id, str):
        # The type is right for an Endpoint, the value is not for the kernel.
        raise ValueError(f"the zone of {endpoint} is a name: the kernel takes its index")  # noqa: TRY004
    flow = endpoint.flowinfo.to_bytes(4, "big")
    host = ipaddress.IPv6Address(endpoint.host).packed
    return _SOCKADDR_IN6.pack(socket.AF_INET6, port, flow, host, endpoint.scope_id)


def pack_addresses(endpoints: Iterable[Endpoint]) -> bytes:
    """Return a list of addresses as sctp_connectx(3) and sctp_bindx(3) take it: back to back, nothing between."""
    return b"".join(map(pack_address, endpoints))


def pack_storage(endpoint: Endpoint | None) -> bytes:
    """Return an address in a `sockaddr_storage`; None is all zeros, which stands for every address of the peer."""
    return (b"" if endpoint is None else pack_address(endpoint)).ljust(STORAGE, b"\0")


def unpack_address(data: bytes | memoryview, at: int = 0) -> tuple[Endpoint, int]:
    """Read one address.

    Args:
      data: a `sockaddr_in` or `sockaddr_in6` stands in it, perhaps inside of a `sockaddr_storage`.
      at: where it begins.

    Returns:
      The endpoint, and where the next address of a packed list begins.

    Raises:
      WireError: too short, or of another family.
    """
    try:
        (family,) = struct.unpack_from("=H", data, at)
        if family == socket.AF_INET:
            _, port, host = _SOCKADDR_IN.unpack_from(data, at)
            endpoint = Endpoint(str(ipaddress.IPv4Address(host)), int.from_bytes(port, "big"))
            return endpoint, at + _SOCKADDR_IN.size
        if family == socket.AF_INET6:
            _, port, flow, host, scope = _SOCKADDR_IN6.unpack_from(data, at)
            # The upper bits of sin6_flowinfo are the traffic class, RFC 3493 section 3.3 and RFC 8200 section 3.
            label = int.from_bytes(flow, "big") & 0xFFFFF
            endpoint = Endpoint(str(ipaddress.IPv6Address(host)), int.from_bytes(port, "big"), scope, label)
            return endpoint, at + _SOCKADDR_IN6.size
    except struct.error as exc:
        raise WireError(f"an address is cut off: {exc}") from None
    raise WireError(f"an address of family {family}, which is neither IPv4 nor IPv6")


def pack_getaddrs(size: int) -> bytes:
    """Return the buffer for `SCTP_GET_PEER_ADDRS` and `SCTP_GET_LOCAL_ADDRS`, with room for `size` bytes of answer."""
    return _GETADDRS.pack(0, 0).ljust(_GETADDRS.size + size, b"\0")


def unpack_getaddrs(data: bytes) -> tuple[Endpoint, ...]:
    """Read the answer to `SCTP_GET_PEER_ADDRS` or `SCTP_GET_LOCAL_ADDRS`.

    Args:
      data: the whole buffer. For local addresses the kernel reports a length without the header of 8 bytes, so it must
        not be cut by that length.

    Raises:
      WireError: fewer addresses than announced, or one of another family.
    """
    try:
        _, count = _GETADDRS.unpack_from(data)
    except struct.error as exc:
        raise WireError(f"a list of addresses is cut off: {exc}") from None
    found: list[Endpoint] = []
    at = _GETADDRS.size
    for _ in range(count):
        endpoint, at = unpack_address(data, at)
        found.append(endpoint)
    return tuple(found)


# ------------------------------------------------------------------------------------------------------------ options


def pack_rtoinfo(*, initial: int = 0, minimum: int = 0, maximum: int = 0) -> bytes:
    """Return `sctp_rtoinfo`, in milliseconds; 0 leaves a value as it is. RFC 6458 section 8.1.1."""
    return _RTOINFO.pack(0, initial, maximum, minimum)


def unpack_rtoinfo(data: bytes) -> tuple[int, int, int]:
    """Return initial, minimum and maximum retransmission time-out, in milliseconds.

    Raises:
      WireError: too short.
    """
    _, initial, maximum, minimum = _unpack(_RTOINFO, data)
    return initial, minimum, maximum


def pack_initmsg(*, streams: int, attempts: int = 0) -> bytes:
    """Return `sctp_initmsg`, RFC 6458 section 8.1.3.

    Args:
      streams: how many to ask for, to send on. How many the peer may have is left to the system (65,535).
      attempts: how often INIT is sent again; 0 for the system's default.
    """
    return _INITMSG.pack(streams, 0, attempts, 0)


def unpack_initmsg(data: bytes) -> int:
    """Return how often INIT is sent again before the kernel gives up.

    Raises:
      WireError: too short.
    """
    attempts: int = _unpack(_INITMSG, data)[2]
    return attempts


def pack_event(kind: int) -> bytes:
    """Return `sctp_event`: ask for one kind of notification, RFC 6458 section 6.2.2."""
    return _EVENT.pack(0, kind, 1)


def pack_path_parameters(*, heartbeat: int, retransmissions: int) -> bytes:
    """Return `sctp_paddrparams` for every path of the association, RFC 6458 section 8.1.12.

    Args:
      heartbeat: milliseconds between two heartbeats of an idle path; 0 leaves it as it is.
      retransmissions: how many in a row may fail before a path counts as failed; 0 leaves it as it is.
    """
    flags = HEARTBEAT_ENABLE if heartbeat else 0
    return _PADDRPARAMS.pack(0, pack_storage(None), heartbeat, retransmissions, 0, 0, flags, 0, 0)


def pack_primary(endpoint: Endpoint) -> bytes:
    """Return `sctp_setprim`: which path to send on, RFC 6458 section 8.1.9."""
    return _SETPRIM.pack(0, pack_storage(endpoint))


def pack_paddrinfo(endpoint: Endpoint) -> bytes:
    """Return the question of `SCTP_GET_PEER_ADDR_INFO`, RFC 6458 section 8.2.2."""
    return _SETPRIM.pack(0, pack_storage(endpoint)).ljust(PADDRINFO_SIZE, b"\0")


def unpack_paddrinfo(data: bytes, at: int = 0) -> Path:
    """Read `sctp_paddrinfo`.

    Raises:
      WireError: too short, or an address of another family.
    """
    _, storage, state, _, srtt, rto, mtu = _unpack(_PADDRINFO, data, at)
    return Path(unpack_address(storage)[0], _PATH_STATES.get(state, "unknown"), srtt / 1000, rto / 1000, mtu)


@attrs.frozen
class Status:
    """`sctp_status`, RFC 6458 section 8.2.1.

    Args:
      association: its id.
      state: 4 when it is established, enum sctp_sstat_state.
      unacknowledged: how many DATA chunks were sent and not acknowledged yet.
      inbound: how many streams the peer may send on.
      outbound: how many streams there are to send on.
      primary: the path that is sent on while it works.
    """

    association: int
    state: int
    unacknowledged: int
    inbound: int
    outbound: int
    primary: Path


def unpack_status(data: bytes) -> Status:
    """Read `sctp_status`.

    Raises:
      WireError: too short, or an address of another family.
    """
    association, state, _, unacknowledged, _, inbound, outbound, _ = _unpack(_STATUS, data)
    return Status(association, state, unacknowledged, inbound, outbound, unpack_paddrinfo(data, _STATUS.size))


# -------------------------------------------------------------------------------------------------- control messages


def pack_send(*, stream: int, ppid: int, unordered: bool, ttl: int | None) -> list[tuple[int, int, bytes]]:
    """Return the control messages of one message that is sent, RFC 6458 sections 5.3.4 and 5.3.7.

    Args:
      stream: its number.
      ppid: payload protocol identifier, as its registry has it.
      unordered: whether it may overtake others of its stream.
      ttl: milliseconds after which an unsent message is dropped (RFC 7496 section 4.1); None for never.
    """
    flags = UNORDERED if unordered else 0
    messages = [(SOL_SCTP, SNDINFO, _SNDINFO.pack(stream, flags, ppid.to_bytes(4, "big"), 0, 0))]
    if ttl is not None:
        messages.append((SOL_SCTP, PRINFO, _PRINFO.pack(PR_TTL, ttl)))
    return messages


RCVINFO_SPACE: Final = socket.CMSG_SPACE(_RCVINFO.size) if hasattr(socket, "CMSG_SPACE") else 0
"""Room for the control message of one message that is received."""


@attrs.frozen
class ReceiveInfo:
    """`sctp_rcvinfo`: what a message is, RFC 6458 section 5.3.5.

    Attributes:
      stream: the stream that it came on.
      ppid: its payload protocol.
      unordered: whether it may have overtaken others.
      tsn: its transmission sequence number.
    """

    stream: int
    ppid: int
    unordered: bool
    tsn: int


def unpack_receive(control: Iterable[tuple[int, int, bytes]]) -> ReceiveInfo | None:
    """Read the control messages of one message; None when the kernel sent no `sctp_rcvinfo`.

    Raises:
      WireError: it is too short.
    """
    for level, kind, data in control:
        if level == SOL_SCTP and kind == RCVINFO:
            stream, _, flags, ppid, tsn, _, _, _ = _unpack(_RCVINFO, data)
            return ReceiveInfo(stream, int.from_bytes(ppid, "big"), bool(flags & UNORDERED), tsn)
    return None


# ------------------------------------------------------------------------------------------------------ notifications


@attrs.frozen
class PeerShutdown:
    """`sctp_shutdown_event`: the peer sends no more, RFC 6458 section 6.1.5."""


@attrs.frozen
class PartialDeliveryAborted:
    """`sctp_pdapi_event`: the rest of a message in pieces will not come, RFC 6458 section 6.1.7."""


@attrs.frozen
class Ignored:
    """A notification that was not asked for, or has a state that is not known here."""

    kind: int


Notification: TypeAlias = AssociationEvent | PathEvent | PeerShutdown | PartialDeliveryAborted | Ignored


def unpack_notification(data: bytes) -> Notification:
    """Read what recvmsg(2) returned with MSG_NOTIFICATION.

    Raises:
      WireError: too short for its kind, or an address of another family.
    """
    kind, _, _ = _unpack(_NOTIFICATION, data)
    at = _NOTIFICATION.size
    if kind == ASSOC_CHANGE:
        change: int
        change, error, outbound, inbound, _ = _unpack(_ASSOC_CHANGE, data, at)
        if change < len(_ASSOC_STATES):
            # The cause code is passed on as it stands in the ABORT chunk.
            return AssociationEvent(_ASSOC_STATES[change], int.from_bytes(error, "big"), outbound, inbound)
    elif kind == PEER_ADDR_CHANGE:
        state: int
        storage, state, _, _ = _unpack(_PADDR_CHANGE, data, at)
        if 0 <= state < len(_PATH_CHANGES):
            return PathEvent(unpack_address(storage)[0], _PATH_CHANGES[state])
    elif kind == SHUTDOWN_EVENT:
        return PeerShutdown()
    elif kind == PARTIAL_DELIVERY_EVENT:
        _unpack(_PDAPI, data, at)
        return PartialDeliveryAborted()
    return Ignored(kind)


def _unpack(layout: struct.Struct, data: bytes, at: int = 0) -> tuple[Any, ...]:
    try:
        return layout.unpack_from(data, at)
    except struct.error:
        raise WireError(f"{len(data)} bytes, where {layout.size} were expected at {at}") from None
