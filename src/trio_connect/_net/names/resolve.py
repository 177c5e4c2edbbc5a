"""From names to addresses: what a resolver is, the system's own, and one that is a dict.

Why one call per family: with one call for both, the slower answer holds up the faster, and a server that drops AAAA
queries turns each connect into a wait of seconds.

Why lookups have threads of their own: ``getaddrinfo`` cannot be interrupted, so a lookup that nobody waits for any more
stays in its thread until libc gives up, by default half a minute. In Trio's shared pool of threads 40 of these stop
every file access of the program too.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, SOCK_STREAM, AddressFamily
from typing import Any, Final, Protocol, final, runtime_checkable

import trio
from trio.lowlevel import RunVar, checkpoint, enable_ki_protection

from ..._answer import Answer
from ..._check import check_size
from ..._text import printable, shown

__all__ = ["Resolver", "StaticResolver", "SystemResolver"]

MAX_HOST_BYTES: Final = 253  # RFC 1035 section 3.1: 255 octets on the wire, less the first length and the root
MAX_LABEL_BYTES: Final = 63  # RFC 1035 section 2.3.4


@runtime_checkable
class Resolver(Protocol):
    """What finds the addresses of a host. Any object with this method will do."""

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        """Return the addresses of one family; called once per family, side by side, for hosts that are no addresses.

        Args:
          host: as the user gave it, checked by `check_host`; not encoded, perhaps with a trailing dot.
          family: `socket.AF_INET6` or `socket.AF_INET`.

        Returns:
          The answer; one without addresses when there are none. Addresses of another family are dropped by the caller.

        Raises:
          OSError: the resolver could not find out. It fails this lookup only. Any other exception ends the whole
            connect and is raised from there as it is.
        """
        ...


def numeric(host: str) -> str | None:
    """Return the normalised text of a numeric address (its zone kept), or None for a name.

    Numeric is what `ipaddress` takes. The other spellings of inet_aton(3), such as ``127.1`` or ``0x7f.1``, are names
    here and left to the resolver; the system's reads them as addresses.
    """
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def encoded(host: str) -> bytes:
    """Return a name as it is asked for: ASCII as it is, anything else by IDNA 2008, which is Trio's business.

    Raises:
      ValueError: it cannot be encoded.
    """
    return host.encode("ascii") if host.isascii() else trio.lowlevel.encode_hostname(host)


def check_host(host: object) -> str:
    """Return the host of a connect, or say what is wrong with it; nothing is looked up.

    Raises:
      TypeError: not a str.
      ValueError: empty, too long, or with a character that no name can have.
    """
    if not isinstance(host, str):
        raise TypeError(f"a host is a str with a name or a numeric address, got {shown(host)}")
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
    """Return an answer of any resolver with normalised addresses of this family only, each once.

    Raises:
      TypeError: it is no Answer.
      ValueError: an address in it is not numeric.
    """
    if not isinstance(answer, Answer):
        raise TypeError(f"a resolver returns an Answer, got {shown(answer)}")
    version = 6 if family == AF_INET6 else 4
    addresses: dict[str, None] = {}
    for text in answer.addresses:
        try:
            address = ip_address(text)
        except ValueError:
            raise ValueError(f"a resolver answers with numeric addresses, got {shown(text)}") from None
        if address.version == version:
            addresses[str(address)] = None
    if len(addresses) == len(answer.addresses) and all(map(str.__eq__, addresses, answer.addresses)):
        return answer
    return Answer(tuple(addresses), answer.ttl, answer.name_exists)


# ---------------------------------------------------------------------- the system's resolver

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
    """The resolver of the operating system, in threads: ``getaddrinfo`` once for each family.

    A hostname resolver installed by `trio.socket.set_custom_hostname_resolver` is asked instead, without a thread.

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
            raise ValueError(f"max_threads must be at least concurrency ({concurrency}), got {max_threads!r}")
        self._concurrency = concurrency
        self._max_threads = max_threads
        # By run, because a thread that outlives its run never gives its slot back (`trio.to_thread.run_sync`).
        self._limiters: RunVar[tuple[trio.CapacityLimiter, trio.CapacityLimiter]] = RunVar("system resolver limiters")

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        """Return the addresses of one family, see `Resolver`.

        Zones of link-local addresses are kept, as indexes. A numeric host is its own answer and takes no thread.

        ``EAI_NONAME`` makes an answer with ``name_exists=False``. Linux says it for NXDOMAIN, but also when a hosts
        file has the name for the other family only; macOS and Windows say it for every empty answer.

        Raises:
          socket.gaierror: the system could not find out; ``errno`` is its EAI code.
          ValueError: see `check_host`.
        """
        address = numeric(check_host(host))
        if address is not None:
            await checkpoint()
            return cleaned(Answer((address,)), family)
        try:
            found = await self._getaddrinfo(host, family)
        except socket.gaierror as exc:
            if exc.errno not in _NEGATIVE:
                raise
            return Answer(name_exists=exc.errno != _NO_NAME)
        return cleaned(Answer(tuple(_with_zone(entry[4]) for entry in found if entry[0] == family)), family)

    async def _getaddrinfo(self, host: str, family: AddressFamily) -> list[Any]:
        if custom_resolver() is not None:
            return list(await trio.socket.getaddrinfo(host, 0, family=family, type=SOCK_STREAM))
        running, threads = self._limits()
        # The slot to run is given back on cancellation, the one for the thread only when the thread has ended.
        async with running:
            return await trio.to_thread.run_sync(
                socket.getaddrinfo, encoded(host), 0, family, SOCK_STREAM, abandon_on_cancel=True, limiter=threads
            )

    def _limits(self) -> tuple[trio.CapacityLimiter, trio.CapacityLimiter]:
        try:
            return self._limiters.get()
        except LookupError:
            limiters = trio.CapacityLimiter(self._concurrency), trio.CapacityLimiter(self._max_threads)
            self._limiters.set(limiters)
            return limiters


def _with_zone(sockaddr: tuple[Any, ...]) -> str:
    host: str = sockaddr[0]
    zone = sockaddr[3] if len(sockaddr) == 4 else 0
    return f"{host}%{zone}" if zone and "%" not in host else host


SYSTEM_RESOLVER: Final = SystemResolver()
"""Who is asked when the caller names nobody. One for all, so that its limits hold for the program."""


# ---------------------------------------------------------------------- a dict


def _key(host: str) -> bytes:
    # RFC 4343: names are compared without case. A trailing dot only says that the name is complete.
    return encoded(host).lower().removesuffix(b".")


@final
class StaticResolver:
    """A resolver that knows its answers: for tests, pinned hosts and closed networks. It never asks anybody.

    Args:
      hosts: the address or addresses of each name, of both families, in the order to answer with. Names are compared
        without case and without a trailing dot. An empty sequence makes a name that exists and has no addresses;
        a name that is not in the mapping does not exist.

    Raises:
      TypeError: `hosts` is no mapping, or an entry has the wrong type.
      ValueError: a name is malformed, numeric or there twice, or an address is not numeric.
    """

    __slots__ = ("_answers",)

    def __init__(self, hosts: Mapping[str, str | Iterable[str]]) -> None:
        if not isinstance(hosts, Mapping):
            raise TypeError(f"hosts must be a mapping of names to addresses, got {shown(hosts)}")
        self._answers: dict[bytes, Answer] = {}
        for host, addresses in hosts.items():
            if numeric(check_host(host)) is not None:
                raise ValueError(f"a numeric host is its own answer and cannot have another, got {shown(host)}")
            if _key(host) in self._answers:
                raise ValueError(f"hosts names {shown(host)} twice: case and a trailing dot do not count")
            answer = Answer((addresses,) if isinstance(addresses, str) else tuple(addresses))
            for family in (AF_INET, AF_INET6):
                cleaned(answer, family)
            self._answers[_key(host)] = answer

    async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
        """Return the addresses of one family, see `Resolver`.

        Raises:
          ValueError: see `check_host`.
        """
        address = numeric(check_host(host))
        answer = self._answers.get(_key(host)) if address is None else Answer((address,))
        await checkpoint()
        return Answer(name_exists=False) if answer is None else cleaned(answer, family)
