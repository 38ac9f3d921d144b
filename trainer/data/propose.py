"""Rows that a local model writes: for thin classes, as paraphrases, as preference pairs of base and tuned answers.

The model is whatever answers `ask(messages, schema, seed) -> text`; the callers in ui/ bring one. What it writes goes
to a review file (review.py): checked against a JSON schema, compared with every row of the data, marked synthetic.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.data import near, scan
from trainer.data.convert import Row, convert_rows
from trainer.data.detect import Detected
from trainer.data.language import language_of
from trainer.data.read import check_path, file_hash
from trainer.data.review import Candidate, read_review, text_of, write_review
from trainer.data.rows import change_texts, format_of, labels_in, shaped
from trainer.data.splits import fold, label_of
from trainer.data.unsafe import unsafe

Ask = Callable[[list[dict[str, str]], dict[str, Any], int], str]
Told = Callable[[int, int], None]  # (candidates so far, wanted)
EXAMPLES = 5
A_TIME = 5  # rows asked for in one answer
TRIES = 3  # answers for each that would be needed if all were good
MADE = ("text+label", "prompt-completion", "alpaca", "messages", "sharegpt")

PROMPTS = {
    "generate": {
        "en": "Below are examples of a data set{label}. Write {n} new ones of the same kind, each different from the "
        "examples and from each other in subject and wording, as a person would write them. Answer in JSON.\n\n{examples}",
        "zh": "以下是一個資料集的例子{label}。請再寫 {n} 筆同類的資料，主題和用詞都要和例子不同，彼此也要不同，"
        "像真人寫的一樣，並使用和例子相同的語言與字體。請用 JSON 回答。\n\n{examples}",
    },
    "paraphrase": {
        "en": "Write {n} paraphrases of the text below: the same meaning in other words, in the same language. Answer in "
        "JSON.\n\n{examples}",
        "zh": "請把下面這段文字改寫成 {n} 種說法：意思相同、用詞不同，使用相同的語言與字體。請用 JSON 回答。\n\n{examples}",
    },
}
LABELLED = {"en": ', all with the label "{label}"', "zh": "，標籤都是「{label}」"}


@dataclass
class Proposed:
    """What came of it: `made` candidates, and what was thrown away by reason."""

    made: int = 0
    thrown: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Source:
    """The data file that candidates are written for."""

    path: Path
    detected: Detected
    sha256: str
    found: list[tuple[int, dict[str, Any], Row]]
    lang: str

    @property
    def texts(self) -> list[str]:
        return [text_of(row) for _, _, row in self.found]


def source_of(path: Path) -> Source:
    """Raises UserError for a format whose rows are not written by a model."""
    path = Path(path)
    check_path(path)
    detected = format_of(path)
    if detected.format not in MADE:
        raise UserError(f"{path}: rows of {detected.format} are not generated; give one of {', '.join(MADE)}")
    found = list(shaped(path, Counter(), detected))
    language, _ = language_of([row["prompt"][-1]["content"] for _, _, row in found])
    return Source(path, detected, file_hash(path), found, "zh" if language.startswith("zh") else "en")


def thin_classes(source: Source, least: int) -> dict[str, int]:
    """Rows that each class lacks to have `least`; {} where answers are no labels."""
    counts = Counter(label_of(row).strip() for _, _, row in source.found)
    if labels_in(counts, source.detected) is None:
        return {}
    return {label: least - count for label, count in sorted(counts.items()) if count < least}


def generate(
    path: Path, out: Path, ask: Ask, model: str, least: int = 20, most: int = 10, seed: int = 42, told: Told = lambda a, b: None
) -> Proposed:  # fmt: skip
    """Candidates for every class of fewer than `least` rows, at most `most` a class; without labels `most` rows like
    the others. Written after every answer, so that what there is can be reviewed when it is stopped."""
    source = source_of(path)
    thin = {label: min(lack, most) for label, lack in thin_classes(source, least).items()}
    labelled = (
        labels_in(Counter(label_of(row).strip() for _, _, row in source.found), source.detected) is not None
    )
    if labelled and not thin:
        raise UserError(f"{path}: every class has {least} rows or more; raise --to")
    generator = random.Random(seed)
    by_label: dict[str, list[tuple[int, Row]]] = defaultdict(list)
    for number, _, row in source.found:
        by_label[label_of(row).strip() if labelled else ""].append((number, row))
    writer = _Writer(source, out, ask, model, "generate", sum((thin or {"": most}).values()), told)
    for label, wanted in (thin or {"": most}).items():
        for turn in range(TRIES * -(-wanted // A_TIME)):
            missing = wanted - writer.of(label)
            if missing <= 0:
                break
            shown = generator.sample(by_label[label], min(EXAMPLES, len(by_label[label])))
            named = LABELLED[source.lang].format(label=label) if labelled else ""
            examples = "\n".join(f"- {_example(row, labelled)}" for _, row in shown)
            words = {"n": A_TIME, "label": named, "examples": examples}
            keys = ("text",) if labelled else ("question", "answer")
            for item in writer.ask(keys, words, seed + turn):
                answer = label if labelled else item["answer"]
                writer.keep(_record(source, item, answer), label, [number for number, _ in shown], wanted)
    return writer.proposed


def paraphrase(path: Path, out: Path, ask: Ask, model: str, rows: int = 10, each: int = 2, seed: int = 42, told: Told = lambda a, b: None) -> Proposed:  # fmt: skip
    """`each` paraphrases of the last question of `rows` rows drawn by seed; the answer stays as it is."""
    source = source_of(path)
    chosen = random.Random(seed).sample(source.found, min(rows, len(source.found)))
    writer = _Writer(source, out, ask, model, "paraphrase", each * len(chosen), told)
    for number, record, row in chosen:
        text = row["prompt"][-1]["content"]
        for item in writer.ask(("text",), {"n": each, "examples": text}, seed):
            writer.keep(_replaced(source, record, text, item["text"]), str(number), [number], each)
    return writer.proposed


def preference_pairs(path: Path, out: Path, tuned: Ask, base: Ask, models: tuple[str, str], rows: int = 20, seed: int = 42, told: Told = lambda a, b: None) -> Proposed:  # fmt: skip
    """A pair for each of `rows` prompts: the tuned model's answer chosen, the base model's rejected, a person to judge.

    `models` are their names, tuned first. Answers of the same words are thrown away.
    """
    detected = format_of(path)
    found = [item for item in shaped(Path(path), Counter(), detected) if "prompt" in item[2]]
    if not found:
        raise UserError(f"{path}: its rows have no prompts; give questions with answers")
    source = Source(Path(path), detected, file_hash(Path(path)), found, "en")
    chosen = random.Random(seed).sample(found, min(rows, len(found)))
    writer = _Writer(source, out, tuned, " / ".join(models), "pair", len(chosen), told)
    for number, _, row in chosen:
        answers = [ask(row["prompt"], {}, seed).strip() for ask in (tuned, base)]
        if not all(answers) or _words(answers[0]) == _words(answers[1]):
            writer.proposed.thrown["equal" if all(answers) else "empty"] += 1
            continue
        say = lambda text: [{"role": "assistant", "content": text}]
        record = {"prompt": row["prompt"], "chosen": say(answers[0]), "rejected": say(answers[1])}
        writer.put(record, [number], seed, hashlib.sha256(json.dumps(row["prompt"]).encode()).hexdigest())
    return writer.proposed


def _words(text: str) -> str:
    """A text without its marks and case."""
    return re.sub(r"\W", "", fold(text))


class _Writer:
    """Asks, checks, compares, and writes what is left to the review file."""

    def __init__(
        self, source: Source, out: Path, ask: Ask, model: str, kind: str, wanted: int, told: Told
    ) -> None:
        self.source, self.out, self._ask, self.model, self.kind = source, Path(out), ask, model, kind
        if self.out.suffix != ".jsonl":
            raise UserError(f"{out}: the review file is JSON lines; name it {self.out.with_suffix('.jsonl')}")
        self.candidates: list[Candidate] = read_review(self.out) if self.out.is_file() else []
        earlier = [self._text(one["record"]) for one in self.candidates]
        self.sketches = near.sketch(
            [*source.texts, *earlier]
        )  # of everything that a candidate must not repeat
        self.proposed, self.wanted, self.told = Proposed(), wanted, told
        self.classes: Counter[str] = Counter()
        self.asked = ("", 0)

    def of(self, label: str) -> int:
        return self.classes[label]

    def ask(self, keys: tuple[str, ...], words: dict[str, Any], seed: int) -> Iterator[dict[str, str]]:
        """Items of one answer that follow the schema."""
        import jsonschema

        text = {"type": "string", "minLength": 1, "maxLength": 4000}
        item = {
            "type": "object",
            "properties": dict.fromkeys(keys, text),
            "required": list(keys),
            "additionalProperties": False,
        }
        rows = {"type": "array", "items": item, "minItems": 1, "maxItems": words["n"]}
        schema = {
            "type": "object",
            "properties": {"rows": rows},
            "required": ["rows"],
            "additionalProperties": False,
        }
        prompt = PROMPTS[self.kind][self.source.lang].format(**words)
        self.asked = hashlib.sha256(prompt.encode()).hexdigest(), seed
        try:
            answer = json.loads(self._ask([{"role": "user", "content": prompt}], schema, seed))
            jsonschema.validate(answer, schema)
        except (ValueError, RecursionError, jsonschema.ValidationError):
            self.proposed.thrown["no_schema"] += 1
            return
        yield from answer["rows"]

    def keep(self, record: dict[str, Any], label: str, examples: list[int], most: int) -> None:
        """Keep a record that is new, and at most `most` of its class."""
        text = self._text(record)
        if not text:
            self.proposed.thrown["empty"] += 1
            return
        joined = near.Sketches.joined([self.sketches, near.sketch([text])])
        if near.groups(joined)[-1] != len(joined.bands) - 1:
            self.proposed.thrown["near_duplicates"] += 1
        elif self.classes[label] < most:
            self.sketches = joined
            self.classes[label] += 1
            self.put(record, examples, self.asked[1], self.asked[0])

    def _text(self, record: dict[str, Any]) -> str:
        made = convert_rows([(1, record)], self.source.detected, "turns").rows
        return text_of(made[0]) if made else ""

    def put(self, record: dict[str, Any], examples: list[int], seed: int, prompt: str) -> None:
        whole = json.dumps(record, ensure_ascii=False)
        notes = sorted(
            {pattern.kind for pattern, _ in scan.private(whole)}
            | ({"unsafe_text"} if unsafe(whole) else set())
        )
        self.candidates.append({
            "id": len(self.candidates) + 1, "status": "waiting", "kind": self.kind, "record": record, "model": self.model,
            "input": self.source.path.name, "input_sha256": self.source.sha256, "prompt_sha256": prompt, "seed": seed,
            "from": examples, "notes": notes,
        })  # fmt: skip
        write_review(self.out, self.candidates)
        self.proposed.made += 1
        self.told(self.proposed.made, self.wanted)


def _example(row: Row, labelled: bool) -> str:
    question = " ".join(row["prompt"][-1]["content"].split())[:1000]
    if labelled:
        return question
    return json.dumps(
        {"question": question, "answer": row["completion"][-1]["content"][:1000]}, ensure_ascii=False
    )


def _record(source: Source, item: dict[str, str], answer: str) -> dict[str, Any]:
    """A record in the file's own columns."""
    question, columns = item.get("text") or item["question"], source.detected.columns
    if source.detected.format == "text+label":
        return {columns["text"]: question, columns["label"]: answer}
    if source.detected.format == "alpaca":
        return {columns["instruction"]: question, columns["output"]: answer}
    if source.detected.format == "prompt-completion":
        as_turns = isinstance(source.found[0][1].get(columns["prompt"]), list)
        turn = lambda role, text: [{"role": role, "content": text}] if as_turns else text
        return {columns["prompt"]: turn("user", question), columns["completion"]: turn("assistant", answer)}
    names = (
        ("from", "value", "human", "gpt")
        if source.detected.format == "sharegpt"
        else ("role", "content", "user", "assistant")
    )
    turns = [{names[0]: names[2], names[1]: question}, {names[0]: names[3], names[1]: answer}]
    return {columns["turns"]: turns}


def _replaced(source: Source, record: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The record with its last question written otherwise, and without its number."""
    kept = {
        name: value for name, value in record.items() if name.lower() not in ("id", "idx", "qid", "index")
    }
    changed = change_texts(kept, lambda text: new if text == old else text)
    if changed == kept:  # the question was joined of two columns
        return _record(
            source, {"text": new}, label_of(next(row for _, one, row in source.found if one is record))
        )
    return changed
