"""A trained run → a model to chat with: merge → GGUF → proof against transformers → Ollama.

`export(folder, to="gguf")`, as a job of kind "export". All of it lands in RUN/export: merged/, model.gguf,
base.gguf (the untrained base, to compare), parity.json, Modelfile, status.json. Stages that are done stay done.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.config import RunConfig, UserError, write_atomic
from trainer.runs import RunFolder

TARGETS = ("merged", "gguf", "ollama")


def export(
    folder: RunFolder,
    to: str = "gguf",
    name: str | None = None,
    host: str | None = None,
    quantize: str | None = None,
) -> dict[str, Any]:
    """Export a finished run. Returns what was made: {"merged", "gguf", "parity", "ollama"}, as far as asked.

    to: "merged", "gguf" or "ollama". name: in Ollama, default task:version; host: of Ollama. quantize: q8_0,
    q4_K_M or q4_K_S, made by Ollama. A model that fails the proof is kept, marked "ready": false in status.json
    and parity.json, and not handed to Ollama. Raises UserError.
    """
    if to not in TARGETS:
        raise UserError(f"export to {to!r}: choose one of {', '.join(TARGETS)}")
    if folder.attempt is not None:  # a worker reports the end itself
        return _export(folder, to, name, host, quantize)
    folder = dataclasses.replace(folder, kind="export")
    folder.set_status(state="running", message="")
    try:
        made = _export(folder, to, name, host, quantize)
    except BaseException as error:
        folder.set_status(
            state="failed", stage="", message=" ".join(str(error).split()) or type(error).__name__
        )
        raise
    folder.set_status(state="done", stage="", message="")
    return made


def _export(
    folder: RunFolder, to: str, name: str | None, host: str | None, quantize: str | None
) -> dict[str, Any]:
    from trainer.export.merge import merge
    from trainer.export.modelfile import model_name
    from trainer.export.push import QUANTIZATIONS, check_name, server_at

    server = None
    if quantize and (to != "ollama" or quantize not in QUANTIZATIONS):
        raise UserError(f"quantize {quantize!r}: with --to ollama, one of {', '.join(QUANTIZATIONS)}")
    if to == "ollama":  # before an hour of work
        name = check_name(name or model_name(folder.id))
        server = server_at(host)
    config = folder.config()
    _check_disk(folder, config, to)
    folder.set_status(stage="merge", step=0, total_steps=None)
    made: dict[str, Any] = {"merged": merge(folder)}
    if to == "merged":
        return made
    made["gguf"] = _write_files(folder, config, made["merged"])
    made["parity"] = _prove(folder)
    settings = _write_modelfile(folder, config, made["merged"], made["gguf"])
    if server is not None:
        made["ollama"] = _hand_over(folder, server, name or "", made, settings, quantize)
    return made


def _check_disk(folder: RunFolder, config: RunConfig, to: str) -> None:
    """Before anything is written. Raises UserError with what is needed and what is free, in GB."""
    from trainer import base

    out = folder.path / "export"
    base_bytes = _weight_bytes(base.locate(config, folder.path))
    needed = 0 if config.peft == "full" or (out / "merged").is_dir() else base_bytes
    if to != "merged":
        needed += sum(base_bytes for file in ("model.gguf", "base.gguf") if not (out / file).is_file())
    free = shutil.disk_usage(folder.path).free
    if needed * 1.05 > free:
        raise UserError(
            f"{out}: the export needs {needed * 1.05 / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; free some space, then export again"
        )


def _weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _write_files(folder: RunFolder, config: RunConfig, merged: Path) -> Path:
    """model.gguf and base.gguf, unless they are there and newer than what they are made from."""
    from trainer import base
    from trainer.export.gguf import write_gguf

    out = folder.path / "export"
    folder.set_status(stage="gguf", step=0, total_steps=None)
    for source, target in (
        (merged, out / "model.gguf"),
        (base.locate(config, folder.path), out / "base.gguf"),
    ):
        if target.is_file() and target.stat().st_mtime >= source.stat().st_mtime:
            continue
        if target.name == "model.gguf":
            (out / "parity.json").unlink(missing_ok=True)  # it speaks of the older file
        write_gguf(source, target, progress=_reporter(folder, 1_000_000))
        print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)", flush=True)
    return out / "model.gguf"


def _prove(folder: RunFolder) -> dict[str, Any]:
    from trainer.export.parity import check

    path, gguf = folder.path / "export" / "parity.json", folder.path / "export" / "model.gguf"
    folder.set_status(stage="parity", step=0, total_steps=None)
    if not path.is_file() or path.stat().st_mtime < gguf.stat().st_mtime:
        check(folder, progress=_reporter(folder))
    parity = json.loads(path.read_text(encoding="utf-8"))
    folder.set_status(ready=parity["ready"])
    said = "the same" if parity["ready"] else f"NOT the same. {parity['cause']['en']}"
    print(f"parity: {parity['same']} of {parity['rows']} rows ({parity['compared']}): {said}", flush=True)
    return parity


def _write_modelfile(folder: RunFolder, config: RunConfig, merged: Path, gguf: Path) -> dict[str, Any]:
    """Modelfile beside the GGUF file; returns what `push` needs of it."""
    from trainer import base
    from trainer.data.stage import thaw
    from trainer.export.header import read_header
    from trainer.export.modelfile import PROBES, go_template, modelfile, parameters

    tokenizer = base.load_tokenizer(merged)

    def render(chat: list[dict[str, str]]) -> str:
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return text.removeprefix(tokenizer.bos_token or "")

    staged = thaw(folder.path / "data")
    settings = parameters(config, read_header(gguf), greedy=bool(staged and staged.card["labels"]))
    template = go_template([render(chat) for chat in PROBES]) if tokenizer.chat_template else None
    text = modelfile(gguf, template, settings, config.system_prompt)
    write_atomic(folder.path / "export" / "Modelfile", text)
    return {"template": template, "parameters": settings, "system": config.system_prompt, "render": render}


def _hand_over(
    folder: RunFolder,
    server: Any,
    name: str,
    made: dict[str, Any],
    settings: dict[str, Any],
    quantize: str | None,
) -> str:
    from trainer.export.push import push

    parity = made["parity"]
    if not parity["ready"]:
        raise UserError(
            f"{folder.id}: not handed to Ollama: llama.cpp answers as in training on only {parity['same']} of "
            f"{parity['rows']} rows. {parity['cause']['en']}"
        )
    folder.set_status(stage="ollama", step=0, total_steps=None)
    rendered = push(server, name, made["gguf"], **settings, quantize=quantize)
    print(
        f"ollama: {name} is ready" + ("" if rendered else "; this server cannot show how it renders"),
        flush=True,
    )
    return name


def _reporter(folder: RunFolder, unit: int = 1) -> Callable[[int, int], None]:
    """A progress callback that writes the status twice a second at most."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        if done >= total or time.monotonic() - last > 0.5:
            last = time.monotonic()
            folder.set_status(step=done // unit, total_steps=max(1, total // unit))

    return report
