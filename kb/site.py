"""The pages as a static site: Markdown in the shape that mkdocs-material and its i18n plugin read.

`tunesmith kb site OUT` writes OUT/mkdocs.yml and OUT/docs, and builds OUT/site where mkdocs is installed
(pip install 'tunesmith[site]'). Pure but for the files it writes.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path

import yaml

from kb.facts import Source
from kb.pages import FOOTNOTE, KB_DIR, LANGS, LINK, Page, pages

# Topics in reading order → their name in each language.
TOPICS = {
    "guides": {"en": "Guides", "zh-TW": "指南"},
    "methods": {"en": "Methods", "zh-TW": "方法"},
    "models": {"en": "Models", "zh-TW": "模型"},
    "tasks": {"en": "Tasks", "zh-TW": "任務"},
    "datasets": {"en": "Data", "zh-TW": "資料"},
    "troubleshooting": {"en": "Troubleshooting", "zh-TW": "疑難排解"},
    "architectures": {"en": "Architectures", "zh-TW": "模型架構"},
}
EXCERPT = re.compile(r"^(```\w+) .*$", re.MULTILINE)  # mkdocs takes one word after a fence
TITLE = {"en": "Fine-tuning language models", "zh-TW": "語言模型微調"}


def write(out: Path, root: Path = KB_DIR) -> Path:
    """Write docs and mkdocs.yml under `out`; returns the path of mkdocs.yml."""
    docs = out / "docs"
    shelf: dict[str, dict[str, list[Page]]] = {lang: {topic: [] for topic in TOPICS} for lang in LANGS}
    for page in pages(root=root):
        shelf[page.lang][page.topic].append(page)
        target = docs / page.topic / page.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"# {page.title}\n\n{body(page)}", encoding="utf-8")
    for lang in LANGS:
        (docs / f"index.{lang}.md").write_text(front(lang, shelf[lang]), encoding="utf-8")
    config = out / "mkdocs.yml"
    config.write_text(
        yaml.safe_dump(settings(shelf["en"]), allow_unicode=True, sort_keys=False), encoding="utf-8"
    )
    return config


def body(page: Page) -> str:
    """The page's Markdown with footnotes as mkdocs defines them and links as paths between files."""
    text = page.body[: page.body.rfind("\n## ")] if page.body.rstrip().count("{#sources}") else page.body

    def relative(found: re.Match[str]) -> str:
        id, mark, anchor = found[2].partition("#")
        if found[2].startswith("http") or not id:
            return found[0]
        return f"{found[1]}({os.path.relpath(f'{id}.md', page.topic)}{mark}{anchor})"

    text = EXCERPT.sub(r"\1", LINK.sub(relative, text))
    used = set(FOOTNOTE.findall(text))
    notes = [f"[^{one.key}]: {address(one)}, {one.date}" for one in page.sources if one.key in used]
    return text.rstrip() + "\n\n" + "\n".join(notes) + "\n"


def address(source: Source) -> str:
    """A link; a measurement of our own is named by its script instead."""
    web = source.url.startswith("http")
    return f"[{source.name}]({source.url})" if web else f"{source.name}, `{source.url}`"


def front(lang: str, shelf: dict[str, list[Page]]) -> str:
    lines = [f"# {TITLE[lang]}", ""]
    for topic, names in TOPICS.items():
        lines += [f"## {names[lang]}", ""]
        lines += [f"- [{page.title}]({page.id}.md)" for page in shelf[topic]] + [""]
    return "\n".join(lines)


def settings(shelf: dict[str, list[Page]]) -> dict:
    """mkdocs.yml: the navigation names files without their language, which the plugin fills in."""
    return {
        "site_name": "Tunesmith",
        "docs_dir": "docs",
        "site_dir": "site",
        "theme": {
            "name": "material",
            "font": False,  # no font from another server
            "features": ["navigation.tabs", "navigation.indexes", "toc.follow", "search.highlight"],
        },
        "nav": [{"Home": "index.md"}]
        + [{TOPICS[topic]["en"]: [f"{page.id}.md" for page in shelf[topic]]} for topic in TOPICS],
        "markdown_extensions": [
            "attr_list",
            "footnotes",
            "tables",
            "fenced_code",
            {"toc": {"permalink": True}},
        ],
        "plugins": [
            "search",
            {
                "i18n": {
                    "docs_structure": "suffix",
                    "languages": [
                        {"locale": "en", "default": True, "name": "English", "build": True},
                        {
                            "locale": "zh-TW",
                            "name": "繁體中文",
                            "build": True,
                            "nav_translations": {names["en"]: names["zh-TW"] for names in TOPICS.values()}
                            | {"Home": "首頁"},
                        },
                    ],
                }
            },
        ],
    }
