"""The one question to the model about doubtful sentences: when it is asked, what its verdict changes, and when not."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from replay import Reply, events, ollama, said, serving

from assistant.answer import ask, to_json
from assistant.backends import BackendError, token_bounds
from assistant.citations import SUPPORTED
from assistant.entailment import check, doubtful, schema
from assistant.llm import Settings, pick
from assistant.markers import Cited
from assistant.types import Hit
from ingest.index import Index

LORA = Hit(
    "kb:methods/lora:en#rank", "methods/lora", "LoRA › Rank", "en",
    "A rank of 16 is enough for most tasks. Code and mathematics profit from a rank of 64 to 256. Dropout matters little.",
    0.9, [],
)  # fmt: skip
PARAPHRASE = "For usual jobs nobody needs a bigger rank than 16 [1]."  # says the same in other words
# the passage's words, another claim
STRETCHED = "A dropout of little rank matters to tasks in mathematics and code a lot, as tests show [1]."
CLEAR = "A rank of 16 is enough for most tasks [1]."
WRONG = "A rank of 512 is enough for most tasks [1]."


@dataclass
class Judge:
    """A model with these verdicts. Those of the two sentences whose answer is known come second and third."""

    verdicts: list[str]
    known: tuple[str, str] = ("no", "yes")
    context: int = 4096
    name: str = "stub"
    model: str = "stub"
    asked: list[dict] = field(default_factory=list)

    def count(self, text: str) -> int:
        return token_bounds(text)[1]

    def stream(self, messages, max_tokens=0, schema=None, on_thought=None) -> Iterator[str]:
        self.asked.append({"messages": messages, "schema": schema})
        said = [self.verdicts[0], *self.known, *self.verdicts[1:]]
        yield json.dumps({f"s{i + 1}": verdict for i, verdict in enumerate(said)})


def cited(*sentences: str) -> Cited:
    found = Cited([LORA])
    found.feed(" ".join(sentences))
    found.finish()
    return found


def supports(answer: Cited) -> list[bool]:
    return [citation.support >= SUPPORTED for citation in answer.citations]


def test_only_sentences_that_words_cannot_decide_are_doubtful():
    answer = cited(CLEAR, PARAPHRASE, STRETCHED, WRONG, "The moon is made of cheese.")
    found = {claim.shown.split(" [")[0] for claim in doubtful(answer)}
    assert found == {PARAPHRASE.split(" [")[0], STRETCHED.split(" [")[0]}


def test_a_yes_takes_a_sentence_off_the_unsupported_and_a_no_puts_it_there():
    answer = cited(CLEAR, PARAPHRASE, STRETCHED)
    text = answer.text
    assert len(answer.unsupported) == 1 and supports(answer) == [True, False, True]
    order = [claim.shown for claim in doubtful(answer)]
    judge = Judge(["yes" if shown.startswith("For usual") else "no" for shown in order])
    check(answer, judge)
    assert len(judge.asked) == 1  # one call for all of them
    assert [shown.startswith("A dropout") for shown in answer.unsupported] == [True]
    assert supports(answer) == [True, True, False]
    assert answer.text == text and answer.unsupported[0] in text


def test_the_model_sees_the_passages_the_sentences_and_a_schema():
    answer = cited(PARAPHRASE, STRETCHED)
    judge = Judge(["yes", "yes"])
    check(answer, judge)
    (asked,) = judge.asked
    assert asked["schema"] == schema(4) and asked["schema"]["required"] == ["s1", "s2", "s3", "s4"]
    user = asked["messages"][1]["content"]
    assert user.count("<passage") == 1 and "rank of 64 to 256" in user
    assert "(passage 1): For usual jobs nobody needs a bigger rank than 16." in user and "[1]" not in user


@pytest.mark.parametrize(
    "judge",
    [
        Judge(["yes", "yes"], known=("yes", "yes")),  # says yes to everything
        Judge(["no", "no"], known=("no", "no")),
        Judge(["maybe", "yes"]),
        Judge(["yes"]),
        Judge(["yes", "yes"], context=100),
    ],
)
def test_a_model_that_cannot_be_believed_changes_nothing(judge):
    answer, untouched = cited(CLEAR, PARAPHRASE, STRETCHED), cited(CLEAR, PARAPHRASE, STRETCHED)
    check(answer, judge)
    assert (answer.unsupported, answer.citations) == (untouched.unsupported, untouched.citations)


@pytest.mark.parametrize("reply", ["", "yes", "[]", "{", '{"s1": "yes"}', BackendError("gone")])
def test_nonsense_and_failure_leave_the_words_verdicts(reply):
    class Broken(Judge):
        def stream(self, *args, **options):
            if isinstance(reply, BackendError):
                raise reply
            yield reply

    answer = cited(PARAPHRASE)
    check(answer, Broken([]))
    assert len(answer.unsupported) == 1


def test_nothing_doubtful_costs_no_call():
    judge = Judge([])
    check(cited(CLEAR, WRONG), judge)
    assert not judge.asked


def test_a_marker_that_another_sentence_shares_keeps_its_support():
    answer = cited(CLEAR)
    first = answer.citations[0].support
    answer.overrule(answer.claims[0], holds=False)
    assert answer.citations[0].support < SUPPORTED < first and answer.unsupported == [answer.claims[0].shown]
    both = cited(CLEAR, "For most tasks a rank of 16 is enough [1].")
    assert len(both.citations) == 1
    both.overrule(both.claims[0], holds=False)
    assert both.citations[0].support == first


def test_a_small_context_asks_about_fewer_sentences():
    answer = cited(PARAPHRASE, STRETCHED)
    judge = Judge(["yes"], context=400)
    check(answer, judge)
    assert len(judge.asked[0]["schema"]["required"]) == 3


@pytest.fixture(scope="module")
def index(built_home):
    opened = Index.open(built_home / "index")
    yield opened
    opened.close()


def verdicts(body: dict, word: str) -> Reply:
    """Answers an entailment question: the known ones right, `word` to the others."""
    names = body["format"]["required"]
    return said(json.dumps({name: {1: "no", 2: "yes"}.get(i, word) for i, name in enumerate(names)}))


@pytest.mark.parametrize(("word", "share"), [("yes", 0.333), ("no", 0.667)])
def test_an_answer_of_ollama_is_checked_with_its_format_and_tells_the_share(index, word, share):
    text = "Start LoRA at a learning rate of 2e-4 [1]. At first take about 2e-4 for LoRA rates and look at validation curves [1]. The moon is made of cheese [1]."

    def chat(body):
        return verdicts(body, word) if "format" in body else said(text)

    with serving(ollama(chat)) as (host, seen):
        answer = ask(
            index,
            "Which learning rate for LoRA?",
            settings=Settings("ollama", ollama_host=host, ollama_model="q3think"),
        )
    asked = [request["body"] for request in seen if "format" in request["body"]]
    assert len(asked) == 1 and asked[0]["think"] is False and asked[0]["truncate"] is False
    assert to_json(answer)["unsupported_share"] == answer.unsupported_share == share
    assert len(answer.unsupported) == round(3 * share)


def test_an_openai_server_is_asked_with_a_strict_schema():
    reply = events({"choices": [{"delta": {"content": '{"s1": "yes", "s2": "no", "s3": "yes"}'}}]}, "[DONE]")

    def respond(method, path, body):
        return Reply(200, [b'{"data": [{"id": "m"}]}']) if method == "GET" else reply

    answer = cited(PARAPHRASE)
    with serving(respond) as (host, seen):
        check(answer, pick(Settings("openai", openai_base_url=f"{host}/v1")))
    asked = seen[-1]["body"]["response_format"]
    assert asked["type"] == "json_schema" and asked["json_schema"]["schema"] == schema(3)
    assert asked["json_schema"]["strict"] and not answer.unsupported


def test_quotes_are_not_asked_about(index):
    answer = ask(index, "Which learning rate for LoRA?", settings=Settings("extract"))
    assert to_json(answer)["unsupported_share"] == 0.0 and not answer.unsupported
