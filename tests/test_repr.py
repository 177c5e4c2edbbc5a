"""Values are shown by what differs from their defaults."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from trio_connect._repr import changed_repr


@attrs.frozen(repr=False)
class Value:
    needed: int
    with_default: str = "x"
    made: list[int] = attrs.field(factory=list[int])
    _private: int = attrs.field(default=1, alias="private")
    derived: int = attrs.field(default=0, init=False)
    secret: str = attrs.field(default="", repr=False)
    __repr__ = changed_repr


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(1), "Value(needed=1, made=[])"),
        (Value(1, "x"), "Value(needed=1, made=[])"),
        (Value(0, "y", [2], 3, secret="s"), "Value(needed=0, with_default='y', made=[2], private=3)"),
    ],
)
def test_a_repr_is_the_call_that_makes_the_value(value: Any, text: str) -> None:
    assert repr(value) == text
