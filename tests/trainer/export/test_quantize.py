"""What eight bits cost is measured on the run's own rows; four bits for GPUs ask for what they need."""

import json

import pytest

from trainer.config import UserError
from trainer.export import export
from trainer.export.gguf import write_gguf
from trainer.export.header import read_header
from trainer.export.quantize import round_weights


def test_q8_0_is_written_and_its_cost_shown(finished):
    folder = finished(labels=True)
    made = export(folder, quantize="q8_0")
    cost = json.loads((folder.path / "export" / "quantized.json").read_text())["q8_0"]
    assert made["quantized"]["q8_0"] == cost
    assert cost["bytes"]["after"] < cost["bytes"]["before"]
    before, after = cost["perplexity"]["before"], cost["perplexity"]["after"]
    assert before != after and after == pytest.approx(before, rel=0.02)
    assert cost["score"]["metric"] == "accuracy" and cost["score"]["n"] == 24 and cost["holds"] is True


def test_raw_text_has_a_perplexity_and_no_score(finished):
    from trainer.data.splits import Splits
    from trainer.data.stage import Staged, freeze

    folder = finished("llama", method="cpt")
    rows = [{"text": "The quick brown fox jumps over 13 lazy dogs."}] * 2
    freeze(Staged(Splits(rows, [], []), {"labels": None}), folder.path / "data")
    cost = export(folder, quantize="q8_0")["quantized"]["q8_0"]
    assert cost["score"] is None and cost["perplexity"]["after"] > 1


@pytest.mark.parametrize("architecture", ["llama", "qwen3moe"])
def test_perplexity_is_of_the_weights_that_the_file_holds(architecture, tiny_model, tmp_path):
    """Llama's reordered rows and stacked experts hold the same rounded values."""
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model(architecture), dtype=torch.float32)
    round_weights(model)
    out = write_gguf(tiny_model(architecture), tmp_path / "q8.gguf", "q8_0")
    tensors = {tensor.name: tensor for tensor in GGUFReader(out).tensors}
    for name, part in (
        ("blk.1.attn_q.weight", "self_attn.q_proj"),
        ("blk.1.attn_v.weight", "self_attn.v_proj"),
    ):
        found = dequantize(tensors[name].data, tensors[name].tensor_type)
        expected = model.model.layers[1].get_submodule(part).weight.detach().numpy()
        assert sorted(found.ravel().tolist()) == sorted(expected.ravel().tolist())
    assert {kind for shape, kind in read_header(out).tensors.values() if len(shape) == 2} <= {
        "Q8_0",
        "F32",
        "F16",
    }


@pytest.mark.parametrize("to", ["gptq", "awq"])
def test_gptq_and_awq_ask_for_a_gpu_before_any_work(to, finished, monkeypatch):
    from trainer import hardware

    folder = finished()
    monkeypatch.setattr(hardware, "probe", lambda: hardware.Hardware())
    with pytest.raises(UserError, match=f"--to {to}: needs an NVIDIA GPU, and this machine has none"):
        export(folder, to=to)
    gpu = hardware.GpuInfo("NVIDIA L40S", 45.0, 45.0, True)
    monkeypatch.setattr(hardware, "probe", lambda: hardware.Hardware(gpus=[gpu]))
    with pytest.raises(UserError, match="pip install gptqmodel"):
        export(folder, to=to)
    assert not (folder.path / "export" / "merged").exists()
