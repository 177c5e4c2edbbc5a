"""``trio-connect check``: many targets, so many at once, each address by itself; a table or metrics."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from itertools import count
from typing import IO, Literal, TypeAlias

import attrs
import trio

from .interrupt import interruptible
from .outcome import ExitCode, Probe, write
from .probing import probe_each
from .prometheus import exposition
from .recorder import Recorder
from .settings import Settings, Target, parse_target
from .verdict import judge

CheckFormat: TypeAlias = Literal["text", "prometheus"]


@attrs.frozen(kw_only=True)
class Check:
    """One run of ``check``.

    Args:
      targets: whom to check.
      settings: how.
      at_once: how many targets at a time.
      format: of what is given out.
      out: where it goes.
      progress: where a bar is drawn, a count without rich; None where nothing may move.
    """

    targets: tuple[Target, ...]
    settings: Settings
    at_once: int
    format: CheckFormat = "text"
    out: IO[str]
    progress: IO[str] | None = None


def read_targets(lines: Iterable[str]) -> tuple[Target, ...]:
    """Return the targets of a file: one a line, empty lines and what follows a ``#`` left out.

    Raises:
      ValueError: a line is not a target.
    """
    targets: dict[Target, None] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if text:
            try:
                targets[parse_target(text)] = None
            except argparse.ArgumentTypeError as error:
                raise ValueError(f"line {number}: {error}") from None
    return tuple(targets)


async def check(job: Check) -> ExitCode:
    """Check the targets, write what was found in their order, and return the exit code of the first that failed.

    SIGINT ends it: what is known of the targets that were done is written then.

    Raises:
      CannotWrite: what was found could not be written.
    """
    found: dict[Target, Probe] = {}
    limit = trio.CapacityLimiter(job.at_once)

    async def one(target: Target) -> None:
        async with limit:
            recorder = Recorder()
            try:
                found[target] = await probe_each(target, job.settings, recorder)
            except ValueError as error:  # what cannot be a host name; the others are checked all the same
                found[target] = Probe(report=recorder.report(), exit_code=ExitCode.RESOLVE, error=str(error), each=True)
        step()

    with interruptible() as interrupt, _progress(job) as step, interrupt.scope():
        async with trio.open_nursery() as nursery:
            for target in job.targets:
                nursery.start_soon(one, target)
    ordered = [(target, found[target]) for target in job.targets if target in found]
    text = exposition(ordered) if job.format == "prometheus" else "\n".join(_row(*each) for each in ordered)
    write(job.out, text)
    if interrupt.happened:
        print(f"interrupted: {len(found)} of {len(job.targets)} targets were checked", file=sys.stderr)
        return ExitCode.INTERRUPTED
    return next((probe.exit_code for _, probe in ordered if probe.exit_code is not ExitCode.OK), ExitCode.OK)


@contextmanager
def _progress(job: Check) -> Generator[Callable[[], None]]:
    """Show how many targets are done; what is given out is called for each."""
    total = len(job.targets)
    if job.progress is None:
        yield lambda: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
    except ImportError:
        done = count(1)
        yield lambda: print(f"\r{next(done)} of {total}", end="", file=job.progress, flush=True)
        print("\r", end="", file=job.progress, flush=True)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=job.progress), transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=total)

        def step() -> None:
            bar.advance(task)
            bar.refresh()

        yield step


def _row(target: Target, probe: Probe) -> str:
    sign = "ok" if probe.exit_code is ExitCode.OK else f"{int(probe.exit_code)}"
    if probe.error is not None and not probe.report.lookups:
        return f"{sign:>3}  {target}  {probe.error}"
    return f"{sign:>3}  {target}  {judge(probe.report, port=target.port, tls=probe.wanted_tls).finding}"
