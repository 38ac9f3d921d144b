"""Runs, scores and parity as HTML; pure, like render.py."""

from __future__ import annotations

import time
from html import escape
from typing import Any

from ui import render_verify
from ui.i18n import Translate, duration
from ui.render import value_text


def status(run_id: str, value: dict[str, Any], t: Translate) -> str:
    """State, stage and progress of a job; the message of a failed one in full."""
    state = value.get("state", "queued")
    stage = value.get("stage")
    parts = [f'<b>{escape(run_id)}</b> <span class="state {escape(state)}">{t("state." + state)}</span>']
    if state == "running" and stage:
        parts.append(f"<span>{t('stage.' + stage)}</span>")
    if value.get("where", "local") != "local":
        parts.append(f"<span>{escape(t('runs.where', where=value['where']))}</span>")
    step, total = value.get("step"), value.get("total_steps")
    if step and total:
        parts.append(f"<span>{t('runs.step', step=step, total=total)}</span>")
    if state == "running" and value.get("eta_seconds"):
        parts.append(f"<span>{t('runs.eta', n=duration(value['eta_seconds'], t))}</span>")
    elif value.get("started") and value.get("finished"):
        parts.append(f"<span>{duration(value['finished'] - value['started'], t)}</span>")
    if value.get("peak_gb"):
        parts.append(f"<span>{t('runs.peak', n=value['peak_gb'])}</span>")
    if value.get("step_seconds") and state in ("running", "starting"):
        parts.append(f"<span>{t('runs.a_step', n=value['step_seconds'])}</span>")
    bar = ""
    if total and state in ("running", "starting"):
        share = 100 * min(step or 0, total) / total
        bar = f'<div class="progress" role="progressbar" aria-valuenow="{share:.0f}"><i style="width:{share:.1f}%"></i></div>'
    message = value.get("message")
    if value.get("code"):
        message = t("said." + value["code"], **value["values"])
    told = (
        f'<div class="error" role="alert">{escape(message)}</div>'
        if message and state in ("failed", "lost", "oom", "timeout")
        else ""
    )
    if message and not told:
        told = f'<p class="note">{escape(message)}</p>'
    return f'<div class="run-status">{" ".join(parts)}{bar}{told}</div>'


LIVE = ("learning_rate", "grad_norm", "tokens_per_second", "memory_gb", "gpu_use", "mean_token_accuracy")
MORE = (
    *LIVE, "eval_mean_token_accuracy", "rewards/accuracies", "rewards/margins", "eval_rewards/accuracies", "reward",
    "accuracy", "eval_accuracy", "eval_macro_f1",
)  # fmt: skip


def live(metrics: list[dict[str, Any]], t: Translate) -> str:
    """The newest figures of the curve beside the losses that the plot shows."""
    newest: dict[str, float] = {}
    for row in metrics:
        newest |= {name: row[name] for name in MORE if row.get(name) is not None}
    shown = "".join(
        f"<span><small>{escape(t('runs.' + name))}</small> {figure(name, value)}</span>"
        for name, value in newest.items()
    )
    return f'<div class="live">{shown}</div>' if shown else ""


def figure(name: str, value: float) -> str:
    """A measure as a reader takes it in: 2.0e-04, 1,234, 0.812."""
    if name == "gpu_use":
        return f"{value:.0%}"
    if name == "learning_rate":
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def flags(found: list[Any], adjusted: list[dict[str, Any]], lang: str, t: Translate) -> str:
    """What the curve shows, each with its first remedy and its page; and the batches that had to be halved."""
    parts = [f"<li>{escape(t('runs.adjusted', **one))}</li>" for one in adjusted]
    for flag in found:
        link = f'<a href="#page:{escape(flag.page)}">{t("runs.read")}</a>'
        parts.append(
            f"<li><b>{escape(flag.name[lang])}</b> {escape(flag.text[lang])} {escape(flag.remedy[lang])} {link}</li>"
        )
    return f'<div class="card flags"><b>{t("runs.flags")}</b><ul>{"".join(parts)}</ul></div>' if parts else ""


def runs_table(rows: list[dict[str, Any]], t: Translate) -> str:
    """All runs, newest first: {id, state, method, base_model, accuracy, submitted}."""
    head = "".join(
        f"<th>{name}</th>" for name in (t("runs.choose"), "", "method", "base_model", t("runs.accuracy"), "")
    )
    body = "".join(
        f'<tr><td>{escape(row["id"])}</td><td><span class="state {escape(row["state"])}">{t("state." + row["state"])}</span></td>'
        f"<td>{escape(row['method'])} {escape(row['peft'])}</td><td>{escape(row['base_model'])}</td>"
        f"<td>{'' if row['accuracy'] is None else format(row['accuracy'], '.3f')}</td>"
        f"<td>{time.strftime('%Y-%m-%d %H:%M', time.localtime(row['submitted'])) if row['submitted'] else ''}</td></tr>"
        for row in rows
    )
    return f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def scores(value: dict[str, Any] | None, t: Translate) -> str:
    """Scores of the trained model beside the base model and the majority class; per class; confusion."""
    if not value or "tuned" not in value:
        return ""
    tuned = value["tuned"]
    metrics = [
        name
        for name in ("accuracy", "macro_f1", "exact_match", "loss", "perplexity")
        if tuned.get(name) is not None
    ]
    columns = [(name, value[name]) for name in ("tuned", "base", "majority") if value.get(name)]
    head = "".join(f"<th>{t('runs.' + name)}</th>" for name, _ in columns)
    body = "".join(
        f"<tr><th>{metric_name(metric, t)}</th>{''.join(f'<td>{number(column.get(metric))}</td>' for _, column in columns)}</tr>"
        for metric in metrics
    )
    interval = tuned.get("interval")
    spread = f" · {t('runs.accuracy')} 95 %: {interval[0]:.3f}–{interval[1]:.3f}" if interval else ""
    parts = [
        f"<b>{t('runs.scores')}</b> <small>{t('runs.n', n=value.get('n', 0))}{spread}</small>",
        f'<table class="scores"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>',
        per_class(tuned.get("per_class"), t),
        confusion(tuned.get("confusion"), value.get("labels"), t),
    ]
    return f'<div class="card">{"".join(parts)}</div>'


def metric_name(metric: str, t: Translate) -> str:
    return t("runs." + metric) if metric in ("accuracy", "macro_f1", "loss") else metric.replace("_", " ")


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def per_class(classes: dict[str, dict[str, float]] | None, t: Translate) -> str:
    if not classes:
        return ""
    head = "".join(
        f"<th>{t('runs.' + name)}</th>" for name in ("class", "precision", "recall", "f1", "support")
    )
    rows = "".join(
        f"<tr><td>{escape(str(name))}</td><td>{number(row['precision'])}</td><td>{number(row['recall'])}</td>"
        f"<td>{number(row['f1'])}</td><td>{row['support']:.0f}</td></tr>"
        for name, row in classes.items()
    )
    return f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def confusion(matrix: list[list[int]] | None, labels: list[str] | None, t: Translate) -> str:
    """The matrix as a table, shaded by row share; left out beyond 20 classes, where nobody can read it."""
    if not matrix or not labels or len(matrix) > 20:
        return ""
    columns = [*labels, "?"][: len(matrix[0])]
    head = "".join(f"<th>{escape(str(name))}</th>" for name in columns)
    body = ""
    for name, row in zip(columns, matrix, strict=False):
        total = sum(row)
        if not total:
            continue
        cells = "".join(f'<td style="--share:{count / total:.2f}">{count}</td>' for count in row)
        body += f"<tr><th>{escape(str(name))}</th>{cells}</tr>"
    return f'<table class="confusion"><caption>{t("runs.confusion")}</caption><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>'


def values(run: dict[str, Any], reasons: dict[str, Any], t: Translate) -> str:
    """The frozen values of a run, each with the reason that was given when it was planned."""
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(value_text(value))}</td>"
        f"<td>{escape(str((reasons.get(name) or {}).get('because', '')))}</td></tr>"
        for name, value in run.items()
        if value not in (None, "")
    )
    return f'<table class="reasons"><tbody>{rows}</tbody></table>'


def parity(value: dict[str, Any] | None, lang: str, t: Translate) -> str:
    """The verdict of the parity gate: equal answers in llama.cpp and in transformers."""
    if not value:
        return ""
    cause = value.get("cause") or ""
    cause = cause if isinstance(cause, str) else cause.get(lang, "")
    key = "test.parity_ok" if value.get("ready") else "test.parity_bad"
    kind = "ok" if value.get("ready") else "error"
    values = {"same": value["same"], "n": value["rows"]} | ({} if value.get("ready") else {"cause": cause})
    return f'<div class="{kind}">{escape(t(key, **values))}</div>{render_verify.html(value, lang, t)}'
