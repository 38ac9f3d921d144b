"""A large library: how fast it grows, how fast it is searched, what memory and disk it takes.

`python tests/bench/scale.py 100000` builds an index of so many chunks (1,000,000 takes about an hour and 5 GB
of disk) and prints one JSON; `--folder F` keeps the index in F; what is there already is not added again.

The chunks are made of sentences of the shared texts, mixed anew for each. Their vectors are NOT those of the
chunks, which would take a day to embed: each is the real vector of a paragraph it has sentences of, turned by
noise (cosine .86). So adding is measured without the embedder, and searching with it.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from retrieval import DATA, squad  # noqa: E402

from assistant import retrieve  # noqa: E402
from ingest import sync  # noqa: E402
from ingest.embedder import MiniLM  # noqa: E402
from ingest.index import Index  # noqa: E402
from ingest.readers import Document  # noqa: E402
from ingest.text import IS_CJK  # noqa: E402

SECTIONS = 20  # chunks in a document
FOLDERS = 100  # a folder holds so many documents of one language
NOISE = 0.6  # length of what is added to a vector of length 1
FIRST_DAY = date(2024, 1, 1)
END = re.compile(r"(?<=[。！？])|(?<=[.!?])\s+")
Paragraph = list[str]  # its sentences


def paragraphs() -> dict[str, list[Paragraph]]:
    """Real texts as sentences: encyclopedia and course, English and Chinese."""
    found: dict[str, list[str]] = {"en": squad("xquad/xquad.en.json")[0]}
    found["zh"] = squad("drcd_dev/DRCD_dev.json")[0] + squad("xquad/xquad.zh.json")[0]
    for folder, lang in [("en", "en"), ("zh-TW", "zh"), ("zh-CN", "zh")]:
        for file in sorted((DATA / "hf_course" / "chapters" / folder).rglob("*.mdx")):
            found[lang] += re.split(r"\n\s*\n", file.read_text(encoding="utf-8"))[:20]
    usable = {
        "en": lambda sentence: len(sentence) > 20 and sentence[0].isalnum() and not IS_CJK.search(sentence),
        "zh": lambda sentence: len(IS_CJK.findall(sentence)) > max(6, 0.6 * len(sentence)),
    }
    sentences = {
        lang: [list(filter(usable[lang], END.split(" ".join(text.split())))) for text in texts]
        for lang, texts in found.items()
    }
    return {lang: [p for p in texts if len(p) >= 2] for lang, texts in sentences.items()}


def text_of(texts: list[Paragraph], rng: random.Random) -> str:
    """Sentences of one paragraph, then of others, up to the length of a usual passage."""
    own = rng.choice(texts)
    mixed = rng.sample(own, min(len(own), 3)) + [rng.choice(rng.choice(texts)) for _ in range(2)]
    return "\n".join(mixed)


def source_of(number: int) -> str:
    return f"/library/{('en', 'zh')[number % 2]}/{number // FOLDERS:04}/{number:06}.md"


def document(number: int, texts: dict[str, list[Paragraph]]) -> Document:
    """Document `number`, the same whenever it is asked for."""
    rng, lang = random.Random(number), ("en", "zh")[number % 2]
    body = "\n\n".join(
        f"## {rng.choice(rng.choice(texts[lang]))[:30]}\n\n{text_of(texts[lang], rng)}"
        for _ in range(SECTIONS)
    )
    source = source_of(number)
    modified = (FIRST_DAY + timedelta(days=number % 1000)).isoformat()
    return Document(f"file:{source}", f"{lang} {number}", "en" if lang == "en" else "zh-TW", body, source, source, str(number), [], modified)  # fmt: skip


class Turned:
    """In the place of the embedder while the index is built; see above. `seconds` were spent in here."""

    name, dim = MiniLM.name, MiniLM.dim

    def __init__(self, real: MiniLM, texts: list[Paragraph]):
        self._real, self.seconds = real, 0.0
        vectors = real.embed([" ".join(paragraph) for paragraph in texts])
        self._vectors = {sentence: vectors[n] for n, paragraph in enumerate(texts) for sentence in paragraph}
        self._rng = np.random.default_rng(0)
        self.unknown_share = real.unknown_share

    def embed(self, texts: list[str]) -> np.ndarray:
        start = time.perf_counter()
        base = np.stack([self._near(text) for text in texts])
        noise = self._rng.standard_normal(base.shape, np.float32) * NOISE / self.dim**0.5
        turned = base + noise
        self.seconds += time.perf_counter() - start
        return turned / np.linalg.norm(turned, axis=1, keepdims=True)

    def _near(self, text: str) -> np.ndarray:
        first = text.split("\n")[1]  # the line after the heading
        return self._vectors[first] if first in self._vectors else self._real.embed([text])[0]


def build(folder: Path, count: int) -> dict:
    texts = paragraphs()
    embedder = Turned(MiniLM(folder / "embedder"), texts["en"])
    numbers = range(count // SECTIONS)
    marks: list[tuple[int, float, float]] = []

    def watch(done: int, total: int, what: str) -> None:
        if total and done * 10 // total > len(marks) - 1:
            marks.append((done, time.perf_counter() - embedder.seconds, time.process_time()))
            print(f"{done} of {total} documents", file=sys.stderr, flush=True)

    candidates = [(f"file:{source_of(n)}", partial(str, n), partial(document, n, texts)) for n in numbers]
    with closing(Index(folder / "index", embedder)) as index:
        report = sync._sync(index, lambda report: sync._Work(candidates), watch)
    rates = [round(SECTIONS * (b[0] - a[0]) / (b[1] - a[1])) for a, b in pairwise(marks)]
    return {
        "chunks": report.chunks,
        "seconds_without_embedder": round(report.seconds - embedder.seconds, 1),
        "cpu_seconds": round(marks[-1][2] - marks[0][2], 1),
        "chunks_per_second": round(report.chunks / (report.seconds - embedder.seconds), 1),
        "chunks_per_second_by_tenth": rates,
        "peak_memory_mb": peak_memory(),
    }


def peak_memory() -> int:
    """MiB; not from getrusage, which counts the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) >> 10


def timed(ask: Callable[[str], object], questions: list[str]) -> dict:
    """Milliseconds, after one call that does not count."""
    ask(questions[0])
    walls, cpus = [], []
    for question in questions[1:]:
        start, cpu = time.perf_counter(), time.process_time()
        ask(question)
        walls.append(1000 * (time.perf_counter() - start))
        cpus.append(1000 * (time.process_time() - cpu))
    at = lambda values, share: round(float(np.percentile(values, share)), 1)
    return {"p50_ms": at(walls, 50), "p95_ms": at(walls, 95), "cpu_p50_ms": at(cpus, 50)}


def searched(folder: Path) -> dict:
    """Latencies in a process of its own, as an app has them that did not build the index."""
    zh = [question for question, _ in squad("drcd_dev/DRCD_dev.json")[1][::35]]
    en = [question for question, _ in squad("xquad/xquad.en.json")[1][::12]]
    with closing(Index.open(folder / "index", MiniLM(folder / "embedder"))) as index:
        index.embedder.embed(["once"])
        start = time.perf_counter()
        retrieve.search(index, en[0])
        first = time.perf_counter() - start
        search = partial(retrieve.search, index)
        embedded = index.embedder.embed(en[:40])
        result = {
            "load": os.getloadavg()[0],
            "first_search_seconds": round(first, 2),
            "zh_words": timed(search, zh),
            "en_words_and_vectors": timed(search, en),
            "peak_memory_mb": peak_memory(),
            "filters_en": {
                "one_file": timed(partial(search, source="/library/en/0000/000042.md"), en[:50]),
                "one_folder": timed(partial(search, source="/library/en/0001"), en[:50]),
                "half": timed(partial(search, source="/library/en"), en[:50]),
                "last_month": timed(partial(search, since=FIRST_DAY + timedelta(days=970)), en[:50]),
                "last_year": timed(partial(search, since=FIRST_DAY + timedelta(days=635)), en[:50]),
            },
            "filters_zh": {
                "half": timed(partial(search, source="/library/zh"), zh[:50]),
                "last_year": timed(partial(search, since=FIRST_DAY + timedelta(days=635)), zh[:50]),
            },
            "parts_of_en": parts(index, en[:50]),
            "vectors": index.manifest.vector_count(),
            "recall@10_of_nearest": recall(index, embedded),
        }
        result["start_seconds"] = round(command_seconds(folder), 2)
    return result


def parts(index: Index, questions: list[str]) -> dict:
    """Where the time of a search goes."""
    terms = {q: {t: w for t, (w, _) in retrieve.term_weights(index, q).items() if w} for q in questions}
    vectors = dict(zip(questions, index.embedder.embed(questions), strict=True))
    ids = {
        q: [i for i, _ in index.lexical(terms[q])] + [i for i, _ in index.dense(vectors[q])]
        for q in questions
    }
    return {
        "term_weights": timed(lambda q: retrieve.term_weights(index, q), questions),
        "words": timed(lambda q: index.lexical(terms[q]), questions),
        "embed_question": timed(lambda q: index.embedder.embed([q]), questions),
        "vectors": timed(lambda q: index.dense(vectors[q]), questions),
        "texts": timed(lambda q: index.get(ids[q]), questions),
    }


def recall(index: Index, questions: np.ndarray) -> float:
    """Share of the ten nearest by comparing with every vector that the search finds."""
    best: list[list[tuple[float, str]]] = [[] for _ in questions]
    for ids, vectors in index.manifest.all_vectors(20_000):
        for row, cosines in enumerate(questions @ vectors.T):
            nearest = np.argpartition(-cosines, min(10, len(ids) - 1))[:10]
            best[row] = sorted([*best[row], *((float(cosines[n]), ids[n]) for n in nearest)], reverse=True)[
                :10
            ]
    found = [{i for i, _ in index.dense(question, 10)} for question in questions]
    hits = sum(len({i for _, i in exact} & near) for exact, near in zip(best, found, strict=True))
    return round(hits / 10 / len(questions), 3)


def command_seconds(folder: Path) -> float:
    """What stands before every search of the command line: is the knowledge base in the index, and as it is now?"""
    code = "import sys, pathlib; from ingest.sync import build_kb; print(build_kb(pathlib.Path(sys.argv[1])).seconds)"
    run = partial(
        subprocess.run, [sys.executable, "-c", code, str(folder / "index")], cwd=ROOT, check=True, stdout=-3
    )
    run()  # puts it in
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def disk(folder: Path) -> dict:
    sizes = {
        path.name: sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())
        for path in sorted((folder / "index").iterdir())
    }  # fmt: skip
    return {name: round(size / 2**20) for name, size in sizes.items() if size >= 2**20}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int, nargs="?", default=100_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if given.search:
            print(json.dumps(searched(folder)))
            return
        result: dict = {"load": os.getloadavg()[0], "cores": len(os.sched_getaffinity(0)),
                        "note": "vectors are real ones of paragraphs turned by noise, not the chunks' own"}  # fmt: skip
        result["adding"] = build(folder, given.count)
        result["disk_mb"] = disk(folder)
        command = [sys.executable, __file__, "--search", "--folder", str(folder)]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        result["searching"] = json.loads(found.splitlines()[-1])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
