"""Rows of the less usual layouts: reasoning, tool calls, pairs without a prompt, history, spans by label."""

import json

import pytest

from trainer.data.convert import convert_rows, shape_of
from trainer.data.detect import find


def rows_of(*records):
    """(format, rows, faults) of records in the shape that their format suggests."""
    found = find(list(records))
    method = {"text": "cpt", "preference": "dpo", "kto": "kto"}.get(found.format, "sft")
    made = convert_rows(list(enumerate(records, 1)), found, shape_of(method))
    return found.format, made.rows, dict(made.faults)


def user(text):
    return {"role": "user", "content": text}


THOUGHT = "<think>\n6 times 7\n</think>\n\n42"


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [user("6×7?"), {"role": "assistant", "content": "42", "reasoning_content": "6 times 7"}]},
        {"messages": [user("6×7?"), {"role": "assistant", "content": "42", "reasoning": "6 times 7"}]},
        {"messages": [user("6×7?"), {"role": "assistant", "content": "42", "thinking": "6 times 7\n"}]},
        {"messages": [user("6×7?"), {"role": "assistant", "content": [{"type": "thinking", "thinking": "6 times 7"}, {"type": "text", "text": "42"}]}]},
        {"messages": [user("6×7?"), {"role": "assistant", "content": THOUGHT, "reasoning_content": "6 times 7"}]},
        {"messages": [user("6×7?"), {"role": "assistant", "content": THOUGHT}]},
        {"prompt": "6×7?", "completion": "42", "reasoning_content": "6 times 7"},
        {"Question": "6×7?", "Complex_CoT": "6 times 7", "Response": "42"},
        {"instruction": "6×7?", "output": "42", "reasoning": "6 times 7"},
        {"question": "6×7?", "answer": THOUGHT},
    ],
    ids=range(10),
)  # fmt: skip
def test_reasoning_stands_in_a_think_block_before_the_answer(record):
    _, rows, _ = rows_of(record)
    assert rows == [{"prompt": [user("6×7?")], "completion": [{"role": "assistant", "content": THOUGHT}]}]


# the part of Qwen3's chat template (Apache-2.0) that takes an assistant turn apart
QWEN3_TURN = """{%- set content = message.content %}{%- set reasoning_content = '' %}
{%- if '</think>' in content %}
{%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}"""


def test_qwen3s_template_reads_the_block_as_its_own():
    from jinja2.sandbox import SandboxedEnvironment

    _, rows, _ = rows_of({"prompt": "6×7?", "completion": "42", "thinking": "6 times 7"})
    shown = SandboxedEnvironment().from_string(QWEN3_TURN).render(message=rows[0]["completion"][0])
    assert shown == f"<|im_start|>assistant\n{THOUGHT}"


def test_tool_calls_of_both_forms_are_written_with_their_arguments_as_an_object():
    call = {"name": "weather", "arguments": '{"city": "Taipei"}'}
    for turn in (
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": call}],
        },
        {"role": "assistant", "content": "", "function_call": call},
    ):
        record = {
            "messages": [user("?"), turn, {"role": "tool", "content": "sunny"}, {"role": "assistant", "content": "Sunny."}],
            "tools": [{"type": "function", "function": {"name": "weather"}}],
        }  # fmt: skip
        kind, rows, faults = rows_of(record)
        written = rows[0]["prompt"][1]["content"]
        assert (kind, faults) == ("messages", {})
        assert json.loads(written.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")) == {
            "name": "weather",
            "arguments": {"city": "Taipei"},
        }
        assert json.loads(rows[0]["tools"])[0]["function"]["name"] == "weather"


def test_several_calls_and_words_before_them_stand_on_lines_of_their_own():
    calls = [{"function": {"name": name, "arguments": {}}} for name in ("a", "b")]
    record = {"messages": [user("?"), {"role": "assistant", "content": "Let me look.", "tool_calls": calls}]}
    _, rows, _ = rows_of(record)
    assert rows[0]["completion"][0]["content"] == (
        'Let me look.\n<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "b", "arguments": {}}\n</tool_call>'
    )


def said(row):
    return [[m["content"] for m in row[name]] for name in ("prompt", "chosen", "rejected")]


PAIRS = {
    "with a prompt": {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
    "conversational with a prompt": {
        "prompt": [user("Hi")],
        "chosen": [{"role": "assistant", "content": "Hello"}],
        "rejected": [{"role": "assistant", "content": "No"}],
    },
    "conversational without a prompt": {
        "chosen": [user("Hi"), {"role": "assistant", "content": "Hello"}],
        "rejected": [user("Hi"), {"role": "assistant", "content": "No"}],
    },
    "one text each (HH-RLHF)": {
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hello",
        "rejected": "\n\nHuman: Hi\n\nAssistant: No",
    },
    "a common beginning": {"chosen": "Hi\nHello", "rejected": "Hi\nNo"},
    "a column question": {"question": "Hi", "chosen": "Hello", "rejected": "No"},
    "a column input alone": {"input": "Hi", "chosen": "Hello", "rejected": "No"},
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_of_every_layout_have_their_prompt(name):
    kind, rows, faults = rows_of(PAIRS[name])
    assert (kind, faults) == ("preference", {})
    assert said(rows[0]) == [["Hi"], ["Hello"], ["No"]]


def test_a_pair_without_any_prompt_is_named():
    assert rows_of({"chosen": "The moon", "rejected": "The sun"})[1:] == ([], {"no_prompt": [1]})


def test_system_and_history_are_kept_beside_every_question():
    history = [["Hi", "Hello"]]
    for record in (
        {"query": "And?", "response": "Yes", "history": history, "system": "Be brief"},
        {"instruction": "And?", "output": "Yes", "history": history, "system": "Be brief"},
        {"prompt": "And?", "chosen": "Yes", "rejected": "No", "history": history, "system": "Be brief"},
        {"prompt": "And?", "completion": "Yes", "history": [user("Hi"), {"role": "assistant", "content": "Hello"}], "system": "Be brief"},
    ):  # fmt: skip
        _, rows, _ = rows_of(record)
        assert [(m["role"], m["content"]) for m in rows[0]["prompt"]] == [
            ("system", "Be brief"), ("user", "Hi"), ("assistant", "Hello"), ("user", "And?"),
        ]  # fmt: skip


def test_entities_listed_by_their_label_are_read_with_their_last_character():
    good = {"text": "生生不息CSOL", "label": {"game": {"CSOL": [[4, 7]]}}}
    wrong = {"text": "生生不息CSOL", "label": {"game": {"CSOL": [[0, 3]]}}}
    kind, rows, faults = rows_of(good, wrong)
    assert (kind, faults) == ("spans", {"bad_span": [2]})
    assert json.loads(rows[0]["completion"][0]["content"]) == [{"text": "CSOL", "type": "game"}]


KINDS = {
    "alpaca": {"instruction": "a", "input": "", "output": "b"},
    "sharegpt": {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    "messages": {"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    "prompt-completion": {"question": "a", "answer": "b #### 4"},
    "text+label": {"text": "a", "label": 0},
    "spans": {"text": "a", "entities": [[0, 1, "x"]]},
    "bio": {"tokens": ["a"], "ner_tags": ["B-X"]},
    "kto": {"prompt": "a", "completion": "b", "label": True},
    "text": {"text": "a"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_formats_are_told_apart(kind):
    found, rows, faults = rows_of(KINDS[kind])
    assert (found, len(rows), faults) == (kind, 1, {})
