"""What of the benchmarks is in C: the far end of connects and of ping-pong, and the floor under every table.

The C compiler of the machine makes it when it is first needed. Without one the far end is the Python one, which keeps
what it should answer at once waiting, and the floor is missing; both are said, on a line that begins with MISSING.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

from _harness import HERE, Sample

FLOOR = "an epoll loop in C"
NO_COMPILER = (
    "MISSING: no C compiler (cc): no floor in C, and the far end is in Python, which answers late when many ask at once"
)


@cache
def program(name: str) -> str | None:
    """Return the path of a program that is made of NAME.c, None where nothing here can make it."""
    source, target = HERE / f"{name}.c", HERE / "__pycache__" / name
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        compiler = shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            return None
        target.parent.mkdir(exist_ok=True)
        # Under another name first: two benchmarks may make it at the same time.
        made = target.with_name(f"{name}.{id(target)}")
        subprocess.run([compiler, "-O2", "-Wall", "-o", str(made), str(source)], check=True)
        made.replace(target)
    return str(target)


def floor(mode: str, addresses: Sequence[tuple[str, int]], *numbers: int) -> Sample:
    """Run the epoll loop in C, see `_floor.c`."""
    path = program("_floor")
    assert path is not None
    text = "".join(f"{host} {port}\n" for host, port in addresses)
    command = [path, mode, str(len(addresses)), *map(str, numbers)]
    done = subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True)
    cpu, wall = (float(word) / 1e9 for word in done.stdout.split())
    return Sample(wall, cpu)


@contextmanager
def held_connections(address: tuple[str, int], count: int) -> Iterator[None]:
    """Have another process make so many connections at once, and keep them until this ends."""
    path = program("_floor")
    assert path is not None
    command = [path, "hold", str(count)]
    text = "".join(f"{host} {port}\n" for host, port in [address] * count)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.flush()
        try:
            yield
        finally:
            process.stdin.close()


def accepting_floor(address: tuple[str, int], count: int) -> Sample:
    """Have the epoll loop in C accept so many connections."""
    path = program("_floor")
    assert path is not None
    command = [path, "accept", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{address[0]} {address[1]}\n")
        process.stdin.close()
        if process.stdout.readline() != "listening\n":
            sys.exit("the floor did not listen")
        with held_connections(address, count):
            cpu, wall = (float(word) / 1e9 for word in process.stdout.readline().split())
    return Sample(wall, cpu)


@contextmanager
def echo_server(core: int) -> Iterator[int | None]:
    """Run the echo server in C and give its port, None where it could not be built."""
    path = program("_echo")
    if path is None:
        yield None
        return
    with subprocess.Popen([path, str(core)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline() or sys.exit("the echo server did not start"))
        finally:
            process.kill()
