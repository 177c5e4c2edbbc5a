"""Look a name up with `resolve` and with getaddrinfo(3), against a name server and files in /etc of a test's own.

Run by `labrun.py` in namespaces that nobody else uses; the scene comes as JSON on stdin, what happened goes to stdout.
One lookup per process: the C library reads some of these files once, and remembers name servers that failed it.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

import trio

from trio_connect import ConnectFailed, Nat64, ResolveFailed, connect, deadline_after, resolve

TYPES: Final = {1: "A", 28: "AAAA"}
RCODES: Final = {"SERVFAIL": 2, "REFUSED": 5}


class NameServer(threading.Thread):
    """Answers for a zone, a dict of "name TYPE" to addresses or a fault; keeps what it was asked."""

    def __init__(self, zone: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.zone = zone
        self.names = {key.split()[0] for key in zone}
        self.asked: list[str] = []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 53))
        self.start()

    def run(self) -> None:
        while True:
            question, peer = self.sock.recvfrom(4096)
            answer = self.answer(question)
            if answer is not None:
                self.sock.sendto(answer, peer)

    def answer(self, question: bytes) -> bytes | None:
        labels, at = [], 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode())
            at += 1 + length
        (kind,) = struct.unpack_from("!H", question, at + 1)
        name = ".".join(labels).lower()
        key = f"{name} {TYPES.get(kind, kind)}"
        self.asked.append(key)
        found = self.zone.get(key, [])
        if found == "drop":
            return None
        rcode = RCODES.get(found, 0) if isinstance(found, str) else 0 if name in self.names else 3
        addresses = [] if isinstance(found, str) else found
        records = b""
        for address in addresses:
            raw = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
            records += struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(raw)) + raw
        header = question[:2] + struct.pack("!HHHHH", 0x8580 | rcode, 1, len(addresses), 0, 0)
        return header + question[12 : at + 5] + records


async def ours(host: str) -> Any:
    try:
        return [endpoint.host for endpoint in await resolve(host, 443, deadline_after(20))]
    except ResolveFailed as exc:
        return f"failed: {exc}"


def theirs(host: str) -> Any:
    try:
        return list(dict.fromkeys(str(info[4][0]) for info in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)))
    except socket.gaierror as exc:
        return f"failed: {exc}"


async def connected(host: str, port: int) -> str:
    stream = await connect(host, port, deadline_after(20))
    await stream.aclose()
    return stream.peer.host


async def through_nat64(host: str, port: int) -> Any:
    """Connect to a name and to a literal, without a NAT64 and with one; what each came to."""
    nat64 = Nat64()
    found: list[Any] = []
    for target in (host, "192.0.2.1"):
        for way in (None, nat64):
            try:
                stream = await connect(target, port, deadline_after(20), nat64=way)
            except ConnectFailed as exc:
                found.append(errno.errorcode[exc.errno or 0])
                continue
            asked = [f"{lookup.host} {lookup.kind}" for lookup in stream.report.lookups]
            found.append([stream.peer.host, [attempt.nat64 for attempt in stream.report.attempts], asked])
            await stream.aclose()
    return [*found, [str(prefix) for prefix in nat64.prefixes]]


IPV6_ONLY: Final = (
    "addr add 2001:db8::fe/128 dev lo nodad", "addr add 2001:db8:64::c000:201/128 dev lo nodad",
    "-6 route add default dev lo",
)  # fmt: skip
BOTH: Final = (
    "addr add 192.0.2.254/32 dev lo", "addr add 2001:db8::fe/128 dev lo nodad",
    "route add 192.0.2.0/24 dev lo", "route add 2001:db8::/64 dev lo",
)  # fmt: skip


def main() -> None:
    scene = json.load(sys.stdin)
    for name, text in scene["etc"].items():
        Path("/etc", name).write_text(text, encoding="utf-8")
    for line in IPV6_ONLY if scene["who"] == "nat64" else BOTH:
        subprocess.run(["ip", *line.split()], check=True)
    server = NameServer(scene["zone"])
    if scene["who"] == "nat64":
        with socket.create_server(("2001:db8:64::c000:201", 0), family=socket.AF_INET6) as listener:
            result: Any = trio.run(through_nat64, scene["host"], listener.getsockname()[1])
    elif scene["who"] == "connect":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            result = trio.run(connected, scene["host"], listener.getsockname()[1])
    else:
        result = trio.run(ours, scene["host"]) if scene["who"] == "ours" else theirs(scene["host"])
    json.dump({"result": result, "asked": server.asked}, sys.stdout)


if __name__ == "__main__":
    main()
