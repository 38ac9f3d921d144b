"""Every field of RunConfig reaches the trainer, and every method trains."""

import math
import shutil

import pytest

from trainer import base
from trainer.config import RunConfig, UserError
from trainer.data.stage import stage
from trainer.data.tokens import fit
from trainer.methods import METHODS, require_trainable
from trainer.methods.unpaired import class_weights


def message(role, content):
    return {"role": role, "content": content}


def turns(count=16):
    return [
        {
            "prompt": [message("user", f"was the room {'good' if i % 2 else 'bad'} number {i}")],
            "completion": [message("assistant", "yes" if i % 2 else "no")],
        }
        for i in range(count)
    ]


ROWS = {
    "turns": turns(),
    "text": [{"text": f"the room was good and the food number {i} was cold"} for i in range(16)],
    "pairs": [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": [message("assistant", "what")]}
        for row in turns()
    ],
    "verdicts": [{**row, "label": bool(i % 3)} for i, row in enumerate(turns())],
}


@pytest.fixture
def built(config_of, tmp_path):
    """The TRL trainer of a config on rows of its method's shape."""
    return lambda evaluation=4, **changes: build(config_of(**changes), tmp_path, evaluation)


def build(config, folder, evaluation=4):
    entry = require_trainable(config.method)
    path = base.locate(config, folder)
    tokenizer = base.load_tokenizer(path)
    rows, _ = fit(ROWS[entry.shape], tokenizer, config.max_length)
    model = base.load_model(path, config, "cpu")
    return entry.build(config, model, tokenizer, rows, rows[:evaluation], folder / "out", "cpu", [])


DEFAULT = {}


@pytest.fixture
def default(config_of, tmp_path_factory):
    """The trainer of the unchanged config, made once."""
    if not DEFAULT:
        DEFAULT["trainer"] = build(config_of(), tmp_path_factory.mktemp("default"))
    return DEFAULT["trainer"]


# field: (a value that is not the default, what must then hold of the trainer)
ARGUMENTS = {
    "seed": (7, lambda t: t.args.seed == 7 and t.args.data_seed == 7),
    "learning_rate": (3e-3, lambda t: t.args.learning_rate == 3e-3),
    "lr_scheduler": ("cosine", lambda t: t.args.lr_scheduler_type == "cosine"),
    "warmup_ratio": (0.25, lambda t: t.args.get_warmup_steps(100) == 25),
    "epochs": (3.0, lambda t: t.args.num_train_epochs == 3.0),
    "max_steps": (9, lambda t: t.args.max_steps == 9),
    "batch_size": (2, lambda t: t.args.train_batch_size == 2),
    "gradient_accumulation": (3, lambda t: t.args.gradient_accumulation_steps == 3),
    "weight_decay": (0.1, lambda t: t.args.weight_decay == 0.1),
    "max_grad_norm": (0.3, lambda t: t.args.max_grad_norm == 0.3),
    "optim": ("adamw_torch", lambda t: t.args.optim == "adamw_torch"),
    "neftune_noise_alpha": (5.0, lambda t: t.args.neftune_noise_alpha == 5.0),
    "gradient_checkpointing": (
        True,
        lambda t: t.args.activation_checkpointing and t.args.gradient_checkpointing,
    ),
    "precision": ("bf16", lambda t: t.args.bf16),
    "packing": (True, lambda t: len(t.train_dataset) < 16 and t.padding_free),
    "max_length": (20, lambda t: max(map(len, t.train_dataset["input_ids"])) <= 20),
    "eval_steps": (2, lambda t: t.args.eval_strategy == "steps" and t.args.eval_steps == 2),
    "save_steps": (2, lambda t: t.args.save_strategy == "steps" and t.args.save_steps == 2),
    "save_total_limit": (1, lambda t: t.args.save_total_limit == 1),
    "early_stopping_patience": (2, lambda t: stops_early(t, 2)),
    "logging_steps": (3, lambda t: t.args.logging_steps == 3),
    "device": ("cpu", lambda t: t.args.use_cpu),
    "peft": ("dora", lambda t: "use_dora=True" in str(getattr(t.model, "peft_config", ""))),
}
ADAPTERS = {
    "r": (4, lambda lora: lora.r == 4),
    "lora_alpha": (64, lambda lora: lora.lora_alpha == 64),
    "lora_dropout": (0.1, lambda lora: lora.lora_dropout == 0.1),
    "target_modules": (["q_proj"], lambda lora: lora.target_modules == {"q_proj"}),
    "use_rslora": (True, lambda lora: lora.use_rslora),
}
PREFERENCE = {
    ("dpo", "beta"): (0.3, lambda args: args.beta == 0.3),
    ("orpo", "beta"): (0.3, lambda args: args.beta == 0.3),
    ("kto", "beta"): (0.3, lambda args: args.beta == 0.3),
    ("simpo", "simpo_gamma"): (0.7, lambda args: args.simpo_gamma == 0.7 and args.loss_type == "simpo"),
}
# Fields that act before or after the trainer, and the test that drives them.
ELSEWHERE = {
    "task": "test_train", "method": "here", "base_model": "test_train", "train_file": "test_data",
    "eval_file": "test_data", "test_file": "test_data", "eval_fraction": "test_data", "test_fraction": "test_data",
    "system_prompt": "test_data", "instruction": "test_data", "loss_on": "here", "max_new_tokens": "test_evaluate",
    "threads": "test_train", "starter_hidden_size": "test_starter", "starter_layers": "test_starter",
    "starter_vocab_size": "test_starter", "beta": "here", "simpo_gamma": "here",
}  # fmt: skip


def stops_early(trainer, patience):
    callbacks = [c for c in trainer.callback_handler.callbacks if type(c).__name__ == "EarlyStoppingCallback"]
    return trainer.args.load_best_model_at_end and callbacks[0].early_stopping_patience == patience


def test_every_field_is_driven_by_a_test():
    assert set(RunConfig.model_fields) == {*ARGUMENTS, *ADAPTERS, *ELSEWHERE}


@pytest.mark.parametrize("field", ARGUMENTS)
def test_field_reaches_the_trainer(built, default, field):
    value, holds = ARGUMENTS[field]
    assert field == "device" or not holds(default)
    assert holds(built(**{field: value}))


@pytest.mark.parametrize("field", ADAPTERS)
def test_adapter_field_reaches_the_model(built, field):
    value, holds = ADAPTERS[field]
    assert not holds(built(peft="lora").model.peft_config["default"])
    assert holds(built(peft="lora", **{field: value}).model.peft_config["default"])


@pytest.mark.parametrize(("method", "field"), PREFERENCE)
def test_preference_field_reaches_the_trainer(built, method, field):
    value, holds = PREFERENCE[method, field]
    assert not holds(built(method=method).args)
    assert holds(built(method=method, **{field: value}).args)


def test_comma_separated_target_modules_are_a_list(built):
    modules = built(peft="lora", target_modules="q_proj, v_proj").model.peft_config["default"].target_modules
    assert modules == {"q_proj", "v_proj"}


def trained_text(trainer, row=0):
    """The tokens that carry loss, as text."""
    batch = trainer.data_collator([trainer.train_dataset[row]])
    return trainer.processing_class.decode(batch["labels"][0][batch["labels"][0] != -100])


def test_loss_is_on_the_answer_on_all_answers_or_on_everything(built, monkeypatch):
    talk = [
        {
            "prompt": [message("user", "was it good"), message("assistant", "maybe"), message("user", "so")],
            "completion": [message("assistant", "yes")],
        }
    ] * 4
    monkeypatch.setitem(ROWS, "turns", talk)
    assert trained_text(built(loss_on="completion")) == "yes<|im_end|>\n"
    assert trained_text(built(loss_on="assistant")) == "maybe<|im_end|>yes<|im_end|>"
    everything = trained_text(built(loss_on="all"))
    assert everything.startswith("<|im_start|>user\nwas it good") and everything.endswith("yes<|im_end|>\n")


def test_a_template_that_marks_no_answer_cannot_train_all_answers(config_of, tiny_base, tmp_path):
    folder = tmp_path / "unmarked"
    shutil.copytree(tiny_base, folder)
    template = folder / "chat_template.jinja"
    template.write_text(
        template.read_text().replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
    )
    with pytest.raises(UserError, match="set loss_on to completion or all"):
        build(config_of(base_model=str(folder), loss_on="assistant"), tmp_path)
    template.unlink()
    with pytest.raises(UserError, match="has no chat template"):
        build(config_of(base_model=str(folder)), tmp_path)


def test_continued_pretraining_trains_every_token_of_a_text(built):
    trainer = built(method="cpt")
    assert trained_text(trainer) == "the room was good and the food number 0 was cold<|im_end|>"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("peft", ["full", "lora"])
def test_every_method_trains_the_tiny_model(built, method, peft):
    trainer = built(method=method, peft=peft, max_steps=3, learning_rate=1e-2)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    loss = trainer.train().training_loss
    assert math.isfinite(loss)
    assert any((p != before[name]).any() for name, p in trainer.model.named_parameters() if name in before)


def test_qlora_quantises_to_nf4_twice(built):
    # bitsandbytes packs weights for evaluation on some CPUs, in blocks larger than this model.
    trainer = built(evaluation=0, peft="qlora", max_steps=1)
    settings = trainer.model.base_model.model.config.quantization_config
    assert settings.bnb_4bit_quant_type == "nf4" and settings.bnb_4bit_use_double_quant
    assert math.isfinite(trainer.train().training_loss)


def test_weights_are_float32_on_a_cpu_and_stay_so_in_full_training_beside_bf16(config_of, tiny_base):
    import torch

    full = base.load_model(tiny_base, config_of(precision="bf16"), "cpu")
    frozen = base.load_model(tiny_base, config_of(precision="bf16", peft="lora"), "cpu")
    plain = base.load_model(tiny_base, config_of(peft="lora"), "cpu")
    assert (full.dtype, frozen.dtype, plain.dtype) == (torch.float32, torch.bfloat16, torch.float32)


def test_the_loss_on_a_cpu_equals_trls_own(built):
    """The head applied where there is a label only gives TRL's loss and gradients."""
    import torch
    from trl import SFTTrainer

    trainer = built(max_steps=1)
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    ours = trainer.compute_loss(trainer.model, dict(batch))
    gradients = torch.autograd.grad(ours, list(trainer.model.parameters()))
    theirs = SFTTrainer.compute_loss(trainer, trainer.model, dict(batch))
    expected = torch.autograd.grad(theirs, list(trainer.model.parameters()))
    assert type(trainer) is not SFTTrainer
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_packed_rows_give_the_same_loss_as_separate_ones(built):
    """Rows packed into one do not see each other."""
    packed, plain = built(packing=True, max_steps=1), built(max_steps=1)
    losses = []
    for trainer in (packed, plain):
        trainer.model.eval()
        total = count = 0
        for row in trainer.train_dataset:
            batch = trainer.data_collator([row])
            labels = int((batch["labels"][:, 1:] != -100).sum())
            total += trainer.compute_loss(trainer.model, dict(batch)).item() * labels
            count += labels
        losses.append(total / count)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_thumbs_are_weighted_to_count_alike():
    rows = [{"label": True}] * 10 + [{"label": False}] * 40
    good, bad = class_weights(rows)
    assert (good * 10, bad * 40) == (40, 40)
    assert class_weights([{"label": True}] * 4 + [{"label": False}] * 3) == (1.0, 1.0)


def test_kto_refuses_a_batch_of_one(built):
    with pytest.raises(UserError, match="set batch_size to 2 or more"):
        built(method="kto", batch_size=1)


def test_a_method_that_cannot_be_trained_yet_lists_those_that_can():
    with pytest.raises(UserError, match=r"'grpo'.*sft, cpt, dpo, orpo, simpo, kto"):
        require_trainable("grpo")


def test_early_stopping_without_rows_for_evaluation_is_refused(built):
    with pytest.raises(UserError, match="early_stopping_patience"):
        built(evaluation=0, early_stopping_patience=2)


def test_cuda_that_is_not_there_is_refused(config_of):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="set device to auto or cpu"):
        base.device_of(config_of(device="cuda"))


def test_staging_gives_each_method_its_shape(config_of):
    assert stage(config_of()).splits.train[0].keys() == {"prompt", "completion"}
