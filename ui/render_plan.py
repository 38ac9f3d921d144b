"""What stands beside a plan as HTML: the measured data, whether the values fit, a rehearsal. Pure, as ui/render.py."""

from __future__ import annotations

from html import escape
from typing import Any

from assistant.fit import Fit
from trainer.rehearse import CHECKS
from ui.i18n import Translate
from ui.render import localised, origin, value_text


def fit(found: Fit, t: Translate) -> str:
    """Whether the form's values fit, and if not why each offered change does little harm."""
    sizes = {"need": f"{found.memory_gb:.1f}", "have": f"{found.available_gb:g}"}
    if found.fits:
        return f'<p class="note">{t("plan.fits", **sizes)}</p>'
    rows = "".join(
        f"<li><b>{escape(fix_label(item, t))}</b>: {escape(item['because'])}{origin(item['citation'], item['rule'], t)}</li>"
        for item in found.fixes
    )
    ways = f"<p>{t('plan.fixes')}</p><ol>{rows}</ol>" if rows else f"<p>{t('plan.no_fix')}</p>"
    return f'<div class="warnings"><b>{t("plan.fits_not", **sizes)}</b>{ways}</div>'


def fix_label(item: dict[str, Any], t: Translate) -> str:
    """A change in a line: what is set, and the memory it then takes."""
    change = ", ".join(f"{name} {value_text(value)}" for name, value in item["change"].items())
    return t("plan.apply", change=change, gb=f"{item['memory_gb']:.1f}")


def rehearsal(found: dict[str, Any], lang: str, t: Translate) -> str:
    """What a rehearsal checked, and the page that helps beside what is not right."""
    rows = []
    for check in found["checks"]:
        title = CHECKS[check["check"]][0 if lang == "en" else 1]
        said = escape(check["said"][lang])
        if check["state"] not in ("ok", "skipped"):
            said += f" <small><code>{escape(check['page'])}</code></small>"
        mark = f'<b class="{escape(check["state"])}">{t("rehearsal." + check["state"])}</b>'
        rows.append(f"<tr><th>{title}</th><td>{mark}</td><td>{said}</td></tr>")
    verdict = t("rehearsal.ready") if found["ready"] else t("rehearsal.not_ready")
    return f'<div class="card rehearsal"><b>{verdict}</b><table>{"".join(rows)}</table></div>'


def profile(value: Any, lang: str, t: Translate) -> str:
    """What was measured in a data file, and what is wrong with it."""
    lengths = value.tokens
    counted = t("plan.counted" if value.tokenizer else "plan.estimated")
    facts = [
        (t("plan.format"), value.format),
        (t("plan.rows"), f"{value.rows:,}"),
        (t("plan.language"), value.language),
        (
            t("plan.tokens"),
            f"{lengths.p50:g} / {lengths.p95:g} / {lengths.max:g} ({counted})" if lengths else None,
        ),
        (
            t("plan.labels"),
            ", ".join(f"{name}: {count:,}" for name, count in list(value.labels.items())[:12])
            if value.labels
            else None,
        ),
        (t("plan.balance"), _balance(value.labels)),
        (t("plan.loss_share"), f"{value.loss_share:.0%}" if value.loss_share is not None else None),
        (t("plan.pairs"), f"{value.preference_pairs:,}" if value.preference_pairs else None),
        (
            t("plan.thumbs"),
            f"{value.thumbs_up:,} / {value.thumbs_down:,}" if value.thumbs_up or value.thumbs_down else None,
        ),
        (t("plan.duplicates"), f"{value.duplicates:,} ({value.duplicates / max(1, value.rows):.1%})"),
    ]
    rows = "".join(f"<tr><th>{name}</th><td>{escape(str(text))}</td></tr>" for name, text in facts if text)
    faults = "".join(
        f'<li class="{escape(item.severity)}">{escape(localised(item.message, lang))}</li>'
        for item in value.findings
    )
    return f'<div class="card"><b>{t("plan.data")}</b><table>{rows}</table>{f"<ul>{faults}</ul>" if faults else ""}</div>'


def _balance(labels: dict[str, int] | None) -> str | None:
    """How uneven the classes are, "12 : 1"."""
    counts = [count for count in (labels or {}).values() if count]
    return f"{max(counts) / min(counts):.3g} : 1" if len(counts) > 1 else None
