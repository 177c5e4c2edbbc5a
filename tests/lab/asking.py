"""Look a name up with `SystemResolver` and with `DnsResolver`, against one name server with faults on port 53.

Run by `labrun.py` in namespaces that nobody else uses; the scene comes as JSON on stdin, what happened goes to stdout.
One lookup per process: the C library remembers name servers that failed it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from tests.support.dnsserver import Fault, serving
from trio_connect import (
    DnsResolver,
    Lookup,
    ResolveFailed,
    Resolver,
    SystemResolver,
    connect,
    deadline_after,
    resolve,
    tcp_listen,
)

RESOLVERS: Final[dict[str, Callable[[], Resolver]]] = {
    "system": SystemResolver,
    "dns": DnsResolver,
    "services": partial(DnsResolver, services="https", alpn=("h2", "http/1.1")),
}


async def scene(zone: dict[str, Any], host: str, who: str, how: str) -> dict[str, Any]:
    faults = {key: Fault(**value) if isinstance(value, dict) else value for key, value in zone.items()}
    resolver = RESOLVERS[who]()
    https = None
    async with serving(faults, port=53) as (server, _), await tcp_listen(("127.0.0.1", 443)) as listener:
        started = trio.current_time()
        try:
            if how == "connect":
                stream = await connect(host, listener.endpoint.port, deadline_after(20), resolver=resolver)
                stream.abort()
                result: Any = stream.peer.host
                https = next((said(lookup) for lookup in stream.report.lookups if lookup.kind == "HTTPS"), None)
            else:
                found = await resolve(host, 443, deadline_after(20), resolver=resolver)
                result = sorted(endpoint.host for endpoint in found)
        except ResolveFailed as exc:
            result = f"failed: {exc}"
        return {
            "result": result,
            "https": https,
            "took": trio.current_time() - started,
            "asked": sorted(f"{question} {how}" for question, how in zip(server.asked, server.transports, strict=True)),
        }


def said(lookup: Lookup) -> str:
    if lookup.error is not None:
        return str(lookup.error)
    return "None" if lookup.records is None else "found" if lookup.records else "none"


def main() -> None:
    given = json.load(sys.stdin)
    for name, text in given["etc"].items():
        Path("/etc", name).write_text(text, encoding="utf-8")
    json.dump(trio.run(scene, given["zone"], given["host"], given["who"], given["how"]), sys.stdout)


if __name__ == "__main__":
    main()
