"""Answers and plans as HTML. Pure functions: data in, text out; whatever comes from outside is escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from typing import Any
from urllib.parse import urlsplit

from assistant import recommend
from assistant.prompts import NEAREST
from assistant.types import Answer, Citation, Hit, Recommendation
from kb.errors import told
from ui.i18n import Translate, duration

QUOTE_SHOWN = 60  # characters of a quote that stand on its folded line
MARKER = re.compile(r"\[(\d{1,3})\]")
CODE = re.compile(r"(<code\b.*?</code>)", re.S)


@cache
def _markdown():
    from markdown_it import MarkdownIt

    # No links, images or HTML: whatever a model or a document wrote, the page fetches and follows nothing.
    return (
        MarkdownIt("commonmark", {"html": False})
        .disable(["link", "image", "autolink", "reference"])
        .enable("table")
    )


def markdown(text: str) -> str:
    """A small, safe markdown: paragraphs, lists, tables, code, emphasis."""
    return _markdown().render(text)


def marked(put: Callable[[re.Match[str]], str], html: str) -> str:
    """HTML with something in the place of each marker. The brackets of code (data[1]) are no markers."""
    parts = CODE.split(html)
    parts[::2] = [MARKER.sub(put, part) for part in parts[::2]]
    return "".join(parts)


def one_line(html: str) -> str:
    """HTML without blank lines, so that the chat's markdown takes it as one block."""
    return re.sub(r"\n\s*\n", "\n", html).strip()


def link(url: str, text: str) -> str:
    """A link to a web source; anything but http(s) stays text."""
    if urlsplit(url).scheme not in ("http", "https"):
        return escape(text)
    return f'<a href="{escape(url)}" target="_blank" rel="noopener noreferrer">{escape(text)}</a>'


def sources(items: Sequence[dict[str, str]]) -> str:
    return " · ".join(
        f"{link(item['url'], item['name'])} <small>{escape(str(item.get('date', '')))}</small>"
        for item in items
    )


def answer(value: Answer, number: int, t: Translate) -> str:
    """A finished answer: text with clickable markers, then each cited passage folded below it.

    `number` is the answer's place in the conversation; it keeps the anchors of two answers apart.
    """
    text = value.text
    if value.nearest:  # its last sentence names the pages that stand below as links
        text = text.partition(NEAREST[value.lang].partition("{")[0])[0]
    for sentence in value.unsupported:
        text = text.replace(sentence, f"{sentence} ⚠", 1)
    known = {citation.marker for citation in value.citations}
    body = marked(
        lambda match: (
            f'<a class="cite" href="#m{number}-s{match[1]}">{match[1]}</a>' if int(match[1]) in known else ""
        ),
        markdown(text),
    )
    parts = [f'<div class="answer">{body}</div>']
    if value.thinking:
        parts.insert(
            0,
            f"<details class=thinking><summary>{t('ask.thinking')}</summary>{markdown(value.thinking)}</details>",
        )
    if value.error:
        parts.append(error(value.error))
    if value.unsupported:
        parts.append(f'<p class="note">{t("ask.unsupported_note")}</p>')
    if value.citations:
        parts.append(
            f'<div class="sources"><div class="sources-title">{t("ask.sources")}</div>{cited(value.citations, number, t)}</div>'
        )
    if value.ask:
        parts.append(question(value.ask, t))
    elif value.backend == "plan" and value.citations:
        parts.append(f'<p class="ask"><a href="#use-plan"><b>{t("ask.use_plan")}</b></a></p>')
    if value.nearest:
        rows = "".join(f"<li>{to_page(hit, escape(hit.heading))}</li>" for hit in value.nearest)
        parts.append(
            f'<div class="sources"><div class="sources-title">{t("ask.nearest")}</div><ul>{rows}</ul></div>'
        )
    parts.append(
        f'<p class="by">{t("ask.backend")}: {escape(backend(value, t))} · {t("ask.seconds", n=value.seconds)} · <a href="#copy">{t("ask.copy")}</a></p>'
    )
    return one_line("".join(parts))


def backend(value: Answer, t: Translate) -> str:
    if value.backend in ("extract", "plan"):
        return t(f"backend.{value.backend}")
    return f"{value.model} ({value.backend})" if value.model else value.backend


def to_page(place: Hit | Citation, html: str) -> str:
    """A link to the place in the Library tab; plain for a passage of the person's own files, which are not there."""
    if not place.id.startswith("kb:"):
        return html
    target = f"{place.page}#{place.anchor}" if place.anchor else place.page
    return f'<a href="#page:{escape(target)}">{html}</a>'  # the chat strips data attributes


def cited(citations: Sequence[Citation], number: int, t: Translate) -> str:
    """The cited passages, folded, under one heading for each section that they come from."""
    parts, last = [], None
    for item in citations:
        heading = item.heading or item.page
        if heading != last:
            parts.append(f'<div class="section">{escape(heading)} {opener(item, t)}</div>')
            last = heading
        parts.append(citation(item, number))
    return "".join(parts)


def opener(item: Citation, t: Translate) -> str:
    """The small link beside a heading that opens its page; nothing where there is no page."""
    link = to_page(item, t("ask.open_page"))
    return f"<small>{link}</small>" if link.startswith("<a") else ""


def citation(item: Citation, number: int) -> str:
    origin = f'<div class="origin">{sources(item.sources)}</div>' if item.sources else ""
    plain = item.quote.replace("`", "").replace("**", "")
    short = plain if len(plain) <= QUOTE_SHOWN else plain[:QUOTE_SHOWN].rstrip() + " …"
    return (
        f'<details id="m{number}-s{item.marker}" class="source"><summary><b>{item.marker}</b> {escape(short)}'
        f"</summary><blockquote>{escape(item.quote)}</blockquote>{origin}</details>"
    )


def partial(text: str) -> str:
    """An answer that is still arriving: markers are shown once it is whole."""
    return one_line(f'<div class="answer">{marked(lambda match: "", markdown(text))}</div>')


def value_text(value: Any) -> str:
    """A value as people write it: 2e-4 rather than 0.0002, yes rather than True."""
    if isinstance(value, float) and value and abs(value) < 0.001:
        mantissa, exponent = f"{value:e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def plan_card(plan: Recommendation, t: Translate, asks: bool = True) -> str:
    """The plan in a few lines, for beside the conversation; the open question, unless it stands there."""
    run = plan.run or {}
    shown = [
        name
        for name in ("base_model", "method", "peft", "learning_rate", "r", "epochs", "max_length")
        if name in run
    ]
    if run.get("peft") == "full":
        shown = [name for name in shown if name != "r"]
    rows = "".join(f"<tr><th>{name}</th><td>{escape(value_text(run[name]))}</td></tr>" for name in shown)
    memory = f"<tr><th>{t('plan.memory')}</th><td>{plan.memory_gb:.1f} GB</td></tr>" if plan.memory_gb else ""
    reason = plan.reasons.get("decision")
    because = f'<p class="because">{escape(reason.because)}</p>' if reason else ""
    return f'<div class="card"><div class="decision">{t("decision." + plan.decision)}</div>{because}<table>{rows}{memory}</table>{question(plan.ask if asks else None, t)}</div>'


def plan(value: Recommendation, t: Translate, asks: bool = True) -> str:
    """The whole recommendation: decision, every value with its reason and source, memory, warnings.

    Without `asks` the open question is left out: it stands where it can be answered.
    """
    decision = value.reasons.get("decision")
    parts = [f'<div class="decision">{t("decision." + value.decision)}</div>']
    if decision:
        parts.append(f'<p class="because">{escape(decision.because)}</p>{reason_source(decision, t)}')
    if value.warnings:
        items = "".join(f"<li>{escape(text)}</li>" for text in value.warnings)
        parts.append(f'<div class="warnings"><b>{t("plan.warnings")}</b><ul>{items}</ul></div>')
    if asks:
        parts.append(question(value.ask, t))
    if step := recommend.first_step(value):
        parts.append(
            f'<p class="first"><b>{t("plan.first")}</b> {escape(step["because"])} <code>{escape(step["command"])}</code></p>'
        )
    if value.estimate:
        parts.append(estimate(value.estimate, t))
    if value.plans:
        parts.append(plans(value.plans, t))
    rows = "".join(reason_row(reason, t) for name, reason in value.reasons.items() if name != "decision")
    if rows:
        head = f"<tr><th>{t('plan.field')}</th><th>{t('plan.value')}</th><th>{t('plan.why')}</th></tr>"
        table = f'<table class="reasons"><thead>{head}</thead><tbody>{rows}</tbody></table>'
        count = len(value.reasons) - 1
        parts.append(f"<details class='every'><summary>{t('plan.every', n=count)}</summary>{table}</details>")
    if value.alternatives:
        items = "".join(
            f"<li>{escape(alternative_text(item, t))}{origin(item['citation'], item['rule'], t)}</li>"
            for item in value.alternatives
            if "command" not in item
        )
        parts.append(f'<div class="alternatives"><b>{t("plan.alternatives")}</b><ul>{items}</ul></div>')
    return f'<div class="plan">{"".join(parts)}</div>'


def plans(items: Sequence[dict[str, Any]], t: Translate) -> str:
    """The three plans side by side: what differs and what each costs."""
    rows = [("base_model", [item["base_model"] for item in items])]
    rows += [(name, [item[name] for item in items]) for name in ("peft", "r", "epochs")]
    body = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{escape(value_text(value))}</td>' for value in values)}</tr>"
        for name, values in rows
        if any(value is not None for value in values)
    )
    memory = "".join(f"<td>{item['memory_gb']:.1f} GB{'' if item['fits'] else ' ⚠'}</td>" for item in items)
    times = "".join(f"<td>{duration(item['seconds'], t) if item['seconds'] else '–'}</td>" for item in items)
    why = "".join(
        f"<td>{escape(item['because'])}{origin(item['citation'], item['rule'], t)}</td>" for item in items
    )
    head = "".join(f"<th>{t('plan.preset.' + item['name'])}</th>" for item in items)
    return (
        f'<table class="plans"><thead><tr><th></th>{head}</tr></thead><tbody>{body}'
        f"<tr><th>{t('plan.memory')}</th>{memory}</tr><tr><th>{t('plan.time')}</th>{times}</tr>"
        f"<tr><th>{t('plan.why')}</th>{why}</tr></tbody></table>"
    )


def yours(reasons: dict[str, Any], t: Translate) -> str:
    """The values that the person changed, each with the advised one, and the warning of one beyond its range."""
    own = {name: reason for name, reason in reasons.items() if reason["rule"] == "yours"}
    if not own:
        return ""
    rows = "".join(
        f"<li><code>{escape(name)}</code> <b>{escape(value_text(reason['value']))}</b> "
        f"({t('plan.advised')}: {escape(value_text(reason['advised']))})"
        + (f" ⚠ {escape(reason['warning'])}" if reason["warning"] else "")
        + "</li>"
        for name, reason in own.items()
    )
    kind = "warnings" if any(reason["warning"] for reason in own.values()) else "card"
    return f'<div class="{kind} yours"><b>{t("plan.yours")}</b><ul>{rows}</ul></div>'


def question(ask: dict[str, Any] | None, t: Translate) -> str:
    """The one thing that is still worth asking."""
    return f'<p class="ask"><b>{t("plan.ask")}</b> {escape(ask["question"])}</p>' if ask else ""


def alternative_text(item: dict[str, Any], t: Translate) -> str:
    """An alternative in one line: what would differ, and why one might want it."""
    names = ("base_model", "method", "peft", "memory_gb")
    values = ", ".join(f"{name} {value_text(item[name])}" for name in names if item.get(name) is not None)
    decision = t("decision." + item["decision"])
    return f"{decision}{f' ({values})' if values else ''}: {item.get('because', '')}"


def reason_row(reason: Any, t: Translate) -> str:
    lost = "".join(
        f'<div class="overruled">{t("plan.overruled")}: {escape(value_text(item.get("value")))}: {escape(str(item.get("because", "")))}</div>'
        for item in reason.overruled
    )
    return (
        f"<tr><td><code>{escape(reason.field)}</code></td><td><b>{escape(value_text(reason.value))}</b></td>"
        f"<td>{escape(reason.because)}{lost}{reason_source(reason, t)}</td></tr>"
    )


def reason_source(reason: Any, t: Translate) -> str:
    return origin(reason.citation, reason.rule, t)


def origin(cited: dict[str, Any], rule: str, t: Translate) -> str:
    """Grade of evidence and first source on one line; the page, the rule and the other sources folded under it."""
    listed, grade = cited.get("sources", []), cited.get("evidence")
    label = f'<span class="grade {escape(grade)}">{t("plan.evidence." + grade)}</span> ' if grade else ""
    first = escape(listed[0]["name"]) if listed else escape(rule)
    more = f" +{len(listed) - 1}" if len(listed) > 1 else ""
    place = f"{cited.get('page', '')}#{cited.get('anchor', '')}"
    return (
        f'<details class="origin"><summary>{label}{first}{more}</summary>{sources(listed)}'
        f"<div><code>{escape(rule)}</code> · {escape(place)}</div></details>"
    )


def estimate(value: dict[str, Any], t: Translate) -> str:
    """Memory by term as bars with the interval, then each stage with its memory, disk and time."""
    total = value["total_gb"] or 1
    bars = "".join(
        f'<div class="term"><span>{escape(name)}</span><i style="width:{max(100 * size / total, 0.5):.1f}%"></i><span>{size:.2f} GB</span></div>'
        for name, size in value["terms"].items()
        if size >= 0.005
    )
    interval = t("plan.between", low=f"{value['low_gb']:.1f}", high=f"{value['high_gb']:.1f}")
    basis = f" · {t('plan.measured_runs', n=value['runs'])}" if value["runs"] else ""
    time = ""
    if value.get("seconds"):
        low, high = duration(value["seconds_low"], t), duration(value["seconds_high"], t)
        time = f" · {t('plan.time')}: {duration(value['seconds'], t)} ({low} – {high})"
        time += f" · {t('plan.total_time')}: {duration(value['total_seconds'], t)}"
        if value.get("rate"):
            rate = f"{value['rate'] / 1e12:.3g}"
            time += f" · {t('plan.rate', rate=rate)}"
    return (
        f'<div class="estimate"><b>{t("plan.memory")}: {value["total_gb"]:.1f} GB</b> '
        f"<small>{interval}{basis}{time}</small>{bars}{stages(value, t)}</div>"
    )


def stages(value: dict[str, Any], t: Translate) -> str:
    """What each stage of a run takes, folded."""
    heads = "".join(f"<th>{t('plan.stage.' + name)}</th>" for name in ("name", "gpu", "ram", "disk", "time"))
    rows = "".join(
        f"<tr><th>{stage_name(item['name'], t)}</th><td>{_gb(item['device_gb'])}</td><td>{_gb(item['host_gb'])}</td>"
        f"<td>{_gb(item['disk_gb'])}</td><td>{duration(item['seconds'], t) if item['seconds'] else '–'}</td></tr>"
        for item in value["stages"]
    )
    sums = t("plan.stages", ram=f"{value['host_gb']:.1f}", disk=f"{value['disk_gb']:.1f}")
    return f"<details><summary>{sums}</summary><table>{heads}{rows}</table></details>"


def stage_name(name: str, t: Translate) -> str:
    kind, _, quant = name.partition(" ")
    return f"{t('plan.stage.' + kind)} {escape(quant)}".strip()


def _gb(size: float | None) -> str:
    return f"{size:.1f} GB" if size else "–"


def localised(text: Any, lang: str) -> str:
    return text if isinstance(text, str) else text[lang]


def hits(items: Sequence[Hit]) -> str:
    return "".join(
        f'<details class="source"><summary>{escape(hit.heading)} <small>{hit.score:.2f}</small></summary>'
        f"<blockquote>{escape(hit.text)}</blockquote>{sources(hit.sources)}</details>"
        for hit in items
    )


def error(text: str, lang: str = "en") -> str:
    """A person's mistake, in the language of the screen."""
    return f'<div class="error" role="alert">{escape(told(text, lang))}</div>'


def note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'
