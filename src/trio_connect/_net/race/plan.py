"""The options of a race, which are checked here and nowhere else, and the plan that is made from them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

import attrs

from ..._check import check_callback
from ..._endpoint import Source, sends_names
from ..._options import DEFAULT_OPTIONS, SocketOptions, check_options
from ..._policy import DEFAULT_POLICY, Adaptive, RacePolicy, check_policy
from ..._text import shown
from ..callbacks import check_not_async, check_observer

if TYPE_CHECKING:
    import ssl
    from typing import Literal

    from ..._engine.race_memory import RaceMemory
    from ..._filter import AddressFilter
    from ..._trace import Observer
    from ..attempt import OpenAttempt
    from ..history import History
    from ..host_of import HostOfEndpoint
    from ..nat64 import Nat64
    from ..streams.tcp_stream import TcpStream

Establish: TypeAlias = "Callable[[TcpStream], Awaitable[Any]]"


class TcpRaceOptions(TypedDict, total=False):
    """The keyword arguments of every race, also of one without TLS.

    Attributes:
      policy: how the race is run.
      sources: where connections may start, best first. Each endpoint is tried from each source that has its family.
      history: a memory of earlier connects, which this one reads and adds to.
      address_filter: says of each endpoint whether a connection may go there, such as `NetworkFilter.public_only()`.
      observer: called with each `TraceEvent`.
      options: what to set on each socket before it connects.
      nat64: the way to IPv4 addresses from a network that has IPv6 only.
    """

    policy: RacePolicy
    sources: Sequence[Source]
    history: History | None
    address_filter: AddressFilter | None
    observer: Observer | None
    options: SocketOptions
    nat64: Nat64 | None


class RaceOptions(TcpRaceOptions, total=False):
    """The keyword arguments of `connectx` and `connect`.

    Attributes:
      policy, sources, history, address_filter, observer, options, nat64: see `TcpRaceOptions`.
      tls: connect over TLS, with this context; True verifies by the authorities that the system trusts.
      server_hostname: the name to verify in place of the host, or of each address where there is no host.
    """

    tls: ssl.SSLContext | Literal[True] | None
    server_hostname: str | None


@attrs.frozen(kw_only=True)
class RacePlan:
    """The checked arguments of one race."""

    policy: RacePolicy
    sources: Sequence[Source]
    options: SocketOptions
    establish: Establish | None
    observer: Observer | None
    until: float
    """The caller's deadline, in Trio time."""
    started: float
    """When the call began, in Trio time."""
    factory: bool
    """Whether sockets come from the run's factory."""
    through_proxy: OpenAttempt | None = None
    """Makes the attempts from sources that have a proxy; None when no source has one."""
    history: History | None = None
    target: str = ""
    """A name and port for messages, "" when the endpoints are all there is to name."""
    host_of: HostOfEndpoint | None = None
    """For which of the caller's names each endpoint is tried; None without names."""

    def memory(self, wake: Callable[[], object]) -> RaceMemory | None:
        """Return what this race reads of its history, and writes into it; None without one.

        Args:
          wake: called when another race has learned what this one should know.
        """
        if self.history is None:
            return None
        from ..history import memory_for_race

        return memory_for_race(self.history, self.policy, wake, measures=not self.options.fast_open)

    @property
    def is_late(self) -> bool:
        """Whether the call began at or after its deadline, so that nothing is tried."""
        return -inf < self.until <= self.started


def check_race_options(
    policy: object,
    sources: object,
    address_filter: object,
    observer: object,
    options: object,
    establish: object,
    *,
    history: object = None,
    nat64: object = None,
) -> None:
    """Refuse what cannot be the arguments of a race.

    Raises:
      TypeError: one has the wrong type.
      ValueError: a field of the policy or of the options is out of range, the policy is to learn and has nothing to
        learn from, or the filter could not judge every address.
    """
    if history is not None:
        # Loaded only where one is used.
        from ..history import check_history

        check_history(history)
    if nat64 is not None:
        from ..nat64 import check_nat64

        check_nat64(nat64)
    if policy is not DEFAULT_POLICY:
        check_policy(policy)
        if history is None:
            check_learns_nothing(cast("RacePolicy", policy))
    if sources != ():
        _check_sources(sources)
    if address_filter is not None:
        check_address_filter(address_filter)
        check_proxies_can_be_filtered(cast("Sequence[Source]", sources))
    if options is not DEFAULT_OPTIONS:
        check_options(options)
        if address_filter is not None and cast("SocketOptions", options).multipath:
            # RFC 8684 section 3.4.1. Linux does so where `ip mptcp limits` has add_addr_accepted above 0.
            raise ValueError(
                "address_filter cannot be combined with multipath: the peer of an MPTCP connection names more of its "
                "addresses, and the kernel may connect to these without asking"
            )
    if observer is not None:
        check_observer(observer)
    if establish is not None:
        check_callback(establish, "establish")


def check_learns_nothing(policy: RacePolicy) -> None:
    """Refuse an `Adaptive` delay where there is no `History`.

    Raises:
      ValueError: it is one.
    """
    if isinstance(policy.attempt_delay, Adaptive):
        raise ValueError(  # noqa: TRY004 - what is wrong is that there is no history
            "an Adaptive attempt_delay learns from a History: pass history=, the same one to each call"
        )


def _check_sources(sources: object) -> None:
    if isinstance(sources, Source) or not isinstance(sources, Iterable):
        raise TypeError(f"sources must be a sequence of Source, got {shown(sources)}")
    for item in cast("Iterable[object]", sources):
        if not isinstance(item, Source):
            raise TypeError(f"sources must be a sequence of Source, got {shown(item)} in it")


def any_proxy(sources: Iterable[Source]) -> bool:
    """Say whether a source has a proxy."""
    return any(source.proxy is not None for source in sources)


def check_proxies_can_be_filtered(sources: Iterable[Source]) -> None:
    """Refuse a filter beside a proxy that looks names up, unless the source says that this is meant.

    Raises:
      ValueError: the filter would judge none of the addresses that the proxy finds.
    """
    for source in sources:
        if sends_names(source) and not source.proxy_resolves:
            raise ValueError(
                f"proxy {source.proxy} looks names up itself, so the address filter cannot judge what it finds: "
                "use socks5, which is sent addresses, or say Source(..., proxy_resolves=True)"
            )


def check_address_filter(address_filter: object) -> None:
    """Refuse what cannot be an address filter.

    Raises:
      TypeError: it cannot be called, or is async.
    """
    if not callable(address_filter):
        raise TypeError(f"address_filter must be callable or None, got {shown(address_filter)}")
    # The coroutine of an async function is true, so as an answer it would allow every endpoint.
    check_not_async(address_filter, "address_filter")


def check_fast_open(options: SocketOptions, establish: Establish | None, *, candidates: float = inf) -> None:
    """Refuse a race that its first candidate would always win, for with a cookie connect(2) succeeds unanswered.

    Args:
      options: of the race.
      establish: the caller's own test of a connection, for which somebody has to answer.
      candidates: how many there are; infinite where that is not known.

    Raises:
      ValueError: it is such a race.
    """
    if options.fast_open and establish is None and candidates > 1:
        raise ValueError(
            "fast_open cannot be raced: such a connect succeeds before anybody has answered (RFC 7413); "
            "give it an establish, or one numeric endpoint"
        )
