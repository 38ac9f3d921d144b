"""The gate's four steps: each can fail, and names its cause, a page and the way out; in llama.cpp and in Ollama."""

import json
import shutil

import pytest
from replay import Reply, ndjson, ollama, recorded, serving

from kb.pages import pages
from trainer.export import export
from trainer.export.causes import EXPLAINED, PAGES
from trainer.export.judge import Case
from trainer.export.llamacpp import LlamaCpp
from trainer.export.ollama import Ollama
from trainer.export.probes import CONVERSATIONS, conversations, texts
from trainer.export.push import server_with
from trainer.export.steps import prompts_step, score_step, tokens_step

THINKING = """\
{%- if tools %}{{- '<|im_start|>system\\n' }}{%- for tool in tools %}{{- tool | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""


def steps_of(folder, engine="llama.cpp"):
    parity = json.loads((folder.path / "export" / "parity.json").read_text(encoding="utf-8"))
    return {step["step"]: step for step in parity["steps"] if step["engine"] == engine}


def with_template(folder, template):
    path = folder.path / "model" / "chat_template.jinja"
    path.unlink()
    path.write_text(template, encoding="utf-8")
    return folder


def test_an_equal_export_passes_all_four_steps(finished):
    folder = with_template(finished(labels=True), THINKING)
    export(folder)
    steps = steps_of(folder)
    assert {name: step["state"] for name, step in steps.items()} == dict.fromkeys(
        ("prompts", "tokens", "greedy", "score"), "ok"
    )
    assert (steps["prompts"]["compared"], steps["prompts"]["same"]) == (len(CONVERSATIONS),) * 2
    assert (steps["tokens"]["compared"], steps["tokens"]["same"]) == (200, 200)
    values = steps["score"]["values"]
    assert values["metric"] == "accuracy" and values["served"] == values["transformers"]


@pytest.mark.parametrize("undefined", ["true", "false"])
def test_llama_cpp_is_told_what_transformers_leaves_undefined(undefined, tiny_model, tmp_path):
    """llama.cpp guesses what the model can and tells the template; the guess may be the other one."""
    from trainer.export.gguf import write_gguf

    folder = tmp_path / "model"
    shutil.copytree(tiny_model("qwen3"), folder)
    test = "enable_thinking" if undefined == "false" else "enable_thinking is not defined or enable_thinking"
    template = "{{ messages[0].content }}|{% if TEST %}thinks{% else %}answers{% endif %}".replace(
        "TEST", test
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    with LlamaCpp(write_gguf(folder, tmp_path / "out.gguf"), threads=1) as engine:
        chat = [{"role": "user", "content": "a"}]
        assert engine.render(chat) == ("a|thinks" if undefined == "true" else "a|answers")
        assert engine.render(chat, enable_thinking=False) == "a|answers"
        assert engine.render(chat, enable_thinking=True) == "a|thinks"


def test_a_template_without_thinking_or_tools_is_not_asked_about_them():
    assert len(conversations("{{ messages }}")) == len(CONVERSATIONS) - 3
    assert len(conversations("enable_thinking tools")) == len(CONVERSATIONS)


@pytest.mark.parametrize("architecture", ["mistral", "gemma2", "phi3", "llama"])
def test_200_texts_split_alike_in_every_kind_of_tokenizer(architecture, tiny_model, tiny_gguf):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model(architecture))
    with LlamaCpp(tiny_gguf(architecture), n_ctx=256, threads=1) as engine:
        step = tokens_step("llama.cpp", tokenizer, engine.tokenize)
    assert step.compared == 200
    assert step.state == "ok" or (architecture == "phi3" and step.same >= 196), step.differences


def test_naughty_strings_split_alike(shared_data, tiny_model, tiny_gguf):
    from transformers import AutoTokenizer

    naughty = json.loads((shared_data / "blns" / "blns.json").read_text(encoding="utf-8"))
    for architecture in ("qwen2", "gemma2", "mistral"):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model(architecture))
        with LlamaCpp(tiny_gguf(architecture), n_ctx=256, threads=1) as engine:
            for text in naughty:
                if "\x00" not in text:
                    assert engine.tokenize(text) == tokenizer(text)["input_ids"], (architecture, text)


def test_text_that_is_not_nfc_is_compared_as_the_tokenizer_makes_it(tiny_model):
    """Qwen's tokenizer composes letters first; llama.cpp does not. Nobody's export can change that."""
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model("qwen2"))
    plain = AutoTokenizer.from_pretrained(tiny_model("qwen2"))
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    plain.backend_tokenizer.normalizer = None
    step = tokens_step(
        "llama.cpp", tokenizer, lambda text: plain(text, add_special_tokens=False)["input_ids"]
    )
    assert (step.state, step.values) == ("ok", {"not_nfc": 2})
    assert any(text == "e\u0301 n\u0303 o\u0308" for text in texts())


def case(text="hello", ids=(1, 2, 3)):
    return Case(-1, [], text, list(ids))


@pytest.mark.parametrize(
    ("name", "found", "with_tools", "state", "kind"),
    [
        ("user", ("hello", [1, 2, 3]), False, "ok", None),
        ("user", ("hello", [2, 3]), False, "failed", "bos"),
        ("user", ("hell0", [1, 2, 4]), False, "failed", "template"),
        ("tools", ("hell0", [1, 2, 4]), False, "attention", "template"),
        ("tools", ("hell0", [1, 2, 4]), True, "failed", "template"),
    ],
)
def test_a_prompt_that_differs_is_located_and_named(name, found, with_tools, state, kind):
    step = prompts_step("x", [(name, case(), {})], lambda *_: found, with_tools)
    assert (step.state, step.kind) == (state, kind)
    if kind == "template":
        assert (step.differences[0]["at"], step.differences[0]["prompt"]) == (4, name)
    if kind:
        assert step.page == PAGES[kind] and step.cause == EXPLAINED[kind]


def test_a_score_beyond_the_confidence_interval_fails():
    reference = [True] * 90 + [False] * 10
    assert score_step("x", "accuracy", [True] * 86 + [False] * 14, reference).state == "ok"
    failed = score_step("x", "accuracy", [True] * 70 + [False] * 30, reference, "rope")
    assert (failed.state, failed.kind) == ("failed", "rope")
    assert failed.values["interval"][0] == pytest.approx(0.826, abs=1e-3)  # Wilson 1927, of 90 in 100


def test_every_cause_has_its_page():
    anchors = {f"{page.id}#{section.anchor}" for page in pages("en") for section in page.sections()}
    assert set(PAGES.values()) <= anchors
    assert set(PAGES) == set(EXPLAINED)


class Served:
    """An Ollama server that runs a GGUF file: its tags are recorded, its answers llama.cpp's, changed by `spoil`."""

    def __init__(self, engine, tokenizer, spoil=lambda text: text, count=lambda n: n, level="F32"):
        self.engine, self.tokenizer, self.spoil, self.count, self.level = (
            engine,
            tokenizer,
            spoil,
            count,
            level,
        )

    def respond(self, method, path, body):
        if path == "/api/tags":
            return Reply(200, [json.dumps({"models": [{"name": "reviews:v1"}]}).encode()])
        if path == "/api/show":
            shown = json.loads(b"".join(recorded("show").body))
            shown["details"]["quantization_level"] = self.level
            return Reply(200, [json.dumps({**shown, "system": ""}).encode()])
        if path == "/api/chat":
            options = {"tools": body.get("tools"), "enable_thinking": body.get("think")}
            text = self.spoil(self.engine.render(body["messages"], **options))
            if body.get("_debug_render_only"):
                return Reply(200, [json.dumps({"_debug_info": {"rendered_template": text}}).encode()])
            answer = self.engine.generate(self.engine.tokenize(text), body["options"]["num_predict"]).text
            end = {"done": True, "prompt_eval_count": self.count(len(self.engine.tokenize(text)))}
            return ndjson(
                {"message": {"content": answer}, "done": False}, {"message": {"content": ""}, **end}
            )
        return ollama()(method, path, body)


@pytest.mark.parametrize(
    ("spoilt", "states", "kind"),
    [
        ({}, ("ok", "ok", "ok", "ok"), None),
        ({"spoil": lambda text: text.replace("assistant\n", "assistant:\n")},
         ("failed", "failed", "failed", "ok"), "template"),
        ({"count": lambda n: n - 1}, ("ok", "failed", "ok", "ok"), "bos"),
        ({"level": "Q4_K_M", "spoil": lambda text: text}, ("ok", "ok", "ok", "ok"), None),
    ],
    ids=["equal", "template", "bos", "quantized"],
)  # fmt: skip
def test_verify_asks_ollama_too_where_it_holds_the_model(spoilt, states, kind, finished):
    from transformers import AutoTokenizer

    folder = finished(labels=True)
    export(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder.path / "export" / "merged")
    with (
        LlamaCpp(folder.path / "export" / "model.gguf", n_ctx=512, threads=1) as engine,
        serving(Served(engine, tokenizer, **spoilt).respond) as (host, _),
    ):
        assert server_with(host, "reviews:v2") is None
        made = export(folder, to="verify", host=host)
    assert made["parity"]["ready"] is True, "llama.cpp decides whether the file is sound"
    steps = steps_of(folder, "ollama")
    assert tuple(step["state"] for step in steps.values()) == states
    first = next((step for step in steps.values() if step["state"] == "failed"), None)
    assert (first and first["kind"]) == kind


def test_verify_without_ollama_asks_llama_cpp_alone(finished):
    folder = finished()
    export(folder)
    before = (folder.path / "export" / "parity.json").stat().st_mtime_ns
    export(folder, to="verify", host="http://127.0.0.1:9")
    assert (folder.path / "export" / "parity.json").stat().st_mtime_ns > before
    assert steps_of(folder, "ollama") == {}
    assert steps_of(folder)["score"]["state"] == "ok"


def test_a_live_server_is_verified(finished):
    import os

    server = Ollama(os.environ.get("OLLAMA_HOST", ""))
    if server.version() is None:
        pytest.skip("no live Ollama server answers at OLLAMA_HOST")
    folder = finished(labels=True)
    export(folder, to="ollama", name="tunesmith-verify-test")
    try:
        export(folder, to="verify", name="tunesmith-verify-test")
        assert steps_of(folder, "ollama")["prompts"]["state"] in ("ok", "skipped")
    finally:
        server.delete("tunesmith-verify-test")
