"""Run the Python blocks of a page as a reader would, in a folder that holds what they name.

`python tests/kb/code_blocks.py kb/pages/methods/kto.en.md …` runs the given pages; tests/kb/test_code.py runs all.
A fence with the info string `python` is run; any further word in it marks an excerpt of another project's interface.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^(```|~~~)python[ \t]*\n(.*?)^\1[ \t]*$", re.DOTALL | re.MULTILINE)
MODEL = "Qwen/Qwen3-0.6B"  # a folder of this name stands for the model of the Hub
ROWS = 16


def blocks(text: str) -> list[tuple[int, str]]:
    """(line of the fence, code) of each block that is to run."""
    return [(text.count("\n", 0, found.start()) + 1, found[2]) for found in BLOCK.finditer(text)]


def furnish(folder: Path) -> None:
    """A tiny Qwen3 under the Hub's name, and rows of every format that the pages train on."""
    sys.path.insert(0, str(ROOT))
    from trainer.config import RunConfig
    from trainer.starter import make_starter

    texts = [
        f"第 {index} 間酒店的房間很乾淨。 Room {index} was clean, staff were kind." for index in range(ROWS)
    ]
    config = RunConfig(
        task="pages", base_model="starter", train_file="none",
        starter_hidden_size=32, starter_layers=2, starter_vocab_size=600,
    )  # fmt: skip
    make_starter(config, texts, folder / MODEL)
    questions = [f"Is review {index} positive? {text}" for index, text in enumerate(texts)]
    good, bad = " yes", " no"
    message = lambda role, content: {"role": role, "content": content}
    rows = {
        "train": [{"messages": [message("user", one), message("assistant", "yes")]} for one in questions],
        "prompt_completion": [{"prompt": one, "completion": good} for one in questions],
        "pairs": [{"prompt": one, "chosen": good, "rejected": bad} for one in questions],
        "thumbs": [
            {"prompt": one, "completion": bad if index % 2 else good, "label": index % 2 == 0}
            for index, one in enumerate(questions)
        ],
        "prompts": [{"prompt": f"What is {index} + 1?", "answer": str(index + 1)} for index in range(ROWS)],
        "corpus": [{"text": text} for text in texts],
    }
    for name, content in rows.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in content]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = ["label\ttext_a", *(f"{index % 2}\t{text}" for index, text in enumerate(texts))]
    (folder / "reviews.tsv").write_text("\n".join(table) + "\n", encoding="utf-8")


def run(page: Path, folder: Path) -> str | None:
    """Run a page's blocks in order, in one namespace. None, or where it failed and how."""
    names: dict = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        for line, code in blocks(page.read_text(encoding="utf-8")):
            try:
                exec(compile("\n" * line + code, page.name, "exec"), names)  # so that lines are the page's
            except Exception:
                return traceback.format_exc(limit=-3)
    finally:
        os.chdir(before)
    return None


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    with tempfile.TemporaryDirectory() as made:
        furnish(Path(made))
        failed = {
            page: fault for page in map(Path, sys.argv[1:]) if (fault := run(page.resolve(), Path(made)))
        }
    for page, fault in failed.items():
        print(f"{page}: {fault}", file=sys.stderr)
    raise SystemExit(bool(failed))
