"""The proof that an exported model is the trained one: llama.cpp, and Ollama where it answers, beside transformers.

`check(folder)` compares RUN/export/model.gguf with RUN/export/merged in four steps (steps.py): rendered prompts,
tokens of texts, greedy answers to the run's test rows, the task's score. Writes RUN/export/parity.json. Needs torch.
"""

from __future__ import annotations

import json
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
from trainer.export.judge import Case, Written, judge, stops_of
from trainer.export.llamacpp import LlamaCpp
from trainer.export.merge import load_model, stored_dtype
from trainer.export.served import ollama_steps
from trainer.export.steps import (
    READY,
    SHOWN,
    Sides,
    Step,
    as_dicts,
    expected_prompts,
    prompts_step,
    right,
    score_step,
    skipped,
    split,
    tokens_step,
)
from trainer.generate import answer_room, answers
from trainer.runs import RunFolder

TOKENS = 32  # compared of an answer that is no label
SCORED, LONG = 50, 256  # rows and tokens of answers that are longer, for the score
# Logit gap (nats) under which two tokens are a near tie, and median |difference| of log probabilities that is
# still rounding. Measured, against float32 on the CPU: f32 and f16 files 1e-5 to 2e-4, bf16 files 8e-5 to 1.4e-3
# (llama.cpp rounds activations too), a rope base wrong by half 6e-3 to 9e-3, by a factor of 100 .03 to .08. The
# wider bounds are for references computed on a GPU in the weights' own precision; those were not measured.
NEAR_TIE = {"float32": 0.1, "bfloat16": 0.5, "float16": 0.2}
ROUNDING = {"float32": 0.01, "bfloat16": 0.1, "float16": 0.02}
ENGINE = "llama.cpp"


@dataclass
class Parity:
    """Agreement of llama.cpp with transformers. `ready` is the verdict; `cause` says in both languages why not.

    same: rows with the same label, or else the same greedy tokens (near ties count as the same and are
    numbered in near_ties); prompts_same: rows whose prompt has the same tokens; logprob_difference: median over
    tokens, in nats; differences: the first few, located; steps: as in steps.py, of every engine.
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
    steps: list[dict[str, Any]] = field(default_factory=list)


def check(
    folder: RunFolder,
    rows: int = 100,
    progress: Callable[[int, int], None] | None = None,
    server: tuple[Any, str] | None = None,
) -> Parity:
    """Compare the exported model with the merged one on up to `rows` test rows; writes RUN/export/parity.json.

    progress(rows done, rows in all, counted twice: once in llama.cpp, once in transformers). server: an Ollama and
    the name of the run's model there, which is then compared as well. Raises UserError when one of the two models,
    or the frozen rows, are not there.
    """
    began = time.monotonic()
    merged, gguf = folder.path / "export" / "merged", folder.path / "export" / "model.gguf"
    if not merged.is_dir():
        raise UserError(f"{merged}: no such folder; run `tunesmith export {folder.id} --to gguf`")
    split_name, chosen, labels = rows_of(folder, rows)
    sides = sides_of(folder, merged, rows)
    cases, tokenizer = sides.cases, sides.tokenizer
    tell = progress or (lambda done, total: None)
    written, found_steps = _run_llama_cpp(gguf, sides, lambda n: tell(n, 2 * len(cases)))
    device = base.device_of(sides.config)
    # Weights in float32 are the same weights; only a GPU, short of memory, computes in their own precision.
    dtype = "float32" if device == "cpu" else stored_dtype(merged)
    model = load_model(merged, dtype).to(device)
    stops = stops_of(model, tokenizer)
    judged = []
    for case, found in zip(cases, written, strict=True):
        judged.append(judge(model, case, found, stops, NEAR_TIE[dtype]))
        tell(len(cases) + len(judged), 2 * len(cases))
    _compare_outputs(judged, sides, written, chosen, model)
    parity = _verdict(judged, merged, gguf, "labels" if labels else "tokens", ROUNDING[dtype])
    found_steps += [_greedy_step(parity), _score(sides, written, gguf, model, chosen, parity.kind)]
    if server is not None:
        found_steps += ollama_steps(*server, sides, texts_of(written, tokenizer))
    _conclude(parity, found_steps)
    parity.split, parity.seconds = split_name, round(time.monotonic() - began, 2)
    write_atomic(
        folder.path / "export" / "parity.json", json.dumps(asdict(parity), ensure_ascii=False, indent=1)
    )
    return parity


def rows_of(folder: RunFolder, count: int) -> tuple[str, list[dict[str, Any]], list[str] | None]:
    """(split, rows, labels): of the test split, or else of those the run has."""
    staged = thaw(folder.path / "data")
    if staged is None:
        raise UserError(f"{folder.id}: has no frozen rows; train the run first")
    for name in ("test", "eval", "train"):
        if rows := getattr(staged.splits, name)[:count]:
            labels = staged.card["labels"] if "completion" in rows[0] and "label" not in rows[0] else None
            return name, rows, labels
    raise UserError(f"{folder.id}: its data/ holds no rows; train the run again")


def sides_of(folder: RunFolder, merged: Path, count: int) -> Sides:
    """What both sides are asked: up to `count` rows of the run, as the model of `merged` was trained to see them."""
    config, tokenizer = folder.config(), base.load_tokenizer(merged)
    _, rows, labels = rows_of(folder, count)
    return Sides(
        tokenizer=tokenizer,
        config=config,
        cases=[_case(index, row, tokenizer) for index, row in enumerate(rows)],
        expected=[],
        gold=[_gold(row) for row in rows],
        labels=labels,
        room=answer_room(tokenizer, labels) if labels else min(config.max_new_tokens, TOKENS),
        with_tools=any(row.get("tools") for row in rows),
    )


def _case(index: int, row: dict[str, Any], tokenizer: Any) -> Case:
    if "text" in row:
        text = row["text"][: max(1, len(row["text"]) // 2)]
        return Case(index, None, text, tokenizer(text, verbose=False)["input_ids"])
    # Tools are left out on both sides: they have a conversation of their own in the first step.
    text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    return Case(index, row["prompt"], *split(tokenizer, text))


def _gold(row: dict[str, Any]) -> str | None:
    return row["completion"][-1]["content"].strip() if row.get("completion") and "label" not in row else None


def _run_llama_cpp(gguf: Path, sides: Sides, tell: Callable[[int], None]) -> tuple[list[Written], list[Step]]:
    """llama.cpp's own prompts and answers, as a person who chats gets them; the first two steps."""
    bos = sides.tokenizer.bos_token or ""
    expected = expected_prompts(sides.tokenizer)
    longest = max(len(case.ids) for case in [*sides.cases, *(case for _, case, _ in expected)])
    found: list[Written] = []
    # 64: its prompt may be longer
    context = longest + sides.room + 64
    with LlamaCpp(gguf, n_ctx=context, threads=sides.config.threads or None) as engine:

        def rendered(case: Case, options: dict[str, Any]) -> tuple[str, list[int]]:
            text = engine.render(case.chat, **options)
            return text.removeprefix(bos), engine.tokenize(text)

        steps = [
            prompts_step(ENGINE, expected, rendered, sides.with_tools),
            tokens_step(ENGINE, sides.tokenizer, engine.tokenize),
        ]
        for case in sides.cases:
            text = case.text if case.chat is None else engine.render(case.chat)
            ids = engine.tokenize(text)
            answer = engine.generate(ids, max_tokens=sides.room, top=1)
            found.append(Written(text.removeprefix(bos), ids, answer))
            tell(len(found))
    return found, steps


def texts_of(written: list[Written], tokenizer: Any) -> list[str]:
    """The answers as a person reads them."""
    return [tokenizer.decode(one.answer.tokens, skip_special_tokens=True).strip() for one in written]


def _compare_outputs(
    judged: list[dict[str, Any]], sides: Sides, written: list[Written], rows: list[dict[str, Any]], model: Any
) -> None:
    """Set `same` of every verdict and sides.expected. Only rows that differ need transformers to write an answer."""
    differing = [i for i, verdict in enumerate(judged) if verdict["step"] is not None]
    chats = [i for i in differing if sides.cases[i].chat is not None]
    expected = (
        dict(zip(chats, answers(model, sides.tokenizer, [rows[i] for i in chats], sides.room), strict=True))
        if chats
        else {}
    )
    for index, text in enumerate(texts_of(written, sides.tokenizer)):
        verdict = judged[index]
        verdict["same"] = verdict["step"] is None or verdict["kind"] == "near_tie"
        sides.expected.append(expected.get(index, text))
        if index not in differing:
            continue
        verdict |= {"expected": expected.get(index), "found": text}
        if sides.labels:
            verdict["same"] = as_label(text, sides.labels) == as_label(expected[index], sides.labels)


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


def _greedy_step(parity: Parity) -> Step:
    step = Step("greedy", ENGINE, compared=parity.rows, same=parity.same)
    step.values = {"near_ties": parity.near_ties, "logprob_difference": parity.logprob_difference}
    step.differences = [one for one in parity.differences if one["step"] is not None]
    step.state = "ok" if parity.ready else "failed"
    return step.named(parity.kind)


def _score(
    sides: Sides, written: list[Written], gguf: Path, model: Any,
    rows: list[dict[str, Any]], kind: str | None,
) -> Step:  # fmt: skip
    if None in sides.gold:
        return skipped(
            "score", ENGINE, "these rows have no single right answer, so only probabilities measure them",
            "這些資料沒有唯一正解，只能以機率衡量",
        )  # fmt: skip
    if sides.labels or sides.config.max_new_tokens <= sides.room:
        found = texts_of(written, sides.tokenizer)
        expected = sides.expected
    else:
        cases, room = sides.cases[:SCORED], min(sides.config.max_new_tokens, LONG)
        context = max(len(case.ids) for case in cases) + room + 8
        with LlamaCpp(gguf, n_ctx=context, threads=sides.config.threads or None) as engine:
            found = [engine.generate(case.ids, max_tokens=room).text.strip() for case in cases]
        expected = answers(model, sides.tokenizer, rows[: len(cases)], room)
    metric = "accuracy" if sides.labels else "exact_match"
    return score_step(ENGINE, metric, right(found, sides), right(expected, sides), kind)


def _conclude(parity: Parity, steps: list[Step]) -> None:
    """The verdict of all steps in llama.cpp: the first that failed names the cause."""
    failed = [step for step in steps if step.engine == ENGINE and step.state == "failed"]
    if failed and (parity.ready or failed[0].step in ("prompts", "tokens")):
        parity.ready, parity.kind, parity.cause = False, failed[0].kind, failed[0].cause
    parity.steps = as_dicts(steps)
