"""The parity gate against a model on an Ollama server: the same steps, with what its interface lets one see.

Ollama shows a rendered prompt (an undocumented field) and counts its tokens, but no token ids and no logits: so
tokens are compared by number, answers as text. Part of parity.py.
"""

from __future__ import annotations

from typing import Any

from trainer.export.judge import Case, text_difference
from trainer.export.ollama import Ollama, OllamaError
from trainer.export.probes import texts
from trainer.export.steps import (
    READY,
    SHOWN,
    Sides,
    Step,
    expected_prompts,
    prompts_step,
    right,
    score_step,
    skipped,
    split,
)

ENGINE = "ollama"
TEXTS, ROWS = 20, 20  # asked of a server, where each costs a request
EXACT = {"F32", "F16", "BF16"}


def ollama_steps(server: Ollama, name: str, sides: Sides, llama_cpp: list[str]) -> list[Step]:
    """Steps of the model `name`. llama_cpp: llama.cpp's answers, equal to a near tie."""
    shown = server.show(name)
    level = str((shown.get("details") or {}).get("quantization_level", ""))
    system = shown.get("system") or ""
    context = max(len(case.ids) for case in sides.cases) + sides.room + 512
    probe = _Probe(server, name, system, context, sides.tokenizer)
    found = [probe.prompts(sides.with_tools), probe.tokens()]
    if sides.cases[0].chat is None:
        why = ("raw text is not chatted with", "原始文字不是對話")
        return [*found, skipped("greedy", ENGINE, *why), skipped("score", ENGINE, *why)]
    written = [probe.answer(case, sides.room) for case in sides.cases[: None if sides.labels else ROWS]]
    found.append(_greedy(written[:ROWS], sides.expected, llama_cpp, level))
    if None in sides.gold or (not sides.labels and sides.config.max_new_tokens > sides.room):
        return [*found, skipped("score", ENGINE, "measured in llama.cpp only", "只在 llama.cpp 中測量")]
    metric = "accuracy" if sides.labels else "exact_match"
    reference = right(sides.expected[: len(written)], sides)
    kind = None if level in EXACT else "quantized"
    found.append(score_step(ENGINE, metric, right(written, sides), reference, kind or found[-1].kind))
    return found


class _Probe:
    """Questions to one model on one server. A conversation without a system message gets the model's own there."""

    def __init__(self, server: Ollama, name: str, system: str, context: int, tokenizer: Any) -> None:
        self.server, self.name, self.system, self.context = server, name, system, context
        self.tokenizer, self.bos = tokenizer, tokenizer.bos_token or ""

    def prompts(self, with_tools: bool) -> Step:
        expected = [(name, self._with_system(case, options), options)
                    for name, case, options in expected_prompts(self.tokenizer)]  # fmt: skip
        if expected and self.server.render(self.name, expected[0][1].chat) is None:
            return skipped(
                "prompts", ENGINE, "this server cannot show how it renders", "這個伺服器無法顯示它產生的提示"
            )

        def rendered(case: Case, options: dict[str, Any]) -> tuple[str, list[int]]:
            try:
                text = self.server.render(self.name, case.chat, **options) or ""
            except OllamaError as error:  # a model that Ollama thinks cannot think, or use tools
                return str(error), []
            return split(self.tokenizer, text if text.startswith(self.bos) else self.bos + text)

        return prompts_step(ENGINE, expected, rendered, with_tools)

    def tokens(self) -> Step:
        step = Step("tokens", ENGINE)
        for text in texts(TEXTS):
            case = self._with_system(Case(-1, [{"role": "user", "content": text}], "", []), {})
            last = self._chat(case.chat, 1)[1]
            if not last.get("prompt_eval_count"):
                return skipped(
                    "tokens", ENGINE, "this server does not count tokens", "這個伺服器不計算 token"
                )
            step.compared += 1
            step.same += last["prompt_eval_count"] == len(case.ids)
            if last["prompt_eval_count"] != len(case.ids):
                counts = {"expected": len(case.ids), "found": last["prompt_eval_count"]}
                step.differences.append({"kind": "tokenizer", "text": text[:40], **counts})
        step.values["counted"] = True
        gaps = {one["found"] - one["expected"] for one in step.differences}
        kind = "bos" if gaps in ({1}, {-1}) and not step.same else "tokenizer"
        step.state = "failed" if step.same < READY * step.compared else "ok"
        step.differences = step.differences[:SHOWN]
        return step.named(kind)

    def answer(self, case: Case, room: int) -> str:
        return self._chat(case.chat, room)[0].strip()

    def _chat(self, messages: Any, room: int) -> tuple[str, dict[str, Any]]:
        parts = list(self.server.chat(self.name, messages, self.context, max_tokens=room, keep_alive="5m"))
        pieces = [part.get("message") or {} for part in parts]
        text = "".join(one.get("thinking", "") + one.get("content", "") for one in pieces)
        return text, parts[-1]

    def _with_system(self, case: Case, options: dict[str, Any]) -> Case:
        chat = case.chat or []
        if self.system and chat[0]["role"] != "system":
            chat = [{"role": "system", "content": self.system}, *chat]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **options)
        return Case(case.row, chat, *split(self.tokenizer, text))


def _greedy(written: list[str], expected: list[str], llama_cpp: list[str], level: str) -> Step:
    """Greedy answers as text; one that llama.cpp gave too was judged there by its logits."""
    step = Step("greedy", ENGINE, compared=len(written))
    kind = "numbers" if level in EXACT else "quantized"
    for row, text in enumerate(written):
        if text in (expected[row], llama_cpp[row]):
            step.same += 1
        else:
            step.differences.append({"row": row, "kind": kind, **text_difference(expected[row], text)})
    if step.same < READY * step.compared:
        step.state = "failed" if kind == "numbers" else "attention"
    step.values["quantization"] = level
    step.differences = step.differences[:SHOWN]
    return step.named(kind)
