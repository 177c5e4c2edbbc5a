"""``trio-connect check``: many targets, so many at once, each address by itself; a table or metrics."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import IO, Literal, TypeAlias

import attrs
import trio

from .outcome import ExitCode, Probe
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
      progress: where the count is shown; None where nothing may move.
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

    Raises:
      OSError: what was found could not be written.
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
        if job.progress is not None:
            print(f"\r{len(found)} of {len(job.targets)}", end="", file=job.progress, flush=True)

    async with trio.open_nursery() as nursery:
        for target in job.targets:
            nursery.start_soon(one, target)
    if job.progress is not None:
        print("\r", end="", file=job.progress, flush=True)
    ordered = [(target, found[target]) for target in job.targets]
    text = exposition(ordered) if job.format == "prometheus" else "\n".join(_row(*each) for each in ordered)
    print(text, file=job.out, flush=True)
    return next((probe.exit_code for _, probe in ordered if probe.exit_code is not ExitCode.OK), ExitCode.OK)


def _row(target: Target, probe: Probe) -> str:
    sign = "ok" if probe.exit_code is ExitCode.OK else f"{int(probe.exit_code)}"
    if probe.error is not None and not probe.report.lookups:
        return f"{sign:>3}  {target}  {probe.error}"
    return f"{sign:>3}  {target}  {judge(probe.report, port=target.port, tls=probe.wanted_tls).finding}"
