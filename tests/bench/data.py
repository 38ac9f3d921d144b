"""A large file checked: seconds, CPU seconds and the most memory of all processes, as JSON.

    python tests/bench/data.py [--rows 1000000] [--bytes 0] [--file FILE] [--against FILE] [--import]

Rows are reviews of about 200 characters with repeats and near repeats among them; --bytes 5000000000 makes rows of
5 KB up to that size instead. The file is made in a temporary folder and removed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
WORDS = [
    f"{stem}{end}"
    for stem in ("ro", "fo", "ba", "ser", "pri", "clea", "stre", "mor", "win")
    for end in ("om", "od", "ce", "vice", "nny", "ted", "et", "ning", "dow")
]
HAN = "房間乾淨早餐豐富服務親切位置方便價格合理隔音很差設備老舊空調太吵櫃台態度冷淡交通便利推薦再來入住體驗舒適浴室漏水"


def row(generator: random.Random, length: int) -> dict[str, str]:
    """A review in Chinese or in English, about `length` characters."""
    if generator.random() < 0.5:
        text = "".join(generator.choices(HAN, k=length // 2))
    else:
        text = " ".join(generator.choices(WORDS, k=length // 6))
    return {"text": text, "label": generator.choice(("good", "bad", "mixed"))}


def make(path: Path, rows: int, size: int, seed: int = 1) -> int:
    """Write the file; returns its rows. Every hundredth row repeats an earlier one, every hundredth nearly does."""
    generator, kept, count = random.Random(seed), [row(random.Random(seed), 200)], 0
    with path.open("w", encoding="utf-8") as file:
        while count < rows or (size and file.tell() < size):
            made = row(generator, 5000 if size else 200)
            if count % 100 == 50:
                made = generator.choice(kept)
            elif count % 100 == 51:
                made = {**generator.choice(kept)}
                made["text"] += "。"
            elif len(kept) < 1000:
                kept.append(made)
            file.write(json.dumps(made, ensure_ascii=False) + "\n")
            count += 1
            if size and count % 1000 == 0 and file.tell() >= size:
                break
    return count


class Watch(threading.Thread):
    """The most memory that this process and its children hold together."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self.over = False

    def run(self) -> None:
        me = psutil.Process()
        while not self.over:
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.most = max(self.most, total)
            time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--file", type=Path, help="check this file instead")
    parser.add_argument("--against", type=Path, help="a test file whose rows are looked for")
    parser.add_argument("--import", dest="imported", action="store_true", help="import the file as well")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, rows = given.file, None
        if path is None:
            path = Path(folder) / "rows.jsonl"
            rows = make(path, 0 if given.bytes else given.rows, given.bytes)
        figures = {"rows": rows, "megabytes": round(path.stat().st_size / 1e6)}
        figures["check"] = measured(lambda: checked(path, given.against))
        if given.imported:
            figures["import"] = measured(lambda: imported(path, Path(folder) / "imported.jsonl"))
    print(json.dumps(figures, ensure_ascii=False))


def checked(path: Path, against: Path | None) -> dict[str, Any]:
    from trainer.data import check

    found = check(path, against)
    return {"read": found.read_rows, "findings": {item.kind: item.rows for item in found.findings}}


def imported(path: Path, out: Path) -> dict[str, Any]:
    from trainer.data.imports import bring_in

    return {"read": bring_in(str(path), out, {}, {}, {}).made.counts["read"]}


def measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the work found, with its seconds, CPU seconds of all processes, and the most memory held at once."""
    watch = Watch()
    watch.start()
    began, cpu = time.perf_counter(), os.times()
    found = work()
    seconds, after = time.perf_counter() - began, os.times()
    watch.over = True
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(sum(after[:4]) - sum(cpu[:4]), 1),
        "most_memory_mb": round(watch.most / 1e6),
        **found,
    }


if __name__ == "__main__":
    main()
