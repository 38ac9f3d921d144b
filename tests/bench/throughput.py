"""Index throughput: chunks a second through reading, splitting, tokens, vectors and commits.

`python tests/bench/throughput.py` prints one JSON. Chinese text has no vectors with the default embedder; for
English the rate stands beside the embedder's own on the same texts. Then the embedder with int8 weights beside
fp32, on all cores: chunks a second and a CPU second, cosine to fp32, nDCG@10 of the vectors and of the search on
English XQuAD. Measured: 64 chunks a second beside 35, cosine .994, nDCG@10 of the vectors .9423 beside .9426, of the
search .9841 beside .9831. So it is a setting (TUNESMITH_EMBEDDER=all-MiniLM-L6-v2-int8); the default stays the
model's own vectors. One scale for a whole matrix instead of one for each channel: cosine .95, vectors .9386.
"""

import json
import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from retrieval import measured, squad  # noqa: E402

from ingest.embedder import Embedder, MiniLMInt8, default_embedder, from_name  # noqa: E402
from ingest.index import Index  # noqa: E402
from ingest.sync import add_paths, build_kb  # noqa: E402


def rates(embedder: Embedder, texts: list[str]) -> dict:
    embedder.embed(texts[:2])
    start, cpu = time.perf_counter(), time.process_time()
    embedder.embed(texts)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "chunks_per_second": round(len(texts) / wall, 1),
        "chunks_per_cpu_second": round(len(texts) / cpu, 1),
    }


def quality(index_dir: Path, embedder: Embedder, texts: Path | None = None) -> dict:
    """nDCG@10 on English XQuAD, through an index with this embedder; of `texts`, where it is to be made first."""
    if texts:
        add_paths(index_dir, [texts], embedder=embedder)
    _, questions = squad("xquad/xquad.en.json")
    with closing(Index.open(index_dir, embedder)) as index:
        found = measured(index, questions)
    return {f"ndcg@10_{way}": found[way]["ndcg@10"] for way in ("vectors", "search")}


def main() -> None:
    result: dict = {"load": os.getloadavg()[0], "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as folder:
        embedder = default_embedder(Path(folder) / "embedder")
        start = time.perf_counter()
        embedder.embed(["once"])
        result["export_and_load_seconds"] = round(time.perf_counter() - start, 2)
        report = build_kb(Path(folder) / "kb", embedder=embedder)
        result["knowledge_base"] = {"chunks": report.chunks, "seconds": round(report.seconds, 2)}
        for name, file in [("chinese", "drcd_dev/DRCD_dev.json"), ("english", "xquad/xquad.en.json")]:
            paragraphs, _ = squad(file)
            texts = Path(folder) / name
            texts.mkdir()
            for number, paragraph in enumerate(paragraphs):
                (texts / f"{number:04}.txt").write_text(paragraph, encoding="utf-8")
            report = add_paths(Path(folder) / f"{name}.index", [texts], embedder=embedder)
            again = add_paths(Path(folder) / f"{name}.index", [texts], embedder=embedder)
            result[name] = {
                "chunks": report.chunks,
                "chunks_per_second": round(report.chunks / report.seconds, 1),
                "unchanged_again_seconds": round(again.seconds, 2),
            }
        with closing(Index.open(Path(folder) / "english.index", embedder)) as index:
            chunks = index.manifest.chunks_of([row.id for row in index.documents()])
        texts = [chunk.indexed() for chunk in chunks]
        alone = rates(embedder, texts)["chunks_per_second"]
        result["english"] |= {
            "embedder_alone_per_second": alone,
            "share_of_embedder": round(result["english"]["chunks_per_second"] / alone, 2),
        }
        int8 = from_name(MiniLMInt8.name, Path(folder) / "embedder")
        result["fp32"] = rates(embedder, texts) | quality(Path(folder) / "english.index", embedder)
        result["int8"] = rates(int8, texts) | quality(
            Path(folder) / "int8.index", int8, Path(folder) / "english"
        )
        cosines = (embedder.embed(texts) * int8.embed(texts)).sum(axis=1)
        result["int8"]["cosine_to_fp32"] = {
            "mean": round(float(cosines.mean()), 4),
            "least": round(float(cosines.min()), 4),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
