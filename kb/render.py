"""Fact tables inside pages: the block `<!-- facts: NAME [key=value …] -->` … `<!-- /facts -->` is written from the rows.

`tunesmith kb render` rewrites the blocks, `kb check` compares them, so that a page and the advice
cannot disagree. A block: models [family=], rules field= [method=], gpus, methods, symptom id=, glossary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kb import facts
from kb.errors import UserError
from kb.facts import Rule, Text
from kb.pages import KB_DIR, files, shown

OPEN = re.compile(r"^<!-- facts: *(.*?) *-->$")
CLOSE = "<!-- /facts -->"

# Words of the tables: key → (English, Traditional Chinese).
WORDS: dict[str, tuple[str, str]] = {
    "model": ("Model", "模型"),
    "params": ("Parameters (B)", "參數量（十億）"),
    "context": ("Context (tokens)", "上下文長度（token）"),
    "licence": ("Licence", "授權"),
    "thinking": ("Thinking", "思考模式"),
    "none": ("no", "無"),
    "switchable": ("can be switched", "可開關"),
    "always": ("always", "一律開啟"),
    "ollama": ("Ollama tag", "Ollama 標籤"),
    "released": ("Released", "發布日期"),
    "active": ("active", "啟用"),
    "method": ("Method", "方法"),
    "needs": ("Data it needs", "需要的資料"),
    "library": ("Class", "類別"),
    "status": ("Status", "狀態"),
    "stable": ("stable", "穩定"),
    "experimental": ("experimental", "實驗性"),
    "reference": ("Reference model", "參考模型"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "gpu": ("GPU", "GPU"),
    "memory": ("Memory (GB)", "記憶體（GB）"),
    "bandwidth": ("Bandwidth (GB/s)", "頻寬（GB/s）"),
    "tflops": ("Dense bf16 (TFLOPS)", "bf16 密集運算（TFLOPS）"),
    "when": ("When", "條件"),
    "value": ("Value", "值"),
    "range": ("Usual range", "常用範圍"),
    "because": ("Why", "理由"),
    "evidence": ("Evidence", "依據"),
    "measured": ("measured", "實測"),
    "primary": ("primary source", "第一手來源"),
    "secondary": ("secondary source", "第二手來源"),
    "heuristic": ("heuristic", "經驗法則"),
    "otherwise": ("otherwise", "其他情況"),
    "signals": ("Signs", "徵兆"),
    "causes": ("Causes", "原因"),
    "remedy": ("Remedy, best first", "處理方式（由佳到次）"),
    "change": ("Change in the run", "設定改動"),
    "effect": ("Effect", "效果"),
    "cost": ("Cost", "代價"),
    "high": ("high", "高"),
    "medium": ("medium", "中"),
    "low": ("low", "低"),
    "en": ("English", "英文"),
    "zh-TW": ("Chinese (Taiwan)", "臺灣用語"),
    "zh-CN": ("Chinese (mainland)", "中國大陸用語"),
    "also": ("Also", "其他寫法"),
}  # fmt: skip
SIGNS = {"min": "≥", "max": "≤", "gt": ">", "lt": "<"}


class RenderError(UserError):
    """A facts block that cannot be rendered; the message opens with file:line."""


def render(write: bool, root: Path = KB_DIR) -> list[str]:
    """Files whose blocks differ from the rows, as "kb/pages/…md"; rewritten when `write`. Raises RenderError."""
    changed = []
    for path in files(root):
        old = path.read_text(encoding="utf-8")
        new = rendered(old, path, root)
        if new != old:
            changed.append(shown(path, root))
            if write:
                path.write_text(new, encoding="utf-8")
    return changed


def rendered(text: str, path: Path, root: Path = KB_DIR) -> str:
    """The page with every block rewritten from the rows. Raises RenderError with the line of the bad block."""
    lang = path.stem.rpartition(".")[2]
    lines = text.split("\n")
    out: list[str] = []
    end = 0
    for line, last, block in blocks(lines, shown(path, root)):
        try:
            table = block_text(block, lang, root)
        except ValueError as error:
            raise RenderError(f"{shown(path, root)}:{line}: facts block {block!r}: {error}") from None
        out += [*lines[end:line], *table.split("\n"), CLOSE]
        end = last
    return "\n".join(out + lines[end:])


def blocks(lines: list[str], where: str) -> list[tuple[int, int, str]]:
    """(line of the opening comment, line of the closing one, what it asks for), lines from 1."""
    found = []
    start, asked = 0, ""
    for number, line in enumerate(lines, 1):
        if match := OPEN.match(line.strip()):
            if start:
                raise RenderError(
                    f"{where}:{start}: facts block {asked!r} is not closed; write {CLOSE} after it"
                )
            start, asked = number, match[1]
        elif line.strip() == CLOSE:
            if not start:
                raise RenderError(f"{where}:{number}: {CLOSE} without an opening <!-- facts: NAME -->")
            found.append((start, number, asked))
            start = 0
    if start:
        raise RenderError(f"{where}:{start}: facts block {asked!r} is not closed; write {CLOSE} after it")
    return found


def block_text(block: str, lang: str, root: Path = KB_DIR) -> str:
    """Markdown of one block such as "rules field=learning_rate". Raises ValueError on a name or argument unknown."""
    name, *rest = block.split()
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}; known are {', '.join(TABLES)}")
    draw, required, optional = TABLES[name]
    arguments = dict(part.partition("=")[::2] for part in rest)
    if unknown := arguments.keys() - {*required, *optional}:
        raise ValueError(
            f"unknown argument {min(unknown)!r}; known are {', '.join((*required, *optional)) or 'none'}"
        )
    if missing := [key for key in required if not arguments.get(key)]:
        raise ValueError(f"{missing[0]}= is missing")
    return draw(lang, root / "facts", **arguments)


def models(lang: str, directory: Path, family: str = "") -> str:
    """Base models, all or of one family. Raises ValueError for a family without models."""
    rows = [
        row
        for row in facts.table("models", directory)
        if row.family.lower() == (family.lower() or row.family)
    ]
    if not rows:
        raise ValueError(f"no model of family {family!r}")
    word = _words(lang)
    cells = [
        (
            f"[{row.name}](https://huggingface.co/{row.hub_id})",
            f"{row.params_b:.1f}" + (f" ({word('active')} {row.active_b:.1f})" if row.active_b else ""),
            f"{row.context:,}",
            row.licence,
            word(row.thinking),
            f"`{row.ollama_tag}`" if row.ollama_tag else "–",
            row.released,
        )
        for row in rows
    ]
    return _table(
        [word(key) for key in ("model", "params", "context", "licence", "thinking", "ollama", "released")],
        cells,
    )


def methods(lang: str, directory: Path) -> str:
    """Training methods with the data they need and the class that runs them."""
    word = _words(lang)
    cells = [
        (row.name.get(lang), row.needs.get(lang), f"`{row.library}`", word(row.status), word("yes" if row.reference_model else "no"))
        for row in facts.table("methods", directory)
    ]  # fmt: skip
    return _table([word(key) for key in ("method", "needs", "library", "status", "reference")], cells)


def gpus(lang: str, directory: Path) -> str:
    """Cards with memory, bandwidth and dense bf16 rate."""
    word = _words(lang)
    cells = [
        (row.name, f"{row.memory_gb:g}", f"{row.bandwidth_gbs:g}", f"{row.bf16_tflops:g}" if row.bf16 else "–", word("yes" if row.fp8 else "no"))
        for row in facts.table("gpus", directory)
    ]  # fmt: skip
    return _table([*(word(key) for key in ("gpu", "memory", "bandwidth", "tflops")), "FP8"], cells)


def rules(lang: str, directory: Path, field: str, method: str = "") -> str:
    """Rules that set one field, in the order in which they win; with `method`, those that can hold for it."""
    rows = [row for row in facts.table("rules", directory) if field in row.set and _may_hold(row, method)]
    if not rows:
        raise ValueError(f"no rule sets {field!r}" + (f" for method {method!r}" if method else ""))
    word = _words(lang)
    cells = [
        (
            condition(row.when, lang),
            f"`{_shown(row.set[field])}`",
            "–".join(f"{limit:g}" for limit in row.range.get(field, [])) or "–",
            row.because.get(lang),
            word(row.evidence),
        )
        for row in sorted(rows, key=lambda row: (-row.priority, -len(row.when)))
    ]
    return _table([word(key) for key in ("when", "value", "range", "because", "evidence")], cells)


def symptom(lang: str, directory: Path, id: str) -> str:
    """Signs, causes and remedies of one symptom. Raises ValueError for an unknown id."""
    row = facts.by_id("symptoms", directory).get(id)
    if row is None:
        raise ValueError(f"unknown symptom {id!r}; known are {', '.join(facts.by_id('symptoms', directory))}")
    word = _words(lang)
    cells = [
        (one.text.get(lang), _changes(one.change), word(one.effect), word(one.cost)) for one in row.remedies
    ]
    return "\n\n".join(
        [
            f"**{word('signals')}**\n\n{_bullets(row.signals, lang)}",
            f"**{word('causes')}**\n\n{_bullets(row.causes, lang)}",
            _table([word(key) for key in ("remedy", "change", "effect", "cost")], cells),
        ]
    )


def glossary(lang: str, directory: Path) -> str:
    """All terms, ordered by the English one."""
    word = _words(lang)
    rows = sorted(facts.table("glossary", directory), key=lambda row: row.en.lower())
    cells = [(row.en, row.zh_TW, row.zh_CN, ", ".join(row.also)) for row in rows]
    return _table([word(key) for key in ("en", "zh-TW", "zh-CN", "also")], cells)


# Name of a block → (its function, arguments that it must have, arguments that it may have).
TABLES: dict[str, tuple[Callable[..., str], tuple[str, ...], tuple[str, ...]]] = {
    "models": (models, (), ("family",)),
    "rules": (rules, ("field",), ("method",)),
    "gpus": (gpus, (), ()),
    "methods": (methods, (), ()),
    "symptom": (symptom, ("id",), ()),
    "glossary": (glossary, (), ()),
}


def condition(when: dict[str, Any], lang: str) -> str:
    """The conditions of a rule as a reader sees them: `peft` = lora, qlora; `model_b` ≥ 13."""
    parts = []
    for fact, wanted in when.items():
        if isinstance(wanted, dict):
            parts += [f"`{fact}` {SIGNS.get(sign, sign)} {_shown(limit)}" for sign, limit in wanted.items()]
        else:
            parts.append(
                f"`{fact}` = {', '.join(map(_shown, wanted)) if isinstance(wanted, list) else _shown(wanted)}"
            )
    return "; ".join(parts) or _words(lang)("otherwise")


def _may_hold(rule: Rule, method: str) -> bool:
    wanted = rule.when.get("method", method)
    return not method or method in (wanted if isinstance(wanted, list) else [wanted])


def _changes(change: dict[str, Any]) -> str:
    return ", ".join(f"`{key} = {_shown(value).removeprefix('=')}`" for key, value in change.items()) or "–"


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value)


def _bullets(texts: list[Text], lang: str) -> str:
    return "\n".join(f"- {text.get(lang)}" for text in texts)


def _words(lang: str) -> Callable[[str], str]:
    return lambda key: WORDS[key][0 if lang == "en" else 1]


def _table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )
