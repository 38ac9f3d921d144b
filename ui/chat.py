"""Talking to a model by name: a run's GGUF in llama.cpp, a GGUF file, or a model in Ollama."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from kb.errors import UserError
from trainer import runs
from trainer.data.convert import instructed
from trainer.methods import METHODS
from ui.home import Home

Talk = Callable[..., Iterator[str]]
CONTEXT = 4096
KEPT = 2  # the trained model and its base


class Engines:
    """Loaded GGUF files of this process, the least recently used one closed first. Safe over threads."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._loaded: OrderedDict[tuple[Path, float], Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, gguf: Path):
        from trainer.export.llamacpp import LlamaCpp

        key = (gguf, gguf.stat().st_mtime)
        with self._lock:
            if key not in self._loaded:
                while len(self._loaded) >= self._kept:
                    self._loaded.popitem(last=False)[1].close()
                self._loaded[key] = LlamaCpp(gguf, n_ctx=CONTEXT)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    def close(self) -> None:
        with self._lock:
            while self._loaded:
                self._loaded.popitem()[1].close()


def task_messages(folder: Any, history: list[dict[str, str]]) -> list[dict[str, str]]:
    """The conversation as the run was trained on it: its system message, and its instruction before the text."""
    config = folder.config()
    messages = [dict(message) for message in history]
    for message in messages:
        if message["role"] == "user":
            message["content"] = instructed(config.instruction, message["content"])
    if config.system_prompt:
        messages.insert(0, {"role": "system", "content": config.system_prompt})
    return messages


def judged(folder: Any, text: str) -> str:
    """What a classifier run says of a text: its labels, the likeliest first, a line each. Raises UserError."""
    if METHODS[folder.config().method].output == "score":
        raise UserError(
            f"{folder.id}: a reward model scores pairs of answers, it does not chat; see its scores"
        )
    shares = _classifier(folder.path, folder).probabilities(text)
    return "\n".join(f"{label}  {100 * share:.1f} %" for label, share in shares.items())


@lru_cache(maxsize=1)
def _classifier(path: Path, folder: Any) -> Any:
    from trainer.classifier import Classifier

    return Classifier(folder)


@contextmanager
def open_model(home: Home, name: str) -> Iterator[Talk]:
    """`talk(history) -> pieces of the reply` for a run id, a GGUF path or an Ollama model.

    Raises UserError when the run is not exported, the file is no GGUF, or Ollama has no such model.
    """
    if name.endswith(".gguf") or ("/" in name and (home.tasks / Path(name).parts[0]).is_dir()):
        engines = Engines()
        try:
            yield _in_process(home, name, engines)
        finally:
            engines.close()
    else:
        yield _in_ollama(home, name)


@contextmanager
def open_adapters(home: Home, names: list[str]) -> Iterator[tuple[Talk, Callable[[str], None]]]:
    """(talk, use) on the base of several runs with all their adapters beside it, the first in use.

    use(name) puts another run's adapter on, "base" takes all off. Raises UserError for a run whose adapter is not
    exported, or whose base is another.
    """
    from trainer.export.llamacpp import LlamaCpp

    folders = {name: runs.find(home.tasks, name) for name in names}
    for name, folder in folders.items():
        if not (folder.path / "export" / "adapter.gguf").is_file():
            raise UserError(f"{name}: its adapter is not exported; run: tunesmith export {name} --to adapter")
    first, config = names[0], folders[names[0]].config()
    for name, folder in folders.items():
        if folder.config().base_model != config.base_model:
            raise UserError(f"{name}: its base is another than {first}'s; chat with runs of one base")
    paths = [folder.path / "export" / "adapter.gguf" for folder in folders.values()]
    with LlamaCpp(folders[first].path / "export" / "base.gguf", n_ctx=CONTEXT, adapters=paths) as engine:
        current = {"name": first}

        def use(name: str) -> None:
            if name not in (*folders, "base"):
                raise UserError(f"{name!r} is not loaded; choose one of {', '.join([*folders, 'base'])}")
            engine.use({} if name == "base" else {names.index(name): 1.0})
            current["name"] = name

        def talk(history: list[dict[str, str]], **options: Any) -> Iterator[str]:
            folder = folders.get(current["name"])
            return engine.chat(task_messages(folder, history) if folder else history, **options)

        use(first)
        yield talk, use


def _in_process(home: Home, name: str, engines: Engines) -> Talk:
    if name.endswith(".gguf"):
        if not Path(name).is_file():
            raise UserError(
                f"{name}: no such file; give the path of a GGUF file, a run such as task/v1, or an Ollama model"
            )
        engine = engines.get(Path(name))
        return lambda history, **options: engine.chat(history, **options)
    folder = runs.find(home.tasks, name)
    if METHODS[folder.config().method].output != "text":
        return lambda history, **options: iter([judged(folder, history[-1]["content"])])
    gguf = folder.path / "export" / "model.gguf"
    if not gguf.exists():
        raise UserError(f"{name} is not exported yet; run: tunesmith export {name} --to gguf")
    engine = engines.get(gguf)
    return lambda history, **options: engine.chat(task_messages(folder, history), **options)


def _in_ollama(home: Home, name: str) -> Talk:
    from trainer.export.ollama import Ollama

    server = Ollama(home.settings().ollama_host)
    host = server.host
    if server.version() is None:
        raise UserError(
            f"{name!r} is no run here, and Ollama does not answer at {host}; start it with `ollama serve`, or give a run such as task/v1"
        )
    names = [model["name"] for model in server.models()]
    if name not in names and f"{name}:latest" not in names:
        raise UserError(f"Ollama at {host} has no model {name!r}; it has: {', '.join(names) or 'none'}")
    return lambda history, **options: ollama_chat(server, name, history, **options)


def ollama_chat(server: Any, name: str, history: list[dict[str, str]], **options: Any) -> Iterator[str]:
    for event in server.chat(name, history, num_ctx=CONTEXT, **options):
        yield event if isinstance(event, str) else event.get("message", {}).get("content", "")
