"""The best passages once more, each read beside the question by a cross-encoder. Off unless a model is named.

Between retrieve.py and answer.py: `rerank(question, hits, load(name))`. What it gains and costs with a model:
`TUNESMITH_RERANKER=NAME python tests/bench/rerank.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from assistant import retrieve
from assistant.passages import widened
from assistant.types import Hit
from ingest.index import Index
from kb.errors import UserError

CANDIDATES = 20  # hits that are read again: twice as many cost twice the time
SPARE = 3  # hits that are asked for, for each passage wanted: neighbours become one
CONTEXT = 1024  # tokens of a question and a passage together, in llama.cpp
HEADLESS = "Model"  # how the class of a model without a scoring head ends; its scores would be random


class Reranker(Protocol):
    """`scores` gives for each text how well it answers the question, 0 to 1, higher is better."""

    name: str

    def scores(self, question: str, texts: list[str]) -> list[float]: ...


def search(
    index: Index, question: str, k: int = 5, lang: str | None = None, reranker: str = "", **where: Any
) -> list[Hit]:
    """The k best passages (passages.py): `retrieve.search` (`where`: its source and since), the best CANDIDATES
    reordered where a reranker is named, with what stands around each.

    Raises UserError, see `load`.
    """
    hits = retrieve.search(index, question, max(SPARE * k, CANDIDATES), lang, **where)
    if reranker:
        hits = rerank(question, hits[: max(k, CANDIDATES)], load(reranker))
    return widened(index, hits, k)


def rerank(question: str, hits: list[Hit], reranker: Reranker) -> list[Hit]:
    """The hits in the reranker's order, with its scores (0 to 1). Hits of equal score keep their order."""
    if not hits:
        return []
    scores = reranker.scores(question, [f"{hit.heading}\n{hit.text}" for hit in hits])
    order = sorted(range(len(hits)), key=lambda i: (-scores[i], i))
    return [replace(hits[i], score=round(scores[i], 6)) for i in order]


def load(name: str) -> Reranker:
    """The reranker of a name: a Hub id or a folder (sentence-transformers), or a .gguf file (llama.cpp).

    Loaded once, on first use. Raises UserError in one line for a model that is missing or is no reranker.
    """
    name = name.strip()
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"TUNESMITH_RERANKER = {name}: no such file; give the path of a .gguf file")
        asked = (path.absolute(), path.stat().st_mtime_ns)
        if not _engine(*asked).engine.running:
            _engine.cache_clear()
        return _engine(*asked)
    return _cross_encoder(str(path) if path.is_dir() else name)


@dataclass(frozen=True)
class CrossEncoderReranker:
    model: Any
    name: str

    def scores(self, question: str, texts: list[str]) -> list[float]:
        from torch.nn import Identity

        pairs = [(question, text) for text in texts]
        return _shares(self.model.predict(pairs, activation_fn=Identity(), show_progress_bar=False).tolist())


@dataclass(frozen=True)
class LlamaCppReranker:
    engine: Any
    name: str

    def scores(self, question: str, texts: list[str]) -> list[float]:
        question = self._cut(question, self.engine.context // 2)
        room = self.engine.context - len(self.engine.tokenize(question)) - 4
        return _shares(self.engine.rerank(question, [self._cut(text, room) for text in texts]))

    def _cut(self, text: str, room: int) -> str:
        """The beginning of a text that has at most `room` tokens: llama.cpp refuses a pair that is too long."""
        while (length := len(self.engine.tokenize(text))) > room:
            text = text[: max(0, min(len(text) - 1, len(text) * room // length))]
        return text


@lru_cache(maxsize=1)
def _cross_encoder(name: str) -> CrossEncoderReranker:
    from sentence_transformers import CrossEncoder  # some seconds, and torch

    try:
        model = CrossEncoder(name)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        why = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(
            f"TUNESMITH_RERANKER = {name}: cannot be loaded ({why}); give a Hub id, its folder or a .gguf file"
        ) from None
    classes = getattr(model.config, "architectures", None) or [""]
    if classes[0].endswith(HEADLESS) or getattr(model.config, "num_labels", 1) > 2:
        raise UserError(f"TUNESMITH_RERANKER = {name}: {classes[0]} is no reranker, it does not score pairs")
    return CrossEncoderReranker(model, name)


@lru_cache(maxsize=1)
def _engine(path: Path, changed: int) -> LlamaCppReranker:
    from trainer.export.llamacpp import LlamaCpp

    return LlamaCppReranker(LlamaCpp(path, n_ctx=CONTEXT, rerank=True), path.name)


def _shares(scores: list[float]) -> list[float]:
    """Scores as probabilities. Logits go through the logistic function; some models give probabilities already."""
    if all(0 <= score <= 1 for score in scores):
        return scores
    return [1 / (1 + math.exp(-max(-60.0, min(60.0, score)))) for score in scores]
