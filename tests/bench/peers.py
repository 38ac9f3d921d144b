"""Tunesmith's search beside what one builds in an afternoon, on the same sets in one run. Prints JSON.

The peers, each with its own defaults and with the same embedding model: Chroma's quick start (whole documents,
vectors alone), BM25 alone (LangChain's BM25Retriever), LangChain's EnsembleRetriever (half and half, its default
splitter), LlamaIndex's VectorStoreIndex. They need: pip install langchain-classic langchain-community rank-bm25
llama-index-core. `python tests/bench/peers.py [SET …] [--split dev|test]`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from sets import Question, QuestionSet, golden, heldout, hf_course, rank_of, scores, squad

from assistant import rerank
from ingest.embedder import MiniLM, from_name
from ingest.index import Index
from ingest.sync import add_paths, build_kb

K = 10
PEERS = ("langchain_classic", "langchain_community", "rank_bm25", "llama_index")
SETS = {
    "xquad_zh": lambda _: squad("xquad_zh"),
    "xquad_en": lambda _: squad("xquad_en"),
    "drcd": lambda _: squad("drcd"),
    "drcd_simplified": lambda _: squad("drcd", simplified=True),
    "hf_course_en": lambda _: hf_course("en"),
    "hf_course_zh-CN": lambda _: hf_course("zh-CN"),
    "hf_course_zh-TW": lambda _: hf_course("zh-TW"),
    "golden": golden,
    "heldout": heldout,
}


class Vectors:
    """The default embedder, each text embedded once."""

    def __init__(self, cache: Path) -> None:
        self.embedder = from_name(MiniLM.name, cache)
        self.known: dict[str, list[float]] = {}

    def __call__(self, texts: list[str]) -> list[list[float]]:
        fresh = [text for text in dict.fromkeys(texts) if text not in self.known]
        if fresh:
            self.known |= dict(zip(fresh, self.embedder.embed(fresh).tolist(), strict=True))
        return [self.known[text] for text in texts]


def tunesmith(one: QuestionSet, folder: Path):
    """Search as a user has it. The knowledge base is always in the index; beside a set only the set is searched."""
    build_kb(folder / "index")
    source = "kb"
    if not one.over_kb:
        texts = folder / "texts"
        for name, text in one.documents:
            (texts / name).parent.mkdir(parents=True, exist_ok=True)
            (texts / name).write_text(text, encoding="utf-8")
        add_paths(folder / "index", [texts])
        source = str(texts)
    index = Index.open(folder / "index")

    def search(question: Question) -> list[tuple[str, str]]:
        hits = rerank.search(index, question.text, K, question.lang, source=source)
        if source == "kb":
            return [(f"{hit.page}.{hit.lang}.md", hit.text) for hit in hits]
        return [(Path(hit.page).name, hit.text) for hit in hits]

    return index, search


def chroma(one: QuestionSet, vectors: Vectors):
    import chromadb

    collection = chromadb.EphemeralClient().create_collection(f"quick-{one.name}", embedding_function=None)
    names, texts = zip(*one.documents, strict=True)
    for start in range(0, len(names), 500):
        part = slice(start, start + 500)
        collection.add(
            ids=list(names[part]), documents=list(texts[part]), embeddings=vectors(list(texts[part]))
        )

    def search(question: Question) -> list[tuple[str, str]]:
        found = collection.query(query_embeddings=vectors([question.text]), n_results=K)
        return list(zip(found["ids"][0], found["documents"][0], strict=True))

    return search


def langchain(one: QuestionSet, vectors: Vectors):
    from langchain_classic.retrievers import EnsembleRetriever
    from langchain_community.retrievers import BM25Retriever
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    class Ours(Embeddings):
        def embed_documents(self, texts):
            return vectors(texts)

        def embed_query(self, text):
            return vectors([text])[0]

    documents = [Document(text, metadata={"name": name}) for name, text in one.documents]
    pieces = RecursiveCharacterTextSplitter().split_documents(documents)
    words = BM25Retriever.from_documents(pieces, k=K)
    store = InMemoryVectorStore.from_documents(pieces, Ours())
    both = EnsembleRetriever(
        retrievers=[words, store.as_retriever(search_kwargs={"k": K})], weights=[0.5, 0.5]
    )
    shown = lambda found: [(one.metadata["name"], one.page_content) for one in found][:K]
    return (lambda q: shown(words.invoke(q.text))), (lambda q: shown(both.invoke(q.text)))


def llamaindex(one: QuestionSet, vectors: Vectors):
    from llama_index.core import Document, VectorStoreIndex
    from llama_index.core.embeddings import BaseEmbedding

    class Ours(BaseEmbedding):
        def _get_query_embedding(self, query):
            return vectors([query])[0]

        def _get_text_embedding(self, text):
            return vectors([text])[0]

        def _get_text_embeddings(self, texts):
            return vectors(texts)

        async def _aget_query_embedding(self, query):
            return vectors([query])[0]

    documents = [Document(text=text, metadata={"name": name}) for name, text in one.documents]
    retriever = VectorStoreIndex.from_documents(documents, embed_model=Ours()).as_retriever(
        similarity_top_k=K
    )
    return lambda q: [(node.metadata["name"], node.get_content()) for node in retriever.retrieve(q.text)]


def ranked(one: QuestionSet, search) -> tuple[list[int | None], float]:
    """Rank of the first passage that answers each question, and milliseconds a question."""
    start = time.perf_counter()
    ranks = [rank_of(question, search(question)) for question in one.questions]
    return ranks, round(1000 * (time.perf_counter() - start) / len(ranks), 1)


def measured(one: QuestionSet, vectors: Vectors, peers: bool) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        index, search = tunesmith(one, Path(folder))
        with closing(index):
            ranks, ms = ranked(one, search)
            pages = [any(n.rsplit(".", 2)[0] in q.pages for n, _ in search(q)[:5]) for q in one.questions]
    result = {"questions": len(one.questions), "tunesmith": scores(ranks) | {"ms": ms}}
    if one.over_kb:
        by_kind = {q.kind for q in one.questions} | {q.lang for q in one.questions}
        result["tunesmith"]["hit@5_of"] = {
            name: scores([r for r, q in zip(ranks, one.questions, strict=True) if name in (q.kind, q.lang)])[
                "hit@5"
            ]
            for name in sorted(by_kind)
        }
        result["tunesmith"]["page_hit@5"] = round(sum(pages) / len(pages), 4)
        result["missed"] = [
            f"{q.id} {q.text}" for r, q in zip(ranks, one.questions, strict=True) if not r or r > 5
        ]
    if peers:
        bm25, ensemble = langchain(one, vectors)
        ways = {"bm25": bm25, "langchain_ensemble": ensemble, "chroma_quickstart": chroma(one, vectors)}
        ways["llamaindex"] = llamaindex(one, vectors)
        for name, way in ways.items():
            ranks, ms = ranked(one, way)
            result[name] = scores(ranks) | {"ms": ms}
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"any of {', '.join(SETS)}; default: all")
    parser.add_argument("--split", choices=("dev", "test"), help="part of the golden set")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    given = parser.parse_args()
    if strange := [name for name in given.sets if name not in SETS]:
        parser.error(f"no set {', '.join(strange)}; there are {', '.join(SETS)}")
    warnings.filterwarnings("ignore")
    if missing := [name for name in PEERS if find_spec(name) is None]:
        print(f"without the peers: {', '.join(missing)} not installed", file=sys.stderr)
        given.alone = True
    with tempfile.TemporaryDirectory() as cache:
        vectors = Vectors(Path(cache))
        results = {
            name: measured(SETS[name](given.split), vectors, not given.alone) for name in given.sets or SETS
        }
    print(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
