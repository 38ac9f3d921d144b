"""One answer of a chosen model, streamed with its times. A model is named by kind and name:

run:reviews/v1 (its GGUF file), q8_0:reviews/v1, base:reviews/v1 (the run's untrained base), gguf:/a/path, ollama:name.
Files run in llama.cpp, in this app; Ollama's models on its server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kb.errors import UserError
from trainer import runs
from trainer.methods import METHODS
from ui.chat import CONTEXT, judged, task_messages
from ui.context import Context
from ui.i18n import Translate

FILES = {"run": "model.gguf", "q8_0": "model-q8_0.gguf", "base": "base.gguf"}


@dataclass(frozen=True)
class Spoken:
    """An answer so far. first: seconds to its first piece, loading not counted; tokens and per_second are the engine's
    own, known at the end."""

    text: str = ""
    first: float | None = None
    seconds: float = 0.0
    tokens: int | None = None
    per_second: float | None = None
    whole: bool = False


def speak(context: Context, lang: str, t: Translate, ref: str, messages: list, options: dict) -> Iterator[Spoken]:  # fmt: skip
    """Stream the answer to messages. options: temperature, top_p, max_tokens, seed. Raises UserError."""
    told: dict[str, Any] = {}
    pieces = _pieces(context, lang, t, ref, messages, options, told)
    spoken, began = Spoken(), told.setdefault("began", time.monotonic())
    for piece in pieces:
        began = told["began"]
        now = time.monotonic() - began
        first = spoken.first if spoken.first is not None else now
        spoken = replace(spoken, text=spoken.text + piece, first=first, seconds=now)
        yield spoken
    yield replace(spoken, seconds=time.monotonic() - began, tokens=told.get("tokens"), per_second=told.get("per_second"), whole=True)  # fmt: skip


def _pieces(context, lang, t, ref, messages, options, told) -> Iterator[str]:
    kind, _, name = ref.partition(":")
    if kind == "ollama":
        from trainer.export.ollama import Ollama

        server = Ollama(context.home.settings().ollama_host, lang)
        if server.version() is None:
            raise UserError(t("test.ollama_missing", host=server.host))
        event: dict[str, Any] = {}
        for event in server.chat(name, messages, num_ctx=CONTEXT, **options):
            yield (event.get("message") or {}).get("content", "")
        if event.get("eval_count") and event.get("eval_duration"):  # nanoseconds
            told |= {"tokens": event["eval_count"], "per_second": event["eval_count"] / event["eval_duration"] * 1e9}  # fmt: skip
        return
    if kind in ("run", "base") and has_head(run := runs.find(context.home.tasks, name)):
        if kind == "base":
            raise UserError(t("test.head_base"))
        yield judged(run, messages[-1]["content"])
        return
    engine = context.engines.get(file_of(context, t, kind, name))
    told["began"] = time.monotonic()

    def measured(timings: dict[str, Any]) -> None:
        told.update(tokens=timings.get("predicted_n"), per_second=timings.get("predicted_per_second"))

    yield from engine.chat(messages, measured=measured, **options)


def has_head(run: Any) -> bool:
    """Whether a run's model ends in a head (a classifier, a reward model), which puts the instruction there itself."""
    return METHODS[run.config().method].output != "text"


def file_of(context: Context, t: Translate, kind: str, name: str) -> Path:
    """The GGUF file of a model. Raises UserError where it is not there."""
    if kind == "gguf":
        path = Path(name).expanduser()
        if not path.is_file():
            raise UserError(f"{name}: no such file; check the path")
        return path
    gguf = runs.find(context.home.tasks, name).path / "export" / FILES[kind]
    if not gguf.is_file():
        raise UserError(
            t("test.base_missing") if kind == "base" else t("test.not_exported", button=t("test.export"))
        )
    return gguf


def prompted(context: Context, ref: str, chosen: str, messages: list) -> list:
    """The messages with what the model's own run, else the chosen one, puts to every text."""
    kind, _, name = ref.partition(":")
    run = runs.find(context.home.tasks, name if kind in FILES else chosen)
    return messages if has_head(run) else task_messages(run, messages)


def named(ref: str) -> str:
    """What a person typed as a model; a bare path of a GGUF file is one."""
    kind = ref.partition(":")[0]
    return ref if kind in (*FILES, "gguf", "ollama") else f"gguf:{ref}"


def title(ref: str, t: Translate) -> str:
    """A model's name for a person."""
    kind, _, name = ref.partition(":")
    if kind == "base":
        return t("side.base", run=name)
    return {"run": name, "q8_0": f"{name} q8_0", "ollama": f"{name} (Ollama)"}.get(kind, Path(name).name)


def menu(context: Context, chosen: Any, finished: Sequence[Any], t: Translate) -> list[tuple[str, str]]:
    """(title, model) of all that can be talked to: the chosen run and its base first, then other runs, then Ollama's."""
    found = [f"run:{chosen.id}", f"base:{chosen.id}"]
    for folder in [chosen, *(other for other in finished if other.id != chosen.id)]:
        found += [f"{kind}:{folder.id}" for kind in ("run", "q8_0") if (folder.path / "export" / FILES[kind]).is_file()]  # fmt: skip
    found += [f"ollama:{name}" for name in in_ollama(context)]
    return [(title(ref, t), ref) for ref in dict.fromkeys(found)]


def in_ollama(context: Context) -> list[str]:
    """Names of the server's models; none while it does not answer."""
    from trainer.export.ollama import Ollama

    try:
        server = Ollama(context.home.settings().ollama_host)
        return [model["name"] for model in server.models()] if server.version() else []
    except UserError:
        return []
