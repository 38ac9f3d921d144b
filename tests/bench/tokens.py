"""Tokens a character of tokenizers on Chinese and English text; `python tests/bench/tokens.py NAME=tokenizer.json …`.

Prints JSON. The figures of kb/pages/models/chinese-capability were taken so, with the tokenizer files that the makers
publish. Without arguments there is nothing to measure, and it says so.
"""

import json
import sys
from pathlib import Path

from sets import DATA, squad

from ingest.text import to_simplified


def texts() -> dict[str, list[str]]:
    drcd = [text for _, text in squad("drcd").documents]
    reviews = (DATA / "chnsenticorp" / "dev.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return {
        "drcd_traditional": drcd,
        "drcd_simplified": [to_simplified(text) for text in drcd],
        "xquad_zh": [text for _, text in squad("xquad_zh").documents],
        "xquad_en": [text for _, text in squad("xquad_en").documents],
        "reviews_zh": [line.split("\t", 1)[1] for line in reviews if "\t" in line],
    }


def tokens_a_character(file: Path, found: dict[str, list[str]]) -> dict[str, float]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    count = lambda lines: sum(len(one.ids) for one in tokenizer.encode_batch(lines, add_special_tokens=False))
    return {name: round(count(lines) / sum(map(len, lines)), 3) for name, lines in found.items()}


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:])
    result = {name: tokens_a_character(Path(file), texts()) for name, file in given.items()}
    print(json.dumps(result or {"skipped": "no tokenizer given: NAME=tokenizer.json"}, indent=1))
