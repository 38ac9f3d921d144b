"""Check the rows of data/<version>/source: shape, empty answers, repeats, overlap of the splits. Status 1 on a fault."""

from __future__ import annotations

import json
import sys
from collections import Counter

from common import ROOT, read_config

config = read_config()
folder = ROOT / config["data"] / "source"
faults: list[str] = []
questions: dict[str, set[str]] = {}

for split in ("train", "eval", "test"):
    seen: Counter[str] = Counter()
    path = folder / f"{split}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    answers: Counter[str] = Counter()
    for number, line in enumerate(lines, 1):
        where = f"{path.relative_to(ROOT)}:{number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            faults.append(f"{where}: not JSON ({error})")
            continue
        missing = [name for name in config["columns"] if name not in row]
        if missing:
            faults.append(f"{where}: no {', '.join(missing)}; a row has {', '.join(config['columns'])}")
            continue
        empty = [
            name
            for name in config["columns"]
            if isinstance(row[name], list | str)
            and not (row[name][-1]["content"] if isinstance(row[name], list) and row[name] else row[name])
        ]
        if empty:
            faults.append(f"{where}: {', '.join(empty)} is empty")
            continue
        seen[json.dumps(row, sort_keys=True, ensure_ascii=False)] += 1
        if config["labels"]:
            answers[row["completion"][-1]["content"]] += 1
        questions.setdefault(split, set()).add(json.dumps(row.get("prompt", row.get("text")), sort_keys=True))
    repeated = sum(count - 1 for count in seen.values())
    print(f"{split}: {len(lines)} rows, {repeated} repeated", dict(answers.most_common()) or "")
    unknown = sorted(set(answers) - set(config["labels"] or answers))
    if unknown:
        faults.append(f"{split}: labels that the config does not name: {', '.join(unknown[:5])}")

for held_out in ("eval", "test"):
    shared = questions.get("train", set()) & questions.get(held_out, set())
    if shared:
        faults.append(f"{len(shared)} questions of {held_out} are in train too: scores would be too good")
if not questions.get("train"):
    faults.append(f"{folder.relative_to(ROOT)}/train.jsonl: no rows")
for fault in faults[:20]:
    print("fault:", fault, file=sys.stderr)
sys.exit(1 if faults else 0)
