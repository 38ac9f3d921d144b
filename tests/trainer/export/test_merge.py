"""A merged model computes what base + adapter compute, or is refused."""

import json
import shutil

import pytest

from trainer.config import UserError
from trainer.export import merge as merging
from trainer.export.merge import merge


def logits_of(path, adapter=None, text="the food was bad and the bed warm"):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    ids = AutoTokenizer.from_pretrained(path)(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        return model.eval()(ids).logits


@pytest.mark.parametrize(
    "lora",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"modules_to_save": ["embed_tokens"]}],
    ids=["lora", "rslora", "dora", "trained embeddings"],
)
def test_the_merged_model_computes_what_base_and_adapter_compute(lora, adapted, tiny_base):
    folder = adapted(lora)
    merged = merge(folder)
    expected = logits_of(tiny_base, folder.path / "adapter")
    assert (logits_of(merged) - expected).abs().max() < 1e-3
    assert (logits_of(tiny_base) - expected).abs().max() > 0.1, "the adapter must do something"
    report = json.loads((folder.path / "export" / "merge.json").read_text())
    assert report["dtype"] == "float32"
    assert report["logit_difference"] < 1e-5


def test_the_merged_folder_is_a_whole_model(adapted):
    from transformers import AutoTokenizer

    merged = merge(adapted())
    names = {file.name for file in merged.iterdir()}
    wanted = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
    }
    assert wanted <= names
    assert AutoTokenizer.from_pretrained(merged).chat_template
    assert not [name for name in names if name.startswith("adapter")]


def test_lora_on_tied_embeddings_is_refused_with_its_cause(adapted):
    folder = adapted({"target_modules": ["embed_tokens", "q_proj"]})
    with pytest.raises(UserError, match="tied to the output"):
        merge(folder)
    assert not (folder.path / "export" / "merged").exists()
    assert [file.name for file in (folder.path / "export").iterdir()] == []


def test_a_merge_that_differs_is_refused(adapted, monkeypatch):
    monkeypatch.setattr(merging, "_difference", lambda *_: float("nan"))
    folder = adapted()
    with pytest.raises(UserError, match="computes something else"):
        merge(folder)
    assert not (folder.path / "export" / "merged").exists()


def test_bf16_bases_stay_bf16(adapted, tiny_base, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    half = tmp_path / "half"
    shutil.copytree(tiny_base, half)
    AutoModelForCausalLM.from_pretrained(half, dtype=torch.bfloat16).save_pretrained(half)
    folder = adapted(base=half)
    merged = merge(folder)
    assert json.loads((merged / "config.json").read_text())["dtype"] == "bfloat16"
    report = json.loads((folder.path / "export" / "merge.json").read_text())
    assert 0 < report["logit_difference"] < merging.TOLERANCE["bfloat16"]


def test_qlora_is_merged_into_the_full_base_and_says_so(adapted):
    folder = adapted(peft="qlora")
    merged = merge(folder)
    assert json.loads((merged / "config.json").read_text())["dtype"] == "float32"
    assert "full-precision base" in json.loads((folder.path / "export" / "merge.json").read_text())["note"]


def test_a_fully_trained_model_is_taken_as_it_is(run_of, tiny_base):
    folder = run_of()
    shutil.copytree(tiny_base, folder.path / "model")
    merged = merge(folder)
    for file in (folder.path / "model").iterdir():
        assert (merged / file.name).read_bytes() == file.read_bytes()
    assert (merged / "model.safetensors").stat().st_ino == (
        folder.path / "model" / "model.safetensors"
    ).stat().st_ino


def test_merging_again_is_free_until_the_weights_change(adapted):
    import os

    folder = adapted()
    first = merge(folder).stat().st_mtime_ns
    assert merge(folder).stat().st_mtime_ns == first
    later = first / 1e9 + 10
    os.utime(folder.path / "adapter", (later, later))
    assert merge(folder).stat().st_mtime_ns != first


def test_a_run_without_weights_is_named(run_of):
    with pytest.raises(UserError, match=r"reviews/v1: has no model/ yet"):
        merge(run_of())
