"""For which of the caller's names each endpoint is tried."""

from __future__ import annotations

from collections.abc import Mapping
from socket import AF_UNSPEC
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

import attrs

if TYPE_CHECKING:
    from .._endpoint import Endpoint
    from .._report import Attempt

_NOTHING: Final[Mapping[Endpoint, Endpoint]] = MappingProxyType({})


@final
class HostOfEndpoint:
    """For which name each endpoint is tried: TLS verifies it, and the report has it.

    Of several names with one endpoint the first counts. That one may answer last, so the name of an endpoint can change
    until an attempt on it begins.
    """

    __slots__ = ("_begun", "_found", "_only", "carried")

    def __init__(self, only: str | None = None) -> None:
        """Make one of a call.

        Args:
          only: the one name that there is, so that nothing has to be learned; None for several hosts.
        """
        self._only = only
        self.carried: Mapping[Endpoint, Endpoint] = _NOTHING
        """The IPv4 endpoint that is reached through a NAT64, of each that is connected to in its place."""
        self._found: Mapping[Endpoint, str | None] = {}
        self._begun: dict[Endpoint, str | None] = {}

    def __call__(self, endpoint: Endpoint) -> str | None:
        """Return the name of an endpoint; None where the caller gave the address itself."""
        if endpoint.family == AF_UNSPEC:
            return endpoint.host  # a name, which a proxy looks up
        if self._only is not None:
            return self._only
        name = self._begun[endpoint] if endpoint in self._begun else self._found.get(endpoint)
        # The peer of a translated address knows itself by that which the caller gave.
        return self.carried[endpoint].host if name is None and endpoint in self.carried else name

    def ipv4_of(self, endpoint: Endpoint) -> str | None:
        """Return the IPv4 address that an endpoint carries to a NAT64."""
        return self.carried[endpoint].host if endpoint in self.carried else None

    def found(self, hosts: Mapping[Endpoint, str | None]) -> None:
        """Learn of which name each endpoint is by now.

        Args:
          hosts: of all endpoints that are known.
        """
        self._found = hosts

    def begin(self, endpoint: Endpoint) -> None:
        """Learn that an attempt on an endpoint begins."""
        if self._only is None:
            self._begun.setdefault(endpoint, self._found.get(endpoint))


def with_hosts(attempts: tuple[Attempt, ...], host_of: HostOfEndpoint | None) -> tuple[Attempt, ...]:
    """Return the rows of a report with the name that each was tried for, and what it carries to a NAT64.

    Args:
      attempts: as the race has them: it knows of endpoints only.
      host_of: None without names.
    """
    if host_of is None:
        return attempts
    return tuple(
        attrs.evolve(attempt, host=host_of(attempt.endpoint), nat64=host_of.ipv4_of(attempt.endpoint))
        for attempt in attempts
    )
