"""Pictures of what happened, as text: one row for each lookup or attempt, on one axis of time.

    [2001:db8::1]:443  ============================x        at   0 ms: connection refused after 300 ms
    192.0.2.1:443                              =====~       at 250 ms: lost after 70 ms
    192.0.2.2:443                                   ==*     at 300 ms: won after 20 ms

Signs tell the endings apart, so no colours are needed. The reports of connects and the picture of a virtual network are
both drawn here, so they look alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, TypeAlias, cast

import attrs

from ._check import check_int
from ._durations import short_duration
from ._text import shown

__all__ = ["TimelineRow", "draw_timeline"]

Ending: TypeAlias = Literal["connected", "failed", "timed out", "given up", "answered", "going on", "unknown"]
"""How what a row shows has ended."""

SIGNS: Final[dict[Ending, str]] = {
    "connected": "*",
    "failed": "x",
    "timed out": "!",
    "given up": "~",
    "answered": "|",
    "going on": ">",
    "unknown": "?",
}

_NARROWEST: Final = 60
_LONGEST_BAR: Final = 40
_SHORTEST_BAR: Final = 10
_GOOD_BAR: Final = 22


@attrs.frozen(kw_only=True)
class TimelineRow:
    """One row of a picture. Times are in seconds on any one clock.

    Args:
      label: whose row it is, such as an endpoint.
      text: what became of it, in words.
      ending: the same as a sign at the end of the bar; None for a row without a bar.
      started: when it began; None for a row without a bar.
      ended: when it ended; None while it goes on.
      details: more, which a narrow picture leaves out.
    """

    label: str
    text: str
    ending: Ending | None = None
    started: float | None = None
    ended: float | None = None
    details: tuple[str, ...] = ()


def draw_timeline(rows: Iterable[TimelineRow], width: int = 80, *, legend: bool = False) -> str:
    """Return a picture of what happened, one line for each row, on an axis from 0 to the last end.

    Labels that are too long are cut in the middle, words at their end: no line is longer than `width`. Of a label's
    first word the end stays, for it is the port of an endpoint. What stands in brackets behind it is cut at its end.

    Args:
      rows: what to draw, in this order.
      width: columns of the whole picture, at least 60.
      legend: whether a last line says what the signs mean.

    Raises:
      TypeError: `width` is not an int, or `rows` has something else than rows.
      ValueError: `width` is below 60.
    """
    check_width(width)
    rows = _checked(rows)
    end = max((at for row in rows for at in (row.started, row.ended) if at is not None), default=0.0)
    starts = max((len(short_duration(row.started)) for row in rows if row.started is not None), default=0)
    label = min(max((len(row.label) for row in rows), default=0), width * 3 // 10)
    # Between the three columns stand two spaces each; a bar ends with its sign.
    room = width - label - 4
    bare = min(max((len(_words(row, starts, width, ())) for row in rows), default=0), room - _SHORTEST_BAR)
    whole = max((len(_words(row, starts, width, row.details)) for row in rows), default=0)
    words = max(bare, min(whole, room - _GOOD_BAR))
    bar = min(_LONGEST_BAR, room - words)
    lines = [
        f"{cut_label(row.label, label):{label}}  {_bar(row, end, bar):{bar}}  "
        f"{_words(row, starts, words, row.details)}".rstrip()
        for row in rows
    ]
    if end:
        lines.insert(0, f"{'':{label}}  0{short_duration(end):>{bar - 1}}")
    if legend:
        lines += _legend(rows, width)
    return "\n".join(lines)


def _checked(rows: object) -> list[TimelineRow]:
    if not isinstance(rows, Iterable):
        raise TypeError(f"rows must be an iterable of TimelineRow, got {shown(rows)}")
    listed = list(cast("Iterable[object]", rows))
    for row in listed:
        if not isinstance(row, TimelineRow):
            raise TypeError(f"rows must be an iterable of TimelineRow, got {shown(row)} in it")
    return cast("list[TimelineRow]", listed)


def check_width(width: object) -> None:
    """Refuse what is not a number of columns that a picture fits into."""
    if check_int(width, "width") < _NARROWEST:
        raise ValueError(f"width must be at least {_NARROWEST} columns, got {shown(width)}")


def cut_middle(text: str, most: int) -> str:
    """Return a text with its middle left out, so that no more than `most` characters remain."""
    if len(text) <= most:
        return text
    tail = (most - 3) // 2
    return f"{text[: most - 3 - tail]}...{text[len(text) - tail :]}"


def cut_label(text: str, most: int) -> str:
    """Return a label with parts left out, so that no more than `most` characters remain, at least 18.

    Of ``192.0.2.1:443 from 192.0.2.254`` the endpoint and the end of the source remain, and of
    ``192.0.2.1:443 (db1.example.org)`` the endpoint and the beginning of the host: by these the rows differ. Of an
    endpoint that is too long by itself the beginning and the port remain.
    """
    first, _, rest = text.partition(" ")
    tail = (most - 3) // 2
    if rest.startswith("(") and rest.count("(") == 1 and len(first) + len(" (...") <= most < len(text):
        return cut_end(text, most)
    if len(text) <= most or not rest or len(first) <= most - 3 - tail:
        return cut_middle(text, most)
    tail = max(most // 4, most - 3 - len(first))
    if len(rest) <= tail:
        return f"{_cut_endpoint(first, most - 1 - len(rest))} {rest}"
    return f"{_cut_endpoint(first, most - 3 - tail)}...{rest[len(rest) - tail :]}"


def _cut_endpoint(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    # A port has at most five digits.
    tail = max((most - 3) // 2, min(len(text) - text.rfind(":"), 6))
    return f"{text[: most - 3 - tail]}...{text[len(text) - tail :]}"


def cut_end(text: str, most: int) -> str:
    """Return a text with its end left out, so that no more than `most` characters remain."""
    return text if len(text) <= most else f"{text[: max(most - 3, 0)]}..."[: max(most, 0)]


def _legend(rows: Sequence[TimelineRow], width: int) -> list[str]:
    there = {row.ending for row in rows if row.started is not None}
    lines: list[str] = []
    for ending, sign in SIGNS.items():
        if ending in there:
            text = f"{sign} {ending}"
            if lines and len(lines[-1]) + 2 + len(text) <= width:
                lines[-1] += f"  {text}"
            else:
                lines.append(text)
    return lines


def _column(time: float, end: float, width: int) -> int:
    # Divided first: width / end has no finite value where the end is as good as 0.
    return round(time / end * (width - 1)) if end else 0


def _bar(row: TimelineRow, end: float, width: int) -> str:
    if row.started is None or row.ending is None:
        return ""
    first = _column(row.started, end, width)
    last = max(first, _column(end if row.ended is None else row.ended, end, width))
    return " " * first + "=" * (last - first) + SIGNS[row.ending]


def _words(row: TimelineRow, starts: int, width: int, details: tuple[str, ...]) -> str:
    if row.started is None:
        return cut_end(row.text, width)
    head = f"at {short_duration(row.started):>{starts}}: "
    took = "" if row.ended is None or row.ended == row.started else f" after {short_duration(row.ended - row.started)}"
    # How long it took is never cut: a reason may be long, and its beginning says the most.
    text = cut_end(row.text, width - len(head) - len(took))
    words = cut_end(f"{head}{text}{took}", width)
    for detail in details:
        if len(words) + 2 + len(detail) > width:
            break
        words = f"{words}, {detail}"
    return words
