"""What the command line prints for people: answers, plans, profiles, runs. JSON is printed by the commands."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from assistant.recommend import first_step
from assistant.types import Answer, Hit, Recommendation
from trainer.messages import message
from ui import terminal_runs
from ui.i18n import duration, translator
from ui.render import alternative_text, localised, value_text
from ui.render_plan import fix_label

console = Console(highlight=False)
SCORE_COLUMNS = (
    ("questions", "answered", "gold_in_answer", "gold_in_cited", "refusal_precision", "refusal_recall", "answerable_refused"),
    ("sentences", "citation_precision", "citation_precision_second_judge", "citation_recall", "unsupported", "first_seconds", "seconds"),
)  # fmt: skip
SCORED = ("tuned", "base", "few_shot", "majority")


def table(*columns: str) -> Table:
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        grid.add_column(column, overflow="fold")
    return grid


def source_line(sources: Sequence[dict[str, str]]) -> str:
    return "; ".join(f"{source['name']} ({source['date']}) {source['url']}" for source in sources)


def print_hits(hits: Sequence[Hit]) -> None:
    for hit in hits:
        console.print(f"[bold]{escape(hit.heading)}[/]  [dim]{hit.score:.2f}  {escape(hit.id)}[/]")
        console.print(escape(hit.text))
        if hit.sources:
            console.print(f"[dim]{escape(source_line(hit.sources))}[/]")
        console.print()
    if not hits:
        console.print("nothing found")


def print_answer(answer: Answer) -> None:
    t = translator("en" if answer.lang.startswith("en") else "zh-TW")
    text = answer.text
    for sentence in answer.unsupported:
        text = text.replace(sentence, f"{sentence} ⚠", 1)
    console.print(Markdown(text.replace("[", r"\[")))
    console.print()
    for citation in answer.citations:
        console.print(
            f"[bold]\\[{citation.marker}][/] {escape(citation.heading or citation.page)}: [dim]{escape(citation.quote)}[/]"
        )
        if citation.sources:
            console.print(f"    [dim]{escape(source_line(citation.sources))}[/]")
    if answer.nearest:
        console.print(f"{t('ask.nearest')}: " + "; ".join(escape(hit.heading) for hit in answer.nearest))
    if answer.unsupported:
        console.print(t("ask.unsupported_note"))
    console.print(
        f"[dim]{t('ask.backend')}: {escape(answer.backend)} · {t('ask.seconds', n=answer.seconds)}[/]"
    )


def print_recommendation(plan: Recommendation, lang: str) -> None:
    t = translator(lang)
    console.print(f"[bold]{t('decision.' + plan.decision)}[/]")
    if "decision" in plan.reasons:
        console.print(escape(plan.reasons["decision"].because))
    grid = table(t("plan.field"), t("plan.value"), t("plan.why"))
    for name, reason in plan.reasons.items():
        if name != "decision":
            names = ", ".join(source["name"] for source in reason.citation["sources"])
            grid.add_row(
                name,
                value_text(reason.value),
                f"{escape(reason.because)} [dim]{escape(names)} · {reason.rule}[/]",
            )
    console.print(grid)
    if plan.estimate:
        terms = ", ".join(
            f"{name} {size:.2f}" for name, size in plan.estimate["terms"].items() if size >= 0.005
        )
        total, low, high = (plan.estimate[key] for key in ("total_gb", "low_gb", "high_gb"))
        console.print(
            f"{t('plan.memory')}: [bold]{total:.1f} GB[/] ({t('plan.between', low=f'{low:.1f}', high=f'{high:.1f}')}): {terms}"
        )
        if plan.estimate["total_seconds"]:
            times = (duration(plan.estimate[key], t) for key in ("seconds", "total_seconds"))
            console.print(
                "{}: {}; {}: {}".format(t("plan.time"), *[next(times), t("plan.total_time"), next(times)])
            )
    if plan.fixes:
        console.print(f"[yellow]{t('plan.fixes')}[/]")
        for at, item in enumerate(plan.fixes, 1):
            console.print(
                f"  {at}. [bold]{escape(fix_label(item, t))}[/] {escape(item['because'])} [dim]{item['rule']}[/]"
            )
    for warning in plan.warnings:
        console.print(f"[yellow]{t('plan.warnings')}:[/] {escape(warning)}")
    if step := first_step(plan):
        console.print(f"[bold]{t('plan.first')}[/] {escape(step['because'])} [bold]{step['command']}[/]")
    if plan.plans:
        grid = table("", *(t("plan.preset." + item["name"]) for item in plan.plans))
        for name in ("base_model", "peft", "r", "epochs"):
            grid.add_row(name, *(value_text(item[name]) for item in plan.plans))
        grid.add_row(t("plan.memory"), *(f"{item['memory_gb']:.1f} GB" for item in plan.plans))
        times = (duration(item["seconds"], t) if item["seconds"] else "–" for item in plan.plans)
        grid.add_row(t("plan.time"), *times)
        console.print(grid)
    if plan.ask:
        console.print(f"[bold]{t('plan.ask')}[/] {escape(plan.ask['question'])}")
    for item in plan.alternatives:
        if "command" in item:  # told above
            continue
        console.print(f"{t('plan.alternatives')}: {escape(alternative_text(item, t))}")


def print_profile(profile: Any, lang: str) -> None:
    t = translator(lang)
    grid = table("", "")
    grid.add_row(t("plan.format"), profile.format)
    grid.add_row(t("plan.rows"), f"{profile.rows:,}")
    grid.add_row(t("plan.language"), str(profile.language))
    if profile.tokens:
        grid.add_row(
            t("plan.tokens"), f"{profile.tokens.p50:g} / {profile.tokens.p95:g} / {profile.tokens.max:g}"
        )
        bins = (f"≤ {one['to']:,}: {one['rows']:,}" for one in profile.tokens.histogram)
        grid.add_row(t("data.lengths"), ", ".join(bins))
    if profile.labels:
        grid.add_row(
            t("plan.labels"), ", ".join(f"{name}: {count:,}" for name, count in profile.labels.items())
        )
    if profile.loss_share is not None:
        grid.add_row(t("plan.loss_share"), f"{profile.loss_share:.0%}")
    grid.add_row(t("plan.duplicates"), f"{profile.duplicates:,}")
    console.print(grid)
    for finding in profile.findings:
        print_finding(finding, profile.path, lang)
    if not profile.findings:
        console.print(t("data.clean"))


def print_finding(finding: Any, path: str, lang: str) -> None:
    """One fault: what, where, why, and the command that mends it."""
    colour = {"error": "red", "warning": "yellow", "info": "cyan"}[finding.severity]
    t = translator(lang)
    console.print(f"[{colour}]{t('data.' + finding.severity)}[/] {escape(localised(finding.message, lang))}")
    if finding.lines:
        more = "…" if finding.rows > len(finding.lines) else ""
        places = ", ".join(
            f"{path}:{line}" if at == 0 else f":{line}" for at, line in enumerate(finding.lines)
        )
        console.print(f"    [dim]{escape(places)}{more}[/]")
    if finding.example:
        console.print(f"    [dim]{escape(' '.join(finding.example.split())[:100])}[/]")
    console.print(f"    {escape(localised(finding.why, lang))} [dim]({finding.page})[/]")
    console.print(f"    → {escape(finding.command or localised(finding.fix, lang))}")


def print_masks(found: dict[str, Any]) -> None:
    """Rows as tokens: those that carry loss in colour."""
    for row in found["rows"]:
        if row["part"]:
            console.print(f"[bold]{row['part']}[/]")
        for text, trained in row["pieces"]:
            shown = escape(text)
            console.print(f"[black on green]{shown}[/]" if trained else f"[dim]{shown}[/]", end="")
        carried = sum(label != -100 for label in row["labels"])
        console.print(f"\n[bold]{carried} of {len(row['ids'])} tokens carry loss[/]\n")
    for kind, count in {
        **found["cut"],
        "left out by the trainer": found["left_out"],
        "with BOS or EOS twice": found["doubled"],
    }.items():
        if count:
            console.print(f"{kind.replace('_', ' ')}: {count}")


def print_documents(documents: Sequence[Any]) -> None:
    own = [document for document in documents if document.source != "kb"]
    for document in own:
        days = f"changed {document.modified or '?'}, added {document.ingested}"
        console.print(f"{escape(str(document.source))}  [dim]{document.chunks} passages, {days}[/]")
    console.print(f"{len(own)} documents of yours, {len(documents) - len(own)} pages of the knowledge base")


def print_runs(folders: Sequence[Any]) -> None:
    grid = table("run", "state", "where", "method", "base_model", "accuracy", "submitted")
    for folder in folders:
        status, fault = folder.status(), folder.fault()
        config = None if fault else folder.config()
        accuracy = (folder.scores().get("tuned") or {}).get("accuracy")
        grid.add_row(
            folder.id,
            status["state"],
            status["where"],
            f"{config.method} {config.peft}" if config else "",
            config.base_model if config else escape(fault or ""),
            "" if accuracy is None else f"{accuracy:.3f}",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(status["submitted"] or 0)),
        )
    console.print(
        grid
        if folders
        else "no runs yet; make one: tunesmith recommend --data FILE --save run.yaml, tunesmith train run.yaml"
    )


def print_run(folder: Any, lang: str) -> None:
    status, t = folder.status(), translator(lang)
    stage = t("stage." + status["stage"]) if status.get("stage") else ""
    console.print(
        f"[bold]{folder.id}[/] {t('state.' + status['state'])} {stage} {escape(message(status, lang))}  [dim]{status['where']} {folder.path}[/]"
    )
    if status.get("total_steps"):
        console.print(f"step {status['step']} of {status['total_steps']}")
    terminal_runs.print_live(folder, lang)
    print_scores(folder.scores())
    reasons = folder.reasons()
    grid = table("field", "value", "why")
    for name, value in folder.config().model_dump().items():
        grid.add_row(name, value_text(value), escape(str((reasons.get(name) or {}).get("because", ""))))
    console.print(grid)


def print_scores(scores: dict[str, Any]) -> None:
    if not scores:
        return
    grid = table("", *[name for name in SCORED if scores.get(name)])
    for metric in ("accuracy", "macro_f1", "exact_match", "loss"):
        row = [scores[name].get(metric) for name in SCORED if scores.get(name)]
        if any(value is not None for value in row):
            grid.add_row(metric, *["–" if value is None else f"{value:.3f}" for value in row])
    console.print(grid)


def print_comparison(comparison: dict[str, Any]) -> None:
    first, second = comparison["scores"]
    grid = table("field", first, second)
    for name, (old, new) in comparison["fields"].items():
        grid.add_row(name, value_text(old), value_text(new))
    for metric in ("accuracy", "macro_f1"):
        row = [(scores.get("tuned") or {}).get(metric) for scores in comparison["scores"].values()]
        if any(value is not None for value in row):
            grid.add_row(metric, *["–" if value is None else f"{value:.3f}" for value in row])
    console.print(grid)


def print_rehearsal(found: dict[str, Any], lang: str) -> None:
    """What a rehearsal checked, one line a check; the page beside what is not right."""
    from trainer.rehearse import CHECKS

    t = translator(lang)
    colours = {"ok": "green", "attention": "yellow", "failed": "red", "skipped": "dim"}
    for check in found["checks"]:
        title = CHECKS[check["check"]][0 if lang == "en" else 1]
        state, page = check["state"], "" if check["state"] == "ok" else f" [dim]{check['page']}[/]"
        console.print(
            f"[{colours[state]}]{t('rehearsal.' + state)}[/] {title}: {escape(check['said'][lang])}{page}"
        )
    verdict = t("rehearsal.ready") if found["ready"] else t("rehearsal.not_ready")
    console.print(f"[bold]{verdict}[/] [dim]{found['folder']}, {found['seconds']} s[/]")


class RunPrinter:
    """Follows a run folder on the terminal: one line a change."""

    def __init__(self, folder: Any, quiet: bool = False, kind: str = "train") -> None:
        self.folder, self.quiet, self.kind = folder, quiet, kind
        self.step, self.stage = -1, ""
        self.console = Console(stderr=True, highlight=False, quiet=quiet)

    def update(self) -> dict[str, Any]:
        """Print what is new; return the status."""
        status = self.folder.status(self.kind)
        stage = f"{status['state']} {status.get('stage') or ''}".strip()
        if stage != self.stage:
            self.stage = stage
            self.console.print(f"[bold]{self.folder.id}[/] {stage}")
        if self.kind == "train":
            for row in self.folder.metrics(self.step):
                self.step = row["step"]
                shown = [
                    f"{key} {row[key]:.4g}"
                    for key in ("loss", "eval_loss", "learning_rate")
                    if row.get(key) is not None
                ]
                left = (
                    f"  {duration(status['eta_seconds'], translator('en'))} left"
                    if status.get("eta_seconds")
                    else ""
                )
                self.console.print(
                    f"  {row['step']}/{status.get('total_steps') or '?'}  {'  '.join(shown)}[dim]{left}[/]"
                )
            if status["state"] == "done" and not self.quiet:
                print_scores(self.folder.scores())
        return status


def print_answer_scores(found: dict[str, Any], lang: str) -> None:
    """A set of questions measured (assistant/evaluate.py): one row for all, each language and each kind."""
    t = translator(lang)
    groups = {t("scores.all"): found["all"], **found["by_lang"], **found["by_kind"]}
    for names in SCORE_COLUMNS:
        grid = table("", *(t(f"scores.{name}") for name in names))
        for group, figures in groups.items():
            grid.add_row(escape(group), *(_figure(figures[name]) for name in names))
        console.print(grid)
        console.print()
    console.print(
        f"[dim]{escape(t('scores.note', backends=', '.join(found['models'] or found['backends'])))}[/]"
    )


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, dict):
        return f"{value['p50']:.2f} / {value['p95']:.2f}"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
