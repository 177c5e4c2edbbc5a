"""What `make docs` builds, as far as it needs no tool of the docs group: the plan of the reference, and its checker."""

from __future__ import annotations

import importlib
import pkgutil
import re
import runpy
from pathlib import Path

import pytest

import trio_connect

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
site = runpy.run_path(str(ROOT / "tools" / "docs_site.py"))
check = runpy.run_path(str(ROOT / "tools" / "docs_check.py"))
# What a module lists is read from its source, so that an adapter needs nothing installed to be documented.
OPTIONAL = ("trio_connect.adapters", "trio_connect.cli")


def public_modules() -> list[str]:
    found = (module.name for module in pkgutil.walk_packages(trio_connect.__path__, "trio_connect."))
    return ["trio_connect", *(name for name in found if "._" not in name and not name.startswith(OPTIONAL))]


def test_every_public_name_is_planned_exactly_once():
    planned = {module: sorted(names) for module, names in site["public_names"]().items()}
    listed = {
        module: sorted(names)
        for module in public_modules()
        if (names := getattr(importlib.import_module(module), "__all__", ()))
    }
    assert {module: names for module, names in planned.items() if not module.startswith(OPTIONAL)} == listed
    assert all(len(set(names)) == len(names) for names in planned.values())
    assert {"trio_connect", "trio_connect.queues", "trio_connect.testing", "trio_connect.libdill"} <= set(planned)


@pytest.mark.parametrize("folder", sorted({path.parent.name for path in DOCS.rglob("*.md")} - {"docs"}))
def test_every_folder_of_pages_is_a_section(folder):
    assert folder in site["SECTIONS"]


def test_the_index_links_to_every_page():
    linked = {
        (DOCS / target.partition("#")[0]).resolve() for target in site["targets"]((DOCS / "index.md").read_text())
    }
    missing = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md") if path.resolve() not in linked]
    assert missing == ["index.md"]


def test_links_out_of_docs_lead_to_the_copies_in_the_site():
    text = "[a](../../tests/test_docs.py) [b](../../CHANGELOG.md#top) [c](streams.md#ends) [d](https://example.org)"
    assert site["relinked"](text, DOCS / "how-to", "how-to/x.md") == (
        "[a](../source/tests/test_docs.py.txt) [b](../project/changelog.md#top) [c](streams.md#ends)"
        " [d](https://example.org)"
    )
    assert site["relinked"]("[a](docs/index.md) [b](#f)", ROOT, "project/x.md") == "[a](../index.md) [b](#f)"


def test_names_in_docstrings_link_to_their_entries():
    names = {"trio_connect": ["now", "connect"], "trio_connect.libdill": ["now"]}
    text = "<code>now</code> <code>connect()</code> <code>other</code> <code>a.now</code>"
    assert site["linked_names"](text, "trio_connect.libdill", names) == (
        '<a href="#trio_connect.libdill.now"><code>now</code></a>'
        ' <a href="trio_connect.html#trio_connect.connect"><code>connect()</code></a>'
        " <code>other</code> <code>a.now</code>"
    )


# --- the checker of the built site ------------------------------------------------------------------------------------

PAGE = '<h1 id="top">x</h1> <a href="other.html#there">y</a> <a href="#top">z</a> <link rel="stylesheet" href="s.css">'


def build(folder: Path, page: str) -> Path:
    (folder / "index.html").write_text(page)
    (folder / "other.html").write_text('<h2 id="there"></h2> <h2 id="m.name"></h2> <a href="https://example.org">w</a>')
    (folder / "s.css").write_text("")
    return folder


def test_a_good_site_has_no_faults(tmp_path):
    assert list(check["faults"](build(tmp_path, PAGE), {"m": ["name"]})) == []


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ('<a href="gone.html">', "index.html: gone.html: there is no such file"),
        ('<a href="other.html#gone">', "index.html: other.html#gone: there is no such anchor"),
        ('<a href="#gone">', "index.html: #gone: there is no such anchor"),
        ('<img src="gone.png">', "index.html: gone.png: there is no such file"),
        ('<script src="https://example.org/x.js">', "index.html: loads https://example.org/x.js"),
        ('<h2 id="m.name"></h2>', "reference: m.name has 2 entries"),
        ("<p>```python no-run: why\ncode</p><p>```</p>", "index.html: blocks of code that are shown as text: 2"),
    ],
)
def test_a_fault_is_seen(tmp_path, more, fault):
    assert list(check["faults"](build(tmp_path, PAGE + more), {"m": ["name"]})) == [fault]


def test_a_name_without_an_entry_is_seen(tmp_path):
    found = list(check["faults"](build(tmp_path, PAGE), {"m": ["name", "other"]}))
    assert found == ["reference: m.other has 0 entries"]


# --- the door for contributors ----------------------------------------------------------------------------------------

GUIDES = ["CONTRIBUTING.md", "SECURITY.md", "docs/project/releasing.md", "docs/explanation/architecture.md"]
# A path in backticks is one of the repository, or of a folder of the package, whose heading stands above it.
PACKAGE = ROOT / "src" / "trio_connect"
ROOTS = (ROOT, *(path.parent for path in sorted(PACKAGE.rglob("__init__.py"))))


@pytest.mark.parametrize("guide", GUIDES)
def test_guides_name_files_that_exist(guide):
    text = (ROOT / guide).read_text()
    paths = re.findall(r"`([\w./-]+(?:\.py|\.toml|\.md|\.yml|/))`", text)
    missing = [path for path in paths if not any((root / path).exists() for root in ROOTS)]
    assert missing == [], f"name what is there now in {guide}"


@pytest.mark.parametrize("guide", GUIDES)
def test_guides_name_targets_that_exist(guide):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z][\w-]+)", "\n".join(code_of((ROOT / guide).read_text())))) <= targets


def test_contributing_names_tables_that_exist():
    sources = "".join(path.read_text() for folder in ("src", "tests", "docs") for path in (ROOT / folder).rglob("*.py"))
    tables = set(re.findall(r"`(_?[A-Z][A-Z_]+[A-Z])`", (ROOT / "CONTRIBUTING.md").read_text()))
    assert {"DOORS", "LINES", "NOT_EMITTED"} <= tables
    assert [name for name in sorted(tables) if not re.search(rf"^{name}\b", sources, re.MULTILINE)] == []


def code_of(text: str) -> list[str]:
    return [*re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL), *re.findall(r"`([^`\n]+)`", text)]


def test_the_hosted_workflow_runs_ci_on_the_supported_pythons():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    supported = runpy.run_path(str(ROOT / "tools" / "pythons.py"))["supported"]()
    assert sorted(re.findall(r"^ +(3\.\d+)$", workflow, re.MULTILINE)) == sorted(supported)
    assert "bash .ci/run" in workflow


def test_the_hooks_are_targets_and_no_host_is_named():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"entry: make --silent (\S+)", hooks)) <= targets
    assert re.findall(r"repo: (\S+)", hooks) == ["local"]
