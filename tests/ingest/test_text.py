"""Two spellings of one thing give the same tokens; the parts of a name are found."""

import pytest

from ingest.text import LONGEST_WORD, detect_lang, fold, glossary_terms, tokens


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("過擬合與學習率", "过拟合与学习率"),
        ("ＬｏＲＡ　ｒ＝１６", "lora r=16"),
        ("Overfitting", "OVERFITTING"),
        ("⽂字", "文字"),  # a Kangxi radical that PDFs carry in place of 文
    ],
)
def test_spellings_fold_to_one(written, asked):
    assert fold(written).split() == fold(asked).split()
    assert tokens(written) == tokens(asked)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("q_proj", {"q_proj", "q", "proj"}),
        ("Qwen3-4B", {"qwen3-4b", "qwen3", "qwen", "4b"}),
        ("bf16", {"bf16", "bf", "16"}),
        ("1e-4", {"1e-4", "0.0001"}),
        ("LoraConfig", {"loraconfig", "lora", "config"}),
        ("過擬合", {"过", "拟", "合", "过拟", "拟合"}),
    ],
)
def test_the_whole_and_its_parts_are_tokens(text, parts):
    assert parts <= set(tokens(text))


def test_a_decimal_number_is_one_token():
    assert tokens("0.0002") == ["0.0002"] and "0.0002" in tokens("2e-4")


def test_lora_is_not_torn_at_its_capitals():
    assert tokens("LoRA") == ["lora"]


def test_inflected_words_share_a_stem():
    assert tokens("learning rates") == tokens("learn rate")


def test_chinese_next_to_latin_is_parted_without_a_space():
    assert {"lora", "微调"} <= set(tokens("LoRA微調"))


def test_keys_and_data_in_text_form_are_no_tokens():
    assert tokens("A" * (LONGEST_WORD + 1)) == []


@pytest.mark.parametrize(
    "text", ["", " \n", "🙂🙃", "\ud83d", "微調\ud83d", "\x00", "。，！", "e" * 100_000, "1e999 9e-999"]
)
def test_odd_text_does_not_break(text):
    assert isinstance(tokens(text), list) and isinstance(fold(text), str)
    assert detect_lang(text)


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("學習率該設多少？", "zh-TW"),
        ("学习率该设多少？", "zh-CN"),
        ("LoRA 的 rank 要設多少", "zh-TW"),
        ("LoRA 的 rank 设多少", "zh-CN"),
        ("what is 微調?", "zh-TW"),
        ("How do I choose the rank?", "en"),
        ("A long English sentence that names 過擬合 once and goes on in English after that", "en"),
        ("ファインチューニングとは何ですか", "ja"),
        ("미세 조정이란 무엇인가요", "ko"),
    ],
)
def test_language_is_told_by_script(text, lang):
    assert detect_lang(text) == lang


def test_the_glossary_leads_from_chinese_to_english_and_back():
    assert "overfit" in glossary_terms("過擬合怎麼辦")
    assert "overfit" in glossary_terms("过拟合怎么办")
    assert {"过拟", "拟合"} & set(glossary_terms("what causes overfitting?"))


def test_the_glossary_does_not_repeat_the_question():
    question = "過擬合 overfitting"
    assert not set(glossary_terms(question)) & set(tokens(question))
