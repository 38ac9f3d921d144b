"""What an import did and what it proposes, as lines and as HTML; pure, for the command line and the Data tab."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from ui.i18n import Translate, translator

LONGEST_EXAMPLE = 1500  # characters of the first row that are shown


def report_lines(report: Any, lang: str) -> list[str]:
    """Files, counts, and a line for every row that was left out, mended or cannot be trained on."""
    from trainer.data.findings import faults, finding

    t, made = translator(lang), report.made
    counts = dict(made.counts)
    read, written, trainable = (counts.pop(name) for name in ("read", "written", "trainable"))
    lines = [
        t("import.wrote", file=report.folder / name, n=f"{report.rows[name]:,}", format=made.formats[name])
        for name in made.outputs
    ]
    lines.append(t("import.counts", read=f"{read:,}", written=f"{written:,}", trainable=f"{trainable:,}"))
    for kind, count in counts.items():
        if kind in faults():
            places = ", ".join(report.places.get(kind, []))
            lines.append(finding(kind, count).message[lang] + (f" ({places})" if places else ""))
    lines += [note[lang] for note in report.notes]
    if report.changed:
        lines.append(t("import." + report.changed, before=f"{report.before:,}", now=f"{read:,}"))
    return [*lines, t("import.recorded", record=report.folder / "data_source.yaml")]


def report_html(report: Any, lang: str) -> str:
    """The same for the page."""
    return "".join(f"<div>{escape(line)}</div>" for line in report_lines(report, lang))


def proposal(found: Any, lang: str) -> str:
    """Format and first row of what would be imported, and what is left out."""
    t = translator(lang)
    parts = []
    for name, mapping, first in found.parts:
        head = t("import.proposal", format=mapping.detected.format)
        shown = json.dumps(first, ensure_ascii=False, indent=1)[:LONGEST_EXAMPLE]
        parts.append(
            f"<div><b>{escape(name)}</b> {escape(head)}</div><div class=by>{escape(t('import.first'))}</div><pre>{escape(shown)}</pre>"
        )
    notes = "".join(f"<div class=by>{escape(note[lang])}</div>" for note in found.notes)
    return f'<div class="card">{"".join(parts)}{notes}</div>'


def column_label(column: str, confidence: float | None, t: Translate) -> str:
    """A column with how sure its proposal is."""
    return (
        t("import.column", column=column[:40], confidence=f"{confidence:.2f}")
        if confidence is not None
        else column[:40]
    )
