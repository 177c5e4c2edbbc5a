"""How a race is run: the numbers behind it, each with the sentence of the RFC that it comes from."""

from __future__ import annotations

from math import isfinite, isnan
from typing import Any, Final

import attrs

__all__ = ["DEFAULT_POLICY", "MIN_ATTEMPT_DELAY", "RacePolicy", "check_policy"]

MIN_ATTEMPT_DELAY: Final = 0.010
"""RFC 8305 section 5: "a subsequent connection MUST NOT be started within 10 milliseconds of the previous attempt"."""

DEFAULT_ATTEMPT_DELAY: Final = 0.250
"""RFC 8305 section 8: "The time to wait between connection attempts in the absence of RTT data. Recommended to be 250
milliseconds"."""

DEFAULT_RESOLUTION_DELAY: Final = 0.050
"""RFC 8305 section 8: "The time to wait for a AAAA response after receiving an A response. Recommended to be 50
milliseconds"."""

DEFAULT_FAMILY_COUNT: Final = 1
"""RFC 8305 section 4: "Recommended to be 1; 2 may be used to more aggressively favor a particular address family"."""

DEFAULT_ATTEMPT_TIMEOUT: Final = 10.0
"""No RFC: long enough for a SYN that was lost three times (RFC 6298: sent again after 1, 3 and 7 s)."""

DEFAULT_MAX_IN_FLIGHT: Final = 16
"""No RFC: at the default delay, four seconds' worth of black holes before a start has to wait."""


def _number(field: attrs.Attribute[Any], value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{field.name} must be a number of seconds, got {value!r}")
    if isnan(value):
        raise ValueError(f"{field.name} must be a number of seconds, got {value!r}")
    return value


def _delay(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if _number(field, value) < MIN_ATTEMPT_DELAY:
        raise ValueError(
            f"{field.name} must be at least {MIN_ATTEMPT_DELAY} seconds (RFC 8305 section 5), "
            f"or math.inf for one attempt at a time, got {value!r}"
        )


def _timeout(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if _number(field, value) <= 0:
        raise ValueError(f"{field.name} must be above 0 seconds, or math.inf for none, got {value!r}")


def _wait(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    number = _number(field, value)
    if number < 0 or not isfinite(number):
        raise ValueError(f"{field.name} must be 0 seconds or more, and finite, got {value!r}")


def _count(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field.name} must be an int, got {value!r}")
    if value < 1:
        raise ValueError(f"{field.name} must be at least 1, got {value!r}")


@attrs.frozen(kw_only=True)
class RacePolicy:
    """How several endpoints of one peer are raced. Times are in seconds; values are used as given, never clamped.

    `attempt_delay` and `resolution_delay` default to what RFC 8305 section 8 recommends.

    Args:
      attempt_delay: how long after one start the next is due while nothing has failed. At least 0.010;
        `math.inf` tries strictly one endpoint at a time.
      attempt_timeout: how long one attempt may take, the caller's establish included, before it counts as failed.
        `math.inf` leaves it to the kernel and the caller's deadline.
      resolution_delay: how long an IPv4 answer that comes first waits for the IPv6 one; 0 or more, and finite.
      max_in_flight: how many attempts may be alive at once. At the limit the next start waits: an attempt that may
        still succeed is never given up for a new one.
      preferred_family_count: how many endpoints of the preferred family come before the first of the other.

    Raises:
      TypeError: a value has the wrong type; a bool is not a number.
      ValueError: a number is NaN or out of range.
    """

    attempt_delay: float = attrs.field(default=DEFAULT_ATTEMPT_DELAY, validator=_delay)
    attempt_timeout: float = attrs.field(default=DEFAULT_ATTEMPT_TIMEOUT, validator=_timeout)
    resolution_delay: float = attrs.field(default=DEFAULT_RESOLUTION_DELAY, validator=_wait)
    max_in_flight: int = attrs.field(default=DEFAULT_MAX_IN_FLIGHT, validator=_count)
    preferred_family_count: int = attrs.field(default=DEFAULT_FAMILY_COUNT, validator=_count)


DEFAULT_POLICY: Final = RacePolicy()


def check_policy(policy: object) -> None:
    """Refuse what is not a `RacePolicy`."""
    if not isinstance(policy, RacePolicy):
        raise TypeError(f"policy must be a RacePolicy, got {policy!r}")
