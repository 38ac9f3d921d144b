"""Numbers as people write them in Chinese and English: 「九千」, 「1.2萬」, "9k", "two thousand".

Read by `situation.py` out of questions. Pure.
"""

from __future__ import annotations

import re

DIGITS = (
    {char: value for value, char in enumerate("零一二三四五六七八九")}
    | {"〇": 0, "兩": 2, "两": 2}
    | dict.fromkeys("幾几數数", 3)
)
POWERS = {"十": 10, "百": 100, "千": 1000}
MYRIADS = {"萬": 10**4, "万": 10**4, "億": 10**8, "亿": 10**8}
WORDS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
    "a": 1, "few": 3, "a few": 3, "several": 5, "a couple of": 2,
}  # fmt: skip
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "k": 1000, "m": 10**6}
VAGUE = {"hundreds": 300, "thousands": 3000}  # "hundreds of", 「幾百」: three of them
_WORD = "|".join(sorted(map(re.escape, WORDS), key=len, reverse=True))
_DIGITS = r"(?<![\d.,])\d[\d,]{0,11}(?:\.\d{1,4})?(?!\d) ?"
_HAN = r"(?<![零〇一二兩两三四五六七八九十百千萬万億亿])(?:[幾几數数](?=[十百千萬万]))?[零〇一二兩两三四五六七八九十百千萬万億亿]{1,12}"
# Bounded repeats and look-behinds keep a search linear on a text of nothing but digits.
NUMBER = (
    rf"(?:{_DIGITS}[萬万] ?\d ?千"
    rf"|{_DIGITS}(?:[kKmM](?![A-Za-z])|[百千萬万億亿]{{1,3}}|(?:hundred|thousand|million)\b)?"
    rf"|{_HAN}"
    r"|\b(?:hundreds|thousands)(?=\s+of\b)"
    rf"|\b(?:{_WORD})\s+(?:hundred|thousand|million)\b"
    rf"|\b(?:{_WORD})\b)"
)


def number(text: str) -> float | None:
    """The value of 「九千」, 「1.2萬」, "9k", "5,000" or "two thousand"; None where there is none."""
    text = text.strip().lower().replace(",", "")
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]+|[百千萬万億亿]*)", text):
        scale = 1
        for char in match[2] if match[2] not in SCALES else "":
            scale *= (POWERS | MYRIADS).get(char, 1)
        return float(match[1]) * SCALES.get(match[2], scale)
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*[萬万]\s*(\d)\s*千", text):
        return float(match[1]) * 10**4 + int(match[2]) * 1000
    if text in VAGUE:
        return VAGUE[text]
    if text in WORDS:
        return WORDS[text]
    parts = text.rsplit(None, 1)
    if len(parts) == 2 and parts[0] in WORDS and parts[1] in SCALES:
        return WORDS[parts[0]] * SCALES[parts[1]]
    return _chinese_number(text)


def _chinese_number(text: str) -> float | None:
    if not text or any(char not in DIGITS and char not in POWERS and char not in MYRIADS for char in text):
        return None
    total, section, digit, last = 0, 0, None, 1
    for char in text:
        if char in DIGITS:
            digit = DIGITS[char]
        elif char in POWERS:
            last = POWERS[char]
            section += (1 if digit is None else digit) * last
            digit = None
        else:
            last = MYRIADS[char]
            total = (total + section + (digit or 0) or 1) * last
            section, digit = 0, None
    # 「一萬二」 is 12,000 and 「三千五」 3,500: a last lone digit counts in tenths of the unit before it
    tail = 0 if digit is None else digit * (last // 10 if last > 10 and "零" not in text else 1)
    return float(total + section + tail)
