"""A task's folder, tasks/<task>/: what is to be learned, its data, its configs and its runs.

`tunesmith new` makes it. It holds only what has content; exporting and training add their own folders.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import yaml

from trainer.config import TASK_NAME, UserError, write_atomic

FOLDERS = ("data", "configs", "runs")

_README = """\
# {name}

{description}

- `task_definition.yaml`: what this task is. Fill in what you know; empty lines may stay empty.
- `data/`: your rows: CSV or TSV with text and label, JSONL with messages or prompt and completion.
  `tunesmith data check data/FILE` measures them and names every fault.
- `configs/`: run files, one a plan. `tunesmith recommend --data data/FILE` proposes one with its reasons.
- `runs/`: one folder a run: values, curve, log, checkpoints, weights, scores. `tunesmith train {name}` adds one.

---

- `task_definition.yaml`：任務的定義。知道多少填多少，空白的欄位可以留空。
- `data/`：你的資料：含文字與標籤的 CSV 或 TSV，或含 messages、prompt 與 completion 的 JSONL。
  `tunesmith data check data/檔名` 會量測資料並指出每一個問題。
- `configs/`：訓練設定檔，一個計畫一份。`tunesmith recommend --data data/檔名` 會提出設定並說明理由。
- `runs/`：每次訓練一個資料夾：設定、曲線、紀錄、檢查點、權重與分數。`tunesmith train {name}` 會新增一個。
"""


def new_task(home: Path, name: str, description: str = "", task: str = "", language: str = "") -> Path:
    """Make home/tasks/<name>/. `task` is the kind (classification, …), `language` that of the data.

    Returns the folder. Raises UserError for a name that is no folder name, or one that is taken.
    """
    if not TASK_NAME.fullmatch(name):
        raise UserError(
            f"task name {name[:40]!r}: use 1 to 64 letters, digits, '-' or '_', starting with a letter or digit"
        )
    path = home / "tasks" / name
    if (path / "task_definition.yaml").exists():
        raise UserError(
            f"task {name!r} exists already in {path}; choose another name, or go on with that one"
        )
    for folder in FOLDERS:
        (path / folder).mkdir(parents=True, exist_ok=True)
    definition = {
        "name": name,
        "description": description,
        "task": task or None,
        "language": language or None,
        "created": datetime.date.today().isoformat(),
    }
    write_atomic(
        path / "README.md", _README.format(name=name, description=description).replace("\n\n\n", "\n")
    )
    write_atomic(
        path / "task_definition.yaml", yaml.safe_dump(definition, sort_keys=False, allow_unicode=True)
    )
    return path
