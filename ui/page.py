"""The page: one Gradio app per language, mounted in a FastAPI parent that guards both."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse

from ui import downloads, i18n
from ui import library as library_routes
from ui.context import Context
from ui.guard import LOOPBACK, Guard
from ui.home import Home
from ui.tabs import ask, data, library, plan, runs, test

TABS = {"ask": ask, "data": data, "plan": plan, "runs": runs, "test": test, "library": library}
POLLING = ("runs", "test")
HERE = Path(__file__).parent
HEAD = """<script>
window.openedTab = new URL(location).searchParams.get('tab') || 'ask';
document.addEventListener('click', (event) => {
  const cite = event.target.closest('a.cite');
  if (cite) {
    const passage = document.getElementById(cite.getAttribute('href').slice(1));
    if (passage) { event.preventDefault(); passage.open = true; passage.scrollIntoView({behavior: 'smooth', block: 'nearest'}); }
  }
  const copy = event.target.closest('a[href="#copy"]');
  if (copy) { event.preventDefault(); navigator.clipboard.writeText(answerText(copy.closest('.message'))).then(() => { copy.textContent = '✓'; }); }
  const plan = event.target.closest('a[href="#use-plan"]');
  if (plan) { event.preventDefault(); document.querySelector('button#use-plan, #use-plan button')?.click(); }
  const language = event.target.closest('a[data-lang]');
  if (language) { event.preventDefault(); document.cookie = 'lang=' + language.dataset.lang + ';path=/;samesite=strict;max-age=31536000';
    location.href = '/' + language.dataset.lang + '/' + location.search; }
});
// An answer as plain text: its markers in brackets, its passages below with their addresses.
function answerText(message) {
  const marks = [...message.querySelectorAll('.answer a.cite')];
  marks.forEach((mark) => { mark.textContent = `[${mark.textContent}]`; });
  const text = message.querySelector('.answer').innerText;
  marks.forEach((mark) => { mark.textContent = mark.textContent.slice(1, -1); });
  const sources = [...message.querySelectorAll('details.source')].map((source) => [`[${source.querySelector('b').textContent}] ${source.querySelector('blockquote').textContent}`,
    ...[...source.querySelectorAll('.origin a')].map((link) => link.href)].join('\\n'));
  return [text.trim(), ...sources].join('\\n\\n');
}
// A new question goes to the top of the conversation, so that its answer is read from its beginning.
let questions = 0;
new MutationObserver(() => {
  const asked = document.querySelectorAll('#conversation .user-row');
  if (asked.length > questions && questions) { const last = asked[asked.length - 1]; const box = last.closest('[role=log]');
    if (box) box.scrollTo({top: box.scrollTop + last.getBoundingClientRect().top - box.getBoundingClientRect().top, behavior: 'smooth'}); }
  questions = asked.length;
}).observe(document.documentElement, {childList: true, subtree: true});
</script>"""


def blocks(context: Context, lang: str) -> gr.Blocks:
    """The page in one language."""
    t = i18n.translator(lang)
    with gr.Blocks(title=t("title"), analytics_enabled=False) as demo:
        gr.HTML(masthead(lang, t))
        with gr.Tabs(selected="ask") as tabs:
            pages, selected = {}, {}
            for name, module in TABS.items():
                with gr.Tab(t("tab." + name), id=name) as tab:
                    pages[name] = module.build(context, lang, t)
                remember = f"() => {{ const url = new URL(location); url.searchParams.set('tab', '{name}'); history.replaceState(null, '', url); }}"
                tab.select(None, js=remember)
                selected[name] = tab.select
        ask.connect(context, lang, t, pages["ask"], pages["plan"], tabs)
        data.connect(context, lang, t, pages["data"], pages["plan"], tabs)
        plan.connect(context, lang, t, pages["plan"], pages["runs"], tabs)
        runs.connect(context, lang, t, pages["runs"], pages["test"], tabs)
        test.connect(context, lang, t, pages["test"])

        # Only the tab that is looked at asks for news.
        timers = [pages[name].timer for name in POLLING]
        awake = lambda name: [gr.Timer(active=name == one) for one in POLLING]
        for name, select in selected.items():
            select(partial(awake, name), None, timers, show_progress="hidden")

        # The address is read before Gradio mounts: its first tab announces itself and overwrites ?tab=.
        opened = gr.Textbox(visible=False)
        demo.load(
            lambda name: [gr.Tabs(selected=name if name in TABS else "ask"), *awake(name)],
            opened,
            [tabs, *timers],
            js="() => [window.openedTab]",
            show_progress="hidden",
        )
    return demo


def masthead(lang: str, t: i18n.Translate) -> str:
    names = {"zh-TW": "繁體中文", "en": "English"}
    links = "".join(
        f'<a href="/{code}/" data-lang="{code}"{" aria-current=page" if code == lang else ""}>{names[code]}</a>'
        for code in i18n.LANGS
    )
    return f'<div class="masthead"><h1>{t("title")}</h1><span>{t("tagline")}</span><nav>{links}</nav></div>'


def build(where: Home, hosts: set[str] = LOOPBACK, password: str | None = None) -> FastAPI:
    """The FastAPI app with both languages mounted, and the thread that keeps the job queue moving."""
    context = Context(where)
    app = FastAPI(title="Tunesmith", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def front(request: Request) -> RedirectResponse:
        lang = request.cookies.get("lang")
        lang = lang if lang in i18n.LANGS else i18n.choose(request.headers.get("accept-language"))
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/{lang}/{query}", status_code=307)

    library_routes.routes(app, context)
    downloads.routes(app, context)
    script = f"<script>{(HERE / 'library.js').read_text(encoding='utf-8')}</script>"
    font = gr.themes.LocalFont("Source Sans Pro", weights=(400, 700))
    theme = gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", font=[font, "sans-serif"], font_mono=["Menlo", "monospace"]
    )
    for lang in i18n.LANGS:
        gr.mount_gradio_app(
            app, blocks(context, lang), f"/{lang}", theme=theme, css_paths=HERE / "theme.css", head=HEAD + script,
            run_history=False, footer_links=[], ssr_mode=False, max_file_size="2gb", show_error=False,
        )  # fmt: skip
    app.add_middleware(Guard, hosts=hosts, password=password)
    app.state.context = context
    context.keep_queue_moving()
    return app
