"""Tiny models of each architecture, made once a session: random weights, a few steps of learning, own tokenizer."""

from itertools import pairwise
from pathlib import Path

import pytest

QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN2.replace(r"\p{N}|", r"\p{N}{1,3}|")
SENTENCES = [
    "這家飯店的服務很好，房間也乾淨。",
    "房间很小，服务态度差，不会再来。",
    "The quick brown fox jumps over 13 lazy dogs.",
    "Hello world, it's fine!\n\nReally? 12345 👍",
    "微調一個小模型需要多少資料？",
    "def add(a, b):\n    return a + b",
]
CHATML = """\
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}
        {{- '\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
HEADERS = """\
{{ bos_token }}{% for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {% if message['role'] == 'assistant' %}
{% generation %}
{{- message['content'] | trim + '<|eot_id|>' }}
    {%- endgeneration %}
    {% else %}
{{- message['content'] | trim + '<|eot_id|>' }}
    {%- endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""


def make_tokenizer(regex: str, specials: list[str], template: str, bos: bool):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(regex), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 20, trainer)
    if bos:
        first = specials[0]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A", pair=f"{first} $A {first} $B", special_tokens=[(first, 0)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=specials[0] if bos else None,
        eos_token=specials[-1],
        pad_token=specials[1] if bos else specials[0],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = template
    return fast


def make_model(architecture: str, folder: Path, steps: int = 30) -> Path:
    """A model folder of "llama", "qwen2" or "qwen3" shape that has learnt some of SENTENCES."""
    import torch
    import transformers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    transformers.utils.logging.disable_progress_bar()
    chatml = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    headers = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ]
    if architecture == "llama":
        tokenizer = make_tokenizer(LLAMA3, headers, HEADERS, bos=True)
    else:
        tokenizer = make_tokenizer(QWEN2, chatml, CHATML, bos=False)
    torch.manual_seed(7)
    shape = {
        "vocab_size": len(tokenizer) + 3,  # embeddings are often longer than the vocabulary
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    if architecture == "llama":
        rope = {
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        }  # fmt: skip
        config = LlamaConfig(**shape, tie_word_embeddings=False, attention_bias=True, rope_parameters=rope)
        model = LlamaForCausalLM(config)
    elif architecture == "qwen2":
        rope = {"rope_type": "default", "rope_theta": 50000.0}
        model = Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=False, rope_parameters=rope))
    else:
        rope = {"rope_type": "default", "rope_theta": 1000000.0}
        model = Qwen3ForCausalLM(
            Qwen3Config(**shape, head_dim=32, tie_word_embeddings=True, rope_parameters=rope)
        )
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # zero at the start: a wrong place would not show
            torch.nn.init.normal_(parameter, std=0.2)
    learn(model, tokenizer, steps)
    model.save_pretrained(folder, max_shard_size="60KB" if architecture == "qwen3" else "5GB")
    tokenizer.save_pretrained(folder)
    return folder


def learn(model, tokenizer, steps: int) -> None:
    import torch

    chats = [
        [{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in pairwise(SENTENCES)
    ]
    rows = [tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"] for chat in chats]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    labels = ids.masked_fill(torch.arange(width) >= torch.tensor([[len(row)] for row in rows]), -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A function: architecture → model folder, made once."""
    made: dict[str, Path] = {}

    def of(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = make_model(architecture, tmp_path_factory.mktemp("models") / architecture)
        return made[architecture]

    return of


@pytest.fixture(scope="session")
def tiny_gguf(tiny_model, tmp_path_factory):
    """A function: architecture → GGUF file of the tiny model, in the dtype of its weights."""
    from trainer.export.gguf import write_gguf

    made: dict[str, Path] = {}

    def of(architecture: str) -> Path:
        if architecture not in made:
            out = tmp_path_factory.mktemp("gguf") / f"{architecture}.gguf"
            made[architecture] = write_gguf(tiny_model(architecture), out)
        return made[architecture]

    return of


@pytest.fixture
def adapted(run_of, tiny_base):
    """A function: a run with random adapters on the tiny base, as if trained. `lora` are LoraConfig's settings."""
    import json

    def make(lora: dict | None = None, base: Path = tiny_base, **changes):
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = run_of(**{"peft": "lora", "base_model": str(base), **changes})
        torch.manual_seed(5)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **(lora or {})}
        model = AutoModelForCausalLM.from_pretrained(base)
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                torch.nn.init.normal_(weight, std=0.1 if "lora_" in name else 0.3)
        model.save_pretrained(folder.path / "adapter")
        AutoTokenizer.from_pretrained(base).save_pretrained(folder.path / "adapter")
        row = {
            "prompt": [{"role": "user", "content": "the room was good and the food cold number 3"}],
            "completion": [{"role": "assistant", "content": "1"}],
        }
        (folder.path / "data").mkdir()
        (folder.path / "data" / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        return folder

    return make


@pytest.fixture
def finished(run_of, tiny_model):
    """A function: architecture → a fully trained run whose model and base are tiny ones, with frozen rows."""
    import shutil

    from trainer.data.splits import Splits
    from trainer.data.stage import Staged, freeze

    def make(architecture: str = "qwen3", labels: bool = False, **changes):
        source = tiny_model(architecture)
        folder = run_of(**{"base_model": str(source), "max_new_tokens": 16, **changes})
        shutil.copytree(source, folder.path / "model")
        rows = [
            {
                "prompt": [{"role": "user", "content": f"{first[: 3 + i]} {i}"}],
                "completion": [{"role": "assistant", "content": "好" if i % 2 else "差"}],
            }
            for i in range(4)
            for first in SENTENCES
        ]
        card = {"format": "text+label", "labels": ["好", "差"] if labels else None, "files": {}}
        freeze(Staged(Splits(rows[:4], rows[4:6], rows), card), folder.path / "data")
        return folder

    return make
