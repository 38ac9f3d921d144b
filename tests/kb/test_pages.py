"""Pages: front matter with line-true errors, sections by anchor, sources at the end, the shipped pages whole."""

import shutil

import pytest

from kb.pages import KB_DIR, LANGS, PageError, page, pages, read

TEXT = """\
---
title: A page
topic: methods
updated: 2026-11-20
sources: [trl, peft]
related: []
---

Opening words.

## First {#first}

A claim[^peft] and another[^trl], and the first again[^peft].
<!-- facts: methods -->
| a | b |
<!-- /facts -->

### Deeper

Still first.

```sh
# not a heading {#no}
```

## Second part {#second}
Last words.
"""
ANCHORS = {
    "models/choosing": "by-task by-memory by-language licences starter-model reasoning-models outdated-names",
    "methods/choosing": "decision-table supervised preference unpaired-feedback verifiable-rewards "
    "continued-pretraining distillation classification-head peft-or-full experimental",
    "methods/sft": "when data-format loss-masking learning-rate epochs batch-size warmup-and-schedule max-length "
    "packing regularisation pitfalls",
    "methods/lora": "how-it-works rank alpha target-modules dropout learning-rate trainable-parameters speed variants when-full",
    "methods/qlora": "how-it-works settings memory speed moe-experts merging often-said",
    "methods/dpo": "when data beta learning-rate reference-model with-sft batch-and-epochs pitfalls",
    "methods/orpo": "when lambda learning-rate experimental simpo",
    "datasets/preparation": "formats how-much cleaning splitting leakage chat-template synthetic",
    "guides/evaluation-and-metrics": "baselines metrics-by-task macro-f1 perplexity generation-metrics test-set "
    "confidence parity-after-export",
    "troubleshooting/overfitting": "signs causes remedies early-stopping small-data",
    "troubleshooting/class-imbalance": "signs metrics remedies sampling weights thresholds",
    "guides/prompt-rag-or-finetune": "decision-tree prompt-first rag finetune both too-little-data costs sensitive-data",
}


@pytest.fixture
def kb(tmp_path):
    """A knowledge base with the shipped tables and one page pair."""
    root = tmp_path / "kb"
    shutil.copytree(KB_DIR / "facts", root / "facts")
    (root / "pages" / "methods").mkdir(parents=True)
    for lang in LANGS:
        (root / "pages" / "methods" / f"one.{lang}.md").write_text(TEXT, encoding="utf-8")
    return root


def write(kb, text: str, name: str = "methods/one.en.md"):
    path = kb / "pages" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_sections_start_at_anchored_headings_and_know_their_line(kb):
    sections = page("methods/one", "en", kb).sections()
    assert [one.anchor for one in sections] == ["", "first", "second", "sources"]
    lines = TEXT.split("\n")
    for section in sections[1:3]:
        assert lines[section.line - 1] == f"## {section.heading} {{#{section.anchor}}}"
        assert section.level == 2
    assert sections[0].text == "Opening words."
    assert "### Deeper\n\nStill first." in sections[1].text
    assert "# not a heading" in sections[1].text
    assert sections[2].text == "Last words."


def test_comments_are_blanked_and_rendered_tables_and_references_stay(kb):
    body = page("methods/one", "en", kb).body
    assert "<!--" not in body
    assert "| a | b |" in body
    assert "another[^trl]" in body


@pytest.mark.parametrize(("lang", "heading"), [("en", "Sources"), ("zh-TW", "資料來源")])
def test_the_sources_used_are_listed_last_in_the_order_of_use(kb, lang, heading):
    last = page("methods/one", lang, kb).sections()[-1]
    assert (last.anchor, last.heading) == ("sources", heading)
    first, second = last.text.split("\n")
    assert (
        first.startswith("- [^peft] [PEFT 0.21.2") and "https://github.com/huggingface/peft), 2026-" in first
    )
    assert second.startswith("- [^trl] ")


def test_pages_are_filtered_by_language(kb):
    assert [(one.id, one.lang) for one in pages(root=kb)] == [("methods/one", "en"), ("methods/one", "zh-TW")]
    assert [one.lang for one in pages("zh-TW", kb)] == ["zh-TW"]


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("title: A page\n", "", 2, "title is missing"),
        ("title: A page", "title: [A]", 2, "title must be text"),
        ("updated: 2026-11-20", "updated: soon", 4, "updated must be a date"),
        ("sources: [trl, peft]", "sources: trl", 5, "sources must be a list"),
        ("sources: [trl, peft]", "sources:\n- trl\n- nobody", 7, "unknown source 'nobody'"),
        ("related: []", "relatd: []", 6, "unknown key 'relatd'"),
        ("topic: methods", "topic: guides", 3, "topic 'guides', but the folder is 'methods'"),
        ("updated: 2026-11-20", "updated: 2026: 11", 4, "not valid YAML"),
        ("---\ntitle", "title", 1, "no front matter"),
        ("related: []\n---", "related: []", 1, "no front matter"),
    ],
)
def test_a_fault_in_the_front_matter_is_told_with_its_line(kb, old, new, line, what):
    path = write(kb, TEXT.replace(old, new, 1))
    with pytest.raises(PageError) as caught:
        read(path, kb)
    file, found, message = str(caught.value).split(":", 2)
    assert file == "kb/pages/methods/one.en.md"
    assert what in message
    assert int(found) == line


@pytest.mark.parametrize(
    "name", ["methods/one.md", "methods/one.fr.md", "methods/deep/one.en.md", "one.en.md"]
)
def test_a_file_in_the_wrong_place_or_language_is_refused(kb, name):
    path = kb / "pages" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEXT, encoding="utf-8")
    with pytest.raises(PageError, match=r"expected pages/<topic>/<slug>\.<lang>\.md"):
        read(path, kb)


@pytest.mark.parametrize("id", ["methods/none", "../facts/models", "methods/../methods/one"])
def test_a_page_that_does_not_exist_is_told(kb, id):
    with pytest.raises(PageError, match="no such page"):
        page(id, "en", kb)


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("id", ANCHORS)
def test_every_page_that_answers_and_rules_may_cite_is_there_with_its_sections(id, lang):
    shipped = page(id, lang)
    anchors = [section.anchor for section in shipped.sections()]
    assert set(ANCHORS[id].split()) <= set(anchors)
    assert anchors[-1] == "sources" and shipped.sources
    assert all(section.text for section in shipped.sections())
