"""Durations in records, messages and pictures."""

from __future__ import annotations

import pytest

from trio_connect._durations import duration, microseconds, milliseconds, short_duration


def test_records_have_whole_microseconds() -> None:
    assert microseconds(None) is None
    assert (microseconds(0.0), microseconds(0.2500004), microseconds(0.0000006)) == (0, 250_000, 1)


def test_messages_have_milliseconds_to_one_digit_and_calls_seconds() -> None:
    assert (milliseconds(0.25), milliseconds(0.00004), milliseconds(1.5)) == ("250.0 ms", "0.0 ms", "1500.0 ms")
    assert (duration(0.9994), duration(1.0), duration(12.346)) == ("999.4 ms", "1.00 s", "12.35 s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"), (0.00004, "0.04 ms"), (0.00123, "1.2 ms"), (0.005, "5 ms"), (0.0126, "13 ms"), (0.25, "250 ms"),
        (9.999, "9999 ms"), (10.04, "10.0 s"), (3600, "3600.0 s"),
    ],
)  # fmt: skip
def test_times_have_two_or_three_digits(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text
