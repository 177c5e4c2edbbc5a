"""What is left behind, what is told, and what users can get wrong. Numbers in ids are those of the invariants."""

from __future__ import annotations

import pickle
import socket
from itertools import pairwise
from random import Random
from socket import AddressFamily
from typing import Any, cast

import attrs
import pytest
import trio

from tests.outbound.kit import BROKEN, FAR, NEAR, at, connects, decision_of, fails, good, opened, refusing, rules, words
from tests.support import faults
from tests.support.sweep import sweep
from trio_connect import Answer, ConnectFailed, DeadlineExceeded, Source, StaticResolver, now
from trio_connect._engine.circuit import Health
from trio_connect.outbound import (
    Backoff,
    Candidate,
    Destination,
    DestinationDelayed,
    DestinationFailed,
    DestinationRejected,
    NotAdmitted,
    OutboundEvent,
    OutboundPolicy,
    Overloaded,
    Rate,
    RequeueOne,
    RetryAt,
    SourceSuspended,
    open_outbound,
)


async def test_45_no_task_and_no_descriptor_is_left():
    """The whole of an outbound, cancelled at every step: lookup, admission, race, greeting, block, closing."""
    number = 0

    async def use(peer: faults.Peer) -> None:
        nonlocal number
        number += 1
        resolver = StaticResolver({"a.test": peer.address.host})
        async with open_outbound(resolver=resolver) as out:
            dest = out.destination("a.test", port=peer.address.port)

            async def greeting(stream: Any) -> None:
                await stream.send_all(b"hello")
                await stream.receive_exactly(5)

            async with dest.connect(establish=greeting) as connection, dest.permit():
                await connection.stream.send_all(b"more")

    summary = await sweep(use, environment=faults.echoing)
    assert sum(endings["cancelled"] for endings in summary.endings().values()) > 20


async def test_45_lookups_end_with_the_outbound(vnet, autojump_clock):
    ended = []

    class Slow:
        async def addresses(self, _host, _family, /):
            try:
                await trio.sleep_forever()
            finally:
                ended.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        async with opened(resolver=Slow()) as out:

            async def use() -> None:
                with pytest.raises(RuntimeError, match="the block of open_outbound has been left"):
                    await connects(out.destination("a.test", port=25))

            nursery.start_soon(use)
            await trio.sleep(1)
        assert ended == [1.0, 1.0]
    assert trio.current_time() == 1.0


async def test_45_what_the_block_raises_comes_out_as_itself(vnet, autojump_clock):
    with pytest.raises(KeyError):
        async with opened():
            raise KeyError
    with trio.move_on_after(1) as scope:
        async with opened():
            await trio.sleep_forever()
    assert scope.cancelled_caught


class Replay:
    """Reads the record of one destination, and works its state out anew from what happened."""

    def __init__(self, policy: OutboundPolicy) -> None:
        self.policy = policy
        self.health = Health()

    def __call__(self, event: OutboundEvent) -> None:
        assert event.before == self.health, "each record begins where the one before has ended"
        before, after = event.before, event.after
        # Those that were refused, released, late or suspended leave it as it is.
        expected = before
        match event.what:
            case "admitted":
                expected = attrs.evolve(before, state="probing") if before.state == "open" else before
            case "reset":
                expected = Health(generation=before.generation + 1)
            case "succeeded":
                expected = Health(generation=before.generation + (before.state == "probing"))
            case "failed":
                failures = before.failures + 1
                expected = attrs.evolve(before, failures=failures)
                if before.state == "probing" or failures == self.policy.failures_to_delay:
                    law, openings = self.policy.delay, before.openings + 1
                    # The draw is in the record; that it was within its bounds is looked at here.
                    ahead = after.until - event.at
                    middle = law.delay(openings, 0.0)
                    assert middle * (1 - law.jitter) <= ahead <= middle * (1 + law.jitter)
                    expected = attrs.evolve(
                        expected,
                        state="open", openings=openings, until=after.until, generation=before.generation + 1,
                    )  # fmt: skip
        assert after == expected, event
        self.health = after


@pytest.mark.parametrize("seed", range(4))
async def test_46_every_decision_has_one_record_and_the_records_replay(vnet, autojump_clock, seed):
    host = vnet.host("192.0.2.1").listen(25, None, rtt=0.02)
    random = Random(seed)
    policy = OutboundPolicy(failures_to_delay=2, max_connections=3, attempt_timeout=1.0)
    events: list[OutboundEvent] = []
    async with opened(policy, sources=[NEAR, FAR, BROKEN], observer=events.append, seed=seed) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        calls = decisions = 0

        async def use() -> None:
            nonlocal calls, decisions
            await trio.sleep(random.random() * 60)
            calls += 1
            with trio.move_on_after(random.choice((0.01, 5.0, 50.0))):
                try:
                    async with dest.permit(now() + 9_000) if random.random() < 0.3 else dest.connect(now() + 9_000):
                        await trio.sleep(random.random())
                        if random.random() < 0.2:
                            raise OSError("it broke")
                except (NotAdmitted, OSError, DeadlineExceeded):
                    decisions += 1

        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(use)
            for _ in range(8):
                await trio.sleep(random.random() * 6)
                random.choice((host.blackhole, host.recover, host.refuse, dest.reset))()
        replay = Replay(policy)
        for event in events:
            replay(event)
        snapshot = dest.snapshot()
        final = replay.health
        assert (final.state, final.failures, final.openings, final.generation) == (
            snapshot.state, snapshot.failures, snapshot.openings, snapshot.generation,
        )  # fmt: skip
        told = words(events)
        ends = sum(told.count(word) for word in ("succeeded", "failed", "released", "late"))
        assert ends == told.count("admitted"), "each admission ends once"
        assert {"admitted", "succeeded", "failed", "suspended"} <= set(told)
        assert all(first.at <= second.at for first, second in pairwise(events))


async def test_46_an_observer_that_raises_is_dropped(vnet, autojump_clock, caplog):
    good(vnet, "192.0.2.1")
    told = []

    def observer(event: OutboundEvent) -> None:
        told.append(event)
        raise ValueError("mine")

    async with opened(observer=observer) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        await connects(dest)
        await connects(dest)
    assert len(told) == 1
    assert "the observer of an outbound raised and is dropped" in caplog.text


# Decisions and what they say


async def test_a_retry_loop_in_three_lines(vnet, autojump_clock):
    host = vnet.host("192.0.2.1").listen(25, None, rtt=0.02).refuse()
    async with opened(rules(failures_to_delay=3)) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        for attempt in range(20):
            if attempt == 6:
                host.recover()
            try:
                async with dest.connect():
                    break
            except (NotAdmitted, ConnectFailed) as exc:
                await trio.sleep(exc.decision.seconds)  # type: ignore[union-attr]
        assert dest.snapshot().state == "closed"
        assert attempt == 6


class NeverKnows:
    """A resolver that fails."""

    async def addresses(self, host: str, _family: AddressFamily, /) -> Answer:
        raise socket.gaierror(socket.EAI_AGAIN, f"{host} is not to be found out")


async def busy(_stream: object) -> None:
    raise Overloaded(1.1)


@pytest.mark.parametrize("kind", ["circuit", "lookup", "suspension"])
async def test_who_comes_back_when_a_decision_says_is_never_too_early(kind, vnet, autojump_clock):
    """A decision that ends in no time would be asked for again and again, while the clock of a test stands still."""
    refusing(vnet, "192.0.2.1")
    good(vnet, "192.0.2.2")
    async with opened(rules(failures_to_delay=1), resolver=NeverKnows()) as out:
        for number in range(50):
            await trio.sleep(number * 0.037)
            if kind == "lookup":
                dest = out.destination(f"a{number}.test", port=25)
            else:
                dest = out.destination(f"a{number}", candidates=at("192.0.2.1" if kind == "circuit" else "192.0.2.2"))
            for _ in range(4):
                with pytest.raises((NotAdmitted, DestinationFailed)) as caught:
                    await tries(dest, establish=busy)
                decision = decision_of(caught.value)
                assert decision.seconds > 0.9
                await trio.sleep(decision.seconds)


async def test_who_comes_back_when_the_lease_of_a_probe_ends_is_never_too_early(vnet, autojump_clock):
    good(vnet, "192.0.2.1")

    async def breaks(_stream: object) -> None:
        raise OSError("no greeting")

    async def stuck(_stream: object) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(30)

    async def is_stuck(dest: Destination) -> None:
        with pytest.raises(DestinationFailed) as failure:
            await tries(dest, establish=stuck)
        assert decision_of(failure.value).seconds > 0  # although the address has rested long ago

    async with opened(rules(failures_to_delay=1, connect_timeout=1.3)) as out:
        for number in range(30):
            await trio.sleep(number * 0.037)
            dest = out.destination(f"a{number}", candidates=at("192.0.2.1"))
            with pytest.raises(DestinationFailed) as failure:
                await tries(dest, establish=breaks)
            await trio.sleep(decision_of(failure.value).seconds)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(is_stuck, dest)
                await trio.sleep(5.9)  # its lease ends after 6.3
                with pytest.raises(NotAdmitted, match="is being tried by another call") as refusal:
                    await tries(dest)
                assert 0.3 < refusal.value.seconds < 0.5
                await trio.sleep(refusal.value.seconds)
                await tries(dest)


async def tries(dest: Destination, **arguments: Any) -> None:
    async with dest.try_connect(**arguments):
        pass


async def test_a_failed_connect_says_what_to_do(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=2)) as out:
        dest = out.destination("mx.test", candidates=at("192.0.2.1"))
        with pytest.raises(DestinationFailed, match=r"the only attempt to mx\.test .*again with this one in 1\.000 s"):
            await connects(dest)
        with pytest.raises(ConnectFailed) as caught:
            await connects(dest)
        error: Any = caught.value
        assert isinstance(error.decision, DestinationDelayed)
        assert len(error.errors) == 1
        assert isinstance(error.__cause__, ExceptionGroup)
        again = pickle.loads(pickle.dumps(error))
        assert (str(again), again.errno, again.decision.until) == (str(error), error.errno, error.decision.until)
        assert dest.snapshot().errors[-1] in str(error)


async def test_decisions_can_be_pickled(vnet, autojump_clock):
    until = now() + 1500
    decisions: list[NotAdmitted] = [
        kind("a", "because", until=until) for kind in (RetryAt, RequeueOne, DestinationDelayed, DestinationRejected)
    ]
    decisions.append(SourceSuspended("a", "because", until=until, source=NEAR, misses_deadline=True))
    for decision in decisions:
        again = pickle.loads(pickle.dumps(decision))
        assert type(again) is type(decision)
        assert (str(again), vars(again)) == (str(decision), vars(decision))
        assert "a: because; " in str(decision)
        assert "1.500 s" in str(decision)
        assert decision.decision is decision
        assert decision.seconds == pytest.approx(1.5)
    await trio.sleep(2)
    assert decisions[0].seconds == 0.0
    forever = DestinationRejected("a", "null MX", until=-1)
    assert forever.seconds == float("inf")
    assert str(forever) == "a: null MX; give up what is for it"


def test_overloaded_has_a_time():
    for seconds in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="seconds must be a number above 0"):
            Overloaded(seconds)
    with pytest.raises(TypeError, match="seconds must be a number above 0, and finite, got '30'"):
        Overloaded(cast("Any", "30"))  # a header is text
    assert str(Overloaded(3, "421 busy")) == "421 busy (in 3 s)"


async def test_a_snapshot_says_why_there_is_no_connection(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    policy = rules(max_connections=1, rate=Rate(1, 60.0), group_rate=Rate(5, 1.0), total_connections=8)
    async with opened(policy, sources=[NEAR]) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        assert dest.snapshot().binding == ""
        async with dest.connect(), trio.open_nursery() as nursery:
            nursery.start_soon(connects, dest)
            await trio.sleep(1)
            snapshot = dest.snapshot()
            assert snapshot.waiting == 1
            assert snapshot.binding == "connections from near to a"
            assert [(row.name, row.held, row.cap) for row in snapshot.limits] == [
                ("connections from near to a", 1, 1),
                ("connects to a under way", 0, 2),
                ("connections of the whole program", 1, 8),
            ]
            assert [row.name for row in snapshot.rates] == ["rate from near to a", "rate to a"]
            assert [row.next - now() for row in snapshot.rates] == [60_000 - 1020, 0]
            nursery.cancel_scope.cancel()
        assert dest.snapshot().binding == "a rate"
        dest.suspend(now() + 1000, reason="by hand")
        assert dest.snapshot().binding == "every source is suspended (by hand)"
        assert [(row.source, row.until - now()) for row in dest.snapshot().suspensions] == [(None, 1000)]


# What users can get wrong


async def test_the_same_name_is_the_same_destination(vnet, autojump_clock):
    async with opened(resolver=StaticResolver({}, mx={})) as out:
        dest = out.destination("a", candidates=at("192.0.2.1"))
        assert out.destination("a") is dest
        assert out.mx("a") is not dest
        assert out.srv("a") is not out.mx("a")
        assert dest.name == "a"
        assert repr(dest) == "<trio_connect.outbound.Destination a>"


async def test_destinations_are_forgotten_when_nobody_has_used_them_for_long(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(state_expiry=100.0, total_connections=10)) as out:
        kept = out.destination("kept", candidates=at("192.0.2.1"))
        for number in range(50):
            await connects(out.destination(f"d{number}", candidates=at("192.0.2.1")))
        assert len(out._states) == 51
        await trio.sleep(200)
        for number in range(60):
            out.destination(f"e{number}")
        assert len(out._recent) == 60
        assert out.destination("kept") is kept, "one object for each name, as long as somebody has it"
        await connects(kept)


async def test_a_rate_that_has_not_run_out_is_not_forgotten(vnet, autojump_clock):
    good(vnet, "192.0.2.1")
    async with opened(rules(state_expiry=10.0, rate=Rate(1, 86_400))) as out:
        await connects(out.destination("a", candidates=at("192.0.2.1")))
        for number in range(30):
            await trio.sleep(60)
            out.destination(f"e{number}")
        decision = await fails(out.destination("a"), now() + 1000)
        assert isinstance(decision, RetryAt)


async def test_bad_arguments_are_told_before_anything_happens(vnet, autojump_clock):
    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"policy": 3}, TypeError, "policy must be an OutboundPolicy, got 3"),
        ({"store": "limits"}, TypeError, "store must be a FileStore or RedisStore or None, got 'limits'"),
        ({"sources": NEAR}, TypeError, "sources must be a sequence of Source"),
        ({"sources": ["192.0.2.1"]}, TypeError, "sources must be a sequence of Source"),
        ({"sources": [NEAR, NEAR]}, ValueError, "a source is there twice"),
        ({"resolver": "dns"}, TypeError, "resolver must have an async method addresses"),
        ({"resolver": StaticResolver}, TypeError, "resolver must have an async method addresses"),
        ({"observer": 3}, TypeError, "observer must be callable or None"),
        ({"observer": trio.sleep}, TypeError, "observer must not be async"),
        ({"address_filter": 3}, TypeError, "address_filter must be callable or None"),
    ]
    for arguments, error, text in bad:
        with pytest.raises(error, match=text):
            async with open_outbound(**arguments):
                pass
    async with opened(sources=[NEAR], resolver=StaticResolver({})) as out:
        worse: list[tuple[Any, type[Exception], str]] = [
            (lambda: out.destination(3), TypeError, "name must be a str, got 3"),  # type: ignore[arg-type]
            (lambda: out.destination("b", group=3), TypeError, "group must be a str or None, got 3"),  # type: ignore[arg-type]
            (lambda: out.destination("b", policy=3), TypeError, "policy must be an OutboundPolicy or None, got 3"),  # type: ignore[arg-type]
            (lambda: out.destination("b", port=0), ValueError, "cannot connect to port 0 of 'b'"),
            (lambda: out.destination("b", port=25, candidates=[]), ValueError, "candidates or a port, not both"),
            (lambda: out.destination("b", candidates="192.0.2.1"), TypeError, "candidates must be an iterable"),  # type: ignore[arg-type]
            (lambda: out.destination("b", candidates=[("mx.test", 25)]), ValueError, "mx.test"),
            (lambda: out.mx("b", port=70_000), ValueError, "port"),
            (lambda: out.srv("_x._tcp.a b"), ValueError, "white space"),
            (lambda: out.destination("b").suspend(0), ValueError, "a suspension ends at a time"),
            (lambda: out.destination("b").suspend(now() + 1, FAR), ValueError, "not a source of this outbound"),
        ]
        for call, error, text in worse:
            with pytest.raises(error, match=text):
                call()
        with pytest.raises(
            ValueError, match="destination permits has no candidates and no port: it gives permits only"
        ):
            await connects(out.destination("permits"))
        dest = out.destination("c", candidates=at("192.0.2.1"))
        with pytest.raises(TypeError, match="establish must be callable"):
            await connects(dest, establish=3)
        with pytest.raises(ValueError, match="a deadline is"):
            await connects(dest, -2)
        with pytest.raises(
            DeadlineExceeded, match=r"connect to c did not begin: its deadline came 1\.\d ms before"
        ) as late:
            await connects(dest, now() - 1)
        assert late.value.report is not None
        with pytest.raises(DeadlineExceeded, match="admission to c did not begin: its deadline came"):
            async with dest.permit(now()):
                pass
        with pytest.raises(ValueError, match="candidates must not be empty"):
            out.destination("empty", candidates=[])
    assert vnet.trace.connections == ()


def test_sources_have_names_and_weights():
    assert Source("192.0.2.1", name="a", weight=3).weight == 3
    with pytest.raises(TypeError, match="the name of a source must be a str"):
        Source("192.0.2.1", name=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the weight of a source"):
        Source("192.0.2.1", weight=-1)
    assert Source("192.0.2.1") != Source("192.0.2.1", name="a")


async def test_destinations_may_have_policies_of_their_own(vnet, autojump_clock):
    refusing(vnet, "192.0.2.1")
    async with opened(rules(failures_to_delay=9)) as out:
        strict: Destination = out.destination("a", candidates=at("192.0.2.1"), policy=rules(failures_to_delay=1))
        assert isinstance(await fails(strict), DestinationDelayed)
        assert isinstance(await fails(out.destination("b", candidates=[Candidate(("192.0.2.1", 25))])), RequeueOne)


def test_backoff_is_public():
    assert Backoff().maximum == 120.0
