"""SentencePiece-like tokenizers (Llama 2, Mistral, Gemma, Phi-3) as tokenizer.json holds them → llama.cpp's scores.

llama.cpp merges the pair whose joined token has the best score; `tokenizers` merges the pair of the lowest rank.
Both do the same where every way to split a token is a merge, as in what transformers makes of a SentencePiece
model: then a token's score is the rank of its first merge, negated. Part of vocabulary.py. Costs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config import UserError

SPACE = "▁"
BYTES = [f"<0x{value:02X}>" for value in range(256)]
_TO_SPACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def prefix_of(path: Path, data: dict[str, Any]) -> str:
    """Where a space is put before a text: "always" (after every special token), "first" or "never".

    Raises UserError for steps that change or split text in a way that llama.cpp does not.
    """
    normalizer, pre = data.get("normalizer"), data.get("pre_tokenizer")
    steps = normalizer.get("normalizers", [normalizer]) if normalizer else []
    plain = pre is None or _holds(pre, _SPLIT)  # the spaces that it splits at are gone by then
    if plain and len(steps) == 1 and _holds(steps[0], _TO_SPACE):
        return "never"
    prepended = {"type": "Prepend", "prepend": SPACE}
    if plain and len(steps) == 2 and _holds(steps[0], prepended) and _holds(steps[1], _TO_SPACE):
        return "always"
    if not steps and _holds(pre, {"type": "Metaspace", "replacement": SPACE, "split": False}):
        return str(pre.get("prepend_scheme", "always"))
    told = " + ".join(str(part.get("type")) for part in [*steps, pre] if part) or "none"
    raise UserError(
        f"{path}: llama.cpp would split text otherwise: normalizer and pre-tokenizer {told}; known for "
        "SentencePiece-like tokenizers: spaces become ▁, with or without one put first"
    )


def _holds(part: dict[str, Any] | None, wanted: dict[str, Any]) -> bool:
    return part is not None and all(part.get(key) == value for key, value in wanted.items())


def scores_of(path: Path, model: dict[str, Any]) -> dict[str, float]:
    """Token → score of the tokens that merges make. Raises UserError where llama.cpp would merge otherwise."""
    vocabulary = model["vocab"]
    pairs = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in model["merges"]]
    if missing := [name for name in BYTES if name not in vocabulary]:
        raise UserError(f"{path}: it has no token {missing[0]} for a single byte; llama.cpp needs all 256")
    ranks: dict[str, float] = {}
    for rank, (left, right) in enumerate(pairs):
        ranks.setdefault(left + right, float(-rank))
    known = set(pairs)
    for token in ranks:
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in vocabulary and right in vocabulary and (left, right) not in known:
                raise UserError(
                    f"{path}: its merges are not those of a SentencePiece model: {token!r} is not merged from "
                    f"{left!r} and {right!r}, but llama.cpp would; save the tokenizer of the original model"
                )
    return ranks
