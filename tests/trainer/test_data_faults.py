"""Files that cannot be read, or only in part: one line that says where, and no row lost without a count."""

import json
from random import Random

import pytest
from written import write

from trainer.config import UserError
from trainer.data import preview, profile

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
