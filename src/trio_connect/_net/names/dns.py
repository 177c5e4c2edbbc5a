"""A resolver that asks name servers itself: A, AAAA, MX and SRV over UDP and TCP, with a cache on Trio's clock."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from socket import AF_INET, AF_INET6, AddressFamily
from typing import TYPE_CHECKING, Final, cast, final

import trio
from trio.lowlevel import RunVar, checkpoint

from ..._answer import KIND_OF_FAMILY, Answer, MailRecord, SrvRecord
from ..._check import check_float, check_size
from ..._endpoint import Endpoint, EndpointLike, as_endpoint, check_connectable
from ..._engine.dns_cache import CacheRules
from ..._messages import local_lookup_error
from ..._text import shown
from . import system_files
from .dns_questions import Known, Questions
from .dns_wire import Wire
from .localhost import LOOPBACK, is_localhost
from .resolve import check_host, cleaned, encoded, numeric

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["DnsResolver"]

DNS_PORT: Final = 53
DEFAULT_MAX_TTL: Final = 86_400.0
DEFAULT_MAX_NEGATIVE_TTL: Final = 900.0
DEFAULT_MAX_STALE: Final = 86_400.0
DEFAULT_CACHE_SIZE: Final = 4096


@final
class DnsResolver:
    """A resolver that asks name servers itself, with dnspython (extra ``dns``) for the messages.

    ``DnsResolver()`` asks the servers of this system, and has the system's rules:

    - The servers are those of resolv.conf(5), all of them, in their order. When the file changes, the next question
      goes to the new ones. Its options ``timeout``, ``attempts`` and ``rotate`` are not read.
    - A name that the hosts file has for either family is answered from it alone, where nsswitch.conf(5) has ``files``
      first. Other services than files and DNS are not known here: for LDAP or multicast names take `SystemResolver`.
    - A relative name is completed by the search list of resolv.conf(5), and both families come from the same candidate.

    With ``servers``, names are asked as they are: neither the hosts file nor the search list counts, for these
    belong to the system's servers. ``localhost`` and what ends in it is loopback always (RFC 6761 section 6.3).

    **Servers.** A question goes to the first server; the next one is asked after a second of silence, or at once when
    a server answers with an error. Answers count whoever they come from. A question fails after 10 seconds. A server
    that was silent goes behind the others, and is tried again after half a minute beside another one: so a dead one
    costs its second once. Answers that are cut off are asked for again over TCP.

    **Cache.** Answers are kept for their ttl on Trio's clock, negative ones too (RFC 2308). Equal questions at one time
    are one. When no server answers, or not within 1.8 seconds, an answer that has expired stands in (RFC 8767).
    Failures are remembered for a second (RFC 9520).

    **Background.** There is none: callers that wait do the work, and when the last one is cancelled its question is
    dropped. In ``async with DnsResolver() as resolver`` questions run in tasks of the block. There an answer that comes
    within a second after everybody has left still fills the cache, and a stale answer is renewed. A resolver that was
    entered can be used by everybody until the block is left, and after that as before.

    The cache belongs to one run of Trio.

    Args:
      servers: whom to ask, in order: numeric addresses, or endpoints for other ports than 53. None for the system's.
      min_ttl: seconds that answers are kept at least. Those whose ttl is 0 say that they are not to be kept.
      max_ttl: seconds that answers are kept at most.
      max_negative_ttl: likewise, for answers without records.
      max_stale: seconds after its expiry for which an answer may still stand in.
      cache_size: how many answers are kept.

    Raises:
      ImportError: dnspython is missing, or too old; the text names the extra.
      TypeError: an argument has the wrong type.
      ValueError: there are no servers, one is a name, or a number is out of range.
    """

    def __init__(
        self,
        servers: Iterable[str | EndpointLike] | None = None,
        *,
        min_ttl: float = 0.0,
        max_ttl: float = DEFAULT_MAX_TTL,
        max_negative_ttl: float = DEFAULT_MAX_NEGATIVE_TTL,
        max_stale: float = DEFAULT_MAX_STALE,
        cache_size: int = DEFAULT_CACHE_SIZE,
    ) -> None:
        self._rules = CacheRules(
            min_ttl=_seconds(min_ttl, "min_ttl"),
            max_ttl=_seconds(max_ttl, "max_ttl"),
            max_negative_ttl=_seconds(max_negative_ttl, "max_negative_ttl"),
            max_stale=_seconds(max_stale, "max_stale"),
            size=check_size(cache_size, "cache_size", 1),
        )
        if min_ttl > max_ttl:
            raise ValueError(f"min_ttl must not be above max_ttl, got {shown(min_ttl)} and {shown(max_ttl)}")
        self._servers = None if servers is None else _endpoints(servers)
        self._wire = Wire()
        self._runs: RunVar[Questions] = RunVar("questions of a DNS resolver")
        self._block: AbstractAsyncContextManager[None] | None = None

    def __repr__(self) -> str:
        return "DnsResolver()" if self._servers is None else f"DnsResolver({[str(each) for each in self._servers]})"

    async def __aenter__(self) -> DnsResolver:
        if self._block is not None:
            raise RuntimeError("this DnsResolver has been entered already")
        self._block = self._open()
        try:
            await self._block.__aenter__()
        except BaseException:
            self._block = None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        block, self._block = self._block, None
        assert block is not None
        await block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[None, None]:
        questions = self._questions
        crash: BaseException | None = None
        async with trio.open_nursery() as nursery:
            questions.nursery = nursery
            try:
                yield
            except BaseException as exc:  # noqa: BLE001 - raised below; the nursery would wrap it in a group
                crash = exc
            questions.nursery = None
            nursery.cancel_scope.cancel("the block of the resolver was left")
        if crash is not None:
            try:
                raise crash
            finally:
                del crash

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        """Return the addresses of one family, see `Resolver`.

        Args:
          host: a name or a numeric address, which is its own answer.
          family: `socket.AF_INET6` or `socket.AF_INET`.

        Returns:
          What the servers, or the system's files, have for the host; `ttl` is what is left of it.

        Raises:
          socket.gaierror: EAI_AGAIN, no server has answered; the text says what each of them did.
          OSError: this process is short of descriptors or memory; the text begins with "local:".
          ValueError: see `check_host`.
        """
        name = encoded(check_host(host))
        known = self._without_servers(host, name)
        if known is not None:
            await checkpoint()
            return cleaned(known, family)
        candidates = self._candidates(host, name)
        for candidate in candidates[:-1]:
            mine = await self._ask(candidate, family)
            # The families must not come from two hosts: the one that has the other family is the host.
            if (
                mine.reply.records
                or (await self._ask(candidate, AF_INET6 if family == AF_INET else AF_INET)).reply.records
            ):
                return _answer(mine)
        return _answer(await self._ask(candidates[-1], family))

    async def mx(self, domain: str, /) -> Sequence[MailRecord]:
        """Return the mail hosts of a domain, see `MailResolver`. Their names are complete, with a closing dot.

        Args:
          domain: asked for as it is.

        Returns:
          The records; those whose host can have no address, for its name is malformed, are left out.

        Raises:
          OSError: see `addresses`.
          ValueError: see `check_host`.
        """
        known = await self._questions.ask(_key(encoded(check_host(domain))), "MX")
        return [
            MailRecord(each.host, each.preference, known.ttl) for each in cast("list[MailRecord]", known.reply.records)
        ]

    async def srv(self, name: str, /) -> Sequence[SrvRecord]:
        """Return the hosts of a service, see `SrvResolver`. Their names are complete, with a closing dot.

        Args:
          name: such as ``_sip._tcp.example.org``, asked for as it is.

        Returns:
          The records; see `mx`.

        Raises:
          OSError: see `addresses`.
          ValueError: see `check_host`.
        """
        known = await self._questions.ask(_key(encoded(check_host(name))), "SRV")
        return [
            SrvRecord(each.target, each.port, each.priority, each.weight, known.ttl)
            for each in cast("list[SrvRecord]", known.reply.records)
        ]

    @property
    def _questions(self) -> Questions:
        try:
            return self._runs.get()
        except LookupError:
            questions = Questions(self._wire, self._whom_to_ask, self._rules)
            self._runs.set(questions)
            return questions

    def _whom_to_ask(self) -> Sequence[Endpoint]:
        if self._servers is not None:
            return self._servers
        # Windows has no such file.
        servers = self._wire.system_servers() if sys.platform == "win32" else system_files.name_servers()
        return tuple(Endpoint(server, DNS_PORT) for server in servers)

    async def _ask(self, name: bytes, family: AddressFamily) -> Known:
        return await self._questions.ask(_key(name), KIND_OF_FAMILY[family])

    def _without_servers(self, host: str, name: bytes) -> Answer | None:
        """Return the answer for a host that no server has to be asked for."""
        literal = numeric(host) or _old_spelling(name)
        if literal is not None:
            return Answer((literal,))
        if self._servers is None:
            try:
                found = system_files.hosts_file().addresses(name) if system_files.name_services().hosts_file else ()
            except OSError as exc:
                raise local_lookup_error(exc.errno, host) from exc
            if found:
                return Answer(found)
        return LOOPBACK if is_localhost(name) else None

    def _candidates(self, host: str, name: bytes) -> tuple[bytes, ...]:
        if self._servers is not None:
            return (name,)
        try:
            return system_files.resolv_conf_search_list().candidates(name)
        except OSError as exc:
            raise local_lookup_error(exc.errno, host) from exc


def _key(name: bytes) -> bytes:
    return name.lower().removesuffix(b".")


def _answer(known: Known) -> Answer:
    return Answer(cast("tuple[str, ...]", known.reply.records), known.ttl, known.reply.name_exists)


def _old_spelling(name: bytes) -> str | None:
    # inet_aton(3) knows more spellings of an IPv4 address, such as 127.1 and 0x7f.1. The system's resolver takes them.
    if not name[:1].isdigit():
        return None
    try:
        return socket.inet_ntoa(socket.inet_aton(name.decode()))
    except OSError:
        return None


def _seconds(value: float, name: str) -> float:
    seconds = check_float(value, name, "a number of seconds")
    if not 0 <= seconds < inf:
        raise ValueError(f"{name} must be at least 0 seconds and finite, got {shown(value)}")
    return seconds


def _endpoints(servers: object) -> tuple[Endpoint, ...]:
    if isinstance(servers, str | bytes | Endpoint) or not isinstance(servers, Iterable):
        raise TypeError(f"servers must be a sequence of addresses or endpoints, got {shown(servers)}")
    found: dict[Endpoint, None] = {}
    for each in cast("Iterable[str | EndpointLike]", servers):
        endpoint = Endpoint(each, DNS_PORT) if isinstance(each, str) else as_endpoint(each)
        check_connectable(endpoint)
        found[endpoint] = None
    if not found:
        raise ValueError("servers must not be empty; None is for those of the system")
    return tuple(found)
