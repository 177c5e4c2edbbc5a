"""Run a command on a kernel that has SCTP: ``python -m tests.sctp.guest.run COMMAND [ARGUMENT ...]``.

Many kernels are built without SCTP, and where it is a module only root may load it. So the command runs in a guest
whose files are the host's, read-only: the same Python, the same checkout. Two kinds of guest, the first that starts:

- user-mode Linux (Debian's package user-mode-linux): an ordinary process of an ordinary user, three seconds from start
  to power-off;
- QEMU without hardware support, with the host's newest kernel in /boot and its modules (packages qemu-system-x86,
  busybox-static, linux-image-amd64): some twenty seconds, and all is slower by a factor of four or so.

GUEST=user-mode-linux or GUEST=qemu asks for one of them, GUEST_BOOT is a folder to look for boot/ and lib/modules/ in.

Exit status 77 and a line on stderr: no guest can be started here, and why. Otherwise the status is the command's, or 1
for a guest that started and ended without a word of it.
"""

from __future__ import annotations

import gzip
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NoReturn

from tests.sctp.guest.init import dependencies

NO_GUEST: Final = 77
TIMEOUT: Final = 600.0  # seconds for everything; a guest that hangs is killed then
MEMORY: Final = "768M"
KERNEL: Final = "linux.uml"
MODULES: Final = Path("/usr/lib/uml/modules")
STARTED: Final = b"GUEST kernel "
ENDED: Final = re.compile(rb"GUEST-EXIT (\d+)")
INIT: Final = Path(__file__).with_name("init.py")

# What the first file system of a guest of QEMU needs to reach that of the host.
QEMU_MODULES: Final = ("virtio_pci", "9pnet_virtio", "9p")
QEMU_INIT: Final = """\
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro host /root
exec /bin/busybox switch_root /root "$GUEST_PYTHON" "$GUEST_INIT"
"""


class Impossible(Exception):
    """A kind of guest cannot be started here, and why."""


def give_up(why: str) -> NoReturn:
    print(f"run.py: no guest with SCTP here: {why}", file=sys.stderr)
    raise SystemExit(NO_GUEST)


def words(command: list[str], scratch: Path, modules: Path) -> list[str]:
    """Return what `init.py` finds in its environment: words of the kernel's command line."""
    # Such a word ends at white space, so commands that have some go into a script.
    script = scratch / "command"
    script.write_text(f"exec {shlex.join(command)}\n")
    return [
        "PYTHONDONTWRITEBYTECODE=1", f"GUEST_MODULES={modules}", f"GUEST_FOLDER={Path.cwd()}", f"GUEST_SCRIPT={script}",
    ]  # fmt: skip


def user_mode_linux(command: list[str], scratch: Path) -> list[str]:
    """Return the command line that boots user-mode Linux, whose first process is `init.py`."""
    kernel = shutil.which(KERNEL)
    if kernel is None:
        raise Impossible(f"there is no {KERNEL} (on Debian: apt-get install user-mode-linux)")
    folders = sorted(path.parent for path in MODULES.glob("*/modules.dep"))
    if not folders:
        raise Impossible(f"{MODULES} has no modules (on Debian: apt-get install user-mode-linux)")
    return [
        kernel, f"mem={MEMORY}", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "loglevel=3",
        f"uml_dir={scratch}/", "umid=guest", "con=null", "con0=null,fd:1", "con1=null", "ssl=null",
        f"init={sys.executable}", *words(command, scratch, folders[-1]), "--", str(INIT),
    ]  # fmt: skip


def qemu(command: list[str], scratch: Path) -> list[str]:
    """Return the command line that boots a kernel of the host in QEMU."""
    root = Path(os.environ.get("GUEST_BOOT", "/"))
    if platform.machine() != "x86_64" or not shutil.which("qemu-system-x86_64"):
        raise Impossible("there is no qemu-system-x86_64 (on Debian: apt-get install qemu-system-x86)")
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Impossible("there is no busybox (on Debian: apt-get install busybox-static)")
    releases = [path.name.removeprefix("vmlinuz-") for path in root.glob("boot/vmlinuz-*")]
    folders = sorted(root / "lib/modules" / release for release in releases)
    usable = [folder for folder in folders if (folder / "modules.dep").exists()]
    if not usable:
        raise Impossible(f"no kernel in {root / 'boot'} has modules (on Debian: apt-get install linux-image-amd64)")
    modules = usable[-1]
    initrd = scratch / "initrd.gz"
    initrd.write_bytes(gzip.compress(first_file_system(Path(busybox), modules), 1))
    variables = [*words(command, scratch, modules), f"GUEST_PYTHON={sys.executable}", f"GUEST_INIT={INIT}"]
    return [
        "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-M", "q35", "-m", MEMORY, "-nodefaults", "-nographic",
        "-serial", "stdio", "-no-reboot", "-kernel", str(root / f"boot/vmlinuz-{modules.name}"), "-initrd", str(initrd),
        "-append", " ".join(["console=ttyS0 quiet panic=-1 mitigations=off nokaslr", *variables]),
        "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
    ]  # fmt: skip


def first_file_system(busybox: Path, modules: Path) -> bytes:
    """Return an archive for the kernel's -initrd: modules, and a script that goes on with the host's files."""
    known = dependencies(modules)
    paths: dict[str, None] = {}
    for name in QEMU_MODULES:
        if name in known:
            path, needs = known[name]
            paths |= dict.fromkeys([*reversed(needs), path])
    inserts = [f"/bin/busybox insmod /modules/{Path(path).name}" for path in paths]
    members = [(name, 0o040755, b"") for name in ("bin", "modules", "dev", "root")]
    members += [("bin/busybox", 0o100755, busybox.read_bytes())]
    members += [(f"modules/{Path(path).name}", 0o100644, (modules / path).read_bytes()) for path in paths]
    members += [("init", 0o100755, "\n".join(["#!/bin/busybox sh", *inserts, QEMU_INIT]).encode())]
    members += [("TRAILER!!!", 0, b"")]
    return b"".join(archived(number, *member) for number, member in enumerate(members, 1))


def archived(number: int, name: str, mode: int, data: bytes) -> bytes:
    """Return a member of an archive in the format newc, cpio(5)."""
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)


KINDS: Final = {"user-mode-linux": user_mode_linux, "qemu": qemu}


def run(command_line: list[str]) -> int | None:
    """Run a guest, passing on what it prints; return the status that it announced, None if it did not start."""
    status = None
    with subprocess.Popen(command_line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as guest:
        assert guest.stdout is not None
        try:
            for line in guest.stdout:
                # A console may have been told to clear its screen before.
                if STARTED in line:
                    status = 1  # whatever may become of it now
                marker = ENDED.search(line)
                if marker:
                    status = int(marker[1])
                    guest.wait(timeout=30)
                    break
                sys.stdout.buffer.write(line.replace(b"\r\n", b"\n"))
                sys.stdout.buffer.flush()
        finally:
            guest.kill()
    return status


def main(command: list[str]) -> NoReturn:
    if not command:
        print(__doc__, file=sys.stderr)
        raise SystemExit(2)
    if sys.platform != "linux":
        give_up(f"guests need Linux, this is {sys.platform}")
    wanted = os.environ.get("GUEST")
    if wanted and wanted not in KINDS:
        give_up(f"GUEST={wanted} is not one of {', '.join(KINDS)}")
    reasons = []
    for kind in [wanted] if wanted else KINDS:
        with tempfile.TemporaryDirectory(prefix="guest-") as scratch:
            try:
                line = KINDS[kind](command, Path(scratch))
            except Impossible as exc:
                reasons.append(f"{kind}: {exc}")
                continue
            status = run(["timeout", "--kill-after=5", str(TIMEOUT), *line] if shutil.which("timeout") else line)
        if status is not None:
            raise SystemExit(status)
        reasons.append(f"{kind}: it did not start")
    give_up("; ".join(reasons))


if __name__ == "__main__":
    main(sys.argv[1:])
