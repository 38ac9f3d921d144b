"""Answers of the `extract` backend and the checks that every backend goes through. Prints JSON.

On the questions of tests/assistant/questions.yaml: share answered, of the answers those that hold what they should
(`holds`) and cite the right page, citation precision, unsupported sentences, seconds. Refusal of CLINC out-of-scope
queries. The support check on claims made of XQuAD and DRCD questions and answers.
Run: python tests/bench/answers.py
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

from assistant.answer import ask, simplified
from assistant.citations import MARKERS, SUPPORTED, is_claim, plain, sentences, support
from assistant.llm import Settings
from assistant.terms import content, coverage, numbers
from assistant.types import Answer, Hit
from ingest.index import Index
from ingest.sync import build_kb

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
SQUAD = {
    "xquad_en": "xquad/xquad.en.json",
    "xquad_zh": "xquad/xquad.zh.json",
    "drcd": "drcd_dev/DRCD_dev.json",
}
EXTRACT = Settings("extract")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        build_kb(Path(folder))
        index = Index.open(Path(folder))
        result = {"answers": answers(index), "out_of_scope": out_of_scope(index), "support": support_check()}
        index.close()
    print(json.dumps(result, indent=1, ensure_ascii=False))


def answers(index: Index) -> dict:
    own = yaml.safe_load((ROOT / "tests/assistant/questions.yaml").read_text(encoding="utf-8"))
    asked = [(row, ask(index, row["q"], lang=row["lang"], settings=EXTRACT)) for row in own["inside"]]
    given = [(row, answer) for row, answer in asked if not answer.refused]
    judged = [verdict for _, answer in given for verdict in judge(answer, index)]
    seconds = sorted(answer.seconds for _, answer in asked[1:])  # the first one loads the embedder
    traps = [ask(index, row["q"], lang=row["lang"], settings=EXTRACT).refused for row in own["outside"]]
    wrong = [row["q"] for row, answer in given if not holds(row, answer)]
    return {
        "questions": len(asked),
        "refused": [row["q"] for row, answer in asked if answer.refused],
        "holds": round(1 - len(wrong) / len(given), 3),
        "does_not_hold": wrong,
        "right_page": round(float(np.mean([right_page(row, answer) for row, answer in given])), 3),
        "right_page_first": round(float(np.mean([right_page(row, answer, 1) for row, answer in given])), 3),
        "claims": len(judged),
        "citation_precision": round(float(np.mean(judged)), 4),
        "unsupported": sum(len(answer.unsupported) for _, answer in given),
        "traps": len(traps),
        "traps_refused": round(float(np.mean(traps)), 3),
        "seconds_p50": seconds[len(seconds) // 2],
        "seconds_p95": seconds[int(len(seconds) * 0.95)],
    }


def judge(answer: Answer, index: Index) -> list[bool]:
    """For each claim with a marker: is its quote in the passage word for word, and does it hold the claim? By other
    means than the support check: nearly all content words and every number of the claim must be in the quote."""
    by_marker = {citation.marker: citation for citation in answer.citations}
    verdicts = []
    for sentence in sentences(answer.text):
        markers = [int(n) for n in re.findall(r"\[(\d+)\]", sentence)]
        body = plain(MARKERS.sub("", sentence)).lstrip("- ")
        if not markers or not is_claim(body):
            continue
        quotes = [by_marker[n] for n in markers]
        passages = index.get([quote.id for quote in quotes])
        verbatim = all(
            quote.quote in plain(chunk.text) for quote, chunk in zip(quotes, passages, strict=True)
        )
        header = " ".join(line for chunk in passages for line in chunk.text.splitlines() if "|" in line)
        frame = " ".join([*(quote.quote for quote in quotes), header])
        frame = f"{frame} {simplified(frame)}" if answer.lang == "zh-CN" else frame
        verdicts.append(
            verbatim and coverage(content(body), content(frame)) >= 0.8 and numbers(body) <= numbers(frame)
        )
    return verdicts


def holds(row: dict, answer: Answer) -> bool:
    return re.search(row["holds"], answer.text) is not None


def right_page(row: dict, answer: Answer, first: int = 9) -> bool:
    pages = [row["page"]] if isinstance(row["page"], str) else row["page"]
    return any(citation.page in pages for citation in answer.citations[:first])


def out_of_scope(index: Index) -> dict:
    clinc = json.loads((DATA / "clinc_oos/data_small.json").read_text(encoding="utf-8"))
    start = time.perf_counter()
    refused = [ask(index, query, settings=EXTRACT).refused for query, _ in clinc["oos_test"]]
    seconds = (time.perf_counter() - start) / len(refused)
    return {
        "queries": len(refused),
        "refused": round(float(np.mean(refused)), 3),
        "seconds_each": round(seconds, 4),
    }


def support_check() -> dict:
    """Share of claims (question words and answer) that count as supported by their own paragraph, by the next one,
    and by their own with another number in the claim."""
    rng = random.Random(1)
    found = {}
    for name, file in SQUAD.items():
        articles = json.loads((DATA / file).read_text(encoding="utf-8"))["data"]
        own, neighbour, number = [], [], []
        for article in rng.sample(articles, min(40, len(articles))):
            texts = [paragraph["context"] for paragraph in article["paragraphs"]]
            for i, paragraph in enumerate(article["paragraphs"]):
                for qa in paragraph["qas"][:2]:
                    asked = re.sub(
                        r"[?？]|^(what|who|when|where|which|how many|how much|how|why)\b",
                        "",
                        qa["question"],
                        flags=re.I,
                    )
                    answer = qa["answers"][0]["text"]
                    own.append(supported(f"{asked} {answer}.", texts[i]))
                    if len(texts) > 1:
                        neighbour.append(supported(f"{asked} {answer}.", texts[(i + 1) % len(texts)]))
                    if digits := re.search(r"\d+", answer):
                        other = answer.replace(digits.group(), str(int(digits.group()) + 7))
                        number.append(supported(f"{asked} {other}.", texts[i]))
        parts = {"own": own, "neighbour": neighbour, "wrong_number": number}
        found[name] = {key: round(float(np.mean(value)), 3) for key, value in parts.items()} | {"n": len(own)}
    return found


def supported(claim: str, passage: str) -> bool:
    return support(claim, Hit("id", "", "", "", passage, 1.0, [])).score >= SUPPORTED


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
