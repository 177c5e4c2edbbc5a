"""`open_outbound`: what all destinations of a program share, for as long as a block lasts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from itertools import dropwhile
from random import Random
from types import NoneType
from typing import cast, final
from weakref import WeakValueDictionary

import trio
from trio import current_time
from trio.lowlevel import enable_ki_protection

from .. import Endpoint, EndpointLike, MailResolver, Resolver, Source, SrvResolver
from .._endpoint import check_port
from .._net.callbacks import check_observer
from .._net.names.resolve import check_host, check_resolver
from .._net.race.errors import out_of_a_block, out_of_the_group
from .._net.race.plan import check_address_filter, check_proxies_can_be_filtered
from .._outbound_values import DEFAULT_OUTBOUND_POLICY, Candidate, OutboundPolicy
from .._text import shown
from ._destination import Destination
from ._events import OutboundObserver
from ._file_store import FileStore
from ._lookups import CandidateSource, Finder, Lookups, by_mx, by_name, by_srv, own, static
from ._redis_store import RedisStore
from ._shared import Shared
from ._state import DestinationState
from ._waiting import Waiting

__all__ = ["Outbound", "open_outbound"]


@final
class Outbound:
    """The destinations of a program, and what they share. Made by `open_outbound`."""

    def __init__(self, shared: Shared, resolver: Resolver | None, nursery: trio.Nursery) -> None:
        self._shared = shared
        self._waiting = Waiting(shared)
        self._lookups = Lookups(resolver, shared.policy, nursery)
        self._until_left: set[trio.CancelScope] = set()
        """What ends when the block is left, and not before, whatever cancel comes from outside."""
        self._is_left = False
        # The states in the order of use, and the objects that a program still refers to: there is one for each key.
        self._recent: OrderedDict[tuple[str, str], tuple[Destination, DestinationState]] = OrderedDict()
        self._known: WeakValueDictionary[tuple[str, str], Destination] = WeakValueDictionary()
        self._states: WeakValueDictionary[tuple[str, str], DestinationState] = WeakValueDictionary()

    def destination(
        self,
        name: str,
        *,
        candidates: Iterable[Candidate | EndpointLike] | CandidateSource | None = None,
        port: int | None = None,
        group: str | None = None,
        policy: OutboundPolicy | None = None,
    ) -> Destination:
        """Return the destination of a name. The same name is the same destination; later calls ignore other arguments.

        Args:
          name: what it is called; with `port`, the host that is looked up.
          candidates: its addresses, or an async function that finds them. Without these and a port the destination has
            no addresses, and gives permits only.
          port: connect to this port of the host `name`, instead of to candidates.
          group: its route group: destinations of one group share their limits. By default it is alone.
          policy: its rules; None for those of the outbound. The limits on all connections, and how long
            addresses and answers are remembered, follow the outbound's.

        Raises:
          TypeError: an argument has the wrong type.
          ValueError: there are both candidates and a port, or no candidates in the list.
        """
        if candidates is not None and port is not None:
            raise ValueError(f"destination {shown(name)} has candidates or a port, not both")

        def make() -> Finder | None:
            if port is not None:
                return by_name(self._lookups, check_host(name), _check_port(port, name))
            if candidates is None:
                return None
            if callable(candidates):
                return own(self._lookups, candidates)
            return static(candidates)

        return self._get("destination", name, group, policy, make, tls_name=None if port is None else name)

    def mx(
        self, domain: str, *, port: int = 25, group: str | None = None, policy: OutboundPolicy | None = None
    ) -> Destination:
        """Return the destination of a domain's mail: its MX hosts, or itself when it has none (RFC 5321 section 5.1).

        Args:
          domain: the part after the at sign.
          port: where its hosts listen.
          group: its route group; by default the set of its MX hosts, so that all domains at one provider are one group.
          policy: see `destination`.

        Raises:
          TypeError: an argument has the wrong type, or the resolver has no method `mx`.
          ValueError: the domain is not a possible name, or the port is out of range.
        """
        if not isinstance(self._lookups.resolver, MailResolver):
            raise TypeError(
                "MX records need a resolver with an async method mx(domain), such as DnsResolver(), "
                f"not {self._resolver_shown}"
            )
        return self._get(
            "mx", domain, group, policy, lambda: by_mx(self._lookups, check_host(domain), _check_port(port, domain)),
            tls_name="",
        )  # fmt: skip

    def srv(self, service: str, *, group: str | None = None, policy: OutboundPolicy | None = None) -> Destination:
        """Return the destination of a service: the hosts and ports of its SRV records (RFC 2782).

        Args:
          service: such as ``_xmpp-client._tcp.example.org``.
          group: its route group; by default it is alone.
          policy: see `destination`.

        Raises:
          TypeError: an argument has the wrong type, or the resolver has no method `srv`.
          ValueError: the service is not a possible name.
        """
        if not isinstance(self._lookups.resolver, SrvResolver):
            raise TypeError(
                "SRV records need a resolver with an async method srv(name), such as DnsResolver(), "
                f"not {self._resolver_shown}"
            )
        return self._get(
            "srv", service, group, policy, lambda: by_srv(self._lookups, check_host(service)),
            tls_name=_domain_of(service),
        )  # fmt: skip

    @property
    def _resolver_shown(self) -> str:
        return shown(self._lookups.resolver)

    def _get(
        self,
        kind: str,
        name: str,
        group: str | None,
        policy: OutboundPolicy | None,
        make: Callable[[], Finder | None],
        *,
        tls_name: str | None,
    ) -> Destination:
        """Return a destination, made when it is new.

        Args:
          kind: "destination", "mx" or "srv".
          name: what it is called.
          group: its route group.
          policy: its rules.
          make: makes what finds its candidates.
          tls_name: the name that is verified over TLS; None for each address, "" when only the caller can say it.
        """
        _check(name, str, "name")
        _check(group, (str, type(None)), "group")
        _check(policy, (OutboundPolicy, type(None)), "policy")
        key = (kind, name)
        destination = self._known.get(key)
        if destination is None:
            destination = self._add(key, group, policy, make(), tls_name)
        self._use(key, destination)
        return destination

    @enable_ki_protection
    def _add(
        self,
        key: tuple[str, str],
        group: str | None,
        policy: OutboundPolicy | None,
        find: Finder | None,
        tls_name: str | None,
    ) -> Destination:
        state = DestinationState(self._shared, key[1], policy or self._shared.policy, group)
        destination = Destination(self._waiting, state, find, self._all_states, partial(self._use, key), tls_name)
        self._states[key] = state
        self._known[key] = destination
        self._use(key, destination)
        self._waiting.join(state)
        self._forget()
        return destination

    def _use(self, key: tuple[str, str], destination: Destination) -> None:
        self._recent[key] = destination, self._states[key]
        self._recent.move_to_end(key)

    def _bind(self, store: FileStore | RedisStore) -> None:
        """Have the calls of this outbound hear of what changes in its store."""
        waiting = self._waiting
        store.bind(lambda what, cause: waiting.changed(self._all_states(), what, cause), waiting.lost)

    def _leave(self) -> None:
        """End what is of this block alone."""
        self._is_left = True
        self._lookups.leave()
        for scope in self._until_left:
            scope.cancel("the outbound is closed")

    def _all_states(self) -> list[DestinationState]:
        return list(self._states.values())

    def _forget(self) -> None:
        """Drop states that were not used for long. Each new destination drops a few, so memory is bounded."""
        moment = current_time()
        self._shared.suspensions.forget(moment)
        while self._recent:
            key, (_, state) = next(iter(self._recent.items()))
            if not state.is_idle(moment):
                # It may be in use although it was not asked for again: the next call checks the others first.
                self._recent.move_to_end(key)
                return
            del self._recent[key]
            self._waiting.leave(state)


def _domain_of(service: object) -> str:
    """Return the domain of an SRV service, without the labels of service and protocol (RFC 2782, RFC 6120 13.7.2.1)."""
    labels = service.split(".") if isinstance(service, str) else []
    return ".".join(dropwhile(lambda label: label.startswith("_"), labels))


def _check_port(port: int, name: str) -> int:
    if check_port(port) == 0:
        raise ValueError(f"cannot connect to port 0 of {shown(name)}: a port is 1 to 65535")
    return port


def _check(value: object, kind: type | tuple[type, ...], what: str) -> None:
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = ["None" if each is NoneType else each.__name__ for each in kinds]
        article = "an" if names[0][0] in "AEIO" else "a"
        raise TypeError(f"{what} must be {article} {' or '.join(names)}, got {shown(value)}")


@asynccontextmanager
@enable_ki_protection  # Ctrl-C must not come between the end of the block and the closing of the store
async def open_outbound(
    *,
    policy: OutboundPolicy = DEFAULT_OUTBOUND_POLICY,
    sources: Sequence[Source] = (),
    resolver: Resolver | None = None,
    address_filter: Callable[[Endpoint], bool] | None = None,
    store: FileStore | RedisStore | None = None,
    observer: OutboundObserver | None = None,
    random: Random | None = None,
) -> AsyncGenerator[Outbound, None]:
    """Open what the destinations of a program share: limits, memory, lookups.

    Lookups run in tasks of this block, and end with it. Connections do not need to: each has a block of its own. Under
    a strict store they do, as by a lost lease: it knows of their places no longer.

    Args:
      policy: the rules; those of single destinations may differ.
      sources: where connections may start; each call draws one by weight. Without any, the kernel chooses.
      resolver: looks names up; None for the system's. MX and SRV records need a `MailResolver` or `SrvResolver`, such
        as a `DnsResolver`.
      address_filter: says of each address whether it may be connected to; see `OutboundPolicy.prohibited`.
      store: where the limits stand that other processes share, a `FileStore` or a `RedisStore`; None to share them with
        nobody. It is entered and left here.
      observer: called with each `OutboundEvent`.
      random: where jitter and draws come from; None for a generator of its own.

    Yields:
      The `Outbound`.

    Raises:
      OSError: the file of a `FileStore` cannot be opened, locked or written.
      TypeError: an argument has the wrong type.
      ValueError: a source is there twice, or there are an `address_filter` and a proxy that looks names up (see
        `trio_connect.Source`), or the file of a `FileStore` is something else.
    """
    _check(policy, OutboundPolicy, "policy")
    given: object = sources
    if not isinstance(given, Sequence) or not all(isinstance(each, Source) for each in cast("Sequence[object]", given)):
        raise TypeError(f"sources must be a sequence of Source, got {shown(sources)}")
    if len(set(sources)) < len(sources):
        raise ValueError(f"a source is there twice in {shown(sources)}")
    check_resolver(resolver)
    if address_filter is not None:
        check_address_filter(address_filter)
        check_proxies_can_be_filtered(sources)
    check_observer(observer)
    _check(random, (Random, type(None)), "random")
    _check(store, (FileStore, RedisStore, type(None)), "store")
    shared = Shared(sources, policy, address_filter, observer, random or Random(), store)  # noqa: S311 - for jitter and draws
    crash: BaseException | None = None
    try:
        async with store or nullcontext(), trio.open_nursery() as nursery:
            out = Outbound(shared, resolver, nursery)
            try:
                if store is not None:
                    out._bind(store)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
                yield out
            except BaseException as exc:  # noqa: BLE001 - raised below; the nursery would wrap it in a group
                crash = exc
            out._leave()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
            nursery.cancel_scope.cancel("the outbound is closed")
    except BaseException as exc:  # noqa: BLE001 - likewise
        # Ctrl-C is caught as itself. What a task of the program's raises stays in its group.
        alone = out_of_the_group(exc)
        crash = out_of_a_block(crash, alone if isinstance(alone, KeyboardInterrupt) else exc)
        del alone
    if crash is not None:
        try:
            raise crash
        finally:
            del crash
