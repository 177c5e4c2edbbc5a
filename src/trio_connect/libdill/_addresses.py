"""`ipaddr`: addresses as libdill has them, mutable; and those of this machine."""

from __future__ import annotations

import errno
import socket
from socket import AddressFamily
from typing import Final, final

import attrs

from .._check import check_int
from .._endpoint import Endpoint
from .._text import shown
from ._failures import check_not_null, failure
from ._interfaces import interface_address

IPADDR_IPV4: Final = 1
"""IPv4 only."""
IPADDR_IPV6: Final = 2
"""IPv6 only."""
IPADDR_PREF_IPV4: Final = 3
"""IPv4 if there is any, else IPv6. Mode 0 means this too, as in libdill."""
IPADDR_PREF_IPV6: Final = 4
"""IPv6 if there is any, else IPv4."""
IPADDR_MAXSTRLEN: Final = 46
"""How long a buffer `ipaddr_str` needs: INET6_ADDRSTRLEN of inet_ntop(3)."""

_FAMILIES: Final[dict[int, tuple[AddressFamily, ...]]] = {
    0: (socket.AF_INET, socket.AF_INET6),
    IPADDR_IPV4: (socket.AF_INET,),
    IPADDR_IPV6: (socket.AF_INET6,),
    IPADDR_PREF_IPV4: (socket.AF_INET, socket.AF_INET6),
    IPADDR_PREF_IPV6: (socket.AF_INET6, socket.AF_INET),
}
_WILDCARD: Final[dict[int, str]] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
# sizeof(struct sockaddr_in), ip(7), and of struct sockaddr_in6, ipv6(7).
_LENGTH: Final[dict[int, int]] = {
    socket.AF_INET: 16,
    socket.AF_INET6: 28,
}


@final
@attrs.define(eq=False)
class ipaddr:  # noqa: N801 - libdill's name
    """An address and a port, or nothing yet. Functions write their result into it, as in libdill.

    Args:
      endpoint: what it holds; None until something was written.

    libdill: ipaddr_local(3), ipaddr_remote(3).
    """

    endpoint: Endpoint | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.instance_of(Endpoint))
    )


def check_ipaddr(addr: object) -> None:
    """Refuse what is not an `ipaddr`: None with EINVAL, libdill's promise for NULL, else with a TypeError."""
    check_not_null(addr, "the address")
    if not isinstance(addr, ipaddr):
        raise TypeError(f"an address is an ipaddr, got {shown(addr)}")


def endpoint_of(addr: ipaddr) -> Endpoint:
    """Return what an address holds.

    Raises:
      OSError: EAFNOSUPPORT, it holds nothing; EINVAL, it is None.
      TypeError: it is not an `ipaddr`.
    """
    check_ipaddr(addr)
    if addr.endpoint is None:
        raise failure(errno.EAFNOSUPPORT, "nothing was ever written to this ipaddr")
    return addr.endpoint


# ---------------------------------------------------------------------- accessors


def ipaddr_family(addr: ipaddr) -> int:
    """Return `socket.AF_INET` or `socket.AF_INET6`, or `socket.AF_UNSPEC` while nothing was written.

    Args:
      addr: the address.

    Returns:
      The family.

    Raises:
      OSError: EINVAL, `addr` is None.
      TypeError: not an `ipaddr`.

    libdill: ipaddr_family(3).
    """
    check_ipaddr(addr)
    return socket.AF_UNSPEC if addr.endpoint is None else addr.endpoint.family


def ipaddr_len(addr: ipaddr) -> int:
    """Return how long the address is as a struct of the system.

    Args:
      addr: the address.

    Returns:
      A number of bytes.

    Raises:
      OSError: EAFNOSUPPORT, nothing was written; EINVAL, `addr` is None.
      TypeError: not an `ipaddr`.

    libdill: ipaddr_len(3).
    """
    return _LENGTH[endpoint_of(addr).family]


def ipaddr_sockaddr(addr: ipaddr) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the address as the `socket` module takes it.

    Args:
      addr: the address.

    Returns:
      Host and port; for IPv6 also flow label and scope id.

    Raises:
      OSError: EAFNOSUPPORT, nothing was written; EINVAL, `addr` is None.
      TypeError: not an `ipaddr`.

    libdill: ipaddr_sockaddr(3).
    """
    return endpoint_of(addr).sockaddr


def ipaddr_port(addr: ipaddr) -> int:
    """Return the port.

    Args:
      addr: the address.

    Returns:
      0 to 65535.

    Raises:
      OSError: EAFNOSUPPORT, nothing was written; EINVAL, `addr` is None.
      TypeError: not an `ipaddr`.

    libdill: ipaddr_port(3).
    """
    return endpoint_of(addr).port


def ipaddr_setport(addr: ipaddr, port: int) -> None:
    """Write another port.

    Args:
      addr: the address to write to.
      port: 0 to 65535.

    Raises:
      OSError: EAFNOSUPPORT, nothing was written; EINVAL, the port is not 0 to 65535, or `addr` is None.
      TypeError: an argument has the wrong type.

    libdill: ipaddr_setport(3).
    """
    endpoint = endpoint_of(addr)
    check_port(port)
    addr.endpoint = Endpoint(endpoint.host, port, endpoint.scope_id, endpoint.flowinfo)


def ipaddr_str(addr: ipaddr, buf: bytearray | None = None) -> str:
    """Return the address as text, without port and scope.

    Args:
      addr: the address.
      buf: gets the text too, closed by a NUL, unless it is None.

    Raises:
      OSError: EAFNOSUPPORT, nothing was written; EINVAL, `addr` is None, or `buf` is shorter than `IPADDR_MAXSTRLEN`.
      TypeError: an argument has the wrong type.

    libdill: ipaddr_str(3).
    """
    text = endpoint_of(addr).host
    if buf is not None:
        if not isinstance(buf, bytearray):
            raise TypeError(f"ipaddr_str writes to a bytearray, got {shown(buf)}")
        if len(buf) < IPADDR_MAXSTRLEN:
            raise failure(errno.EINVAL, f"ipaddr_str needs IPADDR_MAXSTRLEN bytes, got {len(buf)}")
        raw = text.encode() + b"\0"
        buf[: len(raw)] = raw
    return text


def ipaddr_equal(addr1: ipaddr, addr2: ipaddr, ignore_port: int) -> int:
    """Say whether two addresses are the same: 1 or 0. Scope and flow label do not count.

    Args:
      addr1: an address.
      addr2: another one.
      ignore_port: 0 compares the ports too; any other number leaves them out.

    Returns:
      1 or 0.

    Raises:
      OSError: EINVAL, an address is None.
      TypeError: not an `ipaddr`.

    libdill: ipaddr_equal(3).
    """
    check_ipaddr(addr1)
    check_ipaddr(addr2)
    one, other = addr1.endpoint, addr2.endpoint
    if one is None or other is None:
        return int(one is other)
    return int(one.host == other.host and (bool(ignore_port) or one.port == other.port))


# ---------------------------------------------------------------------- local


def ipaddr_local(addr: ipaddr, name: str | None, port: int, mode: int) -> int:
    """Write an address of this machine.

    Args:
      addr: where to write it.
      name: a numeric address; or an interface, whose first address is taken (Linux); None is every address.
      port: 0 to 65535.
      mode: 0 or one of the `IPADDR_` modes.

    Returns:
      0.

    Raises:
      OSError: EINVAL, the port or the mode is invalid, or `addr` is None; EMFILE; ENODEV, there is no such interface,
        or neither the interface nor the text is an address of that family.
      TypeError: an argument has the wrong type.

    libdill: ipaddr_local(3).
    """
    check_ipaddr(addr)
    check_port(port)
    families = check_mode(mode)
    if name is None:
        addr.endpoint = Endpoint(_WILDCARD[families[0]], port)
        return 0
    check_name(name)
    known = literal(name, port)
    if known is not None:
        if known.family not in families:
            raise failure(errno.ENODEV, f"{shown(name)} is not of the family that was asked for")
        addr.endpoint = known
        return 0
    for family in families:
        found = interface_address(name, family)
        if found is not None:
            addr.endpoint = Endpoint(found[0], port, found[1])
            return 0
    raise failure(errno.ENODEV, f"no interface {shown(name)} with an address of that family")


# ---------------------------------------------------------------------- arguments


def check_port(port: object) -> None:
    """Refuse what is not a port."""
    if not 0 <= check_int(port, "port") <= 0xFFFF:
        raise failure(errno.EINVAL, f"a port is 0 to 65535, got {shown(port)}")


def check_mode(mode: object) -> tuple[AddressFamily, ...]:
    """Return the families that a mode asks for, the preferred one first, or say what is wrong with it."""
    families = _FAMILIES.get(check_int(mode, "mode"))
    if families is None:
        raise failure(errno.EINVAL, f"a mode is 0 or one of IPADDR_IPV4 to IPADDR_PREF_IPV6, got {shown(mode)}")
    return families


def check_name(name: object) -> None:
    """Refuse what is not a str."""
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, got {shown(name)}")


def literal(name: str, port: int) -> Endpoint | None:
    """Return a numeric address as an endpoint, None for a name."""
    try:
        return Endpoint(name, port)
    except ValueError:
        return None
