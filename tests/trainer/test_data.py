"""Files in, rows out: every format, what is measured, what is cut."""

import json
import subprocess
import sys
import time

import pytest
from written import write

from trainer.data import convert_file, load_rows, profile, split_file
from trainer.data.language import language_of, token_estimate


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
    bins = measured.tokens.histogram
    assert sum(one["rows"] for one in bins) == measured.rows and bins[-1]["rows"] and bins[0]["rows"]
    assert bins[-1]["to"] == max(16, 2 ** (measured.tokens.max - 1).bit_length())
    assert sum(one["rows"] for one in bins if one["to"] < measured.tokens.p50) <= measured.rows / 2
    assert {"duplicates", "label_conflict", "unused_column"} <= {found.kind for found in measured.findings}


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
