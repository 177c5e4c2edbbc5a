"""Whether SCTP can be used here, and if not, what is missing."""

from __future__ import annotations

import errno
import os
import platform
import socket
import sys

from .._messages import strerror
from . import _wire as wire  # pyright: ignore[reportPrivateUsage]
from ._values import Availability

_LOAD = "load it with: modprobe sctp (on Debian and Ubuntu it may be in the package linux-modules-extra-$(uname -r))"


def availability() -> Availability:
    """Say whether an SCTP socket can be made and used on this machine.

    Makes a socket and closes it; nothing is sent.

    Returns:
      Whether it can, and else which of kernel, module or permission is missing, with the command that mends it.
    """
    if sys.platform != "linux":
        return Availability(ok=False, reason=f"only Linux's SCTP is supported, this is {sys.platform}")
    try:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, wire.SOL_SCTP)
    except OSError as exc:
        return Availability(ok=False, reason=_why(exc))
    with sock:
        try:
            sock.bind(("127.0.0.1", 0))
            sock.listen(1)
        except OSError as exc:
            if exc.errno == errno.ENOSYS:
                return Availability(
                    ok=False,
                    reason="the kernel cannot sign SCTP's cookies: load the module with: modprobe hmac "
                    "(or set net.sctp.cookie_hmac_alg=none)",
                )
            return Availability(ok=False, reason=f"SCTP sockets cannot listen here: {strerror(exc.errno or errno.EIO)}")
    return Availability(ok=True)


def _why(exc: OSError) -> str:
    if exc.errno in (errno.EACCES, errno.EPERM):
        return (
            f"this process may not make SCTP sockets ({exc.strerror}): a policy such as SELinux or seccomp forbids it"
        )
    if exc.errno not in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT, errno.EAFNOSUPPORT):
        return f"no SCTP socket can be made: {strerror(exc.errno or errno.EIO)}"
    release = platform.release()
    if os.path.exists("/proc/net/sctp"):
        return f"the kernel {release} has SCTP, but not for this family of addresses"
    folder = f"/lib/modules/{release}"
    if not os.path.isdir(folder):
        return (
            f"the kernel {release} has no SCTP, and no modules are installed in {folder}: it needs a kernel that was "
            "built with CONFIG_IP_SCTP, or, in a container, the module loaded on the host (modprobe sctp)"
        )
    try:
        with open(f"{folder}/modules.dep", encoding="ascii", errors="replace") as file:
            there = any("/sctp.ko" in line.partition(":")[0] for line in file)
    except OSError:
        there = False
    if there:
        return f"the module sctp of the kernel {release} is not loaded; {_LOAD}"
    return f"the kernel {release} was built without SCTP, and no module sctp is installed; {_LOAD}"
