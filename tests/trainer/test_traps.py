"""What these versions of TRL, PEFT, transformers and bitsandbytes default wrongly, and ours must not fall into."""

import pytest
from building import ROWS, build

from trainer import base
from trainer.config import RunConfig
from trainer.estimate import expert_params, linear_params, memory
from trainer.methods import check


@pytest.fixture(scope="module")
def mixture(tmp_path_factory, tiny_base):
    """A mixture of experts of two layers with the tiny base's tokenizer."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    folder = tmp_path_factory.mktemp("moe") / "base"
    tokenizer = base.load_tokenizer(tiny_base)
    sizes = {
        "hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2,
    }  # fmt: skip
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    Qwen3MoeForCausalLM(Qwen3MoeConfig(vocab_size=len(tokenizer), **sizes, **ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_nf4_leaves_experts_as_they_are_and_run_and_estimate_say_so(config_of, mixture, capsys):
    import torch

    model = base.load_model(mixture, config_of(peft="qlora", precision="bf16"), "cpu")
    kept = {name: weight for name, weight in model.named_parameters() if ".experts." in name}
    assert kept and all(weight.dtype == torch.bfloat16 for weight in kept.values())
    assert model.model.layers[0].self_attn.q_proj.weight.dtype == torch.uint8
    assert "of experts stay in torch.bfloat16" in capsys.readouterr().out
    shape = base.shape_of(mixture)
    held = memory(shape, peft="qlora")["weights"] * 2**30
    assert expert_params(shape) * 2 < held < shape.params_b * 1e9 * 2 and linear_params(shape) > 0


def test_all_linear_trains_experts_but_not_their_router(config_of, mixture, tmp_path):
    trainer = build(config_of(base_model=str(mixture), peft="lora", max_steps=1), tmp_path)
    names = [name for name, weight in trainer.model.named_parameters() if weight.requires_grad]
    assert any("experts" in name for name in names) and not any(".gate." in name for name in names)


@pytest.mark.parametrize("kind", ["qlora", "loftq"])
def test_four_bits_are_nf4_with_double_quantisation_and_compute_in_bf16_where_it_is_had(
    config_of, tiny_base, kind
):
    model = base.load_model(tiny_base, config_of(peft=kind, precision="bf16"), "cpu")
    settings = model.config.quantization_config
    assert (settings.bnb_4bit_quant_type, settings.bnb_4bit_use_double_quant) == ("nf4", True)
    assert "bfloat16" in str(settings.bnb_4bit_compute_dtype)


@pytest.mark.parametrize("method", ["dpo", "kto", "grpo"])
def test_the_reference_beside_full_training_is_not_float32(built, method):
    """TRL loads it in the dtype of the trained weights, which stay float32."""
    import torch

    trainer = built(method=method, precision="bf16", beta=0.1)
    assert trainer.model.dtype == torch.float32 and trainer.ref_model.dtype == torch.bfloat16
    assert built(method=method, peft="lora", precision="bf16", beta=0.1).ref_model is None


def test_a_teacher_is_not_float32(built, tiny_base):
    import torch

    trainer = built(method="distillation", teacher_model=str(tiny_base), precision="bf16", peft="lora")
    assert trainer.teacher_model.dtype == torch.bfloat16


def test_a_new_head_stays_float32_beside_a_frozen_base(built):
    import torch

    for method, changes in (("classify", {"precision": "bf16"}), ("reward", {"peft": "qlora"})):
        trainer = built(method=method, **{"peft": "lora", "evaluation": 0, **changes})
        heads = [
            weight
            for name, weight in trainer.model.named_parameters()
            if "score" in name and weight.requires_grad
        ]
        assert heads and all(weight.dtype == torch.float32 for weight in heads)


def test_loftq_starts_nearer_to_the_unquantised_model_than_plain_nf4(config_of, tiny_base, tmp_path):
    """PEFT's own start leaves out the scale alpha / r, which doubles the correction here."""
    from bitsandbytes.functional import dequantize_4bit

    full = base.load_model(tiny_base, config_of(), "cpu").state_dict()
    lost = {}
    for kind in ("qlora", "loftq"):
        trainer = build(config_of(peft=kind, r=8, lora_alpha=16), tmp_path / kind, evaluation=0)
        layer = trainer.model.base_model.model.model.layers[0].mlp.up_proj
        stored = layer.get_base_layer().weight
        added = layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        started = dequantize_4bit(stored.data, stored.quant_state) + added
        lost[kind] = float((started - full["model.layers.0.mlp.up_proj.weight"]).norm())
    assert lost["loftq"] < 0.8 * lost["qlora"]


def test_targets_are_never_left_to_pefts_own_choice(built):
    """Its default for Llama and Qwen is q and v alone."""
    for kind in ("lora", "adalora", "oft", "ia3", "vera"):
        model = built(peft=kind).model
        names = " ".join(name for name, weight in model.named_parameters() if weight.requires_grad)
        assert all(part in names for part in ("q_proj", "o_proj", "up_proj", "down_proj")), kind


def test_a_reward_model_loses_no_pair_that_is_too_long(built, monkeypatch):
    """TRL drops pairs beyond max_length without a word; ours are cut before."""
    long = [{**row, "prompt": [{"role": "user", "content": "the room " * 80}]} for row in ROWS["pairs"]]
    monkeypatch.setitem(ROWS, "pairs", long)
    assert len(built(method="reward").train_dataset) == len(long)


def test_a_sampled_batch_holds_whole_groups_in_evaluation_as_well(built):
    assert (
        built(
            method="rloo", batch_size=4, gradient_accumulation=4, num_generations=16
        ).args.per_device_eval_batch_size
        == 16
    )


def test_a_value_between_0_and_1_is_a_share_of_the_steps(built):
    assert built(method="dpo", warmup_ratio=0.1).args.get_warmup_steps(200) == 20


def test_check_loads_no_torch(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from trainer.config import RunConfig; from trainer.methods import check; "
        "check(RunConfig(task='t', base_model='a/b', train_file='x', method='grpo')); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
    assert check(RunConfig(task="t", base_model="a/b", train_file="x")).library == "trl.SFTTrainer"
