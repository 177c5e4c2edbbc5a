"""A process of several that share limits: holds permits again and again, and writes down when each began and ended.

    python store_worker.py STORE LOG SECONDS TASKS CAP COUNT BURST HOLD

A line of the log is written with one write(2) and survives SIGKILL: ``pid task begin|end microseconds``, and for each
start that the store has counted ``pid - counted before after``: a busy process may be put off between the two, so no
more is known of when it was counted. It ends after so many seconds, or when there is a file "stop" beside the log.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import trio

from trio_connect import deadline_after
from trio_connect.outbound import FileStore, NotAdmitted, OutboundPolicy, Rate, open_outbound


def store_of(text: str, counted: Callable[[int, int], None]) -> Any:
    kind, _, where = text.partition(":")
    assert kind == "file"
    store: Any = FileStore(where)
    acquire = store.acquire

    def noted(*limits: Any) -> Any:
        before = moment()
        outcome = acquire(*limits)
        if isinstance(outcome, dict):
            counted(before, moment())
        return outcome

    store.acquire = noted
    return store


def moment() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


async def main(store: str, log: str, seconds: float, tasks: int, cap: int, count: int, burst: int, hold: float) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(task: int, what: str, at: int) -> None:
        os.write(fd, f"{os.getpid()} {task} {what} {at}\n".encode())

    def counted(before: int, after: int) -> None:
        os.write(fd, f"{os.getpid()} - counted {before} {after}\n".encode())

    policy = OutboundPolicy(max_connections=cap, rate=Rate(count, 1.0, burst) if count else None)
    random = Random(os.getpid())
    async with open_outbound(policy=policy, store=store_of(store, counted)) as out, trio.open_nursery() as nursery:

        async def end() -> None:
            with trio.move_on_after(seconds):
                while not Path(log).with_name("stop").exists():  # noqa: ASYNC110 - another process makes it
                    await trio.sleep(0.005)
                nursery.cancel_scope.cancel()

        async def work(task: int) -> None:
            until = deadline_after(seconds)
            # Held for longer the first time, so that all places are taken at once, however slow the machine.
            longest = 10 * hold
            while True:
                try:
                    async with out.destination("api.test").permit(until):
                        note(task, "begin", moment())
                        try:
                            await trio.sleep(random.uniform(0.5 * longest, longest))
                        finally:
                            note(task, "end", moment())
                    longest = 2 * hold
                except (NotAdmitted, trio.TooSlowError):
                    return

        nursery.start_soon(end)
        for task in range(tasks):
            nursery.start_soon(work, task)


if __name__ == "__main__":
    _, store, log, seconds, tasks, cap, count, burst, hold = sys.argv
    trio.run(main, store, log, float(seconds), int(tasks), int(cap), int(count), int(burst), float(hold))
