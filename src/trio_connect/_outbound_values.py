"""What a program says about its destinations: candidates, rates, backoff and the policy behind them.

The engines of `trio_connect.outbound` read these values, and so does its front door, where users find them.
"""

from __future__ import annotations

from math import inf, isfinite
from typing import Any, Final, Literal

import attrs

from ._check import SIZE_LIMIT, check_float, check_size
from ._endpoint import Endpoint, EndpointLike, as_endpoint, check_connectable
from ._policy import MIN_ATTEMPT_DELAY
from ._repr import changed_repr
from ._text import shown

__all__ = ["DEFAULT_OUTBOUND_POLICY", "Backoff", "Candidate", "OutboundPolicy", "Rate"]

MICROSECONDS: Final = 1_000_000


def _number(field: attrs.Attribute[Any], value: object) -> float:
    return check_float(value, field.name, "a number")


def _seconds(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    # A deadline counts milliseconds.
    number = _number(field, value)
    if number < 0.001 or not isfinite(number):
        raise ValueError(f"{field.name} must be at least 0.001 seconds, and finite, got {shown(value)}")
    if number >= SIZE_LIMIT:
        raise ValueError(f"{field.name} must be below 2**40 seconds, got {shown(value)}: a deadline?")


def _delay(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if _number(field, value) < MIN_ATTEMPT_DELAY:
        raise ValueError(
            f"{field.name} must be at least {MIN_ATTEMPT_DELAY} seconds (RFC 8305 section 5), got {shown(value)}"
        )


def _limit_in_seconds(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if _number(field, value) <= 0:
        raise ValueError(f"{field.name} must be above 0 seconds, or math.inf for none, got {shown(value)}")


def _whole(field: attrs.Attribute[Any], value: object, lowest: int) -> None:
    check_size(value, field.name, lowest)


def _count(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    _whole(field, value, 1)


def _count_or_none(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None:
        _whole(field, value, 1)


def _count_from_0(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    _whole(field, value, 0)


def _rate(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, Rate):
        raise TypeError(f"{field.name} must be a Rate or None, got {shown(value)}")


def _backoff(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, Backoff):
        raise TypeError(f"{field.name} must be a Backoff, got {shown(value)}")


def _multiplier(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    number = _number(field, value)
    if number < 1 or not isfinite(number):
        raise ValueError(f"{field.name} must be at least 1, and finite, got {shown(value)}")


def _jitter(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if not 0 <= _number(field, value) < 1:
        raise ValueError(f"{field.name} must be at least 0 and below 1, got {shown(value)}")


def _prohibited(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if value not in ("skip", "reject"):
        raise ValueError(f"{field.name} must be 'skip' or 'reject', got {shown(value)}")


@attrs.frozen(repr=False)
class Rate:
    """A rate: how many may begin in how long.

    The interval between two starts is `per` divided by `count`, rounded up to a whole microsecond, so the rate is never
    exceeded. `burst` of them may follow each other at once after a pause.

    Args:
      count: how many, at least 1.
      per: in how many seconds.
      burst: how many may begin at once, at least 1. In any time of w seconds at most ``burst + w * count / per`` begin.

    Raises:
      TypeError: a value has the wrong type; a bool is not a number.
      ValueError: a number is out of range, or there are more than a million a second.
    """

    count: int = attrs.field(validator=_count)
    per: float = attrs.field(default=1.0, validator=_seconds)
    burst: int = attrs.field(default=1, validator=_count)

    __repr__ = changed_repr

    def __attrs_post_init__(self) -> None:
        if round(self.per * MICROSECONDS) < self.count:
            raise ValueError(f"a rate is at most one a microsecond, got {self.count} per {self.per} seconds")

    @property
    def interval(self) -> int:
        """Whole microseconds between two starts."""
        return -(-round(self.per * MICROSECONDS) // self.count)


@attrs.frozen(kw_only=True, repr=False)
class Backoff:
    """How long to stay away after the k-th failure in a row.

    The delay is ``min(maximum, initial * multiplier ** (k - 1)) * (1 + u)``, u drawn evenly from -jitter to +jitter.
    The defaults are those of gRPC's connection backoff protocol. The first delay has jitter too, because
    clients that fail together would otherwise come back together.

    Args:
      initial: seconds after the first failure, at least 0.001.
      multiplier: what each further failure multiplies it by, at least 1.
      maximum: seconds that it does not grow beyond (the jitter comes on top).
      jitter: at least 0, below 1.

    Raises:
      TypeError: a value is not a number.
      ValueError: a number is out of range, or `maximum` is below `initial`.
    """

    initial: float = attrs.field(default=1.0, validator=_seconds)
    multiplier: float = attrs.field(default=1.6, validator=_multiplier)
    maximum: float = attrs.field(default=120.0, validator=_seconds)
    jitter: float = attrs.field(default=0.2, validator=_jitter)

    __repr__ = changed_repr

    def __attrs_post_init__(self) -> None:
        if self.maximum < self.initial:
            raise ValueError(f"maximum ({self.maximum}) must not be below initial ({self.initial})")

    def delay(self, failures: int, draw: float) -> float:
        """Return the seconds to stay away.

        Args:
          failures: how many in a row, at least 1.
          draw: a number from -1 to 1, which becomes the jitter.
        """
        try:
            grown = self.initial * self.multiplier ** (failures - 1)
        except OverflowError:
            grown = inf
        return min(self.maximum, grown) * (1 + self.jitter * draw)


def _endpoint(value: EndpointLike) -> Endpoint:
    endpoint = as_endpoint(value)
    check_connectable(endpoint)
    return endpoint


@attrs.frozen(repr=False)
class Candidate:
    """One address of a destination.

    Args:
      endpoint: where to connect to; a tuple (host, port) will do.
      priority: lower values are tried first (as in RFC 5321 section 5.1 and RFC 2782).
      weight: the share of first tries among candidates of equal priority. 0 means after all others.
      max_connections: how many connections may be open to this candidate, from all sources together; None for no limit.
      rate: how many attempts may begin at this candidate; None for no limit.

    Raises:
      TypeError: a value has the wrong type.
      ValueError: the host is a name, the port is 0, or a number is out of range.
    """

    endpoint: Endpoint = attrs.field(converter=_endpoint)
    priority: int = attrs.field(default=0, validator=_count_from_0)
    weight: int = attrs.field(default=1, validator=_count_from_0)
    max_connections: int | None = attrs.field(default=None, validator=_count_or_none)
    rate: Rate | None = attrs.field(default=None, validator=_rate)

    __repr__ = changed_repr


@attrs.frozen(kw_only=True, repr=False)
class OutboundPolicy:
    """The rules for connecting to destinations. Times are in seconds; values are used as given.

    Args:
      attempt_timeout: how long one attempt may take, the caller's establish included.
      connect_timeout: how long all attempts of one call may take together, once it is admitted.
      stagger: how long after one attempt the next is due while nothing has failed (RFC 8305 section 8); at least 0.010.
      max_addresses_per_plan: how many addresses one call tries. Both families and every priority are among them while
        there is room.
      failures_to_delay: how many calls in a row have to fail at every address to delay the destination; 0 never does.
      delay: how long it is then left alone; each further opening without a success in between takes the next step.
      address_cooldown: how long an address that failed is tried last.
      source_suspension: how long a source whose address cannot be bound, or whose proxy has failed three times in five
        minutes, is left out.
      probe_limit: how many calls try a delayed destination whose time has come, while all others wait.
      max_connections: how many connections and permits one source may hold to one route group.
      group_max_connections: likewise from all sources together; None for no limit.
      total_connections: how many the whole outbound may hold; None for no limit.
      reserve: below that total, how many are kept back for each destination that holds fewer. At most half of the
        total is kept back.
      max_connecting: how many connects to one destination may be under way.
      rate: how many connections and permits may begin from one source to one route group.
      group_rate: likewise from all sources together.
      prohibited: what an address that the filter refuses does to its destination: "skip" tries the others, "reject"
        rejects the destination.
      min_dns_ttl: an answer is kept at least so long, also a negative one.
      max_dns_ttl: an answer is kept at most so long.
      stale_dns: an answer serves so long after its time when the resolver cannot find out (RFC 8767).
      state_expiry: the state of a destination or address is forgotten after so long without use.

    Raises:
      TypeError: a value has the wrong type.
      ValueError: a number is out of range.
    """

    attempt_timeout: float = attrs.field(default=10.0, validator=_limit_in_seconds)
    connect_timeout: float = attrs.field(default=30.0, validator=_seconds)
    stagger: float = attrs.field(default=0.250, validator=_delay)
    max_addresses_per_plan: int = attrs.field(default=8, validator=_count)
    failures_to_delay: int = attrs.field(default=5, validator=_count_from_0)
    delay: Backoff = attrs.field(default=Backoff(), validator=_backoff)
    address_cooldown: Backoff = attrs.field(default=Backoff(), validator=_backoff)
    source_suspension: float = attrs.field(default=60.0, validator=_seconds)
    probe_limit: int = attrs.field(default=1, validator=_count)
    max_connections: int = attrs.field(default=32, validator=_count)
    group_max_connections: int | None = attrs.field(default=None, validator=_count_or_none)
    total_connections: int | None = attrs.field(default=None, validator=_count_or_none)
    reserve: int = attrs.field(default=1, validator=_count_from_0)
    max_connecting: int = attrs.field(default=2, validator=_count)
    rate: Rate | None = attrs.field(default=None, validator=_rate)
    group_rate: Rate | None = attrs.field(default=None, validator=_rate)
    prohibited: Literal["skip", "reject"] = attrs.field(default="skip", validator=_prohibited)
    min_dns_ttl: float = attrs.field(default=1.0, validator=_seconds)
    max_dns_ttl: float = attrs.field(default=86_400.0, validator=_seconds)
    stale_dns: float = attrs.field(default=3600.0, validator=_limit_in_seconds)
    state_expiry: float = attrs.field(default=3600.0, validator=_seconds)

    __repr__ = changed_repr

    @property
    def probe_lease(self) -> float:
        """After how many seconds a probe without an outcome loses its place: `connect_timeout` and 5 more."""
        return self.connect_timeout + 5.0


DEFAULT_OUTBOUND_POLICY: Final = OutboundPolicy()
