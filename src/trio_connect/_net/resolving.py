"""`resolve`: from a name to its endpoints, without a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio import current_time
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from .._deadline import is_late, to_seconds
from .._endpoint import Endpoint, check_port
from .._engine.order import served_families
from .._messages import call_exceeded, call_late
from .._policy import DEFAULT_POLICY
from .._race_messages import resolve_failed
from .._report import ConnectReport
from .._text import printable
from .names.lookup import Lookups
from .names.ordering import in_order
from .names.resolve import Resolver, check_host, check_resolver, numeric
from .names.system import SYSTEM_RESOLVER
from .race.errors import out_of_the_group
from .sockets.open import factory_installed
from .sockets.waiting import Expired, within

if TYPE_CHECKING:
    from .names.through_nat64 import Nat64OfCall
    from .nat64 import Nat64


async def resolve(
    host: str, port: int, deadline: int = -1, *, resolver: Resolver | None = None, nat64: Nat64 | None = None
) -> tuple[Endpoint, ...]:
    """Return the endpoints of a name, in the order in which `connect` would try them.

    Waits for both families, unlike `connect`. The order is that of RFC 6724 section 6 and RFC 8305 section 4.

    Args:
      host: a name, or a numeric address, which is its own answer.
      port: 0 to 65535, put into each endpoint.
      deadline: milliseconds on the clock of `now()`; -1 for none.
      resolver: whom to ask; None for the system, or the hostname resolver that this run has installed.
      nat64: the way to IPv4 addresses from a network that has IPv6 only; see `Nat64`. Of an address without a route
        the endpoint is then the one that `connect` would connect to.

    Raises:
      ResolveFailed: no family has an address; `report` has the lookups.
      DeadlineExceeded: the deadline came first; likewise.
      TypeError: an argument has the wrong type.
      ValueError: the host is no possible name, or the port or deadline is out of range.
    """
    check_host(host)
    check_port(port)
    until = to_seconds(deadline)
    check_resolver(resolver)
    if nat64 is not None:
        from .nat64 import check_nat64

        check_nat64(nat64)
    literal = numeric(host)
    if literal is not None or is_late(until):
        await checkpoint()
    if is_late(until):
        started = current_time()
        report = ConnectReport(started_at=started, elapsed=0.0)
        raise call_late(f"lookup of {printable(host)}", started - until, report=report)
    if literal is not None and nat64 is None:
        return (Endpoint(literal, port),)
    await checkpoint_if_cancelled()
    started = current_time()
    families = served_families(()) if literal is None else ()
    lookups = Lookups(host, families, resolver or SYSTEM_RESOLVER, resolution_delay=0.0, origin=started)
    if literal is not None:
        lookups.know(literal)
    through = None
    if nat64 is not None:
        from .names.through_nat64 import Nat64OfCall

        through = Nat64OfCall(nat64, (), factory=factory_installed())

    try:
        await within(until, _everything, lookups, port, through)
    except Expired:
        elapsed = current_time() - started
        records = lookups.records if through is None else (*lookups.records, *through.lookups)
        report = ConnectReport(lookups=records, started_at=started, elapsed=elapsed)
        raise call_exceeded(f"lookup of {printable(host)}", elapsed, report=report) from None
    if not lookups.addresses:
        report = ConnectReport(lookups=lookups.records, started_at=started, elapsed=current_time() - started)
        raise resolve_failed(host, report)
    endpoints = _endpoints(lookups, port)
    return in_order(endpoints, (), DEFAULT_POLICY) if through is None else through.in_order(endpoints)[0]


def _endpoints(lookups: Lookups, port: int) -> list[Endpoint]:
    return [Endpoint(address, port) for address in lookups.addresses]


async def _everything(lookups: Lookups, port: int, nat64: Nat64OfCall | None) -> None:
    crash: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            lookups.start(nursery)
            try:
                while await lookups.more():
                    pass
                if nat64 is not None:
                    nat64.in_order(_endpoints(lookups, port))
                    if nat64.wants_prefix:
                        nat64.start(nursery, lookups.origin)
                        await nat64.ended()
            except Exception as exc:  # noqa: BLE001 - raised below; the nursery would wrap it in a group
                crash = exc
            nursery.cancel_scope.cancel()
    except BaseException as exc:  # noqa: BLE001 - raised below, out of that group
        crash = out_of_the_group(exc)
    if crash is not None:
        try:
            raise crash
        finally:
            del crash
