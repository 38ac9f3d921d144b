"""The tables hold true figures: shapes multiply out, methods and fields exist, wording is right for its reader."""

import importlib.util
import re
from pathlib import Path
from typing import get_args

import pytest

from assistant.rules import evaluate
from assistant.types import Task
from kb.facts import by_id, table
from kb.pages import KB_DIR, LANGS
from trainer import config
from trainer.methods import METHODS

MODELS = table("models")
# Cards whose layers hold more than attention, MLP and norms: the configuration class of transformers and what it
# needs beside the card's sizes. Their modules are counted instead, without memory (the meta device).
OWN_MODULES = {
    **{f"qwen3.5-{size}": ("Qwen3_5TextConfig", {"linear_num_value_heads": 16}) for size in ("0.8b", "2b")},
    **{f"qwen3.5-{size}": ("Qwen3_5TextConfig", {"linear_num_value_heads": 32}) for size in ("4b", "9b")},
    **{f"qwen3.{v}-27b": ("Qwen3_5TextConfig", {"linear_num_value_heads": 48}) for v in (5, 6, 8)},
    **{f"qwen3.{v}-35b-a3b": ("Qwen3_5MoeTextConfig", {"shared_expert_intermediate_size": 512}) for v in (5, 6)},
    "qwen3-next-80b-a3b-instruct": ("Qwen3NextConfig", {"shared_expert_intermediate_size": 512}),
    "deepseek-v3": ("DeepseekV3Config", {}),
    "muse-glimmer-30b": ("MuseGlimmerTextConfig", {}),
    "gemma4-e2b-it": ("Gemma4TextConfig", {"hidden_size_per_layer_input": 256, "num_kv_shared_layers": 20, "use_double_wide_mlp": True, "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7}),
    "gemma4-e4b-it": ("Gemma4TextConfig", {"hidden_size_per_layer_input": 256, "num_kv_shared_layers": 18}),
    "gemma4-12b-it": ("Gemma4TextConfig", {"hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1}),
    "gemma4-31b-it": ("Gemma4TextConfig", {"hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 4}),
    "gemma4-26b-a4b-it": ("Gemma4TextConfig", {"hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 2, "enable_moe_block": True}),
}  # fmt: skip
DENSE_FIRST = {"deepseek-v3": 3}  # layers before those with experts


def counted(card) -> int:
    """Parameters of transformers' text model with the card's sizes and its head."""
    import torch
    import transformers

    name, more = OWN_MODULES[card.id]
    sizes = {
        "hidden_size": card.hidden, "num_hidden_layers": card.layers, "num_attention_heads": card.heads,
        "num_key_value_heads": card.kv_heads, "intermediate_size": card.ffn, "vocab_size": card.vocab,
    }  # fmt: skip
    if card.id != "deepseek-v3":  # its head is made of a latent part and a rotary one
        sizes["head_dim"] = card.head_dim
    if card.experts:
        experts = "n_routed_experts" if card.id == "deepseek-v3" else "num_experts"
        sizes |= {experts: card.experts, "moe_intermediate_size": card.expert_ffn}
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(getattr(transformers, name)(**sizes, **more))
    head = 0 if card.tied else card.vocab * card.hidden
    return sum(weight.numel() for weight in model.parameters()) + head


def parameters(card) -> int:
    """Parameters from the shape: embedding + layers x (attention + MLP + norms) + head."""
    query, key = card.heads * card.head_dim, card.kv_heads * card.head_dim
    attention = card.hidden * (2 * query + 2 * key)
    if card.experts:
        mlp = card.experts * 3 * card.hidden * card.expert_ffn + card.hidden * card.experts
    else:
        mlp = 3 * card.hidden * card.ffn
    head = card.vocab * card.hidden
    return head * (1 if card.tied else 2) + card.layers * (attention + mlp + 2 * card.hidden) + card.hidden


def lora_parameters(card, r: int) -> int:
    """Adapters on all linear layers: r x (2(h+q) + 2(h+kv) + 3(h+ff)) a layer."""
    query, key = card.heads * card.head_dim, card.kv_heads * card.head_dim
    each = 2 * (card.hidden + query) + 2 * (card.hidden + key) + 3 * (card.hidden + card.ffn)
    return r * card.layers * each


@pytest.mark.parametrize("card", MODELS, ids=lambda card: card.id)
def test_a_models_shape_multiplies_out_to_its_size(card):
    if card.id in OWN_MODULES:
        assert counted(card) == pytest.approx(card.params_b * 1e9, rel=1e-5)
    else:
        assert parameters(card) == pytest.approx(card.params_b * 1e9, rel=0.02)


@pytest.mark.parametrize(
    ("id", "exact"),
    [("qwen3-4b", 4_022_468_096), ("qwen3-8b", 8_190_735_360), ("llama3.1-8b-instruct", 8_030_261_248)],
)
def test_sizes_agree_with_the_counts_measured_on_the_real_checkpoints(id, exact):
    assert by_id("models")[id].params_b * 1e9 == pytest.approx(exact, abs=5e3)
    assert parameters(by_id("models")[id]) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize(
    ("id", "r", "millions"),
    [
        ("qwen3-4b", 16, 33.0),
        ("qwen3-4b", 128, 264.2),
        ("qwen3-8b", 64, 174.6),
        ("llama3.1-8b-instruct", 16, 41.9),
        ("llama3.1-8b-instruct", 32, 83.9),
    ],
)
def test_adapter_sizes_from_the_shapes_agree_with_those_measured_by_peft(id, r, millions):
    assert lora_parameters(by_id("models")[id], r) / 1e6 == pytest.approx(millions, abs=0.06)


def test_experts_that_a_token_uses_give_the_active_size():
    for card in MODELS:
        if card.experts:
            idle = 3 * card.hidden * card.expert_ffn * (card.experts - card.experts_per_token)
            used = card.params_b * 1e9 - (card.layers - DENSE_FIRST.get(card.id, 0)) * idle
            # Makers count the input embedding, or leave it out.
            assert (used - card.vocab * card.hidden) * 0.99 <= card.active_b * 1e9 <= used * 1.01, card.id
        else:
            assert card.active_b is None


def test_there_are_models_for_every_task_and_for_small_machines():
    assert len(MODELS) >= 48
    assert {task for card in MODELS for task in card.good_for} == set(get_args(Task))
    assert sum(card.params_b < 2 and "zh" in card.languages for card in MODELS) >= 2
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", card.hub_id) for card in MODELS)


def test_a_superseding_model_is_not_older():
    for card in MODELS:
        if card.superseded_by:
            assert by_id("models")[card.superseded_by].released >= card.released


def test_methods_are_those_of_runconfig_and_each_has_a_class_in_the_installed_library():
    assert [row.id for row in table("methods")] == list(METHODS)
    for row in table("methods"):
        package, _, name = row.library.rpartition(".")
        library, *inner = package.split(".")
        folder = Path(importlib.util.find_spec(library).origin).parent.joinpath(
            *inner
        )  # imports nothing heavy
        file = folder / ("models/auto/modeling_auto.py" if library == "transformers" else "__init__.py")
        assert name in file.read_text(encoding="utf-8"), row.library
        assert (row.status == "experimental") == (".experimental." in row.library)


def test_cards_without_bf16_have_no_bf16_rate_and_fp8_came_after_bf16():
    for gpu in table("gpus"):
        assert gpu.bf16 == (gpu.bf16_tflops is not None), gpu.id
        assert gpu.bf16 or not gpu.fp8, gpu.id
    assert {gpu.id for gpu in table("gpus") if not gpu.bf16} == {
        "t4",
        "v100-16gb",
        "v100-32gb",
        "p100",
        "rtx-2080-ti",
    }
    assert len(table("gpus")) >= 38


def test_every_remedy_changes_a_run_into_one_that_runconfig_accepts():
    run = config.RunConfig(task="t", base_model="Qwen/Qwen3-4B", train_file="rows.jsonl")
    assert len(table("symptoms")) >= 14
    for symptom in table("symptoms"):
        for remedy in symptom.remedies:
            change = {key: evaluate(value, run.model_dump()) for key, value in remedy.change.items()}
            assert config.RunConfig.model_validate({**run.model_dump(), **change}), (symptom.id, change)


def test_remedies_stand_best_first():
    """No remedy stands after one that does less and costs as much, or costs more and does as little."""
    order = ["low", "medium", "high"]
    for symptom in table("symptoms"):
        ranks = [(order.index(one.effect), -order.index(one.cost)) for one in symptom.remedies]
        for at, (effect, thrift) in enumerate(ranks):
            better = [
                later
                for later in ranks[at + 1 :]
                if later != (effect, thrift) and later[0] >= effect and later[1] >= thrift
            ]
            assert not better, (symptom.id, symptom.remedies[at].text.en)


def test_the_remedy_for_too_little_preference_effect_is_a_lower_beta_not_a_higher():
    collapse = by_id("symptoms")["dpo-collapse"]
    [raised] = [remedy for remedy in collapse.remedies if "beta" in remedy.change]
    assert evaluate(raised.change["beta"], {"beta": 0.1}) > 0.1  # closer to the reference
    assert "lower it" in raised.text.en


def test_the_glossary_is_large_and_says_each_term_in_the_words_of_its_readers():
    from opencc import OpenCC

    rows = table("glossary")
    assert len(rows) >= 400
    simplify, traditional = OpenCC("t2s"), OpenCC("s2tw")
    for row in rows:
        assert simplify.convert(row.zh_CN) == row.zh_CN, row.en
        assert traditional.convert(row.zh_TW) == row.zh_TW, row.en


@pytest.mark.parametrize("lang", LANGS)
def test_every_group_of_the_glossary_has_its_table_on_the_page(lang):
    text = (KB_DIR / "pages" / "guides" / f"glossary.{lang}.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- facts: glossary group=(\w+) -->", text)
    assert sorted(shown) == sorted({row.group for row in table("glossary")})


def test_chinese_for_taiwan_uses_no_mainland_terms():
    mainland = re.compile("數據|信息|顯存|內存|優化器|默認|軟件|網絡|質量|過拟|分布式|服務器|字節")
    for name in ("models", "methods", "symptoms", "rules"):
        for row in table(name):
            for text in _texts(row.model_dump()):
                assert not mainland.search(text), (name, row.id, text)
    for row in table("glossary"):
        assert not mainland.search(row.zh_TW), row.en


@pytest.mark.parametrize(
    ("english", "taiwan", "mainland", "other"),
    [
        ("overfitting", "過擬合", "过拟合", "過度擬合"),
        ("GPU memory", "顯示卡記憶體", "显存", "VRAM"),
        ("learning rate", "學習率", "学习率", "learning_rate"),
        ("data", "資料", "数据", "數據"),
        ("prompt engineering", "提示工程", "提示工程", "prompting"),
        ("quantization", "量化", "量化", "4-bit"),
    ],
)
def test_the_glossary_joins_the_spellings_of_a_term(english, taiwan, mainland, other):
    row = by_id("glossary")[english]
    assert (row.zh_TW, row.zh_CN) == (taiwan, mainland)
    assert other in row.also


def _texts(value) -> list[str]:
    """Traditional Chinese texts anywhere in a dumped row."""
    if isinstance(value, dict):
        return (
            [value["zh_TW"]]
            if "zh_TW" in value
            else [text for part in value.values() for text in _texts(part)]
        )
    return [text for part in value for text in _texts(part)] if isinstance(value, list | tuple) else []
