from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._engine.dns_cache import FAILURE_KEPT, RECHECK_AFTER, STALE_TTL, CacheRules, DnsCache, Found

RULES = CacheRules(min_ttl=2.0, max_ttl=100.0, max_negative_ttl=20.0, max_stale=50.0, size=3)


def cache(**changes: Any) -> DnsCache[str]:
    return DnsCache(attrs.evolve(RULES, **changes))


def test_an_answer_is_fresh_then_stale_then_gone():
    memory = cache()
    memory.keep("k", "v", 10, 0.0, negative=False)
    assert memory.find("k", 9.0) == Found("v", 1.0, True, None)
    assert memory.find("k", 10.0) == Found("v", STALE_TTL, False, None)
    assert memory.find("k", 59.9) == Found("v", STALE_TTL, False, None)
    assert memory.find("k", 60.0) is None
    assert len(memory) == 0


@pytest.mark.parametrize(
    ("ttl", "negative", "kept"),
    [(0, False, 2), (1, True, 2), (50, False, 50), (50, True, 20), (1000, False, 100), (1000, True, 20)],
)
def test_ttls_are_clamped(ttl, negative, kept):
    memory = cache()
    assert memory.clamped(ttl, negative=negative) == kept
    memory.keep("k", "v", ttl, 0.0, negative=negative)
    assert memory.find("k", kept - 0.5) == Found("v", 0.5, True, None)
    assert memory.find("k", kept) == Found("v", STALE_TTL, False, None)


def test_an_answer_of_no_ttl_is_not_kept_and_ends_what_was_known():
    memory = cache(min_ttl=0.0)
    memory.keep("k", "v", 10, 0.0, negative=False)
    memory.keep("k", "w", 0, 0.0, negative=False)
    assert memory.find("k", 0.0) is None


def test_a_failure_is_remembered_for_a_second():
    memory = cache()
    memory.fail("k", "silence", 0.0)
    assert memory.find("k", 0.5) == Found(None, 0.0, False, "silence")
    assert memory.find("k", FAILURE_KEPT) is None
    assert len(memory) == 0


def test_a_failure_beside_a_stale_answer_is_remembered_for_half_a_minute():
    memory = cache()
    memory.keep("k", "v", 10, 0.0, negative=False)
    memory.fail("k", "silence", 11.0)
    assert memory.find("k", 11.0 + RECHECK_AFTER - 1) == Found("v", STALE_TTL, False, "silence")
    assert memory.find("k", 11.0 + RECHECK_AFTER) == Found("v", STALE_TTL, False, None)


def test_the_failure_outlives_the_answer_that_it_stood_beside():
    memory = cache()
    memory.keep("k", "v", 10, 0.0, negative=False)
    memory.fail("k", "silence", 50.0)
    assert memory.find("k", 60.0) == Found(None, 0.0, False, "silence")


def test_an_answer_ends_a_failure():
    memory = cache()
    memory.fail("k", "silence", 0.0)
    memory.keep("k", "v", 10, 0.1, negative=False)
    assert memory.find("k", 0.1) == Found("v", 10.0, True, None)


def test_the_key_that_was_used_least_recently_goes():
    memory = cache()
    for key in "abc":
        memory.keep(key, key, 10, 0.0, negative=False)
    memory.find("a", 0.0)
    memory.fail("d", "silence", 0.0)
    assert [memory.find(key, 0.0) is not None for key in "abcd"] == [True, False, True, True]


# The oracle keeps everything that was ever said, and looks for the last of it.

_FACTS = st.lists(
    st.tuples(
        st.sampled_from(["keep", "keep negative", "fail", "find"]),
        st.sampled_from("ab"),
        st.sampled_from([0.0, 1.0, 5.0, 30.0, 200.0]),  # a ttl
        st.sampled_from([0.0, 0.5, 1.0, 10.0, 29.0, 31.0, 60.0]),  # time that passes before
    ),
    max_size=12,
)


@given(_FACTS, st.sampled_from([0.0, 2.0]))
def test_it_knows_what_the_last_facts_say(facts, min_ttl):
    memory = cache(size=10, min_ttl=min_ttl)
    now = 0.0
    said: list[tuple[float, str, str, str, float]] = []
    for number, (fact, key, ttl, passed) in enumerate(facts):
        now += passed
        if fact == "fail":
            memory.fail(key, f"f{number}", now)
        elif fact != "find":
            memory.keep(key, f"v{number}", ttl, now, negative=fact == "keep negative")
        said.append((now, fact, key, f"{'f' if fact == 'fail' else 'v'}{number}", ttl))
        for each in "ab":
            assert memory.find(each, now) == oracle(said, each, now, min_ttl)


def oracle(said, key, now, min_ttl):
    kept = [each for each in said if each[2] == key and each[1].startswith("keep")]
    value, expires = None, 0.0
    if kept:
        at, fact, _, text, ttl = kept[-1]
        seconds = min(max(ttl, min_ttl), RULES.max_ttl, *([RULES.max_negative_ttl] if "negative" in fact else []))
        if seconds > 0:
            value, expires = text, at + seconds
    since = kept[-1][0] if kept else -1.0
    position = said.index(kept[-1]) if kept else -1
    failures = [each for i, each in enumerate(said) if each[2] == key and each[1] == "fail" and i > position]
    failure = None
    if failures:
        at, _, _, text, _ = failures[-1]
        assert at >= since
        usable_then = value is not None and at < expires + RULES.max_stale
        if now < at + (RECHECK_AFTER if usable_then else FAILURE_KEPT):
            failure = text
    if value is not None and now < expires:
        return Found(value, expires - now, True, None)
    if value is not None and now < expires + RULES.max_stale:
        return Found(value, STALE_TTL, False, failure)
    return None if failure is None else Found(None, 0.0, False, failure)
