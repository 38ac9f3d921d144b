"""The knowledge base to read: tree, page with its table of contents, search. HTML made here, fetched by the page.

Served beside the Gradio apps, so that turning a page costs no event; the address keeps what is open.
"""

from __future__ import annotations

import re
from functools import lru_cache
from html import escape
from typing import Any

from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse

from kb import pages as kb_pages
from kb.pages import FOOTNOTE, LANGS, Page, PageError
from kb.site import TOPICS
from ui import i18n
from ui.context import Context
from ui.render import note, sources

ANCHOR = re.compile(r"^(#{2,6}\s+.+?)\s*\{#([a-z0-9-]+)\}\s*$", re.MULTILINE)
HITS = 8


def routes(app: FastAPI, context: Context) -> None:
    """/library/LANG/TOPIC/SLUG, a page; /library/LANG?q=, what a search finds."""

    @app.get("/library/{lang}/{topic}/{slug}", response_class=HTMLResponse)
    def read(lang: str, topic: str, slug: str) -> HTMLResponse:
        lang = lang if lang in LANGS else "en"
        t = i18n.translator(lang)
        try:
            return HTMLResponse(page(kb_pages.page(f"{topic}/{slug}", lang), t))
        except PageError:
            return HTMLResponse(note(t("library.no_page", id=escape(f"{topic}/{slug}"))), status_code=404)

    @app.get("/library/{lang}", response_class=HTMLResponse)
    def find(lang: str, q: str = Query("", max_length=400)) -> HTMLResponse:
        lang = lang if lang in LANGS else "en"
        return HTMLResponse(found(context, q, lang, i18n.translator(lang)))


@lru_cache(maxsize=len(LANGS))
def tree(lang: str) -> str:
    """All pages by topic, as links."""
    shelf: dict[str, list[Page]] = {topic: [] for topic in TOPICS}
    for one in kb_pages.pages(lang):
        shelf[one.topic].append(one)
    parts = []
    for topic, names in TOPICS.items():
        links = "".join(f"<li>{_to(one.id, one.title)}</li>" for one in shelf[topic])
        parts.append(
            f"<details data-topic={topic}><summary>{escape(names[lang])}</summary><ul>{links}</ul></details>"
        )
    return f'<nav class="tree">{"".join(parts)}</nav>'


def page(one: Page, t: i18n.Translate) -> str:
    """A page with its table of contents, its footnotes as links to its sources, and "ask about this page"."""
    sections = [section for section in one.sections() if section.level == 2 and section.anchor]
    contents = "".join(f'<li><a href="#kb-{s.anchor}">{escape(s.heading)}</a></li>' for s in sections)
    related = " · ".join(_to(id, _title(id, one.lang)) for id in one.related)
    asked = t("library.ask_about", title=one.title)
    return (
        f'<article data-id="{one.id}"><header><h2>{escape(one.title)}</h2>'
        f'<button class="ask-page" data-question="{escape(asked)}">{t("library.ask")}</button></header>'
        f'<p class="note">{t("library.updated", date=one.updated)}</p><details class="contents" open>'
        f"<summary>{t('library.contents')}</summary><ol>{contents}</ol></details>{_body(one)}"
        + (f'<p class="related">{t("library.related")}: {related}</p>' if related else "")
        + "</article>"
    )


def _body(one: Page) -> str:
    """Markdown of the page as HTML. Links lead to pages here or to http(s) addresses, and nowhere else."""
    numbers = {key: n for n, key in enumerate(dict.fromkeys(FOOTNOTE.findall(one.body)), 1)}
    cut = one.body.find(f"\n## {kb_pages.SOURCES_HEADING[one.lang]} {{#sources}}")
    text = one.body[:cut] if cut >= 0 else one.body
    html = _markdown().render(ANCHOR.sub(r"\1 KBANCHOR\2ENDANCHOR", text))
    html = re.sub(
        r"<h(\d)>(.*?) ?KBANCHOR([a-z0-9-]+)ENDANCHOR</h\1>",
        r'<h\1 id="kb-\3">\2</h\1>',
        html,
        flags=re.DOTALL,
    )
    html = FOOTNOTE.sub(
        lambda found: f'<a class="cite" href="#kb-source-{found[1]}">{numbers[found[1]]}</a>', html
    )
    listed = "".join(
        f'<li id="kb-source-{source.key}">{sources([{"name": source.name, "url": source.url, "date": str(source.date)}])}</li>'
        for source in sorted((s for s in one.sources if s.key in numbers), key=lambda s: numbers[s.key])
    )
    return html + (
        f'<h2 id="kb-sources">{kb_pages.SOURCES_HEADING[one.lang]}</h2><ol>{listed}</ol>' if listed else ""
    )


@lru_cache(maxsize=1)
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).disable(["image", "reference"]).enable("table")

    def opened(self, tokens, index, options, env):
        target = tokens[index].attrGet("href") or ""
        if target.startswith(("http://", "https://")):
            return f'<a href="{escape(target)}" target="_blank" rel="noopener noreferrer">'
        id, _, anchor = target.partition("#")
        return f'<a href="#kb-{escape(anchor)}">' if not id else f'<a href="#" data-page="{escape(target)}">'

    renderer.add_render_rule("link_open", opened)
    return renderer


def found(context: Context, question: str, lang: str, t: i18n.Translate) -> str:
    """The passages that a search finds, as links to their sections."""
    from assistant.retrieve import search

    if not question.strip():
        return ""
    hits = search(context.index, question, HITS, lang, "kb")
    if not hits:
        return note(t("library.nothing"))
    rows = "".join(
        f"<li>{_to(hit.page + ('#' + hit.anchor if hit.anchor else ''), hit.heading)}"
        f"<p>{escape(_opening(hit.text))}</p></li>"
        for hit in hits
    )
    return f'<ol class="found">{rows}</ol>'


def _opening(text: str, limit: int = 160) -> str:
    plain = re.sub(r"\[\^[\w.-]+\]|[`*|#>]|<!--.*?-->", "", text)
    plain = " ".join(plain.split())
    return plain if len(plain) <= limit else plain[:limit].rstrip() + "…"


def _title(id: str, lang: str) -> str:
    try:
        return kb_pages.page(id, lang).title
    except PageError:
        return id


def _to(target: str, text: str) -> str:
    return f'<a href="#" data-page="{escape(target)}">{escape(text)}</a>'
