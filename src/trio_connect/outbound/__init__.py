"""Destinations: whom to connect to, from where, how often, and what to do when it fails.

For programs that send to many peers and have to be polite and patient with them: mail, crawlers, gateways, brokers.
`open_outbound` holds what all share; a `Destination` connects, counts failures, keeps limits, and says when to come
back.
"""

from .._engine.circuit import Health as Health
from .._outbound_values import Backoff as Backoff
from .._outbound_values import Candidate as Candidate
from .._outbound_values import OutboundPolicy as OutboundPolicy
from .._outbound_values import Rate as Rate
from .._relabel import publish as _publish
from ._connection import Connection as Connection
from ._connection import TlsConnection as TlsConnection
from ._decisions import DestinationDelayed as DestinationDelayed
from ._decisions import DestinationFailed as DestinationFailed
from ._decisions import DestinationRejected as DestinationRejected
from ._decisions import LeaseLost as LeaseLost
from ._decisions import NotAdmitted as NotAdmitted
from ._decisions import Overloaded as Overloaded
from ._decisions import RequeueOne as RequeueOne
from ._decisions import RetryAt as RetryAt
from ._decisions import SourceSuspended as SourceSuspended
from ._destination import Destination as Destination
from ._events import AddressState as AddressState
from ._events import LimitState as LimitState
from ._events import OutboundEvent as OutboundEvent
from ._events import OutboundObserver as OutboundObserver
from ._events import RateState as RateState
from ._events import Snapshot as Snapshot
from ._events import Suspension as Suspension
from ._file_store import FileStore as FileStore
from ._lookups import CandidateSource as CandidateSource
from ._outbound import Outbound as Outbound
from ._outbound import open_outbound as open_outbound
from ._permit import Permit as Permit
from ._redis_store import RedisStore as RedisStore

_publish(globals(), f"{__name__}._", "trio_connect._")
