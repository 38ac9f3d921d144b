"""The licence of a data file, where something says it: a column, the card beside it, a licence file.

Nothing is guessed: a text that is not known is told as it stands, and where nothing is said, that.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from trainer.data.findings import Finding, finding

COLUMNS = ("license", "licence", "授權", "许可", "授權條款")
FILES = ("LICENSE", "LICENCE", "COPYING")
# The first line of a licence's text → its name on the Hub.
TITLES = (
    (r"apache license", "apache-2.0"), (r"\bmit license", "mit"), (r"attribution-noncommercial-noderiv", "cc-by-nc-nd-4.0"),
    (r"attribution-noncommercial-sharealike", "cc-by-nc-sa-4.0"), (r"attribution-noncommercial", "cc-by-nc-4.0"),
    (r"attribution-sharealike", "cc-by-sa-4.0"), (r"attribution-noderiv", "cc-by-nd-4.0"), (r"attribution 4\.0", "cc-by-4.0"),
    (r"cc0|public domain", "cc0-1.0"), (r"gnu general public", "gpl"), (r"open data commons attribution", "odc-by"),
)  # fmt: skip
RESTRICTED = re.compile(
    r"\bnc\b|non-?commercial|\bnd\b|no-?deriv|research|academic|evaluation only|非商業|非商用|禁止", re.I
)


def licence_of(path: Path, records: list[tuple[int, dict[str, Any]]]) -> tuple[str, str]:
    """(licence, where it stands), both "" where nothing says it. `records` are the first rows of the file."""
    for column in {name for _, record in records[:100] for name in record if name.lower() in COLUMNS}:
        values = {str(record[column]).strip() for _, record in records if record.get(column)}
        if values:
            return ", ".join(sorted(values)[:3])[:200], f"{path.name}, {column}"
    folder = path.resolve().parent
    if said := _recorded(folder / "data_source.yaml", path.name):
        return said, "data_source.yaml"
    card = folder / "README.md"
    if card.is_file() and (front := _front_matter(card)):
        return front, card.name
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        if file.stem.split("_")[0].upper() in FILES and file.is_file():
            with file.open(encoding="utf-8", errors="replace") as text:
                head = " ".join(text.read(2000).split())
            name = next((name for title, name in TITLES if re.search(title, head, re.I)), head[:60])
            return name, file.name
    return "", ""


def _recorded(record: Path, name: str) -> str:
    """What the source of an imported file said (sources/hub.py, sources/files.py)."""
    try:
        document = yaml.safe_load(record.read_text(encoding="utf-8"))
        found = [one for one in document.get("imports") or [] if name in one.get("outputs", {})]
        return str(found[-1].get("facts", {}).get("licence", ""))[:200] if found else ""
    except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, TypeError):
        return ""  # a damaged record is told by the command that reads it


def _front_matter(card: Path) -> str:
    with card.open(encoding="utf-8", errors="replace") as file:
        head = file.read(20_000)
    parts = re.match(r"---\r?\n(.*?)\n---", head, re.S)
    try:
        found = yaml.safe_load(parts[1]) if parts else None
    except yaml.YAMLError:
        return ""
    said = found.get("license") if isinstance(found, dict) else None
    if said == "other":
        said = found.get("license_name") or said
    said = ", ".join(map(str, said)) if isinstance(said, list) else str(said or "")
    return "" if said == "unknown" else said[:200]


def findings_of_licence(licence: str, where: str) -> list[Finding]:
    """What the licence, or none, means for training."""
    if not licence:
        return [finding("licence_unknown", 0)]
    if RESTRICTED.search(licence.replace("-", " ").replace("_", " ")):
        return [finding("licence_restricted", 0, example=f"{licence} ({where})", licence=licence)]
    return []
