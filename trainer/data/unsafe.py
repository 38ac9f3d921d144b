"""Insults, sexual and hateful words in a text, by the word lists of glin-profanity (MIT, English and Chinese).

A list of words and nothing more: it finds no politely put harm, no irony and no misspelling that the list does not
hold, and it does find quotations. So the finding counts rows for a person to read, and takes none out by itself.
"""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml

WORD = re.compile(r"[a-z]+")
HAN = re.compile(r"[\u3400-\u9fff]")


def unsafe(text: str) -> str:
    """The first word of the lists that stands in a text, "" where none does."""
    single, phrases, chinese = _lists()
    words = WORD.findall(text.lower())
    found = "" if single.isdisjoint(words) else next(word for word in words if word in single)
    if not found and not phrases.keys().isdisjoint(words):
        begun = phrases.keys() & set(words)
        flat = f" {' '.join(words)} "
        found = next((phrase for word in begun for phrase in phrases[word] if f" {phrase} " in flat), "")
    if not found and not text.isascii() and (match := chinese.search(text)):
        found = match[0]
    return found


@cache
def _lists() -> tuple[frozenset[str], dict[str, tuple[str, ...]], re.Pattern[str]]:
    """(English words, English phrases by their first word, Chinese words in both scripts)."""
    # The lists are read as files: importing the package brings its models' code in.
    folder = Path(find_spec("glin_profanity").origin).parent / "data" / "dictionaries"
    read = lambda name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["words"]
    everyday = yaml.safe_load((Path(__file__).parent / "everyday.yaml").read_text(encoding="utf-8"))
    english = [word.lower() for word in read("english") if word.lower() not in everyday["en"]]
    phrases: dict[str, list[str]] = {}
    for phrase in english:
        parts = phrase.split()
        if len(parts) > 1 and all(WORD.fullmatch(part) for part in parts):
            phrases.setdefault(parts[0], []).append(phrase)
    single = frozenset(word for word in english if WORD.fullmatch(word))
    return (
        single,
        {first: tuple(whole) for first, whole in phrases.items()},
        _chinese(read("chinese"), everyday["zh"]),
    )


def _chinese(words: list[str], everyday: list[str]) -> re.Pattern[str]:
    import opencc

    kept = {word for word in words if len(HAN.findall(word)) >= 2 and word not in everyday}
    convert = [opencc.OpenCC(name).convert for name in ("s2t", "s2tw")]
    both = kept | {change(word) for word in kept for change in convert}
    return re.compile("|".join(re.escape(word) for word in sorted(both, key=lambda word: (-len(word), word))))
