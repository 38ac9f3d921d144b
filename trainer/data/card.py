"""The dataset card of a folder of data files, in Hugging Face's format: front matter, counts, checks, how it was made."""

from __future__ import annotations

from pathlib import Path

import yaml

from trainer.config import UserError, write_atomic
from trainer.data.check import DataProfile, check
from trainer.data.history import steps
from trainer.data.read import SUFFIXES

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)
TASKS = {
    "classification": "text-classification", "ner": "token-classification", "chat": "text-generation",
    "generation": "text-generation", "tool-use": "text-generation", "domain-knowledge": "text-generation",
    "preference": "text-generation",
}  # fmt: skip
SPLITS = {
    "train": "train",
    "eval": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
LANGUAGES = {"zh-TW": "zh", "zh-CN": "zh", "mixed": "zh"}


def write_card(source: Path, licence: str = "unknown", out: Path | None = None) -> Path:
    """Write README.md for a data file, or for a folder's train, eval and test files; returns its path."""
    source = Path(source)
    folder = source if source.is_dir() else source.parent
    found = [p for p in source.glob("*") if p.suffix in SUFFIXES and p.stem in SPLITS]
    files = [source] if source.is_file() else sorted(found, key=lambda p: list(SPLITS).index(p.stem))
    if not files:
        raise UserError(f"{source}: no data file and no train, eval or test file in it; give one")
    path = Path(out) if out else folder / "README.md"
    profiles = {file: check(file) for file in files}
    write_atomic(path, _front_matter(profiles, licence) + _body(folder, profiles))
    return path


def _front_matter(profiles: dict[Path, DataProfile], licence: str) -> str:
    rows = sum(one.rows for one in profiles.values())
    size = next((name for limit, name in SIZES if rows < limit), "n>10M")
    languages = sorted({LANGUAGES.get(one.language, one.language) for one in profiles.values()} - {"other"})
    data_files = [{"split": SPLITS.get(file.stem, "train"), "path": file.name} for file in profiles]
    document = {
        "license": licence,
        "language": languages,
        "task_categories": sorted({TASKS[one.task] for one in profiles.values() if one.task in TASKS}),
        "size_categories": [size],
        "configs": [{"config_name": "default", "data_files": data_files}],
    }
    return f"---\n{yaml.safe_dump({k: v for k, v in document.items() if v}, allow_unicode=True, sort_keys=False)}---\n\n"


def _body(folder: Path, profiles: dict[Path, DataProfile]) -> str:
    first = next(iter(profiles.values()))
    lines = [f"# {folder.resolve().name}", "", "## Files", "", "| file | rows | format | language | tokens a row (median, 95 %, longest) | SHA-256 |", "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for file, one in profiles.items():
        tokens = f"{one.tokens.p50:,}, {one.tokens.p95:,}, {one.tokens.max:,}"
        lines.append(
            f"| {file.name} | {one.rows:,} | {one.format} | {one.language} | {tokens} | `{one.sha256[:16]}` |"
        )
    if first.labels:
        lines += ["", "## Labels", "", "| label | " + " | ".join(file.name for file in profiles) + " |", "| --- " * (len(profiles) + 1) + "|"]  # fmt: skip
        for label in first.labels:
            cells = (f"{(one.labels or {}).get(label, 0):,}" for one in profiles.values())
            lines.append(f"| {_cell(label)} | {' | '.join(cells)} |")
    lines += ["", "## Checks", ""]
    found = [
        f"- {file.name}: {item.severity}: {item.message['en']}"
        for file, one in profiles.items()
        for item in one.findings
    ]
    lines += found or ["Nothing was found."]
    made = steps(folder)
    if made:
        lines += ["", "## How it was made", ""]
        for step in made:
            counts = ", ".join(f"{kind.replace('_', ' ')} {count:,}" for kind, count in step.counts.items())
            lines.append(f"- {step.step} of {Path(step.input).name} (`{step.input_sha256[:16]}`): {counts}")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:80]
