"""The memory of earlier connects, written and read."""

from __future__ import annotations

import copy
import json
from math import inf
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import examples
from trio_connect._endpoint import Endpoint
from trio_connect._engine.history import Entry, Key, Limits, Memory
from trio_connect._engine.history_file import dump, load
from trio_connect._unresolved import UnresolvedEndpoint

LIMITS = Limits(size=100, retry_after=10.0, retry_at_most=60.0, explore_after=600.0, lifetime=3600.0, hedge_budget=None)
KEYS: list[Key] = [
    ("", "", None, Endpoint("192.0.2.1", 443)),
    ("home", "user", ("192.0.2.9", "eth1", ""), Endpoint("192.0.2.1", 443)),
    ("", "", None, Endpoint("fe80::1", 443, "eth0", 7)),
    ("", "", None, Endpoint("fe80::1", 443, 3)),
]


def filled(now: float = 100.0) -> Memory:
    memory = Memory(LIMITS)
    memory.tried(KEYS[0], now)
    memory.answered(KEYS[1], 0.08, now)
    memory.succeeded(KEYS[1], now + 1)
    memory.failed(KEYS[2], now + 2, "refused", began=now)
    memory.failed(KEYS[3], now + 3, "slow", began=now, slow=True)
    return memory


def read(data: object, now: float = 0.0, date: float = 5000.0) -> Memory:
    memory = Memory(LIMITS)
    load(data, memory, now, date)
    return memory


def through_json(memory: Memory, now: float) -> Any:
    return json.loads(json.dumps(dump(memory, now, 5000.0), allow_nan=False))


def as_ages(memory: Memory, now: float) -> list[tuple[Key, dict[str, Any]]]:
    times = {"since", "heard", "tried", "used", "measured", "failed", "until"}
    return [
        (
            key,
            {
                name: pytest.approx(now - value) if name in times else value
                for name, value in attrs.asdict(entry).items()
            },
        )
        for key, entry in memory.entries(now)
    ]


def test_what_is_written_is_read_with_the_same_ages():
    memory = filled()
    restored = read(through_json(memory, 110.0), now=-50.0)
    assert as_ages(restored, -50.0) == as_ages(memory, 110.0)
    assert [restored.level(key, -50.0) for key in KEYS] == [memory.level(key, 110.0) for key in KEYS] == [0, 0, 2, 1]


def test_the_time_between_counts():
    data = through_json(filled(), 104.0)
    restored = read(data, now=0.0, date=5007.0)
    assert restored.level(KEYS[2], 0.9) == 2
    assert restored.level(KEYS[2], 1.1) == 0
    assert list(read(data, date=5000.0 + 3600.0).entries(0.0)) == []


def test_a_wall_clock_that_was_set_back_makes_nothing_younger():
    data = through_json(filled(), 104.0)
    assert as_ages(read(data, date=0.0), 0.0) == as_ages(read(data), 0.0)


def test_what_is_too_old_is_not_written():
    assert through_json(filled(), 100.0 + 3600.0)["entries"][0]["used"] is not None
    assert through_json(filled(), 103.0 + 3600.0) == {"version": 1, "saved_at": 5000.0, "entries": []}


def test_a_name_that_a_proxy_looks_up_is_not_written():
    memory = filled()
    memory.tried(("", "", ("", "", "socks5h://192.0.2.8:1080"), UnresolvedEndpoint("api.test", 443)), 104.0)
    assert len(memory) == 5
    assert len(through_json(memory, 104.0)["entries"]) == 4


def test_a_smaller_memory_keeps_what_was_heard_of_last():
    memory = Memory(attrs.evolve(LIMITS, size=2))
    load(through_json(filled(), 104.0), memory, 0.0, 5000.0)
    assert [key for key, _ in memory.entries(0.0)] == KEYS[2:]


GOOD = through_json(filled(), 104.0)


def changed(**changes: Any) -> Any:
    data = copy.deepcopy(GOOD)
    data["entries"][3].update(changes)
    return data


WRONG: dict[str, Any] = {
    "null": None,
    "list": [],
    "text": "",
    "nothing": {},
    "version": {**GOOD, "version": 2},
    "date": {**GOOD, "saved_at": "today"},
    "date is a bool": {**GOOD, "saved_at": True},
    "date is infinite": {**GOOD, "saved_at": inf},
    "no entries": {**GOOD, "entries": None},
    "null entry": {**GOOD, "entries": [None]},
    "empty entry": {**GOOD, "entries": [{}]},
    "name": changed(endpoint=["a name", 443]),
    "port": changed(endpoint=["192.0.2.1", 70_000]),
    "no port": changed(endpoint=["192.0.2.1"]),
    "host": changed(endpoint=[1, 443]),
    "half a source": changed(source=["192.0.2.1"]),
    "source": changed(source=[1, "eth0", ""]),
    "network": changed(network=None),
    "partition": changed(partition=1),
    "reason": changed(reason=None),
    "age": changed(since=-1.0),
    "text as age": changed(heard="long ago"),
    "infinite time": changed(srtt=inf),
    "negative time": changed(rttvar=-0.1),
    "no time": changed(rttvar=None),
    "count": changed(failures=-1),
    "bool as count": changed(failures=True),
    "left": changed(left="x"),
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_is_not_such_data_is_refused_and_changes_nothing(data):
    memory = Memory(LIMITS)
    with pytest.raises(ValueError, match=r"^it is not a history: "):
        load(data, memory, 0.0, 5000.0)
    assert len(memory) == 0


def test_another_version_says_so():
    with pytest.raises(ValueError, match="not a history: its version is 2, and this one reads 1"):
        read({"version": 2})


@settings(max_examples=examples(40, 400), deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*GOOD, *GOOD["entries"][0]]), inner, max_size=9)
        ),
        max_leaves=20,
    )
)
def test_nothing_else_than_a_value_error_comes_of_any_data(data):
    memory = Memory(LIMITS)
    try:
        load({"version": 1, "saved_at": 1.0, "entries": [data]}, memory, 0.0, 5000.0)
    except ValueError:
        assert len(memory) == 0


@settings(max_examples=examples(40, 400), deadline=None)
@given(st.sampled_from(sorted(GOOD["entries"][0])), st.sampled_from([None, True, -1, 1e308, 10**400, [], {}, "x", inf]))
def test_one_wrong_field_is_refused_or_harmless(name, value):
    memory = Memory(LIMITS)
    try:
        load(changed(**{name: value}), memory, 0.0, 5000.0)
    except ValueError:
        assert len(memory) == 0
    else:
        for key in KEYS:
            memory.level(key, 0.0)
            memory.failed(key, 1.0, "refused")
        assert all(isinstance(entry, Entry) for _, entry in memory.entries(1.0))
