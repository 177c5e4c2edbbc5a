"""DNS messages: questions as bytes, and what answers say. The only module that knows dnspython.

dnspython makes and reads the messages. Its resolver is not used: its clock is the wall's, and under a virtual one its
time limits never end. Nor are its sockets: they do not know a question that changes its waiter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import attrs

from ..._answer import LookupKind, MailRecord, SrvRecord
from .resolve import check_host

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Question", "Reply", "Wire"]

_MISSING: Final = "DnsResolver needs dnspython 2.9 or later: install the extra, trio-connect[dns]"

Record: TypeAlias = str | MailRecord | SrvRecord


@attrs.frozen
class Reply:
    """What a server has answered."""

    records: tuple[Record, ...] = ()
    ttl: float = 0.0
    """For how long, negative answers too (RFC 2308 section 5)."""
    name_exists: bool = True
    error: str | None = None
    """Why this is no answer: the server's error code, or that its message cannot be read."""
    is_truncated: bool = False
    """It did not fit into a datagram, and has to be asked for over TCP (RFC 1035 section 4.2.1)."""


def _absolute(name: Any) -> str | None:
    """Return a name in an answer as a complete one, None when no host can be called so."""
    text: str = name.to_text()
    if text == ".":
        return text
    try:
        return None if "\\" in text else check_host(text)  # a backslash begins the escape of a byte that no host has
    except ValueError:
        return None


def _address(record: Any, _ttl: float) -> Record | None:
    address: str = record.address
    return address


def _mail(record: Any, ttl: float) -> Record | None:
    host = _absolute(record.exchange)
    return None if host is None else MailRecord(host, record.preference, ttl)


def _service(record: Any, ttl: float) -> Record | None:
    target = _absolute(record.target)
    return None if target is None else SrvRecord(target, record.port, record.priority, record.weight, ttl)


_READERS: Final[dict[LookupKind, Callable[[Any, float], Record | None]]] = {
    "A": _address, "AAAA": _address, "MX": _mail, "SRV": _service,
}  # fmt: skip


@attrs.frozen
class _Dns:
    """The modules of dnspython, which are loaded when the first resolver is made."""

    flags: ModuleType
    message: ModuleType
    name: ModuleType
    rcode: ModuleType


@final
class Wire:
    """Makes questions.

    Raises:
      ImportError: there is no dnspython, or one that is too old.
    """

    __slots__ = ("_dns",)

    def __init__(self) -> None:
        try:
            from dns import flags, message, name, rcode, version
        except ImportError as exc:
            raise ImportError(_MISSING, name="dns") from exc
        if (version.MAJOR, version.MINOR) < (2, 9):
            raise ImportError(f"{_MISSING}, here is {version.version}", name="dns")
        self._dns = _Dns(flags, message, name, rcode)

    def question(self, name: bytes, kind: LookupKind) -> Question:
        """Return a new question, with an id of its own.

        Args:
          name: encoded, complete; a closing dot does not matter.
          kind: the record type.
        """
        # Not from text, in which a backslash would begin an escape.
        qname = self._dns.name.Name((*name.removesuffix(b".").split(b"."), b""))
        # No EDNS, as the C library has it: some servers answer it with an error, and what is long comes over TCP.
        return Question(self._dns, self._dns.message.make_query(qname, kind, use_edns=False), kind)

    def system_servers(self) -> list[str]:
        """Return the name servers of a system that has them elsewhere than in resolv.conf: of Windows."""
        import dns.resolver

        return [str(server) for server in dns.resolver.Resolver().nameservers]


@final
class Question:
    """One question."""

    __slots__ = ("_dns", "_kind", "_query", "wire")

    def __init__(self, dns: _Dns, query: Any, kind: LookupKind) -> None:
        self._dns = dns
        self._query = query
        self._kind: LookupKind = kind
        self.wire: bytes = query.to_wire()

    def read(self, data: bytes) -> Reply | None:
        """Return what a message says; None when it is no answer to this question."""
        dns = self._dns
        if data[:2] != self.wire[:2]:
            return None
        try:
            message = dns.message.from_wire(data, continue_on_error=True)
            if not self._query.is_response(message):
                return None
            if message.flags & dns.flags.TC:
                return Reply(is_truncated=True)
            if message.errors:
                return Reply(error="malformed")
            rcode = message.rcode()
            if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return Reply(error=dns.rcode.to_text(rcode))
            chain = message.resolve_chaining()
        except Exception:  # noqa: BLE001 - whatever a hostile message makes dnspython raise, it is not readable
            return Reply(error="malformed")
        found = () if chain.answer is None else chain.answer
        reader = _READERS[self._kind]
        records = (reader(record, float(chain.minimum_ttl)) for record in found)
        return Reply(
            tuple(record for record in records if record is not None),
            float(chain.minimum_ttl),
            name_exists=rcode == dns.rcode.NOERROR,
        )
