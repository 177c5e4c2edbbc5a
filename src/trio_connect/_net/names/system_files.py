"""The files that say how this system finds names, read again whenever they have changed.

Each use costs a stat(2), about a microsecond, in Trio's own thread: these are small local files, like those that an
import reads. What cannot be read counts as empty, as it does for the C library; but not when this process is out of
descriptors, for then a name that the hosts file pins or blocks would be asked of DNS.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Final, Generic, TypeVar, final

from ..._engine.gai_conf import parse_gai_conf
from ..._engine.hosts_file import HostsFile
from ..._engine.name_servers import parse_name_servers
from ..._engine.name_services import NameServices, parse_name_services
from ..._engine.policy_table import DEFAULT_POLICY_TABLE, PolicyTable
from ..._engine.search_list import NO_SEARCH, SearchList, parse_resolv_conf
from ..._engine.shortage import SHORTAGE

__all__ = [
    "WatchedFile",
    "hosts_file",
    "name_servers",
    "name_services",
    "policy_table",
    "resolv_conf_search_list",
    "search_list",
]

T = TypeVar("T")

# A file may change twice within one tick of its time stamps, which are as coarse as 10 ms, or 2 s on FAT.
_SETTLED: Final = 2_000_000_000


@final
class WatchedFile(Generic[T]):
    """One file, and what it means.

    Args:
      path: of the file.
      parse: makes of its bytes what `read` returns; b"" when there is no such file.
    """

    __slots__ = ("_parse", "_stamp", "_value", "path")

    def __init__(self, path: str, parse: Callable[[bytes], T]) -> None:
        self.path = path
        self._parse = parse
        self._stamp: tuple[int, ...] | None = None
        self._value: T | None = None

    def read(self) -> T:
        """Return what the file means now.

        Raises:
          OSError: out of descriptors or memory.
        """
        stamp: tuple[int, ...] = ()
        try:
            status = os.stat(self.path)
            stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        except OSError:
            pass  # no such file, or not for us
        if self._value is not None and stamp == self._stamp:
            return self._value
        content = b""
        if stamp:
            try:
                with open(self.path, "rb") as file:
                    content = file.read()
            except OSError as exc:
                if exc.errno in SHORTAGE:
                    raise
        self._value = self._parse(content)
        self._stamp = None if stamp and time.time_ns() - max(stamp[3:]) < _SETTLED else stamp
        return self._value


def _is_gnu() -> bool:
    """Say whether the C library is that of GNU: gai.conf and the rules of `search_list` are its own."""
    confstr = getattr(os, "confstr", None)  # not on Windows
    try:
        return bool(confstr is not None and confstr("CS_GNU_LIBC_VERSION"))
    except (ValueError, OSError):
        return False


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _parse_resolv_conf(content: bytes) -> SearchList:
    return parse_resolv_conf(
        _text(content),
        hostname=socket.gethostname(),
        localdomain=os.environ.get("LOCALDOMAIN"),
        res_options=os.environ.get("RES_OPTIONS"),
    )


def _parse_name_servers(content: bytes) -> tuple[str, ...]:
    return parse_name_servers(_text(content))


def _parse_nsswitch(content: bytes) -> NameServices:
    return parse_name_services(_text(content))


def _parse_gai_conf(content: bytes) -> PolicyTable:
    return parse_gai_conf(_text(content))


_HOSTS: Final = WatchedFile("/etc/hosts", HostsFile)
_NSSWITCH: Final = WatchedFile("/etc/nsswitch.conf", _parse_nsswitch)
_RESOLV: Final = WatchedFile("/etc/resolv.conf", _parse_resolv_conf)
_NAME_SERVERS: Final = WatchedFile("/etc/resolv.conf", _parse_name_servers)
_GAI: Final = WatchedFile("/etc/gai.conf", _parse_gai_conf)
_GNU: Final = _is_gnu()


def hosts_file() -> HostsFile:
    """Return the hosts file of this system."""
    return _HOSTS.read()


def name_services() -> NameServices:
    """Return which services this system asks for hosts."""
    return _NSSWITCH.read()


def search_list() -> SearchList:
    """Return how this system completes relative names; not at all where the C library can be left alone with it."""
    return _RESOLV.read() if _GNU else NO_SEARCH


def resolv_conf_search_list() -> SearchList:
    """Return how resolv.conf(5) completes relative names, for those who ask name servers themselves."""
    return _RESOLV.read()


def name_servers() -> tuple[str, ...]:
    """Return the name servers of resolv.conf(5), numeric; none where there is no such file."""
    return _NAME_SERVERS.read()


def policy_table() -> PolicyTable:
    """Return the policy table of this system."""
    try:
        return _GAI.read() if _GNU else DEFAULT_POLICY_TABLE
    except OSError:
        return DEFAULT_POLICY_TABLE  # it only orders, so a shortage here fails nothing
