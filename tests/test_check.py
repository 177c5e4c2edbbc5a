"""Numbers that are given as arguments: each is refused at the call, with its value and the rule."""

from __future__ import annotations

import math

import pytest

from trio_connect._check import SIZE_LIMIT, check_callback, check_float, check_int, check_range, check_size, check_text


class Count(int):
    """An int of another class is an int."""


@pytest.mark.parametrize("value", [0, -1, 10**400, Count(3)], ids=["0", "-1", "huge", "subclass"])
def test_an_int_is_returned_as_it_was(value: int) -> None:
    assert check_int(value, "n") is value


@pytest.mark.parametrize("value", [True, False, 1.0, None, "1", b"1", [1]], ids=repr)
def test_what_is_no_int(value: object) -> None:
    with pytest.raises(TypeError, match="n must be an int, got ") as caught:
        check_int(value, "n")
    assert repr(value) in str(caught.value)
    with pytest.raises(TypeError, match="n must be a handle, got "):
        check_int(value, "n", "a handle")


def test_a_size_has_two_ends() -> None:
    assert check_size(1, "n", 1) == 1
    assert check_size(SIZE_LIMIT - 1, "n", 1) == SIZE_LIMIT - 1
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        check_size(0, "n", 1)
    with pytest.raises(ValueError, match=rf"^n must be below 2\*\*40, got {SIZE_LIMIT}: a deadline\?$"):
        check_size(SIZE_LIMIT, "n", 1)
    with pytest.raises(TypeError, match="n must be an int, got True"):
        check_size(True, "n", 1)


def test_a_range_has_its_ends_in_it() -> None:
    assert (check_range(0, "n", 0, 7), check_range(7, "n", 0, 7)) == (0, 7)
    for value in (-1, 8):
        with pytest.raises(ValueError, match=f"^n must be between 0 and 7, got {value}$"):
            check_range(value, "n", 0, 7)
    with pytest.raises(TypeError, match=r"^n must be an int, got True$"):
        check_range(True, "n", 0, 7)


@pytest.mark.parametrize("value", [0, -1, 1.5, math.inf, -math.inf])
def test_a_float_is_returned_as_it_was(value: float) -> None:
    assert check_float(value, "x", "a number") is value


@pytest.mark.parametrize("value", [True, None, "1", 1j], ids=repr)
def test_what_is_no_float(value: object) -> None:
    with pytest.raises(TypeError, match="x must be a number, got "):
        check_float(value, "x", "a number")


@pytest.mark.parametrize("value", [math.nan, 10**400, -(10**400)], ids=["nan", "huge", "minus huge"])
def test_what_no_float_can_mean(value: float) -> None:
    with pytest.raises(ValueError, match="x must be a number, got "):
        check_float(value, "x", "a number")


class Hostile:
    """Its repr raises."""

    def __repr__(self) -> str:
        raise LookupError


def test_a_text_is_a_str() -> None:
    assert check_text("", "reason") == ""
    with pytest.raises(TypeError, match="reason must be a str, got b'x'"):
        check_text(b"x", "reason")


def test_a_callback_is_callable_or_not_there() -> None:
    check_callback(None, "observer")
    check_callback(print, "observer")
    with pytest.raises(TypeError, match=r"^observer must be callable or None, got 5$"):
        check_callback(5, "observer")
