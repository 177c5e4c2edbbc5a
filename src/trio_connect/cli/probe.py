"""``trio-connect probe``: runs the probes of each target in turn and gives out what they have found."""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from typing import IO, Any, Literal, TypeAlias

import attrs
import trio

from trio_connect import TraceEvent

from .document import document, event_data, target_data
from .interrupt import Interrupt, interruptible
from .live import Live
from .outcome import ExitCode, Probe, write
from .probing import probe_each, probe_race
from .recorder import Recorder, Watcher
from .settings import Settings, Target
from .summary import summarise, summary_lines
from .text import probe_lines, wants_colour
from .verdict import Verdict, judge
from .words import in_words

Format: TypeAlias = Literal["text", "json", "jsonl", "svg"]

_NARROWEST = 60


@attrs.frozen(kw_only=True)
class Job:
    """One run of the command.

    Args:
      targets: whom to probe, in this order.
      settings: how.
      rounds: how often each.
      interval: seconds from the start of a round to the start of the next.
      format: of what is given out.
      out: where it goes.
      progress: where what goes on is shown; None where nothing may move.
    """

    targets: tuple[Target, ...]
    settings: Settings
    rounds: int = 1
    interval: float = 1.0
    format: Format = "text"
    out: IO[str]
    progress: IO[str] | None = None


async def run(job: Job) -> ExitCode:
    """Probe the targets, write what was found, and return the exit code: that of the first target that failed.

    SIGINT ends the probe that runs; what is known is written then.

    Args:
      job: what to do.

    Raises:
      CannotWrite: what was found could not be written.
      ExceptionGroup: of a ValueError, an argument is not one, or of an ImportError, an extra is not installed. Both are
        said before anything is done.
    """
    codes: list[ExitCode] = []
    data: list[dict[str, Any]] = []
    with interruptible() as interrupt:
        for number, target in enumerate(job.targets):
            if number and job.format == "text":
                _write(job, "")
            probes = await _rounds(job, target, interrupt)
            code = next((probe.exit_code for probe in probes if probe.exit_code is not ExitCode.OK), ExitCode.OK)
            codes.append(code)
            verdict = None
            if probes:
                last = probes[-1]
                stopped = last.exit_code is ExitCode.INTERRUPTED
                verdict = judge(last.report, port=target.port, tls=last.wanted_tls, interrupted=stopped)
            data.append(target_data(target, probes, verdict, code, time.time()))
            _give_out(job, target, probes, verdict, data[-1])
            if interrupt.happened:
                break
    failed = next((code for code in codes if code is not ExitCode.OK), ExitCode.OK)
    code = ExitCode.INTERRUPTED if interrupt.happened else failed
    if job.format == "json":
        _write(job, json.dumps(document(data, code), indent=2))
    return code


async def _rounds(job: Job, target: Target, interrupt: Interrupt) -> list[Probe]:
    probes: list[Probe] = []
    started = trio.current_time()
    for number in range(job.rounds):
        with interrupt.scope():
            await trio.sleep_until(started + number * job.interval)
        if interrupt.happened:
            break
        probe = await _round(job, target, number, interrupt)
        probes.append(probe)
        if job.rounds > 1 and job.format == "text":
            winner = probe.report.winner
            said = f"{winner.endpoint} in {in_words(probe.report.elapsed)}" if winner is not None else ""
            _write(job, f"{target} {number + 1}: {probe.error or said or 'no connection'}")
    return probes


async def _round(job: Job, target: Target, number: int, interrupt: Interrupt) -> Probe:
    watchers: list[Watcher] = []
    live = None
    if job.progress is not None:
        live = Live(job.progress, trio.current_time(), _width())
        watchers.append(live)
    if job.format == "jsonl":
        watchers.append(partial(_stream, job, target, number, trio.current_time()))
    recorder = Recorder(tuple(watchers))
    look = probe_each if job.settings.each else probe_race
    found: list[Probe] = []
    async with trio.open_nursery() as nursery:
        if live is not None:
            nursery.start_soon(live.run)
        with interrupt.scope():
            found.append(await look(target, job.settings, recorder))
        nursery.cancel_scope.cancel()
    if found:
        return found[0]
    return Probe(
        report=recorder.report(),
        exit_code=ExitCode.INTERRUPTED,
        error="interrupted",
        wanted_tls=job.settings.wants_tls(target),
        each=job.settings.each,
    )


def _stream(job: Job, target: Target, number: int, started: float, event: TraceEvent, shift: int) -> None:
    data = event_data(event, shift, started)
    if data is not None:
        place = {"host": target.host, "port": target.port, "round": number}
        _write(job, json.dumps({**data, **place}))


def _give_out(job: Job, target: Target, probes: list[Probe], verdict: Verdict | None, data: dict[str, Any]) -> None:
    if job.format == "jsonl":
        _write(job, json.dumps({"event": "target_finished", **data}))
    if not probes or verdict is None:
        return
    if job.format == "svg":
        _write(job, probes[-1].report.draw_svg(title=str(target)))
    if job.format == "text":
        lines = probe_lines(target, probes[-1], verdict, width=_width(), colour=wants_colour(job.out), now=time.time())
        if len(probes) > 1:
            lines += summary_lines(summarise(probes), _width())
        _write(job, "\n".join(lines))


def _write(job: Job, text: str) -> None:
    write(job.out, text)


def _width() -> int:
    return max(shutil.get_terminal_size().columns, _NARROWEST)
