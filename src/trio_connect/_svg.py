"""The picture of `_render` as SVG: the same rows, for pages and mails.

It has no script, no style sheet and no font of its own, and asks nobody for anything, so it may stand on any page. The
whole text of a row is its tooltip (`title`, SVG 2 section 5.7). Each ending has a shape besides its colour, for readers
who do not see the colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ._durations import short_duration
from ._render import Ending, TimelineRow, cut_end, cut_middle

__all__ = ["WIDEST_RESULT", "draw_svg"]

_WIDTH: Final = 960
_ROW: Final = 26
_TOP: Final = 64
_LABEL: Final = 270
"""Where the bars begin."""
_BAR: Final = 330
_WORDS: Final = _LABEL + _BAR + 22
WIDEST_RESULT: Final = 125
"""Characters of the last line."""
_CHARACTER: Final = 7.25
"""Pixels of a monospaced character of 12, and a little."""

_COLOURS: Final[dict[Ending, str]] = {
    "connected": "#1a7f37",
    "failed": "#cf222e",
    "timed out": "#bf6a00",
    "given up": "#8c959f",
    "answered": "#0969da",
    "going on": "#0969da",
    "unknown": "#8c959f",
}
# Around 0 0, within 6 pixels: a disc, a cross, a triangle, a ring, a bar, an arrow, a square.
_SHAPES: Final[dict[Ending, str]] = {
    "connected": '<circle r="6" fill="{0}"/>',
    "failed": '<path d="M-5 -5L5 5M-5 5L5 -5" stroke="{0}" stroke-width="3"/>',
    "timed out": '<path d="M0 -6L6 5L-6 5Z" fill="{0}"/>',
    "given up": '<circle r="5" fill="#ffffff" stroke="{0}" stroke-width="2"/>',
    "answered": '<path d="M0 -7L0 7" stroke="{0}" stroke-width="4"/>',
    "going on": '<path d="M-4 -6L6 0L-4 6Z" fill="{0}"/>',
    "unknown": '<rect x="-5" y="-5" width="10" height="10" fill="{0}"/>',
}


def draw_svg(rows: Sequence[TimelineRow], *, title: str, result: str) -> str:
    """Return a picture as an SVG document: a title, an axis, a line for each row, the signs explained, the result.

    Args:
      rows: what to draw, in this order; times from 0 on.
      title: who was connected to.
      result: what came of it.
    """
    end = max((at for row in rows for at in (row.started, row.ended) if at is not None), default=0.0)
    bottom = _TOP + _ROW * len(rows)
    there: list[Ending] = [
        ending for ending in _SHAPES if any(row.ending == ending and row.started is not None for row in rows)
    ]
    height = bottom + 62
    name = _escape(f"{title}: {result}" if title else result)
    size = f'viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    font = 'font-family="monospace" font-size="12" fill="#1f2328"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{name}" {font}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 26, cut_middle(title, 100), extra=' font-size="15" font-weight="bold"'),
        *(_axis(end, bottom) if end else ()),
        *(_row(row, _TOP + _ROW * number, end) for number, row in enumerate(rows)),
        *_legend(there, bottom + 24),
        _text(16, bottom + 48, cut_middle(result, WIDEST_RESULT), extra=' font-weight="bold"'),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _axis(end: float, bottom: int) -> list[str]:
    parts: list[str] = []
    for quarter in range(5):
        x = _LABEL + _BAR * quarter / 4
        parts.append(f'<path d="M{x:.1f} {_TOP - 14}V{bottom}" stroke="#d0d7de"/>')
        time = short_duration(end * quarter / 4) if quarter else "0"
        parts.append(_text(x, _TOP - 20, time, extra=' text-anchor="middle" fill="#59636e"'))
    return parts


def _row(row: TimelineRow, top: int, end: float) -> str:
    middle = top + _ROW / 2
    words = row.text
    bar = ""
    if row.started is not None and row.ending is not None:
        last = end if row.ended is None else row.ended
        words = f"at {short_duration(row.started)}: {row.text}"
        if row.ended is not None and row.ended != row.started:
            words += f" after {short_duration(row.ended - row.started)}"
        bar = _bar(row.ending, row.started, last, end, middle)
    whole = "; ".join([f"{row.label}: {words}", *row.details])
    return (
        f"<g><title>{_escape(whole)}</title>"
        # What the pointer meets where nothing is drawn.
        f'<rect x="0" y="{top}" width="{_WIDTH}" height="{_ROW}" fill="#ffffff" fill-opacity="0"/>'
        + _text(16, middle + 4, cut_middle(row.label, int((_LABEL - 28) / _CHARACTER)))
        + bar
        + _text(_WORDS, middle + 4, cut_end(words, int((_WIDTH - _WORDS - 8) / _CHARACTER)))
        + "</g>"
    )


def _bar(ending: Ending, started: float, ended: float, end: float, middle: float) -> str:
    # Divided first: _BAR / end has no finite value where the end is as good as 0.
    first = _LABEL + (started / end * _BAR if end else 0.0)
    last = max(first, _LABEL + (ended / end * _BAR if end else 0.0))
    colour = _COLOURS[ending]
    faded = ' fill-opacity="0.45"' if ending == "given up" else ""
    return (
        f'<rect x="{first:.1f}" y="{middle - 4:.1f}" width="{last - first:.1f}" height="8" fill="{colour}"{faded}/>'
        f'<g transform="translate({last:.1f} {middle:.1f})">{_SHAPES[ending].format(colour)}</g>'
    )


def _legend(endings: Sequence[Ending], y: int) -> list[str]:
    parts: list[str] = []
    x = 24.0
    for ending in endings:
        parts.append(f'<g transform="translate({x:.1f} {y - 4})">{_SHAPES[ending].format(_COLOURS[ending])}</g>')
        parts.append(_text(x + 12, y, ending, extra=' fill="#59636e"'))
        x += 40 + len(ending) * _CHARACTER
    return parts


def _text(x: float, y: float, text: str, *, extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}"{extra}>{_escape(text)}</text>' if text else ""


def _escape(text: str) -> str:
    """Return text for XML 1.0, which has no way at all to write most control characters (section 2.2)."""
    clean = "".join(character if character.isprintable() else "?" for character in text)
    return clean.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
