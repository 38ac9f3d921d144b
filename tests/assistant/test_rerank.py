"""Reranking with real parts: a tiny untrained BERT cross-encoder made on the spot, in sentence-transformers and as
a GGUF file in llama.cpp, which must give the same scores."""

import math
from pathlib import Path

import numpy as np
import pytest

from assistant import answer, rerank
from assistant.answer import ask
from assistant.llm import Settings
from assistant.types import Hit
from ingest.index import Index
from kb.errors import UserError

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] what which learning rate for lora start at use rank is of the a bread oven . ? ,"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
VOCABULARY = list(dict.fromkeys([*WORDS.split(), *LETTERS, *(f"##{letter}" for letter in LETTERS)]))
TEXTS = ["lora rate is 2e-4", "a bread oven", "start lora at a learning rate", "x " * 300]
CONTEXT = 64  # tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A cross-encoder as sentence-transformers loads it, with model.gguf beside it."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder = tmp_path_factory.mktemp("reranker")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_labels=1,
        intermediate_size=64, max_position_embeddings=CONTEXT, initializer_range=0.5,
    )  # fmt: skip
    model = BertForSequenceClassification(config).eval()
    with torch.no_grad():  # llama.cpp knows one segment only
        segments = model.bert.embeddings.token_type_embeddings.weight
        segments[1] = segments[0]
    model.save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(VOCABULARY)}
    BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=CONTEXT).save_pretrained(folder)
    write_gguf(model, folder / "model.gguf")
    return folder


def write_gguf(model, path: Path) -> None:
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(str(path), "bert")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.RANK)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    shown = [w if w[0] == "[" else w[2:] if w.startswith("##") else f"\u2581{w}" for w in VOCABULARY]
    writer.add_token_list(shown)
    writer.add_token_types([3 if word[0] == "[" else 1 for word in VOCABULARY])
    writer.add_token_type_count(2)
    writer.add_bos_token_id(VOCABULARY.index("[CLS]"))
    writer.add_eos_token_id(VOCABULARY.index("[SEP]"))
    for name in ("pad", "unk", "sep", "mask"):
        getattr(writer, f"add_{name}_token_id")(VOCABULARY.index(f"[{name.upper()}]"))
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(True)
    writer.add_add_sep_token(False)  # question [SEP] passage [SEP]: the ends are there already
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    heads = {"pooler.dense": "cls", "classifier": "cls.output"}
    for name, tensor in model.state_dict().items():
        stem, _, kind = name.removeprefix("bert.").rpartition(".")
        mapped = heads.get(stem) or names.get_name(stem)
        writer.add_tensor(f"{mapped}.{kind}", tensor.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def index(built_home):
    opened = Index.open(built_home / "index")
    yield opened
    opened.close()


def hits(*texts: str) -> list[Hit]:
    return [Hit(str(i), "p", "", "en", text, 1 - i / 10, []) for i, text in enumerate(texts)]


def test_hits_come_in_the_cross_encoders_order_with_its_scores(folder):
    from sentence_transformers import CrossEncoder

    found = rerank.rerank("which learning rate", hits(*TEXTS), rerank.load(str(folder)))
    logits = CrossEncoder(str(folder)).predict(
        [("which learning rate", f"\n{text}") for text in TEXTS], activation_fn=lambda x: x
    )
    expected = sorted(range(len(TEXTS)), key=lambda i: -logits[i])
    assert [hit.id for hit in found] == [str(i) for i in expected]
    assert found[0].score == pytest.approx(1 / (1 + math.exp(-max(logits))), abs=1e-4)
    assert rerank.rerank("x", [], rerank.load(str(folder))) == []


def test_llama_cpp_gives_the_same_order_and_nearly_the_same_scores(folder):
    ours = rerank.rerank("which learning rate", hits(*TEXTS[:3]), rerank.load(str(folder / "model.gguf")))
    theirs = rerank.rerank("which learning rate", hits(*TEXTS[:3]), rerank.load(str(folder)))
    assert [hit.id for hit in ours] == [hit.id for hit in theirs]
    assert [hit.score for hit in ours] == pytest.approx([hit.score for hit in theirs], abs=0.01)


def test_llama_cpp_reads_the_beginning_of_what_is_too_long(folder):
    reranker = rerank.load(str(folder / "model.gguf"))
    assert reranker.engine.context == CONTEXT
    assert len(rerank.rerank("which rate " * 100, hits(*TEXTS, ""), reranker)) == 5


def test_hits_of_equal_score_keep_their_order():
    class Same:
        name = "same"

        def scores(self, question, texts):
            return [0.5] * len(texts)

    assert [hit.id for hit in rerank.rerank("q", hits("a", "b", "c"), Same())] == ["0", "1", "2"]


def test_a_reranker_that_is_missing_or_is_none_is_one_line(folder, tmp_path):
    from transformers import BertConfig, BertModel, BertTokenizer

    BertModel(
        BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).save_pretrained(tmp_path)
    BertTokenizer(vocab={word: n for n, word in enumerate(VOCABULARY[:8])}).save_pretrained(tmp_path)
    for name, line in [
        ("/nowhere/r.gguf", "no such file"),
        ("nobody/nothing", "cannot be loaded"),
        (str(tmp_path), "BertModel is no reranker"),
    ]:
        with pytest.raises(UserError, match=line) as error:
            rerank.load(name)
        assert "\n" not in str(error.value) and "TUNESMITH_RERANKER" in str(error.value)


def test_search_and_answers_use_the_reranker_that_is_set(folder, index):
    question, name = "Which learning rate for LoRA?", str(folder)
    plain, reread = rerank.search(index, question, 5), rerank.search(index, question, 5, reranker=name)
    assert len(reread) == 5 and [hit.id for hit in reread] != [hit.id for hit in plain]
    assert {hit.id for hit in reread} <= {hit.id for hit in rerank.search(index, question, 20)}
    kept, error = answer._reread(question, answer.found(index, question, "en", 20), Settings(reranker=name))
    assert len(kept) == answer.HITS and not error
    assert ask(index, question, settings=Settings("extract", reranker=name)).citations


def test_an_answer_does_without_a_reranker_that_is_not_there_and_says_so(index):
    told = ask(
        index, "Which learning rate for LoRA?", settings=Settings("extract", reranker="/nowhere/r.gguf")
    )
    assert told.citations and "no such file" in told.error
    refused = ask(index, "How do I bake bread?", settings=Settings("extract", reranker="/nowhere/r.gguf"))
    assert refused.refused and not refused.error
