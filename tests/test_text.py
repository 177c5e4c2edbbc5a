from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect._text import LONGEST_SHOWN, one_line, printable, shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("db.example.org", "db.example.org"),
        ("bücher.example", "bücher.example"),
        ("a b", "a b"),
        ("", ""),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("line\nnext\r\t", "line\\nnext\\r\\t"),
        ("\u202egro.elpmaxe", "\\u202egro.elpmaxe"),
        ("\udc80", "\\udc80"),
        ("x" * LONGEST_SHOWN, "x" * LONGEST_SHOWN),
        ("a" * 200 + "\0" * 150 + "z" * 150, "a" * 150 + "..." + "z" * 150 + " (500 characters)"),
    ],
)
def test_printable(text, expected):
    assert printable(text) == expected


@given(st.text())
def test_what_is_printable_prints_on_one_line_and_is_bounded(text):
    result = printable(text)
    assert result.isprintable()
    assert len(result) <= LONGEST_SHOWN * len("\\U0001f600") + 40


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("db.example", "'db.example'"),
        (b"\0name", "b'\\x00name'"),
        ("\x1b", "'\\x1b'"),
        (7, "7"),
        ("x" * 1_000_000, "'" + "x" * 150 + "'...'" + "x" * 150 + "' (1000000 characters)"),
        (b"y" * 301, "b'" + "y" * 150 + "'...b'" + "y" * 150 + "' (301 bytes)"),
        ("\x00" * 300, repr("\x00" * 300)),
        ([0] * 100, repr([0] * 100)),
    ],
)
def test_shown(value, expected):
    assert shown(value) == expected


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_what_has_no_repr_is_shown_too():
    assert shown(Hostile()) == "an object of Hostile without a repr"
    assert shown(10**5000) == "an object of int without a repr"  # the interpreter's own limit of digits


def test_a_long_repr_is_cut():
    assert shown(list(range(1_000_000))).startswith("[0, 1, 2, ")
    assert len(shown(list(range(1_000_000)))) < 400


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("421 too\r\n busy\t", "421 too busy"),
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "x" * 197 + "..."),
        # White space alone may fill what is looked at of a text without an end.
        ("ab" + " " * 10**6, "ab..."),
    ],
)
def test_what_others_said_is_one_line(text, expected):
    assert one_line(text) == expected
