"""What stands beside a conversation, as HTML: earlier conversations, thumbs to take away, a download. Pure."""

from __future__ import annotations

import time
from collections.abc import Sequence
from html import escape

from assistant.conversations import Conversation
from assistant.llm import ModelInfo, Progress
from ui.i18n import Translate
from ui.render import note

BACKENDS = {"ollama": "Ollama", "openai": "OpenAI API", "llamacpp": "llama.cpp"}
# A click opens a conversation; × asks once before it deletes.
CHOOSE = """
element.addEventListener('click', (event) => {
  const drop = event.target.closest('[data-drop]');
  const open = event.target.closest('[data-open]');
  if (drop && !drop.classList.contains('sure')) {
    drop.classList.add('sure');
    setTimeout(() => drop.classList.remove('sure'), 4000);
  } else if (drop) { drop.classList.remove('sure'); trigger('click', {drop: drop.dataset.drop}); }
  else if (open) trigger('click', {open: open.dataset.open});
});
"""


def earlier(items: Sequence[Conversation], current: str, t: Translate) -> str:
    """The kept conversations as a list of buttons, the last used first; `current` is the id of the open one."""
    if not items:
        return note(t("ask.earlier_none"))
    rows = "".join(
        f"<li{' aria-current=true' if item.id == current else ''}>"
        f'<button data-open="{escape(item.id)}" title="{escape(item.title)}">{escape(item.title)}</button>'
        f"<small>{when(item.updated)}</small>"
        f'<button data-drop="{escape(item.id)}" title="{t("ask.delete")}" aria-label="{t("ask.delete")}">'
        f'<span aria-hidden="true">×</span><b>{t("ask.delete_sure")}</b></button></li>'
        for item in items
    )
    return f'<ul class="earlier">{rows}</ul>'


def when(seconds: float) -> str:
    """A moment as short as it is clear: the time for today, else the day, with the year when it is another."""
    then, now = time.localtime(seconds), time.localtime()
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%m-%d" if then.tm_year == now.tm_year else "%Y-%m-%d", then)


def preferences(votes: int, pairs: int, t: Translate) -> str:
    """Links that download the thumbs as preference data; nothing as long as there is none."""
    links = [
        f'<a href="/preferences/{kind}.jsonl" download="{kind}.jsonl">{t("ask.rows_" + kind, n=count)}</a>'
        for kind, count in (("kto", votes), ("dpo", pairs))
        if count
    ]
    return f'<p class="note">{t("ask.preferences")}: {" · ".join(links)}</p>' if links else ""


def model(item: ModelInfo) -> str:
    """A model on the line of a menu: name, where it runs, size."""
    size = f", {gigabytes(item.size)}" if item.size else ""
    return f"{item.name} ({BACKENDS.get(item.backend, item.backend)}{size})"


def gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def download(progress: Progress) -> str:
    """How far a download is: a bar once the size is known, and the server's own word for what it does."""
    said = escape(progress.status)
    if not progress.total:
        return f'<p class="note">{said}</p>'
    share = min(100.0, 100 * progress.completed / progress.total)
    return (
        f'<div class="progress"><i style="width:{share:.1f}%"></i></div><p class="note">{said} · {share:.0f} % · '
        f"{gigabytes(progress.completed)} / {gigabytes(progress.total)}</p>"
    )
