"""The first address of a network interface: what `ipaddr_local` makes of its name."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from typing import Final

_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h, netdevice(7)
_IFNAMSIZ: Final = 16
_IFREQ: Final = 40  # sizeof(struct ifreq) where pointers have 8 bytes
_INET6_TABLE: Final = "/proc/net/if_inet6"
# The scope column of that table (net/ipv6.h): global, site, link, host. The kernel lists an interface's addresses in
# this order, the table does not.
_SCOPE_ORDER: Final = {0x00: 0, 0x40: 1, 0x20: 2, 0x10: 3}
_LINK_SCOPE: Final = 0x20


if sys.platform == "linux":

    def interface_address(name: str, family: int) -> tuple[str, int] | None:
        """Return the first address of an interface, and its scope; None for an interface without addresses."""
        return _interface_ipv4(name) if family == socket.AF_INET else _interface_ipv6(name)

    def _interface_ipv4(name: str) -> tuple[str, int] | None:
        import fcntl

        raw = name.encode(errors="replace")  # what cannot be encoded names no interface
        if not raw or len(raw) >= _IFNAMSIZ or b"\0" in raw:
            return None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                # struct ifreq: the name, and a struct sockaddr_in, whose address follows family and port.
                reply = fcntl.ioctl(sock.fileno(), _SIOCGIFADDR, raw.ljust(_IFREQ, b"\0"))
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

    def interface_address(name: str, family: int) -> tuple[str, int] | None:  # noqa: ARG001
        return None
