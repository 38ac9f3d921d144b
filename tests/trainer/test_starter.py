"""The starter model: an ordinary Qwen3 folder with a tokenizer of the task's own text."""

import hashlib
import json

import pytest

from trainer import base
from trainer.config import RunConfig
from trainer.starter import CHAT_TEMPLATE, QWEN2_REGEX, make_starter

TEXTS = ["這間酒店的環境很好，服務態度也不錯", "The room wasn't clean, 3 days in a row!", "a\n\n  b\t😀"] * 40


def starter_config(**changes):
    values = {"starter_hidden_size": 64, "starter_layers": 1, "starter_vocab_size": 500}
    return RunConfig(task="t", base_model="starter", train_file="none", **{**values, **changes})


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    return make_starter(starter_config(), TEXTS, tmp_path_factory.mktemp("starter") / "base")


@pytest.fixture(scope="module")
def tokenizer(starter):
    return base.load_tokenizer(starter)


def test_sizes_are_those_of_the_config(starter, tmp_path):
    sizes = json.loads((starter / "config.json").read_text())
    assert (sizes["hidden_size"], sizes["num_hidden_layers"], sizes["model_type"]) == (64, 1, "qwen3")
    assert sizes["head_dim"] * sizes["num_attention_heads"] == 64
    assert sizes["tie_word_embeddings"] and sizes["dtype"] == "float32"
    larger = make_starter(
        starter_config(starter_hidden_size=96, starter_layers=3, starter_vocab_size=300),
        TEXTS,
        tmp_path / "larger",
    )
    sizes = json.loads((larger / "config.json").read_text())
    assert (sizes["hidden_size"], sizes["num_hidden_layers"], sizes["vocab_size"]) == (96, 3, 300)


def test_transformers_loads_it_and_it_passes_our_own_check(starter):
    from transformers import AutoModelForCausalLM

    assert base.check_folder(starter) == starter
    model = AutoModelForCausalLM.from_pretrained(starter)
    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert model.generation_config.eos_token_id == model.config.eos_token_id


def test_same_texts_sizes_and_seed_give_the_same_bytes(starter, tmp_path):
    again = make_starter(starter_config(), TEXTS, tmp_path / "again")
    other = make_starter(starter_config(seed=7), TEXTS, tmp_path / "other")
    digest = lambda folder, name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for name in ("model.safetensors", "tokenizer.json"):
        assert digest(starter, name) == digest(again, name)
    assert digest(starter, "model.safetensors") != digest(other, "model.safetensors")


def test_the_tokenizer_splits_as_qwen2_does_and_loses_nothing(starter, tokenizer):
    rules = json.loads((starter / "tokenizer.json").read_text())["pre_tokenizer"]["pretokenizers"]
    assert rules[0]["pattern"] == {"Regex": QWEN2_REGEX}
    assert rules[1]["type"] == "ByteLevel" and rules[1]["use_regex"] is False
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    assert QWEN2_REGEX == PRETOKENIZE_REGEX
    for text in [*TEXTS[:3], "unseen: ñ 한국어 \u200b e\u0301"]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_end_and_pad(tokenizer):
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert len(tokenizer("<|im_start|>user\n<|im_end|>")["input_ids"]) == 4  # mark, role, line end, mark


def test_the_template_is_chatml_and_marks_the_answer_with_its_end(starter, tokenizer):
    messages = [
        {"role": "system", "content": "short"},
        {"role": "user", "content": "good?"},
        {"role": "assistant", "content": "yes"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert text == (
        "<|im_start|>system\nshort<|im_end|>\n<|im_start|>user\ngood?<|im_end|>\n<|im_start|>assistant\nyes<|im_end|>\n"
    )
    prompt = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    made = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    marked = [i for i, mask in zip(made["input_ids"], made["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(marked) == "yes<|im_end|>"
    assert (starter / "chat_template.jinja").read_text() == CHAT_TEMPLATE
