"""The connection layer for Trio: every way to reach a peer that must be reached."""

import typing as _typing
from importlib import import_module as _import_module

from ._deadline import IMMEDIATE as IMMEDIATE
from ._deadline import NO_DEADLINE as NO_DEADLINE
from ._deadline import deadline_after as deadline_after
from ._deadline import fail_at as fail_at
from ._deadline import move_on_at as move_on_at
from ._deadline import now as now
from ._endpoint import Endpoint as Endpoint
from ._endpoint import EndpointLike as EndpointLike
from ._endpoint import Source as Source
from ._errors import ConnectFailed as ConnectFailed
from ._errors import DeadlineExceeded as DeadlineExceeded
from ._errors import EstablishFailed as EstablishFailed
from ._errors import IncompleteRead as IncompleteRead
from ._errors import ResolveFailed as ResolveFailed
from ._net.streams.tcp_stream import TcpStream as TcpStream
from ._net.streams.tcp_stream import TlsStream as TlsStream
from ._net.tcp import tcp_connect as tcp_connect
from ._options import SocketOptions as SocketOptions
from ._relabel import publish as _publish
from ._relabel import relabel as _relabel

__version__ = "0.1.0.dev0"

# A program that makes single connects pays for nothing else: races, listeners, names and front doors load when they
# are first used (PEP 562). Type checkers read the imports below, `__getattr__` reads the two tables, and a test holds
# that both say the same. Each of these names stands twice, and it cannot stand once:
# - A type checker takes a public name from an import statement alone, and an import statement loads at once. Only
#   Python 3.15 has one that does not, `lazy from` (PEP 810): with it, both tables and `__getattr__` can go.
# - The tables could be read from the import statements, as source or as byte code. Programs frozen or compiled to
#   machine code have neither.
# - All of them could load together on the first use of any. `connectx` alone would then take twice as long to load, and
#   `tcp_listen` thirty times as long.
# - A stub file in place of the imports names everything once more, what loads at once too.
_SUBPACKAGES: _typing.Final = frozenset({"libdill", "momentum", "outbound", "queues", "testing"})
_LATER: _typing.Final = {
    "Answer": "_answer",
    "Lookup": "_answer",
    "MailRecord": "_answer",
    "ServiceRecord": "_answer",
    "SrvRecord": "_answer",
    "AddressFilter": "_filter",
    "NetworkFilter": "_filter",
    "Multipath": "_multipath",
    "connect": "_net.connect",
    "connect_srv": "_net.connect_srv",
    "connect_each": "_net.connect_each",
    "HostLike": "_net.names.hosts",
    "Nat64": "_net.nat64",
    "order_endpoints": "_net.names.ordering",
    "resolve": "_net.resolving",
    "RaceOptions": "_net.race.plan",
    "TcpRaceOptions": "_net.race.plan",
    "connectx": "_net.connectx",
    "History": "_net.history",
    "TcpListener": "_net.listeners.tcp_listener",
    "tcp_listen": "_net.listeners.tcp_listener",
    "DnsResolver": "_net.names.dns",
    "MailResolver": "_net.names.resolve",
    "Resolver": "_net.names.resolve",
    "ServiceResolver": "_net.names.resolve",
    "SrvResolver": "_net.names.resolve",
    "StaleResolver": "_net.names.resolve",
    "StaticResolver": "_net.names.resolve",
    "SystemResolver": "_net.names.system",
    "UnixListener": "_net.listeners.unix_listener",
    "UnixStream": "_net.streams.unix_stream",
    "unix_connect": "_net.unix",
    "unix_listen": "_net.listeners.unix_listener",
    "Adaptive": "_policy",
    "RacePolicy": "_policy",
    "TimelineRow": "_render",
    "draw_timeline": "_render",
    "Attempt": "_report",
    "ConnectReport": "_report",
    "AttemptConnected": "_trace",
    "AttemptFinished": "_trace",
    "AttemptStarted": "_trace",
    "LookupFinished": "_trace",
    "LookupStarted": "_trace",
    "Observer": "_trace",
    "RaceFinished": "_trace",
    "TraceEvent": "_trace",
}

_publish(globals(), later=_LATER)

if _typing.TYPE_CHECKING:
    from . import libdill as libdill
    from . import momentum as momentum
    from . import outbound as outbound
    from . import queues as queues
    from . import testing as testing
    from ._answer import Answer as Answer
    from ._answer import Lookup as Lookup
    from ._answer import MailRecord as MailRecord
    from ._answer import ServiceRecord as ServiceRecord
    from ._answer import SrvRecord as SrvRecord
    from ._filter import AddressFilter as AddressFilter
    from ._filter import NetworkFilter as NetworkFilter
    from ._multipath import Multipath as Multipath
    from ._net.connect import connect as connect
    from ._net.connect_each import connect_each as connect_each
    from ._net.connect_srv import connect_srv as connect_srv
    from ._net.connectx import connectx as connectx
    from ._net.history import History as History
    from ._net.listeners.tcp_listener import TcpListener as TcpListener
    from ._net.listeners.tcp_listener import tcp_listen as tcp_listen
    from ._net.listeners.unix_listener import UnixListener as UnixListener
    from ._net.listeners.unix_listener import unix_listen as unix_listen
    from ._net.names.dns import DnsResolver as DnsResolver
    from ._net.names.hosts import HostLike as HostLike
    from ._net.names.ordering import order_endpoints as order_endpoints
    from ._net.names.resolve import MailResolver as MailResolver
    from ._net.names.resolve import Resolver as Resolver
    from ._net.names.resolve import ServiceResolver as ServiceResolver
    from ._net.names.resolve import SrvResolver as SrvResolver
    from ._net.names.resolve import StaleResolver as StaleResolver
    from ._net.names.resolve import StaticResolver as StaticResolver
    from ._net.names.system import SystemResolver as SystemResolver
    from ._net.nat64 import Nat64 as Nat64
    from ._net.race.plan import RaceOptions as RaceOptions
    from ._net.race.plan import TcpRaceOptions as TcpRaceOptions
    from ._net.resolving import resolve as resolve
    from ._net.streams.unix_stream import UnixStream as UnixStream
    from ._net.unix import unix_connect as unix_connect
    from ._policy import Adaptive as Adaptive
    from ._policy import RacePolicy as RacePolicy
    from ._render import TimelineRow as TimelineRow
    from ._render import draw_timeline as draw_timeline
    from ._report import Attempt as Attempt
    from ._report import ConnectReport as ConnectReport
    from ._trace import AttemptConnected as AttemptConnected
    from ._trace import AttemptFinished as AttemptFinished
    from ._trace import AttemptStarted as AttemptStarted
    from ._trace import LookupFinished as LookupFinished
    from ._trace import LookupStarted as LookupStarted
    from ._trace import Observer as Observer
    from ._trace import RaceFinished as RaceFinished
    from ._trace import TraceEvent as TraceEvent

else:

    def __getattr__(name: str) -> object:
        if name in _SUBPACKAGES:
            return _import_module(f"{__name__}.{name}")
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(_import_module(f"{__name__}.{_LATER[name]}"), name)
        _relabel(value, __name__)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_SUBPACKAGES, *_LATER})
