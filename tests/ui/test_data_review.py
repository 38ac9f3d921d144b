"""Rows that a model writes: checked, compared, reviewed, added. The model is a stand-in that speaks OpenAI's chat
completions over loopback (tests/replay.py); what it answers is made up, how it is asked is real."""

import json
import re
from collections import Counter

import pytest
from replay import Reply, events, serving
from typer.testing import CliRunner

from trainer.config import UserError
from trainer.data import make, rebuild
from trainer.data.propose import generate, source_of, thin_classes
from trainer.data.review import judge, read_review

NUMBERS = iter(range(10_000))


def server(method, path, body):
    """Answers a schema with rows, some of them bad: a repeat of an example, and once no JSON at all."""
    if path == "/v1/models":
        return Reply(200, [json.dumps({"data": [{"id": "tiny"}, {"id": "tuned"}]}).encode()])
    prompt = body["messages"][-1]["content"]
    if "response_format" not in body:
        text = f"{body['model']} says something about {prompt}" if "same" not in prompt else "the same answer"
    else:
        schema = body["response_format"]["json_schema"]["schema"]["properties"]["rows"]
        keys = schema["items"]["required"]
        number = next(NUMBERS)
        rows = [
            {key: f"{key} {number} {word(number * 10 + n)}" for key in keys}
            for n in range(schema["maxItems"])
        ]
        example = re.search(r"^- (.*)$", prompt, re.M)
        if example and keys == ["text"]:
            rows[0]["text"] = example[1] + "!"
        text = json.dumps({"rows": rows}) if number % 3 else "Sure, here you are:"
    chunk = {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}
    return events(chunk, "[DONE]")


def word(number):
    return " ".join(f"{(number + 1) * prime % 99991:05d}" for prime in (7919, 104729, 15485863, 32452843))


@pytest.fixture
def run(monkeypatch, tmp_path):
    """The command line with a home of its own and the stand-in as its model."""
    from ui.cli import app

    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LANG", "C.UTF-8")
    with serving(server) as (host, requests):
        monkeypatch.setenv("OPENAI_BASE_URL", f"{host}/v1")

        def run(*arguments, status=0):
            done = CliRunner().invoke(app, ["data", *map(str, arguments)])
            assert done.exit_code == status, (done.output, done.exception)
            return done.output

        run.requests = requests
        yield run


@pytest.fixture
def intents(tmp_path):
    rows = [{"text": f"please refund order {word(n)}", "label": "refund"} for n in range(30)]
    rows += [{"text": f"where is parcel {word(500 + n)}", "label": "track"} for n in range(4)]
    path = tmp_path / "intents.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_thin_classes_get_rows_that_wait_for_a_person(run, intents, tmp_path):
    assert thin_classes(source_of(intents), 12) == {"track": 8}
    review = tmp_path / "r.jsonl"
    said = run("generate", intents, review, "--to", "12", "--backend", "openai", "--model", "tiny")
    found = read_review(review)
    assert len(found) == 8 and "8 rows wait" in said and "thrown away" in said
    assert all(
        one["status"] == "waiting" and one["record"]["label"] == "track" and one["model"] == "openai:tiny"
        for one in found
    )
    assert not {one["record"]["text"] for one in found} & {
        f"where is parcel {word(500 + n)}!" for n in range(4)
    }
    asked = [one["body"] for one in run.requests if one["path"].endswith("completions")]
    assert all(body["temperature"] > 0 and body["response_format"]["json_schema"]["strict"] for body in asked)
    # nothing is used before it is accepted
    out = tmp_path / "made" / "all.jsonl"
    run("add", review, out, "--to", intents)
    assert Counter(json.loads(line)["synthetic"] for line in out.read_text().splitlines()) == {False: 34}
    run("review", review, "--accept", "1-5", "--reject", "all")
    run("add", review, out, "--to", intents)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert sum(row["synthetic"] for row in rows) == 5 and len(rows) == 39
    before = out.read_bytes()
    rebuild(out.parent)
    assert out.read_bytes() == before
    assert "0 waiting, 5 accepted, 3 rejected" in run("review", review)
    run("generate", intents, review, "--to", "6", "--backend", "openai")
    assert len(read_review(review)) == 10  # goes on, and leaves what was judged
    with pytest.raises(UserError, match="every class has 2 rows or more; raise --to"):
        generate(intents, review, lambda *_: "", "none", least=2)


def test_questions_are_paraphrased_and_answers_stay(run, tmp_path):
    chats = [
        {
            "id": n,
            "messages": [
                {"role": "user", "content": f"how do I {word(n)}"},
                {"role": "assistant", "content": f"so {n}"},
            ],
        }
        for n in range(6)
    ]
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in chats), encoding="utf-8")
    run("paraphrase", path, tmp_path / "r.jsonl", "--rows", 3, "--backend", "openai")
    for one in read_review(tmp_path / "r.jsonl"):
        old = chats[one["from"][0] - 1]["messages"]
        new = one["record"]["messages"]
        assert new[1] == old[1] and new[0]["content"] != old[0]["content"] and "id" not in one["record"]


def test_pairs_of_base_and_tuned_answers_can_be_swapped(run, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"question {text}", "completion": "x"}) + "\n"
            for text in ("one", "two", "same")
        )
    )
    review, out = tmp_path / "r.jsonl", tmp_path / "pairs.jsonl"
    said = run("pairs", path, review, "--tuned", "tuned", "--base", "tiny", "--backend", "openai")
    assert "1 prompts had twice the same answer" in said
    run("review", review, "--swap", "1", "--accept", "2")
    run("add", review, out)
    chosen = [json.loads(line)["chosen"][0]["content"].split()[0] for line in out.read_text().splitlines()]
    assert chosen == ["tiny", "tuned"]
    assert "preference" in run("check", out, "--json")


def test_mistakes_are_told_in_a_line(run, intents, tmp_path):
    review = tmp_path / "r.jsonl"
    run("generate", intents, review, "--backend", "openai", "--rows", "1")
    with pytest.raises(UserError, match="no candidate 9"):
        judge(review, [9], "accepted")
    with pytest.raises(UserError, match="not a review file"):
        read_review(intents)
    with pytest.raises(UserError, match="of its format"):
        judge(review, None, "accepted")
        pairs = tmp_path / "p.jsonl"
        pairs.write_text(json.dumps({"prompt": "q", "completion": "a"}) + "\n")
        make("add", pairs, tmp_path / "o.jsonl", {"reviewed": str(review)})
