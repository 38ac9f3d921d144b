"""`data check` names every fault with its rows, its reason and its remedy, whatever the file holds."""

import json
import random
import sys
from pathlib import Path

import pytest
from written import write

from kb import pages
from trainer.config import UserError
from trainer.data import check, make
from trainer.data.findings import faults
from trainer.data.labels import likely_wrong
from trainer.data.near import groups, sketch
from trainer.data.scan import is_mojibake, mend, redact, scan


def found(path, **options):
    return {item.kind: item for item in check(path, **options).findings}


def reviews(count, seed=0):
    generator = random.Random(seed)
    words = [
        "alpha",
        "bravo",
        "castle",
        "delta",
        "ember",
        "falcon",
        "garden",
        "harbour",
        "island",
        "jungle",
        "kettle",
        "lemon",
    ]
    return [
        {
            "text": f"{number} " + " ".join(generator.choices(words, k=14)),
            "label": ("good", "bad")[number % 2],
        }
        for number in range(count)
    ]


def test_every_fault_speaks_both_languages_and_its_page_exists():
    for kind, fault in faults().items():
        for name in ("message", "fix", "why"):
            assert set(fault[name]) == {"en", "zh-TW"}, kind
        page, _, anchor = fault["page"].partition("#")
        for lang in ("en", "zh-TW"):
            path = Path(pages.__file__).parent / "pages" / f"{page}.{lang}.md"
            assert f"{{#{anchor}}}" in path.read_text(encoding="utf-8"), f"{kind}: {fault['page']}"


def test_broken_lines_are_findings_and_the_others_are_measured(tmp_path):
    lines = [json.dumps(row) for row in reviews(20)]
    raw = (
        "\n".join(lines[:10]).encode()
        + b'\n{"text": oops}\n[1]\n{"text": "a\xff", "label": "good"}\n{"text": "b\0"}\n'
    )
    raw += (
        b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"\n" + "\n".join(lines[10:]).encode() + b'\n{"text": "cut of'
    )
    measured = check(write(tmp_path / "d.jsonl", raw))
    lines_of = {item.kind: item.lines for item in measured.findings}
    expected = {
        "broken_json": [11],
        "not_object": [12],
        "bad_utf8": [13],
        "nul_byte": [14],
        "too_deep": [15],
        "truncated_line": [26],
    }
    assert expected.items() <= lines_of.items() and measured.rows == 20
    offset = raw.index(b"\xff")
    assert f"offset {offset}" in found(tmp_path / "d.jsonl")["bad_utf8"].example


def test_a_line_of_100_mb_is_named_and_not_kept(tmp_path):
    path = tmp_path / "d.jsonl"
    with path.open("wb") as file:
        file.write(
            b'{"text": "a", "label": "1"}\n{"text": "'
            + b"x" * 100_000_000
            + b'"}\n{"text": "b", "label": "2"}\n'
        )
    measured = check(path)
    assert measured.rows == 2
    assert {item.kind: item.lines for item in measured.findings}["line_too_long"] == [2]


def test_columns_and_types_that_differ_from_most_are_named(tmp_path):
    rows = [*reviews(30), {"text": "odd", "label": 5}, {"text": "other", "label": "good", "colour": "red"}]
    kinds = found(write(tmp_path / "d.jsonl", rows))
    assert kinds["mixed_schema"].lines == [32] and kinds["wrong_type"].lines == [31]


def test_turns_out_of_order_and_tools_without_results_are_named(tmp_path):
    say = lambda role, text: {"role": role, "content": text}
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "w", "arguments": {}}}]}
    rows = [
        {"messages": [say("user", "a"), say("assistant", "b")]},
        {"messages": [say("user", "a"), say("user", "b"), say("assistant", "c")]},
        {"messages": [say("user", "a"), say("system", "s"), say("user", "b"), say("assistant", "c")]},
        {"messages": [say("user", "a"), call, say("user", "and?"), say("assistant", "sunny")]},
        {"messages": [say("user", "a"), call, say("tool", "sunny"), say("assistant", "Sunny.")]},
        {"messages": [say("user", "a")]},
        {"messages": [say("user", "a"), say("assistant", "<think>hm")]},
        {"messages": [say("user", "<|im_start|>a"), say("assistant", "<think>x</think>b")]},
    ]
    kinds = found(write(tmp_path / "d.jsonl", rows))
    wanted = {
        "roles_order": [2, 3],
        "tool_no_result": [4],
        "no_answer": [6],
        "think_open": [7],
        "think_block": [8],
        "doubled_bos": [8],
    }
    assert {kind: kinds[kind].lines for kind in wanted} == wanted


def test_near_repeats_and_leaks_into_the_test_file_are_found(tmp_path):
    rows = reviews(200)
    near = {"text": rows[7]["text"] + " indeed", "label": "bad"}
    test = [
        rows[3],
        {"text": rows[9]["text"] + "!", "label": "bad"},
        *reviews(20, seed=5),
        {"text": "x", "label": "worst"},
    ]
    path, against = write(tmp_path / "d.jsonl", [*rows, near, rows[0]]), write(tmp_path / "t.jsonl", test)
    kinds = found(path, against=against)
    assert kinds["near_duplicates"].lines == [201] and kinds["duplicates"].lines == [202]
    assert {4, 10} <= set(kinds["leakage"].lines)
    assert kinds["absent_label"].example == "worst"
    assert "--against" in kinds["leakage"].command


def test_minhash_agrees_with_jaccard():
    generator = random.Random(2)
    base = ["".join(generator.choices("abcdefghij", k=300)) for _ in range(60)]
    close = [text[:290] + "zzzzz" for text in base]
    far = [text[:150] + "".join(generator.choices("klmnop", k=150)) for text in base]
    group = groups(sketch([*base, *close, *far, "", "ab"]))
    assert sum(group[60 + at] == at for at in range(60)) >= 58
    assert all(group[120 + at] == 120 + at for at in range(60))


def test_wrong_labels_are_doubted_first():
    rows = reviews(300)
    texts = [f"{row['text']} {'lovely' if row['label'] == 'good' else 'awful'}" for row in rows]
    labels = [row["label"] for row in rows]
    for at in (10, 50, 90):
        labels[at] = "bad" if labels[at] == "good" else "good"
    assert {at for at, _ in likely_wrong(texts, labels)[:3]} == {10, 50, 90}


PRIVATE = {
    "pii_email": ("write to mei.lin@example.com.tw now", "write to me at the office"),
    "pii_phone": ("電話 0912-345-678", "型號 0912345"),
    "pii_tw_id": ("身分證 A123456789", "身分證 A123456788"),
    "pii_cn_id": ("身份证 11010519491231002X", "身份证 110105194912310021"),
    "pii_card": ("card 4111 1111 1111 1111", "card 4111 1111 1111 1112"),
    "pii_address": ("台北市大安區復興南路一段390號", "第390號房間"),
    "secret": ("token hf_abcdefghijklmnopqrstuvwxyzABCDEF", "ask-me-a-question-on-this-topic"),
}


@pytest.mark.parametrize("kind", PRIVATE)
def test_personal_data_and_keys_are_found_by_their_check_digits_and_masked(kind):
    private, harmless = PRIVATE[kind]
    secret = private.split()[-1]
    assert kind in scan(private) and secret not in scan(private)[kind]
    assert kind not in scan(harmless)
    assert redact(private)[1] == [kind] and redact(harmless)[0] == harmless


def test_lengths_are_judged_against_max_length(tmp_path):
    rows = [{"prompt": "word " * n, "completion": "yes " * 3} for n in (5, 5, 60, 200)]
    kinds = found(write(tmp_path / "d.jsonl", rows), max_length=80)
    assert kinds["answer_cut"].lines == [4]
    rows[2] = {"prompt": "word " * 5, "completion": "yes " * 100}
    assert found(write(tmp_path / "d.jsonl", rows), max_length=80)["over_max_length"].lines == [3]


def test_a_given_tokenizer_counts(tmp_path, tiny_base):
    from tokenizers import Tokenizer

    path = write(tmp_path / "d.jsonl", [{"text": "the room was good"}])
    exact = len(Tokenizer.from_file(str(tiny_base / "tokenizer.json")).encode("the room was good").ids)
    assert check(path, tokenizer=str(tiny_base)).tokens.max == exact
    with pytest.raises(UserError, match="not a readable tokenizer"):
        check(path, tokenizer=str(tmp_path))


def test_answers_that_are_almost_json_are_counted(tmp_path):
    rows = [{"prompt": f"q {n}", "completion": json.dumps({"a": n})} for n in range(9)]
    rows.append({"prompt": "last", "completion": '{"a": '})
    assert found(write(tmp_path / "d.jsonl", rows))["invalid_json"].lines == [10]


def test_scripts_and_spellings_that_mix_are_told(tmp_path):
    rows = [
        {"text": f"這間飯店第{n}間房間很乾淨，服務親切", "label": "正面" if n % 2 else "負面"}
        for n in range(40)
    ]
    rows += [
        {"text": "这间饭店的服务态度不错", "label": "正面"},
        {"text": "房间设备旧", "label": "Good"},
        {"text": "x", "label": "good"},
    ]
    kinds = found(write(tmp_path / "d.jsonl", rows))
    assert kinds["mixed_script"].lines == [41, 42] and kinds["label_spelling"].rows == 2
    assert "--script traditional" in kinds["mixed_script"].command


def test_two_processes_measure_the_same(tmp_path, monkeypatch):
    path = write(tmp_path / "d.jsonl", reviews(400))
    alone = check(path)
    monkeypatch.setattr(sys.modules["trainer.data.check"], "LARGE", 0)
    monkeypatch.setattr("trainer.data.lines.BLOCK", 8_000)
    assert check(path) == alone


# public data


def test_oasst_shows_its_244_repeated_rows(shared_data):
    kinds = found(shared_data / "oasst_zh" / "oaast_sft_zh.json")
    assert kinds["repeated_input"].rows == 244 and kinds["duplicates"].rows == 5


def test_broken_encodings_of_the_wild_are_found_and_mended(shared_data):
    for name, least in (("in-the-wild", 60), ("synthetic", 15), ("negative", 0)):
        path = shared_data / "ftfy_mojibake" / f"{name}.json"
        rows = json.loads(path.read_text(encoding="utf-8"))
        bad = [row["original"] for row in rows if is_mojibake(row["original"])]
        assert len(bad) >= least and all(not is_mojibake(mend(text)) for text in bad[:20])
        assert name == "negative" or "mojibake" in found(path)


def test_naughty_strings_give_named_findings(shared_data, tmp_path):
    assert {"empty_text", "mojibake", "duplicates"} <= set(found(shared_data / "blns" / "blns.json"))
    texts = json.loads((shared_data / "blns" / "blns.json").read_text(encoding="utf-8"))
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}
        for text in texts
    ]
    measured = check(write(tmp_path / "d.jsonl", rows))
    assert (
        measured.read_rows == 515
        and measured.rows + next(f.rows for f in measured.findings if f.kind == "no_answer") <= 515
    )


def test_known_leak_of_chnsenticorp_is_found(shared_data):
    folder = shared_data / "chnsenticorp"
    leaked = found(folder / "dev.tsv", against=folder / "train.tsv")["leakage"]
    assert 300 < leaked.rows < 400  # its page says 28 % of 1,200


# what a person gives


def test_a_benchmark_in_the_data_is_found_and_dropped(shared_data, tmp_path):
    gsm = shared_data / "gsm8k" / "grade_school_math__data__train.jsonl"
    with gsm.open(encoding="utf-8") as file:
        questions = [json.loads(next(file))["question"] for _ in range(300)]
    chats = [{"prompt": f"question {n} about nothing in particular", "completion": "none"} for n in range(20)]
    chats.append({"prompt": "Please help me with this. " + questions[7].upper(), "completion": "I will."})
    path = write(tmp_path / "d.jsonl", chats)
    found_one = found(path, benchmarks=[gsm])["benchmark_overlap"]
    assert (
        found_one.lines == [21] and gsm.name in found_one.example and "1 rows hold" in found_one.message["en"]
    )
    assert found_one.command.endswith(f"--kind benchmark_overlap --benchmark {gsm}")
    make("drop", path, tmp_path / "o.jsonl", {"kinds": ["benchmark_overlap"], "benchmarks": [str(gsm)]})
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 20
    short = write(tmp_path / "b.jsonl", [{"text": "Question 3 about nothing in particular", "label": "x"}])
    assert found(path, benchmarks=[short])["benchmark_overlap"].lines == [4]


def test_answers_are_judged_by_a_schema(tmp_path):
    schema = write(
        tmp_path / "s.json",
        json.dumps({"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}),
    )
    answers = ['{"a": 1}', '{"a": "one"}', "{}", "none", '{"a": 2}']
    path = write(
        tmp_path / "d.jsonl", [{"prompt": f"q{n}", "completion": text} for n, text in enumerate(answers)]
    )
    fault = found(path, schema=str(schema))["schema_mismatch"]
    assert (
        fault.lines == [2, 3, 4]
        and "3 of 5 answers" in fault.message["en"]
        and "40.0 %" in fault.message["en"]
    )
    with pytest.raises(UserError, match="no JSON schema"):
        check(path, schema=str(write(tmp_path / "bad.json", '{"type": "whole"}')))


def test_rows_that_a_template_refuses_are_named(tmp_path):
    source = "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}{{ messages[0]['content'] }}"
    folder = tmp_path / "model"
    folder.mkdir()
    write(
        folder / "tokenizer_config.json",
        json.dumps({"chat_template": source, "bos_token": {"content": "<s>"}}),
    )
    say = lambda role, text: {"role": role, "content": text}
    rows = [[say("user", "a")], [say("system", "b"), say("user", "c")], [say("user", "<s>d")]]
    path = write(tmp_path / "d.jsonl", [{"messages": [*turns, say("assistant", "yes")]} for turns in rows])
    kinds = found(path, template=str(folder))
    assert kinds["template_fails"].lines == [2] and "no system turns" in kinds["template_fails"].example
    assert kinds["template_bos"].lines == [3]
    endless = write(
        tmp_path / "e.jinja", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.data.template.Renderer.__init__.__defaults__", (1,), raising=False)
        assert found(path, template=str(endless))["template_slow"].lines == [1]


def test_insults_are_counted_in_both_scripts_and_everyday_words_are_not(tmp_path):
    bad = [
        "what an asshole",
        "你這個王八蛋",
        "真是狗屁不通",
        "you son of a bitch",
        "go to the circle jerk, dumbass",
    ]
    good = [
        "the cock crows; sex and age of the patient",
        "成人教育與處女作，老母雞的屁股",
        "水乳交融，他妈妈的菜",
        "class assignment in Scunthorpe",
    ]
    rows = [{"text": f"{text} {n}", "label": "ab"[n % 2]} for n, text in enumerate(bad + good)]
    assert found(write(tmp_path / "d.jsonl", rows))["unsafe_text"].lines == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "content", "kind", "said"),
    [
        ("LICENSE", "MIT License\n\nCopyright", None, "mit"),
        ("LICENSE.txt", "Attribution-NonCommercial 4.0 International", "licence_restricted", "cc-by-nc-4.0"),
        ("README.md", "---\nlicense: cc-by-nc-sa-4.0\n---\n", "licence_restricted", "cc-by-nc-sa-4.0"),
        ("README.md", "---\nlicense: [apache-2.0]\n---\n", None, "apache-2.0"),
        ("notes.md", "none", "licence_unknown", ""),
    ],
)
def test_the_licence_of_the_source_is_found_where_it_stands(tmp_path, name, content, kind, said):
    write(tmp_path / name, content)
    measured = check(write(tmp_path / "d.jsonl", reviews(20)))
    assert measured.licence == said
    assert [item.kind for item in measured.findings if item.kind.startswith("licence")] == (
        [kind] if kind else []
    )


def test_every_finding_with_a_line_shows_a_case_with_nothing_private_in_it(tmp_path):
    rows = [
        *reviews(30),
        {"text": "call 0912-345-678", "label": "good"},
        {"text": "call 0912-345-678", "label": "bad"},
    ]
    rows += [rows[0], {"text": "", "label": "good"}]
    kinds = found(write(tmp_path / "d.jsonl", rows))
    assert all(item.example for item in kinds.values() if item.lines)
    assert (
        "[PHONE]" in kinds["label_conflict"].example and rows[0]["text"][:20] in kinds["duplicates"].example
    )
