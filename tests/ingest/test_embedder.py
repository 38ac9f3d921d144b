"""The embedder gives the model's own vectors, without torch, and knows what it cannot read."""

import subprocess
import sys

import numpy as np
import pytest

from ingest import minilm
from ingest.chunker import split
from ingest.embedder import MiniLM, content_key, from_name, readable, shipped_vectors
from ingest.readers import kb_documents
from kb.errors import UserError

TEXTS = ["What learning rate should I use for LoRA?", "hi", "rank 16, alpha 32; " * 200, "過擬合 and LoRA"]


def test_vectors_equal_those_of_transformers(embedder):
    import torch
    from transformers import AutoTokenizer, BertModel

    model = BertModel.from_pretrained(minilm.model_folder()).eval()
    tokenizer = AutoTokenizer.from_pretrained(minilm.model_folder())
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1).float()
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    assert np.abs(embedder.embed(TEXTS) - expected).max() < 1e-5


def test_a_text_has_one_vector_whatever_it_is_batched_with(embedder):
    alone = np.vstack([embedder.embed([text]) for text in TEXTS])
    together = embedder.embed(TEXTS)
    assert np.abs(alone - together).max() < 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert together.dtype == np.float32 and together.shape == (len(TEXTS), embedder.dim)


def test_no_texts_give_no_vectors(embedder):
    assert embedder.embed([]).shape == (0, embedder.dim)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("How do I choose the rank?", 0, 0),
        ("過擬合怎麼辦", 1, 1),
        ("LoRA rank alpha dropout 設", 0.01, 0.5),
        ("", 1, 1),
    ],
)
def test_unknown_share_tells_what_it_cannot_read(embedder, text, low, high):
    assert low <= embedder.unknown_share(text) <= high


def test_weights_that_are_not_the_official_ones_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(minilm, "model_folder", lambda: tmp_path)
    with pytest.raises(ValueError, match="sha256"):
        minilm.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_exported_file_is_kept_and_found_again(embedder):
    embedder.embed(["once"])
    file = embedder.cache / embedder.name / "model.onnx"
    made = file.stat().st_mtime_ns
    MiniLM(embedder.cache).embed(["twice"])
    assert file.stat().st_mtime_ns == made
    assert [path.name for path in embedder.cache.iterdir()] == [embedder.name]  # nothing half-made beside it


def test_embedding_needs_no_torch(embedder):
    embedder.embed(["once"])
    code = (
        "import sys; from pathlib import Path; from ingest.embedder import default_embedder;"
        f"default_embedder(Path({str(embedder.cache)!r})).embed(['a question']);"
        "print('torch' in sys.modules or 'transformers' in sys.modules or 'onnx' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_shipped_vectors_are_those_of_the_pages_as_they_are(embedder):
    texts = sorted({chunk.indexed() for document in kb_documents() for chunk in split(document)})
    texts = [text for text in texts if readable(embedder, text)]
    shipped = shipped_vectors()
    missing = [text[:60] for text in texts if content_key(text) not in shipped]
    assert not missing, (
        f"run `python -m ingest.embedder --ship`: {len(missing)} chunks have none: {missing[:3]}"
    )
    assert len(shipped) == len(texts), (
        "run `python -m ingest.embedder --ship`: there are vectors of former chunks"
    )
    sample = texts[:: max(1, len(texts) // 12)]
    cosines = (embedder.embed(sample) * np.array([shipped[content_key(text)] for text in sample])).sum(axis=1)
    assert cosines.min() > 0.999


def test_any_sentence_transformers_folder_can_be_the_embedder(embedder, tmp_path):
    other = from_name(str(minilm.model_folder()), tmp_path)
    assert np.abs(other.embed(TEXTS[:2]) - embedder.embed(TEXTS[:2])).max() < 1e-5
    assert other.dim == 384 and other.unknown_share("rank") == 0 < other.unknown_share("過擬合怎麼辦")


def test_int8_vectors_are_near_the_models_own_and_the_file_is_a_quarter(embedder, tmp_path):
    small = from_name("all-MiniLM-L6-v2-int8", tmp_path)
    cosines = (small.embed(TEXTS[:3]) * embedder.embed(TEXTS[:3])).sum(axis=1)
    assert cosines.min() > 0.98 and cosines.max() < 0.99999
    size = sum(file.stat().st_size for file in (tmp_path / small.name).iterdir())
    assert size < 0.3 * sum(file.stat().st_size for file in (embedder.cache / embedder.name).iterdir())


def test_a_model_that_is_not_there_is_told_when_it_is_needed(tmp_path):
    nowhere = from_name(str(tmp_path / "nowhere"), tmp_path)
    with pytest.raises(UserError, match=r"nowhere.*give a Hub id or a folder"):
        nowhere.embed(["text"])
