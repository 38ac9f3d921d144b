"""Asking a trained model: the messages are those that it was trained on."""

from __future__ import annotations

from types import SimpleNamespace

from trainer.config import from_dict
from trainer.data.stage import load_rows
from ui.chat import task_messages


def test_a_question_is_put_as_the_rows_of_training_were(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("text,label\nThe room was clean.,good\nThe bed was hard.,bad\n")
    config = from_dict(
        {
            "task": "reviews", "base_model": "starter", "peft": "full", "train_file": str(file),
            "instruction": "Good or bad?", "system_prompt": "You judge hotels.",
        }
    )  # fmt: skip
    trained = load_rows(file, config)[0]["prompt"]
    asked = task_messages(
        SimpleNamespace(config=lambda: config), [{"role": "user", "content": "The room was clean."}]
    )
    assert asked == trained
