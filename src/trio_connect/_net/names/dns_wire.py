"""DNS messages: questions as bytes, and what answers say. The only module that knows dnspython.

dnspython makes and reads the messages. Its resolver is not used: its clock is the wall's, and under a virtual one its
time limits never end. Nor are its sockets: they do not know a question that changes its waiter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, final

import attrs

from ..._answer import LookupKind, MailRecord, ServiceRecord, SrvRecord
from ..._engine import services
from ..._engine.race import MAX_RACED
from .dns_arguments import HTTP_1_1
from .resolve import check_host

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["Question", "RecordType", "Reply", "Wire"]

_MISSING: Final = "DnsResolver needs dnspython 2.9 or later: install the extra, trio-connect[dns]"

RecordType: TypeAlias = LookupKind | Literal["SVCB"]
Record: TypeAlias = str | MailRecord | SrvRecord | ServiceRecord


@attrs.frozen
class Reply:
    """What a server has answered."""

    records: tuple[Record, ...] = ()
    """Those that can come to be used, see `_kept`: an answer has room for 4,000."""
    ttl: float = 0.0
    """For how long, negative answers too (RFC 2308 section 5)."""
    name_exists: bool = True
    error: str | None = None
    """Why this is no answer: the server's error code, or that its message cannot be read."""
    is_final: bool = False
    """Of an error: no other server is to be asked. RFC 9460 section 2.2 wants a malformed record to end the matter."""
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


def _address(record: Any, _ttl: float, _owner: str) -> Record | None:
    address: str = record.address
    return address


def _mail(record: Any, ttl: float, _owner: str) -> Record | None:
    host = _absolute(record.exchange)
    return None if host is None else MailRecord(host, record.preference, ttl)


def _located(record: Any, ttl: float, _owner: str) -> Record | None:
    target = _absolute(record.target)
    return None if target is None else SrvRecord(target, record.port, record.priority, record.weight, ttl)


def _https(record: Any, ttl: float, owner: str) -> Record | None:
    # What a service of HTTPS speaks unless it says otherwise (RFC 9460 section 9.5).
    return _service(record, ttl, owner, (HTTP_1_1,))


def _service(record: Any, _ttl: float, owner: str, default_alpn: tuple[str, ...] = ()) -> Record | None:
    target = _absolute(record.target)
    if target is None:
        return None
    if record.priority == 0:
        return ServiceRecord(priority=0, target=target)
    # "." is the owner of the record, which is another name than was asked for behind a CNAME (RFC 9460 section 2.5.2).
    target = owner if target == "." else target
    params = {_param_name(key): value for key, value in record.params.items()}
    own = tuple(each.decode("latin-1") for each in params["alpn"].ids) if "alpn" in params else ()
    return ServiceRecord(
        priority=record.priority,
        target=target,
        port=params["port"].port if "port" in params else None,
        alpn=own if "no-default-alpn" in params else (*own, *(each for each in default_alpn if each not in own)),
        ipv4hint=params["ipv4hint"].addresses if "ipv4hint" in params else (),
        ipv6hint=params["ipv6hint"].addresses if "ipv6hint" in params else (),
        mandatory=[_param_name(key) for key in params["mandatory"].keys] if "mandatory" in params else (),
    )


_NAMED: Final = {0: "mandatory", 1: "alpn", 2: "no-default-alpn", 3: "port", 4: "ipv4hint", 5: "ech", 6: "ipv6hint"}


def _param_name(key: Any) -> str:
    """Return the name of a parameter (RFC 9460 section 14.3.2)."""
    return _NAMED.get(int(key), f"key{int(key)}")


_READERS: Final[dict[RecordType, Callable[[Any, float, str], Record | None]]] = {
    "A": _address, "AAAA": _address, "MX": _mail, "SRV": _located, "HTTPS": _https, "SVCB": _service,
}  # fmt: skip


def _kept(records: Iterable[Record], kind: RecordType) -> tuple[Record, ...]:
    """Return the records that are used at most: they are cached, and how many there are is the zone owner's choice."""
    if kind in ("HTTPS", "SVCB"):
        return services.best(cast("Iterable[ServiceRecord]", records))
    if kind in ("MX", "SRV"):
        records = sorted(records, key=attrgetter("preference" if kind == "MX" else "priority"))
    return tuple(islice(records, MAX_RACED))


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

    def question(self, name: bytes, kind: RecordType) -> Question:
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

    def __init__(self, dns: _Dns, query: Any, kind: RecordType) -> None:
        self._dns = dns
        self._query = query
        self._kind: RecordType = kind
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
                return self._malformed()
            rcode = message.rcode()
            if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return Reply(error=dns.rcode.to_text(rcode))
            chain = message.resolve_chaining()
        except Exception:  # noqa: BLE001 - whatever a hostile message makes dnspython raise, it is not readable
            return self._malformed()
        found = () if chain.answer is None else chain.answer
        reader = _READERS[self._kind]
        owner = "." if not chain.cnames else chain.canonical_name.to_text()
        records = (reader(record, float(chain.minimum_ttl), owner) for record in found)
        return Reply(
            _kept((record for record in records if record is not None), self._kind),
            float(chain.minimum_ttl),
            name_exists=rcode == dns.rcode.NOERROR,
        )

    def _malformed(self) -> Reply:
        is_final = self._kind in ("HTTPS", "SVCB")
        return Reply(error=f"a malformed {self._kind} record" if is_final else "malformed", is_final=is_final)
