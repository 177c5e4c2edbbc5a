from __future__ import annotations

import gc
import weakref
from socket import AF_INET, AF_INET6, EAI_AGAIN, AddressFamily, gaierror
from typing import Any

import pytest
import trio
import trio.testing

from trio_connect._answer import Answer, Lookup
from trio_connect._net.names.lookup import Lookups
from trio_connect._net.names.resolve import StaticResolver

BOTH = (AF_INET6, AF_INET)
V6 = "2001:db8::1"
V4 = "192.0.2.1"
AGAIN = gaierror(EAI_AGAIN, "Temporary failure in name resolution")


class Scripted:
    """Answers each family after its delay, with addresses or by raising."""

    def __init__(self, *, aaaa=(0.0, ()), a=(0.0, ())):
        self.script = {AF_INET6: aaaa, AF_INET: a}
        self.asked = []
        self.alive = 0

    async def addresses(self, host, family, /):
        self.asked.append((host, family, trio.current_time()))
        delay, result = self.script[family]
        self.alive += 1
        try:
            await trio.sleep(delay)
        finally:
            self.alive -= 1
        if isinstance(result, BaseException):
            raise result
        return result if isinstance(result, Answer) or result is None else Answer(tuple(result))


async def run(resolver, families=BOTH, *, delay=0.050, until=None, **kwargs):
    """Drive the lookups as a connect does; the addresses at each time that more() said so."""
    seen: list[tuple[float, Any]] = []
    lookups = Lookups("name.test", families, resolver, resolution_delay=delay, **kwargs)
    async with trio.open_nursery() as nursery:
        lookups.start(nursery)
        while await lookups.more():
            seen.append((round(trio.current_time(), 6), lookups.addresses))
            if until is not None and len(seen) == until:
                nursery.cancel_scope.cancel()
                break
        else:
            seen.append((round(trio.current_time(), 6), "end"))
    return lookups, seen


# ---------------------------------------------------------------------- the checklist, in virtual time


async def test_lines_1_2_and_5_both_questions_go_out_in_one_instant_aaaa_first(autojump_clock):
    for _ in range(20):  # the loop runs the tasks of one pass in any order
        resolver = Scripted(aaaa=(0.1, [V6]), a=(0.1, [V4]))
        started = trio.current_time()
        await run(resolver)
        assert resolver.asked == [("name.test", AF_INET6, started), ("name.test", AF_INET, started)]


async def test_lines_6_and_8_aaaa_first_starts_at_once_and_a_joins(autojump_clock):
    _, seen = await run(Scripted(aaaa=(0.02, [V6]), a=(1.0, [V4])))
    assert seen == [(0.02, (V6,)), (1.0, (V6, V4)), (1.0, "end")]


async def test_line_7_the_failure_of_one_lookup_leaves_the_other_alone(autojump_clock):
    lookups, seen = await run(Scripted(aaaa=(0.01, AGAIN), a=(0.5, [V4])))
    assert seen == [(0.5, (V4,)), (0.5, "end")]
    assert lookups.records == (
        Lookup(host="name.test", kind="AAAA", started=0.0, ended=0.01, error=AGAIN),
        Lookup(host="name.test", kind="A", started=0.0, ended=0.5, answer=Answer((V4,))),
    )


async def test_line_9_a_first_waits_for_aaaa(autojump_clock):
    _, seen = await run(Scripted(aaaa=(0.110, [V6]), a=(0.100, [V4])))
    assert seen == [(0.110, (V6, V4)), (0.110, "end")]


async def test_line_10_a_first_starts_after_the_resolution_delay_and_aaaa_joins(autojump_clock):
    _, seen = await run(Scripted(aaaa=(0.150, [V6]), a=(0.0, [V4])))
    assert seen == [(0.050, (V4,)), (0.150, (V6, V4)), (0.150, "end")]


async def test_an_answer_at_the_instant_the_delay_ends_counts(autojump_clock):
    for _ in range(20):
        begun = trio.current_time()
        _, seen = await run(Scripted(aaaa=(0.0625, [V6]), a=(0.0, [V4])), delay=0.0625)
        assert seen == [(begun + 0.0625, (V6, V4)), (begun + 0.0625, "end")]
        await trio.sleep(begun + 1 - trio.current_time())


async def test_line_19_an_empty_aaaa_ends_the_wait(autojump_clock):
    _, seen = await run(Scripted(aaaa=(0.01, ()), a=(0.0, [V4])))
    assert seen == [(0.01, (V4,)), (0.01, "end")]


async def test_line_20_nothing_found_ends_with_every_outcome_recorded(autojump_clock):
    lookups, seen = await run(Scripted(aaaa=(0.01, Answer(name_exists=False)), a=(0.02, AGAIN)))
    assert seen == [(0.02, "end")]
    assert [(record.kind, record.answer, record.error) for record in lookups.records] == [
        ("AAAA", Answer(name_exists=False), None),
        ("A", None, AGAIN),
    ]


@pytest.mark.parametrize(("family", "address"), [(AF_INET6, V6), (AF_INET, V4)])
async def test_line_21_one_family_asks_one_question(family, address, autojump_clock):
    resolver = Scripted(aaaa=(0.3, [V6]), a=(0.3, [V4]))
    lookups, seen = await run(resolver, [family])
    assert seen == [(0.3, (address,)), (0.3, "end")]
    assert [asked[1] for asked in resolver.asked] == [family]
    assert len(lookups.records) == 1


async def test_no_family_asks_nothing(autojump_clock):
    lookups, seen = await run(Scripted(), [])
    assert seen == [(0.0, "end")]
    assert lookups.records == ()


# ---------------------------------------------------------------------- records and hooks


async def test_line_53_a_cancelled_lookup_is_recorded_without_answer_or_error(autojump_clock):
    resolver = Scripted(aaaa=(0.02, [V6]), a=(5.0, [V4]))
    lookups, seen = await run(resolver, until=1)
    assert seen == [(0.02, (V6,))]
    assert resolver.alive == 0
    assert lookups.records == (
        Lookup(host="name.test", kind="AAAA", started=0.0, ended=0.02, answer=Answer((V6,))),
        Lookup(host="name.test", kind="A", started=0.0, ended=0.02),
    )
    assert lookups.gate.state == "cancelled"
    assert not await lookups.more()


async def test_times_count_from_the_origin_and_hooks_see_them(autojump_clock):
    await trio.sleep(2)
    starts: list[tuple[str, str, float]] = []
    ends: list[Lookup] = []
    lookups, _ = await run(
        Scripted(aaaa=(0.25, [V6]), a=(0.5, AGAIN)),
        on_start=lambda host, kind, at: starts.append((host, kind, at)),
        on_end=ends.append,
        origin=1.0,
    )
    assert starts == [("name.test", "AAAA", 1.0), ("name.test", "A", 1.0)]
    assert ends == list(lookups.records)
    assert [(record.kind, record.started, record.ended) for record in ends] == [("AAAA", 1.0, 1.25), ("A", 1.0, 1.5)]


async def test_answers_are_cleaned_before_anybody_sees_them(autojump_clock):
    lookups, seen = await run(Scripted(aaaa=(0.0, [V6, V4, V6, "2001:DB8::1"]), a=(0.1, Answer((V4, V6), 60))))
    assert seen[-2][1] == (V6, V4)
    assert [record.answer for record in lookups.records] == [Answer((V6,)), Answer((V4,), 60)]


async def test_an_error_in_a_record_keeps_no_frames_alive():
    class Marker:
        pass

    markers = []

    class Failing:
        async def addresses(self, host, family, /):
            marker = Marker()
            markers.append(weakref.ref(marker))
            try:
                raise ValueError("inner")
            except ValueError as exc:
                raise ConnectionResetError(104, "name server went away") from exc

    lookups, _ = await run(Failing())
    gc.collect()
    assert [ref() for ref in markers] == [None, None]
    assert isinstance(lookups.records[0].error, ConnectionResetError)
    assert isinstance(lookups.records[0].error.__cause__, ValueError)


# ---------------------------------------------------------------------- what is no OSError


@pytest.mark.parametrize("at", [0.0, 0.2])
async def test_other_exceptions_come_out_as_themselves(at, autojump_clock):
    crash = LookupError("a bug in the resolver")
    lookups = Lookups("name.test", BOTH, Scripted(aaaa=(at, crash), a=(0.1, [V4])), resolution_delay=0.05)
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            lookups.start(nursery)
            while await lookups.more():
                pass
    # In the group only because this test's own nursery has it from more(): it is the exception itself, once.
    assert caught.value.exceptions == (crash,)
    assert [record.kind for record in lookups.records if record.answer is None and record.error is None] == (
        ["AAAA"] if at else ["AAAA", "A"]
    )
    with pytest.raises(LookupError):
        await lookups.more()


async def test_a_resolver_that_returns_no_answer_is_a_type_error(autojump_clock):
    lookups = Lookups("name.test", BOTH, Scripted(aaaa=(0.0, None)), resolution_delay=0.05)
    async with trio.open_nursery() as nursery:
        lookups.start(nursery)
        with pytest.raises(TypeError, match="returns an Answer, got None"):
            await lookups.more()
        nursery.cancel_scope.cancel()


async def test_a_base_exception_is_not_held_back(autojump_clock):
    class Escape(BaseException):
        pass

    lookups = Lookups("name.test", [AF_INET], Scripted(a=(0.1, Escape())), resolution_delay=0.05)
    with pytest.raises(BaseExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            lookups.start(nursery)
            await lookups.more()
    assert [type(exc) for exc in caught.value.exceptions] == [Escape]
    assert len(lookups.records) == 1


# ---------------------------------------------------------------------- cancellation and checkpoints


async def test_more_is_a_checkpoint_and_can_be_cancelled(autojump_clock):
    lookups = Lookups("name.test", BOTH, Scripted(aaaa=(0.0, [V6]), a=(1.0, [V4])), resolution_delay=0.05)
    async with trio.open_nursery() as nursery:
        lookups.start(nursery)
        with trio.testing.assert_checkpoints():
            assert await lookups.more()
        with trio.move_on_after(0.5) as scope:
            await lookups.more()
        assert scope.cancelled_caught
        with trio.CancelScope() as scope:
            scope.cancel()
            await lookups.more()
        assert scope.cancelled_caught
        # Nothing is lost by any of it.
        assert await lookups.more()
        assert lookups.addresses == (V6, V4)
        with trio.testing.assert_checkpoints():
            assert not await lookups.more()


async def test_line_77_a_cancel_in_any_pass_leaves_no_lookup_behind():
    for passes in range(12):
        resolver = Scripted(aaaa=(0.0, [V6]), a=(0.0, [V4]))
        lookups = Lookups("name.test", BOTH, resolver, resolution_delay=0.05)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                lookups.start(nursery)
                for _ in range(passes):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
                while await lookups.more():
                    pass
        assert resolver.alive == 0
        assert [record.kind for record in lookups.records] == ["AAAA", "A"]


async def test_one_question_may_be_asked_by_the_task_of_the_caller():
    tasks = []

    class Noting:
        async def addresses(self, host: str, family: AddressFamily, /) -> Answer:
            assert not trio.lowlevel.currently_ki_protected()
            tasks.append((family, trio.lowlevel.current_task()))
            # Each lookup has a stack of scopes of its own, whatever the other one does meanwhile.
            with trio.move_on_after(5):
                await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.lowlevel.checkpoint)
            return Answer((V6, V4))

    @trio.lowlevel.enable_ki_protection
    async def call() -> Lookups:
        lookups = Lookups("name.test", BOTH, Noting(), resolution_delay=0.05)
        async with trio.open_nursery() as nursery:
            await lookups.start_but_one(nursery)()
        return lookups

    assert (await call()).addresses == (V6, V4)
    here = trio.lowlevel.current_task()
    assert [(family, task is here) for family, task in tasks] == [(AF_INET6, True), (AF_INET, False)]


async def test_an_error_that_comes_with_a_cancellation_does_not_stand_for_it():
    class FailsWhenCancelled:
        async def addresses(self, _host: str, _family: AddressFamily, /) -> Answer:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                try:
                    await trio.sleep_forever()
                finally:
                    raise OSError("no goodbye")

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            lookups = Lookups("name.test", (AF_INET6,), FailsWhenCancelled(), resolution_delay=0.05)
            ask = lookups.start_but_one(nursery)
            scope.cancel()
            await ask()
            raise AssertionError
    assert scope.cancelled_caught
    assert [str(record.error) for record in lookups.records] == ["no goodbye"]


async def test_where_there_is_no_question_the_caller_has_none_either():
    lookups = Lookups("name.test", (), Scripted(), resolution_delay=0.05)
    async with trio.open_nursery() as nursery:
        await lookups.start_but_one(nursery)()
    assert lookups.records == ()


async def test_with_a_resolver_that_never_waits():
    lookups, seen = await run(StaticResolver({"name.test": [V4, V6]}))
    assert seen[-2][1] == (V6, V4)
    assert len(lookups.records) == 2
