"""What can be asked of a socket, in seconds and bytes; how it is asked is `_net`'s business."""

from __future__ import annotations

from typing import Any, Final

import attrs

from ._check import check_float, check_int
from ._repr import changed_repr
from ._text import shown

__all__ = ["DEFAULT_OPTIONS", "SocketOptions"]

_MAX_BYTES: Final = 0x7FFFFFFF  # setsockopt(2) takes an int
_MAX_SECONDS: Final = 32767.0  # MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL of Linux
_MAX_PROBES: Final = 127  # MAX_TCP_KEEPCNT of Linux
_MAX_USER_TIMEOUT: Final = 0x7FFFFFFF / 1000


def _flag(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{field.name} must be True or False, got {shown(value)}")


def _seconds(lowest: float, highest: float) -> Any:
    def check(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is None:
            return
        seconds = check_float(value, field.name, "a number of seconds")
        if not lowest <= seconds <= highest:
            raise ValueError(f"{field.name} must be between {lowest:g} and {highest:g} seconds, got {shown(value)}")

    return check


def _count(lowest: int, highest: int) -> Any:
    def check(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
        if value is None:
            return
        if not lowest <= check_int(value, field.name) <= highest:
            raise ValueError(f"{field.name} must be between {lowest} and {highest}, got {shown(value)}")

    return check


def _not_none(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        raise TypeError(f"{field.name} must be True or False, got None")


@attrs.frozen(kw_only=True, repr=False, cache_hash=True)  # each connect looks up what they mean
class SocketOptions:
    """Options set on a socket before it connects or listens. None leaves the kernel's default.

    Args:
      nodelay: send small segments at once (TCP_NODELAY, tcp(7)).
      keepalive_idle: seconds of silence before the first keep-alive probe, rounded up to whole seconds
        (TCP_KEEPIDLE). Any of the three keepalive options switches keep-alive on.
      keepalive_interval: seconds between probes, rounded up to whole seconds (TCP_KEEPINTVL).
      keepalive_count: unanswered probes after which the connection is broken (TCP_KEEPCNT).
      user_timeout: seconds that sent data, or the SYN, may stay unacknowledged (TCP_USER_TIMEOUT, RFC 5482).
      notsent_lowat: bytes of unsent data above which the socket is not writable (TCP_NOTSENT_LOWAT). Lower
        latency for priorities decided late, for 27 to 50 % more CPU in bulk sending.
      send_buffer: bytes (SO_SNDBUF, socket(7); Linux doubles it). Switches the kernel's tuning off.
      receive_buffer: bytes (SO_RCVBUF), likewise.
      v6only: keep an IPv6 listener from taking IPv4 too (IPV6_V6ONLY, ipv6(7)). None means dual-stack for
        listeners on ``::``.
      reuse_port: let several listeners share a port (SO_REUSEPORT).
      fast_open: send the first data with the SYN where a cookie is known, and accept it on listeners
        (TCP_FASTOPEN_CONNECT and TCP_FASTOPEN, RFC 7413). With a cookie, a connect returns before the peer
        answered, and a refusal arrives at the first send: so a race over several candidates needs an `establish`
        with it.
      multipath: ask for Multipath TCP (RFC 8684, IPPROTO_MPTCP), which uses several paths for one connection and
        survives the loss of one. A peer, a path or a system without it makes a plain TCP connection;
        `TcpStream.multipath` says what was got. Where an MPTCP socket refuses one of the other options, connecting
        fails with an error that names it: Linux 6.18 refuses `user_timeout`. Not together with an `address_filter`: the
        kernel may connect to further addresses that the peer names.

    Raises:
      TypeError: a value has the wrong type.
      ValueError: a number is out of the range that kernels accept.
    """

    nodelay: bool = attrs.field(default=True, validator=[_not_none, _flag])
    keepalive_idle: float | None = attrs.field(default=None, validator=_seconds(1, _MAX_SECONDS))
    keepalive_interval: float | None = attrs.field(default=None, validator=_seconds(1, _MAX_SECONDS))
    keepalive_count: int | None = attrs.field(default=None, validator=_count(1, _MAX_PROBES))
    user_timeout: float | None = attrs.field(default=None, validator=_seconds(0.001, _MAX_USER_TIMEOUT))
    notsent_lowat: int | None = attrs.field(default=None, validator=_count(1, _MAX_BYTES))
    send_buffer: int | None = attrs.field(default=None, validator=_count(1, _MAX_BYTES))
    receive_buffer: int | None = attrs.field(default=None, validator=_count(1, _MAX_BYTES))
    v6only: bool | None = attrs.field(default=None, validator=_flag)
    reuse_port: bool = attrs.field(default=False, validator=[_not_none, _flag])
    fast_open: bool = attrs.field(default=False, validator=[_not_none, _flag])
    multipath: bool = attrs.field(default=False, validator=[_not_none, _flag])
    __repr__ = changed_repr


DEFAULT_OPTIONS: Final = SocketOptions()


def check_options(options: object) -> None:
    """Refuse what is not a `SocketOptions`."""
    if not isinstance(options, SocketOptions):
        raise TypeError(f"options must be a SocketOptions, got {shown(options)}")
