"""Text as the lexical index sees it: one width, one Chinese script, tokens without a dictionary.

Documents (ingest/index.py) and questions (assistant/retrieve.py) go through the same functions.
Character and bigram tokens reach nDCG@10 .97 on DRCD where default tokenizers score .00 to .18.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA, HANGUL = "\u3040-\u30ff", "\uac00-\ud7af"
CJK = HAN + KANA + HANGUL
LONGEST_WORD = 64  # a longer run is a key, a hash or data in text form
_RUN = re.compile(rf"(?P<cjk>[{CJK}]+)|(?:(?![{CJK}])[^\W_])+(?:[._+-](?:(?![{CJK}])[^\W_])+)*")
IS_CJK = re.compile(f"[{CJK}]")
_NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
_SEPARATOR = re.compile(r"[._+-]")
_LETTERS_DIGITS = re.compile(r"\d+|[^\W\d_]+")
_CAMEL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")


@lru_cache(maxsize=2)
def _opencc(config: str):
    from opencc import OpenCC

    return OpenCC(config)


def clean(text: str) -> str:
    """Text that every library below takes: a lone surrogate (half an emoji from cut JSON) becomes "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def to_simplified(text: str) -> str:
    """Chinese characters in the Simplified script; other text unchanged."""
    return _opencc("t2s").convert(text) if IS_CJK.search(text) else text


def fold(text: str) -> str:
    """The form in which two spellings of one thing are equal: NFKC, Simplified script, lower case."""
    return to_simplified(unicodedata.normalize("NFKC", clean(text))).lower()


def tokens(text: str) -> list[str]:
    """Index terms of a text, in order and with repeats.

    Chinese, Japanese and Korean: characters and bigrams. Words: stemmed, lower case; `q_proj`, `Qwen3-4B`,
    `bf16`, `LoraConfig` give the whole and the parts, `1e-4` also its decimal form.
    """
    found: list[str] = []
    words: list[str] = []
    for match in _RUN.finditer(to_simplified(unicodedata.normalize("NFKC", clean(text)))):
        run = match.group()
        if match.lastgroup == "cjk":
            found.extend(run)
            found.extend(run[i : i + 2] for i in range(len(run) - 1))
        else:
            words.extend(_word_parts(run))
    return found + stem([word for word in words if len(word) <= LONGEST_WORD])


def stem(words: list[str]) -> list[str]:
    """English stems (Snowball); a word with a character that is no letter stays as it is."""
    return _stemmer().analyze(" ".join(words))


@lru_cache(maxsize=1)
def _stemmer():
    import tantivy

    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
    return builder.filter(tantivy.Filter.stemmer("english")).build()


@lru_cache(maxsize=65536)
def _word_parts(word: str) -> tuple[str, ...]:
    whole = word.lower()
    if _NUMBER.fullmatch(whole):
        return (whole,) if "e" not in whole else (whole, f"{float(whole):.12f}".rstrip("0").rstrip("."))
    parts = [whole]
    pieces = _SEPARATOR.split(word)
    for piece in pieces:
        if len(pieces) > 1:
            parts.append(piece.lower())
        split = _LETTERS_DIGITS.findall(piece)
        if len(split) > 1:
            parts.extend(part.lower() for part in split)
        camel = _CAMEL.findall(piece)
        if len(camel) > 1 and min(map(len, camel)) > 2:  # LoraConfig, SFTTrainer; LoRA stays whole
            parts.extend(part.lower() for part in camel)
    return tuple(parts)


def detect_lang(text: str) -> str:
    """Language by script: "zh-TW", "zh-CN", "ja", "ko", else "en". Han that both scripts share counts as zh-TW."""
    sample = unicodedata.normalize("NFKC", clean(text[:2000]))
    letters = len(re.findall(r"[^\W\d_]", sample)) or 1
    han, kana = len(re.findall(f"[{HAN}]", sample)), len(re.findall(f"[{KANA}]", sample))
    if len(re.findall(f"[{HANGUL}]", sample)) / letters > 0.2:
        return "ko"
    # One Han character carries about as much as four Latin letters.
    if 4 * (han + kana) < letters - han - kana:
        return "en"
    if kana > 0.1 * (han + kana):
        return "ja"
    traditional = sum(a != b for a, b in zip(sample, _opencc("t2s").convert(sample), strict=False))
    if traditional > 0.1 * han:
        return "zh-TW"  # the usual case, without loading a second dictionary
    simplified = sum(a != b for a, b in zip(sample, _opencc("s2t").convert(sample), strict=False))
    return "zh-CN" if simplified > traditional else "zh-TW"


def glossary_terms(question: str) -> list[str]:
    """Index terms of the other spellings of the glossary terms in a question (過擬合 ↔ overfitting), without repeats."""
    own = set(tokens(question))
    extra: dict[str, None] = {}
    for _, others in glossary_matches(question):
        for spelling in others:
            extra.update(dict.fromkeys(token for token in tokens(spelling) if token not in own))
    return list(extra)


def glossary_matches(question: str) -> list[tuple[str, list[str]]]:
    """(the longest spelling that stands in the question, the other spellings) for each glossary term in it."""
    folded = fold(question)
    matches = []
    for spellings in _glossary():
        found = [spelling for spelling, found_in in spellings if found_in(folded)]
        if found:
            matches.append(
                (max(found, key=len), [spelling for spelling, _ in spellings if spelling not in found])
            )
    return matches


@lru_cache(maxsize=1)
def _glossary():
    """Per entry: (spelling, function that finds it in a folded text)."""
    from kb.facts import table

    entries = []
    for term in table("glossary"):
        spellings = dict.fromkeys(fold(s) for s in (term.en, term.zh_TW, term.zh_CN, *term.also))
        entries.append([(spelling, _finder(spelling)) for spelling in spellings])
    return entries


def _finder(spelling: str):
    if IS_CJK.search(spelling):
        return lambda text: spelling in text
    # compiled only where the spelling stands in a text: to compile all of them costs two seconds
    pattern = rf"(?<![^\W_{CJK}]){re.escape(spelling)}(?:s|es)?(?![^\W_{CJK}])"
    return lambda text: spelling in text and re.search(pattern, text) is not None
