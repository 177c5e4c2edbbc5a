"""Pictures: rows on one axis, no line too long, and signs that a legend explains."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_connect import TimelineRow, draw_timeline
from trio_connect._render import SIGNS, Ending, cut_end, cut_label, cut_middle

TIMES = st.floats(0, 1e6)
ROWS = st.builds(
    lambda label, text, ending, started, took, details: TimelineRow(
        label=label,
        text=text,
        ending=ending,
        started=started,
        ended=None if took is None or started is None else started + took,
        details=tuple(details),
    ),
    st.text(max_size=90),
    st.text(max_size=90),
    st.none() | st.sampled_from(get_args(Ending)),
    st.none() | TIMES,
    st.none() | TIMES,
    st.lists(st.text(max_size=30), max_size=3),
)


@given(st.lists(ROWS, max_size=6), st.integers(60, 200), st.booleans())
def test_no_line_is_wider_than_asked(rows: list[TimelineRow], width: int, legend: bool) -> None:
    rows = [row for row in rows if not {"\n", "\r"} & {*row.label, *row.text} and row.label.isprintable()]
    picture = draw_timeline(rows, width, legend=legend)
    assert all(len(line) <= width for line in picture.split("\n"))


@given(st.text(max_size=50), st.integers(8, 50))
def test_cuts_keep_what_fits(text: str, most: int) -> None:
    middle, end = cut_middle(text, most), cut_end(text, most)
    if len(text) <= most:
        assert middle == end == text
        return
    assert len(middle) == len(end) == most
    assert end == f"{text[: most - 3]}..."
    head, tail = middle[: (most - 2) // 2], middle[-((most - 3) // 2) :]
    assert text.startswith(head)
    assert text.endswith(tail)


@pytest.mark.parametrize(
    ("label", "most", "cut"),
    [
        ("192.0.2.1:443 from 192.0.2.254", 30, "192.0.2.1:443 from 192.0.2.254"),
        ("192.0.2.1:443 from 192.0.2.254", 24, "192.0.2.1:443....0.2.254"),
        ("192.0.2.1:443 from 192.0.2.254", 18, "192....:443....254"),
        ("127.0.0.32:55809 (mx2.example.org)", 24, "127.0.0.32:55809 (mx2..."),
        ("127.0.0.32:55809 (mx2.example.org)", 21, "127.0.0.32:55809 (..."),
        ("127.0.0.32:55809 (mx2.example.org)", 20, "127...:55809....org)"),
        ("127.0.0.32:55809 (mx) (plain TCP)", 24, "127.0....:55809...n TCP)"),
        ("[2001:db8::1]:53128 from proxy http://proxy.test:3128", 24, "[2001:...:53128...t:3128"),
        ("[2001:db8::1]:53128 from proxy http://proxy.test:3128", 18, "[2...:53128...3128"),
        ("[2001:db8:1:2:3:4:5:6]:53128 (b)", 24, "[2001:db8...6]:53128 (b)"),
        ("[2001:db8:1:2:3:4:5:6]:53128", 18, "[2001:db...]:53128"),
        ("AAAA a-name-that-is-long.example.org", 24, "AAAA a-name...xample.org"),
        ("no-endpoint-at-all-in-the-first-word and more", 24, "no-end...t-word...d more"),
    ],
)
def test_a_label_keeps_the_port_of_its_endpoint(label: str, most: int, cut: str) -> None:
    assert cut_label(label, most) == cut


@given(st.text("ab:[] 1", max_size=60), st.integers(18, 50))
def test_a_cut_label_fills_its_room(text: str, most: int) -> None:
    cut = cut_label(text, most)
    assert cut == text if len(text) <= most else len(cut) == most


@given(st.integers(1, 0xFFFF), st.sampled_from(["", " from 192.0.2.254", " (a)"]), st.integers(18, 50))
def test_no_cut_takes_a_port_away(port: int, rest: str, most: int) -> None:
    for host in ("192.0.2.1", "[2001:db8::1]", "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff%eth0]"):
        assert f":{port}" in cut_label(f"{host}:{port}{rest}", most)


def test_details_are_left_out_from_the_last_on_where_there_is_no_room() -> None:
    row = TimelineRow(label="a", text="b", ending="connected", started=0.0, ended=1.0, details=("c" * 20, "d" * 20))
    assert draw_timeline([row], 120).endswith(f"at 0 ms: b after 1000 ms, {'c' * 20}, {'d' * 20}")
    assert draw_timeline([row], 75).endswith(f"at 0 ms: b after 1000 ms, {'c' * 20}")
    assert draw_timeline([row], 60).endswith("at 0 ms: b after 1000 ms")


def test_an_end_as_good_as_at_once_is_an_end() -> None:
    row = TimelineRow(label="a", text="b", ending="connected", started=0.0, ended=5e-324)
    assert "=*" in draw_timeline([row])


def test_the_legend_explains_the_signs_that_are_there() -> None:
    rows = [TimelineRow(label=ending, text="", ending=ending, started=0.0) for ending in SIGNS]
    picture = draw_timeline(rows, legend=True)
    assert picture.splitlines()[-2:] == [
        "* connected  x failed  ! timed out  ~ given up  | answered  > going on",
        "? unknown",
    ]
    assert draw_timeline(rows[:2], legend=True).splitlines()[-1] == "* connected  x failed"
    assert draw_timeline([], legend=True) == ""
    assert len(set(SIGNS.values())) == len(SIGNS)


def test_what_goes_on_reaches_the_end_of_the_axis() -> None:
    rows = [
        TimelineRow(label="a", text="connecting", ending="going on", started=0.5),
        TimelineRow(label="b", text="x", ending="failed", started=0.0, ended=1.0),
    ]
    first, second = draw_timeline(rows).splitlines()[1:]
    assert first.index(">") == second.index("x")


@pytest.mark.parametrize(
    ("width", "error"), [(59, ValueError), (True, TypeError), (80.0, TypeError), (None, TypeError)]
)
def test_a_width_is_a_number_of_columns(width: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="width must be"):
        draw_timeline([], width)


@pytest.mark.parametrize(("rows", "shown"), [(7, "7"), ([("a", "b")], r"\('a', 'b'\) in it")])
def test_rows_are_rows(rows: object, shown: str) -> None:
    with pytest.raises(TypeError, match=f"^rows must be an iterable of TimelineRow, got {shown}$"):
        draw_timeline(rows)  # type: ignore[arg-type]
