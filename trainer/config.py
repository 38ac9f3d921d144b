"""RunConfig: the one definition of a run.

From it come run.yaml, the command-line check, the form on the screen, the target of a
recommendation and the worker's input. A field is documented here once, with unit and range.
Importing this costs no torch.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from kb.errors import UserError
from trainer.atomic import write_atomic
from trainer.mapping import read_mapping

STARTER = "starter"
WHOLE = ("full", "freeze")  # kinds of `peft` that keep a whole model, not an adapter beside the base
NF4 = ("qlora", "loftq")  # kinds that train on a 4-bit base
# beta where a run gives none: TRL 1.16's defaults, but for SimPO, whose authors start at 2.
USUAL_BETA = {"simpo": 2.0, "grpo": 0.0, "rloo": 0.05, "distillation": 1.0}
TASK_NAME = re.compile(r"[^\W_][\w-]{0,63}")


def _field(*default: Any, en: str, zh: str, **limits: Any) -> Any:
    """A field with its one description, in both languages of the screen."""
    return Field(*default, description=en, json_schema_extra={"zh-TW": zh}, **limits)


class RunConfig(BaseModel):
    """Everything that a training run depends on. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    # what
    task: str = _field(
        en="task name: letters, digits, - and _; the folder under tasks/",
        zh="任務名稱：字母、數字、- 與 _；即 tasks/ 下的資料夾",
    )
    method: str = _field("sft", en="training method", zh="訓練方法")
    peft: str = _field(
        "lora", en="which weights are trained: all (full), the last blocks (freeze), or a kind of adapter",
        zh="訓練哪些權重：全部（full）、最後幾層（freeze），或某一種適配器",
    )  # fmt: skip
    base_model: str = _field(
        en="Hub id, local folder, or 'starter' for a small model made from scratch",
        zh="Hub 上的 id、本機資料夾，或 starter（從零建立的小模型）",
    )
    seed: int = _field(
        42, ge=0, en="seed of shuffling, initialisation and dropout", zh="洗牌、初始化與 dropout 的亂數種子"
    )

    # starter model, read only when base_model is 'starter'
    starter_hidden_size: int = _field(
        128, ge=32, le=2048, multiple_of=32, en="hidden size of the starter model", zh="起步模型的隱藏層大小"
    )
    starter_layers: int = _field(
        2, ge=1, le=32, en="transformer blocks of the starter model", zh="起步模型的層數"
    )
    starter_vocab_size: int = _field(
        2000, ge=300, le=64000, en="tokenizer entries of the starter model", zh="起步模型分詞器的詞表大小"
    )

    # data
    train_file: str = _field(en="path of the training rows", zh="訓練資料的路徑")
    eval_file: str | None = _field(
        None, en="rows for evaluation while training; None: split from train_file",
        zh="訓練中評估用的資料；留空則從訓練資料切出",
    )  # fmt: skip
    test_file: str | None = _field(
        None, en="held-out rows for the final score; None: split from train_file",
        zh="最後評分用的保留資料；留空則從訓練資料切出",
    )  # fmt: skip
    eval_fraction: float = _field(
        0.05, ge=0, le=0.5, en="share of rows split off for evaluation", zh="切作訓練中評估的比例"
    )
    test_fraction: float = _field(
        0.1, ge=0, le=0.5, en="share of rows split off and frozen for the test", zh="切出並凍結為測試集的比例"
    )
    system_prompt: str = _field(
        "", en="system message put before every row; empty for none", zh="每筆資料前的系統訊息；留空表示沒有"
    )
    instruction: str = _field(
        "", en="put before the text of text+label rows; empty for none",
        zh="放在「文字＋標籤」資料的文字之前的指示；留空表示沒有",
    )  # fmt: skip

    # tokens
    max_length: int = _field(
        1024, ge=8, le=1_048_576, en="tokens a row; the user's text is cut so that the answer stays",
        zh="每筆的 token 上限；超過時截短使用者的文字，保住答案",
    )  # fmt: skip
    loss_on: Literal["completion", "assistant", "all"] = _field(
        "completion", en="tokens that carry loss: the last answer, all assistant turns, or everything",
        zh="哪些 token 計算損失：最後的回答、所有助理發言，或全部",
    )  # fmt: skip
    packing: bool = _field(
        False, en="fill rows up to max_length with several examples", zh="把多筆資料拼到 max_length"
    )
    class_balance: float = _field(
        0.0, ge=0, le=1,
        en="sft, classify: how far rare labels are drawn more often; 0: as they come, 1: all labels alike",
        zh="sft、classify：少數類別多抽的程度；0：照資料比例，1：各類別一樣多",
    )  # fmt: skip

    # optimisation
    learning_rate: float = _field(2e-4, gt=0, le=1, en="peak learning rate", zh="學習率峰值")
    lr_scheduler: Literal["linear", "cosine", "constant", "inverse_sqrt"] = _field(
        "linear", en="learning-rate schedule", zh="學習率排程"
    )
    warmup_ratio: float = _field(
        0.05, ge=0, le=0.5, en="share of the steps in which the rate rises", zh="學習率上升的步數比例"
    )
    epochs: float = _field(2.0, gt=0, le=1000, en="passes over the training rows", zh="訓練資料看過幾遍")
    max_steps: int = _field(
        -1, ge=-1, en="optimizer steps; -1 follows epochs", zh="更新步數；-1 表示依 epochs"
    )
    batch_size: int = _field(4, ge=1, le=4096, en="rows a step on one device", zh="單一裝置每步的筆數")
    gradient_accumulation: int = _field(
        4, ge=1, le=4096, en="steps whose gradients are added before an update", zh="累積幾步的梯度才更新一次"
    )
    weight_decay: float = _field(0.0, ge=0, le=1, en="decoupled weight decay", zh="權重衰減")
    max_grad_norm: float = _field(
        1.0, ge=0, le=1000, en="gradient clipping; 0 for none", zh="梯度裁剪；0 表示不裁剪"
    )
    optim: Literal[
        "adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit",
        "galore_adamw", "galore_adamw_8bit", "apollo_adamw",
    ] = _field(
        "adamw_torch_fused",
        en="optimizer; galore and apollo train all weights through projections of rank r",
        zh="最佳化器；galore 與 apollo 以秩為 r 的投影訓練全部權重",
    )  # fmt: skip
    neftune_noise_alpha: float | None = _field(
        None, ge=0, le=100, en="noise on embeddings while training; None for none",
        zh="訓練時加在嵌入上的雜訊；留空表示沒有",
    )  # fmt: skip
    gradient_checkpointing: bool = _field(
        True, en="recompute activations in the backward pass to save memory",
        zh="反向傳播時重算激活值以節省記憶體",
    )  # fmt: skip
    precision: Literal["auto", "bf16", "fp32"] = _field(
        "auto", en="auto: bf16 where the device has it", zh="auto：裝置支援時用 bf16"
    )

    # adapters, read only when peft is not 'full'
    r: int = _field(
        16, ge=1, le=1024,
        en="rank of the adapters; oft: size of its blocks",
        zh="適配器的秩；oft：區塊大小",
    )  # fmt: skip
    lora_alpha: int = _field(
        32, ge=1, le=4096, en="scale of the adapters; the update is multiplied by alpha / r",
        zh="適配器的縮放；更新量乘以 alpha / r",
    )  # fmt: skip
    lora_dropout: float = _field(
        0.0, ge=0, lt=1, en="dropout on the adapters' input", zh="適配器輸入的 dropout"
    )
    target_modules: str | list[str] = _field("all-linear", en="layers that get adapters", zh="加上適配器的層")
    use_rslora: bool = _field(
        False, en="scale by alpha / sqrt(r) instead of alpha / r", zh="改以 alpha / sqrt(r) 縮放"
    )
    loraplus_ratio: float = _field(
        16.0, ge=1, le=100,
        en="loraplus: how many times the learning rate of B is that of A",
        zh="loraplus：B 的學習率是 A 的幾倍",
    )  # fmt: skip
    virtual_tokens: int = _field(
        20, ge=1, le=1000,
        en="prefix, prompt, ptuning: trained tokens before each row",
        zh="prefix、prompt、ptuning：每筆資料前訓練的虛擬 token 數",
    )  # fmt: skip
    trained_layers: int = _field(
        2, ge=1, le=200,
        en="freeze: how many of the last blocks are trained",
        zh="freeze：訓練最後幾層",
    )  # fmt: skip

    # preference methods
    beta: float | None = _field(
        None, validate_default=True, ge=0, le=100,
        en="dpo, kto, grpo, rloo: pull to the reference; orpo: lambda; simpo: beta; distillation: 0 forward, 1 reverse KL; empty: the method's usual",
        zh="dpo、kto、grpo、rloo：拉向參考模型的力道；orpo：λ；simpo：β；distillation：0 正向、1 反向 KL；留空用該方法的慣用值",
    )  # fmt: skip
    loss_type: Literal["sigmoid", "ipo", "apo_zero", "apo_down", "sigmoid_norm", "hinge", "robust"] = _field(
        "sigmoid",
        en="dpo: loss; sigmoid_norm divides by the answers' lengths",
        zh="dpo：損失函數；sigmoid_norm 以回答長度正規化",
    )  # fmt: skip
    sft_weight: float = _field(
        0.0, ge=0, le=100,
        en="dpo: weight of the SFT loss on the chosen answer that is added",
        zh="dpo：另加在較佳回答上的 SFT 損失權重",
    )  # fmt: skip
    simpo_gamma: float = _field(0.5, ge=0, le=10, en="simpo: target margin", zh="simpo：目標間距")

    # methods that let the model answer while it trains
    rewards: list[str] = _field(
        ["exact"],
        en="grpo, rloo: reward functions, each with an optional weight: exact, label, regex:PATTERN, json, json:SCHEMA.json, length:CHARACTERS, file:REWARD.py; 0.2*length:200",
        zh="grpo、rloo：獎勵函數，可加權重：exact、label、regex:樣式、json、json:結構.json、length:字數、file:獎勵.py；例如 0.2*length:200",
    )  # fmt: skip
    num_generations: int = _field(
        8, ge=2, le=256,
        en="grpo, rloo: answers sampled for each prompt",
        zh="grpo、rloo：每個題目取樣的回答數",
    )  # fmt: skip
    temperature: float = _field(
        1.0, gt=0, le=2,
        en="grpo, rloo, distillation: sampling temperature while training",
        zh="grpo、rloo、distillation：訓練時的取樣溫度",
    )  # fmt: skip
    teacher_model: str = _field(
        "",
        en="distillation: Hub id or folder of the teacher; it shares the student's vocabulary",
        zh="distillation：教師模型的 Hub id 或資料夾；須與學生共用詞表",
    )  # fmt: skip

    # evaluation and saving
    eval_steps: int = _field(
        0, ge=0,
        en="updates between evaluations; 0: once an epoch",
        zh="每隔幾次更新評估一次；0 表示每個 epoch",
    )  # fmt: skip
    save_steps: int = _field(
        0, ge=0,
        en="updates between checkpoints; 0: once an epoch",
        zh="每隔幾次更新存一次檢查點；0 表示每個 epoch",
    )  # fmt: skip
    save_total_limit: int = _field(2, ge=1, le=100, en="checkpoints kept", zh="保留幾個檢查點")
    early_stopping_patience: int = _field(
        0, ge=0, le=100,
        en="evaluations without improvement before stopping; 0: never",
        zh="連續幾次評估沒有進步就停止；0 表示不停",
    )  # fmt: skip
    logging_steps: int = _field(
        5, ge=1, en="updates between points of the curve", zh="曲線上每個點相隔的更新次數"
    )
    max_new_tokens: int = _field(
        32, ge=1, le=32768,
        en="tokens generated for each test row, and for each answer that grpo, rloo and distillation sample",
        zh="每筆測試資料生成的 token 數；也是 grpo、rloo、distillation 取樣回答的上限",
    )  # fmt: skip

    report_to: list[Literal["trackio", "wandb", "tensorboard"]] = _field(
        [],
        en="trackers that get the curve too: trackio (here), tensorboard (files), wandb (files, sent by `wandb sync`)",
        zh="曲線另外交給哪些工具：trackio（本機）、tensorboard（檔案）、wandb（檔案，以 `wandb sync` 上傳）",
    )
    smoke: bool = _field(
        True,
        en="try two steps on the longest rows before training; their memory and time replace the estimate",
        zh="訓練前先用最長的資料試跑兩步，以實測的記憶體與時間取代估計",
    )
    time_limit_hours: float = _field(
        0.0, ge=0, le=10_000,
        en="hours after which the run stops with a checkpoint; resuming grants as many again; 0: none",
        zh="超過幾小時就存檢查點並停止；繼續後再給同樣的時數；0 表示不限",
    )  # fmt: skip

    # where
    device: Literal["auto", "cpu", "cuda"] = _field("auto", en="device of the worker", zh="訓練所用的裝置")
    threads: int = _field(
        0, ge=0, le=1024, en="CPU threads of the worker; 0: all cores", zh="CPU 執行緒數；0 表示全部核心"
    )

    processes: int = _field(
        1, ge=1, le=64, en="processes that train together on a machine, one a GPU; each takes its own batch_size rows", zh="一台機器上一起訓練的程序數，一個 GPU 一個；每個程序各取 batch_size 筆",
    )  # fmt: skip
    machines: int = _field(
        1, ge=1, le=64, en="machines that train together; more than one needs ray or slurm", zh="一起訓練的機器數；多於一台需要 ray 或 slurm",
    )  # fmt: skip
    parallel: Literal["ddp", "fsdp2", "zero1", "zero2", "zero3"] = _field(
        "ddp", en="what several processes divide: ddp only the rows, the others optimizer states, gradients or weights too", zh="多個程序分攤什麼：ddp 只分資料；其餘再分最佳化器狀態、梯度或權重",
    )  # fmt: skip
    offload: bool = _field(
        False, en="fsdp2 and zero: keep the divided parts in main memory, slower", zh="fsdp2 與 zero：把分攤的部分放在主記憶體，較慢",
    )  # fmt: skip

    @field_validator("report_to", mode="before")
    @classmethod
    def _trackers_may_be_one_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return [name.strip() for name in value.split(",") if name.strip() not in ("", "none")]
        return value

    @field_validator("task")
    @classmethod
    def _task_is_a_folder_name(cls, value: str) -> str:
        if not TASK_NAME.fullmatch(value):
            raise ValueError(
                f"task name {value[:40]!r} must be 1 to 64 letters, digits, '-' or '_', starting with a letter or digit"
            )
        return value

    @field_validator("method", "peft")
    @classmethod
    def _is_known(cls, value: str, info: ValidationInfo) -> str:
        from trainer.methods import known  # the methods import this module

        return known(info.field_name or "", value)

    @field_validator("beta")
    @classmethod
    def _beta_is_the_methods(cls, value: float | None, info: ValidationInfo) -> float:
        return USUAL_BETA.get(info.data.get("method", ""), 0.1) if value is None else value

    @model_validator(mode="after")
    def _fields_fit_together(self) -> RunConfig:
        if self.base_model == STARTER and self.peft in NF4:
            raise ValueError(
                f"peft {self.peft!r} needs a pretrained base_model; the starter model is trained in full"
            )
        if self.peft in NF4 and self.parallel in ("fsdp2", "zero3"):
            raise ValueError(
                f"parallel {self.parallel!r} cannot divide the 4-bit weights of peft {self.peft!r}; set parallel to ddp or zero2, or peft to lora"
            )
        return self

    @property
    def keeps_whole_model(self) -> bool:
        """Whether the run's result is RUN/model, all weights, and not RUN/adapter."""
        return self.peft in WHOLE

    @property
    def world_size(self) -> int:
        """Processes that train together on all machines."""
        return self.processes * self.machines


def from_dict(values: dict[str, Any], where: str = "run") -> RunConfig:
    """Validate a mapping. Raises UserError that names the field, the value and what is admitted."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """First fault of a pydantic error in one line; the number of further ones after it."""
    faults = error.errors()
    first = faults[0]
    name = ".".join(str(part) for part in first["loc"]) or "run"
    if first["type"] == "extra_forbidden":
        text = f"unknown field {name!r}; the fields are: {', '.join(RunConfig.model_fields)}"
    elif first["type"] == "missing":
        text = f"{name} is missing; give it a value"
    else:
        shown = repr(first.get("input"))[:60]
        text = f"{name} = {shown}: {first['msg'].removeprefix('Value error, ')}"
    return text + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else "")


REASONS = "reasons"  # beside a run's values in its file: why each has its value, {field: {rule, because, …}}


def load(path: Path) -> RunConfig:
    """Read run.yaml. Raises UserError for a missing file, broken YAML (with its line) or a bad value."""
    values = read_mapping(path)
    values.pop(REASONS, None)
    # PyYAML reads 1e-4 as text; pydantic turns it into a number by the field's type.
    return from_dict(values, str(path))


def reasons_in(path: Path) -> dict[str, Any]:
    """The reasons that `recommend --save` or the start of a run left in a run.yaml; none where it has none."""
    found = read_mapping(path).get(REASONS)
    if not isinstance(found, dict):
        return {}
    whole = {"value", "rule", "because", "citation"}
    return {name: row for name, row in found.items() if isinstance(row, dict) and whole <= row.keys()}


def save(config: RunConfig, path: Path, reasons: dict[str, Any] | None = None) -> None:
    """Write run.yaml, with the reasons of its values, in one piece: readers see the old file or the new one, never half."""
    values = config.model_dump() | ({REASONS: reasons} if reasons else {})
    # json first: a safe dump refuses tuples and other types that JSON writes as lists
    plain = json.loads(json.dumps(values, ensure_ascii=False))
    write_atomic(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110))
