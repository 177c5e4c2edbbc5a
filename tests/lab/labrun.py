"""Run a command in a laboratory of its own: ``labrun.py COMMAND [ARGUMENT ...]``.

The command gets fresh network and mount namespaces (and, unless it is root's, a user namespace in which it plays
root), a loopback interface that is up, and throw-away copies of the files in /etc that name resolution reads, which
it may rewrite. Nothing that it does to routes, firewalls or these files reaches the machine, and nothing of it is
left when it ends, however it ends.

Exit status 77 and one line on stderr: this machine does not permit it. Otherwise the status is the command's.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import Final, NoReturn

NOT_PERMITTED: Final = 77

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MNT_DETACH: Final = 2
SIOCGIFFLAGS: Final = 0x8913
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x1

# Numeric lookups and localhost work; every other name fails at once until the lab runs a server and says so here.
ETC: Final = {
    "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": "hosts: files dns\n",
    "gai.conf": "",
}


def give_up(what: str, why: str) -> NoReturn:
    print(f"labrun: no network laboratory here: {what}: {why}", file=sys.stderr)
    raise SystemExit(NOT_PERMITTED)


def call(name: str, *arguments: object) -> None:
    # unshare and mount have no wrapper in Python 3.11.
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        give_up(name, os.strerror(ctypes.get_errno()))


def enter_namespaces() -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        call("unshare", CLONE_NEWNET | CLONE_NEWNS)
    else:
        call("unshare", CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
        # The kernel lets an ordinary user map a group only after giving up setgroups.
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            try:
                Path("/proc/self", name).write_text(text)
            except OSError as exc:
                give_up(name, str(exc))
    call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)


def replace_etc() -> None:
    # The bound files keep their file system alive, so its folder can go before the command starts. (Unlinked files
    # would live on as well, but nothing can be mounted over them: no lab within the lab.)
    with tempfile.TemporaryDirectory() as folder:
        call("mount", b"labrun", os.fsencode(folder), b"tmpfs", 0, None)
        for name, text in ETC.items():
            if Path("/etc", name).exists():
                source = Path(folder, name)
                source.write_text(text)
                source.chmod(0o644)
                call("mount", os.fsencode(source), f"/etc/{name}".encode(), None, MS_BIND, None)
        call("umount2", os.fsencode(folder), MNT_DETACH)


def raise_loopback() -> None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("h", fcntl.ioctl(sock, SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def main(command: list[str]) -> NoReturn:
    if not command:
        print(__doc__, file=sys.stderr)
        raise SystemExit(2)
    if sys.platform != "linux":
        give_up("namespaces", f"{sys.platform} has none")
    enter_namespaces()
    replace_etc()
    raise_loopback()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
