"""Look a name up with `SystemResolver` and with `DnsResolver`, against one name server with faults on port 53.

Run by `labrun.py` in namespaces that nobody else uses; the scene comes as JSON on stdin, what happened goes to stdout.
One lookup per process: the C library remembers name servers that failed it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio

from tests.support.dnsserver import Fault, serving
from trio_connect import DnsResolver, ResolveFailed, Resolver, SystemResolver, deadline_after, resolve

RESOLVERS: Final[dict[str, Callable[[], Resolver]]] = {"system": SystemResolver, "dns": DnsResolver}


async def scene(zone: dict[str, Any], host: str, who: str) -> dict[str, Any]:
    faults = {key: Fault(**value) if isinstance(value, dict) else value for key, value in zone.items()}
    async with serving(faults, port=53) as (server, _):
        started = trio.current_time()
        try:
            found = await resolve(host, 443, deadline_after(20), resolver=RESOLVERS[who]())
            result: Any = sorted(endpoint.host for endpoint in found)
        except ResolveFailed as exc:
            result = f"failed: {exc}"
        return {
            "result": result,
            "took": trio.current_time() - started,
            "asked": sorted(f"{question} {how}" for question, how in zip(server.asked, server.transports, strict=True)),
        }


def main() -> None:
    given = json.load(sys.stdin)
    for name, text in given["etc"].items():
        Path("/etc", name).write_text(text, encoding="utf-8")
    json.dump(trio.run(scene, given["zone"], given["host"], given["who"]), sys.stdout)


if __name__ == "__main__":
    main()
