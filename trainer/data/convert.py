"""Records of any known format → the rows that TRL trains on. Nothing is dropped without being counted.

Third step of the flow file → read → detect → convert → split. Row shapes, messages being lists of
{"role", "content"}:  turns {"prompt", "completion"} · text {"text"} · pairs {"prompt", "chosen",
"rejected"} · verdicts {"prompt", "completion", "label": bool};  "tools" (JSON text) where given.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trainer.config import UserError
from trainer.data import entities
from trainer.data.detect import FORMATS, VERDICTS, Detected
from trainer.data.read import Records

Row = dict[str, Any]
Message = dict[str, str]

# The row shape that each method trains on, and the formats from which it can be made.
SHAPES = {"sft": "turns", "cpt": "text", "dpo": "pairs", "orpo": "pairs", "simpo": "pairs", "kto": "verdicts"}
ADMITTED = {
    "turns": tuple(name for name in FORMATS if name != "text"),
    "text": tuple(FORMATS),
    "pairs": ("preference",),
    "verdicts": ("kto", "preference"),
}
ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "model": "assistant",
    "function_call": "tool_call", "tool_call": "tool_call",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool",
}  # fmt: skip


class _Skip(Exception):
    """This record makes no row; the argument names the fault."""


@dataclass
class Converted:
    """`numbers[i]` is the line (or row) of `rows[i]` in the file; `faults` maps a kind to its lines."""

    rows: list[Row] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    faults: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))


def convert(
    records: Records, detected: Detected, method: str, system_prompt: str = "", instruction: str = ""
) -> Converted:
    """Rows in the shape of `method`. Raises UserError where the format cannot give that shape or no row is left."""
    shape = SHAPES[method]
    if detected.format not in ADMITTED[shape]:
        wanted = " or ".join(FORMATS[name] for name in ADMITTED[shape][:3])
        raise UserError(
            f"{records.path}: method {method} needs rows of {wanted}; this file is {detected.format}: "
            f"choose a method that fits it"
        )
    result = convert_rows(records.rows, detected, shape, system_prompt, instruction)
    if not result.rows:
        kind, lines = max(result.faults.items(), key=lambda item: len(item[1]))
        where = records.where(lines[0])
        raise UserError(
            f"{where}: no row can be used ({kind.replace('_', ' ')}); check the columns of this file"
        )
    return result


def convert_rows(
    records: list[tuple[int, dict[str, Any]]],
    detected: Detected,
    shape: str,
    system_prompt: str = "",
    instruction: str = "",
) -> Converted:
    """The same of some records, which may leave no row."""
    result = Converted()
    make = MAKERS[detected.format]
    for number, record in records:
        note = lambda kind, n=number: result.faults[kind].append(n)
        try:
            row = make(_cleaned(record, note), detected.columns, instruction, note)
        except _Skip as skip:
            note(str(skip))
            continue
        for shaped in _shaped(row, shape):
            result.rows.append(_with_system(shaped, system_prompt))
            result.numbers.append(number)
    return result


def contents(row: Row) -> list[str]:
    """All texts of a row, in order."""
    if "text" in row:
        return [row["text"]]
    parts = [part for name in ("prompt", "completion", "chosen", "rejected") for part in row.get(name, [])]
    return [message["content"] for message in parts]


def _shaped(row: Row, shape: str) -> list[Row]:
    if shape == "text":
        return [row] if "text" in row else [{"text": "\n".join(contents(_first_answer(row)))}]
    if shape == "turns":
        return [_first_answer(row)]
    if shape == "verdicts" and "chosen" in row:
        rest = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
        return [
            {**rest, "completion": row["chosen"], "label": True},
            {**rest, "completion": row["rejected"], "label": False},
        ]
    return [row]


def _first_answer(row: Row) -> Row:
    """A pair or a verdict as an example to imitate: the chosen answer."""
    row = dict(row)
    if "chosen" in row:
        row["completion"] = row.pop("chosen")
        row.pop("rejected")
    row.pop("label", None)
    return row


def _with_system(row: Row, system_prompt: str) -> Row:
    if not system_prompt or "prompt" not in row:
        return row
    prompt = row["prompt"]
    own = prompt[0]["content"] if prompt and prompt[0]["role"] == "system" else ""
    text = f"{system_prompt}\n\n{own}" if own else system_prompt
    return {**row, "prompt": [{"role": "system", "content": text}, *(prompt[1:] if own else prompt)]}


# one maker a format: (record, columns, instruction, note) → row


def _labelled(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    text, label = _text(record.get(columns["text"])), _text(record.get(columns["label"])).strip()
    if "text_b" in columns and _text(record.get(columns["text_b"])):
        text = f"{text}\n{_text(record[columns['text_b']])}"
    if not text.strip():
        raise _Skip("empty_text")
    if not label:
        raise _Skip("no_label")
    return _row(f"{instruction}\n{text}" if instruction else text, label)


def _alpaca(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    question, answer = _text(record.get(columns["instruction"])), _text(record.get(columns["output"]))
    context = _text(record.get(columns["input"])) if "input" in columns else ""
    row = _row(_required(f"{question}\n{context}" if context else question), _answer(answer))
    earlier: list[Message] = []
    for pair in _list(record.get("history")):
        if isinstance(pair, list) and len(pair) == 2:
            earlier += [
                {"role": "user", "content": _text(pair[0])},
                {"role": "assistant", "content": _text(pair[1])},
            ]
    system = _text(record.get("system"))
    head = [{"role": "system", "content": system}] if system else []
    return {**row, "prompt": [*head, *earlier, *row["prompt"]]}


def _prompt_completion(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    prompt = _messages(record.get(columns["prompt"]), "user", note)
    completion = _messages(record.get(columns["completion"]), "assistant", note)
    if not prompt:
        raise _Skip("empty_text")
    if not completion:
        raise _Skip("no_answer")
    return {"prompt": prompt, "completion": completion, **_tools(record)}


def _turns(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    messages = _messages(record.get(columns["turns"]), "user", note)
    system = _text(record.get("system"))
    if system and messages and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    if last < 0:
        raise _Skip("no_answer")
    if last < len(messages) - 1:
        note("turns_after_answer")
    if not any(message["role"] != "system" for message in messages[:last]):
        raise _Skip("empty_text")
    return {"prompt": messages[:last], "completion": [messages[last]], **_tools(record)}


def _pair(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    if "ranked" in columns:
        ranked = record.get(columns["ranked"])
        if not isinstance(ranked, list) or len(ranked) < 2:
            raise _Skip("no_answer")
        chosen, rejected = _messages(ranked[0], "assistant", note), _messages(ranked[1], "assistant", note)
    else:
        chosen = _messages(record.get(columns["chosen"]), "assistant", note)
        rejected = _messages(record.get(columns["rejected"]), "assistant", note)
    prompt = _messages(record.get(columns["prompt"]), "user", note) if "prompt" in columns else []
    context = _text(record.get(columns["input"])) if "input" in columns else ""
    if context and prompt:
        prompt[-1] = {**prompt[-1], "content": f"{prompt[-1]['content']}\n{context}"}
    # Without a prompt column, or where the answers repeat it, their common beginning is the prompt.
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt = prompt or chosen[:shared]
    chosen, rejected = chosen[shared:], rejected[shared:]
    if not prompt:
        raise _Skip("empty_text")
    if not chosen or not rejected:
        raise _Skip("no_answer")
    if chosen == rejected:
        raise _Skip("same_answers")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **_tools(record)}


def _verdict(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    row = (_turns if "turns" in columns else _prompt_completion)(record, columns, instruction, note)
    verdict = VERDICTS.get(_text(record.get(columns["label"])).strip().lower())
    if verdict is None:
        raise _Skip("no_label")
    return {**row, "label": verdict}


def _tagged(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    tokens, tags = ([_text(cell) for cell in _list(record.get(columns[name]))] for name in ("tokens", "tags"))
    if len(tokens) != len(tags):
        raise _Skip("bad_span")
    found, sound = entities.from_tags(tokens, tags)
    if not sound:
        note("bad_tag")
    text = _required(entities.joined(tokens))
    return _row(f"{instruction}\n{text}" if instruction else text, entities.answer(found))


def _spanned(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    text = _required(_text(record.get(columns["text"])))
    found = entities.from_spans(text, record.get(columns["spans"]) or [])
    if found is None:
        raise _Skip("bad_span")
    return _row(f"{instruction}\n{text}" if instruction else text, entities.answer(found))


def _reading(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    context, question = (_required(_text(record.get(columns[name]))) for name in ("context", "question"))
    given = record.get(columns["answer"])
    if isinstance(given, dict):  # the Hub's SQuAD: {"text": [...], "answer_start": [...]}
        given = given.get("text")
    return _row(
        f"{context}\n\n{question}", _answer(_text(given[0] if isinstance(given, list) and given else given))
    )


def _raw_text(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    return {"text": _required(_text(record.get(columns["text"])))}


MAKERS: dict[str, Callable[[dict, dict[str, str], str, Callable], Row]] = {
    "text+label": _labelled,
    "messages": _turns,
    "sharegpt": _turns,
    "alpaca": _alpaca,
    "prompt-completion": _prompt_completion,
    "preference": _pair,
    "kto": _verdict,
    "bio": _tagged,
    "spans": _spanned,
    "reading": _reading,
    "text": _raw_text,
}


# cells and messages


def _row(question: str, answer: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def _required(text: str) -> str:
    if not text.strip():
        raise _Skip("empty_text")
    return text


def _answer(text: str) -> str:
    if not text.strip():
        raise _Skip("no_answer")
    return text


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else json.dumps(value, ensure_ascii=False)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _messages(value: Any, role: str, note: Callable) -> list[Message]:
    """Messages from a list of them, one of them, or plain text that is given `role`. Empty ones are left out."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        text = _text(value)
        return [{"role": role, "content": text}] if text.strip() else []
    messages: list[Message] = []
    for turn in value:
        if not isinstance(turn, dict):
            raise _Skip("broken_turn")
        given = _text(turn.get("role", turn.get("from", ""))).strip().lower()
        if given not in ROLES:
            raise _Skip("unknown_role")
        content = _content(turn.get("content", turn.get("value")))
        for call in _list(turn.get("tool_calls")):
            content += _tool_call(call.get("function", call) if isinstance(call, dict) else call)
        if ROLES[given] == "tool_call":
            messages.append({"role": "assistant", "content": _tool_call(content)})
        elif content.strip():
            messages.append({"role": ROLES[given], "content": content})
        else:
            note("empty_turn")
    return messages


def _content(value: Any) -> str:
    """Text of a message: plain, or the parts of a list ({"type", "text" or "value"})."""
    if not isinstance(value, list):
        return _text(value)
    texts = []
    for part in value:
        if not isinstance(part, dict):
            texts.append(_text(part))
            continue
        text = _text(part.get("text", part.get("value")))
        kind = part.get("type", "text")
        if kind == "reasoning":
            text = f"<think>\n{text}\n</think>\n\n"
        elif kind == "tool_call":
            text = _tool_call(text)
        elif kind not in ("text", "tools"):
            raise _Skip("not_text")
        texts.append(text)
    return "".join(texts)


def _tool_call(call: Any) -> str:
    """A call as the Hermes and Qwen templates write it, so that it survives any template."""
    return f"<tool_call>\n{_text(call)}\n</tool_call>"


def _tools(record: dict) -> dict[str, str]:
    tools = record.get("tools")
    if not tools:
        return {}
    return {"tools": tools if isinstance(tools, str) else json.dumps(tools, ensure_ascii=False)}


def _cleaned(value: Any, note: Callable) -> Any:
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
        return [_cleaned(item, note) for item in value]
    if isinstance(value, dict):
        return {name: _cleaned(item, note) for name, item in value.items()}
    return value
