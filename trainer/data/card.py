"""The dataset card of a folder of data files, in Hugging Face's format: front matter, counts, checks, how it was made."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import yaml

from trainer.config import UserError, write_atomic
from trainer.data.check import DataProfile, check
from trainer.data.dividing import SYNTHETIC
from trainer.data.history import steps
from trainer.data.mix import SOURCE
from trainer.data.read import SUFFIXES
from trainer.data.rows import format_of, numbered, shaped
from trainer.data.splits import label_of

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
# Licences that the Hub knows by these names (huggingface.co/docs/hub/repositories-licenses); others are "other".
KNOWN = (
    "apache-2.0 mit openrail bsd bsd-2-clause bsd-3-clause c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 "
    "cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 "
    "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl "
    "agpl-3.0 gpl gpl-2.0 gpl-3.0 lgpl-2.1 lgpl-3.0 gfdl mpl-2.0 odc-by odbl pddl unlicense unknown other"
)
LICENCES = frozenset(KNOWN.split())
LANGUAGES = {"zh-TW": "zh", "zh-CN": "zh", "mixed": "zh"}


def write_card(source: Path, licence: str = "", out: Path | None = None) -> Path:
    """Write README.md for a data file, or for a folder's train, eval and test files; returns its path.

    `licence` is what the data beside it say (licence.py) where none is given.
    """
    source = Path(source)
    folder = source if source.is_dir() else source.parent
    found = [p for p in source.glob("*") if p.suffix in SUFFIXES and p.stem in SPLITS]
    files = [source] if source.is_file() else sorted(found, key=lambda p: list(SPLITS).index(p.stem))
    if not files:
        raise UserError(f"{source}: no data file and no train, eval or test file in it; give one")
    path = Path(out) if out else folder / "README.md"
    profiles = {file: check(file) for file in files}
    licence = licence.strip() or next((one.licence for one in profiles.values() if one.licence), "unknown")
    write_atomic(path, _front_matter(profiles, licence) + _body(folder, profiles, licence))
    return path


def card_text(title: str, files: list[Path], licence: str) -> str:
    """The card of files named by their split, as text: for a repository that others will read."""
    profiles = {file: check(file) for file in files}
    return _front_matter(profiles, licence) + _body(files[0].parent, profiles, licence, title)


def _front_matter(profiles: dict[Path, DataProfile], licence: str) -> str:
    rows = sum(one.rows for one in profiles.values())
    size = next((name for limit, name in SIZES if rows < limit), "n>10M")
    languages = sorted({LANGUAGES.get(one.language, one.language) for one in profiles.values()} - {"other"})
    data_files = [{"split": SPLITS.get(file.stem, "train"), "path": file.name} for file in profiles]
    known = licence.lower() in LICENCES
    splits = [
        {
            "name": SPLITS.get(file.stem, "train"),
            "num_bytes": file.stat().st_size,
            "num_examples": one.read_rows,
        }
        for file, one in profiles.items()
    ]
    document = {
        "license": licence.lower() if known else "other",
        "license_name": ""
        if known
        else re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")[:80] or "unnamed",
        "language": languages,
        "task_categories": sorted({TASKS[one.task] for one in profiles.values() if one.task in TASKS}),
        "size_categories": [size],
        "dataset_info": {"splits": splits},
        "configs": [{"config_name": "default", "data_files": data_files}],
    }
    return f"---\n{yaml.safe_dump({k: v for k, v in document.items() if v}, allow_unicode=True, sort_keys=False)}---\n\n"


def _body(folder: Path, profiles: dict[Path, DataProfile], licence: str, title: str = "") -> str:
    first = next(iter(profiles.values()))
    lines = [f"# {title or folder.resolve().name}", "", f"Licence of the source: {_cell(licence)}.", "", "## Files", "", "| file | rows | format | language | tokens a row (median, 95 %, longest) | SHA-256 |", "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for file, one in profiles.items():
        tokens = f"{one.tokens.p50:,}, {one.tokens.p95:,}, {one.tokens.max:,}"
        lines.append(
            f"| {file.name} | {one.rows:,} | {one.format} | {one.language} | {tokens} | `{one.sha256[:16]}` |"
        )
    if first.labels:
        lines += ["", "## Labels", "", "| label | " + " | ".join(file.name for file in profiles) + " |", "| --- " * (len(profiles) + 1) + "|"]  # fmt: skip
        counted = [_labels(file, one) for file, one in profiles.items()]
        for label in first.labels:
            cells = (f"{counts[label]:,}" for counts in counted)
            lines.append(f"| {_cell(label)} | {' | '.join(cells)} |")
    lines += _origins(profiles)
    lines += ["", "## Checks", ""]
    found = [
        f"- {file.name}: {item.severity}: {item.message['en']}"
        for file, one in profiles.items()
        for item in one.findings
        if item.kind != "licence_unknown" or licence == "unknown"
    ]
    lines += found or ["Nothing was found."]
    made = steps(folder)
    if made:
        lines += ["", "## How it was made", ""]
        for step in made:
            counts = ", ".join(f"{kind.replace('_', ' ')} {count:,}" for kind, count in step.counts.items())
            lines.append(f"- {step.step} of {Path(step.input).name} (`{step.input_sha256[:16]}`): {counts}")
    return "\n".join(lines) + "\n"


def _labels(file: Path, one: DataProfile) -> Counter[str]:
    """Rows by label, also of a part that is too small to tell labels from texts."""
    if one.labels:
        return Counter(one.labels)
    return Counter(
        label_of(row) for _, _, row in shaped(file, Counter(), format_of(file, mend=True), mend=True)
    )


def _origins(profiles: dict[Path, DataProfile]) -> list[str]:
    """Rows by the file that they came from, and those that a model wrote."""
    sources: dict[str, Counter[str]] = {}
    for file, one in profiles.items():
        if not {SOURCE, SYNTHETIC} & set(one.columns):
            continue
        for _, record in numbered(file, Counter(), mend=True):
            for name in ([str(record[SOURCE])] if record.get(SOURCE) else []) + (["written by a model"] if record.get(SYNTHETIC) is True else []):  # fmt: skip
                sources.setdefault(name, Counter())[file.name] += 1
    if not sources:
        return []
    names = [file.name for file in profiles]
    lines = [
        "",
        "## Sources",
        "",
        "| source | " + " | ".join(names) + " |",
        "| --- " * (len(names) + 1) + "|",
    ]
    return lines + [
        f"| {_cell(s)} | {' | '.join(f'{counts[n]:,}' for n in names)} |"
        for s, counts in sorted(sources.items())
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:80]
