"""The picture as SVG: well-formed whatever a peer says, each text there, shapes besides colours."""

from __future__ import annotations

from itertools import pairwise
from typing import get_args
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_render import ROWS
from trio_connect import TimelineRow
from trio_connect._render import Ending
from trio_connect._svg import _COLOURS, _SHAPES, draw_svg

SVG = "{http://www.w3.org/2000/svg}"


def read(picture: str) -> ET.Element:
    # Ours, and of texts that the test has made.
    return ET.fromstring(picture)


@given(st.lists(ROWS, max_size=5), st.text(max_size=200), st.text(max_size=200))
def test_it_is_well_formed_and_has_a_tooltip_for_each_row(rows, title, result):
    root = read(draw_svg(rows, title=title, result=result))
    assert root.tag == f"{SVG}svg"
    assert len(root.findall(f"{SVG}g/{SVG}title")) == len(rows)
    assert not {element.tag for element in root.iter()} & {f"{SVG}script", f"{SVG}style", f"{SVG}image"}


def test_bars_lie_where_the_times_are():
    rows = [
        TimelineRow(label="a:1", text="refused", ending="failed", started=0.0, ended=0.5),
        TimelineRow(label="b:1", text="won", ending="connected", started=0.5, ended=1.0, details=("more",)),
        TimelineRow(label="c:1", text="is tried", ending="going on", started=0.75),
        TimelineRow(label="d:1", text="not tried"),
        TimelineRow(label="e:1", text="at once", ending="failed", started=1.0, ended=1.0),
    ]
    root = read(draw_svg(rows, title="api.test", result="connected to b:1"))
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert titles == [
        "a:1: at 0 ms: refused after 500 ms",
        "b:1: at 500 ms: won after 500 ms; more",
        "c:1: at 750 ms: is tried",
        "d:1: not tried",
        "e:1: at 1000 ms: at once",
    ]
    bars = [element for element in root.iter(f"{SVG}rect") if element.get("height") == "8"]
    places = [(float(each.get("x", "")), float(each.get("width", ""))) for each in bars]
    assert places == [(270.0, 165.0), (435.0, 165.0), (517.5, 82.5), (600.0, 0.0)]
    # The axis has five times, and what the signs mean is said once for each that is there.
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert texts[:6] == ["api.test", "0", "250 ms", "500 ms", "750 ms", "1000 ms"]
    assert texts[-4:] == ["connected", "failed", "going on", "connected to b:1"]
    assert root.get("aria-label") == "api.test: connected to b:1"


def test_without_rows_there_is_the_result():
    root = read(draw_svg([], title="", result="nothing was tried"))
    assert [element.text for element in root.iter(f"{SVG}text")] == ["nothing was tried"]
    assert root.get("aria-label") == "nothing was tried"


def test_all_at_once_has_no_axis():
    row = TimelineRow(label="a:1", text="refused", ending="failed", started=0.0, ended=0.0)
    root = read(draw_svg([row], title="", result="failed"))
    assert not [element for element in root.iter(f"{SVG}path") if "V" in element.get("d", "")]
    (bar,) = (element for element in root.iter(f"{SVG}rect") if element.get("height") == "8")
    assert (bar.get("x"), bar.get("width")) == ("270.0", "0.0")


def test_each_ending_has_a_shape_of_its_own():
    assert set(_SHAPES) == set(_COLOURS) == set(get_args(Ending))
    assert all(one != other for one, other in pairwise(sorted(_SHAPES.values())))


@pytest.mark.parametrize("text", ["<script>", "a & b", '"', "\x00\x1b[31m", "\ud800"])
def test_what_a_peer_says_is_text(text):
    row = TimelineRow(label=text, text=text, ending="given up", started=0.0, ended=1.0)
    root = read(draw_svg([row], title=text, result=text))
    shown = "".join(character if character.isprintable() else "?" for character in text)
    assert [element.text for element in root.iter(f"{SVG}text")].count(shown) >= 2
