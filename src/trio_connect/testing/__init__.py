"""A deterministic TCP network and DNS in virtual time, for testing programs that connect.

`VirtualNetwork` describes hosts, names and faults; pytest gets it as the fixture `vnet`, everyone else through `run`,
as an instrument of `trio.run`, or as a context manager. The guide is docs/how-to/testing.md.
"""

from ._errors import NotOnVirtualNetwork as NotOnVirtualNetwork
from ._errors import NotVirtualTime as NotVirtualTime
from ._errors import RealSocketUsed as RealSocketUsed
from ._errors import UnknownHost as UnknownHost
from ._errors import VirtualNetworkError as VirtualNetworkError
from ._handlers import discard as discard
from ._handlers import echo as echo
from ._host import Handler as Handler
from ._host import Host as Host
from ._network import VirtualNetwork as VirtualNetwork
from ._run import run as run
from ._sctp_host import SctpHost as SctpHost
from ._sctp_network import SctpNetwork as SctpNetwork
from ._trace import Connection as Connection
from ._trace import NameLookup as NameLookup
from ._trace import Trace as Trace
from ._trace import TraceEvent as TraceEvent

# The package has a helper for this, `publish`, which is not public, and this folder uses public names only.
_names = sorted(name for name in globals() if not name.startswith("_"))
globals()["__all__"] = _names
for _name in _names:
    if getattr(globals()[_name], "__module__", "").startswith(f"{__name__}._"):
        globals()[_name].__module__ = __name__
