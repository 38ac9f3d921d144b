"""What a reranker gains and costs: nDCG@10 before and after on XQuAD-en, milliseconds a query. Prints JSON.

Names its model as the app does: TUNESMITH_RERANKER, a Hub id, a folder or a .gguf file; without one it says so.
Run: TUNESMITH_RERANKER=cross-encoder/ms-marco-MiniLM-L6-v2 python tests/bench/rerank.py [QUESTIONS]
"""

import json
import os
import sys
import tempfile
import time
from contextlib import closing
from math import log2
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from retrieval import ingested, squad  # noqa: E402

from assistant import rerank, retrieve  # noqa: E402
from assistant.types import Hit  # noqa: E402
from ingest.index import Index  # noqa: E402

QUESTIONS = 300  # a cross-encoder of 22 million parameters reads 20 passages in about a second on two cores


def measured(index: Index, questions: list[tuple[str, int]], reranker: rerank.Reranker) -> dict:
    before = after = seconds = 0.0
    for question, number in questions:
        hits = retrieve.search(index, question, rerank.CANDIDATES)
        start = time.perf_counter()
        again = rerank.rerank(question, hits, reranker)
        seconds += time.perf_counter() - start
        before += gain(hits, f"{number:04}.txt")
        after += gain(again, f"{number:04}.txt")
    count = len(questions)
    return {
        "questions": count,
        "candidates": rerank.CANDIDATES,
        "ndcg@10_before": round(before / count, 4),
        "ndcg@10_after": round(after / count, 4),
        "gain": round((after - before) / count, 4),
        "ms_per_query": round(1000 * seconds / count, 1),
    }


def gain(hits: list[Hit], gold: str) -> float:
    pages = list(dict.fromkeys(Path(hit.page).name for hit in hits))[:10]
    return 1 / log2(pages.index(gold) + 2) if gold in pages else 0.0


def main() -> None:
    name = os.environ.get("TUNESMITH_RERANKER", "")
    if not name:
        print(json.dumps({"reranker": None, "note": "none configured; set TUNESMITH_RERANKER"}))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else QUESTIONS
    start = time.perf_counter()
    reranker = rerank.load(name)
    loading = time.perf_counter() - start
    paragraphs, questions = squad("xquad/xquad.en.json")
    step = max(1, len(questions) // count)
    with tempfile.TemporaryDirectory() as folder:
        index, _ = ingested(Path(folder), paragraphs)
        with closing(index):
            found = measured(index, questions[::step], reranker)
    print(json.dumps({"reranker": name, "load_seconds": round(loading, 1), "xquad_en": found}, indent=1))


if __name__ == "__main__":
    main()
