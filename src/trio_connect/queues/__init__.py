"""Queue tokens: submit operations now, reap their results in the order of completion.

For scanners, health checkers, crawlers, and whatever mixes many kinds of operations in one place. One task for each
connection in a nursery is simpler when each connection leads its own life; see the documentation.
"""

from .._relabel import publish as _publish
from ._interface import Accepted as Accepted
from ._interface import Failed as Failed
from ._interface import IOQueue as IOQueue
from ._interface import QResult as QResult
from ._interface import QToken as QToken
from ._interface import Succeeded as Succeeded
from ._set import QueueSet as QueueSet
from ._set import open_queue_set as open_queue_set
from ._values import Address as Address
from ._values import Closed as Closed
from ._values import Completion as Completion
from ._values import Connected as Connected
from ._values import Op as Op
from ._values import Popped as Popped
from ._values import Pushed as Pushed

_publish(globals())
