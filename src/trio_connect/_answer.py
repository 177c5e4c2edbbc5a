"""What a resolver answered, and the record of having asked."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from socket import AF_INET, AF_INET6, AddressFamily
from typing import Any, Final, Literal, TypeAlias, cast

import attrs

from ._check import check_float, check_range
from ._durations import microseconds
from ._repr import changed_repr
from ._text import shown

__all__ = ["Answer", "Lookup", "LookupKind", "MailRecord", "ServiceRecord", "SrvRecord"]

LookupKind: TypeAlias = Literal["A", "AAAA", "HTTPS", "SRV", "MX"]
"""The DNS record type that was asked for; "HTTPS" for service records of every kind."""

KIND_OF_FAMILY: Final[dict[AddressFamily, LookupKind]] = {AF_INET6: "AAAA", AF_INET: "A"}
FAMILY_OF_KIND: Final[dict[LookupKind, AddressFamily]] = {"AAAA": AF_INET6, "A": AF_INET}

IPV4_ONLY_NAME: Final = "ipv4only.arpa."
"""RFC 7050 section 8.2: a name that has IPv4 addresses only, looked up for the prefix of a `Nat64`. It is complete, so
that no search list adds to it."""


def _several(value: Iterable[str], name: str) -> tuple[str, ...]:
    # A lone str is iterable too, and would become several of single characters.
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence of str, got {shown(value)}")
    texts: tuple[str, ...] = tuple(value)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{name} must be a sequence of str, got {shown(text)} in it")
    return texts


def _addresses(value: Iterable[str]) -> tuple[str, ...]:
    return _several(value, "addresses")


def _check_ttl(_instance: object, _field: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    ttl = check_float(value, "ttl", "a number of seconds or None")
    if not isfinite(ttl) or ttl < 0:
        raise ValueError(f"ttl must be at least 0 seconds and finite, got {shown(value)}")


@attrs.frozen(repr=False)
class Answer:
    """What a resolver found for one host and one record type.

    An answer without addresses is a negative one. It is not an error: a resolver that could not find out raises an
    `OSError` instead.

    Args:
      addresses: numeric addresses, in the resolver's order; an IPv6 address may carry its zone (``fe80::1%2``).
      ttl: seconds that the answer may be kept, or None when the resolver does not know.
      name_exists: False when the resolver was told that there is no such name at all (NXDOMAIN, RFC 8020). An
        answer of one record type cannot prove it for the others, because hosts files and some systems answer per
        family: a name exists when any of its answers says so.

    Raises:
      TypeError: an argument has the wrong type.
      ValueError: the ttl is negative or not finite, or there are addresses of a name that does not exist.
    """

    addresses: tuple[str, ...] = attrs.field(default=(), converter=_addresses)
    ttl: float | None = attrs.field(default=None, validator=_check_ttl)
    name_exists: bool = True

    __repr__ = changed_repr

    def __attrs_post_init__(self) -> None:
        if self.addresses and not self.name_exists:
            raise ValueError(f"a name that does not exist has no addresses, got {shown(self.addresses)}")


def _name(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{field.name} must be a str, got {shown(value)}")
    if not value:
        raise ValueError(f"{field.name} must not be empty; the name of nothing is '.'")


def _uint16(_instance: object, field: attrs.Attribute[Any], value: object) -> None:
    check_range(value, field.name, 0, 0xFFFF)


def _as_data(record: attrs.AttrsInstance) -> dict[str, Any]:
    fields = attrs.asdict(record, recurse=False)
    return {
        name: list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
        for name, value in fields.items()
    }


@attrs.frozen(repr=False)
class MailRecord:
    """One host that takes mail for a domain (MX, RFC 1035 section 3.3.9).

    Args:
      host: its name; "." alone says that the domain takes no mail (RFC 7505).
      preference: lower values are tried first.
      ttl: seconds that the record may be kept, or None when the resolver does not know.
    """

    host: str = attrs.field(validator=_name)
    preference: int = attrs.field(default=0, validator=_uint16)
    ttl: float | None = attrs.field(default=None, validator=_check_ttl)

    __repr__ = changed_repr


@attrs.frozen(repr=False)
class SrvRecord:
    """One host that offers a service (SRV, RFC 2782).

    Args:
      target: its name; "." alone says that the service is not offered there.
      port: where the service is.
      priority: lower values are tried first.
      weight: the share of first tries within a priority.
      ttl: seconds that the record may be kept, or None when the resolver does not know.
    """

    target: str = attrs.field(validator=_name)
    port: int = attrs.field(validator=_uint16)
    priority: int = attrs.field(default=0, validator=_uint16)
    weight: int = attrs.field(default=0, validator=_uint16)
    ttl: float | None = attrs.field(default=None, validator=_check_ttl)

    __repr__ = changed_repr

    def to_dict(self) -> dict[str, Any]:
        """Return this record as JSON-safe data, the ttl in seconds."""
        return _as_data(self)


def _texts(value: Iterable[str]) -> tuple[str, ...]:
    return _several(value, "each of alpn, hints and mandatory keys")


@attrs.frozen(kw_only=True, repr=False)
class ServiceRecord:
    """How one endpoint of a service is reached (SVCB and HTTPS, RFC 9460).

    Args:
      priority: lower values are tried first; 0 is an alias: all there is to say is at `target` (AliasMode).
      target: the host; "." is the name that was asked about. In an alias "." says nothing.
      port: where the service is; None for the port of the authority.
      alpn: the protocols that it speaks, by their names in ALPN (RFC 7301), such as "h2".
      ipv4hint: addresses of the target to begin with, while they are looked up.
      ipv6hint: likewise.
      mandatory: the names of the parameters that a client has to understand, such as "port" or "key667". A record that
        names others than these fields is not used.

    Raises:
      TypeError: an argument has the wrong type.
      ValueError: a number is out of range, or the target is empty.
    """

    priority: int = attrs.field(default=1, validator=_uint16)
    target: str = attrs.field(default=".", validator=_name)
    port: int | None = attrs.field(default=None, validator=attrs.validators.optional(_uint16))
    alpn: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    ipv4hint: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    ipv6hint: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    mandatory: tuple[str, ...] = attrs.field(default=(), converter=_texts)

    __repr__ = changed_repr

    def to_dict(self) -> dict[str, Any]:
        """Return this record as JSON-safe data."""
        return _as_data(self)


@attrs.frozen(kw_only=True, repr=False)
class Lookup:
    """One question to a resolver and its outcome. Times are seconds since the report's `started_at`.

    A lookup that was cancelled has neither an answer nor an error.

    Attributes:
      host: the name.
      kind: "A", "AAAA", "HTTPS" or "SRV".
      started: when it was asked.
      ended: when it was answered, had failed or was cancelled.
      answer: what was found, cleaned: numeric addresses of this kind's family, each once, the first 64. None after an
        error or cancel.
      records: what was found by a question for records, which has no `answer`: by "HTTPS" or "SRV".
      error: what kept the resolver from an answer, without its traceback; None for an empty answer.
    """

    host: str
    kind: LookupKind
    started: float
    ended: float
    answer: Answer | None = None
    records: tuple[ServiceRecord | SrvRecord, ...] | None = None
    error: OSError | None = None

    __repr__ = changed_repr

    def to_dict(self) -> dict[str, Any]:
        """Return this lookup as JSON-safe data, times in whole microseconds."""
        answer, records = self.answer, self.records
        return {
            "host": self.host,
            "kind": self.kind,
            "started_us": microseconds(self.started),
            "ended_us": microseconds(self.ended),
            "addresses": None if answer is None else list(answer.addresses),
            "ttl_us": None if answer is None else microseconds(answer.ttl),
            "name_exists": None if answer is None else answer.name_exists,
            "records": None if records is None else [record.to_dict() for record in records],
            "errno": None if self.error is None else self.error.errno,
            "error": None if self.error is None else str(self.error),
        }
