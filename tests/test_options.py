"""SocketOptions: what no kernel accepts is refused before there is a socket."""

from __future__ import annotations

import math

import attrs
import pytest

from trio_connect import SocketOptions
from trio_connect._options import DEFAULT_OPTIONS, check_options

SECONDS = ["keepalive_idle", "keepalive_interval", "user_timeout"]
COUNTS = ["keepalive_count", "notsent_lowat", "send_buffer", "receive_buffer"]
FLAGS = ["nodelay", "reuse_port", "fast_open", "multipath"]


NAMES = [*SECONDS, *COUNTS, *FLAGS, "v6only"]


def test_every_field_is_of_one_of_the_kinds_tested_here() -> None:
    assert {field.name for field in attrs.fields(SocketOptions)} == set(NAMES)


def test_defaults() -> None:
    assert SocketOptions() == DEFAULT_OPTIONS
    assert DEFAULT_OPTIONS.nodelay
    assert {name for name in NAMES if getattr(DEFAULT_OPTIONS, name)} == {"nodelay"}


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [True, "1", b"1", 1j], ids=repr)
def test_seconds_are_numbers(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a number of seconds, got"):
        SocketOptions(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [0, -1, math.inf, -math.inf, 0.0001, 1e10])
def test_seconds_have_a_range(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be between [\d.]+ and [\de.+]+ seconds, got"):
        SocketOptions(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SECONDS)
@pytest.mark.parametrize("value", [math.nan, 10**400], ids=["nan", "huge"])
def test_seconds_fit_a_float(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds, got"):
        SocketOptions(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "lowest", "highest"), [
    ("keepalive_idle", 1, 32767), ("keepalive_interval", 1.0, 32767.0), ("user_timeout", 0.001, 0x7FFFFFFF / 1000),
    ("keepalive_count", 1, 127), ("notsent_lowat", 1, 0x7FFFFFFF), ("send_buffer", 1, 0x7FFFFFFF),
    ("receive_buffer", 1, 0x7FFFFFFF),
])  # fmt: skip
def test_the_ends_of_each_range_and_none_are_allowed(name: str, lowest: float, highest: float) -> None:
    for value in (lowest, highest, None):
        assert getattr(SocketOptions(**{name: value}), name) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(("value", "error"), [
    (True, TypeError), (1.0, TypeError), ("1", TypeError), (math.nan, TypeError), (0, ValueError), (-1, ValueError),
    (1 << 31, ValueError),
])  # fmt: skip
def test_counts_are_ints_in_a_range(name: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"{name} must be "):
        SocketOptions(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*FLAGS, "v6only"])
@pytest.mark.parametrize("value", [1, 0, "yes", 1.0])
def test_flags_are_bools(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name} must be True or False, got"):
        SocketOptions(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FLAGS)
def test_only_v6only_may_be_none(name: str) -> None:
    assert SocketOptions(v6only=None).v6only is None
    with pytest.raises(TypeError, match=f"{name} must be True or False, got None"):
        SocketOptions(**{name: None})  # type: ignore[arg-type]


def test_check_options_wants_socket_options() -> None:
    check_options(DEFAULT_OPTIONS)
    values: list[object] = [None, {}, SocketOptions]
    for value in values:
        with pytest.raises(TypeError, match="options must be a SocketOptions, got"):
            check_options(value)
