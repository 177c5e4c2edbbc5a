"""Reports: frozen, and JSON-safe when asked for data."""

from __future__ import annotations

import errno
import json

import attrs
import pytest

from trio_connect import Answer, Attempt, ConnectReport, Endpoint, Lookup, Multipath, Source

FIRST = Endpoint("2001:db8::1", 443)
SECOND = Endpoint("192.0.2.1", 443)
REPORT = ConnectReport(
    attempts=(
        Attempt(
            endpoint=FIRST, source=Source(ipv6="2001:db8::9"), cause="first", started=0.0, ended=0.25,
            outcome="failed", errno=errno.ECONNREFUSED, reason="connection refused",
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
        "error": "ECONNREFUSED", "reason": "connection refused", "beaten_by": None,
        "plain": False, "host": None, "nat64": None, "delay_us": None, "delay_reason": None, "history": None,
    }  # fmt: skip
    assert (won["source"], won["errno"], won["error"]) == (None, None, None)
    assert lost["beaten_by"] == "192.0.2.1:443"
    assert (unknown["started_us"], unknown["ended_us"], unknown["cause"], unknown["error"]) == (
        None,
        None,
        None,
        "99999",
    )


def test_what_was_got_of_multipath_tcp_is_in_the_data_and_a_plain_attempt_is_told_from_the_others() -> None:
    first = Attempt(endpoint=SECOND, cause="first", started=0.0, ended=0.3, outcome="lost", beaten_by=SECOND)
    plain = Attempt(endpoint=SECOND, cause="delay", started=0.25, ended=0.3, outcome="won", plain=True)
    report = ConnectReport(attempts=(first, plain), elapsed=0.3)
    data = report.to_dict()
    assert [row["plain"] for row in data["attempts"]] == [False, True]
    assert data["multipath"] is None
    rows = report.draw(width=100).splitlines()
    assert rows[1].startswith("192.0.2.1:443  ")
    assert rows[2].startswith("192.0.2.1:443 (plain TCP)  ")
    assert attrs.evolve(report, multipath=Multipath(subflows=2)).to_dict()["multipath"] == {"subflows": 2}


def test_what_is_reached_through_a_nat64_is_called_by_its_ipv4_address_and_the_data_has_both() -> None:
    row = Attempt(endpoint=Endpoint("64:ff9b::c000:201", 443), nat64="192.0.2.1", outcome="not tried")
    report = ConnectReport(attempts=(row,))
    assert report.draw(200).splitlines()[0].startswith("192.0.2.1 by [64:ff9b::c000:201]:443  ")
    assert [(each["endpoint"], each["nat64"]) for each in report.to_dict()["attempts"]] == [
        ("[64:ff9b::c000:201]:443", "192.0.2.1")
    ]


def test_with_several_names_each_row_says_which_and_the_data_always_does() -> None:
    rows = (
        Attempt(endpoint=FIRST, host="db1.test", outcome="not tried"),
        Attempt(endpoint=SECOND, host="db2.test", outcome="not tried"),
    )
    report = ConnectReport(attempts=rows)
    assert [row["host"] for row in report.to_dict()["attempts"]] == ["db1.test", "db2.test"]
    assert all(f"({attempt.host})" in line for attempt, line in zip(rows, report.draw(100).splitlines(), strict=False))
    mixed = ConnectReport(attempts=(rows[0], attrs.evolve(rows[1], host=None)))
    assert mixed.draw().splitlines()[1].startswith(f"{SECOND}  ")
    assert "db1.test" not in ConnectReport(attempts=rows[:1]).draw()


def test_an_empty_report_has_data_too() -> None:
    data = ConnectReport().to_dict()
    assert (data["attempts"], data["winner"], data["elapsed_us"]) == ([], None, 0)


def test_reports_do_not_change() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        REPORT.elapsed = 1.0  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        REPORT.attempts[0].errno = 1  # type: ignore[misc]


def test_the_waterfall_has_a_row_for_each_lookup_and_attempt() -> None:
    report = ConnectReport(
        lookups=(
            Lookup(host="api.test", kind="AAAA", started=0.0, ended=0.1, error=OSError(5, "no server")),
            Lookup(host="api.test", kind="A", started=0.0, ended=0.05, answer=Answer(("192.0.2.1",))),
            Lookup(host="api.test", kind="HTTPS", started=0.0, ended=0.4),
            Lookup(host="api.test", kind="SRV", started=0.0, ended=0.005, answer=Answer()),
        ),
        attempts=(
            Attempt(
                endpoint=SECOND, source=Source(ipv4="192.0.2.9"), cause="first", started=0.1, ended=0.2,
                outcome="failed", errno=errno.ECONNREFUSED,
            ),
            Attempt(endpoint=SECOND, cause="failure", started=0.2, phase="establish", outcome="cancelled"),
            Attempt(
                endpoint=SECOND, cause="delay", started=0.2, ended=0.4, phase="bind", outcome="failed", errno=99999
            ),
            Attempt(endpoint=FIRST, outcome="not tried"),
        ),
        elapsed=0.4,
    )  # fmt: skip
    assert str(report).splitlines() == [
        "                          0   400 ms",
        "AAAA api.test             ==x         at   0 ms: no server after 100 ms",
        "A api.test                =|          at   0 ms: 1 address after 50 ms",
        "HTTPS api.test            =========~  at   0 ms: cancelled after 400 ms",
        "SRV api.test              |           at   0 ms: no address after 5 ms",
        "192.0.2.1:443...92.0.2.9    ==x       at 100 ms: failed ECONNREF... after 100 ms",
        "192.0.2.1:443                 =====~  at 200 ms: cancelled in es... after 200 ms",
        "192.0.2.1:443                 =====x  at 200 ms: failed 99999 in... after 200 ms",
        "[2001:db8::1]:443                     not tried",
        "no connection after 400 ms",
    ]
    assert [line.partition("at ")[2] for line in report.draw(width=108).splitlines()[5:8]] == [
        "100 ms: failed ECONNREFUSED after 100 ms",
        "200 ms: cancelled in establish after 200 ms",
        "200 ms: failed 99999 in bind after 200 ms",
    ]


def test_what_was_tried_and_what_failed() -> None:
    timed_out = Attempt(endpoint=FIRST, cause="first", started=0.0, ended=0.1, outcome="timed out")
    failed, won, lost, _ = REPORT.attempts
    report = ConnectReport(attempts=(timed_out, failed, won, lost, Attempt(endpoint=SECOND, outcome="not tried")))
    assert report.tried == (timed_out, failed, won, lost)
    assert report.failed == (timed_out, failed)


def test_the_waterfall_ends_with_the_winner_and_the_waste() -> None:
    won = Attempt(endpoint=SECOND, cause="first", started=0.0, ended=0.0, outcome="won")
    assert str(ConnectReport(attempts=(won,))).splitlines()[-1] == "connected to 192.0.2.1:443 in 0 ms"
    assert str(REPORT).splitlines()[-1] == "connected to 192.0.2.1:443 in 271 ms, 2 other attempts"
    one = ConnectReport(attempts=REPORT.attempts[:2], elapsed=0.3)
    assert str(one).splitlines()[-1] == "connected to 192.0.2.1:443 in 300 ms, 1 other attempt"


def test_an_empty_report_has_a_waterfall_too() -> None:
    assert str(ConnectReport()) == "no connection after 0 ms"


def test_what_a_history_had_to_do_with_it_is_drawn_where_there_is_room() -> None:
    behind = "put behind: connection refused 2.00 s before"
    report = ConnectReport(
        attempts=(
            Attempt(
                endpoint=Endpoint("192.0.2.1", 443), cause="first", started=0.0, ended=0.02, outcome="won",
                delay=0.1, delay_reason="minimum: round trip 20 ms +- 10 ms", history="tried again: refused 9 s before",
            ),
            Attempt(endpoint=Endpoint("192.0.2.2", 443), outcome="not tried", history=behind),
        ),
        elapsed=0.02,
    )  # fmt: skip
    _, first_row, second_row, _ = report.draw(200).splitlines()
    said = "tried again: refused 9 s before, delay 100 ms (minimum: round trip 20 ms +- 10 ms)"
    assert first_row.endswith(f"*  at 0 ms: won after 20 ms, {said}")
    assert second_row.endswith(f"  not tried: {behind}")
    assert "delay" not in report.draw(80)
    first, second = report.to_dict()["attempts"]
    assert (first["delay_us"], first["delay_reason"]) == (100_000, "minimum: round trip 20 ms +- 10 ms")
    assert (second["delay_us"], second["delay_reason"], second["history"]) == (None, None, behind)


def test_it_draws_itself_as_svg() -> None:
    report = ConnectReport()
    picture = report.draw_svg(title="api.test")
    assert picture.startswith("<svg ")
    assert ">api.test</text>" in picture
    with pytest.raises(TypeError, match="title must be a str, got 7"):
        report.draw_svg(title=7)  # type: ignore[arg-type]  # on purpose
