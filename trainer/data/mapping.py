"""Which column of a source is what: proposed with a confidence, changed by hand, applied row by row.

Between source and file in `tunesmith data import`. A mapping renames columns to the names that detect.py and TRL
know ("instruction", "output", …); every other column stays, so that a later split can group by it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from trainer.config import UserError
from trainer.data import detect as formats
from trainer.data.detect import EXTRA_COLUMNS, TURN_COLUMNS, Detected
from trainer.data.entities import SPANS, TAGS, TOKENS, is_spans

# Detection's role → the column's standard name, where they differ by format.
STANDARD = {
    ("messages", "turns"): "messages", ("sharegpt", "turns"): "conversations", ("kto", "turns"): "messages",
    ("preference", "ranked"): "output", ("spans", "spans"): "entities", ("bio", "tags"): "tags",
}  # fmt: skip
# Names in other words or languages than detect.py knows, compared without case and punctuation.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "prompt": ("frage", "pregunta", "demande", "question_text", "user", "human", "input_text", "src", "問題", "问题", "提問", "提问", "問句", "質問", "질문"),
    "completion": ("antwort", "respuesta", "réponse", "reponse", "assistant", "bot", "reply", "output_text", "target_text", "tgt", "回答", "答案", "答覆", "答复", "回覆", "回复", "応答", "답변"),
    "instruction": ("指令", "指示", "anweisung", "instrucción", "instruccion", "consigne", "task_instruction"),
    "input": ("輸入", "输入", "eingabe", "entrada", "入力"),
    "output": ("輸出", "输出", "ausgabe", "salida", "sortie", "出力"),
    "text": ("kommentar", "texto", "texte", "message", "post", "feedback", "title", "留言", "訊息", "消息", "本文", "テキスト", "텍스트"),
    "label": ("kategorie", "klasse", "categoría", "categoria", "catégorie", "etiqueta", "stars", "score", "polarity", "ラベル", "カテゴリ", "레이블"),
    "chosen": ("preferred", "accepted", "better", "response_chosen", "chosen_response", "較佳回答"),
    "rejected": ("dispreferred", "worse", "response_rejected", "rejected_response", "較差回答"),
}  # fmt: skip
# What a column can be made, in the order in which a screen offers it.
ROLES = (
    "prompt", "completion", "instruction", "input", "output", "context", "question", "answer", "text", "text_b",
    "label", "messages", "conversations", "chosen", "rejected", "tokens", "tags", "entities", "reasoning", "system",
    "tools", "history",
)  # fmt: skip
# Columns whose value may be a list.
WITH_LISTS = {*TURN_COLUMNS, *TOKENS, *TAGS, *SPANS, "chosen", "rejected", "history"}
LOOKED_AT = 1000  # rows from which a mapping is proposed
BY_NAME, BY_LISTED_NAME, BY_SYNONYM, BY_VALUES = 1.0, 0.9, 0.8, 0.4
SEVERAL = 5  # rows from which repeated values say that a column holds labels


@dataclass(frozen=True)
class Match:
    """A column and what it is taken for. `why`: given, name, synonym or values.

    `confidence` is how sure that reason is (1, 0.9 for another listed name, 0.8 for a synonym, 0.4 for a guess by
    the values) times the share of the rows looked at whose value fits.
    """

    role: str
    column: str
    confidence: float
    why: str


@dataclass(frozen=True)
class Mapping:
    """`clashing` are unused columns whose names would be mistaken for a role: they are written as NAME_unused."""

    detected: Detected
    matches: tuple[Match, ...]
    unused: tuple[str, ...]
    clashing: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """role → column, what is recorded and given to --map."""
        return {match.role: match.column for match in self.matches}

    @property
    def guessed(self) -> bool:
        """Whether a column was chosen by its values alone, which a person should confirm."""
        return any(match.why == "values" for match in self.matches)


def propose(rows: list[dict[str, Any]], given: dict[str, str], name: str) -> Mapping:
    """The mapping of a source by its first rows; `given` (role → column) has the last word.

    Raises UserError where a given column is not there, or nothing can be made of the columns.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for role, column in given.items():
        if role not in ROLES:
            raise UserError(f"--map {role}={column}: unknown role {role!r}; choose one of {', '.join(ROLES)}")
        if not any(_reach(row, column) is not None for row in rows):
            raise UserError(
                f"{name}: no column {column!r} with values; choose one of {', '.join(c[:40] for c in columns[:12])}"
            )
    guesses = (
        ({}, "name"),
        (_synonyms(rows, columns, given), "synonym"),
        (_by_values(rows, given), "values"),
    )
    fitting = [(guess, why, _standard(rows, columns, {**guess, **given})) for guess, why in guesses[:2]]
    fitting = [one for one in fitting if one[2]] or [
        (*guesses[2], _standard(rows, columns, {**guesses[2][0], **given}))
    ]
    # The one that finds a use for most columns: a known "body" alone would hide the "Kategorie" beside it.
    guess, why, found = max(fitting, key=lambda one: len(one[2][0]) if one[2] else 0)
    if found:
        chosen, detected, clashing = found
        reasons = {column: why for column in guess.values()} | {column: "given" for column in given.values()}
        matches = tuple(
            _match(rows, role, column, reasons.get(column, "name")) for role, column in chosen.items()
        )
        return Mapping(detected, matches, _unused(columns, chosen), clashing)
    names = ", ".join(repr(column[:40]) for column in columns[:8])
    raise UserError(
        f"{name}: nothing can be made of the columns {names}; say what they are, for example "
        f"--map prompt=COLUMN --map completion=COLUMN, or --map text=COLUMN --map label=COLUMN"
    )


def apply(row: dict[str, Any], mapping: Mapping) -> dict[str, Any]:
    """The row with its columns under their standard names, then the others as they are."""
    return _renamed(row, mapping.columns, mapping.unused, mapping.clashing)


def opened(row: dict[str, Any]) -> dict[str, Any]:
    """The row with turns, tokens and spans that came as JSON in a text (a database, a CSV file) as lists."""
    return {
        name: _list_in(value) if isinstance(value, str) and value[:1] == "[" and name.lower() in WITH_LISTS else value
        for name, value in row.items()
    }  # fmt: skip


def _list_in(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, list) and value else text


def _renamed(
    row: dict[str, Any], chosen: dict[str, str], unused: tuple[str, ...], clashing: tuple[str, ...]
) -> dict[str, Any]:
    # A row that lacks a column goes on without it: the converter then names what is missing.
    made = {role: value for role, column in chosen.items() if (value := _reach(row, column)) is not None}
    for column in unused:
        if column in row:
            made[f"{column}_unused" if column in clashing or column in chosen else column] = row[column]
    return made


def _unused(columns: list[str], chosen: dict[str, str]) -> tuple[str, ...]:
    # Of a column that a dotted name reaches into, the rest stays.
    return tuple(column for column in columns if column not in chosen.values())


def _standard(
    rows: list[dict[str, Any]], columns: list[str], wanted: dict[str, str]
) -> tuple[dict[str, str], Detected, tuple[str, ...]] | None:
    """(role → column of the source, the format that this gives, clashing columns); None where no format fits.

    `wanted` (role → column) is looked at beside all other columns first; where that leaves one of them out, alone.
    """
    others = [column for column in columns if column not in wanted.values() and column not in wanted]
    for beside in (others, [column for column in others if column.lower() in EXTRA_COLUMNS]):
        seen = [_renamed(row, wanted, tuple(beside), ()) for row in rows]
        found = formats.find(seen)
        if found is None or not set(wanted) <= {*found.columns.values(), *EXTRA_COLUMNS}:
            continue
        chosen = {_name(found, role): wanted.get(column, column) for role, column in found.columns.items()}
        chosen |= {role: column for role, column in wanted.items() if role in EXTRA_COLUMNS}
        unused = _unused(columns, chosen)
        known = tuple(column for column in unused if column.strip().lower() in formats.KNOWN_COLUMNS)
        for clashing in ((), known):
            final = formats.find([_renamed(row, chosen, unused, clashing) for row in rows])
            if final and (final.format, set(final.columns)) == (found.format, set(found.columns)):
                return chosen, final, clashing
    return None


def _name(found: Detected, role: str) -> str:
    """The column name under which detection finds a role again."""
    if found.format == "preference" and role == "prompt" and {"input", "ranked"} & set(found.columns):
        return "instruction"
    return STANDARD.get((found.format, role), role)


def _match(rows: list[dict[str, Any]], role: str, column: str, why: str) -> Match:
    return Match(role, column, _confidence(rows, role, column, why), why)


def _reach(row: dict[str, Any], column: str) -> Any:
    """The value of a column; "sentiment.name" reaches into objects, "answers.0" into lists."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _plain(name: str) -> str:
    return re.sub(r"[\s\-_.:：]+", "_", name.strip().lower()).strip("_")


def _synonyms(rows: list[dict[str, Any]], columns: list[str], given: dict[str, str]) -> dict[str, str]:
    """role → column by name in other words."""
    roles = {_plain(name): role for role, names in SYNONYMS.items() for name in names}
    found: dict[str, str] = {}
    for column in columns:
        role = roles.get(_plain(column))
        if role and role not in found and role not in given and column not in given.values():
            values = [row[column] for row in rows if row.get(column) not in (None, "", [])]
            if role != "label" or _are_labels(values):
                found[role] = column
    return found


def _by_values(rows: list[dict[str, Any]], given: dict[str, str]) -> dict[str, str]:
    """A guess by what the columns hold: turns, two texts in their order, a text with a label, or one text."""
    texts, labels = [], []
    for column in dict.fromkeys(column for row in rows for column in row):
        if column in given.values():
            continue
        values = [row[column] for row in rows if row.get(column) not in (None, "", [])]
        if len(values) < 0.5 * len(rows):
            continue
        first = values[0]
        if isinstance(first, list) and first and isinstance(first[0], dict):
            if {"role", "content"} <= set(first[0]) or {"from", "value"} <= set(first[0]):
                return {"conversations" if "from" in first[0] else "messages": column}
            continue
        if len(values) >= SEVERAL and _are_labels(values):
            labels.append(column)
        elif all(isinstance(value, str) for value in values) and not _is_identifier(values):
            texts.append(column)
    if len(texts) >= 2:
        return {"prompt": texts[0], "completion": texts[1]}
    if texts:
        return {"text": texts[0]} | ({"label": labels[0]} if labels else {})
    return {}


def _are_labels(values: list[Any]) -> bool:
    """Few, short values that come again and again; of only a few rows nothing can be said."""
    kinds = {str(value) for value in values if isinstance(value, str | int | bool)}
    if not kinds or not all(len(kind) <= 64 for kind in kinds):
        return False
    return len(values) < SEVERAL or 2 <= len(kinds) <= max(2, 0.2 * len(values))


def _is_identifier(values: list[str]) -> bool:
    """Addresses, hashes, numbers and dates: short or a URL, without a space, in no script but Latin."""
    return all(
        value.isascii() and " " not in value.strip() and (len(value) <= 64 or "://" in value)
        for value in values
    )


def _confidence(rows: list[dict[str, Any]], role: str, column: str, why: str) -> float:
    sure = {"given": BY_NAME, "synonym": BY_SYNONYM, "values": BY_VALUES}.get(why)
    if sure is None:
        sure = BY_NAME if column.strip().lower() == role else BY_LISTED_NAME
    fitting = sum(_fits(role, _reach(row, column)) for row in rows)
    return round(sure * fitting / max(1, len(rows)), 2)


def _fits(role: str, value: Any) -> bool:
    if value in (None, "", []):
        return role in ("input", "history", "system", "tools", "text_b", "entities")  # these may be empty
    if role in ("messages", "conversations"):
        return isinstance(value, list) and isinstance(value[0], dict)
    if role == "entities":
        return isinstance(value, dict) or is_spans(value)
    if role in ("tokens", "tags"):
        return isinstance(value, list)
    if role == "label":
        return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 200)
    if role in ("chosen", "rejected", "prompt", "completion", "output", "answer", "history", "tools"):
        return isinstance(value, str | list | dict | int | float)
    return isinstance(value, str | int | float)
