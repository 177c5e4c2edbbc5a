"""A process of several that share limits in a Redis: holds permits again and again, and writes down from when to when.

    python redis_worker.py URL TTL STRICT WITHOUT LOG SECONDS TASKS CAP COUNT BURST HOLD

WITHOUT is "pause" or "run" for scripts that lack it, "" for those that are shipped. The log is as `store_worker`'s. It
begins when there is a file "go" beside its log, so that processes begin together however long each takes to start, and
ends after so many seconds, or when there is a file "stop".
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import trio

from trio_connect import deadline_after
from trio_connect.outbound import (
    LeaseLost,
    NotAdmitted,
    OutboundPolicy,
    Rate,
    RedisStore,
    _redis,
    _redis_store,
    open_outbound,
)

LACKING = {
    "pause": ("if now < open then", "if false then"),
    "run": ("string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')", "'the same'"),
}


def lack(what: str) -> None:
    """Take a part out of the scripts."""
    there, instead = LACKING[what]
    for name in ("ACQUIRE", "RENEW"):
        setattr(_redis_store, name, getattr(_redis_store, name).replace(there, instead))


def moment() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000


async def there_is(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await trio.sleep(0.005)


async def main(store: RedisStore, log: str, seconds: float, tasks: int, policy: OutboundPolicy, hold: float) -> None:
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(task: int | str, what: str, *at: int) -> None:
        times = " ".join(map(str, at or [moment()]))
        os.write(fd, f"{os.getpid()} {task} {what} {times}\n".encode())

    call = _redis.Server.call
    asked: dict[str, int] = {}

    async def noted(server: _redis.Server, script: str, keys: Sequence[str], arguments: Sequence[str]) -> list[Any]:
        if script != vars(_redis_store)["ACQUIRE"]:
            return await call(server, script, keys, arguments)
        # A question whose answer was lost may have been counted; it comes again, with the same id.
        before = asked.setdefault(arguments[1], moment())
        answer = await call(server, script, keys, arguments)
        del asked[arguments[1]]
        if answer[0] == "granted":
            note("-", "counted", before, moment())
        return answer

    setattr(_redis.Server, "call", noted)  # noqa: B010 - mypy lets nobody assign to a method

    random = Random(os.getpid())
    await there_is(Path(log).with_name("go"))
    until = deadline_after(seconds)
    async with open_outbound(policy=policy, store=store) as out, trio.open_nursery() as nursery:

        async def work(task: int) -> None:
            while True:
                try:
                    async with out.destination("api.test").permit(until):
                        note(task, "begin")
                        try:
                            await trio.sleep(random.uniform(0.0, 2 * hold))
                        finally:
                            note(task, "end")
                except (LeaseLost, NotAdmitted):
                    await trio.sleep(0.02)
                except trio.TooSlowError:
                    return

        async def end() -> None:
            with trio.move_on_after(seconds):
                await there_is(Path(log).with_name("stop"))
                nursery.cancel_scope.cancel()

        nursery.start_soon(end)
        for task in range(tasks):
            nursery.start_soon(work, task)


if __name__ == "__main__":
    _, url, ttl, strict, without, log, seconds, tasks, cap, count, burst, hold = sys.argv
    if without:
        lack(without)
    trio.run(
        main, RedisStore(url, ttl=float(ttl), strict=strict == "strict"), log, float(seconds), int(tasks),
        OutboundPolicy(max_connections=int(cap), rate=Rate(int(count), 1.0, int(burst)) if int(count) else None),
        float(hold),
    )  # fmt: skip
