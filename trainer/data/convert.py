"""Records of any known format → the rows that TRL trains on. Nothing is dropped without being counted.

Third step of the flow file → read → detect → convert → split. Row shapes, messages being lists of
{"role", "content"}:  turns {"prompt", "completion"} · text {"text"} · pairs {"prompt", "chosen",
"rejected"} · verdicts {"prompt", "completion", "label": bool} · prompts {"prompt"}, with "completion" where the
right answer is known;  "tools" (JSON text) where given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from trainer.config import UserError
from trainer.data import entities
from trainer.data.detect import FORMATS, VERDICTS, Detected
from trainer.data.read import Records
from trainer.data.turns import (
    Message,
    Skip,
    cleaned,
    list_of,
    messages_of,
    text_of,
    thought,
    tools_of,
    transcripts,
)

Row = dict[str, Any]

# The formats from which each row shape can be made. Which shape a method trains on stands in METHODS.
ADMITTED = {
    "turns": tuple(name for name in FORMATS if name not in ("text", "prompts")),
    "text": tuple(name for name in FORMATS if name != "prompts"),
    "prompts": tuple(name for name in FORMATS if name != "text"),
    "pairs": ("preference",),
    "verdicts": ("kto", "preference"),
}


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
    shape = shape_of(method)
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


def shape_of(method: str) -> str:
    """The row shape that a method trains on."""
    from trainer.methods import require_trainable  # which imports this module

    return require_trainable(method).shape


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
            row = make(cleaned(record, note), detected.columns, instruction, note)
        except Skip as skip:
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
    if shape in ("turns", "prompts"):
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


def instructed(instruction: str, text: str) -> str:
    """A text under the run's instruction, in training and whenever the trained model is asked."""
    return f"{instruction}\n{text}" if instruction else text


# one maker a format: (record, columns, instruction, note) → row


def _labelled(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    text, label = text_of(record.get(columns["text"])), text_of(record.get(columns["label"])).strip()
    if "text_b" in columns and text_of(record.get(columns["text_b"])):
        text = f"{text}\n{text_of(record[columns['text_b']])}"
    if not text.strip():
        raise Skip("empty_text")
    if not label:
        raise Skip("no_label")
    return _row(instructed(instruction, text), label)


def _alpaca(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    question, answer = text_of(record.get(columns["instruction"])), _reasoned(record, columns, "output")
    context = text_of(record.get(columns["input"])) if "input" in columns else ""
    row = _row(_required(f"{question}\n{context}" if context else question), _answer(answer))
    return {**row, "prompt": [*_before(record, note), *row["prompt"]], **tools_of(record)}


def _before(record: dict, note: Callable) -> list[Message]:
    """What comes before the question: the columns `system` and `history`, pairs of texts or turns."""
    system = text_of(record.get("system"))
    earlier: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
    for pair in list_of(record.get("history")):
        if isinstance(pair, list) and len(pair) == 2:
            earlier += [
                {"role": "user", "content": text_of(pair[0])},
                {"role": "assistant", "content": text_of(pair[1])},
            ]
        else:
            earlier += messages_of(pair if isinstance(pair, dict) else [pair], "user", note)
    return earlier


def _reasoned(record: dict, columns: dict[str, str], name: str) -> str:
    """The answer's text, with the column that holds its reasoning."""
    answer = text_of(record.get(columns[name]))
    return thought(text_of(record.get(columns["reasoning"])), answer) if "reasoning" in columns else answer


def _prompt_completion(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    prompt = messages_of(record.get(columns["prompt"]), "user", note)
    completion = messages_of(record.get(columns["completion"]), "assistant", note)
    if not prompt:
        raise Skip("empty_text")
    if not completion:
        raise Skip("no_answer")
    if "reasoning" in columns:
        last = completion[-1]["content"]
        completion[-1]["content"] = thought(text_of(record.get(columns["reasoning"])), last)
    before = [] if prompt[0]["role"] == "system" else _before(record, note)
    return {"prompt": [*before, *prompt], "completion": completion, **tools_of(record)}


def _prompt_only(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    prompt = messages_of(record.get(columns["prompt"]), "user", note)
    if not prompt:
        raise Skip("empty_text")
    return {"prompt": prompt, **tools_of(record)}


def _turns(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    messages = messages_of(record.get(columns["turns"]), "user", note)
    system = text_of(record.get("system"))
    if system and messages and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    last = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    if last < 0:
        raise Skip("no_answer")
    if last < len(messages) - 1:
        note("turns_after_answer")
    if not any(message["role"] != "system" for message in messages[:last]):
        raise Skip("empty_text")
    return {"prompt": messages[:last], "completion": [messages[last]], **tools_of(record)}


def _pair(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    if "ranked" in columns:
        ranked = record.get(columns["ranked"])
        if not isinstance(ranked, list) or len(ranked) < 2:
            raise Skip("no_answer")
        answers = ranked[:2]
    else:
        answers = [record.get(columns["chosen"]), record.get(columns["rejected"])]
    prompt = messages_of(record.get(columns["prompt"]), "user", note) if "prompt" in columns else []
    if not prompt and all(isinstance(answer, str) for answer in answers):
        answers = transcripts(*answers)
    chosen, rejected = (messages_of(answer, "assistant", note) for answer in answers)
    context = text_of(record.get(columns["input"])) if "input" in columns else ""
    if context and prompt:
        prompt[-1] = {**prompt[-1], "content": f"{prompt[-1]['content']}\n{context}"}
    # Without a prompt column, or where the answers repeat it, their common beginning is the prompt.
    shared = 0
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prompt = prompt or chosen[:shared]
    chosen, rejected = chosen[shared:], rejected[shared:]
    if not chosen or not rejected:
        raise Skip("no_answer")
    if not prompt:
        raise Skip("empty_text" if "prompt" in columns else "no_prompt")
    if chosen == rejected:
        raise Skip("same_answers")
    before = [] if prompt[0]["role"] == "system" else _before(record, note)
    return {"prompt": [*before, *prompt], "chosen": chosen, "rejected": rejected, **tools_of(record)}


def _verdict(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    row = (_turns if "turns" in columns else _prompt_completion)(record, columns, instruction, note)
    verdict = VERDICTS.get(text_of(record.get(columns["label"])).strip().lower())
    if verdict is None:
        raise Skip("no_label")
    return {**row, "label": verdict}


def _tagged(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    tokens, tags = (
        [text_of(cell) for cell in list_of(record.get(columns[name]))] for name in ("tokens", "tags")
    )
    if len(tokens) != len(tags):
        raise Skip("bad_span")
    found, sound = entities.from_tags(tokens, tags)
    if not sound:
        note("bad_tag")
    text = _required(entities.joined(tokens))
    return _row(instructed(instruction, text), entities.answer(found))


def _spanned(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    text = _required(text_of(record.get(columns["text"])))
    found = entities.from_spans(text, record.get(columns["spans"]) or [])
    if found is None:
        raise Skip("bad_span")
    return _row(instructed(instruction, text), entities.answer(found))


def _reading(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    context, question = (_required(text_of(record.get(columns[name]))) for name in ("context", "question"))
    if "reasoning" in columns:
        return _row(f"{context}\n\n{question}", _answer(_reasoned(record, columns, "answer")))
    given = record.get(columns["answer"])
    if isinstance(given, dict):  # the Hub's SQuAD: {"text": [...], "answer_start": [...]}
        given = given.get("text")
    return _row(
        f"{context}\n\n{question}", _answer(text_of(given[0] if isinstance(given, list) and given else given))
    )


def _raw_text(record: dict, columns: dict[str, str], instruction: str, note: Callable) -> Row:
    return {"text": _required(text_of(record.get(columns["text"])))}


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
    "prompts": _prompt_only,
    "text": _raw_text,
}


def _row(question: str, answer: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def _required(text: str) -> str:
    if not text.strip():
        raise Skip("empty_text")
    return text


def _answer(text: str) -> str:
    if not text.strip():
        raise Skip("no_answer")
    return text
