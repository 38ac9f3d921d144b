"""Search over the real pages and a user's files: what is asked is found, in the reader's language, at once."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from assistant import retrieve
from ingest.index import Index
from ingest.sync import add_paths

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def index(built_home):
    with closing(Index.open(built_home / "index")) as opened:
        yield opened


@pytest.fixture(scope="module")
def mixed(tmp_path_factory, built_home):
    """The knowledge base and some files of a user's, in an index of its own."""
    import shutil

    home = tmp_path_factory.mktemp("mixed")
    shutil.copytree(built_home / "index", home / "index")
    files = home / "files"
    (files / "team").mkdir(parents=True)
    (files / "team" / "rules.md").write_text(
        "# Team rules\n\n## Learning rate\n\nOur team always trains LoRA with a learning rate of 7e-5 on the blue server.\n",
        encoding="utf-8",
    )
    (files / "規定.txt").write_text(
        "本組的 LoRA 學習率一律設為 7e-5，訓練在藍色伺服器上跑。", encoding="utf-8"
    )
    (files / "scan.txt").write_text("The cafeteria serves dumplings on Wednesday.")
    add_paths(home / "index", [files])
    with closing(Index.open(home / "index")) as opened:
        yield opened, files


@pytest.mark.parametrize(
    ("question", "section"),
    [
        ("LoRA 的 rank 要設多少？", ("methods/lora", "rank")),
        ("LoRA 的 rank 要设多少？", ("methods/lora", "rank")),
        ("which rank should I use for LoRA?", ("methods/lora", "rank")),
        ("what learning rate for LoRA", ("methods/lora", "learning-rate")),
        ("DPO 的 beta 該設多少", ("methods/dpo", "beta")),
        ("過擬合有哪些徵兆", ("troubleshooting/overfitting", "signs")),
        ("过拟合有哪些征兆", ("troubleshooting/overfitting", "signs")),
        ("is 80 rows enough data to fine-tune", ("datasets/how-much-data", "minimum")),
        (
            "should I use RAG or fine-tune when knowledge changes daily",
            ("guides/prompt-rag-or-finetune", "rag"),
        ),
        ("類別不平衡該看哪些指標", ("troubleshooting/class-imbalance", "metrics")),
    ],
)
def test_the_section_that_answers_is_among_the_first_three(index, question, section):
    hits = retrieve.search(index, question, k=3)
    assert section in [(hit.page, hit.anchor) for hit in hits], [hit.id for hit in hits]


@pytest.mark.parametrize(("lang", "shown"), [("en", "en"), ("zh-TW", "zh-TW"), ("zh-CN", "zh-TW")])
@pytest.mark.parametrize("question", ["LoRA learning rate", "LoRA 的學習率"])
def test_a_section_comes_once_and_in_the_readers_language(index, question, lang, shown):
    hits = retrieve.search(index, question, k=10, lang=lang)
    sections = [(hit.page, hit.anchor) for hit in hits]
    assert ("methods/lora", "learning-rate") in sections[:3]
    assert {hit.lang for hit in hits} == {shown}
    assert len({hit.id for hit in hits}) == len(hits) == 10


def test_without_a_language_the_questions_own_counts(index):
    assert {hit.lang for hit in retrieve.search(index, "過擬合怎麼辦")} == {"zh-TW"}
    assert {hit.lang for hit in retrieve.search(index, "how to stop overfitting")} == {"en"}


def test_simplified_and_traditional_questions_find_the_same(index):
    one = retrieve.search(index, "驗證損失上升時該怎麼辦？", lang="zh-TW")
    other = retrieve.search(index, "验证损失上升时该怎么办？", lang="zh-TW")
    assert [hit.id for hit in one] == [hit.id for hit in other]


def test_hits_carry_their_sources_and_the_whole_passage(index):
    hit = retrieve.search(index, "what learning rate for LoRA")[0]
    assert hit.sources and all(set(source) == {"name", "url", "date"} for source in hit.sources)
    assert hit.text == index.get([hit.id])[0].text and " › Learning rate" in hit.heading


def test_scores_fall_lie_in_0_1_and_tell_a_foreign_question(index):
    inside = [hit.score for hit in retrieve.search(index, "what learning rate for LoRA", k=20)]
    outside = [hit.score for hit in retrieve.search(index, "best ramen restaurants in Osaka", k=20)]
    assert inside == sorted(inside, reverse=True)
    assert all(0 <= score <= 1 for score in inside + outside)
    assert inside[0] > 2 * max(outside, default=0)


def test_the_same_question_gives_the_same_answer(index):
    first = retrieve.search(index, "How do I choose alpha?", k=20)
    with closing(Index.open(index.folder)) as other:
        assert retrieve.search(other, "How do I choose alpha?", k=20) == first


@pytest.mark.parametrize("k", [1, 7, 100])
def test_at_most_k_hits(index, k):
    hits = retrieve.search(index, "learning rate", k=k)
    assert len(hits) <= k and (k == 100 or len(hits) == k)


@pytest.mark.parametrize(
    "question",
    [
        "",
        "   ",
        "?!",
        "🙂",
        "\ud83d",
        "微\ud83d調",
        "\x00",
        "a" * 100_000,
        "的" * 5000,
        "AND OR NOT (",
        "字 body:x^2",
    ],
)
def test_odd_questions_do_not_break(index, question):
    assert isinstance(retrieve.search(index, question), list)


def test_naughty_strings_do_not_break(index, shared_data):
    files = sorted(path for path in (shared_data / "blns").rglob("*.json"))
    for text in json.loads(files[0].read_text(encoding="utf-8"))[::7]:
        retrieve.search(index, text)


def test_a_users_document_stands_beside_the_pages(mixed):
    index, files = mixed
    assert retrieve.search(index, "When are dumplings served?")[0].page == str(files / "scan.txt")
    pages = [
        hit.page
        for hit in retrieve.search(index, "Which learning rate does our team use on the blue server?")
    ]
    assert pages[0] == str(files / "team" / "rules.md")
    assert any(not page.startswith("/") for page in pages)


def test_a_users_documents_in_two_languages_both_count(mixed):
    index, files = mixed
    pages = [hit.page for hit in retrieve.search(index, "LoRA 學習率 7e-5 blue server learning rate", k=10)]
    assert {str(files / "規定.txt"), str(files / "team" / "rules.md")} <= set(pages)


def test_the_filter_by_source(mixed):
    index, files = mixed
    assert {hit.source for hit in retrieve.search(index, "LoRA learning rate", source="kb")} == {"kb"}
    inside = retrieve.search(index, "LoRA learning rate", source=str(files / "team"))
    assert {hit.page for hit in inside} == {str(files / "team" / "rules.md")}
    assert retrieve.search(index, "LoRA", source=str(files / "nothing")) == []


def test_dense_weight_falls_with_what_the_embedder_cannot_read(index):
    questions = [
        "How do I choose the rank?",
        "LoRA rank alpha dropout learning 設",
        "LoRA 的 rank 設多少",
        "過擬合怎麼辦",
    ]
    weights = [retrieve.dense_weight(index, question) for question in questions]
    assert weights[0] == retrieve.DENSE_WEIGHT and weights[-1] == 0
    assert weights == sorted(weights, reverse=True)


def test_meaning_finds_what_words_do_not(mixed):
    index, files = mixed
    found = retrieve.candidates(index, "lunch menu midweek")
    assert max(found.vectors, key=found.vectors.get).startswith(f"file:{files / 'scan.txt'}")


def test_ingest_and_search_import_no_torch(built_home):
    code = (
        "import sys; from pathlib import Path\n"
        "from ingest.index import Index; from ingest.sync import build_kb; from assistant import retrieve\n"
        f"folder = Path({str(built_home / 'index')!r}); build_kb(folder)\n"
        "assert retrieve.search(Index.open(folder), 'what learning rate for LoRA')\n"
        "print([name for name in ('torch', 'transformers', 'onnx', 'markitdown', 'langchain_text_splitters')"
        " if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == "[]\n", run.stderr


def test_a_chinese_question_needs_no_vectors(built_home):
    code = (
        "import sys; from pathlib import Path\n"
        "from ingest.index import Index; from assistant import retrieve\n"
        f"assert retrieve.search(Index.open(Path({str(built_home / 'index')!r})), '過擬合怎麼辦')\n"
        "print('chromadb' in sys.modules, 'onnxruntime' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout == "False False\n", run.stderr


def test_a_question_in_other_words_finds_the_section_that_answers_it(index):
    for question, page in [
        ("訓練到一半停電，要從頭來過嗎", "troubleshooting/resume"),
        ("my gpu ran out of memory in the middle of an epoch", "troubleshooting/out-of-memory"),
        ("模型一直跳針，同一句話講個不停", "troubleshooting/repetition"),
    ]:
        assert page in [hit.page for hit in retrieve.search(index, question, k=3)], question


def test_what_is_asked_is_never_shown_as_a_passage(index):
    for question in ("訓練到一半停電，要從頭來過嗎", "what r should I use for lora"):
        for hit in retrieve.search(index, question, k=20):
            assert (hit.id.startswith("kb:") and hit.asked not in hit.text) or not hit.asked
