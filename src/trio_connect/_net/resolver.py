"""What a resolver is: whom a call asks for addresses. And what it raises."""

from __future__ import annotations

from socket import AddressFamily
from typing import Protocol, runtime_checkable

from trio import Cancelled

from .._answer import Answer
from .._messages import first_leaf
from .._text import shown

__all__ = ["Resolver", "check_resolver", "failure_in", "without_frames"]


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
          OSError: the resolver could not find out. It fails this lookup only, and so does a group of nothing but such
            errors. Any other exception ends the whole connect and is raised from there as it is.
        """
        ...


def check_resolver(resolver: object) -> None:
    """Refuse what is no resolver."""
    # What isinstance would ask of a protocol, at a tenth of the cost.
    if resolver is not None and (getattr(resolver, "addresses", None) is None or isinstance(resolver, type)):
        raise TypeError(f"resolver must have an async method addresses(host, family), got {shown(resolver)}")


def without_frames(error: OSError) -> OSError:
    """Return an error for a record, without its traceback."""
    # A report lives as long as its stream, and the frames of a traceback would live as long as the report.
    link: BaseException | None = error
    while link is not None and link.__traceback__ is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def failure_in(group: BaseExceptionGroup[BaseException]) -> OSError | None:
    """Return the error that a group of a resolver's stands for; None where there is something else in it.

    A resolver that asks several servers from a nursery raises a group: of nothing but such errors it is one, and what
    else is in it when the question was cancelled is the cancellation.
    """
    rest = group.split(Cancelled)[1]
    leaf = None if rest is None else first_leaf(rest)
    if rest is None or not isinstance(leaf, OSError) or rest.split(OSError)[1] is not None:
        return None
    return without_frames(leaf)
