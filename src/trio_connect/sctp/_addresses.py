"""Which addresses of one peer, or of this machine, an association may have, and which of them has refused."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._endpoint import Endpoint


def distinct(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Return endpoints without those that name an address again.

    An IPv4 address and its IPv4-mapped IPv6 form are one to the kernel, which says EADDRNOTAVAIL for a list that has
    an address twice.
    """
    found: dict[tuple[str, int | str], Endpoint] = {}
    for endpoint in endpoints:
        found.setdefault(_identity(endpoint), endpoint)
    return tuple(found.values())


def is_same_address(one: Endpoint, other: Endpoint) -> bool:
    """Say whether two endpoints are one address to the kernel, whatever their ports."""
    return _identity(one) == _identity(other)


def _identity(endpoint: Endpoint) -> tuple[str, int | str]:
    return endpoint.host.removeprefix("::ffff:") if "." in endpoint.host else endpoint.host, endpoint.scope_id


def one_port(endpoints: Iterable[Endpoint]) -> int:
    """Return the port that all endpoints have: an association has one at each end, RFC 9260 section 1.3.

    Raises:
      ValueError: they have several.
    """
    ports = sorted({endpoint.port for endpoint in endpoints})
    if len(ports) != 1:
        raise ValueError(f"the addresses of one SCTP peer have one port, got {', '.join(map(str, ports))}")
    return ports[0]


def refuser(endpoints: tuple[Endpoint, ...], elapsed: float, delay: float) -> int:
    """Return which of the addresses has most likely refused.

    One ABORT ends the kernel's whole attempt, and the kernel does not say whose it was. INIT goes to one address
    after the other, `delay` apart, so it was most likely the one whose turn it was.

    Args:
      endpoints: in the order in which they are tried; at least one.
      elapsed: seconds since the first INIT.
      delay: seconds from one INIT to the next, above 0.
    """
    return int(elapsed / delay) % len(endpoints)


def is_refusal(code: int) -> bool:
    """Say whether an errno is one address's own: an ABORT, or the ICMP error of a host without SCTP.

    Then the other addresses are worth another try.
    """
    return code in (errno.ECONNREFUSED, errno.ENOPROTOOPT)
