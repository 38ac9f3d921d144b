"""The proof that an exported model is the trained one: llama.cpp beside transformers on the run's test rows.

`check(folder)` compares RUN/export/model.gguf with RUN/export/merged: the prompt as each renders and splits
it, then every greedy token. One forward pass a row judges all of llama.cpp's tokens: they are the greedy ones
exactly when each is the likeliest after those before it. Writes RUN/export/parity.json. Needs torch.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainer import base
from trainer.config import UserError, write_atomic
from trainer.data.stage import thaw
from trainer.evaluate import as_label
from trainer.export.causes import EXPLAINED, cause_of, wrong_rope
from trainer.export.llamacpp import Generation, LlamaCpp
from trainer.export.merge import load_model, stored_dtype
from trainer.generate import answer_room, answers
from trainer.runs import RunFolder

READY = 0.98  # share of rows that must agree
TOKENS = 32  # compared of an answer that is no label
# Logit gap (nats) under which two tokens are a near tie, and median |difference| of log probabilities that is
# still rounding. Measured, against float32 on the CPU: f32 and f16 files 1e-5 to 2e-4, bf16 files 8e-5 to 1.4e-3
# (llama.cpp rounds activations too), a rope base wrong by half 6e-3 to 9e-3, by a factor of 100 .03 to .08. The
# wider bounds are for references computed on a GPU in the weights' own precision; those were not measured.
NEAR_TIE = {"float32": 0.1, "bfloat16": 0.5, "float16": 0.2}
ROUNDING = {"float32": 0.01, "bfloat16": 0.1, "float16": 0.02}
SHOWN = 10  # differences kept in parity.json


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


@dataclass
class Parity:
    """Agreement of llama.cpp with transformers. `ready` is the verdict; `cause` says in both languages why not.

    same: rows with the same label, or else the same greedy tokens (near ties count as the same and are
    numbered in near_ties); prompts_same: rows whose prompt has the same tokens; logprob_difference: median over
    tokens, in nats; differences: the first few, located.
    """

    rows: int
    same: int
    share: float
    prompts_same: int
    near_ties: int
    logprob_difference: float
    ready: bool
    kind: str | None
    cause: dict[str, str] | None
    compared: str  # "labels" or "tokens"
    split: str
    seconds: float
    differences: list[dict[str, Any]] = field(default_factory=list)


def check(folder: RunFolder, rows: int = 100, progress: Callable[[int, int], None] | None = None) -> Parity:
    """Compare the exported model with the merged one on up to `rows` test rows; writes RUN/export/parity.json.

    progress(rows done, rows in all, counted twice: once in llama.cpp, once in transformers). Raises UserError
    when one of the two models, or the frozen rows, are not there.
    """
    began = time.monotonic()
    merged, gguf = folder.path / "export" / "merged", folder.path / "export" / "model.gguf"
    if not merged.is_dir():
        raise UserError(f"{merged}: no such folder; run `tunesmith export {folder.id} --to gguf`")
    config = folder.config()
    tokenizer = base.load_tokenizer(merged)
    split, chosen, labels = _rows(folder, rows)
    bos = tokenizer.bos_token or ""
    cases = [_case(index, row, tokenizer) for index, row in enumerate(chosen)]
    room = answer_room(tokenizer, labels) if labels else min(config.max_new_tokens, TOKENS)
    tell = progress or (lambda done, total: None)
    written = _run_llama_cpp(
        gguf, cases, bos, room, config.threads or None, lambda n: tell(n, 2 * len(cases))
    )
    device = base.device_of(config)
    # Weights in float32 are the same weights; only a GPU, short of memory, computes in their own precision.
    dtype = "float32" if device == "cpu" else stored_dtype(merged)
    model = load_model(merged, dtype).to(device)
    stops = stops_of(model, tokenizer)
    judged = []
    for case, found in zip(cases, written, strict=True):
        judged.append(judge(model, case, found, stops, NEAR_TIE[dtype]))
        tell(len(cases) + len(judged), 2 * len(cases))
    _compare_outputs(judged, cases, written, chosen, model, tokenizer, room, labels)
    parity = _verdict(judged, merged, gguf, "labels" if labels else "tokens", ROUNDING[dtype])
    parity.split, parity.seconds = split, round(time.monotonic() - began, 2)
    write_atomic(
        folder.path / "export" / "parity.json", json.dumps(asdict(parity), ensure_ascii=False, indent=1)
    )
    return parity


def _rows(folder: RunFolder, count: int) -> tuple[str, list[dict[str, Any]], list[str] | None]:
    """(split, rows, labels): of the test split, or else of those the run has."""
    staged = thaw(folder.path / "data")
    if staged is None:
        raise UserError(f"{folder.id}: has no frozen rows; train the run first")
    for split in ("test", "eval", "train"):
        if rows := getattr(staged.splits, split)[:count]:
            labels = staged.card["labels"] if "completion" in rows[0] and "label" not in rows[0] else None
            return split, rows, labels
    raise UserError(f"{folder.id}: its data/ holds no rows; train the run again")


def _case(index: int, row: dict[str, Any], tokenizer: Any) -> Case:
    if "text" in row:
        text = row["text"][: max(1, len(row["text"]) // 2)]
        return Case(index, None, text, tokenizer(text, verbose=False)["input_ids"])
    # Tools are left out on both sides: llama.cpp rewrites their description, which is no fault of the export.
    options = {"add_generation_prompt": True}
    text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, **options)
    ids = tokenizer.apply_chat_template(row["prompt"], tokenize=True, return_dict=True, **options)[
        "input_ids"
    ]
    return Case(index, row["prompt"], text.removeprefix(tokenizer.bos_token or ""), ids)


def _run_llama_cpp(
    gguf: Path, cases: list[Case], bos: str, room: int, threads: int | None, tell: Callable[[int], None]
) -> list[Written]:
    """llama.cpp's own prompts and answers, as a person who chats gets them."""
    longest = max(len(case.ids) for case in cases)
    found = []
    with LlamaCpp(gguf, n_ctx=longest + room + 64, threads=threads) as engine:  # 64: its prompt may be longer
        for case in cases:
            text = case.text if case.chat is None else engine.render(case.chat)
            ids = engine.tokenize(text)
            answer = engine.generate(ids, max_tokens=room, top=1)
            found.append(Written(text.removeprefix(bos), ids, answer))
            tell(len(found))
    return found


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
    verdict: dict[str, Any] = {"row": case.row, "prompt": _prompt_difference(case, found), "step": None}
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


def _prompt_difference(case: Case, found: Written) -> dict[str, Any] | None:
    """Where the prompts part: by BOS alone, by the text (template), or by how equal text is split (tokenizer)."""
    if found.ids == case.ids:
        return None
    if found.ids[1:] == case.ids or case.ids[1:] == found.ids:
        return {"kind": "bos", "at": 0}
    if (expected := case.text) != (text := found.text):
        at = next((i for i, (a, b) in enumerate(zip(expected, text, strict=False)) if a != b), None)
        at = min(len(expected), len(text)) if at is None else at
        return {"kind": "template", "at": at, "expected": expected[at : at + 40], "found": text[at : at + 40]}
    at = next((i for i, (a, b) in enumerate(zip(case.ids, found.ids, strict=False)) if a != b), 0)
    return {"kind": "tokenizer", "at": at, "expected": case.ids[at : at + 5], "found": found.ids[at : at + 5]}


def _compare_outputs(
    judged: list[dict[str, Any]], cases: list[Case], written: list[Written], rows: list[dict[str, Any]],
    model: Any, tokenizer: Any, room: int, labels: list[str] | None,
) -> None:  # fmt: skip
    """Set `same` of every verdict. Only rows whose tokens differ need transformers to write its own answer."""
    differing = [i for i, verdict in enumerate(judged) if verdict["step"] is not None]
    chats = [i for i in differing if cases[i].chat is not None]
    expected = (
        dict(zip(chats, answers(model, tokenizer, [rows[i] for i in chats], room), strict=True))
        if chats
        else {}
    )
    for index, verdict in enumerate(judged):
        verdict["same"] = verdict["step"] is None or verdict["kind"] == "near_tie"
        if index not in differing:
            continue
        text = tokenizer.decode(written[index].answer.tokens, skip_special_tokens=True).strip()
        verdict |= {"expected": expected.get(index), "found": text}
        if labels:
            verdict["same"] = as_label(text, labels) == as_label(expected[index], labels)


def _verdict(
    judged: list[dict[str, Any]], merged: Path, gguf: Path, compared: str, rounding: float
) -> Parity:
    rows = len(judged)
    same = sum(verdict["same"] for verdict in judged)
    prompts_same = sum(verdict["prompt"] is None for verdict in judged)
    differences = [gap for verdict in judged for gap in verdict.pop("logprobs")]
    median = statistics.median(differences) if differences else 0.0
    ready = min(same, prompts_same) >= READY * rows and median <= rounding and not wrong_rope(merged, gguf)
    kinds = Counter(verdict["prompt"]["kind"] for verdict in judged if verdict["prompt"])
    if not kinds:
        kinds = Counter(verdict["kind"] for verdict in judged if not verdict["same"])
    kind = None if ready else cause_of(kinds.most_common(1)[0][0] if kinds else "numbers", merged, gguf)
    return Parity(
        rows=rows, same=same, share=same / rows, prompts_same=prompts_same,
        near_ties=sum(verdict.get("kind") == "near_tie" for verdict in judged),
        logprob_difference=median, ready=ready, kind=kind, cause=EXPLAINED[kind] if kind else None,
        compared=compared, split="", seconds=0.0,
        differences=[verdict for verdict in judged if verdict["step"] is not None or verdict["prompt"]][:SHOWN],
    )  # fmt: skip
