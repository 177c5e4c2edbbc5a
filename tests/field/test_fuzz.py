"""Report 29: whatever a public callable is given, it says TypeError or ValueError at the call, or does its work.

Each case calls one public callable with good arguments, one or two of them replaced by hostile ones: numbers without
end, NaN, bools, texts for numbers, numbers for texts, objects whose repr raises. Waiting is in virtual time.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import linecache
import math
import random
import signal
import socket
import ssl
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs
import pytest
import trio
import trio.testing

import trio_connect
from tests.support.streams import KINDS, listening, pair
from trio_connect import (
    Adaptive,
    Answer,
    ConnectReport,
    DnsResolver,
    Endpoint,
    History,
    MailRecord,
    Nat64,
    NetworkFilter,
    RacePolicy,
    ServiceRecord,
    SocketOptions,
    Source,
    SrvRecord,
    StaticResolver,
    SystemResolver,
    TcpListener,
    TcpStream,
    UnixListener,
    UnixStream,
    connect,
    connect_each,
    connect_srv,
    connectx,
    deadline_after,
    draw_timeline,
    fail_at,
    libdill,
    move_on_at,
    now,
    order_endpoints,
    queues,
    resolve,
    tcp_connect,
    tcp_listen,
    unix_connect,
    unix_listen,
)
from trio_connect.testing import Host, VirtualNetwork, VirtualNetworkError, echo

SOURCES = str(Path(trio_connect.__file__).parent)


class Text(str):
    """A str of another class."""

    __slots__ = ()


class Count(int):
    """An int of another class."""


class Wordless:
    """Its repr raises."""

    def __repr__(self) -> str:
        raise LookupError("no repr")


async def coroutine_function(*_args: object) -> None:
    """Do nothing, with any arguments."""


async def endpoints_to_come() -> AsyncIterator[Any]:
    yield ("192.0.2.1", 443)
    yield ("192.0.2.2", 2**70)


INTS = (
    0,
    1,
    -1,
    -2,
    2,
    443,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32,
    2**40 - 1,
    2**40,
    2**63,
    2**70,
    10**400,
    -(10**400),
)
NUMBERS = (
    True, False, *INTS, Count(7), 0.0, -0.5, 0.01, 31.0, 250.0, 1e308, math.nan, math.inf, -math.inf, 1j,
    Fraction(1, 3), Decimal("NaN"), 10**5000,
)  # fmt: skip
TEXTS = (
    "", "x", " ", "127.0.0.1", "::1", "192.0.2.1", "fe80::1%nowhere", "a\0b", "\0abstract", "\ud800", "9" * 5000,
    "x" * 100_000, "bücher.test", Text("127.0.0.1"), b"", b"x", b"x" * 1000, bytearray(b"x"), memoryview(b"xy"), "-1",
    "80",
)  # fmt: skip
THINGS: tuple[Any, ...] = (
    None, (), [], {}, set(), ("127.0.0.1", 443), ("127.0.0.1", True), ("127.0.0.1", 2**70), ("name.test", 80),
    (1, 2, 3),
    ("::1", 443, 2**70, 0), ("::1", 443, 0, 2**70), [("127.0.0.1", "80")], [("127.0.0.1", 443), None], [None], range(3),
    Exception(), object(), int, len, coroutine_function, Wordless(), [Wordless()],
    Endpoint("192.0.2.1", 443),
    Endpoint("192.0.2.1", 0), Path("/nowhere"), Source(ipv4="192.0.2.9"), SocketOptions(), RacePolicy(),
    StaticResolver({}),
    memoryview(bytes(8)).cast("I"), bytearray(4), errno, ssl.CERT_NONE, socket.AF_INET6, signal.SIGINT,
)  # fmt: skip
HOSTILE: tuple[Any, ...] = (*NUMBERS, *TEXTS, *THINGS)

# What the system, a peer or a deadline says about good arguments. Queues and the libdill layer also say EINVAL,
# EBADF and the like by contract.
ANSWERS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError, VirtualNetworkError)


@attrs.frozen
class Target:
    """A callable and arguments that are good."""

    call: Callable[..., Any]
    arguments: Mapping[str, Any]
    skip: frozenset[str] = frozenset()
    """Arguments that are called, iterated over or belong to the caller, so that what they raise is theirs."""


def target(call: Callable[..., Any], *args: Any, skip: str = "", **arguments: Any) -> Target:
    names = [
        name
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    return Target(call, {**dict(zip(names, args, strict=False)), **arguments}, frozenset(skip.split()))


def invoke(call: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Call with arguments by name, those without a name by position."""
    rest = dict(arguments)
    positional: list[Any] = []
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY and name in rest:
            positional.append(rest.pop(name))
        elif parameter.kind is parameter.VAR_POSITIONAL and name in rest:
            positional.extend(rest.pop(name))
    return call(*positional, **rest)


def said_by_us(error: BaseException) -> bool:
    """Say whether the innermost frame is a ``raise`` of the library's own, or Python refusing the call as such."""
    traceback: TracebackType | None = error.__traceback__
    where = line = ""
    while traceback is not None:
        where = traceback.tb_frame.f_code.co_filename
        line = linecache.getline(where, traceback.tb_lineno)
        traceback = traceback.tb_next
    return where.startswith(SOURCES) and "raise" in line


async def judge(name: str, one: Target, arguments: Mapping[str, Any]) -> str:
    """Make one call and return what it did; anything but an answer about its arguments is raised."""
    with trio.move_on_after(1):
        try:
            result = invoke(one.call, arguments)
            if inspect.isawaitable(result):
                result = await result
            elif isinstance(result, contextlib.AbstractContextManager):
                with result:
                    pass
            elif isinstance(result, contextlib.AbstractAsyncContextManager) and name.startswith("open_"):
                async with result:
                    pass
        except (TypeError, ValueError) as exc:
            if not str(exc) or not said_by_us(exc):
                pytest.fail(f"not the library's own words: {exc!r}")
            return type(exc).__name__
        except ANSWERS as exc:
            return type(exc).__name__
        for thing in result if isinstance(result, tuple) else (result,):
            if isinstance(thing, TcpStream | UnixStream):
                thing.abort()
            elif isinstance(thing, TcpListener | UnixListener):
                thing.close()
        return "ok"
    return "waited"


class Fuzzer:
    """Cases without end out of one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()

    def hostile(self, key: str) -> Any:
        """Return something for an argument: no open descriptor of the test's own, no function that is then called."""
        while True:
            value = self.random.choice(HOSTILE)
            if key == "fd" and isinstance(value, int) and 0 <= value < 1 << 20:
                continue
            if callable(value) and key in ("establish", "observer", "handler", "main"):
                continue
            return value

    async def run(self, targets: Mapping[str, Target], cases: int) -> None:
        names = [name for name, one in targets.items() if one.arguments.keys() - one.skip]
        for number in range(cases):
            name = names[number % len(names)]
            one = targets[name]
            arguments = dict(one.arguments)
            mutable = sorted(arguments.keys() - one.skip)
            for key in self.random.sample(mutable, min(len(mutable), self.random.choice((1, 1, 2)))):
                arguments[key] = self.hostile(key)
                if name == "connectx" and key == "endpoints" and one.call is connectx and not self.random.randrange(8):
                    arguments[key] = endpoints_to_come()
            try:
                self.counts[await judge(name, one, arguments)] += 1
            except (Exception, BaseExceptionGroup) as exc:
                exc.add_note(f"case {number}: {name}({show(arguments)})")
                raise


def show(arguments: Mapping[str, Any]) -> str:
    shown = []
    for key, value in arguments.items():
        try:
            shown.append(f"{key}={value!r:.60}")
        except Exception:  # noqa: BLE001 - a value whose repr raises is one of the cases
            shown.append(f"{key}=<{type(value).__name__}>")
    return ", ".join(shown)


def of_values() -> dict[str, Target]:
    """Constructors and plain functions."""
    return {
        "Endpoint": target(Endpoint, "2001:db8::1", 443, 2, 0),
        "Endpoint.parse": target(Endpoint.parse, "192.0.2.1:443"),
        "Source": target(
            Source,
            ipv4="192.0.2.9",
            ipv6="2001:db8::9",
            interface="lo",
            port=0,
            proxy="socks5h://user:word@proxy.test:1080",
            proxy_resolves=True,
        ),
        "Adaptive": target(Adaptive, **attrs.asdict(Adaptive())),
        "History": target(
            History,
            size=10,
            retry_after=10.0,
            retry_at_most=300.0,
            explore_after=600.0,
            lifetime=3600.0,
            hedge_budget=1.0,
        ),
        "NetworkFilter": target(
            NetworkFilter,
            allow=["192.0.2.0/24"],
            deny=["192.0.2.1"],
            nat64_prefixes=["2001:db8:64::/96"],
            skip="allow deny nat64_prefixes",
        ),
        "Nat64": target(Nat64, ["64:ff9b::/96"], resolver=None, skip="prefixes"),
        "DnsResolver": target(
            DnsResolver,
            ["192.0.2.53"],
            services="https",
            alpn=["h2"],
            optimistic=True,
            min_ttl=0.0,
            max_ttl=60.0,
            max_negative_ttl=60.0,
            max_stale=60.0,
            cache_size=10,
            skip="servers alpn",
        ),
        "ServiceRecord": target(
            ServiceRecord,
            priority=1,
            target="a.test",
            port=443,
            alpn=["h2"],
            ipv4hint=["192.0.2.1"],
            ipv6hint=["2001:db8::1"],
            mandatory=["alpn"],
        ),
        "SrvRecord": target(SrvRecord, "a.test", 443, 1, 1, 60.0),
        "MailRecord": target(MailRecord, "mx.test", 10, 60.0),
        "RacePolicy": target(RacePolicy, **attrs.asdict(RacePolicy())),
        "SocketOptions": target(SocketOptions, **attrs.asdict(SocketOptions())),
        "Answer": target(Answer, ("192.0.2.1",), 60.0, True),
        "StaticResolver": target(StaticResolver, {"name.test": ["192.0.2.1"]}),
        "SystemResolver": target(SystemResolver, concurrency=2, max_threads=2),
        "order_endpoints": target(order_endpoints, [("192.0.2.1", 443)], policy=RacePolicy(), skip="endpoints"),
        "draw_timeline": target(draw_timeline, [], 80, legend=True),
        "ConnectReport.draw": target(ConnectReport().draw, 80, legend=True),
        "deadline_after": target(deadline_after, 1.0),
        "move_on_at": target(move_on_at, now() + 5),
        "fail_at": target(fail_at, now() + 5),
    }


async def first_of_each(
    endpoints: Any, deadline: int, *, limit: int, attempt_timeout: float, source: Any, options: Any
) -> TcpStream | OSError | None:
    """Open the block and take its first result."""
    given = {"limit": limit, "attempt_timeout": attempt_timeout, "source": source, "options": options}
    async with connect_each(endpoints, deadline, **given) as each:
        async for _, outcome in each:
            return outcome
    return None


def of_connects(folder: str) -> dict[str, Target]:
    """Connects, listeners and lookups."""
    race: dict[str, Any] = {"policy": RacePolicy(), "sources": (), "observer": None, "options": SocketOptions()}
    resolver = StaticResolver({"name.test": ["192.0.2.1"]}, srv={"_a._tcp.name.test": [SrvRecord("name.test", 443)]})
    here = [("192.0.2.1", 443)]
    return {
        "tcp_connect": target(tcp_connect, here[0], now() + 500, source=None, options=SocketOptions()),
        "connectx": target(connectx, here, now() + 500, **race, establish=coroutine_function),
        "connect": target(connect, "name.test", 443, now() + 500, resolver=resolver, **race),
        "connect_srv": target(connect_srv, "_a._tcp", "name.test", now() + 500, port=443, resolver=resolver, **race),
        "connect_each": target(
            first_of_each, here, now() + 500, limit=2, attempt_timeout=0.1, source=None, options=SocketOptions()
        ),
        "resolve": target(resolve, "name.test", 443, now() + 500, resolver=resolver),
        "tcp_listen": target(tcp_listen, ("192.0.2.254", 0), backlog=5, options=SocketOptions()),
        "unix_connect": target(unix_connect, f"{folder}/nowhere", now() + 500),
        "unix_listen": target(unix_listen, f"{folder}/socket", backlog=5),
        "TcpStream.from_socket": target(TcpStream.from_socket, None),
        "UnixStream.from_socket": target(UnixStream.from_socket, None),
        "TcpListener.from_socket": target(TcpListener.from_socket, None),
        "UnixListener.from_socket": target(UnixListener.from_socket, None),
    }


def of_streams(stream: TcpStream | UnixStream, listener: TcpListener | UnixListener) -> dict[str, Target]:
    """The methods of one open connection and one listener."""
    buffer = bytearray(2)
    found = {
        "receive_some": target(stream.receive_some, 10, now() + 500),
        "receive_exactly": target(stream.receive_exactly, 2, now() + 500),
        "receive_into": target(stream.receive_into, buffer, now() + 500),
        "receive_until": target(stream.receive_until, b"\r\n", 10, now() + 500),
        "fill": target(stream.fill, now() + 500),
        "take": target(stream.take, 1),
        "exchange": target(stream.exchange, b"x", 1, now() + 500),
        "send_all": target(stream.send_all, b"x", now() + 500),
        "setsockopt": target(stream.setsockopt, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        "getsockopt": target(stream.getsockopt, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0),
        "accept": target(listener.accept, now() + 500),
    }
    if isinstance(stream, UnixStream):
        found["send_fd"] = target(stream.send_fd, 0, now() + 500)
        found["receive_fd"] = target(stream.receive_fd, now() + 500)
    if isinstance(listener, TcpListener):

        async def start_tls(**given: Any) -> object:
            """Do so on a connection of its own, which a handshake that fails closes."""
            async with await tcp_connect(listener.endpoint, now() + 500) as fresh:
                return await fresh.start_tls(**given)

        context = ssl.create_default_context()
        found["start_tls"] = Target(
            start_tls,
            {"context": context, "deadline": now() + 500, "server_hostname": "name.test", "server_side": False},
        )
    return found


def of_queues(qs: queues.QueueSet, folder: str) -> dict[str, Target]:
    """Queue sets and queues; a new queue for each call, because a submission changes its state."""
    here = ("192.0.2.1", 443)

    def method(make: Callable[[], Any], name: str, *args: Any, **arguments: Any) -> Target:
        call = getattr(type(make()), name)
        names = list(inspect.signature(call).parameters)[1:]

        def on_a_new_one(**given: Any) -> Any:
            token = call(make(), **given)
            if isinstance(token, queues.QToken):
                return qs.wait(token, now() + 500)
            return token

        return Target(on_a_new_one, {**dict(zip(names, args, strict=False)), **arguments})

    race: dict[str, Any] = {"policy": RacePolicy(), "sources": (), "observer": None, "options": SocketOptions()}
    return {
        "open_queue_set": target(queues.open_queue_set, 5),
        "stream": target(qs.stream, options=SocketOptions()),
        "connect": method(qs.stream, "connect", here, now() + 500),
        "connect unix": method(qs.unix, "connect", f"{folder}/nowhere", now() + 500),
        "bind": method(qs.stream, "bind", ("127.0.0.1", 0)),
        "bind datagram": method(qs.datagram, "bind", ("127.0.0.1", 0)),
        "bind unix": method(qs.unix, "bind", f"{folder}/queue"),
        "listen": method(qs.stream, "listen", 5),
        "push": method(qs.stream, "push", b"x"),
        "push_to": method(qs.datagram, "push_to", b"x", ("127.0.0.1", 9)),
        "pop": method(qs.stream, "pop", 5),
        "connectx": method(lambda: qs, "connectx", [here], now() + 500, **race),
        "wait": target(qs.wait, None, now() + 500),
        "wait_any": target(qs.wait_any, [], now() + 500, skip="tokens"),
        "wait_next": target(qs.wait_next, 1, now() + 500),
        "room": target(qs.room, 1),
    }


def of_libdill(folder: str, tcp: int, ipc: int, listening_: int) -> dict[str, Target]:
    """The libdill layer's functions, over open handles and over whatever is given."""
    address = libdill.ipaddr()
    libdill.ipaddr_local(address, "127.0.0.1", 1, 0)
    pair: list[Any] = [None, None]
    later = now() + 500
    calls: dict[str, tuple[Any, ...]] = {
        "tcp_connect": (address, later), "tcp_listen": (address, 5), "tcp_accept": (listening_, address, later),
        "tcp_done": (7, later), "tcp_close": (7, later), "tcp_fromfd": (-1,), "tcp_listener_fromfd": (-1,),
        "ipc_listener_fromfd": (-1,), "ipc_fromfd": (-1,),
        "ipc_connect": (f"{folder}/nowhere", later), "ipc_listen": (f"{folder}/dill", 5), "ipc_accept": (7, later),
        "ipc_done": (7, later), "ipc_close": (7, later), "ipc_pair": (pair,), "ipc_sendfd": (ipc, 0, later),
        "ipc_recvfd": (ipc, later), "bsend": (tcp, b"x", 1, later), "brecv": (tcp, bytearray(1), 1, later),
        "bsendl": (tcp, libdill.iolist(b"x", 1), libdill.iolist(b"x", 1), later), "msleep": (later,),
        "brecvl": (tcp, libdill.iolist(bytearray(1), 1), libdill.iolist(bytearray(1), 1), later),
        "fdin": (-1, later), "fdout": (-1, later), "fdclean": (-1,), "hclose": (7,), "hown": (7,),
        "ipaddr_local": (address, "127.0.0.1", 1, 0), "ipaddr_remote": (libdill.ipaddr(), "192.0.2.1", 1, 0, later),
        "ipaddr_remotes": ([libdill.ipaddr()], 1, "192.0.2.1", 1, 0, later), "ipaddr_str": (address,),
        "ipaddr_family": (address,), "ipaddr_len": (address,), "ipaddr_sockaddr": (address,),
        "ipaddr_port": (address,), "ipaddr_setport": (address, 1),
        "ipaddr_equal": (address, address, 0),
    }  # fmt: skip
    return {name: target(getattr(libdill, name), *arguments) for name, arguments in calls.items()}


def of_the_virtual_network() -> dict[str, Target]:
    """What describes a network; a new one for each call."""

    def method(name: str, *args: Any, **arguments: Any) -> Target:
        net = VirtualNetwork()
        call = getattr(net, name, None) or getattr(net.host("192.0.2.1"), name)
        names = [n for n, p in inspect.signature(call).parameters.items() if p.kind is not p.VAR_POSITIONAL]
        on_host = not hasattr(net, name)

        def on_a_new_one(**given: Any) -> Any:
            fresh = VirtualNetwork()
            bound = getattr(fresh.host("192.0.2.1") if on_host else fresh, name)
            return bound(given.pop("address"), **given) if "address" in given else bound(**given)

        return Target(on_a_new_one, {**dict(zip(names, args, strict=False)), **arguments})

    path = {"rtt": 0.1, "jitter": 0.0, "bandwidth": math.inf}
    return {
        "VirtualNetwork": target(VirtualNetwork, 0, local=("192.0.2.254",)),
        "host": method("host", address="192.0.2.7", **path),
        "dns": method(
            "dns", "name.test", (), a=("192.0.2.1",), aaaa=("2001:db8::1",), a_delay=0.0, aaaa_delay=0.0,
            a_error=None, aaaa_error=None,
        ),
        "partition": method("partition", "192.0.2.1", "192.0.2.254"),
        "heal": method("heal", "192.0.2.1", "192.0.2.254"),
        "listen": method("listen", 443, echo, **path, backlog=5, send_buffer=1000, receive_buffer=1000),
        "silent": method("silent", 443, **path, receive_buffer=1000),
        "refuse": method("refuse", 0.1, port=443),
        "blackhole": method("blackhole", port=443),
        "unreachable": method("unreachable", errno.EHOSTUNREACH, 0.1, port=443),
        "reset": method("reset", 0.1, rtt=0.1, port=443),
        "flap": method("flap", [(1.0, "down")]),
    }  # fmt: skip


async def fuzz_in_virtual_time(seed: int, cases: int) -> Counter[str]:
    """Make calls that need no kernel socket, and those over the sockets of a factory."""
    fuzzer = Fuzzer(seed)
    with tempfile.TemporaryDirectory() as folder, VirtualNetwork() as net:
        net.host("192.0.2.1").listen(443, echo)
        net.dns("name.test", ["192.0.2.1"])
        async with await tcp_listen(("192.0.2.254", 0)) as listener:
            stream = await tcp_connect(("192.0.2.1", 443))
            connects = {name: one for name, one in of_connects(folder).items() if "nix" not in name}
            groups = [of_values(), connects, of_streams(stream, listener), of_the_virtual_network()]
            for targets in groups:
                await fuzzer.run(targets, cases // len(groups))
            stream.abort()
    return fuzzer.counts


class NoNames(trio.abc.HostnameResolver):
    """Nobody is asked for the names that fuzzing makes up."""

    async def getaddrinfo(self, *_args: object, **_arguments: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async def getnameinfo(self, *_args: object, **_arguments: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")


async def fuzz_over_the_kernel(seed: int, cases: int) -> Counter[str]:
    """Make calls over sockets of the kernel, on loopback; time is virtual all the same."""
    fuzzer = Fuzzer(seed)
    trio.socket.set_custom_hostname_resolver(NoNames())
    with tempfile.TemporaryDirectory() as folder:
        unix = {name: one for name, one in of_connects(folder).items() if "nix" in name}
        for targets in (of_libdill(folder, *await open_handles()), unix):
            await fuzzer.run(targets, cases // 5)
        for handle in range(1 << 12):
            with contextlib.suppress(OSError):
                libdill.hclose(handle)
        async with queues.open_queue_set(1 << 30) as qs:
            await fuzzer.run(of_queues(qs, folder), cases // 5)
        for kind in KINDS:
            async with pair(kind) as (near, far), listening(kind) as listener, trio.open_nursery() as nursery:
                nursery.start_soon(drain, far)
                await fuzzer.run(of_streams(near, listener), cases // 5)
                nursery.cancel_scope.cancel()
    return fuzzer.counts


async def open_handles() -> tuple[int, int, int]:
    """Return handles of a TCP connection, a unix-domain connection and a listener, with numbers that no case has."""
    address = libdill.ipaddr()
    libdill.ipaddr_local(address, "127.0.0.1", 0, 0)
    listener = await libdill.tcp_listen(address, 10)
    ends = [0, 0]
    libdill.ipc_pair(ends)
    return out_of_the_way(await libdill.tcp_connect(address, -1)), out_of_the_way(ends[0]), out_of_the_way(listener)


def out_of_the_way(handle: int) -> int:
    while handle < 100:
        handle = libdill.hown(handle)
    return handle


async def drain(stream: TcpStream | UnixStream) -> None:
    while await stream.receive_some():
        pass


def check_counts(counts: Counter[str], cases: int) -> None:
    """Say no to a fuzzer that does nothing."""
    assert counts.total() > cases * 0.9
    assert counts["TypeError"] > cases / 10
    assert counts["ValueError"] > cases / 100
    assert counts["ok"] > cases / 100


async def test_field_29_every_public_callable_is_fuzzed(autojump_clock: trio.testing.MockClock) -> None:
    """No function of the library's, of the libdill layer or of a stream is left out."""
    async with (
        pair("unix") as (near, _),
        listening("unix") as listener,
        listening("tcp") as other,
        queues.open_queue_set() as qs,
    ):
        fuzzed = {*of_values(), *of_connects(""), *of_queues(qs, ""), *of_the_virtual_network()}
        streams = {*of_streams(near, listener), *of_streams(near, other)}
        for name in vars(trio_connect)["__all__"]:
            if inspect.isfunction(getattr(trio_connect, name)) and name != "now":
                assert name in fuzzed
        layer = {*of_libdill("", 0, 0, 0)}
        for name in vars(libdill)["__all__"]:
            if inspect.isfunction(getattr(libdill, name)) and inspect.signature(getattr(libdill, name)).parameters:
                assert name in layer
        for kind in (TcpStream, UnixStream, TcpListener, UnixListener):
            for name, method in inspect.getmembers(kind, inspect.isfunction):
                if not name.startswith("_") and len(inspect.signature(method).parameters) > 1:
                    assert name in streams or name in ("close_gracefully", "set_report"), f"{kind.__name__}.{name}"
        for name, method in inspect.getmembers(queues.QueueSet, inspect.isfunction):
            if not name.startswith("_") and len(inspect.signature(method).parameters) > 1:
                assert name in fuzzed
        for owner in (VirtualNetwork, Host):
            for name, method in inspect.getmembers(owner, inspect.isfunction):
                if not name.startswith("_") and len(inspect.signature(method).parameters) > 1:
                    assert name in fuzzed or name in dir(trio.abc.Instrument)


async def test_field_29_fuzz_in_virtual_time(autojump_clock: trio.testing.MockClock) -> None:
    """Wrong arguments of constructors, connects, lookups, streams and the virtual network are refused at the call."""
    check_counts(await fuzz_in_virtual_time(1, 3000), 3000)


async def test_field_29_fuzz_over_the_kernel(autojump_clock: trio.testing.MockClock) -> None:
    """Wrong arguments of streams, unix calls, queues and the libdill layer are refused at the call."""
    check_counts(await fuzz_over_the_kernel(1, 3000), 3000)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("fuzz", [fuzz_in_virtual_time, fuzz_over_the_kernel])
async def test_field_29_fuzz_at_length(
    fuzz: Callable[[int, int], Awaitable[Counter[str]]], seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """The same 200,000 times."""
    check_counts(await fuzz(seed + 100, 10_000), 10_000)
