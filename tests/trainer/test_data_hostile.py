"""Hostile data files: each gives a named finding or one line that says what is wrong; never a traceback, never a hang."""

import gzip
import io
import json
import re
import signal
import zipfile

import pytest

from kb.errors import UserError, told
from trainer.data import check

SECONDS = 60  # of a file; a busy machine takes a few
GOOD = b'{"text": "a fine room", "label": "good"}\n{"text": "a bad one", "label": "bad"}\n'
TABLE = b"text,label\n"


def row(text: str) -> bytes:
    return f'{{"text": {text}, "label": "good"}}\n'.encode("utf-8", "surrogatepass")


def packed(name: str, content: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return made.getvalue()


# file → (content, a kind of finding that it gives) or (content, None, words of the one line that refuses it)
FILES = {
    # JSON lines
    "nul.jsonl": (GOOD + b'{"text": "a\0b", "label": "good"}\n', "nul_byte"),
    "utf8.jsonl": (GOOD + b'{"text": "a\xffb", "label": "good"}\n', "bad_utf8"),
    "bom.jsonl": (b"\xef\xbb\xbf" + GOOD + GOOD, "duplicates"),
    "utf16.jsonl": (GOOD.decode().encode("utf-16"), None, "UTF-16"),
    "utf32.jsonl": (GOOD.decode().encode("utf-32"), None, "UTF-32"),
    "schema.jsonl": (GOOD * 9 + b'{"text": "c", "label": "good", "rate": 1}\n', "mixed_schema"),
    "deep.jsonl": (GOOD + b'{"text": ' + b"[" * 5000 + b"]" * 5000 + b"}\n", "too_deep"),
    "nan.jsonl": (GOOD + row("NaN"), "nan"),
    "number.jsonl": (GOOD + row("9" * 5000), "huge_number"),
    "float.jsonl": (GOOD + row("1e999999"), "huge_number"),
    "surrogate.jsonl": (GOOD + row(r'"a\ud800b"'), "surrogate_replaced"),
    "twice.jsonl": (GOOD + b'{"text": "a", "text": "b", "label": "good"}\n', "duplicate_key"),
    "cut.jsonl": (GOOD + b'{"text": "cut of', "truncated_line"),
    "wrapped.jsonl": (GOOD + b"[1, 2]\n", "not_object"),
    "empty.jsonl": (b"", None, "the file is empty"),
    "blank.jsonl": (b" \n" * 200_000, None, "the file is empty"),
    "long.jsonl": (GOOD + b'{"text": "' + b"x" * (21 << 20) + b'", "label": "good"}\n' + GOOD, "line_too_long"),
    "random.jsonl": (bytes(range(256)) * 50, None, "NUL byte"),
    "yaml.jsonl": (GOOD + b"!!python/object/apply:os.system ['id']\n", "broken_json"),
    "names.jsonl": (b'{"../../etc/passwd": 1, "\\u202eevil": 2}\n', None, "unknown columns"),
    "many.jsonl": (json.dumps({f"c{n}": n for n in range(20_000)}).encode() + b"\n", None, "unknown columns"),
    "slow.jsonl": (GOOD + row(json.dumps("0" * 300_000 + "@" + "a." * 100_000)) + row(json.dumps("1-" * 200_000)), "answer_cut"),
    "zalgo.jsonl": (GOOD + row(json.dumps("e" + "\u0301" * 100_000)), "length_outlier"),
    "marks.jsonl": (GOOD + row(json.dumps("<s>[INST] " * 20_000)), "doubled_bos"),
    # JSON documents
    "deep.json": (b"[" * 100_000 + b"]" * 100_000, None, "nested too deeply"),
    "cut.json": (b'[{"text": "a", "label": "b"}, {"text"', None, "not valid JSON"),
    "scalar.json": (b"42", None, "expected a list of rows"),
    "mixed.json": (b'[{"text": "a", "label": "b"}, 7]', None, "expected an object"),
    "nul.json": (b'[{"text": "a\0"}]', None, "NUL byte at offset 12"),
    # tables
    "quote.csv": (TABLE + b'"never closed,good\n' + b"more,bad\n" * 1000, None, "not a readable table"),
    "header.csv": (b"text,text\na,b\n", None, "repeated column name"),
    "ragged.csv": (TABLE + b"a,good\nb\nc,bad,more\n", "ragged_row"),
    "utf8.csv": (TABLE + b"a,good\nb\xff,bad\n", None, "offset 19"),
    "formula.csv": (TABLE + b'"=cmd|\' /C calc\'!A0",good\nfine,bad\n', "rare_label"),
    "cell.csv": (TABLE + b'"' + b"x" * (21 << 20) + b'",good\n', None, "more than 16 MB"),
    "one.tsv": (b"text\tlabel\n", None, "holds no rows"),
    "mac.csv": (b"text,label\ra,good\rb,bad\r", "rare_label"),
    # packed and binary
    "not.parquet": (b"PAR1" + b"\0" * 64 + b"PAR1", None, "not a readable Parquet file"),
    "not.xlsx": (b"PK\x03\x04 nothing", None, "not a readable .xlsx file"),
    "empty.xlsx": (packed("xl/workbook.xml", b"<a/>"), None, "not a readable .xlsx file"),
    "entities.xlsx": (packed("[Content_Types].xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'), None, "not a readable .xlsx file"),
    "packed.jsonl": (gzip.compress(b"0" * 10_000_000), None, "the file is binary"),
    "not.pdf": (b"%PDF-1.7\n" + b"\0" * 100, None, "not a readable PDF"),
    "cut.ann": (b"T1\tLabel x y\ttext\n", None, "cut"),
    # text
    "nul.txt": (b"a\nb\0c\n", None, ":2: a NUL byte at offset 3"),
    "line.txt": (b"x" * (21 << 20), None, "more than 16 MB"),
    "tags.conll": (b"Paris B-loc\nis O\nbig I-\n\n" * 5, "duplicates"),
    "fence.md": (b"# A\n```\n" + b"# no heading\n" * 1000, "over_max_length"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def no_hang():
    def late(*_):
        raise AssertionError(f"took more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_named_for_what_it_is(tmp_path, name):
    content, kind, *words = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    if kind:
        measured = check(path)
        assert kind in {item.kind for item in measured.findings}, [item.kind for item in measured.findings]
        assert all("\0" not in item.example and len(item.example) <= 200 for item in measured.findings)
        return
    with pytest.raises(UserError) as error:
        check(path)
    said = str(error.value)
    assert words[0] in said and "\n" not in said and len(said) < 1500 and str(path) in said
    assert re.search("[\u4e00-\u9fff]", told(said, "zh-TW")), "it is told in Chinese as well"
