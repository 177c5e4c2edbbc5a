"""Hosts of a throw-away network: namespaces held by a descriptor, joined by cables, with faults made by the kernel.

Nothing has a name on the machine (no files under /run/netns, no mounts), so nothing is left behind, however the
process ends: the kernel deletes the namespaces with their links, rules and sockets when the last descriptor goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Self, TypeVar

import trio

T = TypeVar("T")

CLONE_NEWNET: Final = 0x40000000


class NotPermitted(Exception):
    """There can be no such network here; the text says why."""


def _call(name: str, *arguments: int) -> None:
    # unshare and setns have no wrapper in Python 3.11.
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _current() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Host:
    """One network namespace. A socket stays in the namespace in which it was made."""

    def __init__(self, *, loopback: bool = True) -> None:
        for tool in ("ip", "nft"):
            if shutil.which(tool) is None:
                raise NotPermitted(f"the command {tool} is missing (on Debian: iproute2, nftables)")
        made: list[int | OSError] = []

        def make() -> None:
            # In a thread of its own: unshare moves the thread that calls it.
            try:
                _call("unshare", CLONE_NEWNET)
                made.append(_current())
            except OSError as exc:
                made.append(exc)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise NotPermitted(f"this machine makes no network namespaces for us: {made[0]}")
        self._descriptor = made[0]
        if loopback:
            self.ip("link set lo up")

    @property
    def path(self) -> str:
        """What `ip link ... netns` takes."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread into the host. Not to be held where another task could run that belongs elsewhere."""
        before = _current()
        _call("setns", self._descriptor, CLONE_NEWNET)
        try:
            yield
        finally:
            try:
                _call("setns", before, CLONE_NEWNET)
            finally:
                os.close(before)

    def trio(self, main: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run a program on this host."""
        with self.inside():
            return trio.run(main, *args)

    def run(self, *command: str, script: str | None = None) -> str:
        with self.inside():  # a child inherits the namespace of the thread that starts it
            done = subprocess.run(
                command, input=script, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout.strip()}\n{script or ''}")
        return done.stdout

    def ip(self, *lines: str) -> None:
        self.run("ip", "-batch", "-", script="\n".join(lines) + "\n")

    def filter(self, hook: str, *rules: str) -> None:
        """Replace all rules of this host by these, in one transaction; `drop` and `reject` make the faults."""
        body = "\n".join(rules)  # nft wants a newline between a rule and the brace that closes its chain
        chain = f"chain faults {{\ntype filter hook {hook} priority -150;\n{body}\n}}\n"
        self.run("nft", "-f", "-", script=f"flush ruleset\ntable inet lab {{\n{chain}}}\n")

    def sysctl(self, name: str, value: object) -> None:
        with self.inside(), open("/proc/sys/" + name.replace(".", "/"), "w", encoding="ascii") as file:
            file.write(str(value))

    def listener(self, host: str, port: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with self.inside():
            return socket.create_server((host, port), family=family)

    def close(self) -> None:
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cable(client: Host, server: Host, number: int = 0) -> None:
    """Join two hosts: links cN and sN, addresses 10.9.N.1 and .2, fd00:N::1 and ::2."""
    client.ip(f"link add c{number} type veth peer name s{number} netns {server.path}")
    for host, link, last in ((client, f"c{number}", 1), (server, f"s{number}", 2)):
        host.ip(
            f"link set {link} up",
            f"addr add 10.9.{number}.{last}/24 dev {link}",
            f"addr add fd00:{number}::{last}/64 dev {link} nodad",
        )
    warm(client, f"10.9.{number}.2")
    warm(client, f"fd00:{number}::2")


def warm(client: Host, host: str) -> None:
    """Wait until packets get through: the first on a fresh link may be lost, which would cost a second later on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(40):
        with client.inside(), socket.socket(family) as sock:
            sock.settimeout(0.05)
            try:
                sock.connect((host, 9))
            except ConnectionRefusedError:
                return
            except OSError:
                continue
    raise RuntimeError(f"no packet came back from {host} within two seconds")
