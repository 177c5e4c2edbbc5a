"""A resolver that asks name servers itself: addresses, services, MX and SRV, with a cache on Trio's clock."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from socket import AF_INET, AF_INET6, AddressFamily
from typing import TYPE_CHECKING, Final, cast, final

import attrs
import trio
from trio.lowlevel import RunVar, checkpoint

from ..._answer import KIND_OF_FAMILY, Answer, MailRecord, ServiceRecord, SrvRecord
from ..._check import check_size
from ..._endpoint import Endpoint, EndpointLike
from ..._engine.dns_cache import CacheRules
from ..._engine.services import with_protocols
from ..._messages import local_lookup_error
from ..._text import shown
from ..race.errors import out_of_a_block, out_of_the_group
from . import system_files
from .dns_arguments import DNS_PORT, HTTPS, protocols, scheme_of, seconds_of, server_endpoints
from .dns_questions import Known, Questions
from .dns_wire import RecordType, Wire
from .localhost import LOOPBACK, is_localhost
from .resolve import MAX_HOST_BYTES, AnswersNow, check_host, cleaned, encoded, numeric, old_spelling

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["DnsResolver", "default_dns_resolver"]

HTTPS_PORT: Final = 443
DEFAULT_MAX_TTL: Final = 86_400.0
DEFAULT_MAX_NEGATIVE_TTL: Final = 900.0
DEFAULT_MAX_STALE: Final = 86_400.0
DEFAULT_CACHE_SIZE: Final = 4096


@final
class DnsResolver(AnswersNow):
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
    Failures are remembered for a second (RFC 9520). Of an answer no more is kept than can be used: 64 addresses, or the
    64 MX or SRV records, or the 16 HTTPS or SVCB records, of the best priorities.

    **Background.** Nothing runs: callers that wait do the work, and when the last one is cancelled its question is
    dropped. In ``async with DnsResolver() as resolver`` questions run in tasks of the block. There an answer that comes
    within a second after everybody has left still fills the cache, and a stale answer is renewed. A resolver that was
    entered can be used by everybody until the block is left, and after that as before.

    The cache belongs to one run of Trio.

    **Services.** ``DnsResolver(services="https", alpn=("h2", "http/1.1"))`` asks for the HTTPS records of a host too
    (RFC 9460), and `connect` then goes to the hosts and ports that they name. It is the caller who says what the
    service is: port 443 alone does not. Records for protocols that the caller does not speak are left out. A malformed
    record makes the whole answer an error, and is not asked for again within a minute.

    Args:
      servers: whom to ask, in order: numeric addresses, or endpoints for other ports than 53. None for the system's.
      services: the scheme of the service, "https" also for wss. Another one, such as "dns", has SVCB records at
        ``_port._scheme.host``. None asks for none.
      alpn: the protocols that the caller speaks. None for what "https" has by default, "http/1.1", and for any protocol
        of another scheme.
      optimistic: whether `connect` begins with an answer that has expired, while it is renewed. An address may have
        another owner by then, so this is for connections that prove whose they are, as TLS does.
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
        services: str | None = None,
        alpn: Sequence[str] | None = None,
        optimistic: bool = False,
        min_ttl: float = 0.0,
        max_ttl: float = DEFAULT_MAX_TTL,
        max_negative_ttl: float = DEFAULT_MAX_NEGATIVE_TTL,
        max_stale: float = DEFAULT_MAX_STALE,
        cache_size: int = DEFAULT_CACHE_SIZE,
    ) -> None:
        self._rules = CacheRules(
            min_ttl=seconds_of(min_ttl, "min_ttl"),
            max_ttl=seconds_of(max_ttl, "max_ttl"),
            max_negative_ttl=seconds_of(max_negative_ttl, "max_negative_ttl"),
            max_stale=seconds_of(max_stale, "max_stale"),
            size=check_size(cache_size, "cache_size", 1),
        )
        if min_ttl > max_ttl:
            raise ValueError(f"min_ttl must not be above max_ttl, got {shown(min_ttl)} and {shown(max_ttl)}")
        self._servers = None if servers is None else server_endpoints(servers)
        self._scheme = None if services is None else scheme_of(services)
        self._alpn = protocols(alpn, self._scheme)
        if not isinstance(optimistic, bool):
            raise TypeError(f"optimistic must be True or False, got {shown(optimistic)}")
        self._optimistic = optimistic
        if services is None:
            # Python's own sign for a method that is not offered, as in ``__hash__ = None``.
            self.services = None  # type: ignore[method-assign, assignment]  # pyright: ignore[reportAttributeAccessIssue]
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
        try:
            async with trio.open_nursery() as nursery:
                questions.nursery = nursery
                try:
                    yield
                except BaseException as exc:  # noqa: BLE001 - raised below; the nursery would wrap it in a group
                    crash = exc
                questions.nursery = None
                nursery.cancel_scope.cancel("the block of the resolver was left")
        except BaseException as exc:  # noqa: BLE001 - likewise
            crash = out_of_a_block(crash, out_of_the_group(exc))
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
          ValueError: it is not a possible name.
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
            other = AF_INET6 if family == AF_INET else AF_INET
            if mine.reply.records or (await self._ask(candidate, other)).reply.records:
                return _answer(mine)
        return _answer(await self._ask(candidates[-1], family))

    def _answers_now(self, host: str) -> Mapping[AddressFamily, Answer] | None:
        name = encoded(check_host(host))
        try:
            known = self._without_servers(host, name)
            if known is not None:
                return {family: cleaned(known, family) for family in (AF_INET6, AF_INET)}
            candidates = self._candidates(host, name)
        except OSError:
            return None  # which `addresses` will raise
        for candidate in candidates:
            found = {family: self._fresh(candidate, family) for family in (AF_INET6, AF_INET)}
            answers = {family: _answer(each) for family, each in found.items() if each is not None}
            if len(answers) < len(found):
                return None
            if candidate == candidates[-1] or any(each.addresses for each in answers.values()):
                return {family: cleaned(each, family) for family, each in answers.items()}
        raise AssertionError("there is always a candidate")

    async def mx(self, domain: str, /) -> Sequence[MailRecord]:
        """Return the mail hosts of a domain, see `MailResolver`. Their names are complete, with a closing dot.

        Args:
          domain: asked for as it is.

        Returns:
          The records; those whose host can have no address, for its name is malformed, are left out.

        Raises:
          OSError: see `addresses`.
          ValueError: it is not a possible name.
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
          ValueError: it is not a possible name.
        """
        known = await self._questions.ask(_key(encoded(check_host(name))), "SRV")
        return [
            SrvRecord(each.target, each.port, each.priority, each.weight, known.ttl)
            for each in cast("list[SrvRecord]", known.reply.records)
        ]

    async def services(self, host: str, port: int, /) -> Sequence[ServiceRecord]:
        """Return how the service of a host is reached, see `ServiceResolver`. None where no ``services`` was given.

        Args:
          host: a name.
          port: 443 of https is asked for at the host, another one at ``_port._https.host`` (RFC 9460 section 2.3); 0
            is for the target of an alias.

        Returns:
          The records for the protocols that the caller speaks, each with these alone. None for a host that is numeric,
          localhost, or in the hosts file.

        Raises:
          OSError: see `addresses`; also for a malformed record.
          ValueError: it is not a possible name.
        """
        name = encoded(check_host(host))
        if self._without_servers(host, name) is not None:
            await checkpoint()
            return ()
        kind: RecordType = "HTTPS" if self._scheme == HTTPS else "SVCB"
        as_it_is = port == 0 or (self._scheme == HTTPS and port == HTTPS_PORT)
        prefix = b"" if as_it_is else f"_{port}._{self._scheme}.".encode()
        candidates = self._candidates(host, name)
        for candidate in candidates:
            asked = _key(prefix + candidate)
            found: tuple[ServiceRecord, ...] = ()
            if len(asked) <= MAX_HOST_BYTES:
                known = await self._questions.ask(asked, kind)
                found = cast("tuple[ServiceRecord, ...]", known.reply.records)
            else:
                await checkpoint()  # nothing can be called so, and have records
            if prefix:
                # "." is the owner of the record, and that is not the host then (RFC 9460 section 2.5.2).
                owner = asked.decode() + "."
                found = tuple(attrs.evolve(each, target=owner) if each.target == "." else each for each in found)
            if found or candidate == candidates[-1] or await self._has_addresses(candidate):
                return found if self._alpn is None else with_protocols(found, self._alpn)
        raise AssertionError("there is always a candidate")

    async def _has_addresses(self, candidate: bytes) -> bool:
        for family in (AF_INET6, AF_INET):
            if (await self._ask(candidate, family)).reply.records:
                return True
        return False

    def stale(self, host: str, family: AddressFamily, /) -> Answer | None:
        """Return an expired answer to begin with, see `StaleResolver`; None unless ``optimistic`` was given.

        Args:
          host: as in `addresses`; of a relative name the first candidate counts.
          family: likewise.
        """
        if not self._optimistic:
            return None
        name = encoded(check_host(host))
        if self._without_servers(host, name) is not None:
            return None
        known = self._questions.stale(_key(self._candidates(host, name)[0]), KIND_OF_FAMILY[family])
        return None if known is None else _answer(known)

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

    def _fresh(self, name: bytes, family: AddressFamily) -> Known | None:
        return self._questions.fresh(_key(name), KIND_OF_FAMILY[family])

    async def _ask(self, name: bytes, family: AddressFamily) -> Known:
        return await self._questions.ask(_key(name), KIND_OF_FAMILY[family])

    def _without_servers(self, host: str, name: bytes) -> Answer | None:
        """Return the answer for a host that no server has to be asked for."""
        literal = numeric(host) or old_spelling(name)
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


@cache
def default_dns_resolver() -> DnsResolver:
    """Return the resolver of calls that need more than the system's can do. There is one, so that they share its cache.

    Raises:
      ImportError: see `DnsResolver`.
    """
    return DnsResolver()


def _key(name: bytes) -> bytes:
    return name.lower().removesuffix(b".")


def _answer(known: Known) -> Answer:
    return Answer(cast("tuple[str, ...]", known.reply.records), known.ttl, known.reply.name_exists)
