"""What a resolver is: whom a call asks for addresses."""

from __future__ import annotations

from socket import AddressFamily
from typing import Protocol, runtime_checkable

from .._answer import Answer
from .._text import shown

__all__ = ["Resolver", "check_resolver"]


@runtime_checkable
class Resolver(Protocol):
    """Finds the addresses of a host. Any object with this method will do."""

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        """Return the addresses of one family; called once per family, side by side, for hosts that are no addresses.

        One of the two calls is made in the task that connects, the other in a task of its own.

        Args:
          host: as the user gave it, a possible name; not encoded, perhaps with a trailing dot.
          family: `socket.AF_INET6` or `socket.AF_INET`.

        Returns:
          The answer, without addresses when the host has no address of the family. The caller drops other families.

        Raises:
          OSError: the resolver could not find out. It fails this lookup only. Any other exception ends the whole
            connect and is raised from there as it is.
        """
        ...


def check_resolver(resolver: object) -> None:
    """Refuse what is no resolver."""
    # What isinstance would ask of a protocol, at a tenth of the cost.
    if resolver is not None and (getattr(resolver, "addresses", None) is None or isinstance(resolver, type)):
        raise TypeError(f"resolver must have an async method addresses(host, family), got {shown(resolver)}")
