"""Every field of RunConfig reaches the trainer; what does not go together is refused in one line.

That every method and kind trains, and the right way, is in test_matrix.py.
"""

import math
import shutil

import pytest
from building import ROWS, build, message, turns

from trainer import base
from trainer.config import RunConfig, UserError, from_dict
from trainer.data.stage import stage
from trainer.methods import check, require_trainable
from trainer.methods.unpaired import class_weights

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
# (kind, its field): as above, of PEFT's configuration or of the trainer
KIND_FIELDS = {
    ("prompt", "virtual_tokens"): (7, lambda t: t.model.peft_config["default"].num_virtual_tokens == 7),
    ("freeze", "trained_layers"): (1, lambda t: not any(p.requires_grad for p in t.model.model.layers[0].parameters())),
    ("loraplus", "loraplus_ratio"): (4.0, lambda t: t.optimizer.param_groups[2]["lr"] == pytest.approx(4 * t.args.learning_rate)),
}  # fmt: skip
PREFERENCE = {
    ("dpo", "beta"): (0.3, lambda args: args.beta == 0.3),
    ("orpo", "beta"): (0.3, lambda args: args.beta == 0.3),
    ("kto", "beta"): (0.3, lambda args: args.beta == 0.3),
    ("simpo", "simpo_gamma"): (0.7, lambda args: args.simpo_gamma == 0.7 and args.loss_type == "simpo"),
    ("dpo", "loss_type"): ("ipo", lambda args: args.loss_type == ["ipo"]),
    ("dpo", "sft_weight"): (
        0.2,
        lambda args: args.loss_type == ["sigmoid", "sft"] and args.loss_weights == [1, 0.2],
    ),
    ("grpo", "beta"): (0.3, lambda args: args.beta == 0.3),
    ("grpo", "rewards"): (["exact", "0.2*length:9"], lambda args: args.reward_weights == [1.0, 0.2]),
    ("grpo", "num_generations"): (4, lambda args: args.num_generations == 4),
    ("rloo", "temperature"): (0.7, lambda args: args.temperature == 0.7),
    ("grpo", "max_new_tokens"): (9, lambda args: args.max_completion_length == 9),
}
# Fields that act before or after the trainer, and the test that drives them.
ELSEWHERE = {
    "task": "test_train", "method": "here", "base_model": "test_train", "train_file": "test_data",
    "eval_file": "test_data", "test_file": "test_data", "eval_fraction": "test_data", "test_fraction": "test_data",
    "system_prompt": "test_data", "instruction": "test_data", "loss_on": "here", "max_new_tokens": "test_evaluate",
    "threads": "test_train", "starter_hidden_size": "test_starter", "starter_layers": "test_starter",
    "starter_vocab_size": "test_starter", "teacher_model": "here", "class_balance": "here",
    "processes": "launch/test_processes", "machines": "launch/test_processes", "parallel": "launch/test_processes",
    "offload": "launch/test_processes",
    "smoke": "test_safety", "report_to": "test_trackers", "time_limit_hours": "test_jobs", "save_total_limit": "test_safety",
}  # fmt: skip


def stops_early(trainer, patience):
    callbacks = [c for c in trainer.callback_handler.callbacks if type(c).__name__ == "EarlyStoppingCallback"]
    return trainer.args.load_best_model_at_end and callbacks[0].early_stopping_patience == patience


def test_every_field_is_driven_by_a_test():
    several = {field for _, field in (*KIND_FIELDS, *PREFERENCE)}
    assert set(RunConfig.model_fields) == {*ARGUMENTS, *ADAPTERS, *ELSEWHERE, *several}


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


@pytest.mark.parametrize(("kind", "field"), KIND_FIELDS)
def test_field_of_a_kind_reaches_the_model(built, kind, field):
    value, holds = KIND_FIELDS[kind, field]
    assert not holds(built(peft=kind))
    assert holds(built(peft=kind, **{field: value}))


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


def test_an_unknown_method_or_kind_lists_those_that_there_are(config_of):
    with pytest.raises(UserError, match=r"'ppo'.*sft, cpt, dpo.*classify"):
        require_trainable("ppo")
    with pytest.raises(UserError, match=r"method = 'ppo'.*sft, cpt, dpo"):
        from_dict({**config_of().model_dump(), "method": "ppo"})
    with pytest.raises(UserError, match=r"peft = 'adapters'.*full, freeze, lora"):
        from_dict({**config_of().model_dump(), "peft": "adapters"})
    assert (
        config_of(method="classification").method == "classify" and config_of(peft="lora+").peft == "loraplus"
    )


def test_beta_is_the_methods_usual_one_where_none_is_given(config_of):
    usual = {
        method: config_of(method=method).beta for method in ("dpo", "simpo", "grpo", "rloo", "distillation")
    }
    assert usual == {"dpo": 0.1, "simpo": 2.0, "grpo": 0.0, "rloo": 0.05, "distillation": 1.0}
    assert config_of(method="grpo", beta=0.3).beta == 0.3


# What does not go together → what the one line says.
REFUSED = {
    "set batch_size to 2": {"method": "kto", "batch_size": 1},
    "must be a multiple of it": {"method": "grpo", "batch_size": 6},
    "rewards: 'nice': unknown": {"method": "grpo", "rewards": ["nice"]},
    "give its argument after a colon": {"method": "rloo", "rewards": ["regex"]},
    "not a regular expression": {"method": "grpo", "rewards": ["regex:("]},
    "no such file; give a Python file": {"method": "grpo", "rewards": ["file:nowhere.py"]},
    "no such file; give the path of a JSON schema": {"method": "grpo", "rewards": ["json:nowhere.json"]},
    "teacher_model is empty": {"method": "distillation"},
    "between 0 .* and 1": {"method": "distillation", "teacher_model": "x/y", "beta": 2},
    "without the virtual tokens": {"method": "grpo", "peft": "prompt"},
    "packed rows share them": {"peft": "ptuning", "packing": True},
    "set gradient_checkpointing to false": {"peft": "prefix", "gradient_checkpointing": True},
    "set peft to lora$": {"method": "dpo", "peft": "pissa"},
    "set peft to qlora$": {"method": "kto", "peft": "loftq"},
    "lm_head is never trained": {"peft": "lora", "target_modules": ["q_proj", "lm_head"]},
    "set peft to full": {"peft": "lora", "optim": "galore_adamw"},
    "draws single rows": {"class_balance": 1, "packing": True},
    "no labels to balance": {"method": "dpo", "class_balance": 1},
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_does_not_go_together_is_told_in_one_line_before_anything_is_loaded(config_of, said):
    with pytest.raises(UserError, match=said) as told:
        check(config_of(**REFUSED[said]))
    assert "\n" not in str(told.value)


def test_low_rank_optimizers_name_the_extra_that_has_them(config_of, monkeypatch):
    monkeypatch.setattr("trainer.methods.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'tunesmith\[optimizers\]'"):
        check(config_of(peft="full", optim="apollo_adamw"))


@pytest.mark.parametrize("optim", ["galore_adamw", "apollo_adamw"])
def test_galore_and_apollo_project_the_linear_layers_to_rank_r(built, optim):
    package = pytest.importorskip(f"{optim.split('_')[0]}_torch").__name__
    trainer = built(peft="full", optim=optim, r=4, max_steps=2)
    trainer.train()
    optimizer = trainer.optimizer.optimizer
    assert type(optimizer).__module__.startswith(package)
    assert [group.get("rank") for group in optimizer.param_groups] == [None, 4]


def test_rare_labels_are_drawn_as_often_as_common_ones_and_the_same_after_a_resume(built, monkeypatch):
    few = [row for row in turns(160) if row["completion"][0]["content"] == "no"]
    many = [row for row in turns(160) if row["completion"][0]["content"] == "yes"]
    monkeypatch.setitem(ROWS, "turns", few[:8] + many)
    sampler = built(class_balance=1.0)._get_train_sampler()
    drawn = [index for epoch in range(20) for index in (sampler.set_epoch(epoch), *sampler)[1:]]
    assert sum(index < 8 for index in drawn) / len(drawn) == pytest.approx(0.5, abs=0.05)
    assert max(drawn[:88]) > 8 and len(sampler) == 88
    sampler.set_epoch(3)
    assert list(sampler) == drawn[3 * 88 : 4 * 88]
    assert built(class_balance=1.0, method="classify")._get_train_sampler() is not None


def test_adalora_prunes_to_its_rank(built):
    """PEFT does so only when it is told each step."""
    trainer = built(peft="adalora", r=4, max_steps=12)
    trainer.train()
    ranks = [sum(kept) for kept in trainer.model.peft_config["default"].rank_pattern.values()]
    assert max(ranks) <= 6 and sum(ranks) <= 4 * len(ranks)


def test_a_teacher_of_another_vocabulary_is_refused(built, tmp_path):
    from trainer.starter import make_starter

    other = RunConfig(
        task="t", base_model="starter", train_file="x", starter_hidden_size=32, starter_vocab_size=350
    )
    teacher = make_starter(other, ["other words"] * 50, tmp_path / "teacher")
    with pytest.raises(UserError, match=r"its vocabulary .* is not the student's"):
        built(method="distillation", teacher_model=str(teacher))
    with pytest.raises(UserError, match="teacher_model 'nowhere/at/all': no such folder"):
        built(method="distillation", teacher_model="nowhere/at/all")


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
