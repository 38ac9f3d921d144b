"""Retrieval quality on public question sets, through files, ingestion and search as a user has them.

`python tests/bench/retrieval.py` prints one JSON: nDCG@10 and recall@5 of Tunesmith's search beside rank
fusion, words alone and vectors alone over the same candidates. One paragraph is one .txt file.
"""

import json
import sys
import tempfile
import time
from contextlib import closing
from math import log2
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from assistant import retrieve  # noqa: E402
from ingest.index import Index  # noqa: E402
from ingest.sync import add_paths, build_kb  # noqa: E402
from ingest.text import to_simplified  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
RRF_K = 60  # Cormack et al. 2009


def squad(file: str) -> tuple[list[str], list[tuple[str, int]]]:
    """Paragraphs, and (question, number of its paragraph), of a SQuAD file."""
    paragraphs, questions = [], []
    for article in json.loads((DATA / file).read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            questions += [(qa["question"], len(paragraphs)) for qa in paragraph["qas"]]
            paragraphs.append(paragraph["context"])
    return paragraphs, questions


def ingested(folder: Path, paragraphs: list[str]) -> tuple[Index, float]:
    """An index of the knowledge base and these paragraphs; seconds for the paragraphs."""
    texts = folder / "texts"
    texts.mkdir()
    for number, paragraph in enumerate(paragraphs):
        (texts / f"{number:04}.txt").write_text(paragraph, encoding="utf-8")
    build_kb(folder / "index")
    report = add_paths(folder / "index", [texts])
    assert report.added == len(paragraphs) and not report.skipped, report
    return Index.open(folder / "index"), report.seconds


def rank_fusion(found: retrieve.Candidates) -> dict[str, float]:
    """Reciprocal rank fusion; vectors count only where the convex combination lets them."""
    scores: dict[str, float] = {}
    for ranking in [found.words, found.vectors if found.dense_weight else {}]:
        for rank, chunk in enumerate(sorted(ranking, key=lambda i: (-ranking[i], i)), 1):
            scores[chunk] = scores.get(chunk, 0.0) + 1 / (RRF_K + rank)
    return scores


def measured(index: Index, questions: list[tuple[str, int]]) -> dict:
    """nDCG@10 and recall@5 (one paragraph is relevant) of the search and of each part alone."""
    ways = {
        "convex": retrieve.fuse,
        "rrf": rank_fusion,
        "words": lambda found: found.words,
        "vectors": lambda found: found.vectors,
    }
    sums = {way: [0.0, 0] for way in ["search", *ways]}

    def add(way: str, pages: list[str], gold: str) -> None:
        pages = list(dict.fromkeys(pages))[:10]
        if gold in pages:
            sums[way][0] += 1 / log2(pages.index(gold) + 2)
            sums[way][1] += pages.index(gold) < 5

    for question, number in questions:
        gold = f"{number:04}.txt"
        add("search", [Path(hit.page).name for hit in retrieve.search(index, question, k=10)], gold)
        found = retrieve.candidates(index, question)
        for way, fuse in ways.items():
            scores = fuse(found)
            best = sorted(scores, key=lambda i: (-scores[i], i))
            add(way, [Path(found.chunks[i].page).name for i in best], gold)
    return {way: {"ndcg@10": round(n / len(questions), 4), "recall@5": round(r / len(questions), 4)}
            for way, (n, r) in sums.items()}  # fmt: skip


def main() -> None:
    results: dict = {}
    for name, file in [("xquad_zh", "xquad/xquad.zh.json"), ("xquad_en", "xquad/xquad.en.json"),
                       ("drcd", "drcd_dev/DRCD_dev.json")]:  # fmt: skip
        paragraphs, questions = squad(file)
        with tempfile.TemporaryDirectory() as folder:
            index, seconds = ingested(Path(folder), paragraphs)
            with closing(index):
                start = time.perf_counter()
                results[name] = {"paragraphs": len(paragraphs), "questions": len(questions),
                                 "ingest_seconds": round(seconds, 2), **measured(index, questions)}  # fmt: skip
                results[name]["seconds"] = round(time.perf_counter() - start, 1)
                if name == "drcd":
                    simplified = [(to_simplified(question), number) for question, number in questions]
                    results["drcd_simplified"] = {"questions": len(questions), **measured(index, simplified)}
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
