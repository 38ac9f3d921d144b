"""A sweep's table, its best and its plot, and a repeated run's verdict; for the page and the terminal alike."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd

from trainer import sweeps
from trainer.runs import ENDED
from ui.i18n import Translate
from ui.render import value_text


def score_names(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The scores that a sweep's runs have, the one by which they are ranked first."""
    return [name for name, _ in sweeps.RANKED if any(name in row["scores"] for row in rows)]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def verdict(rows: Sequence[dict[str, Any]], t: Translate) -> list[str]:
    """How far the sweep is, its best run, and what of the difference may be chance."""
    ended = sum(row["state"] in ENDED for row in rows)
    lines = [] if ended == len(rows) else [t("sweep.open", done=ended, total=len(rows))]
    best = sweeps.best(rows)
    if best is None:
        return lines
    row, name = best["row"], t("sweep." + best["score"])
    values = ", ".join(f"{field} {value_text(value)}" for field, value in row["values"].items())
    lines.append(t("sweep.best", run=row["run"], score=name, value=best["value"], values=values))
    if best["margin"]:
        others = ", ".join(best["others"]) or t("sweep.none")
        lines.append(t("sweep.caveat", n=best["n"], margin=best["margin"], others=others))
    else:
        lines.append(t("sweep.caveat_loss"))
    return lines


def table(sweep: Any, rows: Sequence[dict[str, Any]], t: Translate) -> str:
    """The sweep as HTML: a row a run, the best in bold."""
    names = score_names(rows)
    best = sweeps.best(rows)
    heads = ["", "", *sweep.fields, *(t("sweep." + name) for name in names)]
    body = ""
    for row in rows:
        cells = [value_text(row["values"][name]) for name in sweep.fields]
        cells += [number(row["scores"].get(name)) for name in names]
        state = f'<span class="state {row["state"]}">{t("state." + row["state"])}</span>'
        mark = ' class="best"' if best and best["row"] is row else ""
        body += (
            f"<tr{mark}><td>{escape(row['run'])}</td><td>{state}</td>"
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            + "</tr>"
        )
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    said = "".join(f"<p>{escape(line)}</p>" for line in verdict(rows, t))
    return (
        f'<div class="card"><b>{escape(t("sweep.title", id=sweep.id))}</b>{said}'
        f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def points(sweep: Any, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows (x, score, series) of the plot: the first field across, the others as colour. Numbers stay numbers."""
    best = sweeps.best(rows)
    name = best["score"] if best else "accuracy"
    first, rest = sweep.fields[0], sweep.fields[1:]
    found = [
        (value_text(row["values"][first]), row["scores"][name], _rest(row, rest))
        for row in sorted(rows, key=lambda row: str(row["values"][first]))
        if name in row["scores"]
    ]
    frame = pd.DataFrame(found, columns=["x", "score", "series"])
    numbers = pd.to_numeric(frame["x"], errors="coerce")
    x = numbers.astype("float64") if len(frame) and numbers.notna().all() else frame["x"].astype("str")
    return frame.assign(x=x).astype({"score": "float64", "series": "str"})


def _rest(row: dict[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {value_text(row['values'][name])}" for name in names) or "–"


def repeat_text(found: dict[str, Any], t: Translate) -> str:
    """Whether a repeated run ended with the same weights, and what differs where it did not."""
    first, second = found["loss"]
    if found["same"]:
        return t("repeat.same", of=found["of"], loss=number(second))
    what = "; ".join(f"{name} {a} → {b}" for name, (a, b) in found["differs"].items())
    what = what or t("repeat.nothing_known")
    return t("repeat.differs", of=found["of"], loss=number(second), other=number(first), what=what)
