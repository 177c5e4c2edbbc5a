"""Which files belong to the project, and which a test or an example has left behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

# By the first folder of a path, "" for none. PKG-INFO is in a source distribution.
KINDS: Final = {
    "": {".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO",
         "README.md", "SECURITY.md", "mkdocs.yml", "pyproject.toml"},
    ".ci": {"run"},
    ".github": {".yml"},
    "benchmarks": {".c", ".py"},
    "docs": {".md", ".py", ".svg"},
    "examples": {".py"},
    "src": {".json", ".py", ".typed"},
    "tests": {".md", ".py", "authority.pem"},
    "tools": {".py", ".toml"},
}  # fmt: skip


def known_to_git() -> list[str] | None:
    """What git tracks or would, as paths from the root; None without git, or outside a repository."""
    git = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(git, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def our_files() -> list[Path]:
    """What git tracks or would; without git, what does not look like a by-product."""
    names = known_to_git()
    if names is None:
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        names = [str(p) for p in paths if not p.parts[0].startswith(".") and "__pycache__" not in p.parts]
    return [path for name in names if (path := ROOT / name).is_file()]


def strays(names: Iterable[str]) -> list[str]:
    """Those that are no kind of file that their folder has."""
    return [name for name in names if not _belongs(Path(name))]


def _belongs(path: Path) -> bool:
    kinds = KINDS.get(path.parts[0] if len(path.parts) > 1 else "", set())
    return path.name in kinds or (path.suffix in kinds and len(path.parts) > 1)
