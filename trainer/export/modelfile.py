"""What an Ollama server must be told about an exported model: Modelfile, template, context, stop words. Pure.

Ollama reads the Jinja template inside a GGUF file, but replaces one that resembles a template it knows by its
own. So a template that is plain ChatML is written out in Ollama's language; others are compared after import.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trainer.config import RunConfig
from trainer.export.header import Header

NAME = re.compile(r"([a-z0-9][\w.-]*/)?[a-z0-9][\w.-]*(:[\w][\w.-]*)?", re.ASCII | re.IGNORECASE)
SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repeat_penalty",
}  # generation_config.json → Ollama
CHATML = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
)
PROBES: list[list[dict[str, str]]] = [
    [{"role": "user", "content": " 這家飯店\n"}],
    [{"role": "system", "content": "你好。"}, {"role": "user", "content": "a"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": " b "},
        {"role": "user", "content": "c"},
    ],
]  # conversations in which templates show their differences


def model_name(folder_id: str) -> str:
    """A run's name in Ollama: task/v1 → task:v1."""
    return folder_id.replace("/", ":").lower()


def parameters(
    config: RunConfig, header: Header, greedy: bool, generation: dict[str, Any] | None = None
) -> dict[str, Any]:
    """num_ctx (tokens of prompt and answer) by what the run was trained on, sampling, and the stop words.

    greedy: answers are labels, of which the likeliest is wanted and not a drawn one. generation: the model's
    generation_config.json, whose sampling is taken otherwise.
    """
    wanted = max(2048, config.max_length + config.max_new_tokens)
    found: dict[str, Any] = {"num_ctx": min(wanted, header.context_length or wanted)}
    # Phi-3's long texts have rope factors of their own, which llama.cpp takes by num_ctx, not by the text's length
    original = header.metadata.get(f"{header.architecture}.rope.scaling.original_context_length")
    if original and "rope_factors_long.weight" in header.tensors and config.max_length <= original:
        found["num_ctx"] = min(found["num_ctx"], original)
    if greedy:
        found["temperature"] = 0
    elif generation and generation.get("do_sample"):
        found |= {name: generation[key] for key, name in SAMPLING.items() if generation.get(key) is not None}
    tokens = header.metadata["tokenizer.ggml.tokens"]
    ends = [header.metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot")]
    if stops := [tokens[end] for end in ends if end is not None]:
        found["stop"] = stops
    return found


def go_template(rendered: list[str]) -> str | None:
    """Ollama's form of a chat template that renders PROBES to `rendered`; None where it is not plain ChatML."""
    expected = [
        "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in chat)
        + "<|im_start|>assistant\n"
        for chat in PROBES
    ]
    return CHATML if rendered == expected else None


def modelfile(gguf: Path, template: str | None, settings: dict[str, Any], system: str) -> str:
    """The text of a Modelfile, by which `ollama create NAME -f Modelfile` makes the same model."""
    lines = [f"FROM ./{gguf.name}"]
    if template:
        lines.append(f'TEMPLATE """{template}"""')
    for key, value in settings.items():
        lines += [
            f"PARAMETER {key} {_quoted(item)}" for item in (value if isinstance(value, list) else [value])
        ]
    if system:
        lines.append(f"SYSTEM {_quoted(system)}")
    return "\n".join(lines) + "\n"


def _quoted(value: Any) -> str:
    # a Modelfile knows no escape for its own quotes
    return '"""' + value.replace('"""', "'''") + '"""' if isinstance(value, str) else str(value)
