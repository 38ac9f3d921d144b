"""The parity report and the cost of quantizing: rows that both the page and the terminal show. Pure."""

from __future__ import annotations

from html import escape
from typing import Any

from ui.i18n import Translate


def rows(parity: dict[str, Any], lang: str, t: Translate) -> list[dict[str, str]]:
    """One row a step: engine, step, state, shown (figures), cause, page and the first difference."""
    found = []
    for step in parity.get("steps") or []:
        cause = step.get("cause") or step.get("note") or {}
        found.append(
            {
                "engine": step["engine"],
                "step": t("verify." + step["step"]),
                "state": step["state"],
                "shown": figures(step, t),
                "cause": cause.get(lang) or cause.get("en", ""),
                "page": step.get("page") or "",
                "difference": difference(step, t),
            }
        )
    return found


def figures(step: dict[str, Any], t: Translate) -> str:
    values = step.get("values") or {}
    if step["state"] == "skipped":
        return ""
    if step["step"] == "score":
        low, high = values["interval"]
        return t(
            "verify.scored", served=values["served"], transformers=values["transformers"], low=low, high=high
        )
    parts = [t("verify.compared", same=step["same"], compared=step["compared"])]
    if values.get("near_ties"):
        parts.append(t("verify.ties", n=values["near_ties"]))
    if values.get("not_nfc"):
        parts.append(t("verify.nfc", n=values["not_nfc"]))
    return "; ".join(parts)


def difference(step: dict[str, Any], t: Translate) -> str:
    """The first difference of a step that did not pass, located."""
    if not step.get("differences") or step["state"] == "ok":
        return ""
    first = step["differences"][0]
    inner = first["prompt"] if isinstance(first.get("prompt"), dict) else first
    where = first.get("text") or (
        first["prompt"] if isinstance(first.get("prompt"), str) else f"#{first.get('row', 0)}"
    )
    parts = [f"{t('verify.first')}: {where!r}"]
    parts += [f"{t('verify.' + side)} {inner[side]!r}" for side in ("expected", "found") if side in inner]
    return ", ".join(parts)[:300]


def html(parity: dict[str, Any], lang: str, t: Translate) -> str:
    """The report as a table; "" for a report of before there were steps."""
    body = ""
    for row in rows(parity, lang, t):
        more = [escape(row["cause"])] if row["cause"] else []
        more += [escape(row["difference"])] if row["difference"] else []
        if row["page"]:
            page, _, anchor = row["page"].partition("#")
            more.append(t("verify.page", page=f"<code>{escape(page)}#{escape(anchor)}</code>"))
        body += (
            f'<tr class="{escape(row["state"])}"><td>{escape(row["engine"])}</td><td>{escape(row["step"])}</td>'
            f"<td>{t('verify.' + row['state'])}</td><td>{escape(row['shown'])}</td><td>{'<br>'.join(more)}</td></tr>"
        )
    return f'<table class="scores verify"><tbody>{body}</tbody></table>' if body else ""


def cost_lines(quantized: dict[str, Any] | None, t: Translate) -> list[str]:
    """What quantizing cost, a line a measure."""
    found = []
    for name, cost in (quantized or {}).items():
        share = cost["bytes"]["after"] / cost["bytes"]["before"]
        found.append(t("quantized.cost", name=name, share=share, **cost["perplexity"]))
        if score := cost["score"]:
            low, high = score["interval"]
            told = {key: score[key] for key in ("metric", "before", "after")}
            found.append(t("quantized.score", low=low, high=high, **told))
    return found
