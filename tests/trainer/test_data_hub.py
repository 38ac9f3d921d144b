"""A Hub data set against a server that answers the Hub's few calls as recorded, in a process of its own.

`datasets` and `huggingface_hub` read HF_ENDPOINT when they are imported, so the test's own process will not do.
"""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import pytest
from replay import listening

COMMIT = "a" * 40
CARD = b"""---
license: mit
configs:
- config_name: default
  data_files:
  - split: train
    path: train.jsonl
  - split: test
    path: test.jsonl
dataset_info:
  features:
  - name: text
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': neg
          '1': pos
  - name: picture
    dtype: image
---
"""
FILES = {
    "README.md": CARD,
    "train.jsonl": b"".join(
        json.dumps({"text": f"t{n}", "label": n % 3 - 1}).encode() + b"\n" for n in range(6)
    ),
    "test.jsonl": b'{"text": "x", "label": 1}\n',
    "code.py": b"raise SystemExit('code of a data set was run')\n",
}
CHILD = """
import json, os, sys
from pathlib import Path
from trainer.config import UserError
from trainer.data.imports import bring_in, repeat
out = Path(sys.argv[1])
told = []
for name in sys.argv[2:]:
    try:
        report = bring_in(name, out / "r.jsonl", {}, {}, os.environ) if name else repeat(out / "data_source.yaml", {})[0]
        told.append([report.made.source, report.made.counts, report.notes, report.changed])
    except UserError as error:
        told.append(str(error))
print(json.dumps(told))
"""


@pytest.fixture
def hub():
    state = SimpleNamespace(asked=[])

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            state.asked.append(self.path)
            status, headers, body = _answer(self.path, self.headers.get("Range"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    with listening(Handler) as state.url:
        yield state


def _answer(path, span):
    """(status, headers, body) as the Hub gives them."""
    as_json = {"Content-Type": "application/json"}
    path = path.replace(
        "/own/code", "/own/set"
    )  # the same data set, in which code.py is a script by its name
    files = f"/datasets/own/set/resolve/{COMMIT}/"
    if path.startswith("/api/datasets/own/set/tree/"):
        tree = [
            {"type": "file", "path": name, "size": len(body), "oid": "b" * 40} for name, body in FILES.items()
        ]
        return 200, as_json, json.dumps(tree).encode()
    if path.startswith("/api/datasets/own/set") and "nope" not in path:
        info = {
            "id": "own/set", "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": [],
            "siblings": [{"rfilename": name} for name in FILES], "cardData": {"license": "mit"},
        }  # fmt: skip
        return 200, as_json, json.dumps(info).encode()
    if path.startswith(files) and path[len(files) :] in FILES:
        body = FILES[path[len(files) :]]
        head = {"ETag": f'"{"c" * 40}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if not span:
            return 200, head, body
        first, _, last = span.removeprefix("bytes=").partition("-")
        first, last = int(first), min(int(last or len(body) - 1), len(body) - 1)
        return 206, {**head, "Content-Range": f"bytes {first}-{last}/{len(body)}"}, body[first : last + 1]
    code = "EntryNotFound" if "resolve" in path else "RevisionNotFound" if "nope" in path else "RepoNotFound"
    return 404, {**as_json, "X-Error-Code": code}, b'{"error": "not found"}'


def test_a_hub_data_set_is_streamed_from_its_pinned_commit(hub, tmp_path):
    environment = os.environ | {
        "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    names = [
        "hf:own/set",
        "",
        "hf:own/set@nope",
        "hf:own/other",
        "hf:own/set#bad",
        "hf:own/set:bad",
        "hf:!",
        "hf:own/code",
    ]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "d"), *names], env=environment, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, again, *refused = json.loads(done.stdout.splitlines()[-1])
    assert first[0] == f"hf:own/set@{COMMIT}#train"
    assert first[1] == {"read": 6, "written": 6, "trainable": 4, "no_label": 2}
    assert "picture" in first[2][0]["en"]
    rows = [json.loads(line) for line in (tmp_path / "d" / "r.jsonl").open()]
    assert rows[:3] == [{"text": "t0"}, {"text": "t1", "label": "neg"}, {"text": "t2", "label": "pos"}]
    assert again[3] == "same"
    record = (tmp_path / "d" / "data_source.yaml").read_text()
    assert f"revision: {COMMIT}" in record and "licence: mit" in record
    assert [text.split(": ", 1)[0] for text in refused[:2]] == ["hf:own/set", "hf:own/other"]
    assert "no such revision" in refused[0] and "no such data set" in refused[1]
    assert "choose one of train, test" in refused[2] and "choose one of default" in refused[3]
    assert "owner/name" in refused[4] and "scripts are no longer supported" in refused[5]
    assert not any(path.endswith("resolve/main/train.jsonl") for path in hub.asked)
