"""Files in, rows out: every format, every fault named, no row lost without a count."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from trainer.config import UserError
from trainer.data import convert_file, load_rows, preview, profile, split, split_file
from trainer.data.language import language_of, token_estimate
from trainer.data.splits import key
from trainer.data.stage import freeze, label_set, stage, thaw


def write(path: Path, content) -> Path:
    """A file of raw bytes, of text, or of JSON lines."""
    if isinstance(content, list):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def rows_of(tmp_path, config_of):
    """Rows that a method gets from a file's content."""

    def make(content, name="data.jsonl", **changes):
        return load_rows(write(tmp_path / name, content), config_of(**changes))

    return make


def said(messages):
    return [(message["role"], message["content"]) for message in messages]


QUESTION = [("user", "Is it good?")]
ANSWER = [("assistant", "Yes.")]

TURNS = {
    "alpaca": ("d.jsonl", [{"instruction": "Is it", "input": "good?", "output": "Yes."}], [("user", "Is it\ngood?")]),
    "sharegpt human/gpt": (
        "d.jsonl",
        [{"conversations": [{"from": "human", "value": "Is it good?"}, {"from": "gpt", "value": "Yes."}]}],
        QUESTION,
    ),
    "sharegpt user/assistant": (
        "d.json",
        json.dumps([{"conversations": [{"from": "user", "value": "Is it good?"}, {"from": "assistant", "value": "Yes."}]}]),
        QUESTION,
    ),
    "conversations role/content": (
        "d.jsonl",
        [{"conversations": [{"role": "user", "content": "Is it good?"}, {"role": "assistant", "content": "Yes."}]}],
        QUESTION,
    ),
    "messages": (
        "d.jsonl",
        [{"messages": [{"role": "user", "content": "Is it good?"}, {"role": "assistant", "content": "Yes."}]}],
        QUESTION,
    ),
    "messages of parts": (
        "d.jsonl",
        [
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "Is it "}, {"type": "text", "value": "good?"}]},
                    {"role": "assistant", "content": [{"type": "text", "value": "Yes."}]},
                ]
            }
        ],
        QUESTION,
    ),
    "prompt-completion": ("d.jsonl", [{"prompt": "Is it good?", "completion": "Yes."}], QUESTION),
    "prompt-completion of messages": (
        "d.jsonl",
        [{"prompt": [{"role": "user", "content": "Is it good?"}], "completion": {"role": "assistant", "content": "Yes."}}],
        QUESTION,
    ),
    "csv": ("d.csv", 'text,label\n"Is it good?",Yes.\n', QUESTION),
    "csv with semicolons": ("d.csv", "text;label\nIs it good?;Yes.\n", QUESTION),
    "tsv": ("d.tsv", "label\ttext_a\nYes.\tIs it good?\n", QUESTION),
    "two texts": ("d.csv", "sentence1,sentence2,label\nIs it,good?,Yes.\n", [("user", "Is it\ngood?")]),
    "Chinese columns": ("d.csv", "評論,類別\nIs it good?,Yes.\n", QUESTION),
    "question and answer": ("d.jsonl", [{"question": "Is it good?", "answer": "Yes."}], QUESTION),
    "one JSON object a line in .json": ("d.json", '{"text": "Is it good?", "label": "Yes."}\n{"text": "b", "label": "c"}', QUESTION),
    "byte order mark": ("d.csv", b"\xef\xbb\xbftext,label\nIs it good?,Yes.\n", QUESTION),
    "Windows line ends": ("d.tsv", "text\tlabel\r\nIs it good?\tYes.\r\n", QUESTION),
}  # fmt: skip


@pytest.mark.parametrize("name", TURNS)
def test_every_format_becomes_prompt_and_completion(rows_of, name):
    file, content, question = TURNS[name]
    row = rows_of(content, file)[0]
    assert said(row["prompt"]) == question
    assert said(row["completion"]) == ANSWER


def test_labels_stay_as_they_are_given(rows_of):
    rows = rows_of(
        [
            {"text": "a", "label": 1},
            {"text": "b", "label": "positive "},
            {"text": "c", "label": False},
            {"text": "d", "label": 2.50},
        ]
    )
    assert [row["completion"][0]["content"] for row in rows] == ["1", "positive", "false", "2.5"]


def test_quotes_mean_nothing_in_a_plain_tsv_and_quoted_cells_are_read_in_a_quoted_one(rows_of):
    plain = rows_of('label\ttext_a\n1\tA 15" screen\n0\t"quoted" and not\n', "plain.tsv")
    assert [row["prompt"][0]["content"] for row in plain] == ['A 15" screen', '"quoted" and not']
    quoted = rows_of('label\ttext\n1\t"a tab\there and ""quotes"""\n0\tb\n', "quoted.tsv")
    assert quoted[0]["prompt"][0]["content"] == 'a tab\there and "quotes"'


def test_a_long_conversation_trains_the_last_answer_and_drops_what_follows(rows_of):
    turns = [("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d"), ("human", "e")]
    row = rows_of([{"system": "s", "conversations": [{"from": r, "value": v} for r, v in turns]}])[0]
    assert said(row["prompt"]) == [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    assert said(row["completion"]) == [("assistant", "d")]


def test_alpaca_history_becomes_earlier_turns(rows_of):
    row = rows_of([{"instruction": "c", "output": "d", "history": [["a", "b"]]}])[0]
    assert said(row["prompt"]) == [("user", "a"), ("assistant", "b"), ("user", "c")]


def test_tool_calls_keep_their_text_and_tools(rows_of):
    conversation = [
        ("human", "weather?"),
        ("function_call", '{"name": "w"}'),
        ("observation", "sunny"),
        ("gpt", "Sunny."),
    ]
    row = rows_of(
        [{"tools": '[{"name": "w"}]', "conversations": [{"from": r, "value": v} for r, v in conversation]}]
    )[0]
    assert said(row["prompt"])[1:] == [
        ("assistant", '<tool_call>\n{"name": "w"}\n</tool_call>'),
        ("tool", "sunny"),
    ]
    assert row["tools"] == '[{"name": "w"}]'


PAIRS = {
    "plain": {"prompt": "Is it good?", "chosen": "Yes.", "rejected": "No."},
    "LLaMA-Factory": {
        "conversations": [{"from": "human", "value": "Is it good?"}],
        "chosen": {"from": "gpt", "value": "Yes."},
        "rejected": {"from": "gpt", "value": "No."},
    },
    "whole conversations without a prompt": {
        "chosen": [{"role": "user", "content": "Is it good?"}, {"role": "assistant", "content": "Yes."}],
        "rejected": [{"role": "user", "content": "Is it good?"}, {"role": "assistant", "content": "No."}],
    },
    "ranked answers": {"instruction": "Is it good?", "input": "", "output": ["Yes.", "No."]},
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_become_prompt_chosen_and_rejected(rows_of, name):
    row = rows_of([PAIRS[name]], method="dpo")[0]
    assert (said(row["prompt"]), said(row["chosen"])) == (QUESTION, ANSWER)
    assert said(row["rejected"]) == [("assistant", "No.")]


def test_thumbs_come_from_kto_rows_and_from_pairs(rows_of):
    talk = [{"role": "user", "content": "Is it good?"}, {"role": "assistant", "content": "Yes."}]
    rows = rows_of([{"messages": talk, "label": True}, {"messages": talk, "label": False}], method="kto")
    assert [row["label"] for row in rows] == [True, False]
    assert said(rows[0]["completion"]) == ANSWER
    split_pair = rows_of([PAIRS["plain"]], method="kto")
    assert [(said(row["completion"]), row["label"]) for row in split_pair] == [
        (ANSWER, True),
        ([("assistant", "No.")], False),
    ]


def test_raw_text_is_cut_into_documents(rows_of):
    paragraphs = rows_of("one\ntwo\n\nthree\n", "d.txt", method="cpt")
    assert [row["text"] for row in paragraphs] == ["one\ntwo", "three"]
    lines = rows_of("one\ntwo\n", "e.txt", method="cpt")
    assert [row["text"] for row in lines] == ["one", "two"]


def test_system_prompt_and_instruction_stand_before_the_text(rows_of):
    row = rows_of([{"text": "good", "label": "1"}], system_prompt="Be short.", instruction="Classify:")[0]
    assert said(row["prompt"]) == [("system", "Be short."), ("user", "Classify:\ngood")]
    own = rows_of(
        [
            {
                "messages": [
                    {"role": "system", "content": "own"},
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                ]
            }
        ],
        system_prompt="Be short.",
    )[0]
    assert said(own["prompt"]) == [("system", "Be short.\n\nown"), ("user", "a")]


# bad input: name: (content, file name, what the one line must hold)
BAD = {
    "empty file": (b"", "d.jsonl", r"d\.jsonl:1: the file is empty"),
    "only spaces": (b" \n\n", "d.csv", r"d\.csv:1: the file is empty"),
    "header alone": ("text,label\n", "d.csv", r"d\.csv:1: .*no rows"),
    "broken line": (
        '{"text": "a", "label": "b"}\n{"text": oops}\n',
        "d.jsonl",
        r"d\.jsonl:2:10: not valid JSON",
    ),
    "two broken lines": ('{"a"\n{"b"\n', "d.jsonl", r"d\.jsonl:1:.*and 1 more"),
    "truncated last line": ('{"text": "a", "label": "b"}\n{"text": "a", "lab', "d.jsonl", r"d\.jsonl:2:15"),
    "a list a line": ("[1, 2]\n", "d.jsonl", r"d\.jsonl:1: expected an object"),
    "broken JSON": ('[{"a": 1},\n {"a": }]', "d.json", r"d\.json:2:8: not valid JSON"),
    "an object": ('{"a": 1}', "d.json", r"d\.json:1: expected a list of rows"),
    "a number": ("5", "d.json", r"d\.json:1: expected a list of rows, found a number"),
    "deep nesting": ("[" * 5000 + "]" * 5000, "d.json", r"d\.json:1: nested too deeply"),
    "deep nesting in a line": (
        '{"a":' * 5000 + "1" + "}" * 5000,
        "d.jsonl",
        r"d\.jsonl:1: nested too deeply",
    ),
    "invalid UTF-8": (
        b"text,label\nok,1\nb\xff,2\n",
        "d.csv",
        r"d\.csv:3: invalid UTF-8 \(byte 0xff at offset 17\)",
    ),
    "UTF-16": (
        "text,label\na,b\n".encode("utf-16"),
        "d.csv",
        r"d\.csv:1: the file is UTF-16; save it as UTF-8",
    ),
    "UTF-16 without a mark": (
        "text,label\n".encode("utf-16-le"),
        "d.csv",
        r"d\.csv:1: a NUL byte at offset 1",
    ),
    "NUL": (b"text,label\na\0b,1\n", "d.csv", r"d\.csv:2: a NUL byte at offset 12"),
    "raw NUL in JSON": (
        b'{"text": "a\0b", "label": "1"}\n',
        "d.jsonl",
        r"d\.jsonl:1: a NUL byte at offset 11",
    ),
    "unknown columns": (
        "colour,size\nred,1\n",
        "d.csv",
        r"d\.csv:2: unknown columns 'colour', 'size'; rename",
    ),
    "no label in any row": (
        [{"text": "a", "label": ""}],
        "d.jsonl",
        r"d\.jsonl:1: no row can be used \(no label\)",
    ),
    "unclosed quote": ('text,label\n"a,1\n', "d.csv", r"d\.csv:2: not a readable table"),
    "repeated column": ("text,text\na,b\n", "d.csv", r"d\.csv:1: the header"),
    "unknown kind": (b"a", "d.xyz", r"d\.xyz: unknown kind of file '\.xyz'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_with_the_place(tmp_path, name):
    content, file, expected = BAD[name]
    with pytest.raises(UserError, match=expected) as caught:
        profile(write(tmp_path / file, content))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        profile(tmp_path / "gone.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError, match=r"folder\.csv: cannot be read"):
        profile(tmp_path / "folder.csv")


def kinds(path):
    return {finding.kind: finding.rows for finding in profile(path).findings}


def test_what_can_be_mended_is_counted_and_the_rest_goes_in(tmp_path):
    lines = [
        '{"text": "a", "text": "b", "label": "1"}',
        '{"text": "c", "label": NaN}',
        '{"text": "d", "label": ' + "7" * 5000 + "}",
        '{"text": "e\\u0000", "label": "1"}',
        '{"text": "f\\ud800", "label": "2"}',
        '{"text": "", "label": "2"}',
        '{"text": "\\ud83d\\ude00", "label": "2"}',
    ]
    path = write(tmp_path / "d.jsonl", "\n".join(lines))
    found = kinds(path)
    expected = {
        "duplicate_key": 1,
        "nan": 1,
        "no_label": 1,
        "nul_removed": 1,
        "surrogate_replaced": 1,
        "empty_text": 1,
    }
    assert expected.items() <= found.items()
    assert profile(path).rows == 5 and profile(path).read_rows == 7
    assert [row["prompt"][0]["content"] for row in preview(path, 5)] == ["b", "d", "e", "f�", "😀"]


def test_no_row_is_lost_without_a_count(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "wizard", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"messages": ["a"]},
        {"messages": None},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "url": "x"}]},
                {"role": "assistant", "content": "b"},
            ]
        },
    ]
    path = write(tmp_path / "d.jsonl", rows)
    measured = profile(path)
    left_out = {
        f.kind: f.rows for f in measured.findings if f.kind not in ("empty_turn", "turns_after_answer")
    }
    assert measured.rows == 1 and sum(left_out.values()) == 6
    assert left_out == {"no_answer": 2, "empty_text": 1, "unknown_role": 1, "broken_turn": 1, "not_text": 1}


COLUMNS = [
    "messages",
    "conversations",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "label",
    "text",
    "instruction",
    "input",
    "output",
    "history",
    "system",
    "tools",
    "question",
    "answer",
    "chosen_messages",
    "rejected_messages",
    "category",
    "text_b",
]
KEYS = ["role", "content", "from", "value", "type", "text", "function", "tool_calls", "label"]


def odd_value(random, depth=0):
    """Any JSON value, with keys that mean something here."""
    kind = random.randrange(8)
    if kind < 4 or depth > 3:
        return random.choice(
            [None, True, 0, 1.5, 10**40, "", "user", "assistant", "\ud800", "a\0b", "長い \u202e文"]
        )
    if kind < 6:
        return [odd_value(random, depth + 1) for _ in range(random.randrange(4))]
    return {random.choice(KEYS): odd_value(random, depth + 1) for _ in range(random.randrange(4))}


@pytest.mark.parametrize("seed", range(4))
def test_no_mixture_of_types_ends_in_a_traceback(tmp_path, seed):
    random = Random(seed)
    for _ in range(100):
        columns = random.sample(COLUMNS, random.randrange(1, 6))
        rows = [{column: odd_value(random) for column in columns} for _ in range(3)]
        path = tmp_path / "d.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        try:
            assert profile(path).rows > 0
        except UserError as error:
            assert "\n" not in str(error)


def test_findings_speak_both_languages_and_name_lines(tmp_path):
    path = write(
        tmp_path / "d.jsonl",
        [{"text": "a", "label": "1"}, {"text": "", "label": "1"}, {"text": "b", "label": "2"}],
    )
    found = next(f for f in profile(path).findings if f.kind == "empty_text")
    assert found.lines == [2]
    assert "1 row" in found.message["en"] and "1 筆" in found.message["zh-TW"]
    assert set(found.fix) == {"en", "zh-TW"}


def test_profile_counts_labels_repeats_conflicts_and_lengths(tmp_path):
    rows = [
        {"text": f"this is the text {i}", "label": "yes" if i % 4 else "no", "source": "x"} for i in range(40)
    ]
    rows += [{"text": "This is  the TEXT 1", "label": "yes"}, {"text": "this is the text 2", "label": "no"}]
    measured = profile(write(tmp_path / "d.jsonl", rows))
    assert measured.labels == {"yes": 31, "no": 11}
    assert (measured.format, measured.task, measured.language) == ("text+label", "classification", "en")
    assert (measured.text_column, measured.label_column) == ("text", "label")
    assert measured.duplicates == 1 and measured.conflicts == 2
    assert measured.tokens.p50 <= measured.tokens.p95 <= measured.tokens.max
    assert {"duplicates", "label_conflict", "unused_column"} <= kinds(tmp_path / "d.jsonl").keys()


def test_one_label_stops_training(tmp_path):
    path = write(tmp_path / "d.csv", "text,label\n" + "".join(f"t{i},same\n" for i in range(5)))
    assert [f.severity for f in profile(path).findings if f.kind == "one_label"] == ["error"]


def test_languages_and_scripts_are_told_apart():
    assert language_of(["這間酒店環境和服務態度亦算不錯，但房間空間太小"]) == ("zh-TW", "traditional")
    assert language_of(["这间酒店环境和服务态度亦算不错，但房间空间太小"]) == ("zh-CN", "simplified")
    assert language_of(["這間酒店環境不錯", "这间酒店环境不错"]) == ("zh", "mixed")
    assert language_of(["The room was good and the food was not what I would have liked."]) == ("en", "latin")
    assert language_of(["Das Zimmer war sauber und ruhig, aber leider sehr klein"]) == ("other", "latin")
    assert language_of(["部屋はとても静かでした"])[0] == "ja"
    assert language_of(["12345 !!"]) == ("other", "other")


def test_token_estimate_is_near_what_qwens_tokenizer_counts():
    """Counts of the real tokenizer (151,643 entries) for four texts."""
    counted = {
        ("这间酒店环境和服务态度亦算不错,但房间空间太小~~不宣容纳太大件行李~~且房间格调还可以。早餐种类不多,但是味道还好,"
         "下次还会来住。", "simplified"): 42,
        ("這間酒店環境和服務態度亦算不錯,但房間空間太小,而且房間格調還可以。早餐種類不多,但是味道還好,下次還會來住。", "traditional"): 42,
        ("What can I do if my card still hasn't arrived after 2 weeks? I have been waiting at home the whole time, and "
         "nobody at the bank answers the telephone.", "latin"): 35,
        ("Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May for 12.50 "
         "dollars each. How much did she earn?", "latin"): 41,
    }  # fmt: skip
    for (text, script), tokens in counted.items():
        assert token_estimate(text, script) == pytest.approx(tokens, rel=0.2)


def test_profile_needs_no_torch(tmp_path):
    path = write(tmp_path / "d.csv", "text,label\na,1\nb,0\n")
    code = "import sys; from pathlib import Path; from trainer.data import profile; profile(Path(sys.argv[1])); print('torch' in sys.modules or 'transformers' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


# splits


def labelled(count, labels=("a", "b", "c")):
    return [
        {
            "prompt": [{"role": "user", "content": f"text {i}"}],
            "completion": [{"role": "assistant", "content": labels[i % len(labels)]}],
        }
        for i in range(count)
    ]


def test_split_keeps_the_share_of_every_label_and_is_seeded():
    rows = labelled(90) + labelled(10, ("rare",))[:0]
    parts = split(rows, 0.1, 0.2, seed=1)
    for part, expected in ((parts.test, 6), (parts.eval, 3), (parts.train, 21)):
        assert Counter(row["completion"][0]["content"] for row in part) == dict.fromkeys("abc", expected)
    again, other = split(rows, 0.1, 0.2, seed=1), split(rows, 0.1, 0.2, seed=2)
    assert again.test == parts.test and other.test != parts.test


def test_rows_with_the_same_question_stay_in_one_split():
    rows = labelled(60)
    rows += [
        {**row, "prompt": [{"role": "user", "content": row["prompt"][0]["content"].upper() + "  "}]}
        for row in rows
    ]
    parts = split(rows, 0.2, 0.3, seed=3)
    keys = [{key(row) for row in part} for part in (parts.train, parts.eval, parts.test)]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    assert sum(map(len, (parts.train, parts.eval, parts.test))) == 120


def test_a_few_rows_still_fill_every_split_that_is_wanted():
    parts = split(labelled(6), 0.05, 0.1, seed=1)
    assert len(parts.test) == 1 and len(parts.eval) == 1 and len(parts.train) == 4


def test_held_out_files_are_used_and_their_rows_leave_the_training_set(tmp_path, config_of):
    train = write(tmp_path / "train.csv", "text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)))
    test = write(tmp_path / "test.csv", "text,label\nTEXT 1,1\nnew,0\n")
    evaluation = write(tmp_path / "eval.csv", "text,label\ntext 2,0\nnew,0\nother,1\n")
    staged = stage(config_of(train_file=str(train), test_file=str(test), eval_file=str(evaluation)))
    splits = staged.splits
    assert (len(splits.train), len(splits.eval), len(splits.test)) == (38, 2, 2)
    assert staged.card["overlap"] == 2
    assert {row["prompt"][0]["content"] for row in splits.eval} == {"text 2", "other"}


def test_fractions_of_zero_hold_nothing_out(config_of):
    splits = stage(config_of(eval_fraction=0, test_fraction=0)).splits
    assert (len(splits.train), splits.eval, splits.test) == (120, [], [])
    splits = stage(config_of(eval_fraction=0.25, test_fraction=0.5)).splits
    assert (len(splits.train), len(splits.eval), len(splits.test)) == (30, 30, 60)


def test_a_test_file_that_holds_every_row_leaves_nothing_to_train(config_of, review_file):
    with pytest.raises(UserError, match="no rows are left to train on"):
        stage(config_of(test_file=str(review_file)))


def test_a_method_that_does_not_fit_the_file_is_refused(config_of):
    with pytest.raises(UserError, match=r"reviews\.csv: method dpo needs rows of prompt, chosen, rejected"):
        stage(config_of(method="dpo"))


def test_frozen_rows_come_back_as_they_were(tmp_path, config_of):
    staged = stage(config_of())
    freeze(staged, tmp_path / "data")
    again = thaw(tmp_path / "data")
    assert again.splits == staged.splits and again.card == staged.card
    assert again.card["labels"] == ["0", "1"]
    (tmp_path / "data" / "card.json").unlink()
    assert thaw(tmp_path / "data") is None


def test_labels_are_told_from_texts():
    assert label_set(labelled(30), "alpaca") == ["a", "b", "c"]
    assert label_set(labelled(30, [f"answer {i}" for i in range(30)]), "text+label") is None
    assert label_set(labelled(30, ["a long answer " * 9, "b"]), "alpaca") is None


# rows cut to the model's window


def test_the_users_text_is_cut_and_the_answer_stays(config_of, tiny_base):
    from trainer.base import load_tokenizer
    from trainer.data.tokens import fit

    tokenizer = load_tokenizer(tiny_base)
    long = [
        {"role": "user", "content": "first"}, {"role": "assistant", "content": "second"},
        {"role": "user", "content": "the room 房間 was good " * 30},
    ]  # fmt: skip
    rows = [
        {
            "prompt": [{"role": "system", "content": "s"}, *long],
            "completion": [{"role": "assistant", "content": "yes"}],
        },
        {
            "prompt": [{"role": "user", "content": "short"}],
            "completion": [{"role": "assistant", "content": "no"}],
        },
        {
            "prompt": [{"role": "user", "content": "short"}],
            "completion": [{"role": "assistant", "content": "no " * 90}],
        },
    ]
    fitted, counts = fit(rows, tokenizer, 40)
    lengths = [
        len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"])
        for row in fitted
    ]
    assert 36 <= lengths[0] <= 40 and fitted[0]["completion"] == rows[0]["completion"]
    assert [message["role"] for message in fitted[0]["prompt"]] == ["system", "user"]
    assert rows[0]["prompt"][-1]["content"].startswith(fitted[0]["prompt"][-1]["content"])
    assert fitted[1] == rows[1] and counts == {"cut": 1, "answer_cut": 1}


def test_long_raw_texts_are_divided_and_nothing_is_lost(tiny_base):
    from trainer.base import load_tokenizer
    from trainer.data.tokens import fit

    tokenizer = load_tokenizer(tiny_base)
    text = "the room was good 房間很好 and the food number 7 was cold. " * 9
    pieces, counts = fit([{"text": text}], tokenizer, 16)
    assert "".join(piece["text"] for piece in pieces) == text
    assert max(len(tokenizer(piece["text"])["input_ids"]) for piece in pieces) <= 16
    assert counts["parts"] == len(pieces) - 1 > 5


# commands on files


def test_convert_and_split_write_files_that_read_back(tmp_path, config_of):
    path = write(
        tmp_path / "d.jsonl",
        [{"instruction": f"q{i}", "output": f"a{i}"} for i in range(20)]
        + [{"instruction": "", "output": "x"}],
    )
    report = convert_file(path, tmp_path / "out.jsonl")
    assert "20 rows of alpaca" in report and "1 rows have no text" in report
    assert len(load_rows(tmp_path / "out.jsonl", config_of())) == 20
    assert "train 16, eval 2, test 2" in split_file(path, tmp_path / "parts", 0.1, 0.1, 1)
    assert len((tmp_path / "parts" / "test.jsonl").read_text().splitlines()) == 2


# public data

SHARED = {
    "chnsenticorp/train.tsv": ("text+label", 9600, "zh-CN"),
    "banking77/banking_data__train.csv": ("text+label", 10003, "en"),
    "gsm8k/grade_school_math__data__train.jsonl": ("prompt-completion", 7473, "en"),
    "llamafactory_demo/alpaca_zh_demo.json": ("alpaca", 1000, "zh-CN"),
    "llamafactory_demo/glaive_toolcall_en_demo.json": ("sharegpt", 300, "en"),
    "llamafactory_demo/v1_sft_demo.jsonl": ("messages", 500, "en"),
    "llamafactory_demo/dpo_zh_demo.json": ("preference", 300, "zh-CN"),
    "llamafactory_demo/v1_dpo_demo.jsonl": ("preference", 10, "en"),
    "llamafactory_demo/kto_en_demo.json": ("kto", 300, "en"),
    "llamafactory_demo/wiki_demo.txt": ("text", 30, "en"),
    "llamafactory_demo/c4_demo.jsonl": ("text", 300, "en"),
    "oasst_zh/oaast_rm_zh.json": ("preference", 772, "zh-CN"),  # of 775, three have the same answer twice
}


@pytest.mark.parametrize("name", SHARED)
def test_public_files_are_understood(shared_data, name):
    measured = profile(shared_data / name)
    assert (measured.format, measured.rows, measured.language) == SHARED[name]


def test_9600_rows_are_measured_in_a_moment(shared_data):
    began = time.process_time()
    profile(shared_data / "chnsenticorp" / "train.tsv")
    assert time.process_time() - began < 3  # 1.3 s measured on a busy machine


def test_banking_labels_are_77(shared_data):
    measured = profile(shared_data / "banking77" / "banking_data__train.csv")
    assert len(measured.labels) == 77 and sum(measured.labels.values()) == 10003
