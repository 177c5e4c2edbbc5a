"""The connection layer for Trio: every way to reach a peer that must be reached."""

from ._deadline import IMMEDIATE as IMMEDIATE
from ._deadline import NO_DEADLINE as NO_DEADLINE
from ._deadline import now as now
from ._endpoint import Endpoint as Endpoint
from ._endpoint import EndpointLike as EndpointLike
from ._endpoint import Source as Source
from ._errors import DeadlineExceeded as DeadlineExceeded
from ._errors import IncompleteRead as IncompleteRead
from ._net.listener import TcpListener as TcpListener
from ._net.stream import TcpStream as TcpStream
from ._net.tcp import tcp_connect as tcp_connect
from ._net.tcp import tcp_listen as tcp_listen
from ._net.unix import UnixListener as UnixListener
from ._net.unix import UnixStream as UnixStream
from ._net.unix import unix_connect as unix_connect
from ._net.unix import unix_listen as unix_listen
from ._options import SocketOptions as SocketOptions
from ._report import Attempt as Attempt
from ._report import ConnectReport as ConnectReport

__all__ = [
    "IMMEDIATE",
    "NO_DEADLINE",
    "Attempt",
    "ConnectReport",
    "DeadlineExceeded",
    "Endpoint",
    "EndpointLike",
    "IncompleteRead",
    "SocketOptions",
    "Source",
    "TcpListener",
    "TcpStream",
    "UnixListener",
    "UnixStream",
    "now",
    "tcp_connect",
    "tcp_listen",
    "unix_connect",
    "unix_listen",
]

# What users see in reprs and tracebacks is where they import it from.
for _value in [globals()[_name] for _name in __all__]:
    if getattr(_value, "__module__", "").startswith(f"{__name__}._"):
        _value.__module__ = __name__
