"""The static site: every page in both languages, built by mkdocs without a warning."""

import subprocess
import sys

import pytest

from kb.pages import LANGS, pages
from kb.site import body, write


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    write(out)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(out / "mkdocs.yml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out, done.stderr


def test_it_builds_without_a_warning_and_holds_every_page(built):
    out, said = built
    assert "WARNING -" not in said
    for lang in LANGS:
        folder = out / "site" / ("" if lang == "en" else lang)
        for one in pages(lang):
            html = (folder / one.id / "index.html").read_text(encoding="utf-8")
            assert all(
                f'id="{section.anchor}"' in html
                for section in one.sections()
                if section.anchor not in ("", "sources")
            )


def test_footnotes_become_the_sites_own_and_links_lead_to_files():
    lora = next(one for one in pages("en") if one.id == "methods/lora")
    text = body(lora)
    assert "\n[^peft]: [PEFT" in text and "{#sources}" not in text


def test_nothing_is_fetched_from_elsewhere(built):
    html = (built[0] / "site" / "methods" / "lora" / "index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis" not in html and 'src="http' not in html
