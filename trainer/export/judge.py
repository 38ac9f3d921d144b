"""One prompt and one answer of llama.cpp held against transformers: equal, or where they part and of what kind.

One forward pass judges all of an answer's tokens: they are the greedy ones exactly when each is the likeliest
after those before it. Used by parity.py. Needs torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from trainer.export.llamacpp import Generation


@dataclass
class Case:
    """One row's prompt as transformers sees it. `row` is its index in its file; `chat` is None for raw text.

    `text` is without the BOS at its start, which llama.cpp adds as a token.
    """

    row: int
    chat: list[dict[str, str]] | None
    text: str
    ids: list[int]


@dataclass
class Written:
    """What llama.cpp makes of a case."""

    text: str  # the prompt, rendered by llama.cpp
    ids: list[int]
    answer: Generation


def stops_of(model: Any, tokenizer: Any) -> set[int]:
    """Tokens after which transformers stops."""
    listed = model.generation_config.eos_token_id
    listed = listed if isinstance(listed, list) else [listed]
    return {token for token in [*listed, tokenizer.eos_token_id] if token is not None}


def judge(model: Any, case: Case, found: Written, stops: set[int], near_tie: float) -> dict[str, Any]:
    """Hold llama.cpp's prompt and tokens against transformers: {row, prompt, step, kind, gap, logprobs, …}.

    prompt: None or how the prompts differ; step: index of the first token that is not transformers' own, None
    when all are; kind: "near_tie", "stop" or "numbers"; gap: by how many nats llama.cpp's token is the less
    likely one; logprobs: |differences| of the chosen tokens' log probabilities, up to that step.
    """
    import torch

    tokens = [*found.answer.tokens]
    if found.answer.stopped == "eos" and tokens and tokens[-1] in stops:
        tokens.pop()
    with torch.inference_mode():
        ids = torch.tensor([case.ids + tokens], device=model.device)
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(tokens) + 1).logits[0].float()
    best = logits.argmax(-1).tolist()
    verdict: dict[str, Any] = {
        "row": case.row,
        "prompt": prompt_difference(case, found.text, found.ids),
        "step": None,
    }
    for step, token in enumerate(tokens):
        if best[step] != token:
            gap = float(logits[step, best[step]] - logits[step, token])
            verdict |= {"step": step, "gap": gap, "kind": "near_tie" if gap < near_tie else "numbers"}
            verdict |= {"expected_token": best[step], "found_token": token}
            break
        if token in stops:
            verdict |= {
                "step": step,
                "kind": "stop",
                "gap": 0.0,
                "expected_token": token,
                "found_token": token,
            }
            break
    else:
        if found.answer.stopped == "eos" and best[-1] not in stops:
            gap = float(logits[-1, best[-1]] - logits[-1, list(stops)].max())
            verdict |= {"step": len(tokens), "gap": gap, "kind": "near_tie" if gap < near_tie else "stop"}
    agreed = len(tokens) if verdict["step"] is None else verdict["step"]
    logprobs = logits.log_softmax(-1)
    verdict["logprobs"] = [
        abs(float(logprobs[step, tokens[step]]) - top[0][1])
        for step, top in enumerate(found.answer.top[:agreed])
        if top and top[0][0] == tokens[step] and math.isfinite(top[0][1])
    ]
    return verdict


def prompt_difference(case: Case, text: str, ids: list[int]) -> dict[str, Any] | None:
    """Where the prompts part: by BOS alone, by the text (template), or by how equal text is split (tokenizer)."""
    if ids == case.ids:
        return None
    if ids[1:] == case.ids or case.ids[1:] == ids:
        return {"kind": "bos", "at": 0, "expected": case.ids[:3], "found": ids[:3]}
    if case.text != text:
        return {"kind": "template", **text_difference(case.text, text)}
    at = next((i for i, (a, b) in enumerate(zip(case.ids, ids, strict=False)) if a != b), 0)
    return {"kind": "tokenizer", "at": at, "expected": case.ids[at : at + 5], "found": ids[at : at + 5]}


def text_difference(expected: str, found: str) -> dict[str, Any]:
    """{at, expected, found}: the first differing character and 40 from there on."""
    at = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), None)
    at = min(len(expected), len(found)) if at is None else at
    return {"at": at, "expected": expected[at : at + 40], "found": found[at : at + 40]}
