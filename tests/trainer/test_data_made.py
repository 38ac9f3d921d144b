"""Balance, relabel, sample, merge, split by time and with a frozen test, drop, render: counted and repeatable."""

import random
from collections import Counter
from itertools import product

import numpy as np
import pytest
from written import lines_of, write

from trainer.config import UserError
from trainer.data import make, rebuild, split_file
from trainer.data.packing import count_packs, packing
from trainer.data.template import Renderer, Template, TooSlow, load_template


def words(number):
    """Text that is near no other."""
    return " ".join(
        random.Random(number).choices(["".join(pair) for pair in product("bcdfg", "aeiou")], k=20)
    )


@pytest.fixture
def uneven(tmp_path):
    """40 rows of a, 12 of b, 4 of c."""
    labels = ["a"] * 40 + ["b"] * 12 + ["c"] * 4
    rows = [
        {"text": f"row {n} of {label} {words(n)}", "label": label, "day": f"2026-{1 + n % 12:02d}-01"}
        for n, label in enumerate(labels)
    ]
    return write(tmp_path / "in" / "uneven.jsonl", rows)


BALANCED = [
    ({"ratio": 1}, {"a": 40, "b": 40, "c": 40}),
    ({"ratio": 5}, {"a": 40, "b": 12, "c": 8}),
    ({"cap": 10}, {"a": 10, "b": 10, "c": 4}),
    ({"cap": 10, "ratio": 1}, {"a": 10, "b": 10, "c": 10}),
    ({"weights": {"a": 0.5, "c": 3}}, {"a": 20, "b": 12, "c": 12}),
]


@pytest.mark.parametrize(("options", "sizes"), BALANCED)
def test_classes_are_balanced_as_asked_and_rebuilt(uneven, tmp_path, options, sizes):
    out = tmp_path / "out" / "b.jsonl"
    report = make("balance", uneven, out, {"seed": 1, **options})
    rows = lines_of(out)
    assert (
        Counter(row["label"] for row in rows) == sizes and f"{sum(sizes.values())} rows, of 56 read" in report
    )
    repeats = Counter(row["text"] for row in rows)
    for label in "abc":  # no row is repeated twice before every other of its class is once
        times = [repeats[row["text"]] for row in lines_of(uneven) if row["label"] == label]
        assert max(times) - min(times) <= 1
    before = out.read_bytes()
    out.unlink()
    rebuild(out.parent)
    assert out.read_bytes() == before
    other = make("balance", uneven, out.with_name("other.jsonl"), {"seed": 2, **options})
    assert "56 read" in other


def test_what_has_no_classes_is_balanced_by_a_column_only(tmp_path):
    rows = [
        {
            "prompt": f"q {n}",
            "completion": f"a long and quite particular answer {n}",
            "team": "xy"[n % 5 == 0],
        }
        for n in range(40)
    ]
    path = write(tmp_path / "d.jsonl", rows)
    with pytest.raises(UserError, match=r"answers are no labels.*--by"):
        make("balance", path, tmp_path / "b.jsonl", {"seed": 1, "ratio": 1})
    make("balance", path, tmp_path / "b.jsonl", {"seed": 1, "ratio": 1, "by": "team"})
    assert Counter(row["team"] for row in lines_of(tmp_path / "b.jsonl")) == {"x": 32, "y": 32}


def test_labels_are_renamed_joined_and_left_out(uneven, tmp_path):
    out = tmp_path / "r.jsonl"
    report = make("relabel", uneven, out, {"map": {"a": "big", "b": "big", "c": ""}}, lang="zh-TW")
    assert Counter(row["label"] for row in lines_of(out)) == {"big": 52} and "4 筆的標籤對應到空白" in report
    with pytest.raises(UserError, match="no label 'z'; the labels are a, b, c"):
        make("relabel", uneven, out, {"map": {"z": "a"}})


def test_a_sample_keeps_the_order_and_each_labels_share(uneven, tmp_path):
    out = tmp_path / "s.jsonl"
    make("sample", uneven, out, {"rows": 14, "stratify": True, "seed": 3})
    rows = lines_of(out)
    assert Counter(row["label"] for row in rows) == {"a": 10, "b": 3, "c": 1}
    assert [row["text"] for row in rows] == sorted(
        (row["text"] for row in rows), key=lambda text: int(text.split()[1])
    )


def test_merged_rows_say_where_they_are_from_and_weights_hold(uneven, tmp_path):
    chats = [
        {"messages": [{"role": "user", "content": f"hi {n}"}, {"role": "assistant", "content": "yes"}]}
        for n in range(10)
    ]
    other = write(tmp_path / "in" / "chats.jsonl", chats)
    out = tmp_path / "out" / "m.jsonl"
    make("merge", uneven, out, {"sources": [str(other)], "weights": [0.5, 2], "seed": 1})
    rows = lines_of(out)
    assert Counter(row["source_file"] for row in rows) == {"uneven.jsonl": 28, "chats.jsonl": 20}
    assert all("prompt" in row for row in rows)
    before = out.read_bytes()
    rebuild(out.parent)
    assert out.read_bytes() == before
    write(other, chats[:-1])
    with pytest.raises(UserError, match=r"chats.jsonl: is not the file that merge was run on"):
        rebuild(out.parent)
    pairs = write(tmp_path / "p.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b"}])
    with pytest.raises(UserError, match=r"is preference and .* merge files of one kind"):
        make("merge", uneven, out, {"sources": [str(pairs)], "seed": 1})


def test_the_newest_rows_are_the_test_and_a_bad_date_is_named(uneven, tmp_path):
    split_file(uneven, tmp_path / "parts", 0.2, 0.1, 1, time="day")
    day = {row["text"]: row["day"] for row in lines_of(uneven)}
    days = {
        name: [day[row["prompt"][0]["content"]] for row in lines_of(tmp_path / "parts" / f"{name}.jsonl")]
        for name in ("train", "eval", "test")
    }
    assert max(days["train"]) < min(days["eval"]) and max(days["eval"]) < min(days["test"])
    assert sum(map(len, days.values())) == 56
    path = write(tmp_path / "bad.jsonl", [{"text": "x", "label": "a", "day": "next week"}])
    with pytest.raises(UserError, match="column 'day' holds \"next week\", which is no time"):
        split_file(path, tmp_path / "bad", 0.2, 0.1, 1, time="day")


def test_a_frozen_test_is_kept_to_the_byte_and_never_trained_on(uneven, tmp_path):
    split_file(uneven, tmp_path / "v1", 0.2, 0.1, 1)
    frozen = tmp_path / "v1" / "test.jsonl"
    held = [row["prompt"][0]["content"] for row in lines_of(frozen)]
    newer = [
        *lines_of(uneven),
        *({"text": f"quite new {n} {words(100 + n)}", "label": "b"} for n in range(20)),
    ]
    newer.append({"text": held[0] + " !", "label": "a"})  # nearly a row of the test
    second = write(tmp_path / "in" / "v2.jsonl", newer)
    report = split_file(second, tmp_path / "v2", 0.2, 0.1, 7, frozen=frozen)
    assert (tmp_path / "v2" / "test.jsonl").read_bytes() == frozen.read_bytes()
    trained = {
        row["prompt"][0]["content"]
        for name in ("train", "eval")
        for row in lines_of(tmp_path / "v2" / f"{name}.jsonl")
    }
    assert not trained & set(held) and held[0] + " !" not in trained and len(trained) == 77 - len(held) - 1
    assert f"{len(held) + 1} rows that stand, or nearly stand, in the frozen test were left out" in report
    rebuild(tmp_path / "v2")
    with pytest.raises(UserError, match="would be overwritten"):
        split_file(second, tmp_path / "v1", 0.2, 0.1, 7, frozen=frozen)
    assert "scores of the two cannot be compared" in split_file(second, tmp_path / "v1", 0.2, 0.1, 7)


def test_synthetic_rows_are_never_tested_on_and_a_column_can_be_stratified(tmp_path):
    rows = [
        {"text": f"row number {n}", "label": "ab"[n % 2], "synthetic": n % 4 == 0, "site": "pq"[n % 5 == 1]}
        for n in range(100)
    ]
    path = write(tmp_path / "d.jsonl", rows)
    split_file(path, tmp_path / "parts", 0.2, 0.2, 1, stratify="site")
    parts = {name: lines_of(tmp_path / "parts" / f"{name}.jsonl") for name in ("train", "eval", "test")}
    assert [sum(row["synthetic"] for row in parts[name]) for name in parts] == [25, 0, 0]
    site = {row["text"]: row["site"] for row in rows}
    assert Counter(site[row["prompt"][0]["content"]] for row in parts["test"]) == {"p": 12, "q": 3}


def test_one_question_of_two_groups_is_in_one_part(tmp_path):
    rows = [{"text": f"question {n // 2}", "label": "ab"[n % 2], "guest": n} for n in range(60)]
    split_file(write(tmp_path / "d.jsonl", rows), tmp_path / "parts", 0.2, 0.2, 1, group="guest")
    asked = [
        {row["prompt"][0]["content"] for row in lines_of(tmp_path / "parts" / f"{name}.jsonl")}
        for name in ("train", "eval", "test")
    ]
    assert sum(map(len, asked)) == len(set.union(*asked)) == 30


def test_rows_with_a_finding_are_dropped_and_others_kept(tmp_path):
    say = lambda role, text: {"role": role, "content": text}
    rows = [
        {"messages": [say("user", f"question {n}"), say("assistant", f"a fine answer {n}")]}
        for n in range(120)
    ]
    rows[7]["messages"].insert(0, say("user", "twice"))
    rows[30]["messages"][1]["content"] = "you are a dumbass"
    rows[60]["messages"][1]["content"] = "long " * 3000
    rows[90]["colour"] = "red"
    path = write(tmp_path / "d.jsonl", rows)
    kinds = ["roles_order", "unsafe_text", "length_outlier", "mixed_schema"]
    make("drop", path, tmp_path / "o.jsonl", {"kinds": kinds})
    assert lines_of(tmp_path / "o.jsonl") == [row for n, row in enumerate(rows) if n not in (7, 30, 60, 90)]
    with pytest.raises(UserError, match="--kind nul_byte: rows cannot be left out by it"):
        make("drop", path, tmp_path / "o.jsonl", {"kinds": ["nul_byte"]})


# templates


def test_a_template_renders_as_transformers_does(tiny_base, review_file):
    from transformers import AutoTokenizer

    from trainer.data import preview

    rows = preview(review_file, 5)
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    with Renderer(load_template(str(tiny_base))) as render:
        texts = [one.texts[0] for one in render(rows)]
    assert texts == [
        tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in rows
    ]


HOSTILE = {
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "memory": "{% set x = 'a' * 1000 %}{{ (x * 1000000) * 100 }}",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_template_without_end_is_stopped(kind):
    row = {
        "prompt": [{"role": "user", "content": "hi"}],
        "completion": [{"role": "assistant", "content": "yes"}],
    }
    with Renderer(Template(HOSTILE[kind]), seconds=1) as render, pytest.raises(TooSlow):
        render([row])


def test_a_template_cannot_reach_outside_and_its_faults_are_told():
    row = {
        "prompt": [{"role": "user", "content": "hi"}],
        "completion": [{"role": "assistant", "content": "yes"}],
    }
    with Renderer(Template("{{ ''.__class__.__mro__[1].__subclasses__() }}")) as render:
        assert "SecurityError" in render([row])[0].fault
    with pytest.raises(UserError, match="chat template: line 1"):
        Renderer(Template("{% for x in %}"))
    with pytest.raises(UserError, match="no chat template there"):
        load_template("/no/such/folder")


# packs


def test_packs_are_counted_as_trl_makes_them(tmp_path):
    from datasets import Dataset
    from trl import pack_dataset

    lengths = np.minimum(np.random.default_rng(0).lognormal(4, 1, 1500).astype(int) + 1, 256)
    made = pack_dataset(Dataset.from_dict({"input_ids": [[1] * int(size) for size in lengths]}), 256, "bfd")
    assert count_packs(lengths, 256) == len(made)
    path = write(tmp_path / "d.jsonl", [{"prompt": "word " * n, "completion": "yes"} for n in range(1, 200)])
    found = packing(path, 64)
    assert 0.5 < found.full <= 1 and found.long_rows > 100 and found.unpacked_full < 1
