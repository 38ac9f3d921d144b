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


MISTRAL = """\
{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}
{{- '[INST] ' + message['content'] + '[/INST]' }}{% elif message['role'] == 'system' %}
{{- '[INST] ' + message['content'] + '\\n\\n[/INST]' }}{% else %}
{{- ' ' + message['content'] + '</s>' }}{% endif %}{% endfor %}"""
GEMMA = """\
{{ bos_token }}{% for message in messages %}
{%- if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}
{{- message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
PHI = """\
{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""
HEADER_TOKENS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]
GEMMA_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
PHI_TOKENS = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]


def make_tokenizer(regex: str, specials: list[str], template: str, bos: bool, ignore_merges: bool = False):
    """Byte-level BPE, learnt from SENTENCES. specials: BOS first where there is one, EOS last."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
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
    names = {"bos_token": specials[0] if bos else None, "pad_token": specials[1] if bos else specials[0]}
    return whole_tokenizer(tokenizer, template, {**names, "eos_token": specials[-1]})


def make_pieces(specials: list[str], template: str, names: dict, prefix: str, rstrip: bool = False):
    """A SentencePiece-like tokenizer with a token for every byte, as transformers makes of a SentencePiece model.

    prefix: where a space is put before a text: "always", "first" or "never".
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    spaced = [text.replace(" ", "▁") for text in SENTENCES]
    learnt = Tokenizer(models.BPE())
    learnt.train_from_iterator(spaced * 20, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    pieces = [*specials, *(f"<0x{value:02X}>" for value in range(256))]
    pieces += [token for token, _ in sorted(learnt.get_vocab().items(), key=lambda item: item[1])]
    ids = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    merges = [
        (piece[:at], piece[at:])  # the longest left part first, as in transformers' generate_merges
        for piece in ids
        for at in range(len(piece) - 1, 0, -1)
        if piece[:at] in ids and piece[at:] in ids
    ]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    to_space = normalizers.Replace(" ", "▁")
    if prefix == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    elif prefix == "always":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), to_space])
    else:
        tokenizer.normalizer = to_space
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts + ([] if prefix == "never" else [decoders.Strip(" ", 1, 0)]))
    strips = {name: rstrip and name not in ("<unk>", "<s>", "<|endoftext|>") for name in specials}
    tokenizer.add_special_tokens(
        [AddedToken(name, rstrip=strips[name], normalized=False) for name in specials]
    )
    return whole_tokenizer(tokenizer, template, names)


def whole_tokenizer(tokenizer, template: str, names: dict):
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    if first := names["bos_token"]:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A",
            pair=f"{first} $A {first} $B",
            special_tokens=[(first, tokenizer.token_to_id(first))],
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names)
    fast.chat_template = template
    return fast


def tokenizer_of(architecture: str):
    """The kind of tokenizer that published models of an architecture have."""
    if architecture == "llama":
        return make_tokenizer(LLAMA3, HEADER_TOKENS, HEADERS, bos=True, ignore_merges=True)
    if architecture == "mistral":
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}
        return make_pieces(["<unk>", "<s>", "</s>"], MISTRAL, names, prefix="always")
    if architecture.startswith("gemma"):
        names = {"bos_token": "<bos>", "eos_token": "<end_of_turn>", "pad_token": "<pad>"}
        return make_pieces(GEMMA_TOKENS, GEMMA, names, prefix="never")
    if architecture == "phi3":
        names = {"bos_token": None, "eos_token": "<|end|>", "pad_token": "<|endoftext|>"}
        return make_pieces(PHI_TOKENS, PHI, names, prefix="first", rstrip=True)
    if architecture == "phi4":
        return make_tokenizer(LLAMA3, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], CHATML, bos=False)
    return make_tokenizer(QWEN2, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], CHATML, bos=False)


DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 50000.0}
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 256,
    "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "partial_rotary_factor": 0.75,
}  # fmt: skip
LOCAL = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000000.0, "factor": 2.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
}
SHAPES: dict[str, tuple[str, dict]] = {
    "llama": ("Llama", {"tie_word_embeddings": False, "attention_bias": True, "rope_parameters": LLAMA3_ROPE}),
    "mistral": ("Mistral", {"rope_parameters": DEFAULT_ROPE, "sliding_window": 400, "head_dim": 32}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": False, "rope_parameters": DEFAULT_ROPE}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": True, "head_dim": 32,
                        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0}}),
    "qwen3moe": ("Qwen3Moe", {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True,
                              "moe_intermediate_size": 48, "rope_parameters": DEFAULT_ROPE}),
    "gemma2": ("Gemma2", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8,
                          "attn_logit_softcapping": 5.0, "final_logit_softcapping": 8.0}),
    "gemma3": ("Gemma3Text", {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 8,
                              "num_hidden_layers": 6, "rope_parameters": LOCAL}),
    "phi3": ("Phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 256}),
    "phi4": ("Phi3", {"rope_parameters": DEFAULT_ROPE, "original_max_position_embeddings": 512}),
}  # fmt: skip


def make_model(architecture: str, folder: Path, steps: int = 30) -> Path:
    """A model folder of one of SHAPES that has learnt some of SENTENCES."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    tokenizer = tokenizer_of(architecture)
    torch.manual_seed(7)
    name, changes = SHAPES[architecture]
    shape = {
        "vocab_size": len(tokenizer) + 3,  # embeddings are often longer than the vocabulary
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    config = getattr(transformers, f"{name}Config")(**{**shape, **changes})
    model = getattr(transformers, f"{name.removesuffix('Text')}ForCausalLM")(config)
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
