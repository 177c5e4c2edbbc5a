"""`Nat64`: what a program knows of the NAT64 of its network, and how it finds out.

Only a call that is given one uses it. Rejected: a default of the whole program, for three reasons.

- What was discovered has to be remembered, by somebody whom the caller can ask and clear: a machine changes networks.
- The answer of a name server, which nobody signs, decides where packets for IPv4 go (RFC 7050 section 7). Whoever uses
  NAT64 has a network whose name servers it trusts; whoever does not should not have to.
- A connect that has no route fails at once. It would fail after a lookup, on every machine that has IPv6 alone and no
  NAT64.

The Router Advertisement option of RFC 8781 is not read: no portable call shows it to a program.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv6Network
from typing import TYPE_CHECKING, Final, final

import attrs
from trio import current_time
from trio.lowlevel import ParkingLot, RunVar

from .._answer import Answer
from .._engine.nat64 import find_prefixes
from .._filter import nat64_prefixes_of
from .._text import shown
from .resolver import check_resolver, failure_in

if TYPE_CHECKING:
    from .._filter import NetworkLike
    from .resolver import Resolver

__all__ = ["Nat64", "check_nat64"]

_TTL_UNTOLD: Final = 600.0
"""RFC 6147 section 5.1.7: a DNS64 that has no better ttl gives the lesser of "the TTL of the original A RR and 600"."""
_LONGEST: Final = 86400.0  # as for other answers, see `DnsResolver`
_NOTHING: Final = 10.0  # a machine may come into a network that has a NAT64
_FAILED: Final = 1.0
"""RFC 9520 section 3.2: "Resolvers MUST cache resolution failures for at least 1 second"."""


@attrs.frozen
class _Outcome:
    """What came of one question."""

    found: Answer | OSError
    prefixes: tuple[IPv6Network, ...]
    at: float
    expires: float


@attrs.define(eq=False)
class _Memory:
    """That of one run of Trio: the clock of another starts elsewhere."""

    latest: _Outcome | None = None
    is_asking: bool = False
    lot: ParkingLot = attrs.field(factory=ParkingLot)


@final
class Nat64:
    """The NAT64 of the network that a program runs in, for `nat64=` of `connect`, `connectx` and `resolve`.

    An IPv4 address to which this machine has no route is then reached through it: the literal 192.0.2.1, and a name
    that has IPv4 addresses only, without a DNS64 too. Where there is a route to IPv4 it is used.

    It remembers what it has found for as long as the answer says, so pass the same one to each call. An answer without
    a ttl counts for ten minutes, that there is no NAT64 for ten seconds, a failure for a second. What it has found is
    of one run of Trio.

    Args:
      prefixes: those of the network, the best first, such as ``["64:ff9b::/96"]``: nobody is asked. None for those
        that the AAAA records of ipv4only.arpa have, which are asked for when a call needs them: it has an IPv4 address,
        no route to it, and a route to IPv6.
      resolver: whom to ask. None for the system, whose name servers are those of the network; it need not be the
        resolver that names are asked of.

    Raises:
      TypeError: an argument has the wrong type.
      ValueError: a prefix has no length of RFC 6052 section 2.2 (32, 40, 48, 56, 64, 96), prefixes is empty, or both
        prefixes and a resolver are given.

    See RFC 6052 for the addresses, RFC 7050 for the question.
    """

    __slots__ = ("_given", "_memories", "_resolver")

    def __init__(self, prefixes: Iterable[NetworkLike] | None = None, *, resolver: Resolver | None = None) -> None:
        check_resolver(resolver)
        self._given = None if prefixes is None else nat64_prefixes_of(prefixes, "prefixes")
        if self._given is not None and not self._given:
            raise ValueError("prefixes has at least one, got none: None has them looked up")
        if self._given is not None and resolver is not None:
            raise ValueError("where the prefixes are known nobody is asked: give prefixes or a resolver, not both")
        self._resolver = resolver
        self._memories: RunVar[_Memory] = RunVar("nat64 prefixes")

    @property
    def prefixes(self) -> tuple[IPv6Network, ...]:
        """Those that were given, or were found and have not expired; empty when no prefix was found or needed."""
        if self._given is not None:
            return self._given
        try:
            latest = self._memory().latest
            return latest.prefixes if latest is not None and current_time() < latest.expires else ()
        except RuntimeError:
            return ()  # outside of a run

    def clear(self) -> None:
        """Forget what was found, because this machine is in another network. What was given stays."""
        try:
            self._memories.set(_Memory())  # a new one, for what is being asked is of the old network
        except RuntimeError:
            pass

    def __repr__(self) -> str:
        given = "" if self._given is None else str([str(prefix) for prefix in self._given])
        return f"Nat64({given})"

    def _memory(self) -> _Memory:
        try:
            return self._memories.get()
        except LookupError:
            memory = _Memory()
            self._memories.set(memory)
            return memory

    async def _find(self, ask: Callable[[Resolver | None], Awaitable[Answer]]) -> Answer:
        """Return the AAAA records of ipv4only.arpa: those that are remembered, or that a question finds.

        Calls that need them at one time share one question. When the one that asks it is cancelled another asks anew.

        Args:
          ask: asks the question, of the system where there is no resolver.

        Raises:
          OSError: the resolver could not find out, now or a moment ago.
        """
        memory = self._memory()
        began = current_time()
        waited = False
        while True:
            latest = memory.latest
            # Who asked together shares the answer, whatever its ttl.
            if latest is not None and (current_time() < latest.expires or (waited and latest.at >= began)):
                if isinstance(latest.found, OSError):
                    raise latest.found
                return latest.found
            if not memory.is_asking:
                break
            await memory.lot.park()
            waited = True
        memory.is_asking = True
        try:
            return await self._ask(memory, ask)
        finally:
            memory.is_asking = False
            memory.lot.unpark_all()

    async def _ask(self, memory: _Memory, ask: Callable[[Resolver | None], Awaitable[Answer]]) -> Answer:
        failure: OSError | None = None
        try:
            found = await ask(self._resolver)
        except OSError as error:
            failure = error
            raise
        except ExceptionGroup as group:
            failure = failure_in(group)
            raise
        finally:
            if failure is not None:
                now = current_time()
                memory.latest = _Outcome(failure, (), now, now + _FAILED)
        prefixes = find_prefixes(found.addresses)
        untold, longest = (_TTL_UNTOLD, _LONGEST) if prefixes else (_NOTHING, _NOTHING)
        now = current_time()
        memory.latest = _Outcome(found, prefixes, now, now + min(untold if found.ttl is None else found.ttl, longest))
        return found


def check_nat64(nat64: object) -> None:
    """Refuse what is not a `Nat64`."""
    if not isinstance(nat64, Nat64):
        raise TypeError(f"nat64 must be a Nat64 or None, got {shown(nat64)}")
