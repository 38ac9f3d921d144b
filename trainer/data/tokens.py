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
    fitted = list(rows)
    sizes = lengths(rows, tokenizer)
    long = [index for index, size in enumerate(sizes) if size > max_length]
    counts["cut"] = len(long)
    while long:  # all long rows at once: a tokenizer is several times faster on a batch
        excess = [sizes[index] - max_length for index in long]
        shorter = _shortened([fitted[index] for index in long], excess, tokenizer)
        changed = {index: row for index, row in zip(long, shorter, strict=True) if row is not None}
        for index, size in zip(changed, lengths(list(changed.values()), tokenizer), strict=True):
            fitted[index], sizes[index] = changed[index], size
        long = [index for index in changed if sizes[index] > max_length]
    counts["answer_cut"] = sum(size > max_length for size in sizes)
    counts["cut"] -= counts["answer_cut"]
    return fitted, +counts


def endings(row: Row) -> list[list[dict[str, str]]]:
    """What follows the prompt: the completion, the chosen and the rejected answer, or nothing yet."""
    return [row[name] for name in ("completion", "chosen", "rejected") if name in row] or [[]]


def lengths(rows: list[Row], tokenizer: Any) -> list[int]:
    """Tokens of each row with its longest ending."""
    if not rows:
        return []
    texts, owners = [], []
    for index, row in enumerate(rows):
        for ending in endings(row):
            texts.append(render(row, row["prompt"] + ending, tokenizer))
            owners.append(index)
    sizes = [0] * len(rows)
    for index, ids in zip(owners, _encode(tokenizer, texts)["input_ids"], strict=True):
        sizes[index] = max(sizes[index], len(ids))
    return sizes


def prompt_lengths(rows: list[Row], tokenizer: Any) -> list[int]:
    """Tokens of each row without its ending; those carry no loss where `loss_on` is "completion"."""
    texts = [render(row, row["prompt"], tokenizer) for row in rows]
    return [len(ids) for ids in _encode(tokenizer, texts)["input_ids"]] if rows else []


def render(row: Row, messages: list[dict[str, str]], tokenizer: Any) -> str:
    """The text of messages in the model's chat template, with the row's tools."""
    import json

    tools = json.loads(row["tools"]) if row.get("tools") else None
    return tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)


def _encode(tokenizer: Any, texts: list[str], **options: Any) -> Any:
    # `verbose` is off because rows longer than the model's window are expected here: they are cut next.
    return tokenizer(texts, add_special_tokens=False, verbose=False, **options)


def _shortened(rows: list[Row], excess: list[int], tokenizer: Any) -> list[Row | None]:
    """Each row without its oldest exchange, or else with its longest user text cut by `excess` tokens.

    None for a row that has nothing left to give.
    """
    shorter: list[Row | None] = [_without_oldest_exchange(row) for row in rows]
    single = [index for index, row in enumerate(shorter) if row is None]
    places = [_longest(rows[index]["prompt"]) for index in single]
    single = [index for index, place in zip(single, places, strict=True) if place is not None]
    places = [place for place in places if place is not None]
    texts = [rows[index]["prompt"][place]["content"] for index, place in zip(single, places, strict=True)]
    offsets = _encode(tokenizer, texts, return_offsets_mapping=True)["offset_mapping"] if texts else []
    for index, place, text, spans in zip(single, places, texts, offsets, strict=True):
        keep = max(1, len(spans) - excess[index])
        # A cut may fall inside a character of several tokens, which is then whole: one character less.
        end = min(spans[keep - 1][1], len(text) - 1)
        if end > 0:
            prompt = list(rows[index]["prompt"])
            prompt[place] = {**prompt[place], "content": text[:end]}
            shorter[index] = {**rows[index], "prompt": prompt}
    return shorter


def _longest(prompt: list[dict[str, str]]) -> int | None:
    users = [index for index, message in enumerate(prompt) if message["role"] in ("user", "tool")]
    return max(users, key=lambda index: len(prompt[index]["content"])) if users else None


def _without_oldest_exchange(row: Row) -> Row | None:
    """The row without its first user turn and what follows it up to the next one; None if it has only one."""
    prompt = row["prompt"]
    users = [index for index, message in enumerate(prompt) if message["role"] == "user"]
    if len(users) < 2:
        return None
    return {**row, "prompt": prompt[: users[0]] + prompt[users[1] :]}


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
