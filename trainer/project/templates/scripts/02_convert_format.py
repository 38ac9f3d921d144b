"""Rows of data/<version>/source in the form that TRL trains on → data/<version>/{train,eval,test}.jsonl.

A row may be in that form already, or hold texts: prompt and completion, or text and label.
"""

from __future__ import annotations

import json

from common import ROOT, read_config, read_rows

config = read_config()


def messages(row: dict) -> dict:
    """One row with its texts as chat messages; raw text stays."""
    if "text" in row and "label" in row and config["columns"] == ["prompt", "completion"]:
        row = {"prompt": row["text"], "completion": str(row["label"])}
    made = dict(row)
    if isinstance(row.get("prompt"), str):
        asked = "\n".join(part for part in (config["instruction"], row["prompt"]) if part)
        system = [{"role": "system", "content": config["system_prompt"]}] if config["system_prompt"] else []
        made["prompt"] = [*system, {"role": "user", "content": asked}]
    for ending in ("completion", "chosen", "rejected"):
        if isinstance(row.get(ending), str):
            made[ending] = [{"role": "assistant", "content": row[ending]}]
    return made


for split in ("train", "eval", "test"):
    rows = [messages(row) for row in read_rows(ROOT / config["data"] / "source" / f"{split}.jsonl")]
    out = ROOT / config["data"] / f"{split}.jsonl"
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{out.relative_to(ROOT)}: {len(rows)} rows")
