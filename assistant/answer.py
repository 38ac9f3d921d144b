"""Question → answer whose every [n] resolves to a passage. The last step of asking; screens call `stream` or `ask`.

Gate (refuse without a model) → passages → a model's sentences or quoted ones → support check of each.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from assistant import entailment, extract, prompts, refusal, rerank
from assistant.backends import say
from assistant.followup import carried_over, names
from assistant.llm import Backend, BackendError, Settings, check, pick
from assistant.markers import Cited
from assistant.passages import widened
from assistant.retrieve import search
from assistant.terms import content, gist, squeezed
from assistant.types import Answer, Citation, Hit
from ingest.index import Index
from ingest.text import clean, detect_lang
from kb.errors import UserError

HITS = 6
NEAR = 20
ANSWER_TOKENS = 768
LONGEST = 2000  # characters of a question
Message = dict[str, str]


@dataclass(frozen=True)
class Partial:
    """An answer on its way: all of its text so far, thinking apart. `text` only ever grows."""

    text: str
    backend: str
    citations: list[Citation] = field(default_factory=list)
    thinking: str = ""


def ask(
    index: Index,
    question: str,
    history: Sequence[Message] = (),
    lang: str | None = None,
    settings: Settings = Settings(),
) -> Answer:
    """The whole answer. `history` are earlier messages, {"role", "content"}, oldest first.

    `lang` is the reader's language (default: the question's). Raises llm.BackendError when the backend
    asked for is not there or fails before its first word.
    """
    *_, last = stream(index, question, history, lang, settings)
    return last


def stream(
    index: Index,
    question: str,
    history: Sequence[Message] = (),
    lang: str | None = None,
    settings: Settings = Settings(),
) -> Iterator[Partial | Answer]:
    """`ask` step by step: Partials, and as the last item the Answer."""
    start = time.monotonic()
    question = clean(question).strip()[:LONGEST]
    lang = prompts.reader(lang or detect_lang(question))
    check(settings, lang)
    for part in _answer(index, question, _messages(history), lang, settings):
        yield replace(part, seconds=round(time.monotonic() - start, 3)) if isinstance(part, Answer) else part


def _answer(
    index: Index, question: str, history: list[Message], lang: str, settings: Settings
) -> Iterator[Partial | Answer]:
    if not re.search(r"[^\W\d_]", "".join(content(question))) or prompts.is_greeting(question):
        said = prompts.GREETING if prompts.is_greeting(question) else prompts.EMPTY
        yield _plain(said[lang], lang)
        return
    alone = carried_over(question, history)
    most = rerank.CANDIDATES if settings.reranker else HITS
    hits = found(index, alone, lang, most)
    # an English question is held against English passages, also where the answer will be read in Chinese
    asked_in = detect_lang(question)
    judged = hits if asked_in[:2] == lang[:2] else found(index, alone, asked_in)
    if refusal.answerable(alone, judged, index) < refusal.THRESHOLD:
        yield refused(question, found(index, alone, lang, NEAR), lang)  # wide enough for three pages
        return
    backend = pick(settings, lang)
    if backend.name == "extract":
        hits, fault = _reread(alone, hits, settings)
        yield _with(fault, _quoted(index, alone, hits, lang))
        return
    try:
        if history and alone != question:
            alone = _rewritten(backend, question, history, lang) or alone
            hits = found(index, alone, lang, most)
        hits, fault = _reread(alone, hits, settings)
        for part in _modelled(backend, alone, widened(index, hits, HITS), lang):
            yield _with(fault, part)
    except BackendError as error:
        # nothing had arrived; who asked for this model hears why, who left it open gets the quotes
        if settings.backend != "auto":
            raise
        yield replace(_quoted(index, alone, hits, lang), error=str(error))


def _modelled(backend: Backend, question: str, hits: list[Hit], lang: str) -> Iterator[Partial | Answer]:
    """A model's answer. Raises BackendError only when it fails before its first word."""
    room = min(ANSWER_TOKENS, backend.context // 3)
    messages, used = prompts.answering(question, hits, lang, backend.context - room, backend.count)
    if not used:
        raise BackendError(prompts.NO_ROOM[lang].format(model=backend.model, context=backend.context))
    cited, thoughts, opening, error = Cited(used), [], "", ""
    try:
        for piece in backend.stream(messages, room, on_thought=thoughts.append):
            if not cited.started:  # it may be about to say that the passages do not answer
                opening += piece
                piece = "" if _may_refuse(opening) else opening.lstrip()
            cited.feed(piece)
            yield Partial(cited.visible(), backend.name, list(cited.citations), "".join(thoughts))
    except BackendError as fault:
        if not cited.started:
            raise
        error = str(fault)
    if opening.lstrip().startswith(prompts.NOT_FOUND):
        said = {
            "backend": backend.name,
            "model": backend.model,
            "thinking": "".join(thoughts),
            "error": error,
        }
        yield replace(refused(question, hits, lang), **said)
        return
    cited.finish()
    if not cited.text:
        raise BackendError(error or say("silent", lang, model=backend.model))
    if not error:
        yield Partial(cited.text, backend.name, list(cited.citations), "".join(thoughts))
        entailment.check(cited, backend)
    yield Answer(
        text=cited.text, citations=cited.citations, refused=False, backend=backend.name, seconds=0.0, lang=lang,
        unsupported=cited.unsupported, thinking="".join(thoughts), error=error, model=backend.model,
        unsupported_share=_unsupported_share(cited),
    )  # fmt: skip


def _may_refuse(opening: str) -> bool:
    said = opening.lstrip()
    return prompts.NOT_FOUND.startswith(said) or said.startswith(prompts.NOT_FOUND)


def _quoted(index: Index, question: str, hits: list[Hit], lang: str) -> Answer:
    """The answer without a model; a refusal when no sentence bears on the question."""
    cited = extract.compose(question, hits, index.idf, lang)
    if not cited.citations:
        return refused(question, hits, lang)
    text, unsupported = cited.text, cited.unsupported
    if lang == "zh-CN":  # the library's Chinese is Traditional
        text, unsupported = simplified(text), [simplified(sentence) for sentence in unsupported]
    share = _unsupported_share(cited)
    return Answer(text, cited.citations, False, "extract", 0.0, lang, unsupported, unsupported_share=share)


def _unsupported_share(cited: Cited) -> float:
    return round(len(cited.unsupported) / len(cited.claims), 3) if cited.claims else 0.0


def refused(question: str, hits: list[Hit], lang: str) -> Answer:
    """A plain refusal with the nearest three pages; costs no model call."""
    nearest: dict[str, Hit] = {}
    for hit in hits:
        nearest.setdefault(hit.page, hit)
    pages = list(nearest.values())[:3]
    names = [hit.heading.split(" › ")[0] for hit in pages]
    text = prompts.refusal(question, names, lang)
    return Answer(
        simplified(text) if lang == "zh-CN" else text, [], True, "extract", 0.0, lang, nearest=pages
    )


def found(index: Index, question: str, lang: str | None, k: int = HITS) -> list[Hit]:
    """The passages that a question is answered from."""
    return search(index, gist(question), k, lang or detect_lang(question))


def _reread(question: str, hits: list[Hit], settings: Settings) -> tuple[list[Hit], str]:
    """The best HITS, in the reranker's order where one is set; and why they are not, in one line."""
    if not settings.reranker:
        return hits, ""
    try:
        return rerank.rerank(question, hits, rerank.load(settings.reranker))[:HITS], ""
    except UserError as error:  # the passages are there all the same
        return hits[:HITS], str(error)


def _with(fault: str, part: Partial | Answer) -> Partial | Answer:
    """A part of the answer; its last one tells what went wrong on the way."""
    if not fault or isinstance(part, Partial) or part.refused:
        return part
    return replace(part, error=f"{part.error}; {fault}" if part.error else fault)


def _messages(history: Sequence[Message]) -> list[Message]:
    """The history, each message cut to what a question may have. Raises UserError for another shape."""
    kept = []
    for number, turn in enumerate(history):
        if not isinstance(turn, dict) or not all(
            isinstance(turn.get(key), str) for key in ("role", "content")
        ):
            raise UserError(f'history[{number}]: expected {{"role": "user" or "assistant", "content": text}}')
        kept.append({"role": turn["role"], "content": clean(turn["content"])[:LONGEST]})
    return kept


def turns(conversation: Sequence[tuple[str, Answer]]) -> list[Message]:
    """(question, answer) pairs of a stored conversation as `history`."""
    pairs = (
        ({"role": "user", "content": q}, {"role": "assistant", "content": a.text}) for q, a in conversation
    )
    return [message for pair in pairs for message in pair]


def to_json(answer: Answer) -> dict[str, Any]:
    """The shape that other programs rely on; see DESIGN, "Command line"."""
    citations = [
        {"marker": c.marker, "id": c.id, "page": c.page, "heading": c.heading, "quote": c.quote, "support": c.support,
         "sources": c.sources, "lang": c.lang}
        for c in answer.citations
    ]  # fmt: skip
    nearest = [{"id": hit.id, "page": hit.page, "heading": hit.heading} for hit in answer.nearest]
    shape = {
        "text": answer.text, "refused": answer.refused, "citations": citations, "backend": answer.backend,
        "seconds": answer.seconds, "lang": answer.lang, "unsupported": answer.unsupported,
        "unsupported_share": answer.unsupported_share, "nearest": nearest,
    }  # fmt: skip
    extra = {"thinking": answer.thinking, "error": answer.error, "model": answer.model}
    return shape | {key: value for key, value in extra.items() if value}


def _rewritten(backend: Backend, question: str, history: list[Message], lang: str) -> str:
    """The question made stand-alone by the model; "" when that fails or looks like an answer."""
    try:
        said = (
            "".join(backend.stream(prompts.rewriting(question, history, lang), 96)).strip().strip('"「」“”')
        )
    except BackendError:
        return ""
    whole = all(squeezed(name.text) in squeezed(said) for name in names(question))
    return said if 0 < len(said) <= 300 and "\n" not in said and whole else ""


def _plain(text: str, lang: str) -> Answer:
    return Answer(text, [], False, "extract", 0.0, lang)


def simplified(text: str) -> str:
    """Traditional text as readers of Simplified write it, terms included (記憶體 → 内存)."""
    return _converter().convert(text)


@lru_cache(maxsize=1)
def _converter():
    from opencc import OpenCC

    return OpenCC("tw2sp")
