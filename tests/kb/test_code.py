"""The Python blocks of the pages run, on a tiny model and without a network."""

import ast
import shutil
from pathlib import Path

import pytest
from code_blocks import blocks, furnish, run

from kb.pages import KB_DIR, shown

ENGLISH = [path for path in sorted((KB_DIR / "pages").rglob("*.en.md")) if blocks(path.read_text("utf-8"))]


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("furnished")
    furnish(folder)
    return folder


@pytest.mark.parametrize("page", ENGLISH, ids=lambda page: shown(page, KB_DIR))
def test_the_blocks_of_a_page_run(page, furnished, tmp_path):
    shutil.copytree(furnished, tmp_path, dirs_exist_ok=True)
    fault = run(page, tmp_path)
    assert fault is None, fault


@pytest.mark.parametrize("page", ENGLISH, ids=lambda page: shown(page, KB_DIR))
def test_both_languages_have_the_same_code(page):
    twin = Path(str(page).replace(".en.md", ".zh-TW.md"))
    english, chinese = (
        [ast.dump(ast.parse(code)) for _, code in blocks(path.read_text("utf-8"))] for path in (page, twin)
    )
    assert english == chinese


def test_a_block_that_fails_is_told_with_its_line(tmp_path):
    page = tmp_path / "x.en.md"
    page.write_text("# x\n\n```python\na = 1\nb = a / 0\n```\n", encoding="utf-8")
    assert "line 5" in run(page, tmp_path) and "ZeroDivisionError" in run(page, tmp_path)


def test_a_block_of_another_project_is_not_run(tmp_path):
    assert blocks("```python excerpt vllm-0.31\nimport vllm\n```\n```python\nx = 1\n```\n") == [
        (4, "x = 1\n")
    ]
