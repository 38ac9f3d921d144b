"""The one error type for a person's mistake; every room raises it, the screen shows it as one line.

It is raised in English. told() says it in Chinese by errors.zh-TW.yaml, whose keys are the English sentences with {}
where values stand, as gettext does: so an error that comes from another process or out of a file is told as well.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import yaml

TABLE = Path(__file__).with_name("errors.zh-TW.yaml")
HOLE = re.compile(r"\{\d*\}")


class UserError(Exception):
    """What is wrong, where (file:line or field) and what to do next, in one line. Ends with status 2."""


def told(text: str, lang: str) -> str:
    """An error's text in the language of the screen; as it is where the table does not hold it."""
    return text if lang.startswith("en") else _in_chinese(text) or text


def _in_chinese(text: str) -> str:
    """The translation by the most telling sentence of the table that fits; "" where none does."""
    for pattern, chinese in _sentences():
        if match := pattern.fullmatch(text):
            return chinese.format(*(_in_chinese(value) or value for value in match.groups()))
    return ""


@cache
def _sentences() -> list[tuple[re.Pattern[str], str]]:
    """(pattern, translation), those with the most words of their own first; before them those that end in such words,
    since a value at the end takes in whatever follows."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    plain = lambda english: HOLE.sub("", english).replace("{{", "{").replace("}}", "}")
    ordered = sorted(table.items(), key=lambda item: (item[0].endswith("}"), -len(plain(item[0]))))
    return [(_pattern(english), chinese) for english, chinese in ordered]


def _pattern(english: str) -> re.Pattern[str]:
    parts = [re.escape(part.replace("{{", "{").replace("}}", "}")) for part in HOLE.split(english)]
    return re.compile("(.*?)".join(parts), re.DOTALL)
