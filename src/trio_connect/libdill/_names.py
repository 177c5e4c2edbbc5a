"""`ipaddr_remote` and `ipaddr_remotes`: from names to addresses."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import trio
from trio import current_time
from trio.lowlevel import checkpoint

from .._check import check_int
from .._deadline import to_seconds
from .._endpoint import Endpoint
from .._messages import call_exceeded
from .._net.names.resolve import check_host, numeric
from .._net.names.system import SYSTEM_RESOLVER, SystemLookup
from .._net.sockets.waiting import Expired, within
from .._text import printable, shown
from ._addresses import check_ipaddr, check_mode, check_name, check_port, ipaddr, literal
from ._failures import check_deadline, check_not_null, failure

if TYPE_CHECKING:
    from socket import AddressFamily


async def ipaddr_remote(addr: ipaddr, name: str, port: int, mode: int, deadline: int) -> int:
    """Find one address of a name.

    With a preference for a family the other is looked up at the same time, and its address is taken when the
    preferred one has none, fails, or has not answered by the deadline.

    Args:
      addr: where to write it.
      name: a numeric address, or a name for the system's resolver, or for the hostname resolver installed in this run.
      port: 0 to 65535.
      mode: 0 or one of the `IPADDR_` modes.
      deadline: milliseconds on the clock of `now()`; -1 for none. A numeric address needs no time.

    Returns:
      0.

    Raises:
      DeadlineExceeded: ETIMEDOUT, no answer came in time.
      OSError: EADDRNOTAVAIL, the name has no such address, cannot be a name, or could not be looked up (then the
        resolver's error is the `__cause__`); EINVAL, the port, the mode, the name or the deadline is invalid, or `addr`
        is None.
      TypeError: an argument has the wrong type.

    libdill: ipaddr_remote(3).
    """
    check_ipaddr(addr)
    found = await _find(name, port, mode, deadline, 1)
    if not found:
        raise failure(errno.EADDRNOTAVAIL, f"{shown(name)} has no address of that family")
    addr.endpoint = found[0]
    return 0


async def ipaddr_remotes(addrs: Sequence[ipaddr], n: int, name: str, port: int, mode: int, deadline: int) -> int:
    """Find up to `n` addresses of a name, those of the preferred family first.

    Both families are looked up at the same time. The failure of one does not affect the other's answer.

    Args:
      addrs: at least `n` objects to write to, such as ``[ipaddr() for _ in range(n)]``.
      n: how many to find at most.
      name: a numeric address, or a name for the system's resolver, or for the hostname resolver installed in this run.
      port: 0 to 65535.
      mode: 0 or one of the `IPADDR_` modes.
      deadline: milliseconds on the clock of `now()`; -1 for none. A numeric address needs no time.

    Returns:
      How many were written; 0 when there is no such address, also where the text cannot be a name.

    Raises:
      DeadlineExceeded: ETIMEDOUT, no address came in time.
      OSError: EADDRNOTAVAIL, no address came and a lookup failed; EINVAL, the port, the mode, the name or the deadline
        is invalid, `addrs` is None, or `n` is below 1 or above the length of `addrs`.
      TypeError: an argument has the wrong type.

    libdill: ipaddr_remotes(3).
    """
    check_not_null(addrs, "addrs")
    if not isinstance(addrs, Sequence):
        raise TypeError(f"addrs must be a sequence of ipaddr, got {shown(addrs)}")
    check_int(n, "n")
    if not 1 <= n <= len(addrs):
        raise failure(errno.EINVAL, f"n must be between 1 and the {len(addrs)} addresses that there are, got {n}")
    for addr in addrs[:n]:
        check_ipaddr(addr)
    found = await _find(name, port, mode, deadline, n)
    for addr, endpoint in zip(addrs, found, strict=False):
        addr.endpoint = endpoint
    return len(found)


async def _find(name: str, port: int, mode: int, deadline: int, n: int) -> list[Endpoint]:
    deadline = check_deadline(deadline)
    check_port(port)
    families = check_mode(mode)
    check_not_null(name, "the name")
    check_name(name)
    if "\0" in name:
        # A C string ends there, so libdill never sees such a name: a bad argument, not an unknown host.
        raise failure(errno.EINVAL, f"a name has no NUL in it, got {shown(name)}")
    known = literal(name, port)
    if known is not None:
        await checkpoint()
        return [known] if known.family in families else []
    if not _may_be_a_name(name):
        await checkpoint()
        return []
    lookup = _Lookup(name, port, families, n)
    return await lookup.run(to_seconds(deadline))


def _may_be_a_name(text: str) -> bool:
    try:
        check_host(text)
    except ValueError:
        return False
    return numeric(text) is None  # it may be an address whose zone does not exist


@final
class _Lookup:
    """One name, one question per family, all at the same time."""

    def __init__(self, name: str, port: int, families: tuple[AddressFamily, ...], n: int) -> None:
        self.name, self.port, self.families, self.n = name, port, families, n
        self._lookup = SystemLookup(SYSTEM_RESOLVER, name)
        self.answers: dict[AddressFamily, tuple[str, ...]] = {}
        self.errors: list[Exception] = []

    async def run(self, until: float) -> list[Endpoint]:
        started = current_time()
        async with trio.open_nursery() as nursery:
            for family in self.families:
                nursery.start_soon(self._ask, family, until, nursery.cancel_scope)
        found = [address for family in self.families for address in self.answers.get(family, ())]
        if found:
            return [Endpoint(address, self.port) for address in found[: self.n]]
        for error in self.errors:
            if isinstance(error, Expired):
                raise call_exceeded(f"looking up {shown(self.name)}", current_time() - started)
            if not isinstance(error, OSError):
                raise error
            raise failure(
                errno.EADDRNOTAVAIL, f"looking up {shown(self.name)} failed: {printable(str(error))}"
            ) from error
        return []

    async def _ask(self, family: AddressFamily, until: float, scope: trio.CancelScope) -> None:
        try:
            answer = await within(until, self._lookup.addresses, family)
        except Exception as exc:  # noqa: BLE001 - raised outside of the nursery, so that it is not wrapped in a group
            self.errors.append(exc)
        else:
            self.answers[family] = answer.addresses
            if family == self.families[0] and len(answer.addresses) >= self.n:
                scope.cancel()
