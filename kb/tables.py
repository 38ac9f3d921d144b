"""The tables that pages show, drawn as Markdown from the rows of kb/facts; one function for each kind of block.

kb/render.py puts them into pages. Pure: rows in, text out.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kb import facts
from kb.facts import Rule, Text

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
    "dataset": ("Dataset", "資料集"),
    "languages": ("Languages", "語言"),
    "rows": ("Rows", "筆數"),
    "format": ("Format", "格式"),
    "note": ("Note", "備註"),
    "unknown": ("not stated", "未說明"),
    "field": ("Setting", "設定"),
    "default": ("Default", "預設值"),
    "required": ("required", "必填"),
    "meaning": ("Meaning", "意義"),
}  # fmt: skip
SIGNS = {"min": "≥", "max": "≤", "gt": ">", "lt": "<"}


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


def datasets(lang: str, directory: Path, task: str = "") -> str:
    """Public data sets, all or of one task. Raises ValueError for a task without any."""
    rows = [row for row in facts.table("datasets", directory) if row.task == (task or row.task)]
    if not rows:
        raise ValueError(f"no data set of task {task!r}")
    word = _words(lang)
    cells = [
        (
            f"[{row.name}]({row.url})",
            ", ".join(row.languages),
            "; ".join(f"{split} {count:,}" for split, count in row.rows.items()) or "–",
            row.format,
            word("unknown") if row.licence == "unknown" else row.licence,
            row.note.get(lang) if row.note else "–",
        )
        for row in rows
    ]
    return _table([word(key) for key in ("dataset", "languages", "rows", "format", "licence", "note")], cells)


def fields(lang: str, directory: Path, names: str) -> str:
    """Settings of a run with default and meaning, in the order asked for. Raises ValueError for an unknown one."""
    known = run_fields(directory.parent)
    word = _words(lang)
    cells = []
    for name in names.split(","):
        if name not in known:
            raise ValueError(f"RunConfig has no field {name!r}")
        default, meaning = known[name]
        cells.append(
            (f"`{name}`", word("required") if default is None else f"`{default}`", meaning.get(lang))
        )
    return _table([word(key) for key in ("field", "default", "meaning")], cells)


def run_fields(root: Path) -> dict[str, tuple[str | None, Text]]:
    """RunConfig's fields → (default as YAML or None where required, description), from its source beside `root`."""
    found: dict[str, tuple[str | None, Text]] = {}
    for name, node in class_fields(root.parent / "trainer" / "config.py", "RunConfig").items():
        assert isinstance(node.value, ast.Call)
        words = {key.arg: key.value for key in node.value.keywords}
        default = _shown(ast.literal_eval(node.value.args[0])) or '""' if node.value.args else None
        text = {lang: ast.literal_eval(words[key]) for key, lang in (("en", "en"), ("zh", "zh-TW"))}
        found[name] = default, Text.model_validate(text)
    return found


def class_fields(path: Path, name: str) -> dict[str, ast.AnnAssign]:
    """The annotated fields of a class, read from source: kb stands below every other room and imports none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return {
                item.target.id: item
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
    raise ValueError(f"{path}: no class {name}")


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
            f"**{word('signals')}**\n\n{_bullets([signal.text for signal in row.signals], lang)}",
            f"**{word('causes')}**\n\n{_bullets(row.causes, lang)}",
            _table([word(key) for key in ("remedy", "change", "effect", "cost")], cells),
        ]
    )


def glossary(lang: str, directory: Path, group: str = "") -> str:
    """Terms, all or of one group, ordered by the English one. Raises ValueError for a group without any."""
    word = _words(lang)
    terms = (row for row in facts.table("glossary", directory) if row.group == (group or row.group))
    rows = sorted(terms, key=lambda row: row.en.lower())
    if not rows:
        raise ValueError(f"no term of group {group!r}")
    cells = [(row.en, row.zh_TW, row.zh_CN, ", ".join(row.also)) for row in rows]
    return _table([word(key) for key in ("en", "zh-TW", "zh-CN", "also")], cells)


# Name of a block → (its function, arguments that it must have, arguments that it may have).
TABLES: dict[str, tuple[Callable[..., str], tuple[str, ...], tuple[str, ...]]] = {
    "models": (models, (), ("family",)),
    "rules": (rules, ("field",), ("method",)),
    "gpus": (gpus, (), ()),
    "methods": (methods, (), ()),
    "datasets": (datasets, (), ("task",)),
    "fields": (fields, ("names",), ()),
    "symptom": (symptom, ("id",), ()),
    "glossary": (glossary, (), ("group",)),
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
