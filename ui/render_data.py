"""A checked data file and its tokens as HTML; pure, for the Data tab."""

from __future__ import annotations

from html import escape
from typing import Any

from ui.i18n import Translate
from ui.render import localised

MOST_BARS = 12
LONGEST_ROW = 600  # pieces of a row shown
IGNORED = -100  # the label of a token without loss


def checked(value: Any, lang: str, t: Translate) -> str:
    """Format, counts and every finding with its place, reason and remedy."""
    facts = [
        (t("plan.format"), escape(value.format)),
        (t("plan.rows"), escape(t("data.rows_of", rows=f"{value.rows:,}", read=f"{value.read_rows:,}"))),
        (t("plan.language"), escape(value.language)),
        (t("plan.tokens"), f"{value.tokens.p50:,} / {value.tokens.p95:,} / {value.tokens.max:,}"),
    ]
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{text}</td></tr>" for name, text in facts)
    bins = {f"≤ {one['to']:,}": one["rows"] for one in value.tokens.histogram}
    lengths = _bars(bins, t("data.lengths")) if bins else ""
    labels = _bars(value.labels, f"{t('data.sizes')} ({len(value.labels)})") if value.labels else ""
    if value.findings:
        found = "".join(finding(item, lang, t) for item in value.findings)
        found = f'<div class="section">{escape(t("data.findings"))}</div>{found}'
    else:
        found = f'<div class="ok">{escape(t("data.clean"))}</div>'
    return f'<div class="card checked"><table>{rows}</table>{lengths}{labels}{found}</div>'


def _bars(counts: dict[str, int], title: str) -> str:
    """Rows by label or by length, a bar each."""
    most = max(counts.values())
    bars = "".join(
        f'<div class="term"><span>{escape(name[:40])}</span><i style="width:{100 * count / most:.1f}%"></i><span>{count:,}</span></div>'
        for name, count in list(counts.items())[:MOST_BARS]
    )
    rest = f"<div class=by>… {len(counts) - MOST_BARS}</div>" if len(counts) > MOST_BARS else ""
    return f'<div class="section">{escape(title)}</div><div class="estimate">{bars}{rest}</div>'


def finding(item: Any, lang: str, t: Translate) -> str:
    """One finding, open to its reason and its command."""
    lines = ", ".join(f"{line:,}" for line in item.lines) + ("…" if item.rows > len(item.lines) > 0 else "")
    parts = [
        f"<div>{escape(t('data.where'))}: {lines}</div>" if item.lines else "",
        f"<blockquote>{escape(' '.join(item.example.split()))}</blockquote>" if item.example else "",
        f'<div>{escape(t("data.why"))}: {escape(localised(item.why, lang))} <a href="#page:{escape(item.page)}">{escape(item.page)}</a></div>',
        f"<div>→ {escape(localised(item.fix, lang))}</div>",
        f"<code>{escape(item.command)}</code>" if item.command else "",
    ]
    head = f'<b class="severity {escape(item.severity)}">{escape(t("data." + item.severity))}</b> {escape(localised(item.message, lang))}'
    return f'<details class="finding"><summary>{head}</summary>{"".join(parts)}</details>'


def masks(found: dict[str, Any], t: Translate) -> str:
    """Rows as tokens, those that carry loss highlighted."""
    shown = []
    for row in found["rows"]:
        pieces = "".join(
            f"<mark>{escape(text)}</mark>" if trained else escape(text)
            for text, trained in row["pieces"][:LONGEST_ROW]
        )
        carried = sum(label != IGNORED for label in row["labels"])
        head = f"<b>{escape(row['part'])}</b> " if row["part"] else ""
        said = escape(t("data.carried", n=f"{carried:,}", of=f"{len(row['ids']):,}"))
        shown.append(f'<div class="by">{head}{said}</div><pre class="tokens">{pieces}</pre>')
    if found.get("doubled"):
        shown.append(f'<div class="warnings">{escape(t("data.doubled", n=found["doubled"]))}</div>')
    if found["left_out"]:
        shown.append(f'<div class="warnings">{escape(t("data.left_out", n=found["left_out"]))}</div>')
    return "".join(shown)
