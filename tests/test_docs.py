"""Every Python block of README.md and docs/ runs, so what a reader copies works. The rules are in docs_page.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_page import Block, blocks, compile_block

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]


def run_page(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a page in a folder that takes what the page writes, into the working directory or the temporary one."""
    # -X dev and -W error: a page must not leak a socket either.
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.docs_page", str(page)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("page", PAGES)
def test_page_runs(page, tmp_path):
    found = list(blocks((ROOT / page).read_text(encoding="utf-8")))
    if all(block.skipped_because is not None for block in found):
        # Nothing of it runs, so it needs no process of its own.
        for block in found:
            compile_block(block, page)
        return
    result = run_page(ROOT / page, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_the_first_pages_have_something_to_run():
    for page in ("README.md", "docs/tutorial/quickstart.md"):
        assert any(b.skipped_because is None for b in blocks((ROOT / page).read_text())), page


# --- the runner itself ------------------------------------------------------------------------------------------------


def test_blocks_share_a_namespace_in_order_and_may_await(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nimport trio\nseen = [1]\n```\n\ntext\n\n"
        "```python\nawait trio.lowlevel.checkpoint()\nseen.append(2)\n```\n"
        "```sh\nexit 1\n```\n"
        "~~~python\nimport attrs\n\n@attrs.frozen\nclass A: ...\n\nprint(seen, A.__module__)\n~~~\n"
    )
    result = run_page(page, tmp_path)
    assert (result.stdout, result.stderr) == ("[1, 2] __main__\n", "")


def test_a_failing_block_names_its_line_of_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\nfine = 1\n1 / 0\n```\n")
    result = run_page(page, tmp_path)
    assert result.returncode != 0
    assert f'File "{page}", line 5' in result.stderr


def test_a_leak_fails_the_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nimport socket\nsocket.socket()\n```\n")
    assert "ResourceWarning" in run_page(page, tmp_path).stderr


def test_no_run_is_compiled_only(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python no-run: needs a server\n1 / 0\n```\n")
    assert run_page(page, tmp_path).returncode == 0
    (block,) = blocks(page.read_text())
    assert block == Block(2, "1 / 0\n", "needs a server")
    page.write_text("```python no-run: needs a server\n1 /\n```\n")
    assert "SyntaxError" in run_page(page, tmp_path).stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```py\n```", "say ```python, not ```py"),
        ("```Python\n```", "say ```python, not ```Python"),
        ("```{python}\n```", "say ```python"),
        ("```python no-run\n```", "no-run: REASON"),
        ("```python no-run: \n```", "no-run: REASON"),
        ("```python skip: why\n```", "no-run: REASON"),
        ("text\n```python\nx = 1\n", "line 2: this fence is never closed"),
    ],
)
def test_a_fence_that_would_silently_not_run_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        list(blocks(text))


def test_indented_and_nested_fences():
    text = "- item\n\n  ```python\n  if 1:\n      x = 1\n  ```\n\n````text\n```python\n1 / 0\n```\n````\n"
    (block,) = blocks(text)
    assert block == Block(4, "if 1:\n    x = 1\n")
    assert compile_block(block, "page").co_filename == "page"
