"""From names to addresses: what a resolver is, which hosts and answers are accepted, and a resolver that is a dict."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AddressFamily
from typing import Any, Final, Protocol, TypeVar, cast, final, runtime_checkable

import attrs
import trio
from trio.lowlevel import checkpoint

from ..._answer import Answer, MailRecord, ServiceRecord, SrvRecord
from ..._engine.race import MAX_RACED
from ..._text import printable, shown
from ..resolver import Resolver, check_resolver

__all__ = [
    "MailResolver",
    "Resolver",
    "ServiceResolver",
    "SrvResolver",
    "StaleResolver",
    "StaticResolver",
    "as_service_resolver",
    "as_stale_resolver",
    "check_host",
    "check_resolver",
    "cleaned",
    "cleaned_services",
    "encoded",
    "numeric",
]

MAX_HOST_BYTES: Final = 253  # RFC 1035 section 3.1: 255 octets on the wire, less the first length and the root
_REMEMBERED: Final = 64  # characters: most names are shorter, and a longer one is no reason to keep memory
MAX_LABEL_BYTES: Final = 63  # RFC 1035 section 2.3.4


@runtime_checkable
class MailResolver(Resolver, Protocol):
    """A resolver that finds the mail hosts of a domain, too."""

    async def mx(self, domain: str, /) -> Sequence[MailRecord]:
        """Return the MX records of a domain, in any order; empty when it has no records, or does not exist.

        Args:
          domain: as the user gave it, a possible name.

        Raises:
          OSError: the resolver could not find out.
        """
        ...


@runtime_checkable
class SrvResolver(Resolver, Protocol):
    """A resolver that finds the hosts of a service, too."""

    async def srv(self, name: str, /) -> Sequence[SrvRecord]:
        """Return the SRV records of a name, in any order; empty when it has no records, or does not exist.

        Args:
          name: service, protocol and domain, such as ``_xmpp-client._tcp.example.org``; a possible one.

        Raises:
          OSError: the resolver could not find out.
        """
        ...


@runtime_checkable
class ServiceResolver(Resolver, Protocol):
    """A resolver that finds out how the services of a host are reached, too. `connect` then asks for that first.

    One that has None in place of the method does not offer it.
    """

    async def services(self, host: str, port: int, /) -> Sequence[ServiceRecord]:
        """Return the service records of a host (SVCB or HTTPS, RFC 9460), in any order; empty when it has none.

        Only records that the caller can use: what it speaks is the resolver's to know. Aliases are not followed.

        Args:
          host: a possible name.
          port: of the service; 0 when the host is the target of an alias, which is asked for as it is.

        Raises:
          OSError: the resolver could not find out. That counts as a negative answer.
        """
        ...


@runtime_checkable
class StaleResolver(Resolver, Protocol):
    """A resolver that may have an expired answer, with which `connect` begins while the fresh one is fetched."""

    def stale(self, host: str, family: AddressFamily, /) -> Answer | None:
        """Return an answer that has expired, or None; called just before `addresses` is.

        Args:
          host: as in `Resolver.addresses`.
          family: likewise.
        """
        ...


def as_service_resolver(resolver: Resolver) -> ServiceResolver | None:
    """Return a resolver that offers services as one, else None.

    Not by `isinstance`: that looks at the class, where a `DnsResolver` has the method, and takes microseconds.
    """
    return cast("ServiceResolver", resolver) if getattr(resolver, "services", None) is not None else None


def as_stale_resolver(resolver: Resolver) -> StaleResolver | None:
    """Return a resolver that offers expired answers as one, else None."""
    return cast("StaleResolver", resolver) if getattr(resolver, "stale", None) is not None else None


def numeric(host: str) -> str | None:
    """Return the normalised text of a numeric address (its zone kept), or None for a name.

    Numeric is what `ipaddress` takes. The other spellings of inet_aton(3), such as ``127.1`` or ``0x7f.1``, are names
    here and left to the resolver; the system's reads them as addresses.
    """
    return _remembered_numeric(host) if len(host) <= _REMEMBERED else _numeric(host)


def _numeric(host: str) -> str | None:
    try:
        return str(ip_address(host))
    except ValueError:
        return None


# To read one, or to find that it is not one, takes as long as several system calls.
_remembered_numeric: Final = lru_cache(maxsize=1024)(_numeric)


def old_spelling(name: bytes) -> str | None:
    """Return the address that a name spells in any of the ways of inet_aton(3), such as 127.1 and 0x7f.1.

    Args:
      name: encoded: digits of other scripts are ASCII then.
    """
    if not name[:1].isdigit():
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(name.decode()))
    except OSError:
        return None


def encoded(host: str) -> bytes:
    """Return a name as it is asked for: ASCII as it is, anything else by IDNA 2008, as Trio encodes it.

    Labels in front that begin with an underscore, as those of a service do (RFC 8552), are no part of a name that IDNA
    knows, so they stay as they are.

    Raises:
      ValueError: it cannot be encoded.
    """
    if host.isascii():
        return host.encode("ascii")
    begin = 0
    while host.startswith("_", begin) and (dot := host.find(".", begin)) >= 0 and host[begin:dot].isascii():
        begin = dot + 1
    return host[:begin].encode("ascii") + trio.lowlevel.encode_hostname(host[begin:])


def check_host(host: object) -> str:
    """Return the host of a connect, or say what is wrong with it; nothing is looked up.

    Raises:
      TypeError: not a str.
      ValueError: empty, too long, or with a character that no name can have.
    """
    if not isinstance(host, str):
        raise TypeError(f"a host is a str with a name or a numeric address, got {shown(host)}")
    return host if len(host) <= _REMEMBERED and _is_host(host) else _check_host(host)


@lru_cache(maxsize=1024)
def _is_host(host: str) -> bool:
    """Return True for a host that `check_host` has passed: a program connects to the same few over and over."""
    _check_host(host)
    return True


def _check_host(host: str) -> str:
    if not host:
        raise ValueError("no host: a host is a name or a numeric address, got an empty text")
    if numeric(host) is not None:
        return host
    if "\0" in host:
        raise ValueError(f"a host has no NUL character, got {shown(host)}")
    if any(map(str.isspace, host)):
        raise ValueError(f"a host has no white space, got {shown(host)}")
    if host.isascii() and not host.isprintable():
        # Beyond ASCII it is IDNA that decides: some scripts need characters that do not print (RFC 5892 appendix A).
        raise ValueError(f"a host has no control characters, got {shown(host)}")
    if ":" in host or "[" in host or "]" in host:
        raise ValueError(
            "a host is a name, or a numeric address without brackets; the port is an argument of its own, "
            f"got {shown(host)}"
        )
    if len(host) > MAX_HOST_BYTES + 1:  # before anything is encoded: an IDNA label has at least a byte per character
        raise ValueError(f"a host has at most {MAX_HOST_BYTES} bytes (RFC 1035 section 2.3.4), got {shown(host)}")
    try:
        name = encoded(host)
    except UnicodeError as exc:
        raise ValueError(
            f"a host must be encodable as a domain name (IDNA 2008), got {shown(host)}: {printable(str(exc))}"
        ) from None
    name = name.removesuffix(b".")
    if len(name) > MAX_HOST_BYTES:
        raise ValueError(f"a host has at most {MAX_HOST_BYTES} bytes (RFC 1035 section 2.3.4), got {shown(host)}")
    for label in name.split(b"."):
        if not 1 <= len(label) <= MAX_LABEL_BYTES:
            raise ValueError(
                f"each label of a host has 1 to {MAX_LABEL_BYTES} bytes (RFC 1035 section 2.3.4), got {shown(host)}"
            )
    return host


def cleaned(answer: Answer, family: AddressFamily) -> Answer:
    """Return an answer of any resolver with normalised addresses of this family only, each once, at most `MAX_RACED`.

    No more are ever tried, and a hostile answer has thousands: what is not read costs nothing.

    Raises:
      TypeError: it is not an Answer.
      ValueError: an address in it is not numeric.
    """
    if not isinstance(answer, Answer):
        raise TypeError(f"a resolver returns an Answer, got {shown(answer)}")
    addresses: dict[str, None] = {}
    for text in answer.addresses:
        if (":" in text) != (family == AF_INET6):
            continue
        address = numeric(text)
        if address is None:
            raise ValueError(f"a resolver answers with numeric addresses, got {shown(text)}")
        addresses[address] = None
        if len(addresses) == MAX_RACED:
            break
    if len(addresses) == len(answer.addresses) and all(map(str.__eq__, addresses, answer.addresses)):
        return answer
    return Answer(tuple(addresses), answer.ttl, answer.name_exists)


def cleaned_services(records: Sequence[ServiceRecord]) -> tuple[ServiceRecord, ...]:
    """Return the service records of any resolver with normalised hints, without those whose target is no name.

    Raises:
      TypeError: one is not a ServiceRecord.
      ValueError: a hint is not a numeric address.
    """
    found: list[ServiceRecord] = []
    for record in records:
        if not isinstance(record, ServiceRecord):
            raise TypeError(f"a resolver returns a sequence of ServiceRecord, got {shown(record)} in it")
        try:
            is_name = record.target == "." or numeric(check_host(record.target)) is None
        except ValueError:
            is_name = False
        if is_name:
            v4, v6 = (cleaned(Answer((*record.ipv4hint, *record.ipv6hint)), family) for family in (AF_INET, AF_INET6))
            found.append(attrs.evolve(record, ipv4hint=v4.addresses, ipv6hint=v6.addresses))
    return tuple(found)


def _key(host: str) -> bytes:
    # RFC 4343: names are compared without case. A trailing dot only says that the name is complete.
    return encoded(host).lower().removesuffix(b".")


_R = TypeVar("_R", MailRecord, SrvRecord)
_NO_ANSWERS: Final[Mapping[AddressFamily, Answer]] = dict.fromkeys((AF_INET6, AF_INET), Answer(name_exists=False))
_NOTHING: Final[Mapping[str, Any]] = {}


def _records(given: object, what: str, kind: type[_R]) -> dict[bytes, tuple[_R, ...]]:
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} must be a mapping of names to sequences of {kind.__name__}, got {shown(given)}")
    found: dict[bytes, tuple[_R, ...]] = {}
    for name, records in cast("Mapping[str, Iterable[object]]", given).items():
        key = _key(check_host(name))
        if key in found:
            raise ValueError(f"{what} names {shown(name)} twice: case and a trailing dot do not count")
        listed = tuple(records)
        for record in listed:
            if not isinstance(record, kind):
                raise TypeError(
                    f"{what} must be a mapping of names to sequences of {kind.__name__}, got {shown(record)}"
                )
        found[key] = cast("tuple[_R, ...]", listed)
    return found


class AnswersNow(ABC):
    """A resolver that may have its answers there already, so that a connect needs no task to wait for them."""

    __slots__ = ()

    @abstractmethod
    def _answers_now(self, host: str) -> Mapping[AddressFamily, Answer] | None:
        """Return what `addresses` would for each family, cleaned; None where it may have to wait, or to fail.

        Args:
          host: as in `Resolver.addresses`.
        """


@final
class StaticResolver(AnswersNow):
    """A resolver that knows its answers: for tests, pinned hosts and closed networks. It asks no server.

    Args:
      hosts: the address or addresses of each name, of both families, in the order to answer with. Names are compared
        without case and without a trailing dot. An empty sequence makes a name that exists and has no addresses;
        a name that is not in the mapping does not exist.
      mx: the mail hosts of each domain.
      srv: the hosts of each service, by names such as ``_xmpp-client._tcp.example.org``.

    Raises:
      TypeError: `hosts` is not a mapping, or an entry has the wrong type.
      ValueError: a name is malformed, numeric or there twice, or an address is not numeric.
    """

    __slots__ = ("_answers", "_as_given", "_mx", "_srv")

    def __init__(
        self,
        hosts: Mapping[str, str | Iterable[str]],
        *,
        mx: Mapping[str, Sequence[MailRecord]] = _NOTHING,
        srv: Mapping[str, Sequence[SrvRecord]] = _NOTHING,
    ) -> None:
        self._mx = _records(mx, "mx", MailRecord)
        self._srv = _records(srv, "srv", SrvRecord)
        if not isinstance(hosts, Mapping):
            raise TypeError(f"hosts must be a mapping of names to addresses, got {shown(hosts)}")
        self._answers: dict[bytes, dict[AddressFamily, Answer]] = {}
        self._as_given: dict[str, dict[AddressFamily, Answer]] = {}
        for host, addresses in hosts.items():
            if numeric(check_host(host)) is not None:
                raise ValueError(f"a numeric host is its own answer and cannot have another, got {shown(host)}")
            key = _key(host)
            if key in self._answers:
                raise ValueError(f"hosts names {shown(host)} twice: case and a trailing dot do not count")
            answer = Answer((addresses,) if isinstance(addresses, str) else tuple(addresses))
            self._answers[key] = self._as_given[host] = {
                family: cleaned(answer, family) for family in (AF_INET6, AF_INET)
            }

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        """Return the addresses of one family, see `Resolver`.

        Args:
          host: a name or a numeric address.
          family: `socket.AF_INET6` or `socket.AF_INET`.

        Returns:
          The addresses that were given for the host; a numeric host is its own.

        Raises:
          ValueError: it is not a possible name.
        """
        answers = self._answers_now(host)
        await checkpoint()
        return answers[family]

    def _answers_now(self, host: str) -> Mapping[AddressFamily, Answer]:
        answers = self._as_given.get(host) if host.__class__ is str else None
        if answers is None:
            address = numeric(check_host(host))
            if address is not None:
                return {family: cleaned(Answer((address,)), family) for family in (AF_INET6, AF_INET)}
            answers = self._answers.get(_key(host))
        return _NO_ANSWERS if answers is None else answers

    async def mx(self, domain: str, /) -> Sequence[MailRecord]:
        """Return the mail hosts of a domain, see `MailResolver`.

        Args:
          domain: the domain.

        Returns:
          The records that were given for it.

        Raises:
          ValueError: it is not a possible name.
        """
        records = self._mx.get(_key(check_host(domain)), ())
        await checkpoint()
        return records

    async def srv(self, name: str, /) -> Sequence[SrvRecord]:
        """Return the hosts of a service, see `SrvResolver`.

        Args:
          name: such as ``_sip._tcp.example.org``.

        Returns:
          The records that were given for it.

        Raises:
          ValueError: it is not a possible name.
        """
        records = self._srv.get(_key(check_host(name)), ())
        await checkpoint()
        return records
