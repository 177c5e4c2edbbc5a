"""Run a command on a kernel that has SCTP: ``run.py COMMAND [ARGUMENT ...]``.

Many kernels are built without SCTP, and where it is a module only root may load it. So the command runs in a guest:
user-mode Linux (Debian's package user-mode-linux), which is an ordinary process of an ordinary user and takes some
three seconds from start to power-off. Its files are the host's, read-only: the same Python, the same checkout.

Exit status 77 and a line on stderr: no guest can be started here, and why. Otherwise the status is the command's.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NoReturn

NO_GUEST: Final = 77
TIMEOUT: Final = 600.0  # seconds for everything; a guest that hangs is killed then
MEMORY: Final = "512M"
KERNEL: Final = "linux.uml"
MODULES: Final = Path("/usr/lib/uml/modules")
MARKER: Final = re.compile(rb"GUEST-EXIT (\d+)")


def give_up(why: str) -> NoReturn:
    print(f"run.py: no guest with SCTP here: {why}", file=sys.stderr)
    raise SystemExit(NO_GUEST)


def modules_of_kernel() -> Path:
    """Return the folder with the modules of user-mode Linux: the newest, if there are several."""
    folders = sorted(path.parent for path in MODULES.glob("*/modules.dep"))
    if not folders:
        give_up(f"{MODULES} has no modules (on Debian: apt-get install user-mode-linux)")
    return folders[-1]


def user_mode_linux(command: list[str], scratch: Path) -> list[str]:
    """Return the command line that boots user-mode Linux, whose first process is `init.py`."""
    kernel = shutil.which(KERNEL)
    if kernel is None:
        give_up(f"there is no {KERNEL} (on Debian: apt-get install user-mode-linux)")
    # A word on a kernel's command line ends at white space, so those that have some go into a script.
    script = scratch / "command"
    script.write_text(f"exec {shlex.join(command)}\n")
    return [
        kernel, f"mem={MEMORY}", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "loglevel=3",
        f"uml_dir={scratch}/", "umid=guest", "con=null", "con0=null,fd:1", "con1=null", "ssl=null",
        f"init={sys.executable}", "PYTHONDONTWRITEBYTECODE=1", f"GUEST_MODULES={modules_of_kernel()}",
        f"GUEST_FOLDER={Path.cwd()}", f"GUEST_SCRIPT={script}",
        "--", str(Path(__file__).with_name("init.py")),
    ]  # fmt: skip


def run(command_line: list[str]) -> int | None:
    """Run a guest, passing on what it prints; return the status that it announced, None if it announced none."""
    status = None
    with subprocess.Popen(command_line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as guest:
        assert guest.stdout is not None
        try:
            for line in guest.stdout:
                marker = MARKER.match(line)
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
        give_up(f"user-mode Linux needs Linux, this is {sys.platform}")
    with tempfile.TemporaryDirectory(prefix="guest-") as scratch:
        line = user_mode_linux(command, Path(scratch))
        status = run(["timeout", "--kill-after=5", str(TIMEOUT), *line] if shutil.which("timeout") else line)
    if status is None:
        give_up("the guest ended without a word of its command's status")
    raise SystemExit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
