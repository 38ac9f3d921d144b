"""What the Test tab shows beyond its export, as HTML: times, live score, blind votes, likely causes, a push. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from assistant.why import Sign
from kb.facts import by_id
from trainer.export.hub import Push
from trainer.served_score import Count
from ui.i18n import Translate
from ui.render import link, markdown, note
from ui.render_chat import gigabytes, when
from ui.speak import Spoken, title

WRONG_SHOWN, TEXT_SHOWN, REMEDIES = 30, 200, 3
# A click on a wrong row's button says which row it is.
WHY = """
element.addEventListener('click', (event) => {
  const why = event.target.closest('[data-why]');
  if (why) trigger('click', {why: why.dataset.why});
});
"""


def times(spoken: Spoken, t: Translate, stopped: bool = False) -> str:
    """First token, whole answer, tokens a second."""
    parts = [t("side.stopped")] if stopped else []
    if spoken.first is not None:
        parts += [t("side.first", n=spoken.first), t("side.total", n=spoken.seconds)]
    if spoken.tokens:
        parts.append(t("side.tokens", n=spoken.tokens))
    if spoken.per_second and (spoken.tokens or 0) > 1:  # of one token there is no speed
        parts.append(t("side.speed", n=spoken.per_second))
    return f'<p class="by">{" · ".join(parts)}</p>' if parts else ""


def score(counted: Count, model: str, t: Translate, running: bool) -> str:
    """How far a live score is: a bar, the share right and its interval."""
    low, high = counted.interval
    told = t("score.now", n=counted.n, of=counted.of, share=counted.share, low=low, high=high)
    bar = f'<div class="progress"><i style="width:{100 * counted.n / max(1, counted.of):.1f}%"></i></div>'
    state = "" if running else note(t("score.done" if counted.n == counted.of else "score.stopped"))
    return f'<div class="run-status"><b>{escape(title(model, t))}</b> {told}{bar}</div>{state}'


def wrong(counted: Count, t: Translate) -> str:
    """The rows that were answered wrongly, each with a button that asks why."""
    if not counted.wrong:
        return ""
    cell = lambda text: escape(text if len(text) <= TEXT_SHOWN else text[: TEXT_SHOWN - 1] + "…")
    head = "".join(f"<th>{t('score.' + key)}</th>" for key in ("row", "text", "expected", "found"))
    body = "".join(
        f"<tr><td>{one['row'] + 1}</td><td>{cell(one['prompt'][-1]['content'])}</td><td>{cell(one['expected'])}</td>"
        f'<td>{cell(one["found"])}</td><td><button data-why="{index}">{t("why.short")}</button></td></tr>'
        for index, one in enumerate(counted.wrong[:WRONG_SHOWN])
    )
    more = len(counted.wrong) - WRONG_SHOWN
    rest = note(t("score.more", n=more)) if more > 0 else ""
    return f'<table class="runs wrong"><thead><tr>{head}<th></th></tr></thead><tbody>{body}</tbody></table>{rest}'


def earlier_scores(lines: Sequence[dict[str, Any]], t: Translate) -> str:
    """What was counted before, the newest first."""
    if not lines:
        return ""
    rows = "".join(
        f"<tr><td>{escape(title(one['model'], t))}</td><td>{one['right'] / max(1, one['n']):.3f} "
        f"({one['interval'][0]:.3f}–{one['interval'][1]:.3f})</td><td>{one['n']} / {one['of']}</td><td>{when(one['time'])}</td></tr>"
        for one in lines[:8]
    )
    return f'<table class="runs"><thead><tr><th>{t("score.earlier")}</th><th>{t("score.share")}</th><th>{t("score.rows")}</th><th></th></tr></thead><tbody>{rows}</tbody></table>'


def side(text: str, label: str, t: Translate, under: str = "") -> str:
    """One of two blind answers."""
    body = escape(text.strip()).replace("\n", "<br>") or f"<i>{t('blind.nothing')}</i>"
    return f'<div class="card blind"><b>{escape(label)}</b><div>{body}</div>{under}</div>'


def tally(rows: Sequence[dict[str, Any]], t: Translate) -> str:
    """Wins of each pair of models, with the interval of the win rate."""
    if not rows:
        return note(t("blind.none"))
    head = "".join(f"<th>{t('blind.' + key)}</th>" for key in ("pair", "wins", "rate", "ties"))
    body = ""
    for row in rows:
        first, second = row["a"], row["b"]
        low, high = row["interval"]
        rate = "–" if row["rate"] is None else f"{row['rate']:.0%} ({low:.0%}–{high:.0%})"
        body += (
            f"<tr><td>{escape(title(first, t))} / {escape(title(second, t))}</td>"
            f"<td>{row['wins'][first]} : {row['wins'][second]}</td><td>{escape(title(second, t))}: {rate}</td>"
            f"<td>{row['tie']}, {row['bad']}</td></tr>"
        )
    return f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note(t("blind.interval"))}'


def votes_link(task: str, pairs: int, t: Translate) -> str:
    """The votes as rows for DPO, to take away; nothing as long as there is none."""
    if not pairs:
        return ""
    return f'<p class="note"><a href="/votes/{escape(task)}.jsonl" download="{escape(task)}-votes.jsonl">{t("blind.take", n=pairs)}</a></p>'


def causes(found: Sequence[Sign], lang: str, t: Translate) -> str:
    """What was seen, the symptom that it points to, its causes and first remedies, with their page and sources."""
    if not found:
        return note(t("why.nothing"))
    parts = []
    for sign in found:
        symptom = sign.symptom
        page, _, anchor = symptom.page.partition("#")
        listed = lambda items: "".join(f"<li>{escape(item.get(lang))}</li>" for item in items)
        sources = " · ".join(
            link(source.url, source.name) for key in symptom.sources if (source := by_id("sources").get(key))
        )
        parts.append(
            f"<p><b>{escape(symptom.name.get(lang))}</b> · {escape(sign.seen.get(lang))}</p>"
            f"<div class=section>{t('why.causes')}</div><ul>{listed(symptom.causes)}</ul>"
            f"<div class=section>{t('why.remedies')}</div><ul>{listed([one.text for one in symptom.remedies[:REMEDIES]])}</ul>"
            f'<p class="origin"><a href="#page:{escape(symptom.page)}">{escape(page)}#{escape(anchor)}</a> · {sources}</p>'
        )
    return f'<div class="card why">{"<hr>".join(parts)}</div>'


def push(made: Push, t: Translate) -> str:
    """Every file that would go up, with its size, and the card."""
    rows = made.rows()
    body = "".join(f"<tr><td><code>{escape(name)}</code></td><td>{size:,}</td></tr>" for name, size in rows)
    seen = t("push.public" if made.public else "push.private")
    total = t("push.total", n=len(rows), size=gigabytes(sum(size for _, size in rows)))
    card = made.files["README.md"]
    text = card.decode() if isinstance(card, bytes) else ""
    return (
        f"<p>{escape(t('push.to', repo=made.repo, seen=seen))} {total} {t('push.dry')}</p>"
        f'<table class="runs"><tbody>{body}</tbody></table>'
        f'<details><summary>{t("push.card")}</summary><div class="card">{markdown(text.split("---", 2)[-1])}</div></details>'
    )
