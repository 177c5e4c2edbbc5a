"""`ipaddr`: addresses as libdill has them, mutable, and how names become addresses."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final, final

import attrs
import trio
from trio import current_time
from trio.lowlevel import checkpoint

from .._deadline import to_seconds
from .._endpoint import Endpoint, as_endpoint
from .._errors import DeadlineExceeded
from .._net.waiting import Expired, within
from ._handles import check_deadline, check_not_null, failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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

_FAMILIES: Final[dict[int, tuple[int, ...]]] = {
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

# getaddrinfo(3): answers that say that there is no such address, as opposed to no answer. Not every system has all.
_NEGATIVE: Final = frozenset(
    getattr(socket, name) for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY") if hasattr(socket, name)
)

_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h, netdevice(7)
_IFNAMSIZ: Final = 16
_INET6_TABLE: Final = "/proc/net/if_inet6"
# The scope column of that table (net/ipv6.h): global, site, link, host. The kernel lists an interface's addresses in
# this order, the table does not.
_SCOPE_ORDER: Final = {0x00: 0, 0x40: 1, 0x20: 2, 0x10: 3}
_LINK_SCOPE: Final = 0x20


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
        raise TypeError(f"an address is an ipaddr, got {addr!r}")


def endpoint_of(addr: ipaddr) -> Endpoint:
    """Return what an address holds.

    Raises:
      OSError: EAFNOSUPPORT, it holds nothing; EINVAL, it is None.
      TypeError: it is no `ipaddr`.
    """
    check_ipaddr(addr)
    if addr.endpoint is None:
        raise failure(errno.EAFNOSUPPORT, "nothing was ever written to this ipaddr")
    return addr.endpoint


# ---------------------------------------------------------------------- accessors


def ipaddr_family(addr: ipaddr) -> int:
    """Return `socket.AF_INET` or `socket.AF_INET6`, or `socket.AF_UNSPEC` while nothing was written.

    Raises:
      OSError: EINVAL, `addr` is None.
      TypeError: not an `ipaddr`.

    libdill: ipaddr_family(3).
    """
    check_ipaddr(addr)
    return socket.AF_UNSPEC if addr.endpoint is None else addr.endpoint.family


def ipaddr_len(addr: ipaddr) -> int:
    """Return how long the address is as a struct of the system.

    Raises:
      OSError: EAFNOSUPPORT, nothing was written; EINVAL, `addr` is None.
      TypeError: not an `ipaddr`.

    libdill: ipaddr_len(3).
    """
    return _LENGTH[endpoint_of(addr).family]


def ipaddr_sockaddr(addr: ipaddr) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return the address as the `socket` module takes it.

    Raises:
      OSError: EAFNOSUPPORT, nothing was written; EINVAL, `addr` is None.
      TypeError: not an `ipaddr`.

    libdill: ipaddr_sockaddr(3).
    """
    return endpoint_of(addr).sockaddr


def ipaddr_port(addr: ipaddr) -> int:
    """Return the port.

    Raises:
      OSError: EAFNOSUPPORT, nothing was written; EINVAL, `addr` is None.
      TypeError: not an `ipaddr`.

    libdill: ipaddr_port(3).
    """
    return endpoint_of(addr).port


def ipaddr_setport(addr: ipaddr, port: int) -> None:
    """Write another port.

    Raises:
      OSError: EAFNOSUPPORT, nothing was written; EINVAL, the port is not 0 to 65535, or `addr` is None.
      TypeError: an argument has the wrong type.

    libdill: ipaddr_setport(3).
    """
    endpoint = endpoint_of(addr)
    _check_port(port)
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
            raise TypeError(f"ipaddr_str writes to a bytearray, got {buf!r}")
        if len(buf) < IPADDR_MAXSTRLEN:
            raise failure(errno.EINVAL, f"ipaddr_str needs IPADDR_MAXSTRLEN bytes, got {len(buf)}")
        raw = text.encode() + b"\0"
        buf[: len(raw)] = raw
    return text


def ipaddr_equal(addr1: ipaddr, addr2: ipaddr, ignore_port: int) -> int:
    """Say whether two addresses are the same: 1 or 0. Scope and flow label do not count.

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
      OSError: EINVAL, the port or the mode is none, or `addr` is None; EMFILE; ENODEV, there is no such interface, or
        neither the interface nor the text is an address of that family.
      TypeError: an argument has the wrong type.

    libdill: ipaddr_local(3).
    """
    check_ipaddr(addr)
    _check_port(port)
    families = _check_mode(mode)
    if name is None:
        addr.endpoint = Endpoint(_WILDCARD[families[0]], port)
        return 0
    _check_name(name)
    literal = _literal(name, port)
    if literal is not None:
        if literal.family not in families:
            raise failure(errno.ENODEV, f"{name!r} is not of the family that was asked for")
        addr.endpoint = literal
        return 0
    for family in families:
        found = _interface_address(name, family)
        if found is not None:
            addr.endpoint = Endpoint(found[0], port, found[1])
            return 0
    raise failure(errno.ENODEV, f"no interface {name!r} with an address of that family")


if sys.platform == "linux":

    def _interface_address(name: str, family: int) -> tuple[str, int] | None:
        """Return the first address of an interface, and its scope."""
        return _interface_ipv4(name) if family == socket.AF_INET else _interface_ipv6(name)

    def _interface_ipv4(name: str) -> tuple[str, int] | None:
        import fcntl

        raw = name.encode()
        if not raw or len(raw) >= _IFNAMSIZ or b"\0" in raw:
            return None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                # struct ifreq: the name, and a struct sockaddr_in, whose address follows family and port.
                reply = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, raw.ljust(40, b"\0"))
            except OSError:
                return None
        return socket.inet_ntoa(struct.unpack_from("4s", reply, _IFNAMSIZ + 4)[0]), 0

    def _interface_ipv6(name: str) -> tuple[str, int] | None:
        found: list[tuple[int, str, int]] = []
        try:
            with open(_INET6_TABLE, encoding="ascii", errors="surrogateescape") as table:
                for line in table:
                    digits, index, _, scope, _, device = line.split()
                    if device == name:
                        kind = int(scope, 16)
                        zone = int(index, 16) if kind == _LINK_SCOPE else 0
                        address = str(ipaddress.IPv6Address(int(digits, 16)))
                        found.append((_SCOPE_ORDER.get(kind, len(_SCOPE_ORDER)), address, zone))
        except FileNotFoundError:  # this kernel has no IPv6
            return None
        if not found:
            return None
        _, address, zone = min(found, key=lambda item: item[0])
        return address, zone

else:

    def _interface_address(name: str, family: int) -> tuple[str, int] | None:  # noqa: ARG001
        return None


# ---------------------------------------------------------------------- remote


async def ipaddr_remote(addr: ipaddr, name: str, port: int, mode: int, deadline: int) -> int:
    """Find one address of a name.

    With a preference for a family the other is looked up at the same time, and its address is taken when the
    preferred one has none, fails, or has not answered by the deadline.

    Args:
      addr: where to write it.
      name: a numeric address, or a name for the run's resolver.
      port: 0 to 65535.
      mode: 0 or one of the `IPADDR_` modes.
      deadline: milliseconds on the clock of `now()`; -1 for none. A numeric address needs no time.

    Returns:
      0.

    Raises:
      DeadlineExceeded: ETIMEDOUT, no answer came in time.
      OSError: EADDRNOTAVAIL, the name has no such address, or could not be looked up (then the resolver's error is
        the `__cause__`); EINVAL, the port, the mode, the name or the deadline is none, or `addr` is None.
      TypeError: an argument has the wrong type.

    libdill: ipaddr_remote(3).
    """
    check_ipaddr(addr)
    found = await _find(name, port, mode, deadline, 1)
    if not found:
        raise failure(errno.EADDRNOTAVAIL, f"{name!r} has no address of that family")
    addr.endpoint = found[0]
    return 0


async def ipaddr_remotes(addrs: Sequence[ipaddr], n: int, name: str, port: int, mode: int, deadline: int) -> int:
    """Find up to `n` addresses of a name, those of the preferred family first.

    Both families are looked up at the same time, and what one fails with does not spoil the other's answer.

    Args:
      addrs: at least `n` objects to write to, such as ``[ipaddr() for _ in range(n)]``.
      n: at most so many.
      name: a numeric address, or a name for the run's resolver.
      port: 0 to 65535.
      mode: 0 or one of the `IPADDR_` modes.
      deadline: milliseconds on the clock of `now()`; -1 for none. A numeric address needs no time.

    Returns:
      How many were written; 0 when there is no such address.

    Raises:
      DeadlineExceeded: ETIMEDOUT, no address came in time.
      OSError: EADDRNOTAVAIL, no address came and a lookup failed; EINVAL, the port, the mode, the name or the deadline
        is none, `addrs` is None, or `n` is below 1 or above the length of `addrs`.
      TypeError: an argument has the wrong type.

    libdill: ipaddr_remotes(3).
    """
    check_not_null(addrs, "addrs")
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an int, got {n!r}")
    if not 1 <= n <= len(addrs):
        raise failure(errno.EINVAL, f"n must be between 1 and the {len(addrs)} addresses that there are, got {n}")
    for addr in addrs[:n]:
        check_ipaddr(addr)
    found = await _find(name, port, mode, deadline, n)
    for addr, endpoint in zip(addrs, found, strict=False):
        addr.endpoint = endpoint
    return len(found)


async def _find(name: str, port: int, mode: int, deadline: int, n: int) -> list[Endpoint]:
    check_deadline(deadline)
    _check_port(port)
    families = _check_mode(mode)
    check_not_null(name, "the name")
    _check_name(name)
    if "\0" in name:
        raise failure(errno.EINVAL, f"a name has no NUL in it, got {name!r}")
    literal = _literal(name, port)
    if literal is not None:
        await checkpoint()
        return [literal] if literal.family in families else []
    lookup = _Lookup(name, port, families, n)
    return await lookup.run(to_seconds(deadline))


@final
class _Lookup:
    """One name, one question per family, all at the same time."""

    def __init__(self, name: str, port: int, families: tuple[int, ...], n: int) -> None:
        self.name, self.port, self.families, self.n = name, port, families, n
        self.answers: dict[int, list[Endpoint]] = {}
        self.errors: list[Exception] = []

    async def run(self, until: float) -> list[Endpoint]:
        started = current_time()
        async with trio.open_nursery() as nursery:
            for family in self.families:
                nursery.start_soon(self._ask, family, until, nursery.cancel_scope)
        found = [endpoint for family in self.families for endpoint in self.answers.get(family, ())]
        if found:
            return found[: self.n]
        for error in self.errors:
            if isinstance(error, Expired):
                raise DeadlineExceeded.during(f"looking up {self.name!r}", current_time() - started, until)
            if not isinstance(error, OSError):
                raise error
            raise failure(errno.EADDRNOTAVAIL, f"looking up {self.name!r} failed: {error}") from error
        return []

    async def _ask(self, family: int, until: float, scope: trio.CancelScope) -> None:
        try:
            answer = await within(until, _getaddrinfo, self.name, self.port, family)
        except socket.gaierror as exc:
            if exc.errno not in _NEGATIVE:
                self.errors.append(exc)
        except UnicodeError:
            pass  # what cannot be written in the DNS has no address
        except Exception as exc:  # noqa: BLE001 - raised outside of the nursery, so that it is not wrapped in a group
            self.errors.append(exc)
        else:
            self.answers[family] = _endpoints(answer, family)
            if family == self.families[0] and len(self.answers[family]) >= self.n:
                scope.cancel()


async def _getaddrinfo(name: str, port: int, family: int) -> Iterable[Any]:
    return await trio.socket.getaddrinfo(name, port, family=family, type=socket.SOCK_STREAM)


def _endpoints(answer: Iterable[Any], family: int) -> list[Endpoint]:
    # A custom resolver may answer with more than it was asked for.
    return list(dict.fromkeys(as_endpoint(tuple(item[4])) for item in answer if item[0] == family))


# ---------------------------------------------------------------------- arguments


def _check_port(port: object) -> None:
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"a port is an int, got {port!r}")
    if not 0 <= port <= 0xFFFF:
        raise failure(errno.EINVAL, f"a port is 0 to 65535, got {port}")


def _check_mode(mode: object) -> tuple[int, ...]:
    if isinstance(mode, bool) or not isinstance(mode, int):
        raise TypeError(f"a mode is an int, got {mode!r}")
    families = _FAMILIES.get(mode)
    if families is None:
        raise failure(errno.EINVAL, f"a mode is 0 or one of IPADDR_IPV4 to IPADDR_PREF_IPV6, got {mode}")
    return families


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise TypeError(f"a name is a str, got {name!r}")


def _literal(name: str, port: int) -> Endpoint | None:
    try:
        return Endpoint(name, port)
    except ValueError:
        return None
