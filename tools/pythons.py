# ruff: noqa: INP001, S603, T201
"""Where this machine has the Pythons that trio-connect supports: one line for each, its version and its path.

    3.11.7 /usr/local/bin/python3.11
    3.11.2 /usr/bin/python3.11
    3.14 -

A dash: this machine has none. Of one version there may be two: the one that comes first on this machine, and that of
the distribution, which many people have and which is often an older release. Rejected: every release that is there,
which takes minutes for each and finds what the oldest finds.

The versions are the classifiers of pyproject.toml. It looks on PATH and where version managers put theirs (pyenv, uv,
asdf, mise, hosted runners), and asks each interpreter for its release, because what a version manager leaves on PATH
may be a name without an interpreter.

Usage:
    python tools/pythons.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent


def supported() -> list[str]:
    """Return the versions that the package promises, lowest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = re.findall(r'"Programming Language :: Python :: (\d+\.\d+)"', text)
    return sorted(found, key=lambda version: tuple(map(int, version.split("."))))


def candidates(version: str) -> Iterator[str]:
    """Yield where an interpreter of this version may be, the likeliest first."""
    yield sys.executable
    on_path = shutil.which(f"python{version}")
    if on_path is not None:
        yield on_path
    home = Path.home()
    folders = [
        (Path(os.environ.get("PYENV_ROOT", home / ".pyenv")), f"versions/{version}.*/bin/python"),
        (Path(os.environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python")), f"*-{version}.*/bin/python"),
        (home / ".asdf", f"installs/python/{version}.*/bin/python"),
        (home / ".local/share/mise", f"installs/python/{version}*/bin/python"),
        (Path("/opt"), f"hostedtoolcache/Python/{version}.*/x64/bin/python"),
        (Path("/opt"), f"python*/bin/python{version}"),
        (Path("/opt"), f"python/*/bin/python{version}"),
    ]
    for folder, pattern in folders:
        # The newest patch release first, where the names say it.
        yield from sorted(map(str, folder.glob(pattern)), key=_numbers, reverse=True)


def _numbers(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]


def release(path: str) -> str | None:
    """Return the release of an interpreter, like "3.11.2"; None if it does not run or can make no environment."""
    code = "import ssl, sys, venv; print('%d.%d.%d' % sys.version_info[:3])"
    try:
        # -I: neither PYTHON* variables nor the folder that this runs in decide what it imports.
        result = subprocess.run([path, "-I", "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def find(version: str) -> dict[str, str]:
    """Return the paths of this version's interpreters by their releases: the likeliest, and the distribution's own."""
    prefix = version + "."
    found: dict[str, str] = {}
    for path in candidates(version):
        if (its_release := release(path)) is not None and its_release.startswith(prefix):
            found[its_release] = path
            break
    distributions = f"/usr/bin/python{version}"
    if (its_release := release(distributions)) is not None and its_release.startswith(prefix):
        found.setdefault(its_release, distributions)
    return found


if __name__ == "__main__":
    for each in supported():
        for its_release, path in find(each).items() or [(each, "-")]:
            print(its_release, path)
