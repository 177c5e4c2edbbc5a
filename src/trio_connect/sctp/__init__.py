"""SCTP over the kernel's own stack, Linux: messages over several paths to one peer.

What `sctp_connectx` of FreeBSD and Linux does, from Trio: cancellable, with deadlines, and with an attempt delay in
place of three seconds. Whether it can be used here, `availability` says.
"""

from .._relabel import publish as _publish
from ._association import Association as Association
from ._availability import availability as availability
from ._connect import connectx as connectx
from ._listen import SctpListener as SctpListener
from ._listen import listen as listen
from ._socket import Piece as Piece
from ._socket import SctpSocket as SctpSocket
from ._socket import set_socket_factory as set_socket_factory
from ._telling import SctpObserver as SctpObserver
from ._values import AssociationEvent as AssociationEvent
from ._values import Availability as Availability
from ._values import Message as Message
from ._values import Path as Path
from ._values import PathEvent as PathEvent
from ._values import Ppid as Ppid
from ._values import SctpTuning as SctpTuning
from ._wire import ReceiveInfo as ReceiveInfo
from ._wire import Status as Status

_publish(globals())
