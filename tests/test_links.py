"""Every link of the pages leads somewhere: to a file, to a heading in it, to the test that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[([^\]]+)\]\(([^()\s]*)\)")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page are linked by: lower case, words joined by dashes."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> Iterator[str]:
    for text, target in LINK.findall(FENCE.sub("", page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            yield f"{target}: there is no such file"
        elif anchor and anchor not in anchors(file):
            yield f"{target}: there is no such heading"
        elif re.fullmatch(r"test_\w+", name := text.strip("`")) and f"def {name}(" not in file.read_text():
            yield f"{target}: there is no {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page: Path) -> None:
    assert list(dead_links(page)) == []


def test_dead_links_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "test_there.py").write_text("def test_here(): ...\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading, `of` many\n\n[a](#one-heading-of-many) [test_here](test_there.py) [web](https://example.org)\n"
        "[b](#other) [test_gone](test_there.py) [c](nowhere.md)\n\n```\n[d](nothing)\n```\n"
    )
    assert list(dead_links(page)) == [
        "#other: there is no such heading",
        "test_there.py: there is no test_gone",
        "nowhere.md: there is no such file",
    ]
