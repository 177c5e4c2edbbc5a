# ruff: noqa: INP001, T201
"""Check the site that mkdocs built, as a browser sees it: ``python tools/docs_check.py site``.

mkdocs checks what the Markdown says. This looks at what came of it: each link of each page leads to a file and to an
anchor in it, each public name has its entry exactly once, blocks of code are shown as such, and no page loads anything
from another host.
"""

from __future__ import annotations

import runpy
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself, and the attribute that names it.
LOADED: Final = {"script": "src", "img": "src", "iframe": "src", "link": "href"}


class Page(HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: Counter[str] = Counter()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.fences = 0
        self._code = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        self._code += tag in ("code", "pre")
        found = {name: value for name, value in attrs if value is not None}
        if "id" in found:
            self.anchors[found["id"]] += 1
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if (target := found.get(LOADED.get(tag, ""))) is not None and found.get("rel") != "canonical":
            self.loaded.append(target)

    def handle_endtag(self, tag: str) -> None:
        """Note the end of one."""
        self._code -= tag in ("code", "pre")

    def handle_data(self, data: str) -> None:
        """Note a fence that was taken for text."""
        self.fences += not self._code and data.lstrip().startswith("```")


def faults(site: Path, names: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Yield what is wrong with a site whose reference is to have these names of these modules."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site)
        # 404.html is shown at any address, so its links are written from the root of a server.
        if where.as_posix() != "404.html":
            yield from (f"{where}: {fault}" for fault in _dead(path, pages, [*page.links, *page.loaded]))
        if page.fences:
            yield f"{where}: blocks of code that are shown as text: {page.fences}"
        yield from (f"{where}: loads {url}" for url in page.loaded if urlsplit(url).netloc)
    anchors = sum((page.anchors for page in pages.values()), Counter[str]())
    for module, listed in names.items():
        for name in listed:
            if (times := anchors[f"{module}.{name}"]) != 1:
                yield f"reference: {module}.{name} has {times} entries"


def _dead(path: Path, pages: Mapping[Path, Page], targets: Iterable[str]) -> Iterator[str]:
    for target in targets:
        url = urlsplit(target)
        if url.scheme or url.netloc:
            continue
        file = (path.parent / unquote(url.path)).resolve() if url.path else path
        if file.is_dir():
            file /= "index.html"
        if not file.is_file():
            yield f"{target}: there is no such file"
        elif url.fragment and file in pages and unquote(url.fragment) not in pages[file].anchors:
            yield f"{target}: there is no such anchor"


if __name__ == "__main__":
    public = runpy.run_path(str(Path(__file__).with_name("docs_site.py")))["public_names"]()
    found = list(faults(Path(sys.argv[1]).resolve(), public))
    print(*found, sep="\n", end="\n" if found else "")
    print(f"{sum(map(len, public.values()))} public names on the reference, {len(found)} faults")
    sys.exit(bool(found))
