"""Every mistake that the rooms tell of is told in Chinese as well."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from kb.errors import TABLE, UserError, told

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "UserError",
    "ReadError",
    "HubUnreachable",
}  # BackendError and OllamaError are raised in the screen's language
# What is put together before it is raised, and the sentence in the table that stands for it.
MADE_ELSEWHERE = {
    "missing": "no answer has a thumb up or down yet; give some in the Ask tab",
    "_asking(source, mapping)": "{}: its columns can only be guessed: {}; say so if it is right: {}",
    "json.loads(done.stdout)['error']": "{}: {}",  # a child's own UserError
    "made.why or f'base_model {config.base_model!r}: its tokenizer is not on this machine'": (
        "base_model {}: its tokenizer is not on this machine"
    ),
    "self._reason(response.read())": "{}: llama.cpp refused the request: {}",
    "self._reason(json.dumps(event).encode())": "{}: llama.cpp refused the request: {}",
    "_reason(error, push)": "{}: the Hub answered {}; push again to go on where it stopped",
    "why": "{}: {}",  # terms.refusal, several sentences
    "_refusal(folder, adapter, difference, dtype, tied)": (
        "{}: the merged model computes something else than base + adapter (logits differ by {} of their spread, {} "
        "allows {}); keep the adapter apart and report this"
    ),
    "_refusal(first, first.path / 'adapter', difference, dtype, False)": "{}: {}",
}


def template(node: ast.expr) -> str:
    """The sentence of a raise with {} for each value; of anything else its source."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{", "{{").replace("}", "}}")
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) if isinstance(part, ast.Constant) else "{}" for part in node.values)
    return MADE_ELSEWHERE.get(ast.unparse(node), f"not a sentence: {ast.unparse(node)}")


@cache
def raised() -> list[tuple[str, str]]:
    """(where, sentence) of every mistake raised in the rooms below the screen."""
    found = []
    for room in ("trainer", "assistant", "ingest"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
                if name in KINDS and node.args:
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", template(node.args[0])))
    return found


def test_every_mistake_has_its_chinese():
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    missing = [f"{where}: {sentence!r}" for where, sentence in raised() if sentence not in table]
    assert not missing, f"add to {TABLE.name}:\n" + "\n".join(missing)


def test_no_value_is_lost_in_translation():
    for english, chinese in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items():
        values = [f"<{number}>" for number in range(len(re.findall(r"\{\}", english.replace("{{", ""))))]
        said = chinese.format(*values)
        assert all(value in said for value in values), english
        assert all(ord(mark) > 127 for mark in re.findall("[，；。：]", said)), english


def test_a_mistake_is_told_by_its_own_sentence():
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    for where, english in raised():
        values = [f"v{number}" for number in range(english.count("{}"))]
        assert told(english.format(*values), "zh-TW") == table[english].format(*values), where


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "找不到檔案；請給資料檔的路徑"),
        (b"", "檔案是空的"),
        (
            b'{"text": "a", "label": "b"}\n{"text" "a"}\n',
            ":2:9：不是正確的 JSON：此處應有冒號；請修正或刪除這一行",
        ),
        (b'{"text": "\xff\xfe", "label": "b"}\n', ":1：不是 UTF-8（位移 10 的位元組 0xff）"),
        (b'{"foo": "a", "bar": "b"}\n', "不認得欄位 'foo', 'bar'"),
    ],
)
def test_a_bad_file_is_told_in_chinese(tmp_path, content, said):
    from trainer.data.check import profile

    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        profile(path)
    assert said in told(str(error.value), "zh-TW") and str(path) in told(str(error.value), "zh-TW")
    assert told(str(error.value), "en") == str(error.value)


def test_a_bad_value_is_told_in_chinese():
    from trainer.config import from_dict

    with pytest.raises(UserError) as error:
        from_dict(
            {
                "task": "a",
                "train_file": "b",
                "base_model": "starter",
                "method": "sft",
                "epochs": -1,
                "seed": "x",
            },
            "run.yaml",
        )
    assert re.fullmatch("run.yaml：seed = 'x'：應為整數（另有 1 處）", told(str(error.value), "zh-TW"))


def test_a_run_that_ended_on_a_mistake_tells_it_in_chinese():
    from trainer.messages import MISTAKE, message

    status = json.loads(
        json.dumps({"code": MISTAKE, "values": {}, "message": "/x.jsonl:1: the file is empty; give it rows"})
    )
    assert message(status, "zh-TW") == "/x.jsonl:1：檔案是空的；請放入資料"


def test_what_the_table_does_not_hold_stays_as_it_is():
    assert told("a sentence of another library", "zh-TW") == "a sentence of another library"


def test_every_tab_shows_mistakes_in_its_own_language():
    for path in (ROOT / "ui" / "tabs").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "render.error":
                assert len(node.args) == 2, f"{path.name}:{node.lineno}: render.error without its language"
