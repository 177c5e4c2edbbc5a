"""The claims of a process: what it asks a server, what an answer means, fencing, and its share while that is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from trio_connect._engine.limits import Cap, Pace
from trio_connect.outbound._redis_claim import EPOCH_KEY, PEERS_KEY, Question
from trio_connect.outbound._redis_claims import Claims
from trio_connect.outbound._store import Later

CAP, OTHER = Cap("connections", 4, shared="c"), Cap("others", 9, shared="o")
PACE = Pace("rate", 1_000_000, 4, shared="p")
GRANTED, PAUSE = ["granted", "0", 0], ["pause", "400000", 0]
WANTED, SECOND_WANTED = ["granted", "1", 0], ["granted", "01", 0]


def made(*, strict: bool = False) -> Claims:
    return Claims("me", 10.0, strict=strict, draw=lambda: 0.5, wake=lambda: None)


def acquire(claims: Claims, caps: tuple[Cap, ...], paces: tuple[Pace, ...], now: float) -> Any:
    return claims.acquire(caps, paces, now)


def question(claims: Claims) -> Question:
    question = claims.question()
    assert question is not None
    return question


def ask(
    claims: Claims,
    caps: tuple[Cap, ...] = (CAP,),
    paces: tuple[Pace, ...] = (),
    *,
    at: float = 0.0,
    answer: Sequence[object] = GRANTED,
) -> Any:
    """Ask for places, have it answered, and return what the call is told then."""
    first = claims.acquire(caps, paces, at)
    assert isinstance(first, Later)
    assert first.pending
    claims.answered(question(claims).claim, answer, at, at)
    return claims.acquire(caps, paces, at)


def test_without_shared_limits_nothing_is_asked():
    assert acquire(made(), (), (), 0.0) == {}


def test_a_question_has_all_limits_and_what_was_given_back():
    claims = made()
    held = ask(claims)[CAP]
    held.release()
    held.release()
    assert claims.has_work
    acquire(claims, (CAP, OTHER), (PACE,), 1.0)
    assert acquire(claims, (CAP, OTHER), (PACE,), 1.0).pending
    asked = question(claims)
    cap, other, pace = (
        "{trio-connect}:places:4:c", "{trio-connect}:places:9:o", "{trio-connect}:rate:1000000:4:p",
    )  # fmt: skip
    assert asked.keys == [EPOCH_KEY, cap, other, f"{cap}:wanted", f"{other}:wanted", pace, cap]
    assert asked.arguments == ["10000000", "me:2", "2", "1", "4", "9", "1000000", "4", "me:1"]
    assert claims.question() is None
    assert not claims.has_work


def test_places_that_nobody_comes_for_are_given_back():
    claims = made()
    acquire(claims, (CAP,), (), 0.0)
    claim = question(claims).claim
    claims.answered(claim, GRANTED, 0.0, 0.0)
    claims.forget(0.05)
    assert claims.is_kept(claim)
    claims.forget(0.1)
    assert not claims.is_kept(claim)
    assert claims.releases() == [("{trio-connect}:places:4:c", "me:1")]


def test_nor_are_they_used_by_a_call_that_comes_late():
    claims = made()
    acquire(claims, (CAP,), (), 0.0)
    claims.answered(question(claims).claim, GRANTED, 0.0, 0.0)
    assert acquire(claims, (CAP,), (), 0.2).pending
    assert question(claims).arguments[-1] == "me:1"


@pytest.mark.parametrize("strict", [False, True])
def test_an_answer_that_comes_too_late_is_not_used(strict):
    claims = made(strict=strict)
    acquire(claims, (CAP,), (), 0.0)
    # It would end in 3.3 s, and who looks for leases that end looks every 3.33.
    claims.answered(question(claims).claim, GRANTED, 0.0, 5.7)
    assert acquire(claims, (CAP,), (), 5.7).pending
    claims.answered(question(claims).claim, GRANTED, 5.7, 11.3)
    assert acquire(claims, (CAP,), (), 11.3)[CAP].fence - 1.0 - 11.3 > claims.pause


def test_a_refusal_stands_until_it_is_worth_asking_again():
    claims = made()
    told = ask(claims, answer=PAUSE)
    assert (told.known, told.pending, told.seconds) == (True, False, pytest.approx(0.41))
    assert "started again" in told.cause
    assert acquire(claims, (CAP,), (), 0.3).seconds == pytest.approx(0.11)
    again = acquire(claims, (CAP,), (), 0.42)
    assert again.pending
    assert again.cause == told.cause
    assert "not answered yet" in acquire(claims, (OTHER,), (), 0.42).cause
    told = ask(made(), paces=(PACE,), answer=["rate", "5000000", 1])
    assert (told.known, told.seconds) == (True, pytest.approx(5.01))
    assert "the rate is used up by all" in told.cause


def test_polls_for_a_place_grow_longer_and_end_with_a_place_of_this_process():
    claims = made()
    held = ask(claims)[CAP]
    waits: list[float] = []
    now = 0.0
    for _ in range(7):
        told = ask(claims, at=now, answer=["cap", "9000000", 1])
        assert told.blockers == (CAP,)
        assert not told.known
        waits.append(told.seconds)
        now += told.seconds
        told = acquire(claims, (CAP,), (), now - 0.01)
        assert not told.pending
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert ask(claims, at=now, answer=["cap", "20000", 1]).seconds == pytest.approx(0.02)
    held.release()
    assert acquire(claims, (CAP,), (), now).pending


def test_the_more_processes_the_longer_a_poll():
    for processes, longest in ((1, 0.05), (4, 0.2), (100, 1.0)):
        claims = made()
        claims.processes = processes
        now, waits = 0.0, [0.0]
        for _ in range(7):
            waits.append(ask(claims, at=now, answer=["cap", "9000000", 1]).seconds)
            now += waits[-1]
        assert waits[-1] == pytest.approx(longest)


def test_after_a_while_places_that_others_want_are_left_to_them_once():
    claims = made()
    claims.processes = 5  # one more than there are places
    for at in (0.0, 0.2, 0.4):
        ask(claims, at=at, answer=WANTED)[CAP].release()
    told = acquire(claims, (CAP,), (), 0.51)
    assert not told.pending
    assert "other processes want a place" in told.cause
    assert told.seconds == pytest.approx(0.1)
    assert claims.question() is None
    assert claims.has_work
    assert [key for key, _ in claims.releases()] == ["{trio-connect}:places:4:c"]
    # Then it asks like all others, and its turn begins anew.
    ask(claims, at=0.62, answer=WANTED)[CAP].release()
    again = ask(claims, at=1.0, answer=["cap", "9000000", 1])
    assert again.blockers == (CAP,)
    assert acquire(claims, (CAP,), (), 1.13).pending


def test_more_places_than_the_share_of_a_process_are_left_to_those_that_want_them():
    claims = made()
    claims.processes = 2
    first, _second = (ask(claims, answer=WANTED)[CAP] for _ in range(2))
    told = acquire(claims, (CAP,), (), 0.0)
    assert "other processes want a place" in told.cause
    assert told.seconds == pytest.approx(0.1)
    # After a pause it may have one all the same: nobody else has come for it.
    third = ask(claims, at=0.2, answer=WANTED)[CAP]
    assert not acquire(claims, (CAP,), (), 0.2).pending
    third.release()
    assert not acquire(claims, (CAP,), (), 0.2).pending
    # Its share it takes again at once, for ever.
    first.release()
    ask(claims, at=0.2, answer=WANTED)[CAP].release()
    ask(claims, at=100.0, answer=WANTED)


def test_what_is_over_when_each_has_its_share_is_taken_in_turns():
    claims = made()
    claims.processes = 3
    held = ask(claims, answer=WANTED)[CAP]
    ask(claims, at=0.1, answer=WANTED)[CAP].release()
    ask(claims, at=0.2, answer=WANTED)[CAP].release()
    assert not acquire(claims, (CAP,), (), 0.5).pending
    held.release()
    assert not acquire(claims, (CAP,), (), 0.55).pending


def test_places_that_nobody_else_wants_are_taken_again_at_once():
    claims = made()
    for at in (0.0, 0.4, 0.8, 1.2):
        ask(claims, at=at, answer=WANTED if at == 0.4 else GRANTED)[CAP].release()
    assert acquire(claims, (CAP,), (), 1.6).pending


@pytest.mark.parametrize("is_held", [False, True])
def test_a_turn_is_forgotten_with_the_places(is_held):
    claims = made()
    claims.processes = 5
    held = ask(claims, answer=WANTED)[CAP]
    if not is_held:
        held.release()
    claims.forget(5.0)
    held.release()
    assert acquire(claims, (CAP,), (), 5.0).pending != is_held


def test_a_limit_is_left_to_others_by_all_that_want_places_under_it():
    # Two sources have one group in common.
    one, two = (OTHER, CAP), (Cap("others", 9, shared="p"), CAP)
    claims = made()
    claims.processes = 5
    for at, caps in ((0.0, one), (0.2, one), (0.4, two)):
        for held in ask(claims, caps, at=at, answer=SECOND_WANTED).values():
            held.release()
    told = [acquire(claims, caps, (), 0.51) for caps in (one, two)]
    assert [each.seconds for each in told] == [pytest.approx(0.1)] * 2
    assert claims.question() is None
    # The other limit of the same claims is not wanted.
    assert acquire(claims, (OTHER,), (), 0.51).pending
    assert acquire(claims, one, (), 0.62).pending


def test_nor_does_a_poll_come_between():
    claims = made()
    claims.processes = 5
    ask(claims, answer=WANTED)[CAP].release()
    other = (OTHER, CAP)
    ask(claims, other, at=0.4, answer=["cap", "9000000", 2])
    assert not acquire(claims, (CAP,), (), 0.5).pending
    assert acquire(claims, other, (), 0.55).seconds == pytest.approx(0.05)
    assert acquire(claims, other, (), 0.6).pending


def test_a_rest_ends_though_places_are_given_back_all_the_time():
    claims = made()
    held = [ask(claims, answer=WANTED)[CAP] for _ in range(4)]
    claims.processes = 4
    assert acquire(claims, (CAP,), (), 0.0).seconds == pytest.approx(0.1)
    held.pop().release()
    assert acquire(claims, (CAP,), (), 0.06).seconds == pytest.approx(0.04)
    held.pop().release()
    assert acquire(claims, (CAP,), (), 0.1).pending


def test_turns_of_limits_that_are_not_used_any_more_are_forgotten():
    claims = made()
    claims.processes = 5
    ask(claims)
    for number in range(100):
        caps = (Cap("others", 9, shared=str(number)), CAP)
        for held in ask(claims, caps, answer=["granted", "10", 0]).values():
            held.release()
    assert len(claims._turns) == 100
    claims.forget(5.0)
    assert len(claims._turns) == 0


def test_who_comes_back_when_told_is_not_too_early_by_the_last_bits_of_a_float():
    claims = made()
    now = 1e6 / 3
    for wait in range(1, 200):
        told = ask(claims, at=now, answer=["pause", str(wait * 7919), 0])
        back = now + told.seconds
        assert acquire(claims, (CAP,), (), back - 1e-9).pending
        claims.answered(question(claims).claim, GRANTED, back, back)
        kept = back + 0.1
        claims.forget(kept - 1e-9)
        assert len(claims.releases()) == 1
        now = kept


def test_an_old_refusal_is_forgotten_and_needs_no_release():
    claims = made()
    ask(claims, answer=["cap", "1000000", 1])
    ask(claims, (CAP, OTHER), answer=["cap", "1000000", 1])
    claims.forget(5.0)
    assert not acquire(claims, (CAP,), (), 0.01).pending
    claims.forget(11.0)
    assert claims.releases() == []
    assert acquire(claims, (CAP,), (), 11.0).pending


def test_a_question_without_an_answer_is_asked_again_with_its_id():
    claims = made()
    acquire(claims, (CAP,), (), 0.0)
    first = question(claims)
    claims.failed(first.claim)
    acquire(claims, (CAP,), (), 1.0)
    assert question(claims).arguments == first.arguments
    claims.failed(first.claim)
    claims.forget(2.0)
    assert claims.releases() == [("{trio-connect}:places:4:c", "me:1")]


def test_leases_are_renewed_and_fenced_from_before_the_asking():
    claims = made(strict=True)
    a, b = ask(claims)[CAP], ask(claims)[CAP]
    assert claims.next_lapse == pytest.approx(9.0)
    keys, arguments = claims.renewal(claims.held)
    assert keys == [EPOCH_KEY, PEERS_KEY, a.key, b.key]
    assert arguments == ["10000000", "me", "0", "me:1", "me:2"]
    assert claims.renewed([a, b], ["3", 1, 0], 4.0) == [b]
    assert claims.processes == 3
    assert claims.held == [a]
    assert claims.next_lapse == pytest.approx(13.0)
    assert claims.renewed([b], ["3", 1], 5.0) == []
    assert claims.lapsed(12.9) == []
    assert claims.lapsed(13.0) == [a]
    assert claims.held == []
    # What was given back while it was prolonged is given back once more: the server may have heard of that first.
    claims.released(claims.releases())
    assert claims.renewed([a, b], ["3", 1, 0], 13.0) == []
    assert claims.releases() == [(a.key, "me:1")]
    assert claims.renewed([a], ["3", 1], 13.0) == []
    # What has run out needs not be given back.
    claims.forget(23.0)
    assert claims.releases() == []


def test_what_was_given_back_while_an_answer_was_lost_is_given_back_once_more():
    claims = made()
    a, b = ask(claims)[CAP], ask(claims)[CAP]
    claims.renewal([a, b])
    a.release()
    claims.released(claims.releases())
    claims.unrenewed([a, b], 4.0)
    assert claims.releases() == [(a.key, "me:1")]
    claims.unreleased([(a.key, "me:1")])
    claims.forget(14.0)  # a TTL after the asking
    assert claims.releases() == []


def test_who_waits_is_to_ask_again_when_it_is_answered_or_nobody_will_answer():
    claims = made()
    assert not acquire(claims, (CAP,), (), 0.0).is_answered()
    waiting = acquire(claims, (CAP,), (), 0.0).is_answered
    claims.away = "is away"
    assert waiting()
    claims.away = ""
    assert not waiting()
    claims.answered(question(claims).claim, GRANTED, 0.0, 0.0)
    assert waiting()
    left = made()
    waiting = acquire(left, (CAP,), (), 0.0).is_answered
    left.stop()
    assert waiting()


def test_fewer_processes_are_believed_only_after_the_pause():
    claims = made()
    for heard, believed in (("-1", 1), ("3", 3), ("-1", 3), ("-4", 4), ("2", 2)):
        claims.renewed([], [heard], 0.0)
        assert claims.processes == believed


def test_without_strict_nothing_lapses():
    claims = made()
    held = ask(claims)[CAP]
    assert claims.lapsed(100.0) == []
    assert claims.next_lapse == float("inf")
    assert claims.renewal([held])[1][2] == "1"


@pytest.mark.parametrize(("strict", "processes"), [(True, 2), (False, 0)])
def test_away_nothing_is_admitted_without_a_share(strict, processes):
    claims = made(strict=strict)
    claims.processes = processes
    claims.away = "is away (why)"
    told = acquire(claims, (CAP,), (), 0.0)
    assert (told.cause, told.seconds, told.pending) == ("the store is away (why)", 1.0, False)
    assert not claims.has_work


def test_away_a_process_admits_its_share_of_the_places():
    claims = made()
    claims.processes = 2
    first = ask(claims)[CAP]
    claims.away = "is away (why)"
    acquire(claims, (CAP,), (), 0.0)[CAP]
    told = acquire(claims, (CAP,), (), 0.0)
    assert "2 of 4 connections are this process's share" in told.cause
    assert told.blockers == (CAP,)
    first.release()
    assert acquire(claims, (CAP,), (), 0.0)[CAP].fence == -float("inf")


def test_away_a_process_admits_its_share_of_the_rate_with_all_starts_counted():
    claims = made()
    claims.processes = 2
    ask(claims, paces=(PACE,))[CAP].release()
    claims.away = "is away (why)"
    acquire(claims, (CAP,), (PACE,), 0.0)[CAP].release()
    told = acquire(claims, (CAP,), (PACE,), 0.0)
    assert "its share of the rate" in told.cause
    assert told.seconds == pytest.approx(2.0)
    claims.forget(3.9)
    assert isinstance(acquire(claims, (CAP,), (PACE,), 1.9), Later)
    claims.forget(4.1)
    for _ in range(2):
        acquire(claims, (CAP,), (PACE,), 4.1)[CAP].release()
    assert isinstance(acquire(claims, (CAP,), (PACE,), 4.1), Later)


def test_at_the_end_everything_is_given_back():
    claims = made()
    ask(claims)
    acquire(claims, (CAP,), (), 0.0)
    claims.answered(question(claims).claim, GRANTED, 0.0, 0.0)
    acquire(claims, (OTHER,), (), 0.0)
    cap = "{trio-connect}:places:4:c"
    assert claims.everything() == [(cap, "me:1"), (cap, "me:2"), (PEERS_KEY, "me")]
    assert claims.held == []


def test_what_could_not_be_given_back_is_given_back_once_more_until_it_runs_out():
    claims = made()
    held = ask(claims)[CAP]
    held.release()
    for _ in range(2):
        leases = claims.releases()
        assert leases == [(held.key, "me:1")]
        claims.unreleased(leases)
        claims.unreleased(leases)
        claims.forget(9.9)
        assert claims.has_work
    claims.forget(10.0)
    assert not claims.has_work
    assert claims.everything() == [(PEERS_KEY, "me")]


def test_at_the_end_that_includes_what_is_being_given_back():
    claims = made()
    for held in [ask(claims)[CAP] for _ in range(2)]:
        held.release()
    first, second = claims.releases()
    claims.released([second])
    assert claims.everything() == [first, (PEERS_KEY, "me")]


def test_at_the_end_that_includes_what_may_have_been_granted_in_vain():
    claims = made()
    acquire(claims, (CAP,), (), 0.0)
    assert not claims.is_asking
    asked = question(claims)
    assert claims.is_asking
    claims.failed(asked.claim)
    assert not claims.is_asking
    acquire(claims, (CAP,), (), 1.0)  # to be asked again
    acquire(claims, (OTHER,), (), 1.0)  # was never asked
    claims.stop()
    assert claims.is_over
    assert (
        acquire(claims, (CAP,), (), 1.0).cause == acquire(claims, (CAP, OTHER), (), 1.0).cause == "the store is closed"
    )
    assert claims.question() is None
    assert claims.everything() == [("{trio-connect}:places:4:c", "me:1"), (PEERS_KEY, "me")]


@pytest.mark.parametrize("strict", [False, True])
def test_at_the_end_what_is_held_on_is_lost_with_strict(strict):
    claims = made(strict=strict)
    held = ask(claims)[CAP]
    assert claims.stop() == ([held] if strict else [])
    assert held.is_lost == strict
    assert claims.everything() == [(held.key, "me:1"), (PEERS_KEY, "me")]


def test_at_the_end_nobody_takes_what_is_about_to_be_given_back():
    claims = made()
    acquire(claims, (CAP,), (), 0.0)
    claims.answered(question(claims).claim, GRANTED, 0.0, 0.0)
    claims.stop()
    assert acquire(claims, (CAP,), (), 0.0).cause == "the store is closed"
    assert claims.everything() == [("{trio-connect}:places:4:c", "me:1"), (PEERS_KEY, "me")]
