"""Adapters kept apart: on a base in llama.cpp, off again, by weight, and combined into one model."""

import json
import shutil

import pytest

from trainer import runs
from trainer.config import UserError
from trainer.export.adapter import write_adapter
from trainer.export.gguf import write_gguf
from trainer.export.llamacpp import LlamaCpp
from trainer.export.merge import combine, merge

IDS = [9, 30, 51, 72, 93, 114]


@pytest.fixture
def on_llama(adapted, tiny_model):
    """A run with a random adapter on the tiny Llama, whose q and k llama.cpp reorders."""

    def make(**lora):
        return adapted(lora, base=tiny_model("llama"))

    return make


def top_of(engine):
    return dict(engine.generate(IDS, max_tokens=1, top=5).top[0])


def close(found, expected):
    return found.keys() == expected.keys() and all(abs(found[t] - expected[t]) < 5e-3 for t in found)


@pytest.mark.parametrize("lora", [{}, {"use_rslora": True}], ids=["lora", "rank-stabilised"])
def test_an_adapter_on_its_base_answers_like_the_merged_model(lora, on_llama, tiny_gguf, tmp_path):
    folder = on_llama(**lora)
    base_gguf = tiny_gguf("llama")
    adapter = write_adapter(folder.path / "adapter", merge_base(folder), tmp_path / "adapter.gguf")
    merged = write_gguf(merge(folder), tmp_path / "merged.gguf")
    with LlamaCpp(merged, n_ctx=64, threads=1) as engine:
        expected = top_of(engine)
    with LlamaCpp(base_gguf, n_ctx=64, threads=1) as engine:
        plain = top_of(engine)
    with LlamaCpp(base_gguf, n_ctx=64, threads=1, adapters=[adapter]) as engine:
        assert close(top_of(engine), plain), "an adapter is off until it is asked for"
        engine.use({0: 1.0})
        assert close(top_of(engine), expected)
        engine.use({0: 0.5})
        assert not close(top_of(engine), expected)
        engine.use({})
        assert close(top_of(engine), plain)
        with pytest.raises(UserError, match="no adapter 1; it has 1"):
            engine.use({1: 1.0})
    assert not close(plain, expected), "the adapter must do something"


def merge_base(folder):
    from trainer import base

    return base.locate(folder.config(), folder.path)


def test_two_adapters_are_switched_on_demand_and_combined_by_weight(on_llama, tiny_gguf, tmp_path):
    """llama.cpp with both adapters at their weights is the model that `combine` writes."""
    first, second = on_llama(), on_llama(r=2, lora_alpha=6)
    files = [write_adapter(f.path / "adapter", merge_base(f), tmp_path / f"{i}.gguf") for i, f in enumerate((first, second))]  # fmt: skip
    report = combine([(first, 0.75), (second, -0.5)], tmp_path / "combined")
    assert report["parts"] == {"reviews/v1": 0.75, "reviews/v2": -0.5} and report["logit_difference"] < 1e-5
    combined = write_gguf(tmp_path / "combined", tmp_path / "combined.gguf")
    with LlamaCpp(combined, n_ctx=64, threads=1) as engine:
        expected = top_of(engine)
    with LlamaCpp(tiny_gguf("llama"), n_ctx=64, threads=1, adapters=files) as engine:
        engine.use({0: 0.75, 1: -0.5})
        assert close(top_of(engine), expected)
        engine.use({1: 1.0})
        assert not close(top_of(engine), expected)
    template = (first.path / "adapter" / "chat_template.jinja").read_text(encoding="utf-8")
    assert (tmp_path / "combined" / "chat_template.jinja").read_text(encoding="utf-8") == template
    assert (tmp_path / "combined" / "generation_config.json").is_file()


def test_a_chat_switches_between_adapters_of_one_base(on_llama, monkeypatch):
    from trainer.export import export
    from ui.chat import open_adapters
    from ui.home import Home

    first, second = on_llama(), on_llama(r=2)
    home = Home(first.path.parents[3])
    with pytest.raises(UserError, match="tunesmith export reviews/v2 --to adapter"):
        export(first, to="adapter")
        with open_adapters(home, [first.id, second.id]):
            pass
    export(second, to="adapter")
    with open_adapters(home, [first.id, second.id]) as (talk, use):
        answers = {}
        for name in (first.id, second.id, "base", first.id):
            use(name)
            text = "".join(talk([{"role": "user", "content": "Hello world"}], max_tokens=12))
            assert answers.setdefault(name, text) == text
        assert len(set(answers.values())) == 3
        with pytest.raises(UserError, match="'v9' is not loaded; choose one of reviews/v1, reviews/v2, base"):
            use("v9")


def test_what_cannot_be_combined_is_named(on_llama, adapted, tmp_path):
    with pytest.raises(UserError, match=r"reviews/v2: its base is .*; use one base"):
        combine([(on_llama(), 1.0), (adapted(), 1.0)], tmp_path / "out")
    dora = runs.RunFolder(adapted({"use_dora": True}, peft="dora").path)
    with pytest.raises(UserError, match="peft dora has no LoRA adapter to combine"):
        combine([(dora, 1.0)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_dora": True}, "use_dora = True has no form"),
        ({"modules_to_save": ["embed_tokens"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"peft_type": "IA3"}, "a IA3 adapter"),
    ],
)
def test_more_than_a_plain_lora_is_sent_to_the_merge(changes, said, on_llama, tmp_path):
    folder = on_llama()
    path = folder.path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=said):
        write_adapter(folder.path / "adapter", merge_base(folder), tmp_path / "out.gguf")
    assert list(tmp_path.glob("*.gguf")) == []


def test_an_adapter_of_another_architecture_is_refused_before_llama_cpp_sees_it(
    on_llama, tiny_gguf, tmp_path
):
    folder = on_llama()
    adapter = write_adapter(folder.path / "adapter", merge_base(folder), tmp_path / "adapter.gguf")
    with pytest.raises(UserError, match="an adapter for llama, not for qwen3"):
        LlamaCpp(tiny_gguf("qwen3"), adapters=[adapter])
    with pytest.raises(UserError, match="it holds a model, not an adapter"):
        LlamaCpp(tiny_gguf("qwen3"), adapters=[tiny_gguf("qwen3")])
    with pytest.raises(UserError, match="it holds a adapter, not a model"):
        LlamaCpp(adapter)
    shutil.rmtree(folder.path / "adapter")
    with pytest.raises(UserError, match="only runs with peft lora or qlora have an adapter"):
        write_adapter(folder.path / "adapter", merge_base(folder), tmp_path / "out.gguf")
