"""Files in, files out: what `tunesmith data repair|dedupe|redact|convert|split|preview` do. Torch-free.

Each returns a report in lines; history.py keeps the record beside the output.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from trainer.data.convert import Row
from trainer.data.findings import faults
from trainer.data.history import RECORD, Step, run
from trainer.data.read import file_hash
from trainer.data.steps import first_rows, format_of

# What a step counts besides the kinds of findings.yaml, as its report tells it.
TOLD = {
    "texts_mended": ("{n} texts were mended (encoding, NUL, template marks)", "修正了 {n} 段文字（編碼、NUL、範本標記）"),
    "not_sampled": ("{n} rows were not drawn", "{n} 筆沒有抽到"),
    "capped": ("{n} rows were left out to balance the classes", "為平衡類別略過 {n} 筆"),
    "oversampled": ("{n} repeats of rows of the smaller classes were added", "小類別重複了 {n} 筆"),
    "relabelled": ("{n} rows have a new label", "{n} 筆換了標籤"),
    "label_dropped": ("{n} rows of labels that map to nothing were left out", "{n} 筆的標籤對應到空白，已略過"),
    "synthetic": ("{n} synthetic rows, none of them in the test", "{n} 筆合成資料，都不在測試集"),
    "seen_before": ("{n} newer rows whose question an older part holds were left out", "{n} 筆較新的資料問題與舊資料相同，已略過"),
    "in_frozen_test": ("{n} rows that stand, or nearly stand, in the frozen test were left out", "{n} 筆與凍結的測試集相同或近似，已略過"),
    "added": ("{n} accepted rows were added", "加入 {n} 筆已接受的資料"),
    "not_accepted": ("{n} rows were not accepted", "{n} 筆沒有被接受"),
}  # fmt: skip
REST = ("{n} rows of {kind} left out", "略過 {n} 筆（{kind}）")
HEAD = ("{out}: {written} rows{what}, of {read} read", "{out}：讀入 {read} 筆，寫出 {written} 筆{what}")
REPLACED = (
    "the earlier test.jsonl was replaced: scores of the two cannot be compared; --frozen keeps a test file",
    "先前的 test.jsonl 已被取代，兩者的分數無法比較；用 --frozen 可沿用同一份測試集",
)


def make(step: str, path: Path, out: Path, options: dict[str, Any], lang: str = "en", what: str = "") -> str:
    """Run a step of steps.STEPS, record it, and tell in lines what went in and what did not. Raises UserError."""
    made = run(step, path, out, options)
    return _report(made, Path(out), what, 0 if lang.startswith("en") else 1)


def repair_file(path: Path, out: Path, labels: bool = False) -> str:
    """Write the file without its broken lines and useless rows, its encoding mended; `labels` unifies spellings."""
    return make("repair", path, out, {"labels": labels})


def dedupe_file(
    path: Path, out: Path, near: bool = False, inputs: bool = False, against: Path | None = None
) -> str:
    """Write the file without repeats (exact, nearly so, of the same question, or of a test file)."""
    options = {"near": near, "inputs": inputs, "against": str(against) if against else ""}
    return make("dedupe", path, out, options)


def redact_file(path: Path, out: Path) -> str:
    """Write the file with personal data and keys replaced by their names."""
    return make("redact", path, out, {})


def convert_file(path: Path, out: Path, script: str = "") -> str:
    """Write the file's rows as JSONL that TRL takes; returns a report of what went in and what did not."""
    return make("convert", path, out, {"script": script}, what=f" of {format_of(path).format}")


def split_file(
    path: Path, out: Path, test_fraction: float, eval_fraction: float, seed: int, near: bool = False, group: str = "",
    time: str = "", stratify: str = "", frozen: Path | None = None, lang: str = "en",
) -> str:  # fmt: skip
    """Write train.jsonl, eval.jsonl and test.jsonl into the folder `out`; returns their sizes and what was left out."""
    options = {"test_fraction": test_fraction, "eval_fraction": eval_fraction, "seed": seed, "near": near}
    options |= {"group": group, "time": time, "stratify": stratify, "frozen": str(frozen) if frozen else ""}
    test = Path(out) / "test.jsonl"
    before = file_hash(test) if test.is_file() else ""
    made, at = run("split", path, out, options), 0 if lang.startswith("en") else 1
    parts = [f"{name} {made.counts.get(name, 0):,}" for name in ("train", "eval", "test")]
    lines = [f"{out}: {', '.join(parts)}"]
    lines += [TOLD[kind][at].format(n=f"{made.counts[kind]:,}") for kind in TOLD if made.counts.get(kind)]
    if before not in ("", made.outputs["test.jsonl"]):
        lines.append(REPLACED[at])
    return "\n".join(lines)


def preview(path: Path, rows: int) -> list[Row]:
    """The first rows as the trainer gets them, before the chat template."""
    return first_rows(Path(path), rows)


def _report(step: Step, out: Path, what: str, at: int) -> str:
    counts = dict(step.counts)
    read, written = f"{counts.pop('read', 0):,}", f"{counts.pop('written'):,}"
    lines = [HEAD[at].format(out=out, written=written, what=what, read=read)]
    named: dict[str, list[str]] = {}
    for kind, count in counts.items():
        head, _, name = kind.partition(": ")
        if name:
            named.setdefault(head, []).append(f"{name} {count:,}")
        elif kind in TOLD:
            lines.append(TOLD[kind][at].format(n=f"{count:,}"))
        elif kind in faults() and kind not in (
            "repeated_input",
            "invalid_json",
            "schema_mismatch",
            "benchmark_overlap",
        ):
            told = defaultdict(lambda: "…", n=f"{count:,}")
            lines.append(faults()[kind]["message"][("en", "zh-TW")[at]].format_map(told))
        else:
            lines.append(REST[at].format(n=f"{count:,}", kind=kind.replace("_", " ")))
    for head, parts in named.items():
        lines.append(f"{head}: {', '.join(parts[:20])}{' …' if len(parts) > 20 else ''}")
    return "\n".join(
        [*lines, f"recorded in {out.parent / RECORD}" if at == 0 else f"記錄在 {out.parent / RECORD}"]
    )
