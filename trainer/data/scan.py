"""What a text holds that it should not: personal data, keys, broken encoding, template marks, broken thoughts.

scan() names what is there, for the check; redact() and mend() take it out, for `tunesmith data redact` and `repair`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache

MARKS = re.compile(
    r"</?s>|<\|(?:im_start|im_end|endoftext|begin_of_text|end_of_text|eot_id|start_header_id|end_header_id)\|>"
    r"|<(?:bos|eos|start_of_turn|end_of_turn)>|\[/?INST\]"
)


@dataclass(frozen=True)
class Pattern:
    """`needle`, words of which one must be in the text, spares most texts the search; `sure` checks a match."""

    kind: str
    mask: str
    needle: tuple[str, ...] | str
    find: re.Pattern[str]
    sure: Callable[[str], bool] = lambda match: True


def luhn(text: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812-1)."""
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def taiwan_id(text: str) -> bool:
    """The check digit of a Taiwan identity number or unified residence number: a letter and nine digits."""
    letter = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(text[0]) + 10
    weighed = [letter // 10, letter % 10 * 9] + [int(char) * (8 - at) for at, char in enumerate(text[1:9])]
    return (sum(weighed) + int(text[9])) % 10 == 0


def mainland_id(text: str) -> bool:
    """The check digit of GB 11643-1999, and a month and day that exist."""
    total = sum(int(char) * (2 ** (17 - at) % 11) for at, char in enumerate(text[:17]))
    return (
        "10X98765432"[total % 11] == text[17].upper()
        and 1 <= int(text[10:12]) <= 12
        and 1 <= int(text[12:14]) <= 31
    )


BELOW_CJK = re.compile(r"[\x80-\u2fff\uf8ff\ufb01\ufb02\ufffd]")
_LONG_NUMBER = re.compile(r"\d[\d ()-]{6}").search
DIGITS = "digits"  # the needle of all patterns of long numbers: one search for all of them
KEYS = (
    "AKIA",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "sk-",
    "hf_",
    "xox",
    "AIza",
    "PRIVATE KEY",
    "eyJ",
    "://",
    "asswor",
    "ASSWOR",
    "asswd",
    "pwd",
    "PWD",
    "密碼",
    "密码",
)
PATTERNS = (
    Pattern(
        "secret", "[SECRET]", KEYS,
        re.compile(
            r"AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,}|\bsk-(?:proj-|ant-)?(?=[A-Za-z_-]*\d)[A-Za-z0-9_-]{20,}"
            r"|\bhf_[A-Za-z0-9]{30,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{5,}"
            r"|-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[A-Za-z0-9+/=\s\\]*(?:-----END [A-Z ]{0,20}PRIVATE KEY-----)?"
            r"|(?<=://)[^\s:/@]{1,99}:[^\s:/@]{3,99}(?=@)"
            r"|(?i:(?<=password)|(?<=passwd)|(?<=pwd)|(?<=密碼)|(?<=密码))\s?(?:[:=：]|是|为|為)\s?(?=[!-~]{0,20}\d)[!-~]{6,64}"
        ),
    ),
    Pattern("pii_email", "[EMAIL]", ("@",), re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}\b")),
    Pattern("pii_tw_id", "[TW_ID]", DIGITS, re.compile(r"(?<![A-Za-z0-9])[A-Z][1289]\d{8}(?![A-Za-z0-9])"), taiwan_id),
    Pattern("pii_cn_id", "[CN_ID]", DIGITS, re.compile(r"(?<!\d)[1-9]\d{5}(?:19|20)\d{9}[\dXx](?![\dA-Za-z])"), mainland_id),
    Pattern("pii_card", "[CARD]", DIGITS, re.compile(r"(?<![\d.-])[3-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,4}(?![\d-]|\.\d)|(?<!\d)3[47]\d{2}[ -]?\d{6}[ -]?\d{5}(?!\d)"), luhn),
    Pattern(
        "pii_phone", "[PHONE]", DIGITS,
        re.compile(
            r"(?<![\d.+-])(?:(?:\+?886[ -]?|0)9\d{2}[ -]?\d{3}[ -]?\d{3}|(?:\+?86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}"
            r"|\(?0[2-8]\d?\)?[ -]\d{3,4}[ -]?\d{4}|\(?[2-9]\d{2}\)?[ -]\d{3}-\d{4}|\+\d{1,3}[ -]\d{1,4}(?:[ -]\d{2,4}){2,3})(?![\d-]|\.\d)"
        ),
    ),
    Pattern(
        "pii_address", "[ADDRESS]", ("號", "号"),
        re.compile(
            r"(?:[\u4e00-\u9fff]{2,3}[市縣县省])?[\u4e00-\u9fff]{1,4}[市區区鄉乡鎮镇縣县][\u4e00-\u9fff]{1,8}(?:路|街|大道|巷|弄)"
            r"(?:[一二三四五六七八九十\d]{1,3}段)?(?:\d{1,4}巷)?(?:\d{1,4}弄)?\d{1,5}(?:之\d{1,3})?[號号](?:\d{1,3}[樓楼室])?"
        ),
    ),
)  # fmt: skip


def worth(text: str) -> tuple[Pattern, ...]:
    """Patterns that may be in a text, each with those of its needles that are: asked of many texts together, it spares
    each of them the needles that none has."""
    found = []
    for pattern in PATTERNS:
        needle = (
            DIGITS if pattern.needle == DIGITS else tuple(word for word in pattern.needle if word in text)
        )
        if needle:
            found.append(replace(pattern, needle=needle))
    return tuple(found)


def _worth(text: str, patterns: tuple[Pattern, ...] = PATTERNS) -> Iterator[Pattern]:
    """Patterns that may be in a text."""
    numbers = _LONG_NUMBER(text) is not None
    for pattern in patterns:
        if numbers if pattern.needle == DIGITS else any(word in text for word in pattern.needle):
            yield pattern


def private(text: str, patterns: tuple[Pattern, ...] = PATTERNS) -> Iterator[tuple[Pattern, re.Match[str]]]:
    """Personal data and keys in a text."""
    for pattern in _worth(text, patterns):
        for match in pattern.find.finditer(text):
            if pattern.sure(match[0]):
                yield pattern, match


def scan(text: str, patterns: tuple[Pattern, ...] = PATTERNS) -> dict[str, str]:
    """Faults of a text as {kind: example}; personal data and keys in the examples are masked.

    `patterns` are those that it may hold (`worth`).
    """
    found: dict[str, str] = {}
    for pattern, match in private(text, patterns):
        found.setdefault(pattern.kind, masked(match[0].strip()))
    if ("<" in text or "[" in text) and (match := MARKS.search(text)):
        found["doubled_bos"] = around(text, match.start())
    # ftfy's marks of a wrong decoding all lie below the scripts of East Asia, whose plain text is spared the search.
    if not text.isascii() and BELOW_CJK.search(text) and is_mojibake(text):
        found["mojibake"] = text[:80]
    return found


def thoughts(answer: str) -> str | None:
    """ "think_block", or "think_open" where one is not closed; None where an answer holds none."""
    opened, closed = answer.count("<think>"), answer.count("</think>")
    if not opened and not closed:
        return None
    return (
        "think_block"
        if opened == closed and answer.find("<think>") < answer.find("</think>")
        else "think_open"
    )


def masked(text: str) -> str:
    """A key or a number that can be recognised by its owner and used by no one."""
    keep = 2 if len(text) < 12 else 3
    return text[:keep] + "…" + text[-2:] if len(text) > 6 else "…"


def around(text: str, at: int) -> str:
    """A piece of text about a place."""
    return text[max(0, at - 30) : at + 50]


def redact(text: str) -> tuple[str, list[str]]:
    """The text with personal data and keys replaced by their names, and the kinds that were replaced."""
    kinds = []
    for pattern in _worth(text):
        replace = lambda match, p=pattern: (
            p.mask if p.sure(match[0]) and not kinds.append(p.kind) else match[0]
        )
        text = pattern.find.sub(replace, text)
    return text, kinds


@cache
def _ftfy():
    import ftfy

    # Only the encoding is put right: quotes, ligatures, width and line ends stay as their author wrote them.
    config = ftfy.TextFixerConfig(
        unescape_html=False, remove_terminal_escapes=False, fix_latin_ligatures=False, fix_character_width=False,
        uncurl_quotes=False, fix_line_breaks=False, fix_surrogates=False, remove_control_chars=False,
        normalization=None, explain=False,
    )  # fmt: skip
    return ftfy, config


def is_mojibake(text: str) -> bool:
    """Whether a text was decoded in a wrong encoding and ftfy knows what it should be."""
    ftfy, _ = _ftfy()
    return ftfy.badness.is_bad(text) and mend(text) != text


def mend(text: str) -> str:
    """The text with its encoding put right, where ftfy is sure of it."""
    ftfy, config = _ftfy()
    return ftfy.fix_text(text, config)
