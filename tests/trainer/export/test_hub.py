"""Pushing to the Hub: what would go up, what a licence forbids, and a real upload to a server that answers as the Hub.

`huggingface_hub` reads HF_ENDPOINT when it is imported, so an upload runs in a process of its own.
"""

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import pytest
from replay import listening
from typer.testing import CliRunner

from kb.errors import UserError
from trainer import runs
from trainer.config import RunConfig
from trainer.data.splits import Splits
from trainer.data.stage import Staged, freeze
from trainer.export import hub as pushing
from trainer.export import terms
from ui.cli import app

TOKEN = "hf_" + "s3cret" * 5
ROWS = [{"prompt": [{"role": "user", "content": f"q{n}"}], "completion": [{"role": "assistant", "content": "01"[n % 2]}]}
        for n in range(12)]  # fmt: skip


@pytest.fixture
def run_on(tmp_path, review_file):
    """A finished LoRA run on a base of this name, with weights that are bytes."""

    def make(base_model="Qwen/Qwen3-0.6B", **changes):
        config = RunConfig(
            task="reviews",
            base_model=base_model,
            train_file=str(review_file),
            method="sft",
            **{"peft": "lora", **changes},
        )
        folder = runs.create(
            tmp_path / "home" / "tasks", config, reasons={"r": {"because": "sixteen | is usual", "rule": "r"}}
        )
        adapter = folder.path / "adapter"
        adapter.mkdir()
        (adapter / "adapter_model.safetensors").write_bytes(os.urandom(50_000))
        (adapter / "tokenizer.model").write_bytes(os.urandom(40_000))
        (adapter / "README.md").write_text("PEFT's own")
        settings = {"base_model_name_or_path": str(tmp_path / "models" / "mine"), "r": 16}
        (adapter / "adapter_config.json").write_text(json.dumps(settings))
        card = {
            "labels": ["0", "1"],
            "rows": {"train": 12, "eval": 0, "test": 0},
            "files": {"/x/r.csv": "ab" * 32},
        }
        freeze(Staged(Splits(ROWS, [], []), card), folder.path / "data")
        folder.set_status(state="done")
        scores = {"n": 40, "tuned": {"accuracy": 0.9, "interval": [0.77, 0.96], "macro_f1": 0.9, "parse_failures": 2}}  # fmt: skip
        (folder.path / "eval").mkdir()
        (folder.path / "eval" / "metrics.json").write_text(json.dumps(scores))
        return folder

    return make


def card_of(push):
    return push.files["README.md"].decode()


def test_the_list_holds_every_file_and_no_path_of_this_machine(run_on, tmp_path):
    push = pushing.plan(run_on(), "me/reviews")
    names = [name for name, _ in push.rows()]
    assert names == ["README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer.model"]
    assert dict(push.rows())["adapter_model.safetensors"] == 50_000
    assert json.loads(push.files["adapter_config.json"])["base_model_name_or_path"] == "mine"
    card = card_of(push)
    assert "PEFT's own" not in card and str(tmp_path) not in card
    assert "license: apache-2.0" in card and "base_model: Qwen/Qwen3-0.6B" in card
    assert "0.900 (0.770–0.960)" in card and r"sixteen \| is usual" in card
    assert "2 answers to the test rows were none of the labels" in card and "known to 0.19 only" in card


def test_a_run_whose_weights_are_a_whole_model_sends_that(run_on):
    folder = run_on(peft="freeze")
    (folder.path / "adapter").rename(folder.path / "model")
    (folder.path / "model" / "adapter_model.safetensors").rename(folder.path / "model" / "model.safetensors")
    push = pushing.plan(folder, "me/reviews")
    assert push.files["model.safetensors"] == folder.path / "model" / "model.safetensors"
    assert "library_name: transformers" in card_of(push) and "base_model_relation: finetune" in card_of(push)


def test_llama_asks_for_a_name_a_line_and_a_notice(run_on):
    folder = run_on("meta-llama/Llama-3.2-1B-Instruct")
    with pytest.raises(UserError, match="begins with Llama; push to me/Llama-reviews"):
        pushing.plan(folder, "me/reviews")
    push = pushing.plan(folder, "me/Llama-reviews", public=True)
    assert b"Llama 3.2 Community License, Copyright" in push.files["NOTICE"]
    assert "**Built with Llama**" in card_of(push) and "license: llama3.2" in card_of(push)
    assert "bind you as well" in card_of(push)


@pytest.mark.parametrize(
    ("said", "ids"),
    [
        ("Apache-2.0", ["apache-2.0"]),
        ("MIT, on Llama 3.1 Community License", ["mit", "llama3.1"]),
        ("LLAMA 3.2 COMMUNITY LICENSE AGREEMENT Llama 3.2 Version", ["llama3.2"]),
        ("llama3.1", ["llama3.1"]),
        ("Gemma Terms of Use", ["gemma"]),
        ("Qwen Research License", ["qwen-research"]),
        ("qwen-research", ["qwen-research"]),
        ("permitted", []),
        ("", []),
    ],
)
def test_licences_are_known_by_their_names(said, ids):
    assert [row.id for row in terms.known(said)] == ids


def test_every_licence_of_the_model_table_is_known():
    from kb.facts import table

    assert not [model.id for model in table("models") if not terms.known(model.licence)]


def test_what_nobody_knows_the_licence_of_is_not_published(run_on):
    folder = run_on("someone/unheard-of")
    assert "not known" in card_of(pushing.plan(folder, "me/a"))
    with pytest.raises(UserError, match="say it with --licence"):
        pushing.plan(folder, "me/a", public=True)
    assert "license: mit" in card_of(pushing.plan(folder, "me/a", public=True, licence="mit"))
    with pytest.raises(UserError, match="under which licence the rows are"):
        pushing.plan(folder, "me/a", "dataset", public=True)


def test_rows_that_may_not_be_changed_are_not_handed_on(run_on, review_file):
    folder = run_on()
    review_file.with_name("README.md").write_text("---\nlicense: cc-by-nc-nd-4.0\n---\n")
    with pytest.raises(UserError, match="forbids handing on changed copies"):
        pushing.plan(folder, "me/a", "dataset")
    assert "cc-by-nc-nd-4.0. It restricts" in card_of(pushing.plan(folder, "me/a"))
    review_file.with_name("README.md").write_text("---\nlicense: cc-by-4.0\n---\n")
    push = pushing.plan(folder, "me/a", "dataset", public=True)
    assert (push.kind, sorted(push.files)) == ("dataset", ["README.md", "train.jsonl"])
    assert "license: cc-by-4.0" in card_of(push)


def test_a_gguf_file_goes_up_only_when_it_is_proven(run_on):
    folder = run_on()
    with pytest.raises(UserError, match="no GGUF file yet"):
        pushing.plan(folder, "me/a", "gguf")
    (folder.path / "export").mkdir(exist_ok=True)
    (folder.path / "export" / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="not proven equal"):
        pushing.plan(folder, "me/a", "gguf")
    (folder.path / "export" / "parity.json").write_text('{"ready": true}')
    assert "base_model_relation: quantized" in card_of(pushing.plan(folder, "me/a", "gguf"))


# ---------------------------------------------------------------- a server that answers as the Hub


@pytest.fixture
def server():
    """The endpoints that an upload calls, with what was stored. `die_at`: the upload of that number hangs up."""
    state = SimpleNamespace(repos={}, objects={}, puts=[], tokens=set(), die_at=0, refuse=0)
    handler = type("Handler", (Answering,), {"state": state})
    with listening(handler) as state.url:
        yield state


class Answering(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: SimpleNamespace

    def log_message(self, *args):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError):  # of a process that was killed
            super().handle()

    def do_GET(self):
        self.answer(None)

    def do_DELETE(self):
        self.answer(None)

    def do_POST(self):
        self.answer(self.body())

    def do_PUT(self):
        data, name = self.body(), self.path.rpartition("/")[2]
        self.state.puts.append(name)
        if len(self.state.puts) == self.state.die_at:
            os.kill(self.state.child, 9)
            return self.reply(500, {})
        assert hashlib.sha256(data).hexdigest() == name
        self.state.objects[name] = data
        return self.reply(200, {})

    def body(self):
        if length := self.headers.get("Content-Length"):
            return self.rfile.read(int(length))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def reply(self, status, document):
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self, body):
        state, path = self.state, self.path.partition("?")[0]
        state.tokens.add(self.headers.get("Authorization"))
        if state.refuse:
            return self.reply(state.refuse, {"error": "no"})
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = state.repos.setdefault(f"{asked['organization']}/{asked['name']}", {"files": {}, "tags": {}, "commits": 0})  # fmt: skip
            if "visibility" in repo:
                return self.reply(409, {"error": "it exists", "url": f"{state.url}/me/reviews"})
            repo |= {"visibility": asked.get("visibility", "public"), "type": asked.get("type")}
            return self.reply(200, {"url": f"{state.url}/{asked['organization']}/{asked['name']}"})
        if path == "/api/validate-yaml":
            return self.reply(200, {"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            objects = [one if one["oid"] in state.objects else one | {"actions": {"upload": {"href": f"{state.url}/put/{one['oid']}"}}}
                       for one in wanted]  # fmt: skip
            return self.reply(200, {"transfer": "basic", "objects": objects})
        _kind, owner, name, *rest = path.removeprefix("/api/").split("/")
        return self.of_repository(f"{owner}/{name}", rest, body)

    def of_repository(self, name, rest, body):
        repo = self.state.repos[name]
        oid = f"{repo['commits']:040x}"
        if not rest or rest[0] == "revision":
            siblings = [{"rfilename": file} for file in repo["files"]]
            return self.reply(200, {"id": name, "sha": oid, "private": repo["visibility"] == "private", "siblings": siblings})  # fmt: skip
        if rest[0] == "tree":
            return self.reply(200, [{"type": "file", "path": file, "size": len(data), "oid": oid} for file, data in repo["files"].items()])  # fmt: skip
        if rest[0] == "preupload":
            sizes = {one["path"]: one["size"] for one in json.loads(body)["files"]}
            modes = [{"path": path, "uploadMode": "lfs" if size > 20_000 else "regular", "shouldIgnore": False}
                     for path, size in sizes.items()]  # fmt: skip
            return self.reply(200, {"files": modes})
        if rest[0] == "commit":
            self.commit(repo, [json.loads(line) for line in body.splitlines()])
            oid = f"{repo['commits']:040x}"
            return self.reply(
                200, {"commitUrl": f"{self.state.url}/{name}/commit/{oid}", "commitOid": oid, "success": True}
            )
        if rest[0] == "refs":
            tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": at} for tag, at in repo["tags"].items()]  # fmt: skip
            return self.reply(200, {"branches": [], "converts": [], "tags": tags})
        if rest[0] == "tag" and self.command == "DELETE":
            del repo["tags"][rest[1]]
            return self.reply(200, {})
        if rest[0] == "tag":
            repo["tags"][json.loads(body)["tag"]] = rest[1]
            return self.reply(200, {})
        return self.reply(404, {"error": f"no {rest}"})

    def commit(self, repo, lines):
        repo["commits"] += 1
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repo["files"][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repo["files"][value["path"]] = self.state.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del repo["files"][value["path"]]


def upload(server, home, *arguments, token=TOKEN):
    """`tunesmith push reviews/v1 me/reviews --yes`, in a process whose export is done in itself."""
    code = "import sys; from trainer import runs; from pathlib import Path; from trainer.export import export; export(runs.find(Path(sys.argv[1]), 'reviews/v1'), 'hub', hub={'repo': 'me/reviews', 'public': '--public' in sys.argv})"  # fmt: skip
    environment = os.environ | {
        "HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(home.parent / "hf"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": token,
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code, str(home / "tasks"), *arguments], env=environment, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    server.child = process.pid
    said, _ = process.communicate(timeout=120)
    return process.returncode, said


def test_a_push_that_is_killed_goes_on_and_ends_private_tagged_and_whole(run_on, server, tmp_path):
    folder, home = run_on(), tmp_path / "home"
    server.die_at = 2  # the adapter is up, the tokenizer is on its way
    assert upload(server, home)[0] == -9
    assert len(server.objects) == 1 and not server.repos["me/reviews"]["files"]
    status, said = upload(server, home)
    assert status == 0, said
    assert len(server.puts) == 3, "a file that the Hub holds goes up again"
    repo = server.repos["me/reviews"]
    sent = {name: content if isinstance(content, bytes) else content.read_bytes()
            for name, content in pushing.plan(folder, "me/reviews").files.items()}  # fmt: skip
    assert repo["files"] == sent
    assert repo["visibility"] == "private" and repo["tags"] == {"v1": f"{1:040x}"}
    assert pushing.pushed(folder)["adapter"]["tag"] == "v1"
    assert f"Bearer {TOKEN}" in server.tokens

    (folder.path / "adapter" / "tokenizer.model").write_bytes(b"other" * 9000)
    repo["files"] |= {"model-00001-of-00002.safetensors": b"an older version's", "picture.png": b"theirs"}
    assert upload(server, home)[0] == 0
    assert repo["tags"] == {"v1": f"{2:040x}"}, "the tag follows the newest push of the version"
    assert "picture.png" in repo["files"] and "model-00001-of-00002.safetensors" not in repo["files"]

    for file in home.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), f"the token is in {file}"
    assert TOKEN not in said

    repo["visibility"] = "public"
    status, said = upload(server, home)
    assert status and "is public; give another name" in said
    server.refuse = 403
    status, said = upload(server, home)
    assert status and "does not let this token write" in said and TOKEN not in said


def test_the_command_shows_every_file_and_sends_nothing(run_on, tmp_path, monkeypatch):
    run_on()
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LANG", "C.UTF-8")
    done = CliRunner().invoke(app, ["push", "reviews/v1", "me/reviews", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["sent"] is False and {"name": "adapter_model.safetensors", "bytes": 50_000} in told["files"]
    for arguments, said in [
        (["me/reviews", "--what", "all"], "choose one of"),
        (["reviews"], "write OWNER/NAME"),
        (["me/reviews", "--what", "merged"], "tunesmith export reviews/v1 --to merged"),
    ]:
        assert said in str(CliRunner().invoke(app, ["push", "reviews/v1", *arguments]).exception)
