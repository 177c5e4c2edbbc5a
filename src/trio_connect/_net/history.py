"""`History`: the memory of earlier connects, on the clock of Trio, and its file.

What it decides is in `_engine.history`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from math import isfinite
from pathlib import Path
from tempfile import mkstemp
from time import monotonic, time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypedDict, Unpack, final

from trio import current_time
from trio.lowlevel import current_trio_token

from .._check import check_float, check_size, check_text
from .._endpoint import Endpoint, EndpointLike, Source, as_endpoint
from .._engine.history import Limits, Memory, source_key
from .._engine.history_file import dump, load
from .._engine.history_order import Recollections
from .._engine.race_memory import RaceMemory
from .._text import one_line, shown

if TYPE_CHECKING:
    from trio.lowlevel import TrioToken

    from .._policy import RacePolicy

_log: Final = logging.getLogger("trio_connect")
_AS_THEY_ARE: Final[Mapping[Endpoint, Endpoint]] = MappingProxyType({})


class _Clock:
    """The clock of one memory: it goes on over several runs of Trio, and between them.

    In the first run it is Trio's own. What passes of a run before its first use is measured by the machine's clock.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._run: TrioToken | None = None
        self._offset = 0.0
        self._latest = 0.0
        self._read_at = monotonic()

    def offset(self) -> float:
        """Return what to add to the time of this run."""
        run = current_trio_token()
        if run is not self._run:
            if self._run is not None or len(self._memory):
                self._offset = self._outside() - current_time()
            self._run = run
        self._latest = current_time() + self._offset
        self._read_at = monotonic()
        return self._offset

    def now(self) -> float:
        """Return the time, also outside of a run."""
        try:
            return current_time() + self.offset()
        except RuntimeError:
            return self._outside()

    def _outside(self) -> float:
        # A clock of tests may have gone further than the machine's.
        return max(self._latest + monotonic() - self._read_at, self._memory.latest)


class _Shared:
    """What all partitions of a history share."""

    def __init__(self, limits: Limits) -> None:
        self.memory = Memory(limits)
        self.clock = _Clock(self.memory)
        self.network = ""


class HistoryOptions(TypedDict, total=False):
    """The numbers of a `History`."""

    size: int
    retry_after: float
    retry_at_most: float
    explore_after: float
    lifetime: float
    hedge_budget: float | None


@final
class History:
    """A memory of earlier connects, passed to `connect`, `connectx` and `order_endpoints` by whoever wants one.

    It learns how long the round trip to an address takes, and which addresses failed or were slow, and it knows the
    races that are under way. So an address that failed is not tried first again for a while, of many connects to one
    host only a few find out that an address is dead, and with `Adaptive` the attempt delay follows the round trip.
    Times are in seconds.

    Args:
      size: how many addresses are remembered at most, per source, partition and network. The one that was not heard of
        for the longest time goes first.
      retry_after: how long an address goes behind all others after it has failed, or was slow. The time doubles with
        each further failure in a row.
      retry_at_most: the longest such time. After it the address is tried in its own place again, by one race at a time.
      explore_after: how long the better-known one of two equal addresses is preferred, before the other one is tried
        first for once.
      lifetime: how long something counts that is not heard of again; an hour, as for the kernel's own metrics
        (tcp_metrics of ip-tcp_metrics(8)).
      hedge_budget: how many starts may be caused by the attempt delay alone, over all races together. Each takes one,
        and each connection gives 0.05 back. None for any number.

    Raises:
      TypeError: a value has the wrong type.
      ValueError: a number is out of range.

    See RFC 8305 section 4 for the order, RFC 6298 for the round-trip time.
    """

    def __init__(
        self,
        *,
        size: int = 4096,
        retry_after: float = 10.0,
        retry_at_most: float = 300.0,
        explore_after: float = 600.0,
        lifetime: float = 3600.0,
        hedge_budget: float | None = None,
    ) -> None:
        check_size(size, "size", 1)
        for name, value in (
            ("retry_after", retry_after),
            ("retry_at_most", retry_at_most),
            ("explore_after", explore_after),
            ("lifetime", lifetime),
        ):
            _check_positive(value, name, "a number of seconds")
        if retry_at_most < retry_after:
            raise ValueError(f"retry_at_most must be at least retry_after, {retry_after:g}, got {shown(retry_at_most)}")
        if hedge_budget is not None:
            _check_positive(hedge_budget, "hedge_budget", "a number of starts, or None")
            if hedge_budget < 1:
                raise ValueError(f"hedge_budget must be at least 1, or None, got {shown(hedge_budget)}")
        limits = Limits(
            size=size, retry_after=retry_after, retry_at_most=retry_at_most, explore_after=explore_after,
            lifetime=lifetime, hedge_budget=hedge_budget,
        )  # fmt: skip
        self._shared = _Shared(limits)
        self._partition = ""

    def __len__(self) -> int:
        """Return how many addresses are remembered, in all partitions and networks."""
        return len(self._shared.memory)

    def __bool__(self) -> bool:
        """Return True: an empty history is one as well."""
        return True

    def __repr__(self) -> str:
        partition = f" of partition {self._partition!r}" if self._partition else ""
        return f"<History{partition}, {len(self)} address{'' if len(self) == 1 else 'es'}>"

    def partition(self, name: str) -> History:
        """Return the same history for one user, tenant or session: what it learns stays in the partition of this name.

        For users who must not learn from each other's connects (RFC 8305 section 4). Size, budget, file and network are
        those of the whole.

        Args:
          name: "" is the one that every history begins with.

        Raises:
          TypeError: it is not a str.
        """
        other = copy(self)
        other._partition = check_text(name, "name")  # noqa: SLF001 - of its own class
        return other

    def use_network(self, name: str) -> None:
        """Say which network this machine is in from now on: what was learned in others does not count here.

        It counts again when this is called with an earlier name. Races that are under way go on in the network that
        they began in.

        Args:
          name: whatever tells networks apart; "" is the one that every history begins with.

        Raises:
          TypeError: it is not a str.
        """
        self._shared.network = check_text(name, "name")

    def clear(self) -> None:
        """Forget what was learned in the network of now, in all partitions."""
        self._shared.memory.clear(self._shared.network)

    def failed(self, endpoint: EndpointLike, reason: str, *, source: Source | None = None) -> None:
        """Tell that a connection turned out to be of no use, so that the next connect tries other addresses first.

        For what happens after `connect` has returned, such as a TLS handshake by somebody else's code. What an
        `establish` raises is learned without this. Failures of connections that were all made before the last failure
        count once.

        Args:
          endpoint: where it went, such as `TcpStream.peer`.
          reason: why, in one line, for reports.
          source: from where, if the connect was told.

        Raises:
          TypeError: an argument has the wrong type.
          ValueError: the endpoint is a name or malformed.
        """
        if source is not None and not isinstance(source, Source):
            raise TypeError(f"source must be a Source or None, got {shown(source)}")
        target = as_endpoint(endpoint)
        reason = one_line(check_text(reason, "reason"))
        shared = self._shared
        key = shared.network, self._partition, source_key(source, target), target
        shared.memory.failed(key, shared.clock.now(), reason)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what is remembered into a file, which is replaced as a whole.

        It takes some twenty milliseconds for a thousand addresses. Only the user who writes it may read it.

        Args:
          path: of the file.

        Raises:
          OSError: it cannot be written. An earlier file is as it was.
        """
        target = Path(path)
        data = dump(self._shared.memory, self._shared.clock.now(), time())
        descriptor, name = mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(data, file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str], **options: Unpack[HistoryOptions]) -> History:
        """Return a history with what a file has that `save` wrote; an empty one when there is no such file.

        A file that cannot be understood is renamed to its name with ``.corrupt`` at the end, and a warning is logged.

        Args:
          path: of the file.
          options: those of `History`.

        Raises:
          OSError: the file is there and cannot be read.
        """
        history = cls(**options)
        source = Path(path)
        try:
            content = source.read_bytes()
        except FileNotFoundError:
            return history
        shared = history._shared
        try:
            load(json.loads(content), shared.memory, shared.clock.now(), time())
        except (ValueError, RecursionError) as error:
            aside = source.with_name(f"{source.name}.corrupt")
            source.replace(aside)
            _log.warning("the history %s cannot be used, and is now %s: %s", source, aside, one_line(str(error)))
        return history


def _check_positive(value: object, name: str, rule: str) -> None:
    number = check_float(value, name, rule)
    if not isfinite(number) or number <= 0:
        raise ValueError(f"{name} must be above 0 and finite, got {shown(value)}")


def check_history(history: object) -> None:
    """Refuse what is not a `History`."""
    if not isinstance(history, History):
        raise TypeError(f"history must be a History or None, got {shown(history)}")


def memory_for_race(history: History, policy: RacePolicy, wake: Callable[[], object], *, measures: bool) -> RaceMemory:
    """Return what one race reads of a history, and writes into it; see `RaceMemory`."""
    shared, partition = _parts_of(history)
    return RaceMemory(
        shared.memory, shared.network, partition, policy, offset=shared.clock.offset(), wake=wake, measures=measures
    )


def recollections(
    history: History, sources: Sequence[Source], wires: Mapping[Endpoint, Endpoint] = _AS_THEY_ARE
) -> Recollections:
    """Return what a history says of endpoints now; see `Recollections`."""
    shared, partition = _parts_of(history)
    return Recollections(shared.memory, shared.network, partition, sources, shared.clock.now(), wires)


def _parts_of(history: History) -> tuple[_Shared, str]:
    return history._shared, history._partition  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
