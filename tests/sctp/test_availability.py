"""What is said where SCTP cannot be used: which of kernel, module and permission is missing, and what mends it."""

from __future__ import annotations

import errno
import os
import platform
import socket
import sys
from pathlib import Path
from typing import Any, Self

import pytest

from trio_connect import sctp
from trio_connect.sctp import _availability


class Refused:
    """socket.socket, of which a step fails."""

    def __init__(self, step: str, code: int) -> None:
        self.step, self.code = step, code

    def __call__(self, *_: int) -> Refused:
        return self.at("socket")

    def at(self, step: str) -> Refused:
        if step == self.step:
            raise OSError(self.code, os.strerror(self.code))
        return self

    def bind(self, _: object) -> None:
        self.at("bind")

    def listen(self, _: int) -> None:
        self.at("listen")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def failing(patch: pytest.MonkeyPatch, step: str, code: int) -> str:
    patch.setattr(socket, "socket", Refused(step, code))
    found = sctp.availability()
    assert not found
    return found.reason


def modules(patch: pytest.MonkeyPatch, folder: Path, text: str | None) -> None:
    """Have the kernel's modules be those of a modules.dep; None for no folder at all."""
    patch.setattr(platform, "release", lambda: "6.1.0-test")
    places: dict[str, Any] = {"/lib/modules/6.1.0-test": folder / "modules", "/proc/net/sctp": folder / "nothing"}
    if text is not None:
        (folder / "modules").mkdir()
        (folder / "modules" / "modules.dep").write_text(text)

    def place(path: Any) -> Any:
        return places.get(str(path), path)

    real_open, real_exists, real_isdir = open, os.path.exists, os.path.isdir
    patch.setattr(os.path, "exists", lambda path: real_exists(place(path)))
    patch.setattr(os.path, "isdir", lambda path: real_isdir(place(path)))

    def opened(path: str, **options: Any) -> Any:
        return real_open(path.replace("/lib/modules/6.1.0-test", str(folder / "modules")), **options)

    patch.setattr(_availability, "open", opened, raising=False)


def test_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", Refused("nowhere", 0))
    assert sctp.availability() == sctp.Availability(ok=True)


def test_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "freebsd15")
    assert sctp.availability().reason == "only Linux's SCTP is supported, this is freebsd15"


async def test_a_socket_on_another_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "freebsd15")
    with pytest.raises(OSError, match="only Linux's SCTP is supported, this is freebsd15") as caught:
        await sctp.connectx([("192.0.2.1", 3868)])
    assert caught.value.errno == errno.EPROTONOSUPPORT


def test_the_module_is_there_and_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    modules(
        monkeypatch, tmp_path, "kernel/net/sctp/sctp_diag.ko: x\nkernel/net/sctp/sctp.ko.xz: kernel/lib/libcrc32c.ko\n"
    )
    reason = failing(monkeypatch, "socket", errno.EPROTONOSUPPORT)
    assert "the module sctp of the kernel 6.1.0-test is not loaded; load it with: modprobe sctp" in reason


@pytest.mark.parametrize("text", ["kernel/net/sctp/sctp_diag.ko: x\n", "", "kernel/fs/x.ko: kernel/net/sctp/sctp.ko\n"])
def test_the_module_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    modules(monkeypatch, tmp_path, text)
    reason = failing(monkeypatch, "socket", errno.EPROTONOSUPPORT)
    assert "was built without SCTP, and no module sctp is installed" in reason
    assert "linux-modules-extra" in reason


def test_there_are_no_modules_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    modules(monkeypatch, tmp_path, None)
    reason = failing(monkeypatch, "socket", errno.ESOCKTNOSUPPORT)
    assert "in a container, the module loaded on the host" in reason


def test_the_list_of_modules_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    modules(monkeypatch, tmp_path, "")
    (tmp_path / "modules" / "modules.dep").unlink()
    assert "no module sctp is installed" in failing(monkeypatch, "socket", errno.EPROTONOSUPPORT)


def test_sctp_is_there_and_this_family_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    modules(monkeypatch, tmp_path, "")
    (tmp_path / "nothing").mkdir()
    assert "not for this family of addresses" in failing(monkeypatch, "socket", errno.EAFNOSUPPORT)


@pytest.mark.parametrize(
    ("step", "code", "text"),
    [
        ("socket", errno.EACCES, "a policy such as SELinux or seccomp forbids it"),
        ("socket", errno.EPERM, "a policy such as SELinux or seccomp forbids it"),
        ("socket", errno.EMFILE, "no SCTP socket can be made: too many open files"),
        ("listen", errno.ENOSYS, "load the module with: modprobe hmac"),
        ("bind", errno.EADDRNOTAVAIL, "SCTP sockets cannot listen here: cannot assign requested address"),
    ],
)
def test_something_else_is_missing(monkeypatch: pytest.MonkeyPatch, step: str, code: int, text: str) -> None:
    assert text in failing(monkeypatch, step, code)
