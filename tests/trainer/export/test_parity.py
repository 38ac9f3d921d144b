"""The proof passes for an equal export and names the fault of one that is not."""

import json
import shutil
from dataclasses import asdict

import pytest

from trainer.config import UserError
from trainer.export.gguf import write_gguf
from trainer.export.merge import merge
from trainer.export.parity import check


def exported(folder, change=None):
    """The run's GGUF file, from a copy of its merged model that `change` has spoiled."""
    source = merge(folder)
    if change:
        source = folder.path / "spoiled"
        shutil.copytree(folder.path / "export" / "merged", source)
        change(source)
    write_gguf(source, folder.path / "export" / "model.gguf")
    return folder


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_an_equal_export_is_ready(architecture, finished):
    folder = exported(finished(architecture))
    parity = check(folder)
    assert (parity.rows, parity.same, parity.prompts_same, parity.ready) == (24, 24, 24, True)
    assert parity.compared == "tokens"
    assert parity.split == "test"
    assert 0 < parity.logprob_difference < 0.01
    written = json.loads((folder.path / "export" / "parity.json").read_text(encoding="utf-8"))
    assert written == asdict(parity)


def test_labels_are_compared_as_labels(finished):
    parity = check(exported(finished(labels=True)), rows=10)
    assert (parity.compared, parity.rows, parity.same) == ("labels", 10, 10)


def test_a_wrong_rope_base_is_caught_and_named(finished):
    rope = {"rope_type": "default", "rope_theta": 1000.0}
    folder = exported(finished(), lambda source: edit_json(source / "config.json", rope_parameters=rope))
    parity = check(folder)
    assert not parity.ready
    assert parity.kind == "rope"
    assert "rope" in parity.cause["en"] and "rope" in parity.cause["zh-TW"]


def test_a_slightly_wrong_rope_base_is_caught_where_answers_do_not_show_it(finished):
    rope = {"rope_type": "default", "rope_theta": 1000100.0 * 0.999}
    folder = exported(finished(), lambda source: edit_json(source / "config.json", rope_parameters=rope))
    parity = check(folder)
    assert parity.same == parity.rows
    assert (parity.ready, parity.kind) == (False, "rope")


def test_a_changed_template_is_caught_and_located(finished):
    def shout(source):
        template = (source / "chat_template.jinja").read_text(encoding="utf-8")
        (source / "chat_template.jinja").write_text(
            template.replace("assistant\\n", "assistant \\n"), encoding="utf-8"
        )

    parity = check(exported(finished(), shout))
    assert (parity.ready, parity.kind, parity.prompts_same) == (False, "template", 0)
    prompt = parity.differences[0]["prompt"]
    assert prompt["expected"].startswith("\n")
    assert prompt["found"].startswith(" \n")


def test_a_missing_bos_is_caught_and_named(finished):
    def without_bos(source):
        template = (source / "chat_template.jinja").read_text(encoding="utf-8")
        (source / "chat_template.jinja").write_text(template.replace("{{ bos_token }}", ""), encoding="utf-8")

    parity = check(exported(finished("llama"), without_bos))
    assert (parity.ready, parity.kind, parity.prompts_same) == (False, "bos", 0)


def test_other_merges_are_named_as_the_tokenizer(finished):
    def fewer_merges(source):
        data = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
        data["model"]["merges"] = data["model"]["merges"][:20]
        (source / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")

    parity = check(exported(finished(), fewer_merges))
    assert (parity.ready, parity.kind) == (False, "tokenizer")


def test_other_weights_are_caught(finished):
    def shake(source):
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(source)
        with torch.no_grad():
            model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        for shard in source.glob("*.safetensors*"):
            shard.unlink()
        model.save_pretrained(source)

    parity = check(exported(finished(), shake))
    assert (parity.ready, parity.kind) == (False, "numbers")
    difference = next(found for found in parity.differences if found["kind"] == "numbers")
    assert difference["gap"] > 0.1
    assert difference["found"] != difference["expected"]


def test_a_stop_token_that_only_one_side_knows_is_named(finished):
    def endless(source):
        edit_json(source / "tokenizer_config.json", eos_token="<|im_start|>")
        edit_json(source / "config.json", eos_token_id=1)
        edit_json(source / "generation_config.json", eos_token_id=1)
        # llama.cpp finds <|im_end|> by its name, so this one is called otherwise
        for name in ("tokenizer.json", "chat_template.jinja"):
            text = (source / name).read_text(encoding="utf-8")
            (source / name).write_text(text.replace("<|im_end|>", "<|over|>"), encoding="utf-8")

    folder = finished()
    endless_template = (folder.path / "model" / "chat_template.jinja").read_text(encoding="utf-8")
    (folder.path / "model" / "chat_template.jinja").unlink()
    (folder.path / "model" / "chat_template.jinja").write_text(
        endless_template.replace("<|im_end|>", "<|over|>"), encoding="utf-8"
    )
    text = (folder.path / "model" / "tokenizer.json").read_text(encoding="utf-8")
    (folder.path / "model" / "tokenizer.json").write_text(
        text.replace("<|im_end|>", "<|over|>"), encoding="utf-8"
    )
    edit_json(folder.path / "model" / "tokenizer_config.json", eos_token="<|over|>")
    parity = check(exported(folder, endless))
    assert (parity.ready, parity.kind) == (False, "stop")


def test_raw_text_runs_are_compared_on_their_texts(finished):
    from trainer.data.splits import Splits
    from trainer.data.stage import Staged, freeze

    folder = finished("llama", method="cpt")
    rows = [
        {"text": "The quick brown fox jumps over 13 lazy dogs."},
        {"text": "這家飯店的服務很好，房間也乾淨。"},
    ]
    freeze(Staged(Splits(rows, [], []), {"labels": None}), folder.path / "data")
    parity = check(exported(folder))
    assert (parity.rows, parity.same, parity.split, parity.ready) == (2, 2, "train", True)


def test_a_run_that_was_not_exported_is_told_how(finished):
    folder = finished()
    with pytest.raises(UserError, match="tunesmith export reviews/v1 --to gguf"):
        check(folder)
    merge(folder)
    with pytest.raises(UserError, match=r"model.gguf: no such file"):
        check(folder)
