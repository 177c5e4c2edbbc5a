"""Where to connect to, and from where: values without names, clocks or sockets.

An `Endpoint` is always numeric. Keeping names out of it is what lets every layer below
`connect` promise that no lookup, thread or cache hides in a connect.
"""

from __future__ import annotations

import ipaddress
from socket import AF_INET, AF_INET6, AddressFamily
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from ._check import check_range
from ._repr import changed_repr
from ._text import shown

if TYPE_CHECKING:
    from ._proxy import Proxy

__all__ = ["Endpoint", "EndpointLike", "Source", "as_endpoint", "check_connectable"]

SockAddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

MAX_PORT: Final = 0xFFFF
_MAX_WEIGHT: Final = 0xFFFF  # as in RFC 2782
_MAX_FLOWINFO: Final = 0xFFFFF  # RFC 8200 section 3: the flow label has 20 bits
_MAX_SCOPE: Final = 0xFFFFFFFF  # sin6_scope_id is a uint32_t, RFC 3493 section 3.3
# The zone's text is an interface name (RFC 4007 section 11.2); these, and white space, make "host%zone" ambiguous.
_LONGEST_ZONE: Final = 255  # NDIS_IF_MAX_STRING_SIZE less its NUL, on Windows; IFNAMSIZ is 16 elsewhere (netdevice(7))
_BAD_IN_ZONE: Final = frozenset("%/[]\x00")


def _is_bad_zone(text: str) -> bool:
    # Not a pattern: most programs have no zone, and the import would pay for compiling it.
    return (
        not 0 < len(text) <= _LONGEST_ZONE
        or not text.isprintable()
        or any(char in _BAD_IN_ZONE or char.isspace() for char in text)
    )


def _digits(text: str) -> int:
    """Return what decimal digits mean, or something as much out of range: int() refuses more than 4,300 of them."""
    return int(text.lstrip("0")[:20] or "0")


def check_port(value: object) -> int:
    """Return a port number, or say what is wrong with it."""
    return int(check_range(value, "port", 0, MAX_PORT))


_NAMES: Final = "to connect to a name use trio_connect.connect(), to look one up use trio_connect.resolve()"


def _parse_host(host: object, what: str, advice: str = _NAMES) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if not isinstance(host, str):
        raise TypeError(f"{what} must be a str with a numeric IP address, got {shown(host)}")
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        no_host = "" if host else "no host: "
        raise ValueError(
            f"{no_host}{what} must be a numeric IPv4 or IPv6 address such as '192.0.2.1' or '2001:db8::1', "
            f"got {shown(host)}; {advice}"
        ) from None


def _check_scope(scope: object) -> int | str:
    if isinstance(scope, str):
        if _is_bad_zone(scope):
            raise ValueError(f"scope_id must be an interface index or the name of an interface, got {shown(scope)}")
        # getaddrinfo(3) takes "%2" for the index 2; the two spellings must be equal here too.
        return check_range(_digits(scope), "scope_id", 0, _MAX_SCOPE) if scope.isascii() and scope.isdigit() else scope
    return int(check_range(scope, "scope_id", 0, _MAX_SCOPE))


@attrs.frozen(init=False, repr=False)
class Endpoint:
    """One numeric address to connect to or listen on.

    The text is normalised, so two spellings of one address are equal.

    Args:
      host: a numeric IPv4 or IPv6 address; an IPv6 address may carry its zone (``fe80::1%eth0``).
      port: 0 to 65535. Connecting to port 0 is refused later, listening on it asks for any free port.
      scope_id: the IPv6 zone, an interface index or name. A name stays text in the value and is turned
        into an index when a socket is made.
      flowinfo: the IPv6 flow label, 0 to 0xFFFFF.

    Attributes:
      family: `socket.AF_INET` or `socket.AF_INET6`.
      sockaddr: the address as the `socket` module takes it. A zone name is written into the host (``fe80::1%eth0``).

    Raises:
      TypeError: an argument has the wrong type; a bool is not a port.
      ValueError: the host is a name or malformed, a number is out of range, or an IPv4 address was given a
        scope or flow label. A name belongs to `trio_connect.connect`.
    """

    host: str
    port: int
    scope_id: int | str
    flowinfo: int
    family: AddressFamily = attrs.field(init=False, eq=False)
    sockaddr: SockAddr = attrs.field(init=False, eq=False)

    # Written by hand, without attrs' generated one, because a host carries its zone and the derived fields
    # are what the fast path reads: they are computed once, here.
    def __init__(self, host: str, port: int, scope_id: int | str = 0, flowinfo: int = 0) -> None:
        address = _parse_host(host, "host")
        port = check_port(port)
        # Nearly every address has neither, and whoever connects to a name makes an endpoint of each answer.
        scope = 0 if scope_id.__class__ is int and not scope_id else _check_scope(scope_id)
        if flowinfo.__class__ is not int or flowinfo:
            flowinfo = int(check_range(flowinfo, "flowinfo", 0, _MAX_FLOWINFO))
        sockaddr: SockAddr
        if isinstance(address, ipaddress.IPv4Address):
            if scope or flowinfo:
                raise ValueError(f"scope_id and flowinfo belong to IPv6, got them with {host!r}")
            text = str(address)
            family = AF_INET
            sockaddr = (text, port)
        else:
            if address.scope_id is not None:
                zone = _check_scope(address.scope_id)
                if scope not in (0, zone):
                    raise ValueError(f"host {host!r} and scope_id {scope_id!r} name different zones")
                scope = zone
                address = ipaddress.IPv6Address(int(address))
            # As RFC 5952 section 5 recommends, and as Python prints it from 3.13 on.
            mapped = address.ipv4_mapped
            text = str(address) if mapped is None else f"::ffff:{mapped}"
            family = AF_INET6
            sockaddr = (
                (f"{text}%{scope}", port, flowinfo, 0) if isinstance(scope, str) else (text, port, flowinfo, scope)
            )
        for name, value in (
            ("host", text), ("port", port), ("scope_id", scope), ("flowinfo", flowinfo),
            ("family", family), ("sockaddr", sockaddr),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    # What makes endpoints differ is all in there. A race hashes each of them several times.
    def __hash__(self) -> int:
        return hash(self.sockaddr)

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read an endpoint from ``192.0.2.1:443`` or ``[2001:db8::1%eth0]:443``.

        Args:
          text: the address and the port; IPv6 addresses stand in brackets (RFC 3986 section 3.2.2).

        Returns:
          The endpoint.

        Raises:
          TypeError: `text` is not a str.
          ValueError: there is no port, the brackets are missing, or the host is not numeric.
        """
        if not isinstance(text, str):
            raise TypeError(f"an endpoint is parsed from a str, got {shown(text)}")
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not (port.isascii() and port.isdigit()) or (":" in host) != bracketed:
            raise ValueError(f"an endpoint is written '192.0.2.1:443' or '[2001:db8::1]:443', got {shown(text)}")
        return cls(host[1:-1] if bracketed else host, _digits(port))

    def __str__(self) -> str:
        host = f"{self.host}%{self.scope_id}" if self.scope_id else self.host
        return f"{host}:{self.port}" if self.family == AF_INET else f"[{host}]:{self.port}"

    def __repr__(self) -> str:
        extra = f", flowinfo={self.flowinfo}" if self.flowinfo else ""
        scope = f", {self.scope_id!r}" if self.scope_id else ""
        return f"Endpoint({self.host!r}, {self.port}{scope}{extra})"

    def __reduce__(self) -> tuple[type[Endpoint], tuple[str | int, ...]]:
        return Endpoint, (self.host, self.port, self.scope_id, self.flowinfo)


EndpointLike: TypeAlias = Endpoint | tuple[str, int] | tuple[str, int, int, int]
"""An `Endpoint`, or an address tuple of the `socket` module: (host, port) or (host, port, flowinfo, scope_id)."""


def as_endpoint(value: EndpointLike) -> Endpoint:
    """Return `value` as an `Endpoint`.

    Raises:
      TypeError: neither an Endpoint nor a tuple of two or four.
      ValueError: see `Endpoint`.
    """
    if isinstance(value, Endpoint):
        return value
    if not isinstance(value, tuple):
        raise TypeError(f"an endpoint is an Endpoint or a tuple (host, port), got {shown(value)}; {_advice(value)}")
    if len(value) == 2:
        return Endpoint(value[0], value[1])
    if len(value) == 4:
        # The socket module's order is (host, port, flowinfo, scope_id), the reverse of Endpoint's.
        return Endpoint(value[0], value[1], value[3], value[2])
    raise TypeError(f"an endpoint tuple is (host, port) or (host, port, flowinfo, scope_id), got {shown(value)}")


def _advice(value: object) -> str:
    try:
        ipaddress.ip_address(value if isinstance(value, str) else "")
    except ValueError:
        return "text: Endpoint.parse()"
    # From connectx(("192.0.2.1", 443)) or tcp_connect("192.0.2.1", 443).
    return "host and port are one tuple, and where several endpoints are taken it stands in a list"


def check_connectable(endpoint: Endpoint) -> None:
    """Refuse port 0: Linux would answer "connection refused" for it, which blames a peer."""
    if endpoint.port == 0:
        raise ValueError(f"cannot connect to port 0 of {endpoint.host}: a port is 1 to 65535")


def _source_host(value: str | None, version: int) -> str | None:
    if value is None:
        return None
    address = _parse_host(value, f"the IPv{version} source address", "an interface is interface=")
    if address.version != version:
        raise ValueError(f"the IPv{version} source address must be IPv{version}, got {shown(value)}")
    return str(address)


def _ipv4_host(value: str | None) -> str | None:
    return _source_host(value, 4)


def _ipv6_host(value: str | None) -> str | None:
    return _source_host(value, 6)


def _interface_name(value: str | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"interface must be a str, got {shown(value)}")
    # IFNAMSIZ is 16 with the closing NUL, netdevice(7).
    if len(value.encode(errors="replace")) > 15 or not value.isprintable() or _is_bad_zone(value):
        raise ValueError(f"interface must be the name of an interface (at most 15 bytes), got {shown(value)}")
    return value


def _source_name(value: str | None) -> str | None:
    if value is not None and not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"the name of a source must be a str, got {shown(value)}")
    return value


def _source_weight(value: int) -> int:
    return check_range(value, "the weight of a source", 0, _MAX_WEIGHT)


def _whether_proxy_resolves(value: bool) -> bool:
    if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"proxy_resolves must be a bool, got {shown(value)}")
    return value


def _proxy(value: str | None) -> Proxy | None:
    if value is None:
        return None
    # Most sources have no proxy.
    from ._proxy import parse_proxy

    return parse_proxy(value)


@attrs.frozen(repr=False)
class Source:
    """A local identity to connect from: an address per family, an interface, a port, perhaps a proxy.

    With addresses of one family only, the other family cannot be used from this source. With none, both can. Through a
    proxy both can in any case: the addresses are then for the connection to the proxy.

    Args:
      ipv4: the numeric IPv4 address to bind to, or None to let the kernel choose.
      ipv6: the numeric IPv6 address to bind to (may carry a zone), or None.
      interface: the interface to send through (SO_BINDTODEVICE on Linux, socket(7); IP_BOUND_IF on macOS).
      port: the local port, or 0 for any. With 0 and an address the kernel picks the port when it knows the
        destination (IP_BIND_ADDRESS_NO_PORT, ip(7)), so ports do not run out at 28,000 connections.
      proxy: connect through this proxy, such as ``socks5://user:word@proxy.example:1080`` or ``http://[2001:db8::8]:3128``
        (which is sent CONNECT); what cannot stand in a URL is percent-encoded. Needs the extra ``socks``. The name of a
        target is looked up here, and its addresses are what the proxy is asked for; with ``socks5h`` the proxy looks
        it up. No text shows the password.
      name: what `trio_connect.outbound` calls this source; None for the text of its addresses.
      weight: how often `trio_connect.outbound` chooses this source, beside the weights of the others. 0 means never
        while another can be used.
      proxy_resolves: whether names are sent to the proxy, which then looks them up: for ``http`` this asks for it, for
        ``socks5h`` it says once more that no `address_filter` here can judge what the proxy finds. Without it a call
        that has both such a proxy and a filter is a ValueError.

    Raises:
      TypeError: an argument has the wrong type.
      ValueError: an address is not numeric or of the wrong family, the port or weight is out of range, the proxy is
        not the URL of one, or `proxy_resolves` is said of no proxy or of one that is not to look names up.
    """

    ipv4: str | None = attrs.field(default=None, converter=_ipv4_host)
    ipv6: str | None = attrs.field(default=None, converter=_ipv6_host)
    interface: str | None = attrs.field(default=None, converter=_interface_name)
    port: int = attrs.field(default=0, converter=check_port)
    proxy: Proxy | None = attrs.field(default=None, converter=_proxy)
    """The proxy to connect through; its text is the URL without the name and the password."""
    name: str | None = attrs.field(default=None, converter=_source_name)
    weight: int = attrs.field(default=1, converter=_source_weight)
    proxy_resolves: bool = attrs.field(default=False, converter=_whether_proxy_resolves)

    __repr__ = changed_repr

    def __attrs_post_init__(self) -> None:
        if self.proxy_resolves and (self.proxy is None or self.proxy.scheme == "socks5"):
            what = "a source without a proxy" if self.proxy is None else "socks5: write socks5h"
            raise ValueError(f"proxy_resolves is for a proxy that looks names up, and cannot be said of {what}")

    def serves(self, family: AddressFamily) -> bool:
        """Say whether connections of this family can start here.

        Args:
          family: `socket.AF_INET` or `socket.AF_INET6`.

        Returns:
          True unless this source has addresses, but none of the family, and no proxy.
        """
        return self.proxy is not None or (self.ipv4 is None and self.ipv6 is None) or self.address(family) is not None

    def address(self, family: AddressFamily) -> str | None:
        """Return the address to bind to for this family, or None to leave it to the kernel.

        With a proxy it is bound when the connection to the proxy is of this family.

        Args:
          family: `socket.AF_INET` or `socket.AF_INET6`.

        Returns:
          A numeric address, or None.
        """
        return self.ipv4 if family == AF_INET else self.ipv6

    def check(self, endpoint: Endpoint) -> None:
        """Refuse an endpoint that cannot be reached from here.

        Args:
          endpoint: where a connection would go.

        Raises:
          ValueError: this source has addresses, but none of the endpoint's family; or a proxy, which knows nothing of
            the zones of this machine that the endpoint names.
        """
        if not self.serves(endpoint.family):
            raise ValueError(f"source {self} has no address of the family of {endpoint}")
        if not reaches(self, endpoint):
            raise ValueError(f"source {self} cannot reach {endpoint}: a proxy knows nothing of this machine's zones")

    def describe(self, family: AddressFamily) -> str:
        """Return the text of this source for messages about one family.

        Args:
          family: `socket.AF_INET` or `socket.AF_INET6`.

        Returns:
          The address, the interface, the port and the proxy, as far as there are any; else "any address".
        """
        return self._described(self.address(family))

    def __str__(self) -> str:
        return self._described(self.ipv4, self.ipv6)

    def _described(self, *addresses: str | None) -> str:
        parts = [text for text in addresses if text is not None]
        if self.port:
            parts.append(f"port {self.port}")
        if self.interface is not None:
            parts.append(f"interface {self.interface}")
        if self.proxy is not None:
            parts.append(f"proxy {self.proxy}")
        return ", ".join(parts) or "any"


def sends_names(source: Source) -> bool:
    """Say whether the name of a target goes to the proxy of a source, and is not looked up here."""
    return source.proxy is not None and (source.proxy.scheme == "socks5h" or source.proxy_resolves)


def reaches(source: Source, endpoint: Endpoint) -> bool:
    """Say whether a connection from a source can go to an endpoint."""
    return source.serves(endpoint.family) and (source.proxy is None or not endpoint.scope_id)
