"""The watched files: read when they have changed, and only then."""

from __future__ import annotations

import errno
import os
import resource

import pytest

from tests.support.etc import Etc
from trio_connect._engine.policy_table import DEFAULT_POLICY_TABLE, as_integer
from trio_connect._net.names import system_files
from trio_connect._net.names.system_files import WatchedFile


class Reads:
    def __init__(self):
        self.count = 0

    def __call__(self, content):
        self.count += 1
        return content


def test_a_file_that_has_settled_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / "hosts"
    path.write_bytes(b"one")
    watched, now = WatchedFile(str(path), reads := Reads()), path.stat().st_ctime_ns
    monkeypatch.setattr("time.time_ns", lambda: now + 2_000_000_000)
    assert [watched.read() for _ in range(3)] == [b"one"] * 3
    assert reads.count == 1


def test_a_file_that_has_just_changed_is_not_trusted(tmp_path, monkeypatch):
    path = tmp_path / "hosts"
    path.write_bytes(b"one")
    watched, now = WatchedFile(str(path), reads := Reads()), path.stat().st_ctime_ns
    monkeypatch.setattr("time.time_ns", lambda: now + 1_999_999_999)
    assert [watched.read() for _ in range(3)] == [b"one"] * 3
    assert reads.count == 3


@pytest.mark.parametrize("change", ["rewritten", "replaced", "gone", "back"])
def test_every_change_is_noticed(tmp_path, monkeypatch, change):
    path = tmp_path / "hosts"
    monkeypatch.setattr("time.time_ns", lambda: 1 << 62)
    if change != "back":
        path.write_bytes(b"one")
    watched = WatchedFile(str(path), Reads())
    assert watched.read() == (b"" if change == "back" else b"one")
    if change == "gone":
        path.unlink()
    elif change == "replaced":
        other = tmp_path / "other"
        other.write_bytes(b"two")
        os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
        other.replace(path)
    else:
        path.write_bytes(b"more")
    assert watched.read() == {"rewritten": b"more", "replaced": b"two", "gone": b"", "back": b"more"}[change]


def test_what_is_no_file_counts_as_empty(tmp_path):
    (tmp_path / "folder").mkdir()
    assert WatchedFile(str(tmp_path / "folder"), Reads()).read() == b""
    assert WatchedFile(str(tmp_path / "nothing"), Reads()).read() == b""


def test_a_shortage_of_descriptors_is_told(tmp_path):
    path = tmp_path / "hosts"
    path.write_bytes(b"one")
    watched = WatchedFile(str(path), Reads())
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(OSError, match="open files") as caught:
            watched.read()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert caught.value.errno == errno.EMFILE
    assert watched.read() == b"one"


def test_the_policy_table_is_that_of_gai_conf(tmp_path, monkeypatch):
    etc = Etc(tmp_path, monkeypatch)
    assert system_files.policy_table() is DEFAULT_POLICY_TABLE
    etc.write(gai="precedence ::ffff:0:0/96 100\n")
    assert system_files.policy_table().lookup(as_integer("192.0.2.1")).precedence == 100
    monkeypatch.setattr(system_files, "_GNU", False)
    assert system_files.policy_table() is DEFAULT_POLICY_TABLE


def test_a_shortage_of_descriptors_only_costs_the_order(tmp_path, monkeypatch):
    etc = Etc(tmp_path, monkeypatch)
    etc.write(gai="precedence ::ffff:0:0/96 100\n")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        assert system_files.policy_table() is DEFAULT_POLICY_TABLE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("answer", [None, "", ValueError(), OSError()])
def test_another_c_library_is_not_gnus(monkeypatch, answer):
    def confstr(_name):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(os, "confstr", confstr)
    assert not system_files._is_gnu()
    monkeypatch.delattr(os, "confstr")
    assert not system_files._is_gnu()
