"""Index throughput: chunks a second through reading, splitting, tokens, vectors and commits.

`python tests/bench/throughput.py` prints one JSON. Chinese text has no vectors with the default embedder; for
English the rate stands beside the embedder's own on the same texts.
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

from retrieval import squad  # noqa: E402

from ingest.embedder import default_embedder  # noqa: E402
from ingest.index import Index  # noqa: E402
from ingest.sync import add_paths, build_kb  # noqa: E402


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
        start = time.perf_counter()
        embedder.embed([chunk.indexed() for chunk in chunks])
        alone = len(chunks) / (time.perf_counter() - start)
        result["english"] |= {
            "embedder_alone_per_second": round(alone, 1),
            "share_of_embedder": round(result["english"]["chunks_per_second"] / alone, 2),
        }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
