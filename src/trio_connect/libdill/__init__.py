"""libdill's names, argument order, deadlines and errno over this package's streams.

A libdill program can be transliterated line by line: handles are small ints, what C writes through a pointer is
written into an object, 0 and values are returned, and where C returns -1 an `OSError` with that errno is raised. A
Trio nursery takes the place of ``go`` and ``bundle``. Cancellation is Trio's: a cancelled call raises
`trio.Cancelled`, never ECANCELED, and it poisons nothing.

What differs and why is on the documentation page "libdill".
"""

from .._deadline import now as now
from .._relabel import publish as _publish
from ._addresses import IPADDR_IPV4 as IPADDR_IPV4
from ._addresses import IPADDR_IPV6 as IPADDR_IPV6
from ._addresses import IPADDR_MAXSTRLEN as IPADDR_MAXSTRLEN
from ._addresses import IPADDR_PREF_IPV4 as IPADDR_PREF_IPV4
from ._addresses import IPADDR_PREF_IPV6 as IPADDR_PREF_IPV6
from ._addresses import ipaddr as ipaddr
from ._addresses import ipaddr_equal as ipaddr_equal
from ._addresses import ipaddr_family as ipaddr_family
from ._addresses import ipaddr_len as ipaddr_len
from ._addresses import ipaddr_local as ipaddr_local
from ._addresses import ipaddr_port as ipaddr_port
from ._addresses import ipaddr_setport as ipaddr_setport
from ._addresses import ipaddr_sockaddr as ipaddr_sockaddr
from ._addresses import ipaddr_str as ipaddr_str
from ._bytes import brecv as brecv
from ._bytes import brecvl as brecvl
from ._bytes import bsend as bsend
from ._bytes import bsendl as bsendl
from ._bytes import iolist as iolist
from ._handles import hclose as hclose
from ._handles import hown as hown
from ._ipc import ipc_accept as ipc_accept
from ._ipc import ipc_close as ipc_close
from ._ipc import ipc_connect as ipc_connect
from ._ipc import ipc_done as ipc_done
from ._ipc import ipc_fromfd as ipc_fromfd
from ._ipc import ipc_listen as ipc_listen
from ._ipc import ipc_listener_fromfd as ipc_listener_fromfd
from ._ipc import ipc_pair as ipc_pair
from ._ipc import ipc_recvfd as ipc_recvfd
from ._ipc import ipc_sendfd as ipc_sendfd
from ._names import ipaddr_remote as ipaddr_remote
from ._names import ipaddr_remotes as ipaddr_remotes
from ._tcp import tcp_accept as tcp_accept
from ._tcp import tcp_close as tcp_close
from ._tcp import tcp_connect as tcp_connect
from ._tcp import tcp_done as tcp_done
from ._tcp import tcp_fromfd as tcp_fromfd
from ._tcp import tcp_listen as tcp_listen
from ._tcp import tcp_listener_fromfd as tcp_listener_fromfd
from ._waiting import fdclean as fdclean
from ._waiting import fdin as fdin
from ._waiting import fdout as fdout
from ._waiting import msleep as msleep

_publish(globals())
