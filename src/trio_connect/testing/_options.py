"""Socket options: what a virtual socket stores, what it knows without being told, and what it says about the rest.

An option is stored and read back, and has no effect unless it is listed here: SO_SNDBUF and SO_RCVBUF bound the
buffers, SO_LINGER of 0 seconds makes close send RST, IPV6_V6ONLY, SO_REUSEADDR and SO_REUSEPORT decide who may bind,
TCP_SYNCNT counts SYN retransmissions. An option that Linux does not have for TCP is ENOPROTOOPT.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ._tcp import fail

if TYPE_CHECKING:
    from typing_extensions import Buffer

OptionKey = tuple[int, int]


def _table(*rows: tuple[int, str, int]) -> dict[OptionKey, int]:
    # Options differ between platforms; what a platform lacks its programs cannot ask for.
    return {(level, getattr(socket, name)): value for level, name, value in rows if hasattr(socket, name)}


_S, _T, _4, _6 = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6

DEFAULTS: Final = _table(
    (_S, "SO_REUSEADDR", 0), (_S, "SO_REUSEPORT", 0), (_S, "SO_KEEPALIVE", 0), (_S, "SO_BROADCAST", 0),
    (_S, "SO_OOBINLINE", 0), (_S, "SO_DONTROUTE", 0), (_S, "SO_PRIORITY", 0), (_S, "SO_MARK", 0),
    (_S, "SO_RCVLOWAT", 1), (_S, "SO_INCOMING_CPU", -1), (_S, "SO_EXCLUSIVEADDRUSE", 0),
    (_S, "SO_SNDBUF", 128 * 1024), (_S, "SO_RCVBUF", 128 * 1024),
    (_T, "TCP_NODELAY", 0), (_T, "TCP_CORK", 0), (_T, "TCP_KEEPIDLE", 7200), (_T, "TCP_KEEPALIVE", 7200),
    (_T, "TCP_KEEPINTVL", 75), (_T, "TCP_KEEPCNT", 9), (_T, "TCP_SYNCNT", 6), (_T, "TCP_MAXSEG", 536),
    (_T, "TCP_LINGER2", 60), (_T, "TCP_DEFER_ACCEPT", 0), (_T, "TCP_QUICKACK", 1), (_T, "TCP_USER_TIMEOUT", 0),
    (_T, "TCP_FASTOPEN", 0),
    (_T, "TCP_FASTOPEN_CONNECT", 0), (_T, "TCP_NOTSENT_LOWAT", 0), (_T, "TCP_WINDOW_CLAMP", 0),
    (_4, "IP_TOS", 0), (_4, "IP_TTL", 64), (_4, "IP_BIND_ADDRESS_NO_PORT", 0), (_4, "IP_TRANSPARENT", 0),
    (_4, "IP_FREEBIND", 0),
    (_4, "IP_MTU_DISCOVER", 1), (_4, "IP_RECVERR", 0),
    (_6, "IPV6_V6ONLY", 0), (_6, "IPV6_TCLASS", 0), (_6, "IPV6_UNICAST_HOPS", 64), (_6, "IPV6_RECVERR", 0),
)  # fmt: skip

_BYTES: Final = {
    (level, getattr(socket, name, -1)): value
    for level, name, value in ((_S, "SO_BINDTODEVICE", b""), (_T, "TCP_CONGESTION", b"cubic\0"))
}
LINGER: Final = (_S, socket.SO_LINGER)
SNDBUF: Final = (_S, socket.SO_SNDBUF)
RCVBUF: Final = (_S, socket.SO_RCVBUF)
V6ONLY: Final = (_6, socket.IPV6_V6ONLY)
SYNCNT: Final = (_T, getattr(socket, "TCP_SYNCNT", -1))
_FLAGS: Final = frozenset(
    _table(
        (_S, "SO_REUSEADDR", 0), (_S, "SO_REUSEPORT", 0), (_S, "SO_KEEPALIVE", 0), (_S, "SO_BROADCAST", 0),
        (_S, "SO_OOBINLINE", 0), (_S, "SO_DONTROUTE", 0), (_T, "TCP_NODELAY", 0), (_T, "TCP_CORK", 0),
        (_4, "IP_TRANSPARENT", 0), (_4, "IP_FREEBIND", 0), (_4, "IP_RECVERR", 0),
        (_4, "IP_BIND_ADDRESS_NO_PORT", 0), (_6, "IPV6_V6ONLY", 0), (_6, "IPV6_RECVERR", 0),
    )
)  # fmt: skip
"""What reads back as 1, whatever it was set to but 0."""
_RANGES: Final = {
    (level, getattr(socket, name, -1)): allowed
    for level, name, allowed in (
        (_T, "TCP_KEEPIDLE", range(1, 32768)), (_T, "TCP_KEEPINTVL", range(1, 32768)),
        (_T, "TCP_KEEPCNT", range(1, 128)), (_T, "TCP_SYNCNT", range(1, 128)),
        (_T, "TCP_USER_TIMEOUT", range(2**31)), (_4, "IP_TTL", range(1, 256)),
    )
}  # fmt: skip
"""Anything else is EINVAL, as Linux has it; a test would let a program pass that fails where it runs."""
_SMALLEST: Final = {SNDBUF: 2304, RCVBUF: 1152}  # Linux doubles what it is given; these are before doubling


class Options:
    """The options of one socket."""

    __slots__ = ("_family", "_set")

    def __init__(self, family: int, inherited: Options | None = None) -> None:
        self._family = family
        self._set: dict[OptionKey, int | bytes] = dict(inherited.stored) if inherited is not None else {}

    def number(self, key: OptionKey) -> int:
        """Return the value of an option that is a number."""
        value = self._set.get(key, DEFAULTS.get(key, 0))
        return value if isinstance(value, int) else 0

    def flag(self, name: str) -> bool:
        """Say whether an option of SOL_SOCKET is on; False where the platform lacks it."""
        return bool(self.number((socket.SOL_SOCKET, getattr(socket, name, -1))))

    @property
    def stored(self) -> Mapping[OptionKey, int | bytes]:
        """What was set, as accepted sockets inherit it from their listener."""
        return self._set

    @property
    def lingers(self) -> bool:
        """Whether close may send what is left, that is, unless SO_LINGER says 0 seconds."""
        value = self._set.get(LINGER)
        if not isinstance(value, bytes):
            return True
        on, seconds = struct.unpack("ii", value)
        return not (on and seconds == 0)

    def get(self, key: OptionKey) -> int | bytes:
        """Read an option.

        Raises:
          OSError: ENOPROTOOPT, or EOPNOTSUPP for an option of IPv6 on an IPv4 socket.
        """
        self._check(key, errno.EOPNOTSUPP)
        if key in self._set:
            return self._set[key]
        if key == LINGER:
            return struct.pack("ii", 0, 0)
        return _BYTES[key] if key in _BYTES else DEFAULTS[key]

    def set(self, key: OptionKey, value: int | Buffer) -> None:
        """Store an option.

        Raises:
          OSError: ENOPROTOOPT, or EINVAL for bytes of the wrong length and a number out of range.
        """
        self._check(key, errno.ENOPROTOOPT)
        if key == LINGER or key in _BYTES:
            if isinstance(value, int):
                fail(errno.EINVAL)
            stored = bytes(value)
            if key == LINGER and len(stored) != struct.calcsize("ii"):
                fail(errno.EINVAL)
            self._set[key] = stored
            return
        if not isinstance(value, int):
            packed = bytes(value)
            if len(packed) < struct.calcsize("i"):
                fail(errno.EINVAL)
            (value,) = struct.unpack_from("i", packed)
        assert isinstance(value, int)
        if key in _RANGES and value not in _RANGES[key]:
            fail(errno.EINVAL)
        if key in _FLAGS:
            value = int(value != 0)
        if key in _SMALLEST:
            value = 2 * max(value, _SMALLEST[key])
        self._set[key] = int(value)

    def _check(self, key: OptionKey, other_family: int) -> None:
        if key[0] == socket.IPPROTO_IPV6 and self._family != socket.AF_INET6:
            fail(other_family)
        if key not in DEFAULTS and key not in _BYTES and key != LINGER:
            fail(errno.ENOPROTOOPT)


def packed(value: int | bytes, length: int) -> bytes:
    """Return what getsockopt with a buffer length returns."""
    return (struct.pack("i", value) if isinstance(value, int) else value)[:length]
