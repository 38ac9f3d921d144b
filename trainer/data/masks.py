"""Which tokens carry loss, row by row: the trainer of the run itself is built in a child process and asked.

masked() is called by the page and by `tunesmith data preview --model`; `python -m trainer.data.masks` is the child,
JSON in, JSON out. The weights are random and few: only the tokenizer, the template and TRL's collator matter here.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from trainer.config import STARTER, RunConfig, UserError

SECONDS = 300
IGNORED = -100  # the label that PyTorch's cross entropy leaves out


def masked(path: Path, config: RunConfig, count: int) -> dict[str, Any]:
    """{"rows": [{"part", "ids", "labels", "pieces": [[text, trained]]}], "left_out", "cut", "doubled"} of the first
    rows.

    `part` is "" or "chosen"/"rejected"; `left_out` counts rows that the trainer drops, `cut` what was shortened to
    max_length. Raises UserError.
    """
    asked = {"path": str(Path(path).absolute()), "config": config.model_dump(mode="json"), "count": count}
    command = [sys.executable, "-m", "trainer.data.masks"]
    root = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=SECONDS, cwd=root
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{path}: the preview took more than {SECONDS} s; ask for fewer rows") from None
    if done.returncode == 2:
        raise UserError(json.loads(done.stdout)["error"])
    if done.returncode:
        raise RuntimeError(f"the preview's process failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main() -> int:
    """The child: what libraries print goes to stderr, the answer alone to stdout."""
    asked = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            answer, status = _measure(Path(asked["path"]), RunConfig(**asked["config"]), asked["count"]), 0
        except UserError as error:
            answer, status = {"error": str(error)}, 2
    print(json.dumps(answer))
    return status


def _measure(path: Path, config: RunConfig, count: int) -> dict[str, Any]:
    from trainer import base
    from trainer.data.convert import contents
    from trainer.data.steps import first_rows
    from trainer.data.tokens import fit
    from trainer.methods import require_trainable

    entry = require_trainable(config.method)
    # A few rows more than asked for: the starter's tokenizer learns from them.
    rows = first_rows(path, max(count, 200), config.method, config.system_prompt, config.instruction)
    config = config.model_copy(
        update={
            "peft": "full",
            "device": "cpu",
            "precision": "fp32",
            "packing": False,
            "early_stopping_patience": 0,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        model_path = _small_model(
            config, [text for row in rows for text in contents(row)], Path(folder) / "base"
        )
        tokenizer = base.load_tokenizer(model_path)
        fitted, cut = fit(rows[:count], tokenizer, config.max_length)
        model = base.load_model(model_path, config, "cpu")
        trainer = entry.build(config, model, tokenizer, fitted, [], Path(folder) / "out", "cpu", [])
        found = [
            one for example in trainer.train_dataset for one in read_batch(trainer.data_collator([example]))
        ]
        lost = len(fitted) - len(trainer.train_dataset)
    for one in found:
        one["pieces"] = _pieces(one["ids"], one["labels"], tokenizer)
    doubled = sum(doubles(one["ids"], tokenizer.bos_token_id, tokenizer.eos_token_id) for one in found)
    return {"rows": found, "left_out": lost, "cut": dict(cut), "doubled": doubled}


def doubles(ids: list[int], bos: int | None, eos: int | None) -> bool:
    """Whether a sequence begins with BOS twice or ends with EOS twice (which may be one and the same token)."""
    twice = lambda pair, mark: mark is not None and pair == [mark, mark]
    return twice(ids[:2], bos) or twice(ids[-2:], eos)


def _small_model(config: RunConfig, texts: list[str], out: Path) -> Path:
    from trainer.miniature import make_miniature
    from trainer.starter import make_starter

    if config.base_model == STARTER:
        return make_starter(
            config.model_copy(update={"starter_hidden_size": 32, "starter_layers": 1}), texts, out
        )
    made = make_miniature(config, texts, out)
    if not made.own_tokenizer:
        raise UserError(made.why or f"base_model {config.base_model!r}: its tokenizer is not on this machine")
    return out


def read_batch(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Ids and labels of each sequence that a collator of TRL made, without its padding."""
    ids = batch["input_ids"]
    labels = batch.get("labels")
    if labels is None:
        labels = ids.masked_fill(batch["completion_mask"] == 0, IGNORED)
    names = ("chosen", "rejected") if len(ids) == 2 else ("",) * len(ids)
    attended = batch.get("attention_mask")
    rows = []
    for at, name in enumerate(names):
        kept = attended[at].bool() if attended is not None else slice(None)
        rows.append({"part": name, "ids": ids[at][kept].tolist(), "labels": labels[at][kept].tolist()})
    return rows


def _pieces(ids: list[int], labels: list[int], tokenizer: Any) -> list[list[Any]]:
    """[text, whether it carries loss] of tokens, joined until a character is whole."""
    pieces: list[list[Any]] = []
    waiting: list[int] = []
    for at, (token, label) in enumerate(zip(ids, labels, strict=True)):
        waiting.append(token)
        text = tokenizer.decode(waiting)
        last = at + 1 == len(ids) or (labels[at + 1] == IGNORED) != (label == IGNORED)
        if not text.endswith("\ufffd") or last or len(waiting) > 4:
            pieces.append([text, label != IGNORED])
            waiting = []
    return pieces


if __name__ == "__main__":
    sys.exit(main())
