"""How a race is run: the numbers behind it, each with the sentence of the RFC that it comes from."""

from __future__ import annotations

from math import inf, isfinite
from socket import AF_INET, AF_INET6, AddressFamily
from typing import Any, Final, Literal, TypeAlias

import attrs

from ._check import check_float, check_size
from ._repr import changed_repr
from ._text import shown

__all__ = ["DEFAULT_POLICY", "MIN_ATTEMPT_DELAY", "Adaptive", "RacePolicy", "check_policy"]

MIN_ATTEMPT_DELAY: Final = 0.010
"""RFC 8305 section 5: "a subsequent connection MUST NOT be started within 10 milliseconds of the previous attempt"."""

LONGEST_DELAY: Final = 30.0
"""No RFC: above this a delay in seconds is one in milliseconds, given by mistake."""

DEFAULT_ATTEMPT_DELAY: Final = 0.250
"""RFC 8305 section 8: "The time to wait between connection attempts in the absence of RTT data. Recommended to be 250
milliseconds"."""

LEAST_ADAPTIVE_DELAY: Final = 0.100
"""RFC 8305 section 8: "The recommended minimum value is 100 milliseconds"."""

GREATEST_ADAPTIVE_DELAY: Final = 2.0
"""RFC 8305 section 8: "The maximum value is recommended to be 2 seconds"."""

DEFAULT_RESOLUTION_DELAY: Final = 0.050
"""RFC 8305 section 8: "The time to wait for a AAAA response after receiving an A response. Recommended to be 50
milliseconds"."""

DEFAULT_FAMILY_COUNT: Final = 1
"""RFC 8305 section 4: "Recommended to be 1; 2 may be used to more aggressively favor a particular address family"."""

DEFAULT_ATTEMPT_TIMEOUT: Final = 10.0
"""No RFC: long enough for a SYN that was lost three times (RFC 6298: sent again after 1, 3 and 7 s)."""

DEFAULT_MAX_IN_FLIGHT: Final = 16
"""No RFC: at the default delay, four seconds' worth of black holes before a start has to wait."""

FirstFamily: TypeAlias = Literal["system", AddressFamily.AF_INET, AddressFamily.AF_INET6]
"""Which family comes first: that of the system's rules, or a certain one."""


def _number(field: attrs.Attribute[Any], value: object) -> float:
    return check_float(value, field.name, "a number of seconds")


def _not_milliseconds(field: attrs.Attribute[Any], seconds: float) -> None:
    if LONGEST_DELAY < seconds < inf:
        raise ValueError(
            f"{field.name} must be at most {LONGEST_DELAY:g} seconds, got {shown(seconds)}: "
            f"milliseconds were probably meant, and it is in seconds"
        )


def _delay(instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, Adaptive):
        _fixed_delay(instance, field, value)


def _fixed_delay(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    number = _number(field, value)
    _not_milliseconds(field, number)
    if number < MIN_ATTEMPT_DELAY:
        raise ValueError(
            f"{field.name} must be at least {MIN_ATTEMPT_DELAY} seconds (RFC 8305 section 5), "
            f"or math.inf for one attempt at a time, got {shown(value)}"
        )


def _finite_delay(instance: object, field: attrs.Attribute[Any], value: object) -> None:
    _fixed_delay(instance, field, value)
    if value == inf:
        raise ValueError(f"{field.name} must be finite, got {shown(value)}")


def _timeout(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if _number(field, value) <= 0:
        raise ValueError(f"{field.name} must be above 0 seconds, or math.inf for none, got {shown(value)}")


def _wait(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    number = _number(field, value)
    _not_milliseconds(field, number)
    if number < 0 or not isfinite(number):
        raise ValueError(f"{field.name} must be 0 seconds or more, and finite, got {shown(value)}")


def _count(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    check_size(value, field.name, 1)


def _family(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    # The numbers 2 and 10 are equal to AF_INET and AF_INET6, so True (1) is no danger here.
    if value not in ("system", AF_INET, AF_INET6):
        raise ValueError(f'{field.name} must be "system", socket.AF_INET or socket.AF_INET6, got {shown(value)}')


@attrs.frozen(kw_only=True, repr=False)
class Adaptive:
    """An attempt delay that follows the round-trip time to the address that was started last. It needs a `History`.

    The delay is about the time after which the attempt sends its first packet again: twice the smoothed round-trip time
    and four times its variation (RFC 6298), within the bounds that are given here. Times are in seconds.

    Args:
      initial: the delay while no round trip to the address is known.
      minimum: the least that a round trip leads to. At least 0.010.
      maximum: the most. At most 30.

    Raises:
      TypeError: a value is not a number.
      ValueError: a value is out of range, or they are not in the order minimum, initial, maximum.
    """

    initial: float = attrs.field(default=DEFAULT_ATTEMPT_DELAY, validator=_finite_delay)
    minimum: float = attrs.field(default=LEAST_ADAPTIVE_DELAY, validator=_finite_delay)
    maximum: float = attrs.field(default=GREATEST_ADAPTIVE_DELAY, validator=_finite_delay)
    __repr__ = changed_repr

    def __attrs_post_init__(self) -> None:
        if not self.minimum <= self.initial <= self.maximum:
            raise ValueError(
                f"minimum <= initial <= maximum must hold, got {self.minimum:g}, {self.initial:g} and {self.maximum:g}"
            )


@attrs.frozen(kw_only=True, repr=False)
class RacePolicy:
    """How several endpoints of one peer are raced. Times are in seconds; values are used as given, never clamped.

    `attempt_delay` and `resolution_delay` default to what RFC 8305 section 8 recommends.

    Args:
      attempt_delay: how long after one start the next is due while nothing has failed. 0.010 to 30;
        `math.inf` tries strictly one endpoint at a time. `Adaptive` follows the round-trip times of a `History`.
      attempt_timeout: how long one attempt may take, the caller's establish included, before it counts as failed.
        `math.inf` leaves it to the kernel and the caller's deadline.
      resolution_delay: how long an IPv4 answer that comes first waits for the IPv6 one; 0 to 30.
      max_in_flight: how many attempts may be alive at once. At the limit the next start waits: an attempt that may
        still succeed is never given up for a new one.
      preferred_family_count: how many endpoints of the preferred family come before the first of the other.
      first_family: which family the order of `connect` begins with. "system" leaves it to RFC 6724 section 6 with the
        policy table of the system (``/etc/gai.conf``, gai.conf(5)), and connecting begins with the first IPv6 answer.
        `socket.AF_INET` puts IPv4 first, and connecting begins with the first IPv4 answer: an IPv6 answer that comes
        before it waits the `resolution_delay`. `socket.AF_INET6` puts IPv6 first, whatever that table says.

    Raises:
      TypeError: a value has the wrong type; a bool is not a number.
      ValueError: a number is NaN or out of range.
    """

    attempt_delay: float | Adaptive = attrs.field(default=DEFAULT_ATTEMPT_DELAY, validator=_delay)
    attempt_timeout: float = attrs.field(default=DEFAULT_ATTEMPT_TIMEOUT, validator=_timeout)
    resolution_delay: float = attrs.field(default=DEFAULT_RESOLUTION_DELAY, validator=_wait)
    max_in_flight: int = attrs.field(default=DEFAULT_MAX_IN_FLIGHT, validator=_count)
    preferred_family_count: int = attrs.field(default=DEFAULT_FAMILY_COUNT, validator=_count)
    first_family: FirstFamily = attrs.field(default="system", validator=_family)
    __repr__ = changed_repr


DEFAULT_POLICY: Final = RacePolicy()


def check_policy(policy: object) -> None:
    """Refuse what is not a `RacePolicy`."""
    if not isinstance(policy, RacePolicy):
        raise TypeError(f"policy must be a RacePolicy, got {shown(policy)}")
