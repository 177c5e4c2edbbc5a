"""The files in /etc that say how names are found, under a test's control."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trio_connect._net.names import system_files

PARSERS: Mapping[str, Any] = {
    "_HOSTS": "hosts",
    "_NSSWITCH": "nsswitch.conf",
    "_RESOLV": "resolv.conf",
    "_NAME_SERVERS": "resolv.conf",
    "_GAI": "gai.conf",
}


class Etc:
    """A folder that stands for /etc; files that are not there count as missing. The C library's rules are GNU's."""

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.folder = folder
        for attribute, name in PARSERS.items():
            real = getattr(system_files, attribute)
            watched = system_files.WatchedFile[Any](str(folder / name), real._parse)
            monkeypatch.setattr(system_files, attribute, watched)
        monkeypatch.setattr(system_files, "_GNU", True)
        monkeypatch.setattr("socket.gethostname", lambda: "testhost")
        for variable in ("LOCALDOMAIN", "RES_OPTIONS"):
            monkeypatch.delenv(variable, raising=False)

    def write(self, **files: str) -> None:
        """Write files, by their names without suffix."""
        for name, text in files.items():
            path = self.folder / (name if name == "hosts" else f"{name}.conf")
            path.write_text(text, encoding="utf-8")
