"""The system's resolver: what getaddrinfo(3) answers for both families, asked for one family at a time.

One call per family, because with one call for both the slower answer delays the faster, and a server that drops AAAA
queries turns each connect into a wait of seconds.

One call for both has two advantages, which are kept here. The C library asks the hosts file for both families before it
asks DNS for either; with a call per family, a name that the hosts file has for IPv4 only is asked of DNS for IPv6. And
it walks the search list of a relative name once; two walks can end at two hosts. So the hosts file is read here, the
search list is walked here, and where the system is set up in a way that is not known here (an LDAP directory, DNS
before the hosts file), one call asks for both families.

Lookups have threads of their own, because ``getaddrinfo`` cannot be interrupted: a cancelled lookup stays in its thread
until libc gives up, by default half a minute. In Trio's shared pool of threads, 40 of these would stop every file
access of the program too.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from socket import AF_INET, AF_INET6, AF_UNSPEC, SOCK_STREAM, AddressFamily
from typing import Any, Final, TypeAlias, final

import trio
from trio.lowlevel import ParkingLot, RunVar, checkpoint, enable_ki_protection

from ..._answer import Answer
from ..._check import check_size
from ..._engine.search_list import questions
from ..._engine.shortage import SHORTAGE
from ..._messages import local_lookup_error
from ..._text import shown
from . import system_files
from .localhost import LOOPBACK, is_localhost
from .resolve import check_host, cleaned, encoded, numeric, old_spelling

__all__ = ["SYSTEM_RESOLVER", "SystemLookup", "SystemResolver", "custom_resolver"]

_Outcome: TypeAlias = Answer | OSError

# getaddrinfo(3): "no network addresses in the specified address family", "does not have any network addresses defined",
# "the node is not known". The first two are not in POSIX, and macOS and Windows say EAI_NONAME for them.
_NO_NAME: Final = socket.EAI_NONAME
_NEGATIVE: Final = frozenset(
    {_NO_NAME, getattr(socket, "EAI_NODATA", _NO_NAME), getattr(socket, "EAI_ADDRFAMILY", _NO_NAME)}
)

DEFAULT_CONCURRENCY: Final = 64
DEFAULT_MAX_THREADS: Final = 512


@enable_ki_protection
def custom_resolver() -> trio.abc.HostnameResolver | None:
    """Return the hostname resolver that this run has installed, if any.

    Trio offers no other way to ask than to replace it; a KeyboardInterrupt between the two calls would leave the
    run without its resolver, hence the protection.
    """
    resolver = trio.socket.set_custom_hostname_resolver(None)
    if resolver is not None:
        trio.socket.set_custom_hostname_resolver(resolver)
    return resolver


@final
class SystemResolver:
    """The resolver of the operating system, in threads: ``getaddrinfo``, in most cases once for each family.

    - A name that the hosts file has for either family is answered from it alone; nothing is asked of DNS.
    - A relative name has both families from one candidate of the search list of resolv.conf(5).
    - ``localhost`` and what ends in it is loopback, unless the hosts file says otherwise; no server is asked (RFC 6761
      section 6.3).
    - Where nsswitch.conf(5) names a service that is not known here, or DNS before the hosts file, one call asks for
      both families, and the faster one waits for the slower.

    A hostname resolver installed by `trio.socket.set_custom_hostname_resolver` is asked instead of all this, without a
    thread.

    A lookup that is cancelled returns at once, but its thread ends only when libc does. Such threads count towards
    `max_threads` and not towards `concurrency`, so that a name server which swallows the questions for one name
    does not hold up the lookups of others. When every thread is taken, new lookups wait for one.

    Answers have no ttl: ``getaddrinfo`` does not tell.

    Args:
      concurrency: how many lookups run at a time; more wait their turn. Each connect to a name makes two.
      max_threads: how many threads there are in all, with those of cancelled lookups.

    Raises:
      TypeError: a count is not an int.
      ValueError: a count is below 1, or there are fewer threads than lookups at a time.
    """

    __slots__ = ("_concurrency", "_limiters", "_max_threads")

    def __init__(self, *, concurrency: int = DEFAULT_CONCURRENCY, max_threads: int = DEFAULT_MAX_THREADS) -> None:
        for name, value in (("concurrency", concurrency), ("max_threads", max_threads)):
            check_size(value, name, 1)
        if max_threads < concurrency:
            raise ValueError(f"max_threads must be at least concurrency ({concurrency}), got {shown(max_threads)}")
        self._concurrency = concurrency
        self._max_threads = max_threads
        # By run, because a thread that outlives its run never gives its slot back (`trio.to_thread.run_sync`).
        self._limiters: RunVar[tuple[trio.CapacityLimiter, trio.CapacityLimiter]] = RunVar("system resolver limiters")

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        """Return the addresses of one family, see `Resolver`.

        Zones of link-local addresses are kept, as indexes. A numeric host is its own answer and takes no thread.

        ``EAI_NONAME`` makes an answer with ``name_exists=False``. Linux says it for NXDOMAIN; macOS and Windows say it
        for every empty answer.

        Args:
          host: a name or a numeric address.
          family: `socket.AF_INET6` or `socket.AF_INET`.

        Returns:
          The addresses that the system has for the host.

        Raises:
          socket.gaierror: the system could not find out; ``errno`` is its EAI code.
          OSError: this process is short of descriptors or memory, or (EAGAIN) no thread can be started; the text begins
            with "local:".
          ValueError: it is not a possible name.
        """
        return await SystemLookup(self, check_host(host)).addresses(family)

    async def ask(self, name: bytes, family: AddressFamily) -> _Outcome:
        """Return what getaddrinfo(3) says, in a thread.

        Args:
          name: encoded.
          family: AF_UNSPEC for both.

        Raises:
          OSError: trouble of this process or machine.
        """
        running, threads = self.limits()
        # The slot to run is given back on cancellation, the one for the thread only when the thread has ended.
        async with running:
            try:
                found = await trio.to_thread.run_sync(
                    socket.getaddrinfo, name, 0, family, SOCK_STREAM, abandon_on_cancel=True, limiter=threads
                )
            except RuntimeError as exc:
                # threading.Thread.start, where pthread_create(3) says EAGAIN: RLIMIT_NPROC, or a pids cgroup.
                raise local_lookup_error(errno.EAGAIN, name.decode(), f"no thread can be started ({exc})") from exc
            except socket.gaierror as exc:
                return _negative(exc)
            except OSError as exc:
                if exc.errno in SHORTAGE:
                    raise local_lookup_error(exc.errno, name.decode()) from exc
                return exc
        return _answer(found, family)

    def limits(self) -> tuple[trio.CapacityLimiter, trio.CapacityLimiter]:
        """Return the limiters of this run: of lookups under way, and of threads."""
        try:
            return self._limiters.get()
        except LookupError:
            limiters = trio.CapacityLimiter(self._concurrency), trio.CapacityLimiter(self._max_threads)
            self._limiters.set(limiters)
            return limiters


@final
class SystemLookup:
    """The lookup of one name with the system: what the two families have in common is asked once.

    Args:
      resolver: whose threads are used.
      host: what `check_host` has passed.
    """

    __slots__ = ("_asking", "_host", "_lot", "_name", "_outcomes", "_plan", "_resolver", "custom")

    def __init__(self, resolver: SystemResolver, host: str) -> None:
        self._resolver = resolver
        self._host = host
        self._name = encoded(host)
        self.custom = custom_resolver()
        """What this run has installed."""
        self._plan: Answer | tuple[bytes, ...] | None = None
        self._outcomes: dict[tuple[bytes, AddressFamily], _Outcome] = {}
        self._asking: set[tuple[bytes, AddressFamily]] = set()
        self._lot = ParkingLot()

    async def addresses(self, family: AddressFamily) -> Answer:
        """Return the addresses of one family; to be called once for each, side by side or not.

        Raises:
          OSError: see `SystemResolver.addresses`.
        """
        if (address := numeric(self._host)) is not None:
            await checkpoint()
            return cleaned(Answer((address,)), family)
        if self.custom is not None:
            return _of(await self._ask_custom(self.custom, family), family)
        try:
            plan = self._plan = self._plan or self._make_plan()
        except OSError as exc:
            await checkpoint()
            raise local_lookup_error(exc.errno, self._host) from exc
        if isinstance(plan, Answer):
            await checkpoint()
            return cleaned(plan, family)
        if len(plan) == 1:
            return _of(await self._resolver.ask(plan[0], family), family)
        outcome = await self._walk(plan, family) if plan else None
        if outcome is not None:
            return _of(outcome, family)
        return _of(await self._outcome(self._name, AF_UNSPEC), family)

    def answers_now(self) -> dict[AddressFamily, Answer] | None:
        """Return the answers of both families where no server is needed for them; None where one is, or may be."""
        if self.custom is not None or numeric(self._host) is not None:
            return None
        try:
            plan = self._plan = self._plan or self._make_plan()
        except OSError:
            return None  # which `addresses` will raise
        return {family: cleaned(plan, family) for family in (AF_INET6, AF_INET)} if isinstance(plan, Answer) else None

    async def _ask_custom(self, custom: trio.abc.HostnameResolver, family: AddressFamily) -> _Outcome:
        try:
            if self._name[:1].isdigit() or not self._host.isascii():
                found = await trio.socket.getaddrinfo(self._name, 0, family, SOCK_STREAM)
            else:
                # Which comes down to this for what cannot spell a number, at a tenth of the cost.
                found = await custom.getaddrinfo(self._name, 0, family, SOCK_STREAM, 0, 0)
        except socket.gaierror as exc:
            return _negative(exc)
        return _answer(found, family)

    def _make_plan(self) -> Answer | tuple[bytes, ...]:
        """Return an answer that needs no server, or the names to ask for; no names means one call for both families."""
        if old_spelling(self._name) is not None:
            return (self._name,)  # getaddrinfo(3) takes them all; a search list, or a server, has no say
        services = system_files.name_services()
        if services.hosts_file:
            found = system_files.hosts_file().addresses(self._name)
            if found:
                return Answer(found)
        if is_localhost(self._name):
            return LOOPBACK
        return questions(self._name, services, system_files.search_list())

    async def _walk(self, names: tuple[bytes, ...], family: AddressFamily) -> _Outcome | None:
        """Go through the candidates of the search list until one has an address of either family.

        Returns:
          What the family's question about that candidate came to; None when that cannot be told, because a candidate
          before it could not be looked up. The C library goes on after SERVFAIL and gives up at a timeout, and
          getaddrinfo(3) has one code for both, so only the library itself can be asked.
        """
        other = AF_INET if family == AF_INET6 else AF_INET6
        mine: _Outcome = Answer(name_exists=False)
        for name in names:
            mine = await self._outcome(name, family)
            if isinstance(mine, Answer) and mine.addresses:
                return mine
            theirs = await self._outcome(name, other)
            if isinstance(theirs, OSError):
                return None
            if theirs.addresses:
                return mine
            if isinstance(mine, OSError):
                return None
        return mine

    async def _outcome(self, name: bytes, family: AddressFamily) -> _Outcome:
        """Return the outcome of a question, which the first of the two families asks for both."""
        key = name, family
        while key not in self._outcomes:
            if key in self._asking:
                await self._lot.park()
                continue
            self._asking.add(key)
            try:
                self._outcomes[key] = await self._resolver.ask(name, family)
            finally:
                self._asking.discard(key)
                self._lot.unpark_all()
        return self._outcomes[key]


def _answer(found: Iterable[tuple[Any, ...]], family: AddressFamily) -> Answer:
    families = (AF_INET, AF_INET6) if family == AF_UNSPEC else (family,)
    return Answer(tuple(_with_zone(entry[4]) for entry in found if entry[0] in families))


def _negative(error: socket.gaierror) -> _Outcome:
    return Answer(name_exists=error.errno != _NO_NAME) if error.errno in _NEGATIVE else error


def _of(outcome: _Outcome, family: AddressFamily) -> Answer:
    if isinstance(outcome, OSError):
        try:
            raise outcome
        finally:
            del outcome  # its traceback holds this frame
    return cleaned(outcome, family)


def _with_zone(sockaddr: tuple[Any, ...]) -> str:
    host: str = sockaddr[0]
    zone = sockaddr[3] if len(sockaddr) == 4 else 0
    return f"{host}%{zone}" if zone and "%" not in host else host


SYSTEM_RESOLVER: Final = SystemResolver()
"""The default resolver. There is one, so that its limits hold for the whole program."""
