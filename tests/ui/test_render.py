"""What the page shows: escaped, cited, in both languages."""

import string

import pytest

from assistant.types import Answer, Citation
from trainer.config import RunConfig
from ui import i18n, render, render_runs
from ui.tabs.ask import as_said

ATTACK = '<img src="http://evil.example/x.png" onerror=alert(1)><script>alert(1)</script>'


def answer(text="LoRA starts at 2e-4. [1]", **changes):
    cited = Citation(1, "kb:methods/lora:en#learning-rate", "methods/lora", "LoRA › Learning rate", "starts at 2e-4", 1.0,
                     [{"name": "QLoRA", "url": "https://arxiv.org/abs/2305.14314", "date": "2023-05-23"}])  # fmt: skip
    values = {
        "text": text,
        "citations": [cited],
        "refused": False,
        "backend": "extract",
        "seconds": 0.1,
        "lang": "en",
    }
    return Answer(**(values | changes))


@pytest.fixture(params=i18n.LANGS)
def t(request):
    return i18n.translator(request.param)


def test_a_marker_links_to_its_folded_passage(t):
    html = render.answer(answer(), 4, t)
    assert 'href="#m4-s1"' in html and '<details id="m4-s1"' in html
    assert "starts at 2e-4" in html and "https://arxiv.org/abs/2305.14314" in html


def test_a_marker_without_a_passage_is_not_shown(t):
    assert "[7]" not in render.answer(answer("A claim. [7]"), 0, t)


def test_unsupported_sentences_are_marked(t):
    html = render.answer(answer("Supported. [1] Made up.", unsupported=["Made up."]), 0, t)
    assert "Made up. ⚠" in html and t("ask.unsupported_note") in html


def test_what_comes_from_outside_is_escaped(t):
    hostile = Citation(
        1, "x", ATTACK, ATTACK, ATTACK, 1.0, [{"name": ATTACK, "url": "javascript:alert(1)", "date": ""}]
    )
    for html in (
        render.answer(
            answer(ATTACK + " ![x](http://evil.example/y.png) [a](http://evil.example)", citations=[hostile]),
            0,
            t,
        ),
        render.error(ATTACK, "zh-TW"),
        as_said(ATTACK),
        render_runs.status(ATTACK, {"state": "failed", "message": ATTACK}, t),
        render_runs.values({"task": ATTACK}, {"task": {"because": ATTACK}}, t),
        render_runs.confusion([[1, 0], [0, 1]], [ATTACK, "b"], t),
    ):
        assert (
            "<img" not in html
            and "<script" not in html
            and 'href="javascript' not in html
            and '<a href="http://evil' not in html
        )


def test_an_answer_is_one_html_block(t):
    assert "\n\n" not in render.answer(
        answer("First.\n\n- one [1]\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |"), 0, t
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0002, "2e-4"), (1e-05, "1e-5"), (0.05, "0.05"), (True, "true"), (3, "3"), (0.0, "0")],
)
def test_values_are_written_as_people_write_them(value, shown):
    assert render.value_text(value) == shown


def test_every_string_exists_in_both_languages_with_the_same_places():
    for key, pair in i18n.STRINGS.items():
        assert all(pair), key
        places = [{name for _, name, _, _ in string.Formatter().parse(text) if name} for text in pair]
        assert places[0] == places[1], key


def test_every_field_is_described_in_both_languages():
    for name, field in RunConfig.model_fields.items():
        assert field.description and field.json_schema_extra["zh-TW"], name


@pytest.mark.parametrize(
    ("header", "lang"),
    [
        ("zh-TW,zh;q=0.9", "zh-TW"),
        ("zh-HK", "zh-TW"),
        ("zh-Hant-TW", "zh-TW"),
        ("zh-CN,en", "zh-TW"),
        ("en-US,en", "en"),
        ("de,en;q=0.5", "en"),
        ("", "en"),
        (None, "en"),
    ],
)
def test_the_browser_chooses_the_first_language(header, lang):
    assert i18n.choose(header) == lang
