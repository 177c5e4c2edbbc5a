"""PURE: a picture of what happened, as text: one row each, on one time axis.

    A api.test         |                           at 0 ms: 192.0.2.1
    [2001:db8::1]:443  ======================/     at 0 ms: abandoned after 290 ms
    192.0.2.1:443                         ===*     at 250 ms: connected after 40 ms, 5 B out, 5 B in

`*` connected, `x` failed, `/` abandoned, `|` answered, `?` unknown, `>` still going on.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs


@attrs.frozen
class Bar:
    """One row: from `started` to `ended` seconds (None: still going on), how it ended as a mark and in words."""

    label: str
    started: float
    ended: float | None
    mark: str
    outcome: str
    after: str = ""

    def __str__(self) -> str:
        took = f" after {milliseconds(self.ended - self.started)}" if self.ended not in (None, self.started) else ""
        return f"at {milliseconds(self.started)}: {self.outcome}{took}{self.after}"


def draw(bars: Sequence[Bar], width: int, rows: int) -> str:
    """The first `rows` bars on an axis of `width` characters, from 0 to the last end among them."""
    if not bars:
        return "(nothing happened on the virtual network)\n"
    shown = bars[:rows]
    end = max(bar.started if bar.ended is None else bar.ended for bar in shown)
    label = max(len(bar.label) for bar in shown)
    scale = (width - 1) / end if end else 0.0
    lines = [f"{'':{label}}  0{milliseconds(end):>{width - 1}}"]
    for bar in shown:
        first, last = (int(at * scale) for at in (bar.started, end if bar.ended is None else bar.ended))
        drawn = " " * first + "=" * (last - first) + (">" if bar.ended is None else bar.mark)
        lines.append(f"{bar.label:{label}}  {drawn:{width}}  {bar}")
    if len(bars) > rows:
        lines.append(f"... and {len(bars) - rows} more")
    return "\n".join(lines) + "\n"


def milliseconds(seconds: float) -> str:
    """0.25 as 250 ms, to the microsecond."""
    return f"{seconds * 1000:.3f}".rstrip("0").rstrip(".") + " ms"
