"""A name and a port where an endpoint is expected, for connects through a proxy that looks names up itself."""

from __future__ import annotations

from collections.abc import Iterable
from socket import AF_UNSPEC
from typing import Any

import attrs

from ._endpoint import Endpoint

__all__ = ["UnresolvedEndpoint"]


def _without_sockaddr(_cls: type, fields: Iterable[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Leave out the field that is never set, for `attrs.asdict` and its like, which read each."""
    return [field for field in fields if field.name != "sockaddr"]


@attrs.frozen(init=False, repr=False, field_transformer=_without_sockaddr)
class UnresolvedEndpoint(Endpoint):
    """Where a connect through a proxy goes when the proxy looks the name up.

    In reports, events and as the `peer` of a stream it stands where the numeric address would, which only the proxy
    knows. Its `host` is the name, its `family` is `socket.AF_UNSPEC`, and it has no `sockaddr`.
    """

    def __init__(self, host: str, port: int) -> None:
        for name, value in (("host", host), ("port", port), ("scope_id", 0), ("flowinfo", 0), ("family", AF_UNSPEC)):
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"UnresolvedEndpoint({self.host!r}, {self.port})"

    def __reduce__(self) -> tuple[type[Endpoint], tuple[str | int, ...]]:
        return UnresolvedEndpoint, (self.host, self.port)
