"""A file in which each held place is one locked byte.

The locks are those of open file descriptions (F_OFD_SETLK, fcntl(2)): the kernel drops them when the last descriptor of
their holder is closed, and so when it is killed. Nothing expires and nothing is renewed. They need no byte to be there,
so the places of all limits lie beyond the end of the file.

The file has a header and an entry for each limit, both of fixed size::

    header   8 bytes  magic and version        16 bytes  boot to which the times belong    8 bytes  generation
    entry   32 bytes  SHA-256 of kind and key   8 bytes  places, or the burst of a rate     8 bytes  interval
             8 bytes  generation                8 bytes  when the next start would be due if all came evenly

A limit is found by its entry, and entries are only added, so their order never changes. Numbers are little-endian;
times are microseconds of CLOCK_BOOTTIME, which goes on in suspend and is one for all processes (clock_gettime(2)).
A generation begins when a process opens a file that nobody else has open: only then may a limit change its number.

SQLite was tried instead: with four processes waits of 0.4 s, on a busy disk of seconds, and a thread for each. Two
lock files for each place, flock(2), need a descriptor for each place that is held.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final
from weakref import WeakSet

import attrs

from .._text import shown

__all__ = ["COUNTING", "MOST_PLACES", "FileOfLocks", "Limit"]

_MAGIC: Final = b"trioco\x00\x01"
_HEADER: Final = struct.Struct("<8s16sq")
_ENTRY: Final = struct.Struct("<32sqqqq")
_DUE: Final = struct.Struct("<q")
_DUE_OFFSET: Final = _ENTRY.size - _DUE.size
_TERMS: Final = struct.Struct("<qqq")
"""What an entry has between its digest and when the next start would be due."""
_TERMS_OFFSET: Final = _DUE_OFFSET - _TERMS.size
_FLOCK: Final = struct.Struct("@hhqqi4x")
"""struct flock of fcntl(2) with 64-bit offsets: type, whence, start, length, pid."""

_HEADER_BYTE: Final = 0
_PRESENCE_BYTE: Final = 1
_PLACES: Final = 1 << 40
"""Where the places begin. The file never grows so far."""
MOST_PLACES: Final = 1 << 20
COUNTING: Final = -1.0
"""Another process is counting a start of a rate in this moment."""

_HAS_LOCKS: Final[bool] = sys.platform == "linux"
"""macOS has such locks too, with a struct flock of its own."""

_PATIENCE: Final = 0.5
"""Seconds for which the lock of the header is waited for, with the whole loop. Whoever has it needs some system calls;
one that was stopped with it (SIGSTOP) must not stop all others. After a wait in vain nobody waits until it is had."""
_PAUSE: Final = 0.0005
"""Seconds between two tries."""

_BUSY: Final = frozenset({errno.EAGAIN, errno.EACCES})
"""fcntl(2): F_SETLK fails with either when another holds a lock."""


if sys.platform == "linux":
    import fcntl

    _SHARED, _EXCLUSIVE, _NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK

    def _set_lock(fd: int, kind: int, start: int, length: int) -> None:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, 0, start, length, 0))

    _pread, _pwrite, _CLOEXEC = os.pread, os.pwrite, os.O_CLOEXEC

    def _moment() -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000

else:
    # A file is not opened there.
    _SHARED = _EXCLUSIVE = _NONE = 0

    _CLOEXEC = 0

    def _set_lock(*_: object) -> None:
        raise AssertionError

    def _pread(*_: object) -> bytes:
        raise AssertionError

    def _pwrite(*_: object) -> int:
        raise AssertionError

    def _moment() -> int:
        raise AssertionError


@final
@attrs.define(eq=False)
class Limit:
    """A limit of the file."""

    index: int
    number: int
    """Places, or the burst of a rate."""
    interval: int
    """Microseconds; 0 for places."""
    held: set[int] = attrs.field(factory=set[int])
    """The places that this process holds. Locks of one descriptor do not exclude each other."""
    next: int = 0
    """Where a free place is looked for first."""

    @property
    def entry(self) -> int:
        """Where its entry is."""
        return _HEADER.size + self.index * _ENTRY.size

    @property
    def places(self) -> int:
        """Where its places are."""
        return _PLACES + self.index * MOST_PLACES


@final
class FileOfLocks:
    """An open file of locks.

    Args:
      path: the file, made when it is not there, for its owner alone.

    Raises:
      OSError: it cannot be opened, or this system has no locks of open file descriptions (EOPNOTSUPP).
      ValueError: the file is something else.
    """

    def __init__(self, path: Path) -> None:
        if not _HAS_LOCKS:
            raise OSError(errno.EOPNOTSUPP, "a store in a file needs the locks of Linux, F_OFD_SETLK in fcntl(2)")
        self._path = path
        self._entries: dict[bytes, int] = {}
        """The index of each entry that was read."""
        self._limits: dict[tuple[str, str], Limit] = {}
        """Those that were asked for."""
        self._has_waited_in_vain = False
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | _CLOEXEC, 0o600)
        try:
            self._open()
        except BaseException:
            os.close(self._fd)
            raise
        _open_files.add(self)

    def close(self) -> None:
        """Close the file, which gives back every place."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def limit(self, kind: str, key: str, number: int, interval: int = 0) -> Limit:
        """Return the limit of a key.

        Raises:
          ValueError: another process has it with another number.
        """
        known = self._limits.get((kind, key))
        if known is None or (known.number, known.interval) != (number, interval):
            with self._locked(_HEADER_BYTE):
                known = self._limits[kind, key] = self._agreed(kind, key, number, interval, known)
        return known

    def known(self, kind: str, key: str) -> Limit | None:
        """Return the limit of a key with the number that was agreed on; None when it was not asked for yet."""
        return self._limits.get((kind, key))

    def take(self, limit: Limit) -> int | None:
        """Lock a free place of a limit and return which; None when all are held."""
        for step in range(limit.number):
            place = (limit.next + step) % limit.number
            if place not in limit.held and self._try_lock(limit.places + place, 1):
                limit.held.add(place)
                limit.next = (place + 1) % limit.number
                return place
        return None

    def give(self, limit: Limit, place: int) -> None:
        """Give a place back."""
        limit.held.discard(place)
        if self._fd >= 0:
            self._unlock(limit.places + place, 1)

    def start(self, rates: list[Limit]) -> float | None:
        """Count a start of each rate, or of not one.

        Returns:
          None when it was counted, `COUNTING`, or the seconds until all admit one.
        """
        locked: list[Limit] = []
        try:
            for rate in rates:
                # Whoever holds it may have been stopped (SIGSTOP) with the lock, so nobody waits for it here.
                if not self._try_lock(rate.entry + _DUE_OFFSET, _DUE.size):
                    return COUNTING
                locked.append(rate)
            moment = _moment()
            dues = [max(self._due(rate), moment) for rate in rates]
            wait = max(
                (due - (rate.number - 1) * rate.interval - moment for rate, due in zip(rates, dues, strict=True)),
                default=0,
            )
            if wait > 0:
                return wait / 1e6
            for rate, due in zip(rates, dues, strict=True):
                self._write(_DUE.pack(due + rate.interval), rate.entry + _DUE_OFFSET)
            return None
        finally:
            for rate in locked:
                self._unlock(rate.entry + _DUE_OFFSET, _DUE.size)

    # ------------------------------------------------------------------ the file

    def _open(self) -> None:
        boot = bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").replace("-", ""))
        with self._locked(_HEADER_BYTE):
            is_alone = self._try_lock(_PRESENCE_BYTE, 1)
            header = _pread(self._fd, _HEADER.size, 0)
            if header and (len(header) < _HEADER.size or not header.startswith(_MAGIC)):
                raise ValueError(f"{self._path} is not a store of limits, or one of another version")
            generation = 0
            if header:
                _, of, generation = _HEADER.unpack(header)
                if of != boot:
                    os.ftruncate(self._fd, 0)
                    header = b""
            if is_alone:
                generation += 1
            try:
                self._write(_HEADER.pack(_MAGIC, boot, generation), 0)
            except OSError:
                if not header:
                    # A part of one would be taken for something else, also when there is room again.
                    os.ftruncate(self._fd, 0)
                raise
            self._generation = generation
            self._lock(_PRESENCE_BYTE, shared=True)
            self._read_new()

    def _agreed(self, kind: str, key: str, number: int, interval: int, known: Limit | None) -> Limit:
        """Return a limit on whose number all agree that have used it since one process alone had the file open."""
        digest = hashlib.sha256(f"{kind}\0{key}".encode()).digest()
        self._read_new()
        index = self._entries.get(digest)
        limit = known or Limit(len(self._entries) if index is None else index, number, interval)
        if index is None:
            self._write(_ENTRY.pack(digest, number, interval, self._generation, 0), limit.entry)
            self._entries[digest] = limit.index
        else:
            *there, generation = _TERMS.unpack(_pread(self._fd, _TERMS.size, limit.entry + _TERMS_OFFSET))
            if there != [number, interval] and generation == self._generation:
                here = f"{_shown_limit(number, interval)} here, {_shown_limit(*there)} in {self._path}"
                raise ValueError(f"{kind} {shown(key)}: {here}; processes that share a store have the same limits")
            # When the next start would be due is another lock's: others may be counting starts meanwhile.
            self._write(_TERMS.pack(number, interval, self._generation), limit.entry + _TERMS_OFFSET)
        limit.number, limit.interval, limit.next = number, interval, 0
        return limit

    def _read_new(self) -> None:
        """Read the entries that other processes have added."""
        start = _HEADER.size + len(self._entries) * _ENTRY.size
        data = _pread(self._fd, max(os.fstat(self._fd).st_size - start, 0), start)
        # A process that was killed while it added an entry has left a part of one, which the next one overwrites.
        for offset in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
            self._entries[data[offset : offset + 32]] = len(self._entries)

    def _write(self, data: bytes, start: int) -> None:
        """Write all of it. A disk without room takes a part first, which is no error to the kernel (write(2))."""
        if _pwrite(self._fd, data, start) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _due(self, rate: Limit) -> int:
        (due,) = _DUE.unpack(_pread(self._fd, _DUE.size, rate.entry + _DUE_OFFSET))
        return int(due)

    # ------------------------------------------------------------------ locks

    @contextmanager
    def _locked(self, byte: int) -> Generator[None]:
        self._lock(byte)
        try:
            yield
        finally:
            self._unlock(byte, 1)

    def _lock(self, byte: int, *, shared: bool = False) -> None:
        until = time.monotonic() + _PATIENCE
        while not self._try_lock(byte, 1, shared=shared):
            if self._has_waited_in_vain or time.monotonic() > until:
                self._has_waited_in_vain = True
                raise OSError(errno.EAGAIN, "another process has it locked, and may have been stopped", str(self._path))
            time.sleep(_PAUSE)
        self._has_waited_in_vain = False

    def _try_lock(self, start: int, length: int, *, shared: bool = False) -> bool:
        try:
            _set_lock(self._fd, _SHARED if shared else _EXCLUSIVE, start, length)
        except OSError as exc:
            if exc.errno in _BUSY:
                return False
            raise
        return True

    def _unlock(self, start: int, length: int) -> None:
        _set_lock(self._fd, _NONE, start, length)


_open_files: Final[WeakSet[FileOfLocks]] = WeakSet()


def _close_in_child() -> None:
    """Have a child that was forked hold nothing: it shares the descriptions, and would outlive its parent with them."""
    for each in tuple(_open_files):
        each.close()


if sys.platform == "linux":
    os.register_at_fork(after_in_child=_close_in_child)


def _shown_limit(number: int, interval: int) -> str:
    return f"{number}" if not interval else f"a start in {interval} us, {number} at once"
