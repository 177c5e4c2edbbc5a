"""Field reports about connecting and racing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trio_connect._net import attempt


def test_field_03_the_range_of_local_ports_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A change of ip_local_port_range in a running program is seen within a second, so no self-connect is missed."""
    file = tmp_path / "ip_local_port_range"
    time = 1000.0
    monkeypatch.setattr(attempt, "_RANGE_FILE", str(file))
    monkeypatch.setattr(attempt, "monotonic", lambda: time)
    file.write_text("32768\t60999\n")
    attempt.forget_local_ports()
    try:
        assert attempt.local_ports() == range(32768, 61000)
        file.write_text("20000\t20001\n")
        time += 0.999
        assert attempt.local_ports() == range(32768, 61000), "it is not read for every connect"
        time += 0.001
        assert attempt.local_ports() == range(20000, 20002)
    finally:
        attempt.forget_local_ports()
