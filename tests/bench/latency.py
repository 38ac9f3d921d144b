"""Search latency: cold (a fresh `tunesmith search` each time) and warm (in one process).

`python tests/bench/latency.py` prints one JSON: milliseconds and CPU milliseconds, p50 and p95, over the
knowledge base and over 1,240 further paragraphs (DRCD and English XQuAD) beside it.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from retrieval import ingested, squad  # noqa: E402

from assistant import retrieve  # noqa: E402
from ingest.index import Index  # noqa: E402
from ingest.sync import build_kb  # noqa: E402

COLD = {"cold_en": "what learning rate should I use for LoRA", "cold_zh": "過擬合怎麼辦？"}
COLD_RUNS = 5


def percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    at = lambda share: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)
    return {"p50_ms": at(0.5), "p95_ms": at(0.95)}


def cold(home: Path, question: str) -> dict[str, float]:
    """A process a question, as the command line has it; CPU counts the whole process."""
    command = [sys.executable, "-c", "from ui.cli import main; main()", "search", "--json", question]
    environment = {**os.environ, "TUNESMITH_HOME": str(home)}
    walls, cpus = [], []
    for _ in range(COLD_RUNS):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        walls.append(time.perf_counter() - start)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {**percentiles(walls), "cpu_p50_ms": percentiles(cpus)["p50_ms"]}


def warm(index: Index, questions: list[str]) -> dict[str, float]:
    retrieve.search(index, questions[0])
    walls, cpu = [], time.process_time()
    for question in questions:
        start = time.perf_counter()
        retrieve.search(index, question)
        walls.append(time.perf_counter() - start)
    return {
        **percentiles(walls),
        "cpu_mean_ms": round(1000 * (time.process_time() - cpu) / len(questions), 1),
    }


def main() -> None:
    result: dict = {"load": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        build_kb(home / "index")
        result |= {name: cold(home, question) for name, question in COLD.items()}
        with closing(Index.open(home / "index")) as index:
            result["chunks_kb"] = sum(row.chunks for row in index.documents())
            result["warm_kb"] = warm(index, list(COLD.values()) * 50)
        chinese, asked_zh = squad("drcd_dev/DRCD_dev.json")
        english, asked_en = squad("xquad/xquad.en.json")
        library = Path(folder) / "library"
        library.mkdir()
        index, _ = ingested(library, chinese + english)
        with closing(index):
            result["chunks_library"] = sum(row.chunks for row in index.documents())
            result["warm_zh"] = warm(index, [question for question, _ in asked_zh[::6]])
            result["warm_en"] = warm(index, [question for question, _ in asked_en[::2]])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
