"""The names of a virtual network: per name and family an answer, a delay, an error, or no answer ever.

`getaddrinfo` asks for both families at once and returns when both have answered, as in libc: one slow family delays the
other. The failure of one family does not hide the answer of the other.
"""

from __future__ import annotations

import math
import socket
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import attrs
import trio

from ._address import LOOPBACK, canonical, dressed, family_of, several
from ._arguments import check_int, check_number, shown
from ._fabric import Fabric
from ._trace import NameLookup

RecordKind = Literal["A", "AAAA"]
_KIND: dict[int, RecordKind] = {socket.AF_INET: "A", socket.AF_INET6: "AAAA"}


@attrs.frozen
class Answer:
    """What a name has in one family: addresses (none is an empty answer) or an error, after a delay (inf: never)."""

    addresses: tuple[str, ...] = ()
    delay: float = 0.0
    error: int | BaseException | None = None


@attrs.frozen
class Name:
    """The answers of one name."""

    a: Answer
    aaaa: Answer
    order: tuple[str, ...]

    @classmethod
    def of(
        cls,
        addresses: Iterable[str],
        a: Iterable[str],
        aaaa: Iterable[str],
        a_delay: float,
        aaaa_delay: float,
        a_error: int | BaseException | None,
        aaaa_error: int | BaseException | None,
    ) -> Name:
        """Sort addresses by family and check everything.

        Raises:
          ValueError: an address of the wrong family or not numeric, or a negative delay.
        """
        order = several("addresses", addresses)
        for family, given in ((socket.AF_INET6, several("aaaa", aaaa)), (socket.AF_INET, several("a", a))):
            for address in given:
                if family_of(address) != family:
                    raise ValueError(f"{address} is not an address for a record of type {_KIND[family]}")
                order.append(address)
        for delay in (a_delay, aaaa_delay):
            if not check_number("a delay", delay, "a number of seconds") >= 0:
                raise ValueError(f"a delay must be >= 0 seconds (math.inf: never answers), not {shown(delay)}")
        for error in (a_error, aaaa_error):
            if error is not None and not isinstance(error, BaseException):
                check_int("an error", error, -(2**31), 2**31 - 1)
        four = tuple(address for address in order if family_of(address) == socket.AF_INET)
        six = tuple(address for address in order if family_of(address) == socket.AF_INET6)
        return cls(Answer(four, a_delay, a_error), Answer(six, aaaa_delay, aaaa_error), tuple(order))


class Names(trio.abc.HostnameResolver):
    """The resolver that a network installs."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self._names: dict[bytes, tuple[str, Name]] = {}
        self._asked: Counter[tuple[str, str]] = Counter()
        self.set("localhost", Name.of([LOOPBACK[socket.AF_INET6], LOOPBACK[socket.AF_INET]], (), (), 0, 0, None, None))

    def set(self, name: str, known: Name) -> None:
        """Add a name, or change its answers."""
        self._names[_key(name)] = _plain(name), known

    async def getaddrinfo(
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        self._fabric.check_usable()
        asked = host or ""
        number = _service(port, type, flags)
        if isinstance(port, str | bytes):
            # Trio answers what is numeric by itself, unless the port is the name of a service.
            try:
                return socket.getaddrinfo(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)
            except socket.gaierror as error:
                if error.errno != socket.EAI_NONAME:
                    raise
        if flags & socket.AI_NUMERICHOST:
            raise _gaierror(socket.EAI_NONAME)
        entry = self._names.get(_key(asked))
        if entry is None:
            name = _plain(asked.decode("ascii") if isinstance(asked, bytes) else asked)
            raise self._fabric.unknown(name, f"give it addresses with net.dns({name!r}, ...)")
        name, known = entry
        families = [socket.AF_INET6, socket.AF_INET] if not family else [socket.AddressFamily(family)]
        if family == socket.AF_INET6 and flags & socket.AI_V4MAPPED:
            families.append(socket.AF_INET)
        found = await self._ask(name, known, families)
        if family == socket.AF_INET6 and any(family_of(address) == family for address in found):
            found = [address for address in found if family_of(address) == family]
        kinds = [(kind, code) for kind, code in _KINDS if type in (0, kind) and proto in (0, code)]
        canonical_name = name if flags & socket.AI_CANONNAME else ""
        return [
            (shown, kind, code, canonical_name, dressed(shown, address, number))
            for address in found
            for shown in (socket.AddressFamily(family) if family else family_of(address),)
            for kind, code in kinds
        ]

    async def _ask(self, name: str, known: Name, families: list[socket.AddressFamily]) -> list[str]:
        """Ask for every family at once. The addresses come in the order in which the test gave them."""
        start = trio.current_time()
        questions: list[tuple[float, Answer, NameLookup]] = []
        for family in families:
            answer = known.a if family == socket.AF_INET else known.aaaa
            kind = _KIND[family]
            lookup = NameLookup(name, kind, self._asked[name, kind], self._fabric.elapsed())
            self._asked[name, kind] += 1
            self._fabric.recorder.asked(lookup)
            questions.append((answer.delay, answer, lookup))
        found: set[str] = set()
        errors: list[BaseException] = []
        try:
            await trio.lowlevel.checkpoint()
            for delay, answer, lookup in sorted(questions, key=lambda question: question[0]):
                if delay == math.inf:
                    await trio.sleep_forever()
                if delay > 0:
                    await trio.sleep_until(start + delay)
                error, outcome = _outcome(answer)
                self._fabric.recorder.answered(lookup, self._fabric.elapsed(), outcome)
                found.update(answer.addresses if error is None else ())
                if error is not None:
                    errors.append(error)
        finally:
            for _, _, lookup in questions:
                if lookup.ended is None:
                    self._fabric.recorder.answered(lookup, self._fabric.elapsed(), "cancelled")
        if found:
            return [address for address in known.order if address in found]
        if errors:
            raise errors[0]
        # EAI_NODATA for a name that exists without such addresses; glibc keeps the two apart, programs often do not.
        nodata: int = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)
        raise _gaierror(nodata if known.order else socket.EAI_NONAME)

    async def getnameinfo(self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int) -> tuple[str, str]:
        self._fabric.check_usable()
        await trio.lowlevel.checkpoint()
        address = canonical(sockaddr[0])
        service = str(sockaddr[1])
        if not flags & socket.NI_NUMERICSERV:
            try:
                service = socket.getservbyport(sockaddr[1], "udp" if flags & socket.NI_DGRAM else "tcp")
            except OSError:
                pass
        if not flags & socket.NI_NUMERICHOST:
            for name, known in self._names.values():
                if address in known.order:
                    return name, service
            if flags & socket.NI_NAMEREQD:
                raise _gaierror(socket.EAI_NONAME)
        return address, service


_KINDS = (
    (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    (socket.SOCK_RAW, 0),
)


def _plain(name: str) -> str:
    return name.rstrip(".").lower()


def _key(name: str | bytes) -> bytes:
    """Return a name as it is asked for, so that ``bücher.test`` is the name that connects ask for (IDNA 2008)."""
    if isinstance(name, str):
        name = name.encode("ascii") if name.isascii() else trio.lowlevel.encode_hostname(name)
    return name.rstrip(b".").lower()


def _outcome(answer: Answer) -> tuple[BaseException | None, str]:
    if answer.error is None:
        return None, " ".join(answer.addresses) or "empty"
    if isinstance(answer.error, BaseException):
        return answer.error, type(answer.error).__name__
    return _gaierror(answer.error), _EAI_NAMES.get(answer.error, str(answer.error))


_EAI_NAMES: dict[int, str] = {getattr(socket, name): name for name in dir(socket) if name.startswith("EAI_")}
_EAI_TEXTS = {
    "EAI_AGAIN": "Temporary failure in name resolution",
    "EAI_FAIL": "Non-recoverable failure in name resolution",
    "EAI_NODATA": "No address associated with hostname",
    "EAI_NONAME": "Name or service not known",
    "EAI_SERVICE": "Servname not supported for ai_socktype",
}


def _gaierror(number: int) -> socket.gaierror:
    name = _EAI_NAMES.get(number, str(number))
    return socket.gaierror(number, _EAI_TEXTS.get(name, name))


def _service(port: bytes | str | int | None, kind: int, flags: int) -> int:
    if port is None or isinstance(port, int):
        return port or 0
    text = port.decode("ascii") if isinstance(port, bytes) else port
    if text.isdigit():
        return int(text)
    if flags & socket.AI_NUMERICSERV:
        raise _gaierror(socket.EAI_NONAME)
    try:
        return socket.getservbyname(text, "udp" if kind == socket.SOCK_DGRAM else "tcp")
    except OSError:
        raise _gaierror(socket.EAI_SERVICE) from None
