"""Compression: what of a passage goes to a model, by tokens and by whether the answer is still in it."""

import json
from pathlib import Path

import pytest

from assistant import compress
from assistant.backends import token_bounds
from assistant.compress import compressed
from assistant.prompts import answering
from assistant.types import Hit

TABLE = """Memory is mostly weights. The table tells what fits.

| Model | QLoRA | LoRA |
| --- | --- | --- |
| Qwen3-4B | 6 GB | 12 GB |
| Qwen3-8B | 9 GB | 20 GB |
| Qwen3-32B | 26 GB | 80 GB |

"""
PADDING = "Coffee grows on hills in Ethiopia, where farmers pick it by hand. " * 12
STEPS = f"""Some words to begin with. {PADDING}

To export a model to GGUF, do this:

1. Merge the adapter.
2. Convert the weights.
3. Check the template.

Other things follow. {PADDING}

Run the merge:

```python
model.merge_and_unload()
```

```bash
echo coffee
```
"""


def words(text: str) -> int:
    return token_bounds(text)[1]


def hit(text: str, heading: str = "") -> Hit:
    return Hit("i", "p", heading, "en", text, 1.0, [])


def test_a_short_passage_goes_in_whole():
    assert (
        compressed(hit("Coffee grows on hills. Use 16."), "What is LoRA?", words, 1000)
        == "Coffee grows on hills. Use 16."
    )


def test_of_a_long_one_the_lead_and_what_bears_on_the_question_in_order():
    text = f"LoRA adds small matrices. {PADDING}The rank of 16 is enough. {PADDING}A rank of 64 suits code."
    found = compressed(hit(text), "Which rank for code?", words, 1000)
    assert found == "LoRA adds small matrices. The rank of 16 is enough. A rank of 64 suits code."


def test_a_table_row_keeps_its_header():
    found = compressed(hit(TABLE + PADDING), "How much memory does QLoRA need for Qwen3-32B?", words, 1000)
    assert "| Model | QLoRA | LoRA |\n" in found and "| Qwen3-32B | 26 GB | 80 GB |" in found
    assert found.startswith("Memory is mostly weights.") and "Coffee" not in found
    assert found.count("| Model |") == 1


def test_what_the_heading_says_need_not_stand_in_the_sentence():
    text = f"It is a setting. {PADDING}Take 16 for most tasks. {PADDING}"
    found = compressed(hit(text, "LoRA › Rank"), "Which LoRA rank for most tasks?", words, 1000)
    assert "Take 16 for most tasks." in found and "Coffee" not in found


def test_a_sentence_that_leans_on_the_one_before_comes_with_it():
    text = f"Words first. {PADDING}QLoRA fits an 8B model on a small card. It takes 9 GB there. {PADDING}"
    found = compressed(hit(text), "What does QLoRA need for 8B?", words, 1000)
    assert "It takes 9 GB there." in found and "Coffee" not in found


def test_a_list_and_code_come_with_the_sentence_that_introduces_them():
    found = compressed(hit(STEPS), "How do I export to GGUF?", words, 1000)
    assert "- Merge the adapter.\n- Convert the weights.\n- Check the template." in found
    assert "Coffee" not in found
    assert "model.merge_and_unload()" in compressed(hit(STEPS), "How do I run the merge?", words, 1000)


def test_another_spelling_of_the_glossary_bears_too():
    text = f"先說明背景。{'咖啡種在山上，農夫用手採收。' * 30}驗證損失上升就是過擬合。"
    assert "過擬合" in compressed(hit(text), "How do I notice overfitting?", words, 1000)


@pytest.mark.parametrize("room", [-5, 0, 10, 40, 120, 5000])
def test_it_never_takes_more_than_its_room_and_the_lead_goes_last(room):
    found = compressed(hit(TABLE + PADDING), "How much memory does QLoRA need for Qwen3-32B?", words, room)
    assert words(found) <= max(room, 1)
    assert not found or found.startswith("Memory is mostly weights.")


def test_code_alone_is_whole_or_not_at_all():
    code = "```\n" + "x = 1\n" * 200 + "```"
    assert compressed(hit(code), "What is x?", words, 5000) == code.strip()
    assert compressed(hit(code), "What is x?", words, 100) == ""


def test_a_prompt_of_six_long_passages_is_a_fraction_of_them():
    hits = [hit(f"{TABLE}{PADDING}The rank of 16 is enough. {PADDING}") for _ in range(6)]
    question = "How much memory does QLoRA need for Qwen3-32B?"
    messages, used = answering(question, hits, "en", 7000, words)
    sent = words(messages[1]["content"])
    assert len(used) == 6 and sent < 0.35 * sum(words(found.text) for found in hits)
    assert messages[1]["content"].count("| Qwen3-32B | 26 GB | 80 GB |") == 6


@pytest.mark.parametrize("name", ["xquad/xquad.en.json", "xquad/xquad.zh.json", "drcd_dev/DRCD_dev.json"])
def test_on_public_questions_the_answer_stays_and_a_third_of_the_tokens_goes(
    name, shared_data: Path, monkeypatch
):
    monkeypatch.setattr(compress, "WHOLE", 0)
    kept = asked = before = after = 0
    for article in json.loads((shared_data / name).read_text(encoding="utf-8"))["data"][:25]:
        for paragraph in article["paragraphs"]:
            qa = paragraph["qas"][0]
            found = compressed(hit(paragraph["context"]), qa["question"], words, 10**6)
            asked += 1
            kept += any(answer["text"] in found for answer in qa["answers"])
            before, after = before + words(paragraph["context"]), after + words(found)
    assert kept >= 0.93 * asked and after <= 0.72 * before, (kept / asked, after / before)
