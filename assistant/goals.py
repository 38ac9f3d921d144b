"""What a person wants of the result, read out of their words: metric and threshold, latency, where it is served, licence,
deadline. Beside situation.py, which reads the task, the data and the machine. Patterns in both languages; pure.
"""

from __future__ import annotations

import re
from typing import Any

METRICS: list[tuple[str, str]] = [
    ("macro-f1", r"macro[- ]?F1|巨觀\s*F1|宏平均\s*F1"),
    ("f1", r"\bF1\b|F1[- ]?score"),
    ("bleu", r"\bBLEU\b|\bchrF\b|\bCOMET\b"),
    ("rouge", r"\bROUGE\b"),
    ("perplexity", r"perplexity|困惑度"),
    ("exact-match", r"exact[- ]match|完全一致|完全相符"),
    ("accuracy", r"\baccuracy\b|\baccurate\b|準確率|准确率|正確率|正确率|準確度|准确度"),
]
SERVED: list[tuple[str, str]] = [
    ("phone", r"手機|手机|平板|\bphones?\b|\bmobile\b|android|\biOS\b|iphone|raspberry|樹莓派|树莓派"),
    ("cpu", r"(?:served?|serving|inference|deploy\w*|runs?|部署|推論|推理|上線|上线|執行|运行)[^，。,.;；]{0,16}(?:CPU|沒有顯卡|没有显卡|筆電|笔记本|laptop)|(?:CPU|筆電|笔记本|laptop)\s*(?:上)?\s*(?:部署|推論|推理|執行|运行|serving|inference)"),
]  # fmt: skip
PERMISSIVE = (
    r"Apache[- ]?2|MIT\s*(?:授權|licen[cs]e)|permissive|寬鬆授權|宽松许可|開源授權|开源许可|OSI[- ]approved"
)
COMMERCIAL = (
    r"商用|商業用途|商业用途|商業使用|商业使用|商業產品|商业产品|commercial|we sell|要賣|要卖|對外販售"
)
TARGET = (
    r"(?:至少|要有|要到|達到|达到|高於|高于|超過|超过|以上|at least|above|over|reach(?:es)?|minimum|>=?|≥)"
)
UNITS = {
    "ms": 1, "毫秒": 1, "milliseconds": 1, "millisecond": 1, "s": 1000, "sec": 1000, "secs": 1000, "second": 1000, "seconds": 1000, "秒": 1000,
}  # fmt: skip
LATENCY = (
    r"(?<![\d.])(\d{1,6}(?:\.\d{1,3})?)\s*(ms|milliseconds?|毫秒)"
    r"|(?:within|under|below|in|內|内|以內|以内)\s*(?:less than\s*)?(\d+(?:\.\d+)?)\s*(seconds?|secs?|s)\b"
    r"|(?<![\d.])(\d{1,4}(?:\.\d{1,3})?)\s*(秒)\s*(?:內|内|以內|以内|之內|之内)"
)
DEADLINE = (
    r"(?:within|in|內|内|deadline[^\d]{0,12})\s*(\d+(?:\.\d+)?)\s*(hours?|days?|hrs?)\b"
    r"|(?<![\d.])(\d{1,4}(?:\.\d{1,2})?)\s*(?:個|个)?\s*(小時|小时|天|日)\s*(?:內|内|以內|以内|之內|之内)\s*(?:要)?(?:完成|訓練完|训练完|跑完|交|做完|上線|上线)?"
)
HOURS = {"h": 1.0, "d": 24.0, "小": 1.0, "天": 24.0, "日": 24.0}
TONIGHT = (
    r"今晚|今天(?:內|内|之內|之内|要)|by tonight|overnight|一個晚上|一个晚上|by tomorrow|明天(?:前|要|早上)"
)
NIGHT = 12.0  # hours that "overnight" leaves


def goals_in(text: str) -> dict[str, Any]:
    """Situation keys metric, metric_target (0 to 1), latency_ms, serve_on, licence, deadline_hours that the text tells."""
    found: dict[str, Any] = {
        "metric": _first(METRICS, text),
        "metric_target": _target(text),
        "latency_ms": _latency(text),
        "serve_on": _first(SERVED, text),
        "deadline_hours": _deadline(text),
    }
    if _has(PERMISSIVE, text):
        found["licence"] = "permissive"
    elif _has(COMMERCIAL, text) and not _has(r"非商業|非商业|non-?commercial", text):
        found["licence"] = "commercial"
    return {key: value for key, value in found.items() if value is not None}


def _target(text: str) -> float | None:
    """The threshold that stands near a metric's name, as a share."""
    names = "|".join(pattern for _, pattern in METRICS)
    value = r"(\d{2}(?:\.\d+)?)\s*[%％]|(0?\.\d{1,3})"
    for pattern in (rf"(?:{names})[^，。;；]{{0,12}}?(?:{TARGET}\s*)?(?:{value})", rf"{TARGET}\s*(?:{value})[^，。;；]{{0,12}}?(?:{names})"):  # fmt: skip
        if match := re.search(pattern, text, re.I):
            percent, share = (match[match.lastindex] if match.lastindex == at else None for at in (1, 2))
            found = float(percent) / 100 if percent else float(share) if share else None
            return found if found and 0 < found <= 1 else None
    return None


def _latency(text: str) -> float | None:
    match = re.search(LATENCY, text, re.I)
    if not match:
        return None
    amount, unit = [part for part in match.groups() if part]
    return float(amount) * UNITS.get(unit.lower(), 1000) or None


def _deadline(text: str) -> float | None:
    if match := re.search(DEADLINE, text, re.I):
        amount, unit = [part for part in match.groups() if part]
        return float(amount) * HOURS[unit[0].lower()] or None
    return NIGHT if _has(TONIGHT, text) else None


def _first(patterns: list[tuple[str, str]], text: str) -> str | None:
    return next((name for name, pattern in patterns if _has(pattern, text)), None)


def _has(pattern: str, text: str) -> bool:
    return re.search(pattern, text, re.I) is not None
