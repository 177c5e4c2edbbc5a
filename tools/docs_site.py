# ruff: noqa: INP001
"""What `make docs` builds beside the pages of docs/: the navigation, the API reference, and what pages link to.

mkdocs calls the functions `on_...` (its hooks). The reference is derived: each public module of ``src/trio_connect``
that has public names gets a page, and each name of it gets one entry, read from the source without importing it.

Pages link to files of the repository, as to the test that holds a promise. The site has a copy of each such file as
text, below ``source/``.
"""

from __future__ import annotations

import ast
import builtins
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parent.parent
DOCS: Final = ROOT / "docs"
PACKAGE: Final = ROOT / "src" / "trio_connect"

# The order of the site. `make docs` fails on a folder that is not named here.
SECTIONS: Final = {
    "tutorial": "Tutorial",
    "how-to": "How-to",
    "explanation": "Explanation",
    "reference": "Reference",
    "evidence": "Evidence",
    "project": "Project",
}
# Pages at the root of the repository, where hosts of code look for them, and the place that each has in the site.
ROOT_PAGES: Final = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
}

_TARGET: Final = re.compile(r"(?<=\]\()[^()\s]+(?=\))")
_FENCE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


# --- the reference ----------------------------------------------------------------------------------------------------


def public_names() -> dict[str, list[str]]:
    """Return the names of each public module, ``trio_connect`` first, from the source alone."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda path: (path.parent != PACKAGE, path)):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        module = [part for part in parts if part != "__init__"]
        if not any(part.startswith("_") for part in module) and (names := _listed(path)):
            found[".".join(module)] = names
    return found


def _listed(path: Path) -> list[str]:
    """Return what a module lists in its ``__all__``, or what a package publishes of its modules as ``Name as Name``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return list(ast.literal_eval(node.value))
    # ``from . import queues as queues`` has no module: it publishes another package, which has a page of its own.
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module)
    return sorted(alias.name for node in imports for alias in node.names if alias.asname == alias.name)


def reference_page(module: str) -> str:
    """Return the Markdown of a module's page: what the module is for, then its names by kind."""
    import griffe  # not at the top: the tests read this file where nothing of the docs group is installed

    root = griffe.load("trio_connect", search_paths=[str(PACKAGE.parent)])
    kinds: dict[str, list[str]] = {"Functions": [], "Classes": [], "Exceptions": [], "Types and constants": []}
    for name in public_names()[module]:
        path = f"{module}.{name}".removeprefix("trio_connect.")
        kinds[_kind(root[path])].append(name)
    parts = [f"# {module}\n", f"::: {module}\n    options: {{members: false, show_root_heading: false}}\n"]
    for title, names in kinds.items():
        if names:
            parts += [f"## {title}\n", *(f"::: {module}.{name}\n" for name in names)]
    return "\n".join(parts)


def _kind(found: Any) -> str:
    target = found.final_target if found.is_alias else found
    if target.is_class:
        return "Exceptions" if _is_exception(target) else "Classes"
    return "Functions" if target.is_function else "Types and constants"


def _is_exception(target: Any) -> bool:
    for base in target.bases:
        name = str(base).rpartition(".")[2]
        known = getattr(builtins, name, None)
        if (isinstance(known, type) and issubclass(known, BaseException)) or name.endswith("Error"):
            return True
    return any(_is_exception(base) for base in target.resolved_bases)


# --- links to files outside docs/ -------------------------------------------------------------------------------------


def targets(text: str) -> Iterator[str]:
    """Yield what the links of a page lead to, without those in its examples."""
    yield from _TARGET.findall(_FENCE.sub("", text))


def in_repository(target: str, folder: Path) -> Path | None:
    """Return the file that a link leads to if it is one of the repository's and not a page of docs/."""
    path = target.partition("#")[0]
    if not path or re.match(r"[a-z]+:", path):
        return None
    file = (folder / path).resolve()
    return None if file.is_relative_to(DOCS) or not file.is_relative_to(ROOT) else file


def place(file: Path) -> str:
    """Return where the site has a file of the repository."""
    name = file.relative_to(ROOT).as_posix()
    # Browsers show .txt, and save what they have no name for.
    return ROOT_PAGES.get(name, f"source/{name}.txt")


def relinked(text: str, folder: Path, page: str) -> str:
    """Return a page with its links mended: `folder` is where it was written, `page` is where the site has it."""

    def mend(match: re.Match[str]) -> str:
        target = match[0]
        path, mark, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return target
        outside = in_repository(target, folder)
        uri = place(outside) if outside else (folder / path).resolve().relative_to(DOCS).as_posix()
        return os.path.relpath(uri, os.path.dirname(page) or ".") + mark + anchor

    return _TARGET.sub(mend, text)


# --- mkdocs' hooks ----------------------------------------------------------------------------------------------------


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages, by section and name; mkdocs takes each title from the page."""
    pages = [path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))]
    pages += [*(reference_uri(module) for module in public_names()), *ROOT_PAGES.values()]
    unknown = {page for page in pages if "/" in page} - {p for p in pages if p.split("/")[0] in SECTIONS}
    if unknown:
        raise ValueError(f"no section for {sorted(unknown)}: name the folder in SECTIONS of {__file__}")
    sections = [
        {title: sorted((p for p in pages if p.startswith(f"{folder}/")), key=lambda p: (not p.endswith("index.md"),))}
        for folder, title in SECTIONS.items()
    ]
    config.nav = ["index.md", *sections]
    return config


def reference_uri(module: str) -> str:
    """Return where the site has the page of a module."""
    return f"reference/{module}.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the reference, the pages of the root, and each file that a page links to."""
    from mkdocs.structure.files import File  # not at the top: see reference_page

    for module in public_names():
        files.append(File.generated(config, reference_uri(module), content=reference_page(module)))
    linked = set()
    for path in [*DOCS.rglob("*.md"), *(ROOT / name for name in ROOT_PAGES)]:
        text = path.read_text(encoding="utf-8")
        linked |= {file for target in targets(text) if (file := in_repository(target, path.parent)) is not None}
        if path.parent == ROOT:
            uri = ROOT_PAGES[path.name]
            files.append(File.generated(config, uri, content=relinked(text, ROOT, uri)))
    for file in sorted(linked):
        if file.is_file() and file.relative_to(ROOT).as_posix() not in ROOT_PAGES:
            files.append(File.generated(config, place(file), abs_src_path=str(file)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs names them
    """Turn links that leave docs/ to the copies in the site, and list the modules on the index of the reference."""
    uri = page.file.src_uri
    if uri == "reference/index.md":
        listing = "".join(f"- [`{module}`]({module}.md)\n" for module in public_names())
        return f"{relinked(markdown, DOCS / 'reference', uri)}\n{listing}"
    if page.file.generated_by is not None:
        return markdown
    return relinked(markdown, (DOCS / uri).parent, uri)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs names them
    """Turn the public names in the docstrings of a module's page into links to their entries."""
    names = public_names()
    module = page.file.src_uri.removeprefix("reference/").removesuffix(".md")
    return linked_names(html, module, names) if module in names else html


def linked_names(html: str, module: str, names: dict[str, list[str]]) -> str:
    """Return a module's page with each ``<code>name</code>`` linked, to its own module's entry where it has one."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        for candidate in (module, "trio_connect"):
            if name in names.get(candidate, ()):
                page = "" if candidate == module else f"{candidate}.html"
                return f'<a href="{page}#{candidate}.{name}">{match[0]}</a>'
        return match[0]

    return re.sub(r"<code>(\w+)(?:\(\))?</code>", link, html)
