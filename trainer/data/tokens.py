"""Rows cut to max_length with the model's own tokenizer: the user's text gives way, the answer stays.

Between split and training. Truncation of the whole row, as a trainer does it, would cut off the answer.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from trainer.data.convert import Row


def fit(rows: list[Row], tokenizer: Any, max_length: int) -> tuple[list[Row], Counter[str]]:
    """Rows of at most `max_length` tokens, rendered with the chat template.

    Counts: "cut" (user's text or earlier turns shortened), "answer_cut" (the answer alone is too long: the
    trainer will cut its end), "parts" (pieces that long raw texts were divided into beyond the first).
    """
    counts: Counter[str] = Counter()
    if not rows:  # transformers' tokenizers fail on an empty list
        return [], counts
    if "text" in rows[0]:
        return _divide(rows, tokenizer, max_length, counts), counts
    lengths = _lengths(rows, tokenizer)
    fitted = []
    for row, length in zip(rows, lengths, strict=True):
        if length > max_length:
            row, length = _cut(row, length, tokenizer, max_length)
            counts["cut" if length <= max_length else "answer_cut"] += 1
        fitted.append(row)
    return fitted, counts


def _endings(row: Row) -> list[list[dict[str, str]]]:
    return [row[name] for name in ("completion", "chosen", "rejected") if name in row]


def _lengths(rows: list[Row], tokenizer: Any) -> list[int]:
    """Tokens of each row with its longest ending."""
    texts, owners = [], []
    for index, row in enumerate(rows):
        for ending in _endings(row):
            texts.append(_render(row, row["prompt"] + ending, tokenizer))
            owners.append(index)
    lengths = [0] * len(rows)
    for index, ids in zip(owners, _encode(tokenizer, texts)["input_ids"], strict=True):
        lengths[index] = max(lengths[index], len(ids))
    return lengths


def _render(row: Row, messages: list[dict[str, str]], tokenizer: Any) -> str:
    import json

    tools = json.loads(row["tools"]) if row.get("tools") else None
    return tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)


def _encode(tokenizer: Any, texts: list[str], **options: Any) -> Any:
    # `verbose` is off because rows longer than the model's window are expected here: they are cut next.
    return tokenizer(texts, add_special_tokens=False, verbose=False, **options)


def _cut(row: Row, length: int, tokenizer: Any, max_length: int) -> tuple[Row, int]:
    row = {**row, "prompt": list(row["prompt"])}
    while length > max_length and _drop_oldest_exchange(row["prompt"]):
        length = _lengths([row], tokenizer)[0]
    users = [i for i, message in enumerate(row["prompt"]) if message["role"] in ("user", "tool")]
    while length > max_length and users:
        longest = max(users, key=lambda i: len(row["prompt"][i]["content"]))
        message = row["prompt"][longest]
        ends = [
            end
            for _, end in _encode(tokenizer, [message["content"]], return_offsets_mapping=True)[
                "offset_mapping"
            ][0]
        ]
        keep = len(ends) - (length - max_length)
        if keep < 1:
            users.remove(longest)
            continue
        shorter = message["content"][: ends[keep - 1]]
        if shorter == message["content"]:  # the cut fell inside a character of several tokens
            shorter = shorter[:-1]
        row["prompt"][longest] = {**message, "content": shorter}
        length = _lengths([row], tokenizer)[0]
    return row, length


def _drop_oldest_exchange(prompt: list[dict[str, str]]) -> bool:
    """Remove the first user turn and what follows it up to the next one; False if only one is left."""
    users = [i for i, message in enumerate(prompt) if message["role"] == "user"]
    if len(users) < 2:
        return False
    del prompt[users[0] : users[1]]
    return True


def _divide(rows: list[Row], tokenizer: Any, max_length: int, counts: Counter[str]) -> list[Row]:
    """Raw texts in pieces of at most max_length - 1 tokens, so that the end mark fits and nothing is lost."""
    divided = []
    for row in rows:
        pieces = _pieces(row["text"], tokenizer, max_length - 1)
        divided += [{**row, "text": piece} for piece in pieces if piece.strip()]
        counts["parts"] += len(pieces) - 1
    return divided


def _pieces(text: str, tokenizer: Any, room: int) -> list[str]:
    offsets = _encode(tokenizer, [text], return_offsets_mapping=True)["offset_mapping"][0]
    if len(offsets) <= room:
        return [text]
    # A piece that begins inside a word may take a token more alone than it did in the text: it is halved.
    step = room if len(offsets) > room + room // 4 else room // 2
    starts = sorted({0, *(offsets[at][0] for at in range(0, len(offsets), step))})
    slices = [text[start:end] for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]
    return [piece for part in slices for piece in _pieces(part, tokenizer, room)]
