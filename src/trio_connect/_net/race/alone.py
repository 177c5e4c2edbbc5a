"""The first attempt of a race, made before anything is built for a race: most calls need no race."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from trio import current_time
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from ..._options import DEFAULT_OPTIONS
from ..attempt import PENDING, Attempt
from ..sockets.open import factory_installed
from ..sockets.waiting import Expired
from ..streams.tcp_stream import TcpStream
from .driver import run_race
from .establishing import OverTls
from .first import First
from .plan import RacePlan

if TYPE_CHECKING:
    from ..._answer import Lookup
    from ..._endpoint import Source
    from ..._engine.race_table import Candidate
    from ..._options import SocketOptions
    from ..._policy import RacePolicy
    from ..._report import ConnectReport, Phase
    from ..._trace import Observer
    from ..attempt import OpenAttempt
    from ..history import History
    from ..reports import Facts
    from .plan import Establish


def goes_alone(establish: Establish | None, observer: Observer | None, history: History | None) -> bool:
    """Say whether a first attempt can be made in the task of the call.

    Nobody is to be told of it or to learn from it, and nothing is to be established that could not go on in a task of
    its own.
    """
    if observer is not None or history is not None:
        return False
    return establish is None or (isinstance(establish, OverTls) and establish.test is None)


async def first_then_race(
    pairs: Sequence[Candidate],
    skipped: Mapping[Candidate, str],
    *,
    policy: RacePolicy,
    sources: Sequence[Source],
    options: SocketOptions,
    establish: Establish | None,
    observer: Observer | None,
    history: History | None,
    until: float,
    through_proxy: OpenAttempt | None = None,
    plan: RacePlan | None = None,
    looked_up: Callable[[], tuple[Lookup, ...]] = tuple,
    yielded: bool = False,
) -> Any:
    """Connect to one of some endpoints, all of them known: by the first alone if that will do, else by a race.

    Args:
      pairs: the candidates, at least one if `skipped` is empty.
      skipped: candidates that are not tried, with the reasons, for the report.
      policy: of the race; like the other arguments, checked.
      sources: where connections may start.
      options: to be set on each socket.
      establish: the caller's own test of a connection, or None.
      observer: told of the race, or None.
      history: a memory of earlier connects, or None.
      until: the caller's deadline, in Trio time.
      through_proxy: makes the attempts from sources that have a proxy; None when no source has one.
      plan: of a call that has begun earlier, for the lookups; None where it begins now.
      looked_up: the lookups of that call.
      yielded: whether it has been a checkpoint.

    Raises:
      ConnectFailed: see `run_race`, likewise for others.
    """
    first = None
    alone = bool(pairs) and through_proxy is None and goes_alone(establish, observer, history)
    if alone:
        await checkpoint_if_cancelled()
    started = current_time()
    factory = factory_installed() if plan is None else plan.factory
    if alone and until > started and not factory:
        source, endpoint = pairs[0]
        if plan is not None and plan.host_of is not None:
            plan.host_of.begin(endpoint)
        attempt = Attempt(endpoint, source, started)
        try:
            if yielded:
                # No pass is due any more, so none comes before the first poll.
                code = attempt.begin_and_poll(options, factory=False)
            else:
                code = attempt.begin(options, factory=False)
            if code == PENDING:
                code = await attempt.first_poll(may_spin=True)
            if code == PENDING:
                # Nothing else is to be done before the next start is due or the attempt's time is up.
                limit = policy.attempt_timeout
                delay = cast("float", policy.attempt_delay)  # one that learns has a history
                if delay < limit and (len(pairs) > 1 or attempt.asks_for_multipath(options)):
                    limit = delay
                try:
                    code = await attempt.finish(min(started + limit, until))
                except Expired:
                    pass
            if not code:
                if establish is None:
                    if not (attempt.yielded or yielded):
                        await cancel_shielded_checkpoint()
                    assert attempt.sock is not None
                    multipath = None if options is DEFAULT_OPTIONS else attempt.multipath_info(options)
                    facts = (pairs, skipped, started, current_time(), multipath)
                    return TcpStream(
                        attempt.sock, endpoint, facts if plan is None else partial(_report, facts, plan, looked_up)
                    )
                assert isinstance(establish, OverTls)
                first = First(attempt, 0)
                others = len(pairs) > 1 or attempt.asks_for_multipath(options)
                secured = await first.secure(establish, policy, until, others=others)
                if secured is not None:
                    multipath = None if options is DEFAULT_OPTIONS else attempt.multipath_info(options)
                    facts = (pairs, skipped, started, current_time(), multipath)
                    first.set_report(partial(_report, facts, plan, looked_up, phase="establish"))
                    return secured
        except BaseException:  # written out, for a context manager costs a twentieth of a connect
            attempt.close()
            raise
        if first is None:
            first = First(attempt, code)
            if code != PENDING:
                attempt.close()
        if first.has_failed:
            # And perhaps in a pass that has brought a cancel: another SYN would come after it.
            await checkpoint_if_cancelled()
    if plan is None:
        plan = RacePlan(
            policy=policy, sources=sources, options=options, establish=establish, observer=observer,
            history=history, until=until, started=started, factory=factory, through_proxy=through_proxy,
        )  # fmt: skip
    return await run_race(plan, pairs, skipped, first=first, lookups=looked_up())


def _report(
    facts: Facts, plan: RacePlan | None, looked_up: Callable[[], tuple[Lookup, ...]], *, phase: Phase = "connect"
) -> ConnectReport:
    from ..reports import won_alone

    if plan is None:
        return won_alone(facts, phase=phase)
    return won_alone(facts, phase=phase, origin=plan.started, lookups=looked_up(), host_of=plan.host_of)
