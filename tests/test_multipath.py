"""What is said of an MPTCP connection: a frozen value under a public name."""

from __future__ import annotations

import attrs
import pytest

from trio_connect import Multipath


def test_it_is_a_value() -> None:
    value = Multipath(subflows=2)
    assert value == Multipath(subflows=2) != Multipath(subflows=1)
    assert repr(value) == "Multipath(subflows=2)"
    assert Multipath.__module__ == "trio_connect"
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.subflows = 3  # type: ignore[misc]
