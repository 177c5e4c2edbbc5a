"""Reports: frozen, and JSON-safe when asked for data."""

from __future__ import annotations

import errno
import json

import attrs
import pytest

from trio_connect import Attempt, ConnectReport, Endpoint, Source

FIRST = Endpoint("2001:db8::1", 443)
SECOND = Endpoint("192.0.2.1", 443)
REPORT = ConnectReport(
    attempts=(
        Attempt(
            endpoint=FIRST, source=Source(ipv6="2001:db8::9"), cause="first", started=0.0, ended=0.25,
            outcome="failed", errno=errno.ECONNREFUSED,
        ),
        Attempt(endpoint=SECOND, cause="failure", started=0.25, ended=0.2712345, outcome="won"),
        Attempt(endpoint=SECOND, cause="delay", started=0.26, ended=0.27, outcome="lost", beaten_by=SECOND),
        Attempt(endpoint=SECOND, phase="socket", outcome="failed", errno=99999),
    ),
    started_at=12.5,
    elapsed=0.2712345,
)  # fmt: skip


def test_the_winner_is_the_attempt_that_won() -> None:
    assert REPORT.winner is REPORT.attempts[1]
    assert ConnectReport().winner is None


def test_data_is_json_safe_and_in_whole_microseconds() -> None:
    data = json.loads(json.dumps(REPORT.to_dict()))
    assert data["version"] == 1
    assert (data["started_at_us"], data["elapsed_us"], data["winner"]) == (12_500_000, 271_234, 1)
    first, won, lost, unknown = data["attempts"]
    assert first == {
        "endpoint": "[2001:db8::1]:443", "source": "2001:db8::9", "cause": "first", "started_us": 0,
        "ended_us": 250_000, "phase": "connect", "outcome": "failed", "errno": errno.ECONNREFUSED,
        "error": "ECONNREFUSED", "beaten_by": None,
    }  # fmt: skip
    assert (won["source"], won["errno"], won["error"]) == (None, None, None)
    assert lost["beaten_by"] == "192.0.2.1:443"
    assert (unknown["started_us"], unknown["ended_us"], unknown["cause"], unknown["error"]) == (
        None,
        None,
        None,
        "99999",
    )


def test_an_empty_report_has_data_too() -> None:
    data = ConnectReport().to_dict()
    assert (data["attempts"], data["winner"], data["elapsed_us"]) == ([], None, 0)


def test_reports_do_not_change() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        REPORT.elapsed = 1.0  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        REPORT.attempts[0].errno = 1  # type: ignore[misc]
