"""The first process of the guest: make a usable machine, run one command, say its status, switch the power off.

The guest's root is the host's own file system, read-only, so Python and the checkout are those of the host. What the
command may write to is memory: /run, which is also its TMPDIR. Nothing here imports more than the standard library.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final, NoReturn

# Nothing loads the first two by itself: crc32c_generic sums SCTP's packets, where it is a module, and hmac signs the
# cookies of its listen(2), which says ENOSYS without.
MODULES: Final = ("crc32c_generic", "hmac", "ipv6", "sctp", "sctp_diag", "dummy", "veth", "sch_netem")
# finit_module(2) has no wrapper in libc.
FINIT_MODULE: Final = {"x86_64": 313, "aarch64": 273}
TEMPORARY: Final = "/run/tmp"

libc: Final = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def mount(kind: str, target: str) -> None:
    """Mount a file system of the kernel's own, mount(2)."""
    check(libc.mount(kind.encode(), target.encode(), kind.encode(), 0, None), target)


def dependencies(folder: Path) -> dict[str, tuple[str, list[str]]]:
    """Read modules.dep: where each module is, and what must be loaded before it, the last first."""
    found = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        found[module_name(path)] = path, needs.split()
    return found


def module_name(path: str) -> str:
    """Return the name under which /proc/modules lists a module: /a/sch-netem.ko is sch_netem."""
    return Path(path).name.split(".ko")[0].replace("-", "_")


def load(folder: Path, names: tuple[str, ...]) -> None:
    """Load kernel modules with what they need; one that the kernel was built with is there already."""
    known = dependencies(folder)
    for name in names:
        if name in known:
            path, needs = known[name]
            for each in (*reversed(needs), path):
                insert(folder / each)


def insert(path: Path) -> None:
    """Load one module file, finit_module(2)."""
    with path.open("rb") as file:
        result = libc.syscall(FINIT_MODULE[platform.machine()], file.fileno(), b"", 0)
        if result and ctypes.get_errno() != errno.EEXIST:
            check(result, str(path))


def prepare(modules: Path | None) -> None:
    """Mount what programs expect, load SCTP, raise the loopback interface."""
    for kind, target in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run")):
        mount(kind, target)
    os.makedirs(TEMPORARY)
    os.environ.update(
        PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        TMPDIR=TEMPORARY,
        HOME=TEMPORARY,
        HYPOTHESIS_STORAGE_DIRECTORY=TEMPORARY,  # its default is the checkout, which is read-only here
        TERM="dumb",
    )
    if modules is not None:
        load(modules, MODULES)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def power_off() -> NoReturn:
    """Switch off, with no regard to anything: proc(5), sysrq-trigger."""
    sys.stdout.flush()
    Path("/proc/sysrq-trigger").write_text("o")
    while True:
        signal.pause()


def main() -> NoReturn:
    """Run GUEST_SCRIPT in GUEST_FOLDER; GUEST_MODULES is the folder of the kernel's modules."""
    status = 1
    try:
        modules = os.environ.pop("GUEST_MODULES", "")
        prepare(Path(modules) if modules else None)
        print(f"GUEST kernel {os.uname().release}", flush=True)
        command = ["/bin/sh", os.environ.pop("GUEST_SCRIPT")]
        status = subprocess.run(command, cwd=os.environ.pop("GUEST_FOLDER"), check=False).returncode
    finally:
        print(f"GUEST-EXIT {status}", flush=True)
        power_off()


if __name__ == "__main__":
    main()
