"""Cells and chat turns of a record as text: roles in every spelling, parts, tool calls, reasoning. For convert.py."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from itertools import takewhile
from typing import Any

Message = dict[str, str]

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "function_call": "tool_call", "tool_call": "tool_call",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool",
}  # fmt: skip
# Where APIs and data sets put what the model thought before it answered (Qwen and DeepSeek, OpenRouter, Ollama).
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
THINKING = re.compile(r"</?think>")

SPEAKER = re.compile(r"(?:\A|\n\n)(Human|User|Assistant):")
ENDINGS = re.compile(r"[\n。？！?!]|\.\s")


class Skip(Exception):
    """This record makes no row; the argument names the fault."""


def text_of(value: Any) -> str:
    """A cell as text; an object or a list as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else json.dumps(value, ensure_ascii=False)


def list_of(value: Any) -> list[Any]:
    """The value where it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def messages_of(value: Any, role: str, note: Callable) -> list[Message]:
    """Messages from a list of them, one of them, or plain text that is given `role`. Empty ones are left out."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        text = text_of(value)
        return [{"role": role, "content": text}] if text.strip() else []
    messages: list[Message] = []
    for turn in value:
        if not isinstance(turn, dict):
            raise Skip("broken_turn")
        given = text_of(turn.get("role", turn.get("from", ""))).strip().lower()
        if given not in ROLES:
            raise Skip("unknown_role")
        content = _content(turn.get("content", turn.get("value")))
        if ROLES[given] == "assistant":
            reasoning = next((turn[name] for name in THOUGHTS if isinstance(turn.get(name), str)), "")
            content = _with_calls(thought(reasoning, content), turn)
        if ROLES[given] == "tool_call":
            messages.append({"role": "assistant", "content": _tool_call(content)})
        elif content.strip():
            messages.append({"role": ROLES[given], "content": content})
        else:
            note("empty_turn")
    return messages


def thought(reasoning: str, answer: str) -> str:
    """An answer with its reasoning before it in a <think> block, unless it holds one already.

    Qwen3's, DeepSeek-R1's and GLM's templates cut the block out of `content` again, as if it had come in a field
    `reasoning_content`: they drop it from earlier turns and write it before the last answer. Templates that know no
    reasoning leave it where it stands. A field would be lost in those.
    """
    if not reasoning.strip() or THINKING.search(answer):
        return answer
    return f"<think>\n{reasoning.strip()}\n</think>\n\n{answer.lstrip()}"


def _with_calls(content: str, turn: dict[str, Any]) -> str:
    calls = [
        call.get("function", call) if isinstance(call, dict) else call
        for call in list_of(turn.get("tool_calls"))
    ]
    if turn.get("function_call"):  # OpenAI's older form
        calls.append(turn["function_call"])
    return "\n".join([*([content] if content.strip() else []), *map(_tool_call, calls)]) if calls else content


def _content(value: Any) -> str:
    """Text of a message: plain, or the parts of a list ({"type", "text" or "value"})."""
    if not isinstance(value, list):
        return text_of(value)
    texts = []
    for part in value:
        if not isinstance(part, dict):
            texts.append(text_of(part))
            continue
        text = text_of(part.get("text", part.get("value", part.get("thinking"))))
        kind = part.get("type", "text")
        if kind in ("reasoning", "thinking"):
            text = f"<think>\n{text.strip()}\n</think>\n\n"
        elif kind == "tool_call":
            text = _tool_call(text)
        elif kind not in ("text", "tools"):
            raise Skip("not_text")
        texts.append(text)
    return "".join(texts)


def _tool_call(call: Any) -> str:
    """A call as the Hermes and Qwen templates write it, so that it survives any template."""
    if isinstance(call, dict) and isinstance(call.get("arguments"), str):
        # OpenAI writes the arguments as JSON in a text; templates show them as an object.
        with contextlib.suppress(ValueError, RecursionError):
            call = {**call, "arguments": json.loads(call["arguments"])}
    return f"<tool_call>\n{text_of(call)}\n</tool_call>"


def transcripts(chosen: str, rejected: str) -> list[list[Message]]:
    """Two dialogues written as one text each, as turns: "\\n\\nHuman: … \\n\\nAssistant: …" (Anthropic's HH-RLHF).

    Other texts are divided where their common beginning ends, at the end of a line or a sentence, as the prompt; with
    no such beginning each is an answer alone.
    """
    parts = [SPEAKER.split(text) for text in (chosen, rejected)]
    if all(len(part) > 3 and not part[0].strip() for part in parts):
        return [
            [
                {"role": ROLES[who.lower()], "content": said.strip()}
                for who, said in zip(part[1::2], part[2::2], strict=True)
            ]
            for part in parts
        ]
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    common = "".join(char for char, _ in alike)
    end = max((match.end() for match in ENDINGS.finditer(common)), default=0)
    question = common[:end].strip()
    head = [{"role": "user", "content": question}] if question else []
    return [[*head, {"role": "assistant", "content": text[end:].lstrip()}] for text in (chosen, rejected)]


def tools_of(record: dict) -> dict[str, str]:
    """{"tools": JSON text} of a record that has any."""
    tools = record.get("tools")
    if not tools:
        return {}
    return {"tools": tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)}


def cleaned(value: Any, note: Callable) -> Any:
    """The same record without what UTF-8 and tokenizers cannot take: NUL and lone surrogates."""
    if isinstance(value, str):
        if "\0" in value:
            note("nul_removed")
            value = value.replace("\0", "")
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                note("surrogate_replaced")
                value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value
    if isinstance(value, list):
        return [cleaned(item, note) for item in value]
    if isinstance(value, dict):
        return {name: cleaned(item, note) for name, item in value.items()}
    return value
