"""What goes on while a probe runs, on stderr, and only where that is a terminal.

With rich (the extra ``cli``) it is the picture of the race, drawn again ten times a second and wiped away at the end.
Without it each event is a line. rich is imported after a fifth of a second: most probes are over by then, and none
waits for it before its first packet.
"""

from __future__ import annotations

from typing import IO, Final, Literal, TypeAlias

import attrs
import trio

from trio_connect import (
    AttemptConnected,
    AttemptFinished,
    AttemptStarted,
    LookupFinished,
    LookupStarted,
    TimelineRow,
    TraceEvent,
    draw_timeline,
)

_PATIENCE: Final = 0.2
_FRAME: Final = 0.1

_Ending: TypeAlias = Literal["connected", "failed", "timed out", "answered", "given up"]
_ENDINGS: Final[dict[str, _Ending]] = {
    "won": "connected",
    "failed": "failed",
    "timed out": "timed out",
    "answered": "answered",
}


class Live:
    """Watches one probe.

    Args:
      stream: a terminal.
      started_at: when the probe began, on Trio's clock.
      width: columns of the terminal, at least 60.
    """

    def __init__(self, stream: IO[str], started_at: float, width: int) -> None:
        self._stream = stream
        self._origin = started_at
        self._width = width
        self._rows: dict[object, TimelineRow] = {}

    def __call__(self, event: TraceEvent, shift: int) -> None:
        """Hear of an event."""
        at = event.at - self._origin
        match event:
            case LookupStarted():
                self._begin(("lookup", event.kind, event.host), f"{event.kind} {event.host}", "looking up", at)
            case LookupFinished():
                key = ("lookup", event.lookup.kind, event.lookup.host)
                self._end(key, "failed" if event.lookup.error is not None else "answered", "answered", at)
            case AttemptStarted():
                self._begin(event.attempt + shift, str(event.endpoint), "connecting", at)
            case AttemptConnected():
                row = self._rows[event.attempt + shift]
                self._rows[event.attempt + shift] = attrs.evolve(row, text="connected, handshake")
            case AttemptFinished():
                self._end(event.attempt + shift, event.outcome, event.outcome, at)
            case _:
                pass

    def _begin(self, key: object, label: str, text: str, at: float) -> None:
        self._rows[key] = TimelineRow(label=label, text=text, ending="going on", started=at)

    def _end(self, key: object, outcome: str, text: str, at: float) -> None:
        row = self._rows.get(key)
        if row is not None:
            ending = _ENDINGS.get(outcome, "given up")
            self._rows[key] = attrs.evolve(row, text=text, ending=ending, ended=at)

    def picture(self, at: float) -> str:
        """Return the picture so far.

        Args:
          at: seconds since the probe began.
        """
        rows = [attrs.evolve(row, ended=at) if row.ended is None else row for row in self._rows.values()]
        return draw_timeline(rows, self._width) if rows else ""

    async def run(self) -> None:
        """Draw until cancelled."""
        await trio.sleep(_PATIENCE)
        try:
            from rich.console import Console
            from rich.live import Live as Screen
            from rich.text import Text
        except ImportError:
            await self._tell()
            return
        console = Console(file=self._stream, width=self._width)
        with Screen(console=console, auto_refresh=False, transient=True) as screen:
            while True:
                screen.update(Text(self.picture(trio.current_time() - self._origin), no_wrap=True), refresh=True)
                await trio.sleep(_FRAME)

    async def _tell(self) -> None:
        told: dict[object, TimelineRow] = {}
        while True:
            for key, row in list(self._rows.items()):
                if told.get(key) != row:
                    told[key] = row
                    at = row.started if row.ended is None else row.ended
                    print(f"{(at or 0.0) * 1000:7.1f} ms  {row.label} {row.text}", file=self._stream, flush=True)
            await trio.sleep(_FRAME)
